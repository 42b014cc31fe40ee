//! The waiting rooms: each instance holds a replica of every room in memory, and a log gives all replicas the same
//! inputs in the same order.
//!
//! *Round trips.* A poll, a push or a rank costs none. A join, a payment or a leaving is one exchange with the log,
//! shared with everything that came while the last one was out ([`exchange`]). Ten thousand joins at once are a few
//! appends. [`WaitingRoom::touch`] is one exchange that appends nothing. Each tick is one, or two when something is
//! due. A room that rests, because it is empty as far as is known here, costs none. Its log is asked when a caller asks
//! for the room, and once an hour so that the log is kept. An entry that joined at another instance is found with the
//! first question here.
//!
//! *Truth (I4).* What a replica decides depends on the log alone, so all replicas promote the same entries. A replica
//! may be behind, by a tick at most; the start of a hold is judged after an exchange. An instance that is behind cannot
//! admit too many: what it appends is applied at its position in the log, by all instances in the same way.
//!
//! *Loss.* A log in memory elsewhere may be lost ([`begin`]). A surviving replica begins it again. Without one, the
//! room is built from what the mirror kept ([`mirror`]), and buyers come back by their tokens.
//!
//! *Failure.* While the log is away, every input to append gets [`RoomError::Unavailable`]. Polls of a place are
//! answered from memory, as of the last answer of the log. All other reads are answered so for [`STALE_MAX`]. A call
//! that was not answered may have taken effect, and may be repeated.

mod begin;
mod context;
mod error;
mod exchange;
mod handle;
mod mirror;
mod pending;
mod presence;
mod replica;
mod snapshot;
mod step;
mod unmirrored;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::waiting::{
    DrawView, Entered, Extended, Health, Place, PlaceClaim, Room, RoomCounts, RoomInput, RoomOutput, RoomSummary, Stock, Ticked,
};
use boxoffice_domain::{Admission, ConcertId, InstanceId, QueueEntryId, Timestamp, UserId};
use boxoffice_ports::{LogPosition, Opening, RoomError, WaitingRoom};
use tokio::runtime::Handle;
use tokio::sync::broadcast;

use crate::sync::{lock, read, write};
use context::Context;
pub use context::{RoomNews, RoomsParts, RoomsSettings};
use error::{room_unavailable, unexpected_output};
use handle::RoomHandle;

/// For how long a room is read after the log's last answer. Polls of a place are exempt, because they promise nothing.
const STALE_MAX: Duration = Duration::from_secs(5);
/// News that wait for one receiver. A receiver that falls behind further has to look at everything again.
const NEWS_MAX: usize = 1_024;
/// How often a join is repeated when other joins took the reserved places. Then the room is unavailable.
const JOINS_MAX: u32 = 20;

/// See the module's opening.
pub struct Rooms {
    context: Arc<Context>,
    handles: RwLock<HashMap<ConcertId, Arc<RoomHandle>>>,
}

impl Rooms {
    /// On the current tokio runtime, which exchanges with the log from now on.
    pub fn new(parts: RoomsParts) -> Arc<Self> {
        let (news, _) = broadcast::channel(NEWS_MAX);
        let context = Context { parts, runtime: Handle::current(), news, health: Mutex::default() };
        Arc::new(Self { context: Arc::new(context), handles: RwLock::default() })
    }

    /// What happens in all rooms from now on. A receiver that is too slow misses some news, and learns how many.
    pub fn news(&self) -> broadcast::Receiver<Arc<RoomNews>> {
        self.context.news.subscribe()
    }

    /// The id by which the rooms know this instance.
    pub fn instance(&self) -> InstanceId {
        self.context.parts.instance
    }

    /// A client of `entry` opened a connection to this instance. To be called once for each connection.
    pub fn connected(&self, concert: ConcertId, entry: QueueEntryId) {
        if let Ok(handle) = self.handle(concert) {
            lock(&handle.presence).connected(entry);
        }
    }

    /// A client of `entry` closed a connection to this instance. To be called once for each connection.
    pub fn disconnected(&self, concert: ConcertId, entry: QueueEntryId) {
        if let Ok(handle) = self.handle(concert) {
            lock(&handle.presence).disconnected(entry);
        }
    }

    /// Looks at the replica as it is here and now, however old it is.
    pub fn look<R>(&self, concert: ConcertId, look: impl FnOnce(&Room, Timestamp) -> R) -> Result<R, RoomError> {
        let handle = self.handle(concert)?;
        let replica = handle.replica();
        replica.look(&*self.context.parts.clock, look).ok_or(RoomError::NoRoom)
    }

    /// The same, for callers that compare two looks: they are at the same room only if the replica's number is the
    /// same.
    pub fn watch<R>(&self, concert: ConcertId, watch: impl FnOnce(u64, &Room, Timestamp) -> R) -> Result<R, RoomError> {
        let handle = self.handle(concert)?;
        let replica = handle.replica();
        replica.watch(&*self.context.parts.clock, watch).ok_or(RoomError::NoRoom)
    }

    fn handle(&self, concert: ConcertId) -> Result<Arc<RoomHandle>, RoomError> {
        let handles = read(&self.handles);
        handles.get(&concert).map(Arc::clone).ok_or(RoomError::NoRoom)
    }

    /// The same, brought up to date if the room rests: while it does, its ticks do not ask the log.
    async fn caught_up(&self, concert: ConcertId) -> Result<Arc<RoomHandle>, RoomError> {
        let handle = self.handle(concert)?;
        if handle.is_behind() {
            handle.catch_up().await?;
        }
        Ok(handle)
    }

