//! The waiting rooms, kept in the database: any number of instances, and nothing in memory that may be lost.
//!
//! What a room does is what the domain's [`Room`](boxoffice_domain::Room) does, written in SQL (`migrations/postgres`):
//! a test compares the two step by step.
//!
//! **Atomic over instances.** Every change is one statement that is its own transaction: it takes the room's row, reads
//! the clock, does what is asked, and commits. So an instance never holds a room across a round trip, and one that is
//! paused or killed at any point leaves a whole change or none. Lock order: the room's row, then its entries; of
//! [`WaitingRoom::set_admission`], then its concert's row.
//!
//! **Round trips**: one each. Joins, leaving and payments that come while another is out go together in the next one
//! ([`combine`]), as do looks; so a crowd is a few commits, and a poll costs a fraction of a statement.
//!
//! **Time** is the database's and never goes back: a room's row remembers the latest instant at which it changed, and
//! each instance the latest one it was told.
//!
//! **Failure.** What was not answered may have been done. All of it may be asked again: a join finds the place that it
//! got, and is still told that it is new.

mod combine;
mod look;

use super::PostgresStore;
use super::failure::Failure;
use super::rows::{admission, stored_admission};
use super::sql::{State, row, rows, statements};
use async_trait::async_trait;
use boxoffice_domain::admission::INTERVAL_S_MAX;
use boxoffice_domain::room::{ENDED_KEPT_S, PROMOTIONS_PER_TICK_MAX, RATE_WINDOW_S};
use boxoffice_domain::{Admission, AdmissionMode, ConcertId, Entered, Place, QueueEntryId, RoomCounts, Stock, Timestamp, UserId};
use boxoffice_ports::{PlaceClaim, RoomError, RoomTerms, Ticked, WaitingRoom};
use chrono::DateTime;
use combine::{Combined, Unanswered};
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz};
use look::{LookColumns, LookTypes, instant, place};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// Turns ended, and entries forgotten, in one tick. What is over reads as over before it is written.
const STEPS_PER_TICK_MAX: i64 = 5_000;
/// Promotions are remembered for the longest interval of a rate.
const PACES_KEPT_S: i64 = if INTERVAL_S_MAX as i64 > RATE_WINDOW_S { INTERVAL_S_MAX as i64 } else { RATE_WINDOW_S };

statements! {
    Open -> Text = "SELECT queue_open($1, $2, $3, $4, $5, $6, $7)::text";
    Apply -> LookTypes = "SELECT * FROM queue_apply($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    Look -> LookTypes = "SELECT * FROM queue_look($1, greatest($2, clock_timestamp() + $3 * interval '1 microsecond'), $4, $5)";
    Tick -> (BigInt, BigInt, Timestamptz) = "SELECT * FROM queue_tick($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    SelectAdmission -> (Text, BigInt, Nullable<BigInt>, Nullable<BigInt>) =
        "SELECT mode, max_active, per_interval_count, per_interval_s FROM queue_rooms WHERE concert_id = $1";
    // Of two at once the second waits for the first, and compares with what that wrote.
    UpdateAdmission -> (BigInt, BigInt) =
        "WITH changed AS (
             UPDATE queue_rooms SET mode = $2, max_active = $3, per_interval_count = $4, per_interval_s = $5
             WHERE concert_id = $1 AND (mode, max_active, per_interval_count, per_interval_s) IS NOT DISTINCT FROM ($7, $8, $9, $10)
             RETURNING concert_id),
         told AS (
             UPDATE concerts c SET mode = $2, max_active = $3, per_interval_count = $4, per_interval_s = $5,
                 admission_changed_at =
                     greatest(clock_timestamp() + $6 * interval '1 microsecond', c.admission_changed_at + interval '1 microsecond')
             FROM changed WHERE c.id = changed.concert_id)
         SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM queue_rooms WHERE concert_id = $1)";
    Count -> (BigInt, BigInt, BigInt, BigInt, BigInt, BigInt, BigInt, Timestamptz) =
        "SELECT r.waiting, r.active, r.served, r.\"left\", r.expired, late.over, queue_promoted_within(r.concert_id, t.at, $4), t.at
         FROM queue_rooms r
         CROSS JOIN LATERAL (SELECT greatest(r.latest_at, $2, clock_timestamp() + $3 * interval '1 microsecond') AS at OFFSET 0) t
         CROSS JOIN LATERAL (SELECT count(*) AS over FROM queue_entries e
                             WHERE e.concert_id = r.concert_id AND e.status = 'active' AND e.active_until <= t.at) late
         WHERE r.concert_id = $1";
}

type AdmissionColumns = (State<AdmissionMode>, i64, Option<i64>, Option<i64>);

