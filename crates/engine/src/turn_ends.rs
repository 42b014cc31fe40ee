//! Turns that end with a payment. The end is appended to the waiting room's log at once. An answer that ends a turn
//! waits for that, so that the buyer finds the turn ended on every instance.
//!
//! This instance appends an end once, however many ask for it: the commit that made the payment, the caller that is
//! answered, a replay, the relay. Ends of the same moment share an exchange with the log (`rooms`), and none waits for
//! the answer of another.
//!
//! *Bounds.* An answer waits for `wait` at most; an append is given up after [`APPEND_MAX`]. [`UNDER_WAY_MAX`] ends are
//! under way at once; the relay appends the others. The last [`ENDED_MAX`] ends are remembered, twice as many at most.
//! An older one is appended again, which changes nothing.
//!
//! *Failure.* A room that is away costs each payment `wait` at most, and the relay ends the turn from the outbox. A
//! crash between the commit and the append leaves it to the relay, too: a slot is wasted until then, and the room never
//! admits too many.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boxoffice_domain::{ConcertId, Decision, Event, Outcome, PaymentId, Reply, Timestamp, UserId};
use boxoffice_ports::{OutboxRow, RoomError, WaitingRoom};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::Catalogue;
use crate::sync::lock;

/// Ends under way at once.
const UNDER_WAY_MAX: usize = 8_192;
/// How long one append may take. Longer, and it has failed; the relay repeats it.
const APPEND_MAX: Duration = Duration::from_secs(5);
/// Ends remembered in each of two halves.
const ENDED_MAX: usize = 16_384;

/// A payment that ends a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnEnd {
    pub payment: PaymentId,
    pub user: UserId,
    pub concert: ConcertId,
    pub paid_at: Timestamp,
}

impl TurnEnd {
    /// Of a reply, replayed or not; `None` for all but a payment of the last live hold.
    pub fn of_reply(reply: &Reply) -> Option<Self> {
        match &reply.decision {
            Decision::Done(Outcome::Paid { payment, reservation, last_hold: true }) => {
                Some(Self { payment: payment.id, user: payment.user, concert: reservation.concert.id, paid_at: payment.paid_at })
            }
            _ => None,
        }
    }

    /// Of an event in the outbox.
    pub(crate) fn of_row(row: &OutboxRow) -> Option<Self> {
        match row.event {
            Event::PaymentPaid { payment, user, concert, last_hold: true, .. } => {
                Some(Self { payment, user, concert, paid_at: row.occurred_at })
            }
            _ => None,
        }
    }
}

/// Why a turn may still run.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TurnEndError {
    #[error("too many ends of turns are under way")]
    TooMany,
    #[error("timed out waiting for the waiting room to end a turn")]
    Late,
    #[error("the waiting room could not end a turn: {0}")]
    Failed(Arc<str>),
}

type Ended = Result<(), TurnEndError>;
/// `None` while the end is under way.
type Progress = watch::Receiver<Option<Ended>>;

#[derive(Default)]
struct Known {
    under_way: HashMap<PaymentId, Progress>,
    /// The younger half, then the older one.
    ended: [HashSet<PaymentId>; 2],
}

impl Known {
    fn has_ended(&self, payment: PaymentId) -> bool {
        self.ended.iter().any(|half| half.contains(&payment))
    }

    fn remember(&mut self, payment: PaymentId) {
        let [younger, older] = &mut self.ended;
        if younger.len() >= ENDED_MAX {
            std::mem::swap(younger, older);
            younger.clear();
        }
        younger.insert(payment);
    }
}

/// See the module's opening.
pub struct TurnEnds {
    room: Arc<dyn WaitingRoom>,
    catalogue: Arc<Catalogue>,
    wait: Duration,
    known: Arc<Mutex<Known>>,
    runtime: Handle,
}

impl TurnEnds {
    /// On the current tokio runtime, which appends from now on. `wait`: how long an answer waits for the room.
    pub fn new(room: Arc<dyn WaitingRoom>, catalogue: Arc<Catalogue>, wait: Duration) -> Arc<Self> {
        Arc::new(Self { room, catalogue, wait, known: Arc::default(), runtime: Handle::current() })
    }

    /// Begins to end a turn, unless that is under way or done. Never waits.
    pub fn begin(&self, end: TurnEnd) {
        // What does not fit is left to the relay.
        drop(self.progress(end));
    }

    /// Waits until every instance finds the turn ended, but no longer than an answer waits for the room. Whether it has
    /// ended.
    pub async fn ended_in_time(&self, end: TurnEnd) -> bool {
        self.ended_within(end, self.wait).await.is_ok()
    }

    /// Whether this instance has ended it.
    pub(crate) fn has_ended(&self, end: TurnEnd) -> bool {
        lock(&self.known).has_ended(end.payment)
    }

    /// Waits like [`Self::ended_in_time`], within another bound.
    pub(crate) async fn ended_within(&self, end: TurnEnd, bound: Duration) -> Ended {
        let Some(mut progress) = self.progress(end)? else { return Ok(()) };
        match timeout(bound, progress.wait_for(Option::is_some)).await {
            Ok(Ok(ended)) => ended.clone().unwrap_or(Err(TurnEndError::Late)),
            Ok(Err(_)) => Err(TurnEndError::Failed("the task that appends it has ended".into())),
            Err(_) => Err(TurnEndError::Late),
        }
    }

    /// `Ok(None)` if the turn has ended already.
    fn progress(&self, end: TurnEnd) -> Result<Option<Progress>, TurnEndError> {
        let mut known = lock(&self.known);
        if known.has_ended(end.payment) {
            return Ok(None);
        }
        if let Some(progress) = known.under_way.get(&end.payment) {
            return Ok(Some(progress.clone()));
        }
        if known.under_way.len() >= UNDER_WAY_MAX {
            return Err(TurnEndError::TooMany);
        }
        let (done, progress) = watch::channel(None);
        known.under_way.insert(end.payment, progress.clone());
        drop(known);
        let under_way = UnderWay { known: self.known.clone(), payment: end.payment, done };
        self.runtime.spawn(under_way.append(self.room.clone(), self.catalogue.clone(), end));
        Ok(Some(progress))
    }
}

/// One end under way. However its task ends, the next caller may begin it again.
struct UnderWay {
    known: Arc<Mutex<Known>>,
    payment: PaymentId,
    done: watch::Sender<Option<Ended>>,
}

impl UnderWay {
    async fn append(self, room: Arc<dyn WaitingRoom>, catalogue: Arc<Catalogue>, TurnEnd { user, concert, paid_at, .. }: TurnEnd) {
        let append = catalogue.with_room(&*room, concert, || room.finish(concert, user, paid_at));
        let ended = match timeout(APPEND_MAX, append).await {
            // A concert that is not in the store has no turn to end.
            Ok(Ok(()) | Err(RoomError::NoRoom)) => Ok(()),
            Ok(Err(error)) => Err(TurnEndError::Failed(error.to_string().into())),
            Err(_) => Err(TurnEndError::Late),
        };
        match &ended {
            Ok(()) => lock(&self.known).remember(self.payment),
            Err(error) => tracing::debug!(%error, concert.id = %concert, "a paid turn could not be ended; the relay will end it"),
        }
        // Succeeds without a receiver, too: no caller may be waiting.
        self.done.send_replace(Some(ended));
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.known).under_way.remove(&self.payment);
    }
}

#[cfg(test)]
mod tests;
