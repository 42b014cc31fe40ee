//! The waiting rooms, kept in the file: the truth is this process's memory, and every change of it is in the file
//! before it is answered, so a restart finds every place and turn where it was.
//!
//! A mutation changes the room and queues its records for the writer under the room's mutex, so records are written in
//! the order of the changes; then it waits for the commit, which it shares with whatever else is queued: ten thousand
//! joins at once are a few flushes. Reads come from memory. There is one server for each file
//! ([`super::lock_for_serving`]), so memory is no copy.
//!
//! **Failure.** When a record cannot be written, memory is ahead of the file: its caller is told `Unavailable`, and the
//! room is loaded again from the file, behind everything queued for it, before anybody uses it. A crash before a commit
//! loses changes that were not answered; joining again gives a place.

use super::SqliteStore;
use super::failure::{Failure, one};
use super::mirror::{own_admission, write_admission};
use super::sql::{At, Id, State, Word, row, rows, run, statements};
use super::writer::{Session, Writer};
use crate::rooms::Rooms;
use async_trait::async_trait;
use boxoffice_domain::room::ENDED_KEPT_S;
use boxoffice_domain::{
    Admission, ConcertId, Entered, Place, QueueEntryId, QueueStatus, Room, RoomChange, RoomCounts, Stock, Timestamp, UserId,
};
use boxoffice_ports::{Clock, PlaceClaim, RoomError, RoomTerms, StoreError, Ticked, WaitingRoom};
use chrono::TimeDelta;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::{Connection, SqliteConnection};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

statements! {
    UpsertEntry = "INSERT INTO queue_entries
        (concert_id, place, id, user_id, status, joined_at, promoted_at, active_until, ended_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (concert_id, place) DO UPDATE SET status = excluded.status, promoted_at = excluded.promoted_at,
            active_until = excluded.active_until, ended_at = excluded.ended_at
        WHERE id = excluded.id";
    SelectEntries -> (BigInt, Binary, Binary, Text, BigInt, Nullable<BigInt>, Nullable<BigInt>, Nullable<BigInt>) =
        "SELECT place, id, user_id, status, joined_at, promoted_at, active_until, ended_at
         FROM queue_entries WHERE concert_id = ? AND (ended_at IS NULL OR ended_at > ?) ORDER BY place";
    CountEnded -> (BigInt, BigInt, BigInt) =
        "SELECT coalesce(sum(status = 'done'), 0), coalesce(sum(status = 'expired'), 0), coalesce(sum(status = 'left'), 0)
         FROM queue_entries WHERE concert_id = ? AND ended_at <= ?";
    SelectLastPlace -> Nullable<BigInt> = "SELECT max(place) FROM queue_entries WHERE concert_id = ?";
}

/// The waiting rooms of the one server of a file.
struct SqliteWaitingRoom {
    rooms: Arc<Rooms>,
    writer: Arc<Writer>,
    store: Arc<SqliteStore>,
    clock: Arc<dyn Clock>,
    active_ttl_s: u32,
    /// What each open room was opened with, and whether memory is ahead of the file.
    opened: Mutex<HashMap<ConcertId, Opened>>,
    /// One room at a time is loaded again.
    reloading: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy)]
struct Opened {
    terms: RoomTerms,
    stale: bool,
}

impl SqliteStore {
    /// The waiting rooms that live in this file. For the one process that holds [`super::ServingLock`].
    pub async fn waiting_room(self: &Arc<Self>, active_ttl_s: u32) -> Result<Arc<dyn WaitingRoom>, StoreError> {
        Ok(Arc::new(SqliteWaitingRoom {
            rooms: Arc::new(Rooms::new(self.clock.clone(), active_ttl_s)),
            writer: self.writer.clone(),
            store: self.clone(),
            clock: self.clock.clone(),
            active_ttl_s,
            opened: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
        }))
    }
}