    fn handle_or_new(&self, concert: ConcertId) -> Arc<RoomHandle> {
        if let Ok(handle) = self.handle(concert) {
            return handle;
        }
        let mut handles = write(&self.handles);
        Arc::clone(handles.entry(concert).or_insert_with(|| RoomHandle::new(self.context.clone(), concert)))
    }

    /// A look at a room that is at most [`STALE_MAX`] old.
    async fn fresh<R>(&self, concert: ConcertId, look: impl FnOnce(&Room, Timestamp) -> R) -> Result<R, RoomError> {
        let handle = self.caught_up(concert).await?;
        let replica = handle.replica();
        if replica.log_time.elapsed() > STALE_MAX {
            return Err(RoomError::Unavailable("the waiting room's log has not answered for too long".into()));
        }
        replica.look(&*self.context.parts.clock, look).ok_or(RoomError::NoRoom)
    }

    async fn see(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        let handle = self.caught_up(concert).await?;
        let seen = handle.replica().look(&*self.context.parts.clock, |room, now| (room.place(entry, now), room.wants_to_see(entry)));
        let (place, is_news) = seen.ok_or(RoomError::NoRoom)?;
        if is_news {
            lock(&handle.presence).seen(entry);
        }
        Ok(place)
    }
}

#[async_trait]
impl WaitingRoom for Rooms {
    async fn open(&self, opening: Opening) -> Result<(), RoomError> {
        self.handle_or_new(opening.concert).open(opening).await
    }

    fn is_open(&self, opening: &Opening) -> bool {
        self.handle(opening.concert).is_ok_and(|handle| handle.has_accepted(opening))
    }

    async fn join(&self, concert: ConcertId, user: UserId, lane: Option<String>, fresh: QueueEntryId) -> Result<Entered, RoomError> {
        let handle = self.handle(concert)?;
        for _ in 0..JOINS_MAX {
            let lane = self.look(concert, |room, _| lane.as_deref().map(|lane| room.lane(lane)).unwrap_or_default())?;
            match handle.append(RoomInput::Join { user, entry: fresh, lane }).await? {
                RoomOutput::Entered(entered) => return Ok(entered),
                RoomOutput::Closed => return Err(RoomError::Closed),
                RoomOutput::Unreserved(last) => handle.reserve(last).await?,
                _ => return Err(unexpected_output()),
            }
        }
        Err(RoomError::Unavailable("other joins took each reservation of places".into()))
    }

    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        match self.see(concert, entry).await? {
            // Another instance may have admitted the entry since.
            None => self.touch(concert, entry).await,
            place => Ok(place),
        }
    }

    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.handle(concert)?.catch_up().await?;
        self.see(concert, entry).await
    }

    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<Place>, RoomError> {
        match self.touch(concert, claim.entry).await? {
            None if self.context.parts.log.is_volatile() => {
                // An entry that is forgotten for good is polled for, too: that appends nothing.
                if !self.look(concert, |room, now| room.may_restore(&claim, now))? {
                    return Ok(None);
                }
                match self.handle(concert)?.append(RoomInput::Restore(claim)).await? {
                    RoomOutput::Place(place) => Ok(place),
                    _ => Err(unexpected_output()),
                }
            }
            place => Ok(place),
        }
    }

    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError> {
        self.handle(concert)?.append(RoomInput::Leave { entry }).await.map(drop)
    }

    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError> {
        self.handle(concert)?.append(RoomInput::Finish { user, paid_at }).await.map(drop)
    }

    async fn extend(&self, concert: ConcertId, entry: QueueEntryId, until: Timestamp) -> Result<Extended, RoomError> {
        match self.handle(concert)?.append(RoomInput::Lengthen { entry, until }).await? {
            RoomOutput::Extended(extended) => Ok(extended),
            _ => Err(unexpected_output()),
        }
    }

    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError> {
        self.handle(concert)?.step(stock).await
    }

    fn rests(&self, concert: ConcertId) -> bool {
        self.handle(concert).is_ok_and(|handle| handle.needs_no_step())
    }

    fn report_health(&self, health: Health) {
        *lock(&self.context.health) = Some(health);
    }

    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError> {
        self.handle(concert)?.catch_up().await?;
        self.fresh(concert, |room, _| room.admission()).await
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError> {
        let handle = self.handle(concert)?;
        let own = self.context.parts.mirror.set_admission(concert, was, to).await.map_err(room_unavailable)?;
        let Some(own) = own else {
            // Another instance was first, or the mirror has a change that was never appended.
            handle.sync_admission().await?;
            return Ok(false);
        };
        handle.append(RoomInput::Admit { admission: own.admission, version: own.version }).await?;
        Ok(true)
    }

    async fn counts(&self, concert: ConcertId) -> Result<RoomCounts, RoomError> {
        self.fresh(concert, |room, now| room.counts(now)).await
    }

    async fn summary(&self, concert: ConcertId) -> Result<RoomSummary, RoomError> {
        self.fresh(concert, |room, now| room.summary(now)).await
    }

    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawView>, RoomError> {
        self.fresh(concert, |room, _| room.draw()).await
    }

    async fn ping(&self) -> Result<(), RoomError> {
        let no_concert = ConcertId(uuid::Uuid::nil());
        self.context.parts.log.exchange(no_concert, LogPosition::default(), Vec::new()).await.map(drop).map_err(room_unavailable)
    }
}
