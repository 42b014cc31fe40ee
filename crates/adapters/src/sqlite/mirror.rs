//! What an operator set of a room, and the mirror of a waiting room kept elsewhere.

use super::SqliteStore;
use super::failure::{Failure, one};
use super::rows::{AdmissionRow, AdmissionTypes, admission, admission_columns, draw, stored_admission};
use super::sql::{At, Id, row, rows, run, statements};
use super::writer::Share;
use async_trait::async_trait;
use boxoffice_domain::{Admission, ConcertId, QueueEntryId, UserId};
use boxoffice_ports::{ActivePlace, DrawRecord, OwnAdmission, RoomMark, RoomMirror, StoreError};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::{Connection, QueryResult, SqliteConnection};

statements! {
    UpdateAdmission = "UPDATE concerts
        SET mode = ?, max_active = ?, per_interval_count = ?, per_interval_s = ?, auto = ?, adaptive = ?, admission_changed_at = ? WHERE id = ?";
    SelectAdmission -> (AdmissionTypes, BigInt) = concat!(
        "SELECT ", admission_columns!(), ", admission_changed_at FROM concerts WHERE id = ? AND admission_changed_at IS NOT NULL"
    );
    UpsertRoom = "INSERT INTO mirrored_rooms (concert_id, last_place, promoted_to, served, expired, left) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (concert_id) DO UPDATE SET last_place = max(last_place, excluded.last_place),
            promoted_to = max(promoted_to, excluded.promoted_to), served = max(served, excluded.served),
            expired = max(expired, excluded.expired), left = max(left, excluded.left)";
    UpsertPlace = "INSERT INTO mirrored_places (concert_id, entry_id, user_id, place, promoted_at, active_until) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (concert_id, entry_id) DO UPDATE SET active_until = excluded.active_until";
    DeletePlace = "DELETE FROM mirrored_places WHERE concert_id = ? AND entry_id = ?";
    SelectRoom -> (BigInt, BigInt, BigInt, BigInt, BigInt) =
        "SELECT last_place, promoted_to, served, expired, left FROM mirrored_rooms WHERE concert_id = ?";
    SelectPlaces -> (Binary, Binary, BigInt, BigInt, BigInt) =
        "SELECT entry_id, user_id, place, promoted_at, active_until FROM mirrored_places WHERE concert_id = ? ORDER BY place";
    InsertDraw = "INSERT INTO mirrored_draws (concert_id, closed_at, base, keys, seed, beacon) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (concert_id) DO NOTHING";
    SelectDraw -> (BigInt, BigInt, Binary, Binary, Nullable<Text>) =
        "SELECT closed_at, base, keys, seed, beacon FROM mirrored_draws WHERE concert_id = ?";
}

/// What an operator set; `None` while that is what the concert was created with.
pub(super) fn own_admission(conn: &mut SqliteConnection, concert: ConcertId) -> Result<Option<OwnAdmission>, Failure> {
    let found: Option<(AdmissionRow, i64)> = row::<SelectAdmission, _, _>(conn, (concert,))?;
    found.map(|(columns, version)| Ok(OwnAdmission { admission: admission(columns)?, version })).transpose()
}

/// How many concerts that changed.
pub(super) fn write_admission(conn: &mut SqliteConnection, concert: ConcertId, to: Admission, version: i64) -> QueryResult<usize> {
    let (mode, max_active, count, seconds, auto, adaptive) = stored_admission(to);
    run::<UpdateAdmission>(conn, (mode, max_active, count, seconds, auto, adaptive, version, concert))
}

fn stored(count: u64) -> Result<i64, Failure> {
    i64::try_from(count).map_err(|_| Failure::Data("a count is out of range".to_owned()))
}

