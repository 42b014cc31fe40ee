//! The admission that an operator set, and the mirror of a waiting room that is kept elsewhere.

use super::SqliteStore;
use super::failure::Failure;
use super::sql::{At, row, rows, run, statements};
use super::writer::{Session, Share};
use crate::sql::catalog::{AdmissionRow, AdmissionTypes, admission_columns, stored_admission};
use crate::sql::mirror::{DrawRow, MarkRow, PlaceRow, active_place, draw, mark, own_admission, stored_mark};
use crate::sql::rows::stored;
use async_trait::async_trait;
use boxoffice_domain::{Admission, ConcertId, QueueEntryId};
use boxoffice_ports::{ActivePlace, DrawRecord, OwnAdmission, RoomMark, RoomMirror, StoreError};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::{Connection, SqliteConnection};

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

/// `None` while the admission is the one that the concert was created with.
fn find_admission(conn: &mut SqliteConnection, concert: ConcertId) -> Result<Option<OwnAdmission>, Failure> {
    let found: Option<(AdmissionRow, i64)> = row::<SelectAdmission, _, _>(conn, (concert,))?;
    Ok(found.map(own_admission).transpose()?)
}

#[async_trait]
impl RoomMirror for SqliteStore {
    async fn save(&self, concert: ConcertId, mark: RoomMark, began: Vec<ActivePlace>, ended: Vec<QueueEntryId>) -> Result<(), StoreError> {
        let save = move |session: &mut Session| {
            let conn = &mut session.conn;
            let (last_place, promoted_to, served, expired, left) = stored_mark(mark)?;
            Failure::check_count("mirrored rooms", run::<UpsertRoom>(conn, (concert, last_place, promoted_to, served, expired, left))?, 1)?;
            for it in &began {
                let binds = (concert, it.entry, it.user, stored(it.place)?, At(it.promoted_at), At(it.active_until));
                Failure::check_count("mirrored places", run::<UpsertPlace>(conn, binds)?, 1)?;
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
            let Some(found) = row::<SelectRoom, _, MarkRow>(conn, (concert,))? else { return Ok(None) };
            let places: Vec<PlaceRow<At>> = rows::<SelectPlaces, _, _>(conn, (concert,))?;
            Ok(Some((mark(found), places.into_iter().map(active_place).collect())))
        };
        Ok(self.readers.read(move |conn| conn.transaction(load)).await?)
    }

    async fn admission(&self, concert: ConcertId) -> Result<Option<OwnAdmission>, StoreError> {
        Ok(self.readers.read(move |conn| find_admission(conn, concert)).await?)
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<Option<OwnAdmission>, StoreError> {
        let set = move |session: &mut Session| {
            let now = session.clock.now().timestamp_micros();
            let own = find_admission(&mut session.conn, concert)?;
            if own.is_some_and(|own| own.admission != was) {
                return Ok(None);
            }
            let version = own.map_or(now, |own| now.max(own.version + 1));
            let (mode, max_active, count, seconds, auto, adaptive) = stored_admission(to);
            let binds = (mode, max_active, count, seconds, auto, adaptive, version, concert);
            Ok((run::<UpdateAdmission>(&mut session.conn, binds)? == 1).then_some(OwnAdmission { admission: to, version }))
        };
        Ok(self.writer.write(Share::Small, set).await?)
    }

    async fn keep_draw(&self, concert: ConcertId, draw: DrawRecord) -> Result<bool, StoreError> {
        let (keys, base) = (draw.keys.concat(), stored(draw.base)?);
        let keep = move |session: &mut Session| {
            let binds = (concert, At(draw.closed_at), base, keys.as_slice(), draw.seed.as_slice(), draw.beacon.as_deref());
            Ok(run::<InsertDraw>(&mut session.conn, binds)? == 1)
        };
        Ok(self.writer.write(Share::Small, keep).await?)
    }

    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawRecord>, StoreError> {
        let read = self.readers.read(move |conn| {
            let found: Option<DrawRow<At>> = row::<SelectDraw, _, _>(conn, (concert,))?;
            Ok(found.map(draw).transpose()?)
        });
        Ok(read.await?)
    }
}
