//! One room of this instance: its replica, and what waits to be told to its log.
//!
//! One exchange is out at a time. Whatever comes meanwhile goes with the next one, up to [`TOGETHER_MAX`] inputs a
//! record. Whom a log has lost that is known here is told before anything else. What waits is bounded by [`WAITING_MAX`]:
//! beyond it the room is unavailable at once. A caller that goes away changes nothing: what it told is told.
//!
//! The task at the log is the only writer of the replica. It writes [`APPLIED_TOGETHER`] inputs at a time, and while it
//! copies the room nothing is written: those who read are never kept waiting for either.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use boxoffice_domain::waiting::{Room, RoomChange, RoomInput, RoomOutput};
use boxoffice_domain::{ConcertId, QueueEntryId, Timestamp, UserId};
use boxoffice_ports::{Exchanged, LogPosition, Opening, RECORDS_READ_MAX, RoomError, RoomLogError, RoomRecord};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::mirror::Mirrored;
use super::replica::Replica;
use super::{RoomNews, Shared, begin, lock};

/// Inputs told together.
const TOGETHER_MAX: usize = 2_000;
/// Inputs that wait for one room.
const WAITING_MAX: usize = 100_000;
/// How often a log that was there a moment ago may be gone before its callers are told so.
const BEGINS_MAX: u32 = 5;
/// Inputs applied under one write lock, so that those who read wait for no more.
const APPLIED_TOGETHER: usize = 2_000;
/// For how long after an exchange failed records are taken for this instance's own: what was to be appended may arrive.
const IN_DOUBT: Duration = Duration::from_secs(30);
/// Those whose turn ended because they were gone, and who are not passed on yet. Beyond it their holds run out.
const ABANDONED_MAX: usize = 100_000;
/// Connections that are told of in one step.
const CONNECTIONS_TOLD_MAX: usize = 5_000;
/// Those seen in their turn whom a step may tell of. Whoever does not fit is told of when they are seen again.
const SEEN_MAX: usize = 5_000;

/// Shared with everybody whose inputs went together.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Untold {
    #[error("{0}")]
    Failed(#[source] Arc<RoomLogError>),
    #[error("{0}")]
    Unavailable(Arc<str>),
    #[error("there is no waiting room for this concert")]
    NoRoom,
}

impl From<Untold> for RoomError {
    fn from(untold: Untold) -> Self {
        match untold {
            Untold::NoRoom => Self::NoRoom,
            other => Self::Unavailable(other.into()),
        }
    }
}

impl From<RoomLogError> for Untold {
    fn from(error: RoomLogError) -> Self {
        Self::Failed(Arc::new(error))
    }
}

pub(super) fn unavailable(error: impl std::fmt::Display) -> Untold {
    Untold::Unavailable(error.to_string().into())
}

/// What somebody wants of the log.
enum Wish {
    /// Inputs that go together, and their outputs.
    Tell(Vec<RoomInput>, oneshot::Sender<Result<Vec<RoomOutput>, Untold>>),
    /// To have heard everything that was told before.
    CatchUp(oneshot::Sender<Result<(), Untold>>),
    /// The room as it is, and where in the log.
    Copy(oneshot::Sender<Result<Option<Copied>, Untold>>),
}

/// A replica's room at one position of its log.
pub(super) struct Copied {
    pub(super) position: LogPosition,
    pub(super) since_snapshot: usize,
    pub(super) room: Room,
}

#[derive(Default)]
struct Waiting {
    wishes: Vec<Wish>,
    inputs: usize,
    /// Somebody is at the log, and takes what comes meanwhile.
    busy: bool,
}

pub(super) struct Hall {
    pub(super) shared: Arc<Shared>,
    pub(super) concert: ConcertId,
    replica: RwLock<Replica>,
    waiting: Mutex<Waiting>,
    noticed: Mutex<Noticed>,
    pub(super) mirrored: Mutex<Mirrored>,
    /// What it was opened with here, and what of that the room has accepted.
    opening: Mutex<Option<Opening>>,
    pub(super) accepted: Mutex<Option<Opening>>,
    /// When an exchange failed last, of which nobody knows whether it arrived.
    failed_at: Mutex<Option<Instant>>,
    abandoned: Mutex<Vec<UserId>>,
    /// When the last step ended.
    pub(super) stepped_at: Mutex<Option<Instant>>,
    /// One step at a time; and one reservation.
    pub(super) stepping: tokio::sync::Mutex<()>,
    pub(super) reserving: tokio::sync::Mutex<()>,
    /// And one draw, which may have to wait for its beacon; one snapshot.
    pub(super) revealing: Arc<tokio::sync::Mutex<()>>,
    pub(super) compacting: Arc<tokio::sync::Mutex<()>>,
}

