//! A store with the demo concert on sale, and the short ways in which tests use it.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_domain::{
    Batch, ConcertId, DateId, Decision, Event, Outcome, Payment, Policy, Rejection, Reply, Request, Reservation, ReservationId, SeatChange,
    SeatNumber, SeatState, Timestamp, UserId, WalletEntry,
};
use chrono::TimeDelta;

use super::build;
use super::fixture::Fixture;
use crate::{Committed, Deadline, Guard, LedgerError, OutboxRow, SeatRow};

/// How often a batch is run again before a test gives up.
const TRIES_MAX: u32 = 10_000;
/// How long one ledger call may take.
const CALL_MAX: Duration = Duration::from_secs(30);

pub struct Shop {
    pub fixture: Fixture,
    pub policy: Arc<Policy>,
    pub concert: ConcertId,
    pub date: DateId,
    pub other_date: DateId,
}

impl Shop {
    /// Imports the demo plan into an empty store.
    pub async fn open(fixture: Fixture) -> Arc<Self> {
        let now = fixture.stores.queries.now().await.expect("the store's clock");
        let imported = fixture.stores.catalog.import(vec![build::demo_plan(now)], build::admission()).await.expect("an import");
        let (concert, dates) = (imported[0].id, &imported[0].dates);
        let (date, other_date) = (dates[0].id, dates[1].id);
        Arc::new(Self { fixture, policy: Arc::new(build::policy()), concert, date, other_date })
    }

    /// The end of every case: nothing in the store breaks an invariant.
    pub async fn close(&self) {
        let report = self.fixture.stores.audit.audit(self.policy.max_seats_per_user).await.expect("an audit");
        assert!(report.breaches.is_empty(), "{:#?}", report.breaches);
        let seats = report.counted.iter().find(|(name, _)| *name == "seats").map(|(_, count)| *count);
        assert!(seats >= Some(u64::from(build::HALL) * 2), "the audit saw the seats: {:?}", report.counted);
    }

    pub async fn now(&self) -> Timestamp {
        self.fixture.stores.queries.now().await.expect("the store's clock")
    }

    pub fn advance(&self, by: TimeDelta) {
        (self.fixture.advance)(by);
    }

    /// Moves time to where every hold made so far is over.
    pub fn advance_past_holds(&self) {
        self.advance(TimeDelta::seconds(i64::from(self.policy.hold_ttl_s) + 1));
    }

    /// One transaction, run again for as long as the store's error permits it.
    pub async fn transact(&self, requests: Vec<Request>, guard: Guard) -> Result<Committed, LedgerError> {
        let batch = Batch::new(requests, Arc::clone(&self.policy));
        for _ in 0..TRIES_MAX {
            match self.fixture.stores.ledger.transact(batch.clone(), guard, Deadline::after(CALL_MAX)).await {
                Err(LedgerError::Conflict) if guard == Guard::RowLock => panic!("a conflict, with the rows locked"),
                Err(LedgerError::Conflict | LedgerError::Retryable(_)) => tokio::task::yield_now().await,
                done => return done,
            }
        }
        panic!("still in conflict after {TRIES_MAX} tries");
    }

    pub async fn commit(&self, requests: Vec<Request>) -> Committed {
        self.transact(requests, Guard::RowLock).await.expect("a commit")
    }

    pub async fn run(&self, requests: Vec<Request>) -> Vec<Reply> {
        let wanted = requests.len();
        let replies = self.commit(requests).await.replies;
        assert_eq!(replies.len(), wanted, "one reply for each request");
        replies
    }

    pub async fn one(&self, request: Request) -> Reply {
        self.run(vec![request]).await.remove(0)
    }

    pub async fn one_guarded(&self, request: Request, guard: Guard) -> Reply {
        self.transact(vec![request], guard).await.expect("a commit").replies.remove(0)
    }

    /// The outcome of a request that is accepted.
    pub async fn done(&self, request: Request) -> Outcome {
        done(&self.one(request).await)
    }

    /// The refusal of a request that is not.
    pub async fn refused(&self, request: Request) -> Rejection {
        refused(&self.one(request).await)
    }

    pub async fn charge(&self, user: UserId, amount: i64) -> WalletEntry {
        let key = format!("charge-{}", build::fresh::<ReservationId>());
        entry(&self.one(build::charge(user, &key, amount)).await)
    }

    pub async fn hold(&self, user: UserId, numbers: &[SeatNumber]) -> Reservation {
        let key = format!("hold-{}", build::fresh::<ReservationId>());
        reservation(&self.one(build::hold(user, &key, self.date, numbers)).await)
    }