impl SqliteWaitingRoom {
    /// Changes a room and returns when that is durable. What changes nothing waits too: what it found, such as the
    /// place of a join a moment ago, may still be on its way.
    async fn mutate<R>(
        &self,
        concert: ConcertId,
        change: impl FnOnce(&mut Room, Timestamp, &mut Vec<RoomChange>) -> R,
    ) -> Result<R, RoomError> {
        self.current(concert).await?;
        let slot = self.writer.slot().await?;
        let put = |changes: Vec<RoomChange>| slot.put(move |session| write_changes(session, concert, &changes));
        let (result, written) = self.rooms.mutate(concert, change, put)?;
        self.durable(concert, written.wait().await).map(|()| result)
    }

    /// Looks at a room that agrees with the file.
    async fn read<R>(&self, concert: ConcertId, look: impl FnOnce(&Room, Timestamp) -> R) -> Result<R, RoomError> {
        self.current(concert).await?;
        self.rooms.read(concert, look)
    }

    fn durable(&self, concert: ConcertId, written: Result<(), Failure>) -> Result<(), RoomError> {
        written.map_err(|failure| {
            tracing::warn!(concert.id = %concert, error = %failure, "a waiting room could not be written");
            if let Some(opened) = self.opened().get_mut(&concert) {
                opened.stale = true;
            }
            failure.into()
        })
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<ConcertId, Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stale(&self, concert: ConcertId) -> Option<RoomTerms> {
        self.opened().get(&concert).filter(|opened| opened.stale).map(|opened| opened.terms)
    }

    /// Loads a room again whose last write failed.
    async fn current(&self, concert: ConcertId) -> Result<(), RoomError> {
        if self.stale(concert).is_none() {
            return Ok(());
        }
        let _turn = self.reloading.lock().await;
        let Some(terms) = self.stale(concert) else { return Ok(()) };
        let slot = self.writer.slot().await?;
        let (rooms, clock, active_ttl_s) = (self.rooms.clone(), self.clock.clone(), self.active_ttl_s);
        let reload = move || {
            // The room's mutex is held while the writer works off what the room has queued, and then reads.
            let reload = |room: &mut Room, _: Timestamp, _: &mut Vec<RoomChange>| {
                let stored = slot.put(move |session| load(&mut session.conn, concert, clock.now())).wait_blocking()?;
                let mut fresh = Room::new(terms.admission, terms.sale_starts_at, active_ttl_s);
                stored.restore(&mut fresh);
                *room = fresh;
                Ok::<_, Failure>(())
            };
            rooms.mutate(concert, reload, drop)
        };
        let reloaded = tokio::task::spawn_blocking(reload).await.map_err(|error| RoomError::Unavailable(error.into()))?;
        reloaded?.0?;
        if let Some(opened) = self.opened().get_mut(&concert) {
            opened.stale = false;
        }
        Ok(())
    }
}

#[async_trait]
impl WaitingRoom for SqliteWaitingRoom {
    async fn open(&self, terms: RoomTerms) -> Result<(), RoomError> {
        let concert = terms.concert;
        let stored = if self.rooms.is_open(concert) {
            None
        } else {
            let now = self.clock.now();
            Some(self.store.readers.read(move |conn| conn.transaction(|conn| load(conn, concert, now))).await?)
        };
        self.rooms.open(terms, |room| {
            if let Some(stored) = stored {
                stored.restore(room);
            }
        })?;
        self.opened().entry(concert).or_insert(Opened { terms, stale: false }).terms = terms;
        Ok(())
    }

    async fn join(&self, concert: ConcertId, user: UserId, fresh: QueueEntryId) -> Result<Entered, RoomError> {
        self.mutate(concert, |room, now, changes| room.join(user, fresh, now, changes)).await?.ok_or(RoomError::Closed)
    }

    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.read(concert, |room, now| room.place(entry, now)).await
    }

    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError> {
        self.place(concert, entry).await
    }