impl Hall {
    pub(super) fn new(shared: Arc<Shared>, concert: ConcertId) -> Arc<Self> {
        Arc::new(Self {
            shared,
            concert,
            replica: RwLock::new(Replica::new()),
            waiting: Mutex::default(),
            noticed: Mutex::default(),
            mirrored: Mutex::default(),
            opening: Mutex::default(),
            accepted: Mutex::default(),
            failed_at: Mutex::default(),
            abandoned: Mutex::default(),
            stepped_at: Mutex::default(),
            stepping: tokio::sync::Mutex::default(),
            reserving: tokio::sync::Mutex::default(),
            revealing: Arc::default(),
            compacting: Arc::default(),
        })
    }

    pub(super) fn replica(&self) -> RwLockReadGuard<'_, Replica> {
        // A room that failed half way is a defect; every instance has the same, and the log has it right.
        self.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn replica_mut(&self) -> RwLockWriteGuard<'_, Replica> {
        self.replica.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn noticed(&self) -> MutexGuard<'_, Noticed> {
        lock(&self.noticed)
    }

    pub(super) fn opening(&self) -> MutexGuard<'_, Option<Opening>> {
        lock(&self.opening)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.replica().now(&*self.shared.clock)
    }

    pub(super) async fn tell(self: &Arc<Self>, input: RoomInput) -> Result<RoomOutput, RoomError> {
        let mut outputs = self.tell_all(vec![input]).await?;
        outputs.pop().ok_or_else(super::senseless)
    }

    /// What the inputs came to, in their order.
    pub(super) async fn tell_all(self: &Arc<Self>, inputs: Vec<RoomInput>) -> Result<Vec<RoomOutput>, Untold> {
        let (tell, told) = oneshot::channel();
        self.wish(inputs.len(), Wish::Tell(inputs, tell))?;
        told.await.unwrap_or_else(|_| Err(unavailable("what exchanges with the log has stopped")))
    }

    /// Returns when everything that was told before is applied here.
    pub(super) async fn catch_up(self: &Arc<Self>) -> Result<(), Untold> {
        let (tell, told) = oneshot::channel();
        self.wish(0, Wish::CatchUp(tell))?;
        told.await.unwrap_or_else(|_| Err(unavailable("what exchanges with the log has stopped")))
    }

    /// The room with everything that was told before; `None` while there is none.
    pub(super) async fn copy(self: &Arc<Self>) -> Result<Option<Copied>, Untold> {
        let (tell, told) = oneshot::channel();
        self.wish(0, Wish::Copy(tell))?;
        told.await.unwrap_or_else(|_| Err(unavailable("what exchanges with the log has stopped")))
    }

    /// The same for the task at the log alone: a writer who waits for a big room's copy keeps those who read waiting.
    pub(super) async fn copied(self: &Arc<Self>) -> Result<Option<Copied>, Untold> {
        let hall = self.clone();
        begin::beside(move || {
            let replica = hall.replica();
            let copied = |room: &Room| Copied { position: replica.position, since_snapshot: replica.since_snapshot, room: room.clone() };
            replica.room.as_ref().map(copied)
        })
        .await
    }

    /// Whether some are to be passed on yet.
    pub(super) fn has_abandoned(&self) -> bool {
        !lock(&self.abandoned).is_empty()
    }

    /// Whose turn ended because they were gone, as far as this instance told it.
    pub(super) fn take_abandoned(&self) -> Vec<UserId> {
        std::mem::take(&mut *lock(&self.abandoned))
    }

    /// They could not be passed on.
    pub(super) fn put_back_abandoned(&self, users: Vec<UserId>) {
        let mut abandoned = lock(&self.abandoned);
        let free = ABANDONED_MAX.saturating_sub(abandoned.len());
        abandoned.extend(users.into_iter().take(free));
    }

    fn wish(self: &Arc<Self>, inputs: usize, wish: Wish) -> Result<(), Untold> {
        let is_busy = {
            let mut waiting = lock(&self.waiting);
            if waiting.wishes.len() >= WAITING_MAX || waiting.inputs + inputs > WAITING_MAX {
                return Err(unavailable("too many wait for this room"));
            }
            waiting.inputs += inputs;
            waiting.wishes.push(wish);
            std::mem::replace(&mut waiting.busy, true)
        };
        if !is_busy {
            // Not under the lock: a runtime that shuts down drops it here and now.
            self.shared.runtime.spawn(AtTheLog { hall: self.clone(), done: false }.run());
        }
        Ok(())
    }

    /// The next wishes that go together.
    fn take(&self) -> Option<Vec<Wish>> {
        let mut waiting = lock(&self.waiting);
        let mut inputs = 0;
        let fits = waiting.wishes.iter().take_while(|wish| {
            let before = inputs;
            inputs += wish.inputs();
            before == 0 || inputs <= TOGETHER_MAX
        });
        let count = fits.count();
        if count == 0 {
            waiting.busy = false;
            return None;
        }
        let wishes: Vec<_> = waiting.wishes.drain(..count).collect();
        waiting.inputs -= wishes.iter().map(Wish::inputs).sum::<usize>();
        Some(wishes)
    }

    /// Everything together, in one exchange unless there is more to be read or given back first.
    async fn exchange(self: &Arc<Self>, inputs: &[RoomInput]) -> Result<Vec<RoomOutput>, Untold> {
        let mut begins = 0;
        // What was here before a loss, and whom of it the log has to be told of.
        let (mut before, mut unknown) = (None::<Room>, Vec::new());
        loop {
            let since = self.replica().position;
            let own = before.is_none() && unknown.is_empty();
            let told = match &before {
                Some(_) => Vec::new(),
                None if own => inputs.to_vec(),
                // In their order: whose earlier stay is ended first is given back the later one.
                None => unknown[..unknown.len().min(TOGETHER_MAX)].to_vec(),
            };
            let count = told.len();
            match self.shared.log.exchange(self.concert, since, told).await.inspect_err(|_| self.doubt(count))? {
                Exchanged::Records { now, records, appended } => {
                    let more = !appended && (count > 0 || records.len() >= RECORDS_READ_MAX);
                    let outputs = self.apply(now, records, appended).await;
                    if more {
                        continue;
                    }
                    if own {
                        return Ok(outputs);
                    }
                    match before.take() {
                        Some(before) => unknown.extend(begin::unknown(self, before).await?),
                        None => drop(unknown.drain(..count)),
                    }
                }
                Exchanged::Begin { now, position, snapshot } => {
                    begins += 1;
                    if begins > BEGINS_MAX {
                        return Err(unavailable("the waiting room's log begins again and again"));
                    }
                    let known = begin::take_over(self, now, position, snapshot).await?;
                    before = before.or(known);
                }
                Exchanged::Absent { now } => {
                    begins += 1;
                    if begins > BEGINS_MAX {
                        return Err(unavailable("the waiting room was lost again"));
                    }
                    begin::begin(self, now).await?;
                }
            }
        }
    }

    /// So many inputs were not answered: they may have been appended, or may yet be.
    fn doubt(&self, inputs: usize) {
        if inputs > 0 {
            *lock(&self.failed_at) = Some(Instant::now());
        }
    }

    /// Applies what the log has said, in order. What one's own record, which is the last, came to.
    async fn apply(&self, now: Timestamp, records: Vec<RoomRecord>, appended: bool) -> Vec<RoomOutput> {
        let is_in_doubt = lock(&self.failed_at).is_some_and(|at| at.elapsed() < IN_DOUBT);
        let mut outputs = Vec::new();
        let mut rest = records.into_iter().peekable();
        loop {
            let (mut inputs, mut others, mut mine) = (0, Vec::new(), Vec::new());
            while let Some(record) = rest.next_if(|record| inputs == 0 || inputs + record.inputs.len() <= APPLIED_TOGETHER) {
                inputs += record.inputs.len();
                let is_mine = appended && rest.peek().is_none();
                if is_mine { mine.push(record) } else { others.push(record) }
            }
            let is_last = rest.peek().is_none();
            let mut changes = Vec::new();
            {
                let mut replica = self.replica_mut();
                let (mut abandoned, mut own_from) = (Vec::new(), 0);
                replica.apply(others, &mut changes, &mut abandoned);
                // The instance that appended a record tells the mirror, and gives back what was held. In doubt both do.
                if !is_in_doubt {
                    own_from = changes.len();
                    abandoned.clear();
                }
                if !mine.is_empty() {
                    outputs = replica.apply(mine, &mut changes, &mut abandoned);
                }
                if self.shared.log.is_volatile() {
                    lock(&self.mirrored).changed(&changes[own_from..]);
                }
                if !abandoned.is_empty() {
                    self.put_back_abandoned(abandoned);
                }
                if is_last {
                    replica.heard(now, &*self.shared.clock);
                }
            }
            if !changes.is_empty() {
                self.publish(changes, false);
            }
            if is_last {
                return outputs;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn publish(&self, changes: Vec<RoomChange>, anew: bool) {
        // Nobody listens: nobody has to be told.
        let _ = self.shared.news.send(Arc::new(RoomNews { concert: self.concert, now: self.now(), changes, anew }));
    }

    /// Puts a room in the place of the one there was, which it gives.
    pub(super) fn replace(&self, now: Timestamp, position: LogPosition, room: Room) -> Option<Room> {
        let before = {
            let mut replica = self.replica_mut();
            let before = replica.begin(room, position);
            replica.heard(now, &*self.shared.clock);
            before
        };
        self.publish(Vec::new(), true);
        before
    }
}

impl Wish {
    fn inputs(&self) -> usize {
        match self {
            Self::Tell(inputs, _) => inputs.len(),
            Self::CatchUp(_) | Self::Copy(_) => 0,
        }
    }
}

/// Whoever is at the log now. When it ends, the next to come is.
struct AtTheLog {
    hall: Arc<Hall>,
    /// It found nothing more and said so.
    done: bool,
}

impl AtTheLog {
    async fn run(mut self) {
        while let Some(wishes) = self.hall.take() {
            let mut inputs = Vec::new();
            let mut tellers = Vec::new();
            let (mut catching_up, mut copying) = (Vec::new(), Vec::new());
            for wish in wishes {
                match wish {
                    Wish::Tell(some, tell) => {
                        tellers.push((some.len(), tell));
                        inputs.extend(some);
                    }
                    Wish::CatchUp(tell) => catching_up.push(tell),
                    Wish::Copy(tell) => copying.push(tell),
                }
            }
            let done = self.hall.exchange(&inputs).await;
            // Callers that went away are not told.
            for tell in catching_up {
                let _ = tell.send(done.as_ref().map(|_| ()).map_err(Clone::clone));
            }
            let failed = done.as_ref().err().cloned();
            let mut outputs = done.map(Vec::into_iter);
            for (count, tell) in tellers {
                let _ = tell.send(outputs.as_mut().map(|outputs| outputs.take(count).collect()).map_err(|untold| untold.clone()));
            }
            for tell in copying {
                let copied = match &failed {
                    Some(untold) => Err(untold.clone()),
                    None => self.hall.copied().await,
                };
                let _ = tell.send(copied);
            }
        }
        self.done = true;
    }
}

impl Drop for AtTheLog {
    /// A defect stopped it: what waits is given up, and the next to come begins again.
    fn drop(&mut self) {
        if !self.done {
            let mut waiting = lock(&self.hall.waiting);
            (waiting.busy, waiting.inputs) = (false, 0);
            waiting.wishes.clear();
        }
    }
}

/// What this instance has noticed and not told yet.
#[derive(Default)]
pub(super) struct Noticed {
    /// How many connections each entry has here.
    connections: HashMap<QueueEntryId, u32>,
    /// Whose first one began, or whose last one ended, since it was told.
    changed: HashSet<QueueEntryId>,
    seen: HashSet<QueueEntryId>,
}

impl Noticed {
    pub(super) fn connected(&mut self, entry: QueueEntryId) {
        let count = self.connections.entry(entry).or_default();
        *count += 1;
        if *count == 1 {
            self.changed.insert(entry);
        }
    }

    pub(super) fn disconnected(&mut self, entry: QueueEntryId) {
        let Some(count) = self.connections.get_mut(&entry) else { return };
        *count -= 1;
        if *count == 0 {
            self.connections.remove(&entry);
            self.changed.insert(entry);
        }
    }

    pub(super) fn seen(&mut self, entry: QueueEntryId) {
        if self.seen.len() < SEEN_MAX {
            self.seen.insert(entry);
        }
    }

    /// Whether there is something to tell, or a connection of which there may be.
    pub(super) fn is_quiet(&self) -> bool {
        self.connections.is_empty() && self.changed.is_empty() && self.seen.is_empty()
    }

    pub(super) fn has_connections(&self) -> bool {
        !self.connections.is_empty()
    }

    /// Everybody who is connected has to be told of again: the room has forgotten this instance.
    pub(super) fn tell_all_again(&mut self) {
        self.changed.extend(self.connections.keys().copied());
    }

    /// Whose connection began and ended, to be told in one step.
    pub(super) fn take_changed(&mut self) -> (Vec<QueueEntryId>, Vec<QueueEntryId>) {
        let some: Vec<_> = self.changed.iter().copied().take(CONNECTIONS_TOLD_MAX).collect();
        for entry in &some {
            self.changed.remove(entry);
        }
        some.into_iter().partition(|entry| self.connections.contains_key(entry))
    }

    /// They could not be told.
    pub(super) fn put_back(&mut self, entries: impl IntoIterator<Item = QueueEntryId>) {
        self.changed.extend(entries);
    }

    pub(super) fn take_seen(&mut self) -> Vec<QueueEntryId> {
        self.seen.drain().collect()
    }
}