struct PostgresWaitingRoom {
    store: Arc<PostgresStore>,
    active_ttl_s: u32,
    /// Rooms that were asked for and exist.
    halls: Mutex<HashMap<ConcertId, Arc<Hall>>>,
}

/// What one instance has of a room.
struct Hall {
    latest: Arc<Latest>,
    changes: Arc<Combined<Change, Option<LookColumns>>>,
    looks: Arc<Combined<QueueEntryId, Option<LookColumns>>>,
}

#[derive(Clone, Copy)]
enum Change {
    Join { user: UserId, fresh: QueueEntryId },
    Leave { entry: QueueEntryId },
    Finish { user: UserId, paid_at: Timestamp },
}

/// The latest instant that a room told, in microseconds since 1970.
struct Latest(AtomicI64);

impl Latest {
    fn get(&self) -> Option<Timestamp> {
        DateTime::from_timestamp_micros(self.0.load(Ordering::Relaxed))
    }

    fn see(&self, instant: Timestamp) {
        self.0.fetch_max(instant.timestamp_micros(), Ordering::Relaxed);
    }
}

impl PostgresStore {
    /// The waiting rooms that live in this database, for any number of instances. `active_ttl_s`: how long a turn lasts.
    pub fn waiting_room(self: &Arc<Self>, active_ttl_s: u32) -> Arc<dyn WaitingRoom> {
        Arc::new(PostgresWaitingRoom { store: self.clone(), active_ttl_s, halls: Mutex::default() })
    }
}

impl Hall {
    fn new(store: &Arc<PostgresStore>, concert: ConcertId) -> Self {
        let latest = Arc::new(Latest(AtomicI64::new(0)));
        let changes = {
            let (store, latest) = (store.clone(), latest.clone());
            Combined::new(Box::new(move |changes| {
                let (store, latest) = (store.clone(), latest.clone());
                Box::pin(async move { apply(&store, concert, &latest, &changes).await })
            }))
        };
        let looks = {
            let (store, latest) = (store.clone(), latest.clone());
            Combined::new(Box::new(move |entries| {
                let (store, latest) = (store.clone(), latest.clone());
                Box::pin(async move { look(&store, concert, &latest, &entries).await })
            }))
        };
        Self { latest, changes, looks }
    }
}

/// Everything that queued, in one step. A change without an answer of its own is answered with any row: it says that
/// there is a room.
async fn apply(
    store: &PostgresStore,
    concert: ConcertId,
    latest: &Latest,
    changes: &[Change],
) -> Result<Vec<Option<LookColumns>>, Failure> {
    let (mut leaving, mut paying, mut paid, mut joining, mut named) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut joiners: HashMap<UserId, usize> = HashMap::new();
    for change in changes {
        match *change {
            Change::Leave { entry } => leaving.push(entry.0),
            Change::Finish { user, paid_at } => {
                paying.push(user.0);
                paid.push(paid_at);
            }
            // Whoever asks on several devices at once joins once.
            Change::Join { user, fresh } => {
                joiners.entry(user).or_insert_with(|| {
                    joining.push(user.0);
                    named.push(fresh.0);
                    joining.len() - 1
                });
            }
        }
    }
    let mut conn = store.conn().await?;
    let binds = (concert, store.offset_us(), latest.get(), leaving, paying, paid, joining, named, RATE_WINDOW_S);
    let found: Vec<LookColumns> = rows::<Apply, _, _>(&mut conn, binds).await?;
    if let Some(any) = found.first() {
        latest.see(instant(any));
    }
    let answer = |change: &Change| match change {
        Change::Join { user, .. } => joiners.get(user).and_then(|at| found.get(*at)).copied(),
        Change::Leave { .. } | Change::Finish { .. } => found.first().copied(),
    };
    Ok(changes.iter().map(answer).collect())
}

/// One answer for each entry; none at all without a room.
async fn look(
    store: &PostgresStore,
    concert: ConcertId,
    latest: &Latest,
    entries: &[QueueEntryId],
) -> Result<Vec<Option<LookColumns>>, Failure> {
    let asked: Vec<Uuid> = entries.iter().map(|entry| entry.0).collect();
    let mut conn = store.conn().await?;
    let found: Vec<LookColumns> = rows::<Look, _, _>(&mut conn, (concert, latest.get(), store.offset_us(), asked, RATE_WINDOW_S)).await?;
    match found.first() {
        None => Ok(vec![None; entries.len()]),
        Some(any) => {
            latest.see(instant(any));
            Ok(found.into_iter().map(Some).collect())
        }
    }
}

impl PostgresWaitingRoom {
    fn hall(&self, concert: ConcertId) -> Arc<Hall> {
        let mut halls = self.halls.lock().unwrap_or_else(PoisonError::into_inner);
        halls.entry(concert).or_insert_with(|| Arc::new(Hall::new(&self.store, concert))).clone()
    }

