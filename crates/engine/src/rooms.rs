//! The waiting rooms: each instance holds a replica of every room in memory, and all replicas are told the same things
//! in the same order, by a log.
//!
//! *Round trips.* A poll, a push or a rank costs none. A join, a payment, a leaving are one exchange with the log,
//! shared with everything that came while the last one was out ([`hall`]): ten thousand joins at once are a few
//! appends. [`WaitingRoom::touch`] is one exchange that appends nothing. Each tick is one, or two when something is due.
//! A room that rests, because nobody is in it here, costs none: its log is asked when a caller asks for the room, and
//! once an hour so that it is kept. A caller who joined at another instance is found with the first question here.
//!
//! *Truth (I4).* What a replica decides depends on the log alone, so all of them promote the same people. A replica may
//! be behind, by a tick at most; whoever starts a hold is judged after an exchange. Who is behind cannot admit too many:
//! what it appends is applied where it stands in the log, by everybody in the same way.
//!
//! *Loss.* A log in memory elsewhere may be lost ([`begin`]): a surviving replica begins it again; without one the room
//! is built from what the mirror kept ([`mirror`]), and people come back by their tokens.
//!
//! *Failure.* The log away: what has to be appended is [`RoomError::Unavailable`]. Polls of a place are answered from
//! memory, as the room was when the log was heard of last; all other reads, for [`STALE_MAX`]. What was not
//! answered may have been done, and may be asked again.

mod begin;
mod hall;
mod mirror;
mod replica;
mod step;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::waiting::{
    DrawView, Entered, Extended, Health, LaneTerms, Place, PlaceClaim, RoomChange, RoomCounts, RoomInput, RoomOutput, RoomSummary, Stock,
    Ticked,
};
use boxoffice_domain::{Admission, ConcertId, InstanceId, QueueEntryId, Timestamp, UserId};
use boxoffice_ports::{Beacon, Clock, LogPosition, Opening, RoomError, RoomLog, RoomMirror, Secrets, WaitingRoom};
use tokio::runtime::Handle;
use tokio::sync::broadcast;

use hall::Hall;

/// For how long a room is read without having heard from the log, but for polls of a place: those promise nothing.
const STALE_MAX: Duration = Duration::from_secs(5);
/// News that a listener may be behind with; then it has to look at everything again.
const NEWS_MAX: usize = 1_024;
/// How often somebody joins again when others took the places that were reserved. Then the room is unavailable.
const JOINS_MAX: u32 = 20;

/// What every room obeys.
#[derive(Clone, Debug)]
pub struct RoomsSettings {
    pub active_ttl_s: u32,
    pub extensions_max: u32,
    pub grace_s: u32,
    pub waiting_grace_s: u32,
    pub p99_target_ms: u32,
    pub lanes: Vec<LaneTerms>,
}

/// What the rooms work with. `beacon`: whose value is mixed into draws.
pub struct RoomsParts {
    pub log: Arc<dyn RoomLog>,
    pub mirror: Arc<dyn RoomMirror>,
    pub secrets: Arc<dyn Secrets>,
    pub clock: Arc<dyn Clock>,
    pub beacon: Option<Arc<dyn Beacon>>,
    pub instance: InstanceId,
    pub settings: RoomsSettings,
}

/// Something happened in a room, or a tick passed.
#[derive(Clone, Debug)]
pub struct RoomNews {
    pub concert: ConcertId,
    /// The room's time.
    pub now: Timestamp,
    /// Whose status changed, in order. Empty for a tick.
    pub changes: Vec<RoomChange>,
    /// The replica was put in the place of another: whatever was known of anybody may have changed.
    pub anew: bool,
}

struct Shared {
    log: Arc<dyn RoomLog>,
    mirror: Arc<dyn RoomMirror>,
    secrets: Arc<dyn Secrets>,
    clock: Arc<dyn Clock>,
    beacon: Option<Arc<dyn Beacon>>,
    instance: InstanceId,
    settings: RoomsSettings,
    runtime: Handle,
    news: broadcast::Sender<Arc<RoomNews>>,
    health: Mutex<Option<Health>>,
}