    /// Nothing is ever lost while this process runs.
    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<Place>, RoomError> {
        self.place(concert, claim.entry).await
    }

    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError> {
        self.mutate(concert, |room, now, changes| room.leave(entry, now, changes)).await
    }

    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError> {
        self.mutate(concert, |room, now, changes| room.finish(user, paid_at, now, changes)).await
    }

    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError> {
        self.mutate(concert, |room, now, changes| {
            room.tick(now, stock, changes);
            let count = |status| changes.iter().filter(|change| change.status == status).count() as u64;
            Ticked { promoted: count(QueueStatus::Active), expired: count(QueueStatus::Expired) }
        })
        .await
    }

    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError> {
        self.read(concert, |room, _| room.admission()).await
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError> {
        self.current(concert).await?;
        let slot = self.writer.slot().await?;
        let change = |room: &mut Room, now: Timestamp, _: &mut Vec<RoomChange>| {
            if room.admission() != was {
                return None;
            }
            room.set_admission(to);
            Some(slot.put(move |session| one("concert", write_admission(&mut session.conn, concert, to, now.timestamp_micros())?)))
        };
        let (written, ()) = self.rooms.mutate(concert, change, drop)?;
        match written {
            Some(written) => self.durable(concert, written.wait().await).map(|()| true),
            None => Ok(false),
        }
    }

    async fn counts(&self, concert: ConcertId) -> Result<RoomCounts, RoomError> {
        self.read(concert, |room, now| room.counts(now)).await
    }
}

fn write_changes(session: &mut Session, concert: ConcertId, changes: &[RoomChange]) -> Result<(), Failure> {
    for it in changes {
        let place = i64::try_from(it.place).map_err(|_| Failure::Data("a place is out of range".to_owned()))?;
        let (promoted_at, active_until) = (it.promoted_at.map(At), it.active_until.map(At));
        let status = it.status.word();
        let binds = (concert, place, it.entry, it.user, status, At(it.joined_at), promoted_at, active_until, it.ended_at.map(At));
        one("queue entry", run::<UpsertEntry>(&mut session.conn, binds)?)?;
    }
    Ok(())
}

/// A room as the file has it.
struct Stored {
    /// Its own admission; `None` while that is the one it was opened with.
    admission: Option<Admission>,
    /// By place: who is there, and who ended lately enough to be asked for.
    entries: Vec<RoomChange>,
    /// Ended earlier: done, expired, left.
    ended: (u64, u64, u64),
    last_place: u64,
}

type EntryColumns = (i64, Id<QueueEntryId>, Id<UserId>, State<QueueStatus>, At, Option<At>, Option<At>, Option<At>);

fn load(conn: &mut SqliteConnection, concert: ConcertId, now: Timestamp) -> Result<Stored, Failure> {
    let own = own_admission(conn, concert)?.map(|own| own.admission);
    let kept_since = At(now - TimeDelta::seconds(ENDED_KEPT_S));
    let found: Vec<EntryColumns> = rows::<SelectEntries, _, _>(conn, (concert, kept_since))?;
    let entries = found.into_iter().map(|(place, entry, user, status, joined_at, promoted_at, active_until, ended_at)| RoomChange {
        entry: entry.0,
        user: user.0,
        place: place.unsigned_abs(),
        status: status.0,
        joined_at: joined_at.0,
        promoted_at: promoted_at.map(|at| at.0),
        active_until: active_until.map(|at| at.0),
        ended_at: ended_at.map(|at| at.0),
    });
    let entries = entries.collect();
    let ended: Option<(i64, i64, i64)> = row::<CountEnded, _, _>(conn, (concert, kept_since))?;
    let (done, expired, left) = ended.unwrap_or_default();
    let last: Option<Option<i64>> = row::<SelectLastPlace, _, _>(conn, (concert,))?;
    let last_place = last.flatten().unwrap_or(0).unsigned_abs();
    Ok(Stored { admission: own, entries, ended: (done.unsigned_abs(), expired.unsigned_abs(), left.unsigned_abs()), last_place })
}

impl Stored {
    fn restore(self, room: &mut Room) {
        if let Some(admission) = self.admission {
            room.set_admission(admission);
        }
        for entry in self.entries {
            room.restore(entry);
        }
        let (done, expired, left) = self.ended;
        room.restore_counts(done, expired, left);
        room.restore_last_place(self.last_place);
        room.restored();
    }
}