    /// Charges what it costs, then pays.
    pub async fn buy(&self, user: UserId, numbers: &[SeatNumber]) -> (Payment, Reservation) {
        let held = self.hold(user, numbers).await;
        self.charge(user, held.total()).await;
        let key = format!("pay-{}", held.id);
        paid(&self.one(build::pay(user, &key, held.id, 0)).await)
    }

    pub async fn seats(&self) -> Vec<SeatRow> {
        self.fixture.stores.queries.seats(self.date).await.expect("seats")
    }

    pub async fn seat(&self, number: SeatNumber) -> SeatRow {
        self.seats().await.into_iter().find(|row| row.seat.key.number == number).expect("the seat")
    }

    /// Free, in a live hold, and sold seats of the date.
    pub async fn tally(&self) -> (u64, u64, u64) {
        let now = self.now().await;
        let mut tally = (0, 0, 0);
        for row in self.seats().await {
            match row.seat.state {
                SeatState::Sold { .. } => tally.2 += 1,
                state if state.is_free(now) => tally.0 += 1,
                _ => tally.1 += 1,
            }
        }
        tally
    }

    pub async fn balance(&self, user: UserId) -> i64 {
        self.fixture.stores.queries.wallet(user).await.expect("a wallet").balance
    }

    pub async fn points(&self, user: UserId) -> i64 {
        self.fixture.stores.queries.wallet(user).await.expect("a wallet").points
    }

    pub async fn entries(&self, user: UserId) -> Vec<WalletEntry> {
        self.fixture.stores.queries.entries(user, None, 10_000).await.expect("entries").items
    }

    pub async fn reservation(&self, user: UserId, id: ReservationId) -> Reservation {
        self.fixture.stores.queries.reservation(user, id).await.expect("a reservation").expect("a reservation of the user")
    }

    /// Every unsent row of every shard, each shard's in its order.
    pub async fn outbox(&self) -> Vec<OutboxRow> {
        let mut rows = Vec::new();
        for shard in 0..OUTBOX_SHARDS {
            rows.extend(self.fixture.stores.outbox.unsent(shard, 10_000).await.expect("the outbox"));
        }
        rows
    }

    /// The events of a seat, in its order.
    pub async fn seat_events(&self, number: SeatNumber) -> Vec<OutboxRow> {
        let date_of_shop = self.date;
        let of_seat = |row: &OutboxRow| matches!(row.event, Event::Seat { date, seat, .. } if date == date_of_shop && seat == number);
        self.outbox().await.into_iter().filter(of_seat).collect()
    }

    /// How many events are of this kind, as published.
    pub async fn events_of(&self, kind: &str) -> usize {
        self.outbox().await.iter().filter(|row| row.event.kind() == kind).count()
    }
}

pub fn done(reply: &Reply) -> Outcome {
    match &reply.decision {
        Decision::Done(outcome) => outcome.clone(),
        other => panic!("accepted was expected, and not {other:?}"),
    }
}

pub fn refused(reply: &Reply) -> Rejection {
    match &reply.decision {
        Decision::Refused(rejection) => rejection.clone(),
        other => panic!("a refusal was expected, and not {other:?}"),
    }
}

pub fn is_done(reply: &Reply) -> bool {
    matches!(reply.decision, Decision::Done(_))
}

pub fn entry(reply: &Reply) -> WalletEntry {
    match done(reply) {
        Outcome::Entered { entry } => entry,
        other => panic!("an entry was expected, and not {other:?}"),
    }
}

/// The reservation of a hold, an extension, a release or an expiry.
pub fn reservation(reply: &Reply) -> Reservation {
    match done(reply) {
        Outcome::Held { reservation, .. }
        | Outcome::Extended { reservation, .. }
        | Outcome::Released { reservation }
        | Outcome::Expired { reservation } => reservation,
        other => panic!("a reservation was expected, and not {other:?}"),
    }
}

/// The payment and reservation of a payment or a refund.
pub fn paid(reply: &Reply) -> (Payment, Reservation) {
    match done(reply) {
        Outcome::Paid { payment, reservation, .. } | Outcome::Refunded { payment, reservation } => (payment, reservation),
        other => panic!("a payment was expected, and not {other:?}"),
    }
}

/// The numbers of changed seats, ascending.
pub fn numbers(changes: &[SeatChange]) -> Vec<SeatNumber> {
    let mut numbers: Vec<_> = changes.iter().map(|change| change.key.number).collect();
    numbers.sort_unstable();
    numbers
}
