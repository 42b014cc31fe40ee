//! The suites that every store and every waiting room passes, by one instance and by two that take turns.

use super::support::Place;
use async_trait::async_trait;
use boxoffice_adapters::postgres::PostgresStore;
use boxoffice_domain::{Admission, ConcertId, Entered, Place as QueuePlace, QueueEntryId, RoomCounts, Stock, Timestamp, UserId};
use boxoffice_ports::contract::Fixture;
use boxoffice_ports::{PlaceClaim, RoomError, RoomTerms, Ticked, WaitingRoom};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const ACTIVE_TTL_S: u32 = 600;

pub(crate) async fn fixture() -> Fixture {
    let place = Place::new();
    let store = place.open().await;
    let room = store.waiting_room(ACTIVE_TTL_S);
    fixture_of(place, &store, room)
}

/// Every call of the room goes to the other instance than the one before it.
async fn two_instances() -> Fixture {
    let place = Place::new();
    let (one, other) = (place.open().await, place.open().await);
    let room = InTurn { rooms: [one.waiting_room(ACTIVE_TTL_S), other.waiting_room(ACTIVE_TTL_S)], next: AtomicUsize::new(0) };
    fixture_of(place, &one, Arc::new(room))
}

fn fixture_of(place: Place, store: &Arc<PostgresStore>, room: Arc<dyn WaitingRoom>) -> Fixture {
    let clock = place.clock.clone();
    Fixture { stores: store.stores(), room, advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(place) }
}

mod one {
    boxoffice_ports::ledger_contract!(super::fixture);
    boxoffice_ports::room_contract!(super::fixture);
    boxoffice_ports::mirror_contract!(super::fixture);
}

mod two {
    boxoffice_ports::room_contract!(super::two_instances);
}

struct InTurn {
    rooms: [Arc<dyn WaitingRoom>; 2],
    next: AtomicUsize,
}

impl InTurn {
    fn next(&self) -> &dyn WaitingRoom {
        &*self.rooms[self.next.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

#[async_trait]
impl WaitingRoom for InTurn {
    async fn open(&self, terms: RoomTerms) -> Result<(), RoomError> {
        self.next().open(terms).await
    }

    async fn join(&self, concert: ConcertId, user: UserId, fresh: QueueEntryId) -> Result<Entered, RoomError> {
        self.next().join(concert, user, fresh).await
    }

    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<QueuePlace>, RoomError> {
        self.next().place(concert, entry).await
    }

    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<QueuePlace>, RoomError> {
        self.next().touch(concert, entry).await
    }

    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<QueuePlace>, RoomError> {
        self.next().restore(concert, claim).await
    }

    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError> {
        self.next().leave(concert, entry).await
    }

    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError> {
        self.next().finish(concert, user, paid_at).await
    }

    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError> {
        self.next().tick(concert, stock).await
    }

    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError> {
        self.next().admission(concert).await
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError> {
        self.next().set_admission(concert, was, to).await
    }

    async fn counts(&self, concert: ConcertId) -> Result<RoomCounts, RoomError> {
        self.next().counts(concert).await
    }
}
