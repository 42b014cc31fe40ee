//! The ledger as the engine uses it: each commit is applied to the seat view, and told to the other instances and to
//! the waiting room.
//!
//! The view is brought up to date before the caller gets its answer, so whoever reads after it sees it. The others are
//! told at once and without waiting (`siblings`). The room is
//! told by a task behind a bounded queue; what does not fit is told by the relay, which tells everything again from
//! the outbox. A crash between commit and telling wastes a slot until its turn ends; it never admits too many.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_domain::{Batch, ConcertId, Decision, IdempotencyKey, Key, Outcome, Reply, Request, Timestamp, UserId};
use boxoffice_ports::{Committed, Guard, Ledger, LedgerError, Queries, RoomError, Source, StoredAnswer, WaitingRoom};
use tokio::sync::mpsc;

use crate::{SeatView, Siblings};

/// How many payments may wait to be told of before the relay has to.
const TOLD_MAX: usize = 8_192;

/// Ends the turns of those who paid. Telling twice is harmless.
pub struct RoomTeller {
    room: Arc<dyn WaitingRoom>,
    queries: Arc<dyn Queries>,
}

impl RoomTeller {
    pub fn new(room: Arc<dyn WaitingRoom>, queries: Arc<dyn Queries>) -> Arc<Self> {
        Arc::new(Self { room, queries })
    }

    /// `user` paid something of `concert`: the turn is over unless another live hold of theirs remains.
    pub async fn paid(&self, user: UserId, concert: ConcertId, paid_at: Timestamp) -> Result<(), Source> {
        if !self.queries.live_holds(user, concert).await?.is_empty() {
            return Ok(());
        }
        match self.room.finish(concert, user, paid_at).await {
            // Its concert is not on sale here: nobody waits for the slot.
            Err(RoomError::NoRoom) => Ok(()),
            other => other.map_err(Source::from),
        }
    }
}

/// See the module's opening.
pub struct Watched {
    inner: Arc<dyn Ledger>,
    seats: Arc<SeatView>,
    siblings: Arc<Siblings>,
    paid: mpsc::Sender<(UserId, ConcertId, Timestamp)>,
}

impl Watched {
    /// Starts the task that tells the room, on the current tokio runtime; it ends with the ledger.
    pub fn start(inner: Arc<dyn Ledger>, seats: Arc<SeatView>, siblings: Arc<Siblings>, teller: Arc<RoomTeller>) -> Arc<Self> {
        let (paid, mut payments) = mpsc::channel(TOLD_MAX);
        tokio::spawn(async move {
            while let Some((user, concert, paid_at)) = payments.recv().await {
                if let Err(error) = teller.paid(user, concert, paid_at).await {
                    tracing::warn!(error, concert.id = %concert, "the waiting room was not told of a payment; the relay will");
                }
            }
        });
        Arc::new(Self { inner, seats, siblings, paid })
    }
}

#[async_trait]
impl Ledger for Watched {
    async fn transact(&self, batch: Batch, guard: Guard) -> Result<Committed, LedgerError> {
        let committed = self.inner.transact(batch, guard).await?;
        self.seats.apply(&committed.seats);
        self.siblings.tell(&committed.seats);
        for reply in &committed.replies {
            if let Reply { decision: Decision::Done(Outcome::Paid { payment, reservation }), replayed: false, .. } = reply {
                // Full: the relay tells it from the outbox.
                let _ = self.paid.try_send((reservation.user, reservation.concert.id, payment.paid_at));
            }
        }
        Ok(committed)
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
    use crate::testing::{CONCERT, DATE, ScriptedLedger, TestClock, at, charge, committed, id, key, paid, policy, seat_row, until};
    use crate::{SeatStatus, SeatView};
    use boxoffice_domain::{SeatChange, SeatState};
    use boxoffice_ports::{MockFanout, MockQueries, MockWaitingRoom};
    use std::sync::atomic::{AtomicU32, Ordering};

    fn teller(holds: usize, finished: &Arc<AtomicU32>) -> Arc<RoomTeller> {
        let (mut queries, mut room) = (MockQueries::new(), MockWaitingRoom::new());
        queries.expect_live_holds().returning(move |user, concert| {
            assert_eq!((user, concert), (id(5), id(CONCERT)));
            Ok(vec![id(9); holds])
        });
        let finished = finished.clone();
        room.expect_finish().returning(move |concert, user, paid_at| {
            assert_eq!((user, concert, paid_at), (id(5), id(CONCERT), at(0)));
            finished.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        RoomTeller::new(Arc::new(room), Arc::new(queries))
    }

    #[tokio::test]
    async fn a_payment_ends_the_turn_unless_another_hold_lives() {
        for (holds, times) in [(0, 1), (1, 0)] {
            let finished = Arc::default();
            teller(holds, &finished).paid(id(5), id(CONCERT), at(0)).await.unwrap();
            assert_eq!(finished.load(Ordering::SeqCst), times);
        }
    }

    #[tokio::test]
    async fn a_concert_without_a_room_has_nobody_to_tell() {
        for (said, fine) in [(RoomError::NoRoom, true), (RoomError::Unavailable("gone".into()), false)] {
            let (mut queries, mut room) = (MockQueries::new(), MockWaitingRoom::new());
            queries.expect_live_holds().returning(|_, _| Ok(Vec::new()));
            let said = std::sync::Mutex::new(Some(said));
            room.expect_finish().once().returning(move |_, _, _| Err(said.lock().unwrap().take().unwrap()));
            let told = RoomTeller::new(Arc::new(room), Arc::new(queries)).paid(id(5), id(CONCERT), at(0)).await;
            assert_eq!(told.is_ok(), fine, "{told:?}");
        }
    }

    #[tokio::test]
    async fn a_commit_is_seen_before_its_caller_is_answered() {
        let mut queries = MockQueries::new();
        queries.expect_seats().returning(|_| Ok(vec![seat_row(1, 1, SeatState::Available)]));
        let seats = SeatView::new(Arc::new(queries), Arc::new(TestClock::default()));
        assert_eq!(seats.date(id(DATE)).await.unwrap().unwrap().statuses, [SeatStatus::Available]);
        let ledger = ScriptedLedger::new(|batch| {
            let mut committed = committed(batch);
            let replayed = batch.requests.len() > 1;
            committed.replies[0] = Reply { decision: Decision::Done(paid(5)), replayed, ..committed.replies[0].clone() };
            committed.seats = vec![SeatChange { key: key(1), version: 2, state: SeatState::Sold { reservation: id(2) } }];
            Ok(committed)
        });
        let finished = Arc::default();
        let told = Arc::<std::sync::Mutex<Vec<SeatChange>>>::default();
        let mut fanout = MockFanout::new();
        let others = told.clone();
        fanout.expect_tell().returning(move |changes| {
            others.lock().unwrap().extend(changes);
            Ok(())
        });
        let siblings = Siblings::start(Some(Arc::new(fanout)));
        let watched = Watched::start(ledger, seats.clone(), siblings, teller(0, &finished));
        watched.transact(Batch::new(vec![charge(5, 1)], policy()), Guard::RowLock).await.unwrap();
        assert_eq!(seats.date(id(DATE)).await.unwrap().unwrap().statuses, [SeatStatus::Sold]);
        until(|| finished.load(Ordering::SeqCst) == 1 && told.lock().unwrap().iter().any(|change| change.key == key(1))).await;
        // A replay was told when it was new.
        watched.transact(Batch::new(vec![charge(5, 1), charge(5, 2)], policy()), Guard::RowLock).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(finished.load(Ordering::SeqCst), 1);
    }
}
