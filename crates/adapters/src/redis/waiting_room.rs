//! The waiting rooms, kept in Redis: shared by all instances, quick to lose and quick to rebuild.
//!
//! # What lies where
//!
//! Ten keys a concert under one hash tag, touched by scripts alone, each call one script:
//!
//! | key | is | holds |
//! | --- | --- | --- |
//! | `room` | hash | epoch, admission and its version, start of sale, the last place, counts |
//! | `entries` | hash | entry → status, user, place, and a turn's beginning and end: one value of 22 bytes while it waits |
//! | `users` | hash | user → the latest entry |
//! | `waiting`, `active`, `ended` | sorted sets | entries by place, by the end of the turn, by when they ended |
//! | `pace` | sorted set | running totals of promotions by instant: any window's count is two look-ups |
//! | `pending` | hash | who was chosen, until the mirror knows |
//! | `unsaved` | set | turns that ended, until the mirror knows |
//! | `building` | string | who is building the room |
//!
//! `place`, `touch`, `leave`, `finish` and `counts` are one round trip each, as is `join` unless the reserved places
//! have run out; a rank is O(log n). `tick` is one, or two with one transaction of the mirror between them, when
//! something has changed. Time is the node's, moved by the clock's offset, and never runs backwards for a room.
//!
//! # Never too many (I4)
//!
//! A turn begins in two steps. `tick.lua` *chooses* within the limits of [`boxoffice_domain::Room`], counting whoever
//! was chosen before as active already; the mirror is told of them and, in the same transaction, that places up to
//! theirs were promoted; `confirm.lua` lets them in if the room still has the epoch in which they were chosen. So at
//! every instant each turn that `touch` sees as running is in the mirror, and:
//!
//! * *lost before the mirror knew*: nobody was let in; they wait at their places when they come back;
//! * *lost after the mirror knew and before the confirmation*: they are rebuilt as active; nobody takes their slots;
//! * *lost after it*: the same;
//! * *an instance of the earlier epoch that is late*, with the mirror or the confirmation: finds another epoch and lets
//!   nobody in. What it wrote may be one turn too many in the mirror; a rebuild takes no more turns than
//!   `max_active`, those that began first, and lets the others wait in front.
//!
//! One instance at a time tells the mirror, so a turn's end is never overtaken by its beginning; the right to do so
//! runs out with a crash, and whoever was chosen is told of by the next one.
//!
//! # Loss
//!
//! The room has an epoch. Without one, whoever has opened the room before builds it again ([`rebuild`]): turns with
//! their ends from the mirror, counts, and the last place, of which the mirror was told *before* it was given out
//! (places are reserved ahead), so that no place is given twice. Whoever waited comes back by their token
//! ([`WaitingRoom::restore`]): a place beyond the last one promoted waits where it was; one before it is in the mirror,
//! or has ended. In the half hour after a loss nobody who has not come back yet counts as promoted, however many pass
//! by, so that they still find their place; those who were let in meanwhile are as safe as ever against one more loss
//! while their turn runs, but could then wait again with an old token once it has ended.
//!
//! A node that took over or started again *without the latest changes* has the epoch but not the last places. Each call
//! says which place its instance has seen given out, and each token says one: a room that knows less goes on behind it,
//! and gives those places back by their tokens.
//!
//! A payment that ended a turn is in the mirror after the next tick; a loss in between gives the turn back until its
//! end. Leaving waits for the mirror.
//!
//! Of two stays of one user the later is kept, since it began because the earlier had ended; unless the later one began
//! after the loss and the earlier one comes back by its token: then that is the place.
//!
//! # Failure
//!
//! Redis away: [`RoomError::Unavailable`] within a round trip's bound and, in a crowd, [`CALL_WAIT_MAX`], and recovery with the next command. The mirror
//! away: nobody new is let in, everything else goes on. A node that evicts keys, or shares them with others who write
//! there, breaks the room: it must run with `noeviction`.

