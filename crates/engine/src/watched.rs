//! The ledger as the engine uses it: each commit is applied to the seat view and told to the waiting room.
//!
//! The view is brought up to date before the caller gets its answer, so whoever reads after it sees it. The room is
//! told by a task behind a bounded queue; what does not fit is told by the relay, which tells everything again from
//! the outbox. A crash between commit and telling wastes a slot until its turn ends; it never admits too many.

use std::sync::Arc;

use async_trait::async_trait;
use boxoffice_domain::{Batch, ConcertId, Decision, IdempotencyKey, Outcome, Reply, UserId};
use boxoffice_ports::{Committed, Guard, Ledger, LedgerError, Queries, RoomError, Source, StoredAnswer, WaitingRoom};
use tokio::sync::mpsc;

use crate::SeatView;

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
    pub async fn paid(&self, user: UserId, concert: ConcertId) -> Result<(), Source> {
        if !self.queries.live_holds(user, concert).await?.is_empty() {
            return Ok(());
        }
        match self.room.finish(concert, user).await {
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
    paid: mpsc::Sender<(UserId, ConcertId)>,
}

impl Watched {
    /// Starts the task that tells the room, on the current tokio runtime; it ends with the ledger.
    pub fn start(inner: Arc<dyn Ledger>, seats: Arc<SeatView>, teller: Arc<RoomTeller>) -> Arc<Self> {
        let (paid, mut payments) = mpsc::channel(TOLD_MAX);
        tokio::spawn(async move {
            while let Some((user, concert)) = payments.recv().await {
                if let Err(error) = teller.paid(user, concert).await {
                    tracing::warn!(error, concert.id = %concert, "the waiting room was not told of a payment; the relay will");
                }
            }
        });
        Arc::new(Self { inner, seats, paid })
    }
}

#[async_trait]
impl Ledger for Watched {
    async fn transact(&self, batch: Batch, guard: Guard) -> Result<Committed, LedgerError> {
        let committed = self.inner.transact(batch, guard).await?;
        self.seats.apply(&committed.seats);
        for reply in &committed.replies {
            if let Reply { decision: Decision::Done(Outcome::Paid { reservation, .. }), replayed: false, .. } = reply {
                // Full: the relay tells it from the outbox.
                let _ = self.paid.try_send((reservation.user, reservation.concert.id));
            }
        }
        Ok(committed)
    }

    async fn reply(&self, key: IdempotencyKey) -> Result<Option<StoredAnswer>, LedgerError> {
        self.inner.reply(key).await
    }
}