#[async_trait]
impl RoomMirror for SqliteStore {
    async fn save(&self, concert: ConcertId, mark: RoomMark, began: Vec<ActivePlace>, ended: Vec<QueueEntryId>) -> Result<(), StoreError> {
        let save = move |session: &mut super::writer::Session| {
            let conn = &mut session.conn;
            let binds = (
                concert,
                stored(mark.last_place)?,
                stored(mark.promoted_to)?,
                stored(mark.served)?,
                stored(mark.expired)?,
                stored(mark.left)?,
            );
            one("mirrored room", run::<UpsertRoom>(conn, binds)?)?;
            for it in &began {
                let binds = (concert, it.entry, it.user, stored(it.place)?, At(it.promoted_at), At(it.active_until));
                one("mirrored place", run::<UpsertPlace>(conn, binds)?)?;
            }
            for entry in &ended {
                run::<DeletePlace>(conn, (concert, *entry))?;
            }
            Ok(())
        };
        Ok(self.writer.write(Share::Small, save).await?)
    }

    async fn load(&self, concert: ConcertId) -> Result<Option<(RoomMark, Vec<ActivePlace>)>, StoreError> {
        let load = move |conn: &mut SqliteConnection| {
            let Some(mark) = row::<SelectRoom, _, (i64, i64, i64, i64, i64)>(conn, (concert,))? else { return Ok(None) };
            let (last_place, promoted_to, served, expired, left) = mark;
            let mark = RoomMark {
                last_place: last_place.unsigned_abs(),
                promoted_to: promoted_to.unsigned_abs(),
                served: served.unsigned_abs(),
                expired: expired.unsigned_abs(),
                left: left.unsigned_abs(),
            };
            let places: Vec<(Id<QueueEntryId>, Id<UserId>, i64, At, At)> = rows::<SelectPlaces, _, _>(conn, (concert,))?;
            let places = places.into_iter().map(|(entry, user, place, promoted_at, active_until)| ActivePlace {
                entry: entry.0,
                user: user.0,
                place: place.unsigned_abs(),
                promoted_at: promoted_at.0,
                active_until: active_until.0,
            });
            Ok(Some((mark, places.collect())))
        };
        Ok(self.readers.read(move |conn| conn.transaction(load)).await?)
    }

    async fn admission(&self, concert: ConcertId) -> Result<Option<OwnAdmission>, StoreError> {
        Ok(self.readers.read(move |conn| own_admission(conn, concert)).await?)
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<Option<OwnAdmission>, StoreError> {
        let set = move |session: &mut super::writer::Session| {
            let now = session.clock.now().timestamp_micros();
            let own = own_admission(&mut session.conn, concert)?;
            if own.is_some_and(|own| own.admission != was) {
                return Ok(None);
            }
            let version = own.map_or(now, |own| now.max(own.version + 1));
            let changed = write_admission(&mut session.conn, concert, to, version)?;
            Ok((changed == 1).then_some(OwnAdmission { admission: to, version }))
        };
        Ok(self.writer.write(Share::Small, set).await?)
    }

    async fn keep_draw(&self, concert: ConcertId, draw: DrawRecord) -> Result<bool, StoreError> {
        let (keys, base) = (draw.keys.concat(), i64::try_from(draw.base).unwrap_or(i64::MAX));
        let keep = move |session: &mut super::writer::Session| {
            let binds = (concert, At(draw.closed_at), base, keys.as_slice(), draw.seed.as_slice(), draw.beacon.as_deref());
            Ok(run::<InsertDraw>(&mut session.conn, binds)? == 1)
        };
        Ok(self.writer.write(Share::Small, keep).await?)
    }

    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawRecord>, StoreError> {
        let read = self.readers.read(move |conn| {
            let found: Option<(At, i64, Vec<u8>, Vec<u8>, Option<String>)> = row::<SelectDraw, _, _>(conn, (concert,))?;
            Ok(found.map(|(closed_at, base, keys, seed, beacon)| draw(closed_at.0, base, &keys, &seed, beacon)).transpose()?)
        });
        Ok(read.await?)
    }
}