mod rebuild;
mod script;
mod tick;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{Admission, ConcertId, Entered, Place, QueueEntryId, RoomCounts, Stock, Timestamp, UserId};
use boxoffice_ports::{
    ActivePlace, Clock, PlaceClaim, RoomError, RoomMark, RoomMirror, RoomTerms, Source, StoreError, Ticked, WaitingRoom,
};
use chrono::TimeDelta;
use redis::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connect::{Redis, Script};
use rebuild::Paced;
use script::{ADMIT, Arguments, CONFIRM, COUNTS, FINISH, JOIN, LEAVE, LOOK, OPEN, PLACE, RESERVE, RESTORE, Said};
use tick::{RESERVED_MAX, RESERVED_MIN};
use wire::Described;

/// How often somebody joins again when others took the places that were reserved. Then the room is unavailable.
const JOINS_MAX: u32 = 20;

/// Calls of this instance that Redis is given at a time, so that those behind them in a crowd of thousands do not count
/// their wait as Redis's silence.
const CALLS_MAX: usize = 256;
/// How long a call waits for that. Then there are more people than Redis can be asked for, or it hangs.
const CALL_WAIT_MAX: Duration = Duration::from_secs(1);

/// See the module's opening.
pub struct RedisWaitingRoom {
    redis: Redis,
    mirror: Arc<dyn RoomMirror>,
    clock: Arc<dyn Clock>,
    turn: TimeDelta,
    /// This instance, among those that tell the mirror.
    instance: String,
    calls: Semaphore,
    rooms: Mutex<HashMap<ConcertId, Arc<Known>>>,
}

/// What this instance knows of a room.
#[derive(Default)]
struct Known {
    /// `None` before it was opened here.
    terms: Mutex<Option<RoomTerms>>,
    /// One step at a time in this instance. Taken before the others.
    ticking: tokio::sync::Mutex<()>,
    building: tokio::sync::Mutex<()>,
    /// The epoch and up to where places were reserved last.
    reserving: tokio::sync::Mutex<(Vec<u8>, u64)>,
    paced: Mutex<Paced>,
    /// The highest place known to have been given out.
    seen: AtomicU64,
}