/// See the module's opening.
pub struct Rooms {
    shared: Arc<Shared>,
    halls: RwLock<HashMap<ConcertId, Arc<Hall>>>,
}

impl Rooms {
    /// On the current tokio runtime, which exchanges with the log from now on.
    pub fn new(parts: RoomsParts) -> Arc<Self> {
        let RoomsParts { log, mirror, secrets, clock, beacon, instance, settings } = parts;
        let (news, _) = broadcast::channel(NEWS_MAX);
        let shared =
            Shared { log, mirror, secrets, clock, beacon, instance, settings, runtime: Handle::current(), news, health: Mutex::default() };
        Arc::new(Self { shared: Arc::new(shared), halls: RwLock::default() })
    }

    /// What happens in all rooms from now on. Whoever is too slow misses some, and is told so.
    pub fn news(&self) -> broadcast::Receiver<Arc<RoomNews>> {
        self.shared.news.subscribe()
    }

    /// As which its rooms know this instance.
    pub fn instance(&self) -> InstanceId {
        self.shared.instance
    }

    /// Somebody opened a connection to this instance. Each has to be told of as often as it was.
    pub fn connected(&self, concert: ConcertId, entry: QueueEntryId) {
        if let Ok(hall) = self.hall(concert) {
            hall.noticed().connected(entry);
        }
    }

    /// And closed it.
    pub fn disconnected(&self, concert: ConcertId, entry: QueueEntryId) {
        if let Ok(hall) = self.hall(concert) {
            hall.noticed().disconnected(entry);
        }
    }

    /// Looks at a room as it is here and now, whatever has been heard.
    pub fn look<R>(&self, concert: ConcertId, look: impl FnOnce(&boxoffice_domain::waiting::Room, Timestamp) -> R) -> Result<R, RoomError> {
        let hall = self.hall(concert)?;
        let replica = hall.replica();
        replica.look(&*self.shared.clock, look).ok_or(RoomError::NoRoom)
    }

    /// The same, for whoever compares two looks: they are at the same room only if its number is the same.
    pub fn watch<R>(
        &self,
        concert: ConcertId,
        watch: impl FnOnce(u64, &boxoffice_domain::waiting::Room, Timestamp) -> R,
    ) -> Result<R, RoomError> {
        let hall = self.hall(concert)?;
        let replica = hall.replica();
        replica.watch(&*self.shared.clock, watch).ok_or(RoomError::NoRoom)
    }

    fn hall(&self, concert: ConcertId) -> Result<Arc<Hall>, RoomError> {
        let halls = self.halls.read().unwrap_or_else(PoisonError::into_inner);
        halls.get(&concert).map(Arc::clone).ok_or(RoomError::NoRoom)
    }

    /// The same, brought up to date if it rests: its ticks do not ask the log.
    async fn roused(&self, concert: ConcertId) -> Result<Arc<Hall>, RoomError> {
        let hall = self.hall(concert)?;
        if hall.is_behind() {
            hall.catch_up().await?;
        }
        Ok(hall)
    }

    fn hall_or_new(&self, concert: ConcertId) -> Arc<Hall> {
        if let Ok(hall) = self.hall(concert) {
            return hall;
        }
        let mut halls = self.halls.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(halls.entry(concert).or_insert_with(|| Hall::new(self.shared.clone(), concert)))
    }

    /// A look that a caller may rely on.
    async fn fresh<R>(
        &self,
        concert: ConcertId,
        look: impl FnOnce(&boxoffice_domain::waiting::Room, Timestamp) -> R,
    ) -> Result<R, RoomError> {
        let hall = self.roused(concert).await?;
        let replica = hall.replica();
        if replica.heard.elapsed() > STALE_MAX {
            return Err(RoomError::Unavailable("the waiting room's log has not been heard of".into()));
        }
        replica.look(&*self.shared.clock, look).ok_or(RoomError::NoRoom)
    }

