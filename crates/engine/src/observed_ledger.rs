//! The ledger as the engine uses it: each commit is applied to the seat view and published to the other instances. If
//! it ends turns, their ends are appended to the waiting room's log.
//!
//! The view is brought up to date before the caller gets its answer, so a reader that comes after it sees the commit.
//! The other instances and the room get theirs at once, and nothing waits for them here (`peers`, `turn_ends`).
//!
//! A commit and what follows it run in a task of their own: a caller that goes away changes neither. A crash between
//! the two leaves the ends of turns to the relay, which repeats every payment from the outbox.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_domain::{Batch, Decision, IdempotencyKey, Key, Outcome, Request};
use boxoffice_ports::{Committed, Deadline, Guard, Ledger, LedgerError, StoredAnswer};
use tokio::runtime::Handle;
use tracing::Instrument;

use crate::{KnownHolds, Peers, SeatView, TurnEnd, TurnEnds};

/// See the module's opening.
pub struct ObservedLedger {
    inner: Arc<dyn Ledger>,
    follows: Arc<Follows>,
    runtime: Handle,
}

/// What follows a commit.
struct Follows {
    seats: Arc<SeatView>,
    peers: Arc<Peers>,
    turns: Arc<TurnEnds>,
    holds: Arc<KnownHolds>,
}

impl Follows {
    fn commit(&self, committed: &Committed) {
        self.seats.apply(&committed.seats);
        self.peers.publish(&committed.seats);
        // A replay has had its effects when it was new.
        for reply in committed.replies.iter().filter(|reply| !reply.replayed) {
            if let Decision::Done(Outcome::Held { reservation, .. }) = &reply.decision {
                self.holds.made(reservation);
            }
            if let Some(end) = TurnEnd::of_reply(reply) {
                self.turns.begin(end);
            }
        }
    }
}

impl ObservedLedger {
    /// The ledger's calls run on the current tokio runtime, even if the caller is on another.
    pub fn new(inner: Arc<dyn Ledger>, seats: Arc<SeatView>, peers: Arc<Peers>, turns: Arc<TurnEnds>, holds: Arc<KnownHolds>) -> Arc<Self> {
        Arc::new(Self { inner, follows: Arc::new(Follows { seats, peers, turns, holds }), runtime: Handle::current() })
    }
}