impl Known {
    fn terms(&self) -> MutexGuard<'_, Option<RoomTerms>> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paced(&self) -> MutexGuard<'_, Paced> {
        self.paced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedisWaitingRoom {
    /// `mirror` is the ledger's database; `active_ttl_s` how long a turn lasts.
    pub fn new(redis: Redis, mirror: Arc<dyn RoomMirror>, clock: Arc<dyn Clock>, active_ttl_s: u32) -> Self {
        let turn = TimeDelta::seconds(i64::from(active_ttl_s));
        let mut room =
            Self { redis, mirror, clock, turn, instance: String::new(), calls: Semaphore::new(CALLS_MAX), rooms: Mutex::default() };
        room.instance = room.fresh_name();
        room
    }

    fn fresh_name(&self) -> String {
        format!("{:032x}", rand::random::<u128>())
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<ConcertId, Arc<Known>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, concert: ConcertId) -> Arc<Known> {
        Arc::clone(self.rooms().entry(concert).or_default())
    }

    /// What the room was opened with here.
    fn terms(&self, concert: ConcertId) -> Option<RoomTerms> {
        let known = self.rooms().get(&concert).map(Arc::clone);
        known.and_then(|known| *known.terms())
    }

    /// One call of a script.
    async fn run(&self, concert: ConcertId, script: &Script, arguments: Arguments) -> Result<Value, RoomError> {
        let offset = self.clock.offset().num_microseconds().unwrap_or(i64::MAX);
        let seen = self.rooms().get(&concert).map_or(0, |known| known.seen.load(Ordering::Relaxed));
        let arguments = arguments.complete(offset, self.turn.num_microseconds().unwrap_or(i64::MAX), seen);
        let turn = timeout(CALL_WAIT_MAX, self.calls.acquire()).await;
        let _turn = turn.map_err(|_| RoomError::Unavailable("too many calls wait for Redis".into()))?;
        self.redis.run(script, &script::keys(concert), &arguments).await.map_err(|failure| RoomError::Unavailable(failure.into()))
    }

    async fn call(&self, concert: ConcertId, script: &Script, arguments: Arguments) -> Result<Said, RoomError> {
        Said::parse(self.run(concert, script, arguments).await?).ok_or_else(senseless)
    }

    /// A call to a room, which is built again when it was lost.
    async fn ask(&self, concert: ConcertId, script: &Script, arguments: Arguments) -> Result<Said, RoomError> {
        let again = arguments.clone();
        match self.call(concert, script, arguments).await? {
            Said::NoRoom => {}
            said => return Ok(said),
        }
        let terms = self.terms(concert).ok_or(RoomError::NoRoom)?;
        self.build(&self.known(concert), terms).await?;
        match self.call(concert, script, again).await? {
            Said::NoRoom => Err(RoomError::Unavailable("the waiting room was lost again".into())),
            said => Ok(said),
        }
    }

    /// Asks for one entry.
    async fn describe(&self, concert: ConcertId, script: &Script, arguments: Arguments) -> Result<Option<Described>, RoomError> {
        match self.ask(concert, script, arguments).await? {
            Said::Done(answer) if answer.is_empty() => Ok(None),
            Said::Done(answer) => Described::parse(answer).map(Some).ok_or_else(senseless),
            _ => Err(senseless()),
        }
    }

    /// A place that was given out, by an answer or by a genuine token.
    fn see(&self, concert: ConcertId, place: u64) {
        self.known(concert).seen.fetch_max(place, Ordering::Relaxed);
    }

    /// Reserves places beyond `last`, unless somebody here has just done it.
    async fn reserve(&self, concert: ConcertId, epoch: Vec<u8>, last: u64) -> Result<(), RoomError> {
        let known = self.known(concert);
        let mut reserved = known.reserving.lock().await;
        if reserved.0 == epoch && reserved.1 > last {
            return Ok(());
        }
        let to = last + (last / 4).clamp(RESERVED_MIN, RESERVED_MAX);
        let mark = RoomMark { last_place: to, ..RoomMark::default() };
        self.mirror.save(concert, mark, Vec::new(), Vec::new()).await.map_err(unavailable)?;
        self.ask(concert, &RESERVE, Arguments::default().number(to)).await?;
        *reserved = (epoch, to);
        Ok(())
    }

    /// Takes a newer admission over from the mirror. The room's version is `version`.
    async fn bring_admission(&self, concert: ConcertId, version: i64) -> Result<(), RoomError> {
        let own = self.mirror.admission(concert).await.map_err(unavailable)?;
        if let Some(own) = own.filter(|own| own.version > version) {
            self.ask(concert, &ADMIT, wire::put_admission(Arguments::default(), own.version, own.admission)).await?;
        }
        Ok(())
    }

    /// Lets a turn go on that was given back by its token, once the mirror knows.
    async fn go_on(&self, concert: ConcertId, claim: PlaceClaim, until: Timestamp, epoch: Vec<u8>) -> Result<Option<Place>, RoomError> {
        let PlaceClaim { entry, user, place, .. } = claim;
        let turn = ActivePlace { entry, user, place, promoted_at: until - self.turn, active_until: until };
        self.mirror.save(concert, RoomMark::default(), vec![turn], Vec::new()).await.map_err(unavailable)?;
        let arguments = Arguments::default().bytes(epoch).bytes(self.instance.as_str()).bytes("").number(0).number(0);
        self.ask(concert, &CONFIRM, arguments.bytes(entry.0.as_bytes().as_slice()).bytes("")).await?;
        self.place(concert, entry).await
    }
}

#[async_trait]
impl WaitingRoom for RedisWaitingRoom {
    async fn open(&self, terms: RoomTerms) -> Result<(), RoomError> {
        let concert = terms.concert;
        *self.known(concert).terms() = Some(terms);
        let arguments = Arguments::default().number(wire::put_sale(terms.sale_starts_at));
        let Said::Done(mut answer) = self.ask(concert, &OPEN, arguments).await? else { return Err(senseless()) };
        self.bring_admission(concert, answer.number().ok_or_else(senseless)?).await
    }

    async fn join(&self, concert: ConcertId, user: UserId, fresh: QueueEntryId) -> Result<Entered, RoomError> {
        for _ in 0..JOINS_MAX {
            let arguments = Arguments::default().bytes(user.0.as_bytes().as_slice()).bytes(fresh.0.as_bytes().as_slice());
            match self.ask(concert, &JOIN, arguments).await? {
                Said::Done(answer) => {
                    let Described { place, flag: new, .. } = Described::parse(answer).ok_or_else(senseless)?;
                    self.see(concert, place.arrival);
                    return Ok(Entered { place, new });
                }
                Said::Draining => return Err(RoomError::Closed),
                Said::Reserve(mut answer) => {
                    let (epoch, last) = (answer.bytes().ok_or_else(senseless)?, answer.unsigned().ok_or_else(senseless)?);
                    self.reserve(concert, epoch, last).await?;
                }
                Said::NoRoom | Said::OtherEpoch => return Err(senseless()),
            }
        }
        Err(RoomError::Unavailable("more people come than places can be reserved for".into()))
    }

    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        let arguments = Arguments::default().bytes(entry.0.as_bytes().as_slice());
        Ok(self.describe(concert, &PLACE, arguments).await?.map(|described| described.place))
    }

    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.place(concert, entry).await
    }

    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<Place>, RoomError> {
        self.see(concert, claim.place);
        let until = claim.active_until.map_or(-1, |until| until.timestamp_micros());
        let arguments = Arguments::default().bytes(claim.entry.0.as_bytes().as_slice()).bytes(claim.user.0.as_bytes().as_slice());
        let arguments = arguments.number(claim.place).number(until);
        match (self.describe(concert, &RESTORE, arguments).await?, claim.active_until) {
            (Some(described), Some(until)) if described.flag => self.go_on(concert, claim, until, described.epoch).await,
            (described, _) => Ok(described.map(|described| described.place)),
        }
    }

    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError> {
        let arguments = Arguments::default().bytes(entry.0.as_bytes().as_slice());
        let Said::Done(mut answer) = self.ask(concert, &LEAVE, arguments).await? else { return Err(senseless()) };
        if answer.number() == Some(1)
            && let Err(error) = self.mirror.save(concert, RoomMark::default(), Vec::new(), vec![entry]).await
        {
            tracing::warn!(concert.id = %concert, %error, "the mirror was not told that somebody left; the next tick tells it");
        }
        Ok(())
    }

    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError> {
        let arguments = Arguments::default().bytes(user.0.as_bytes().as_slice()).number(paid_at.timestamp_micros());
        self.ask(concert, &FINISH, arguments).await.map(|_| ())
    }

    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError> {
        self.step(concert, stock).await
    }

    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError> {
        let Said::Done(answer) = self.ask(concert, &LOOK, Arguments::default()).await? else { return Err(senseless()) };
        let (_, copy) = wire::admission(answer).ok_or_else(senseless)?;
        let own = self.mirror.admission(concert).await.map_err(unavailable)?;
        Ok(own.map_or(copy, |own| own.admission))
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError> {
        if self.admission(concert).await? != was {
            return Ok(false);
        }
        let Some(own) = self.mirror.set_admission(concert, was, to).await.map_err(unavailable)? else { return Ok(false) };
        if let Err(error) = self.ask(concert, &ADMIT, wire::put_admission(Arguments::default(), own.version, own.admission)).await {
            tracing::warn!(concert.id = %concert, %error, "the waiting room was not told of its admission; opening it again tells it");
        }
        Ok(true)
    }

    async fn counts(&self, concert: ConcertId) -> Result<RoomCounts, RoomError> {
        let Said::Done(answer) = self.ask(concert, &COUNTS, Arguments::default()).await? else { return Err(senseless()) };
        wire::counts(answer).ok_or_else(senseless)
    }
}

fn unavailable(error: StoreError) -> RoomError {
    RoomError::Unavailable(Source::from(error))
}

/// A script of another version, or somebody else's keys.
fn senseless() -> RoomError {
    RoomError::Unavailable("the waiting room's answer makes no sense".into())
}