    async fn see(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        let hall = self.roused(concert).await?;
        let seen = hall.replica().look(&*self.shared.clock, |room, now| (room.place(entry, now), room.wants_to_see(entry)));
        let (place, is_news) = seen.ok_or(RoomError::NoRoom)?;
        if is_news {
            hall.noticed().seen(entry);
        }
        Ok(place)
    }
}

#[async_trait]
impl WaitingRoom for Rooms {
    async fn open(&self, opening: Opening) -> Result<(), RoomError> {
        self.hall_or_new(opening.concert).open(opening).await
    }

    fn is_open(&self, opening: &Opening) -> bool {
        self.hall(opening.concert).is_ok_and(|hall| hall.has_accepted(opening))
    }

    async fn join(&self, concert: ConcertId, user: UserId, lane: Option<String>, fresh: QueueEntryId) -> Result<Entered, RoomError> {
        let hall = self.hall(concert)?;
        for _ in 0..JOINS_MAX {
            let lane = self.look(concert, |room, _| lane.as_deref().map(|lane| room.lane(lane)).unwrap_or_default())?;
            match hall.tell(RoomInput::Join { user, entry: fresh, lane }).await? {
                RoomOutput::Entered(entered) => return Ok(entered),
                RoomOutput::Closed => return Err(RoomError::Closed),
                RoomOutput::Unreserved(last) => hall.reserve(last).await?,
                _ => return Err(senseless()),
            }
        }
        Err(RoomError::Unavailable("more people come than places can be reserved for".into()))
    }

    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        match self.see(concert, entry).await? {
            // Perhaps another instance has let them in since.
            None => self.touch(concert, entry).await,
            place => Ok(place),
        }
    }

    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.hall(concert)?.catch_up().await?;
        self.see(concert, entry).await
    }

    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<Place>, RoomError> {
        match self.touch(concert, claim.entry).await? {
            None if self.shared.log.is_volatile() => {
                // What was forgotten for good is polled for, too: that appends nothing.
                if !self.look(concert, |room, now| room.may_give_back(&claim, now))? {
                    return Ok(None);
                }
                match self.hall(concert)?.tell(RoomInput::Restore(claim)).await? {
                    RoomOutput::Place(place) => Ok(place),
                    _ => Err(senseless()),
                }
            }
            place => Ok(place),
        }
    }

    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError> {
        self.hall(concert)?.tell(RoomInput::Leave { entry }).await.map(drop)
    }

    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError> {
        self.hall(concert)?.tell(RoomInput::Finish { user, paid_at }).await.map(drop)
    }

    async fn extend(&self, concert: ConcertId, entry: QueueEntryId, until: Timestamp) -> Result<Extended, RoomError> {
        match self.hall(concert)?.tell(RoomInput::Lengthen { entry, until }).await? {
            RoomOutput::Extended(extended) => Ok(extended),
            _ => Err(senseless()),
        }
    }

    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError> {
        self.hall(concert)?.step(stock).await
    }

    fn rests(&self, concert: ConcertId) -> bool {
        self.hall(concert).is_ok_and(|hall| hall.needs_no_step())
    }

    fn fares(&self, health: Health) {
        *lock(&self.shared.health) = Some(health);
    }

    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError> {
        self.hall(concert)?.catch_up().await?;
        self.fresh(concert, |room, _| room.admission()).await
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError> {
        let hall = self.hall(concert)?;
        let own = self.shared.mirror.set_admission(concert, was, to).await.map_err(|error| RoomError::Unavailable(error.into()))?;
        let Some(own) = own else {
            // Another instance was first; or the room never heard of a change that the mirror has.
            hall.hear_of_admission().await?;
            return Ok(false);
        };
        hall.tell(RoomInput::Admit { admission: own.admission, version: own.version }).await?;
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
        let nobody = ConcertId(uuid::Uuid::nil());
        self.shared
            .log
            .exchange(nobody, LogPosition::default(), Vec::new())
            .await
            .map(drop)
            .map_err(|error| RoomError::Unavailable(error.into()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these mutexes can fail half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer to another question.
fn senseless() -> RoomError {
    RoomError::Unavailable("the waiting room's answer makes no sense".into())
}
