//! The room that a case is about, and the short ways in which cases use it.

use std::sync::Arc;

use boxoffice_domain::waiting::{Entered, RoomCounts, Ticked};
use boxoffice_domain::{Admission, ConcertId, Place, QueueEntryId, QueueStatus, Stock, Timestamp, UserId};
use chrono::TimeDelta;

use super::super::build::{admission, fresh, user};
use super::super::fixture::Fixture;
use super::super::shop::Shop;
use crate::{Opening, WaitingRoom};

/// The most ticks until the list of a draw is closed, drawn, and its first have gone.
pub(super) const STEPS_MAX: u32 = 5;
/// More seats than these cases could take.
pub(super) const PLENTY: Stock = Stock { obtainable: 1_000_000, linked: true };
/// How often a turn can be lengthened in the rooms of a [`RoomFixture`].
pub const EXTENSIONS_MAX: u32 = 1;
/// The lane beside the general one, and its share in thousandths.
pub const LANE: (&str, u16) = ("members", 300);

/// Two instances of the rooms of one fresh store, which obey the same.
pub struct RoomFixture {
    pub store: Fixture,
    pub room: Arc<dyn WaitingRoom>,
    pub other: Arc<dyn WaitingRoom>,
}

/// The room of one concert.
pub(super) struct RoomCase {
    pub(super) shop: Arc<Shop>,
    pub(super) room: Arc<dyn WaitingRoom>,
    pub(super) other: Arc<dyn WaitingRoom>,
    pub(super) concert: ConcertId,
}

impl RoomCase {
    pub(super) async fn open(fixture: RoomFixture, admission: Admission) -> Arc<Self> {
        Self::open_for_sale(fixture, admission, None).await
    }

    pub(super) async fn open_for_sale(fixture: RoomFixture, admission: Admission, sale_in: Option<TimeDelta>) -> Arc<Self> {
        let RoomFixture { store, room, other } = fixture;
        let shop = Shop::open(store).await;
        let (concert, now) = (shop.concert, shop.now().await);
        let opening = Opening { concert, sale_starts_at: sale_in.map(|by| now + by), admission };
        for room in [&room, &other] {
            room.open(opening).await.expect("a room");
        }
        Arc::new(Self { shop, room, other, concert })
    }

    pub(super) async fn join(&self, user: UserId) -> Place {
        self.enter(&self.room, user).await.place
    }

    pub(super) async fn enter(&self, room: &Arc<dyn WaitingRoom>, user: UserId) -> Entered {
        room.join(self.concert, user, None, fresh()).await.expect("a place")
    }

    pub(super) async fn join_many(&self, count: usize) -> Vec<Place> {
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            places.push(self.join(user()).await);
        }
        places
    }

    pub(super) async fn tick(&self, stock: Stock) -> Ticked {
        self.room.tick(self.concert, stock).await.expect("a tick")
    }

    /// As a poll sees it; the place where the truth is must agree.
    pub(super) async fn place(&self, entry: QueueEntryId) -> Place {
        let place = self.room.place(self.concert, entry).await.expect("a room").expect("a place");
        let touched = self.room.touch(self.concert, entry).await.expect("a room").expect("a place");
        assert_eq!((touched.status, touched.arrival, touched.active_until), (place.status, place.arrival, place.active_until));
        place
    }

    pub(super) async fn status(&self, entry: QueueEntryId) -> QueueStatus {
        self.place(entry).await.status
    }

    pub(super) async fn counts(&self) -> RoomCounts {
        self.room.counts(self.concert).await.expect("counts")
    }

    pub(super) async fn leave(&self, entry: QueueEntryId) {
        self.room.leave(self.concert, entry).await.expect("left");
    }

    pub(super) async fn finish(&self, user: UserId) {
        self.finish_paid_at(user, Timestamp::MAX_UTC).await;
    }

    pub(super) async fn finish_paid_at(&self, user: UserId, paid_at: Timestamp) {
        self.room.finish(self.concert, user, paid_at).await.expect("finished");
    }

    pub(super) async fn set(&self, admission: Admission) {
        let was = self.room.admission(self.concert).await.expect("an admission");
        assert!(self.room.set_admission(self.concert, was, admission).await.expect("set"), "no concurrent change");
    }

    /// Moves time past the instant at which this turn ends: what an instance takes for the log's time may be a round
    /// trip behind it.
    pub(super) async fn advance_to_end(&self, place: &Place) {
        let left = place.active_until.expect("a turn") - self.shop.now().await;
        self.shop.advance(left.max(TimeDelta::zero()) + TimeDelta::seconds(2));
    }
}

pub(super) fn promoted(promoted: u64) -> Ticked {
    Ticked { promoted, ..Ticked::default() }
}

pub(super) fn at_most(max_active: u32) -> Admission {
    Admission { max_active, ..admission() }
}