#[async_trait]
impl Ledger for ObservedLedger {
    async fn transact(&self, batch: Batch, guard: Guard, deadline: Deadline) -> Result<Committed, LedgerError> {
        let (inner, follows) = (self.inner.clone(), self.follows.clone());
        let call = async move {
            let committed = inner.transact(batch, guard, deadline).await?;
            follows.commit(&committed);
            Ok(committed)
        };
        match self.runtime.spawn(call.in_current_span()).await {
            Ok(result) => result,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => Err(LedgerError::Unavailable("the server is stopping".into())),
            },
        }
    }

    async fn held(&self, requests: Arc<[Request]>) -> Result<BTreeSet<Key>, LedgerError> {
        self.inner.held(requests).await
    }

    async fn reply(&self, key: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        self.inner.reply(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::room::FakeRoom;
    use crate::testing::{
        CONCERT, DATE, ScriptedLedger, TestClock, charge, committed, empty_catalogue, id, key, paid, policy, seat_row, soon, until,
    };
    use crate::{SeatStatus, Supervisor};
    use boxoffice_domain::{Reply, SeatChange, SeatState};
    use boxoffice_ports::{MockFanout, MockQueries};
    use std::sync::Mutex;
    use std::time::Duration;

    /// A ledger that sells seat 1 to user 5 with every batch; of more than one request, as a replay.
    fn sells(ledger: impl FnOnce(fn(&Batch) -> Result<Committed, LedgerError>) -> Arc<ScriptedLedger>) -> Arc<ScriptedLedger> {
        ledger(|batch| {
            let mut committed = committed(batch);
            let replayed = batch.requests.len() > 1;
            committed.replies[0] = Reply { decision: Decision::Done(paid(5)), replayed, ..committed.replies[0].clone() };
            committed.seats = vec![SeatChange { key: key(1), version: 2, state: SeatState::Sold { reservation: id(2) } }];
            Ok(committed)
        })
    }

    async fn view() -> Arc<SeatView> {
        let mut queries = MockQueries::new();
        queries.expect_seats().returning(|_| Ok(vec![seat_row(1, 1, SeatState::Available)]));
        let seats = SeatView::new(Arc::new(queries), Arc::new(TestClock::default()));
        assert_eq!(statuses(&seats).await, [SeatStatus::Available]);
        seats
    }

    async fn statuses(seats: &SeatView) -> Vec<SeatStatus> {
        seats.date(id(DATE)).await.unwrap().unwrap().statuses.to_vec()
    }

    fn ends(room: &Arc<FakeRoom>) -> Arc<TurnEnds> {
        TurnEnds::new(room.clone(), empty_catalogue(), Duration::from_millis(250))
    }

    #[tokio::test]
    async fn a_commit_is_seen_before_its_caller_is_answered() {
        let (seats, room) = (view().await, FakeRoom::open());
        let published = Arc::<Mutex<Vec<SeatChange>>>::default();
        let mut fanout = MockFanout::new();
        let others = published.clone();
        fanout.expect_publish().returning(move |changes| {
            others.lock().unwrap().extend(changes);
            Ok(())
        });
        let peers = Peers::start(Some(Arc::new(fanout)), &*Supervisor::new());
        let watched = ObservedLedger::new(sells(ScriptedLedger::new), seats.clone(), peers, ends(&room), Arc::default());
        watched.transact(Batch::new(vec![charge(5, 1)], policy()), Guard::RowLock, soon()).await.unwrap();
        assert_eq!(statuses(&seats).await, [SeatStatus::Sold]);
        until(|| room.ended() == [id(5)] && published.lock().unwrap().iter().any(|change| change.key == key(1))).await;
        // A replay has had its effects when it was new.
        watched.transact(Batch::new(vec![charge(5, 1), charge(5, 2)], policy()), Guard::RowLock, soon()).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(room.asked(), 1);
    }

    #[tokio::test]
    async fn what_follows_a_commit_happens_without_its_caller() {
        let (seats, room) = (view().await, FakeRoom::open());
        let ledger = sells(ScriptedLedger::gated);
        let watched =
            ObservedLedger::new(ledger.clone(), seats.clone(), Peers::start(None, &*Supervisor::new()), ends(&room), Arc::default());
        let call = tokio::spawn(async move { watched.transact(Batch::new(vec![charge(5, 1)], policy()), Guard::RowLock, soon()).await });
        until(|| ledger.begun.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
        call.abort();
        assert!(call.await.is_err_and(|end| end.is_cancelled()));
        ledger.let_through(1);
        until(|| room.ended() == [id(5)]).await;
        assert_eq!(statuses(&seats).await, [SeatStatus::Sold]);
    }

    #[tokio::test]
    async fn a_hold_that_was_made_here_is_known() {
        let (seats, room, holds) = (view().await, FakeRoom::open(), Arc::<KnownHolds>::default());
        let ledger = ScriptedLedger::new(|batch| {
            let mut committed = committed(batch);
            let Outcome::Paid { reservation, .. } = paid(5) else { unreachable!() };
            let decision = Decision::Done(Outcome::Held { reservation, extensions_left: 1 });
            committed.replies[0] = Reply { decision, ..committed.replies[0].clone() };
            Ok(committed)
        });
        let watched = ObservedLedger::new(ledger, seats, Peers::start(None, &*Supervisor::new()), ends(&room), holds.clone());
        watched.transact(Batch::new(vec![charge(5, 1)], policy()), Guard::RowLock, soon()).await.unwrap();
        assert_eq!(holds.concert_of(id(5), id(2)), Some(id(CONCERT)));
    }

    #[tokio::test]
    async fn a_panic_of_the_ledger_reaches_its_caller() {
        let (seats, room) = (view().await, FakeRoom::open());
        let watched = ObservedLedger::new(
            ScriptedLedger::new(|_| panic!("a defect")),
            seats,
            Peers::start(None, &*Supervisor::new()),
            ends(&room),
            Arc::default(),
        );
        let call = tokio::spawn(async move { watched.transact(Batch::new(vec![charge(5, 1)], policy()), Guard::RowLock, soon()).await });
        assert!(call.await.is_err_and(|end| end.is_panic()));
    }
}