    /// A room that does not exist is not kept in mind: anybody may ask for one.
    fn no_room(&self, concert: ConcertId) -> RoomError {
        self.halls.lock().unwrap_or_else(PoisonError::into_inner).remove(&concert);
        RoomError::NoRoom
    }

    async fn change(&self, concert: ConcertId, change: Change) -> Result<LookColumns, RoomError> {
        let answer = self.hall(concert).changes.ask(change).await?;
        answer.ok_or_else(|| self.no_room(concert))
    }
}

impl From<Unanswered> for RoomError {
    fn from(unanswered: Unanswered) -> Self {
        Self::Unavailable(unanswered.into())
    }
}

#[async_trait]
impl WaitingRoom for PostgresWaitingRoom {
    async fn open(&self, terms: RoomTerms) -> Result<(), RoomError> {
        let (mode, max_active, count, seconds, ..) = stored_admission(terms.admission);
        let binds = (terms.concert, terms.sale_starts_at, mode, max_active, count, seconds, self.store.offset_us());
        rows::<Open, _, String>(&mut self.store.conn().await?, binds).await?;
        Ok(())
    }

    async fn join(&self, concert: ConcertId, user: UserId, fresh: QueueEntryId) -> Result<Entered, RoomError> {
        let place = place(self.change(concert, Change::Join { user, fresh }).await?).ok_or(RoomError::Closed)?;
        Ok(Entered { new: place.entry == fresh, place })
    }

    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        let found = self.hall(concert).looks.ask(entry).await?;
        found.map(place).ok_or_else(|| self.no_room(concert))
    }

    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.place(concert, entry).await
    }

    /// Nothing is ever lost.
    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<Place>, RoomError> {
        self.place(concert, claim.entry).await
    }

    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError> {
        self.change(concert, Change::Leave { entry }).await.map(drop)
    }

    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError> {
        self.change(concert, Change::Finish { user, paid_at }).await.map(drop)
    }

    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError> {
        let hall = self.hall(concert);
        let binds = (
            concert,
            self.store.offset_us(),
            hall.latest.get(),
            i64::try_from(stock.obtainable).unwrap_or(i64::MAX),
            stock.linked,
            i64::from(self.active_ttl_s),
            i64::from(PROMOTIONS_PER_TICK_MAX),
            STEPS_PER_TICK_MAX,
            ENDED_KEPT_S,
            PACES_KEPT_S,
        );
        let found: Option<(i64, i64, Timestamp)> = row::<Tick, _, _>(&mut self.store.conn().await?, binds).await?;
        let (promoted, expired, instant) = found.ok_or_else(|| self.no_room(concert))?;
        hall.latest.see(instant);
        Ok(Ticked { promoted: promoted.unsigned_abs(), expired: expired.unsigned_abs() })
    }

    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError> {
        let found: Option<AdmissionColumns> = row::<SelectAdmission, _, _>(&mut self.store.conn().await?, (concert,)).await?;
        let (mode, max_active, count, seconds) = found.ok_or(RoomError::NoRoom)?;
        Ok(admission((mode, max_active, count, seconds, false, false)).map_err(Failure::from)?)
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError> {
        let (mode, max_active, count, seconds, ..) = stored_admission(to);
        let (was_mode, was_max_active, was_count, was_seconds, ..) = stored_admission(was);
        let offset_us = self.store.offset_us();
        let binds = (concert, mode, max_active, count, seconds, offset_us, was_mode, was_max_active, was_count, was_seconds);
        let found: Option<(i64, i64)> = row::<UpdateAdmission, _, _>(&mut self.store.conn().await?, binds).await?;
        match found {
            Some((changed, 1..)) => Ok(changed == 1),
            _ => Err(RoomError::NoRoom),
        }
    }

    async fn counts(&self, concert: ConcertId) -> Result<RoomCounts, RoomError> {
        let hall = self.hall(concert);
        let binds = (concert, hall.latest.get(), self.store.offset_us(), RATE_WINDOW_S);
        let found: Option<(i64, i64, i64, i64, i64, i64, i64, Timestamp)> =
            row::<Count, _, _>(&mut self.store.conn().await?, binds).await?;
        let (waiting, active, served, left, expired, over, admitted, instant) = found.ok_or_else(|| self.no_room(concert))?;
        hall.latest.see(instant);
        Ok(RoomCounts {
            waiting: waiting.unsigned_abs(),
            active: (active - over).unsigned_abs(),
            served: served.unsigned_abs(),
            left: left.unsigned_abs(),
            expired: (expired + over).unsigned_abs(),
            admitted_per_s: admitted as f64 / RATE_WINDOW_S as f64,
        })
    }
}
