//! The admission that an operator set, and the mirror of a waiting room that is kept elsewhere. One round trip each.

use super::PostgresStore;
use super::sql::{Id, row, rows, run, statements};
use crate::sql::catalog::{AdmissionRow, AdmissionTypes, admission_columns, stored_admission};
use crate::sql::mirror::{DrawRow, active_place, draw, mark, own_admission, stored_mark};
use crate::sql::rows::stored;
use async_trait::async_trait;
use boxoffice_domain::{Admission, ConcertId, QueueEntryId, Timestamp, UserId};
use boxoffice_ports::{ActivePlace, DrawRecord, OwnAdmission, RoomMark, RoomMirror, StoreError};
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

/// An admission's version: when it was set, in microseconds since 1970.
macro_rules! admission_version {
    () => {
        "(extract(epoch FROM admission_changed_at) * 1000000)::bigint"
    };
}

statements! {
    SelectAdmission -> (AdmissionTypes, BigInt) = concat!(
        "SELECT ", admission_columns!(), ", ", admission_version!(),
        " FROM concerts WHERE id = $1 AND admission_changed_at IS NOT NULL"
    );
    // A concurrent change waits for the row's lock, and then compares with the admission as it is by then.
    UpdateAdmission -> BigInt = concat!(
        "UPDATE concerts
         SET mode = $2, max_active = $3, per_interval_count = $4, per_interval_s = $5, auto = $6, adaptive = $7,
             admission_changed_at = greatest(clock_timestamp() + $8 * interval '1 microsecond', admission_changed_at + interval '1 microsecond')
         WHERE id = $1 AND (admission_changed_at IS NULL
             OR (", admission_columns!(), ") IS NOT DISTINCT FROM ($9, $10, $11, $12, $13, $14))
         RETURNING ", admission_version!()
    );
    Save -> Text = "SELECT mirror_save($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)::text";
    SelectMirror -> (BigInt, BigInt, BigInt, BigInt, BigInt, Nullable<SqlUuid>, Nullable<SqlUuid>, Nullable<BigInt>, Nullable<Timestamptz>,
        Nullable<Timestamptz>) =
        "SELECT m.last_place, m.promoted_to, m.served, m.expired, m.\"left\", p.entry_id, p.user_id, p.place, p.promoted_at, p.active_until
         FROM mirrored_rooms m LEFT JOIN mirrored_places p ON p.concert_id = m.concert_id
         WHERE m.concert_id = $1 ORDER BY p.place";
    InsertDraw = "INSERT INTO mirrored_draws (concert_id, closed_at, base, keys, seed, beacon) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (concert_id) DO NOTHING";
    SelectDraw -> (Timestamptz, BigInt, Binary, Binary, Nullable<Text>) =
        "SELECT closed_at, base, keys, seed, beacon FROM mirrored_draws WHERE concert_id = $1";
}

type MirrorColumns =
    (i64, i64, i64, i64, i64, Option<Id<QueueEntryId>>, Option<Id<UserId>>, Option<i64>, Option<Timestamp>, Option<Timestamp>);

#[async_trait]
impl RoomMirror for PostgresStore {
    async fn save(&self, concert: ConcertId, mark: RoomMark, began: Vec<ActivePlace>, ended: Vec<QueueEntryId>) -> Result<(), StoreError> {
        let places = began.iter().map(|it| stored(it.place)).collect::<Result<Vec<_>, _>>()?;
        let (last_place, promoted_to, served, expired, left) = stored_mark(mark)?;
        let binds = (
            concert,
            last_place,
            promoted_to,
            served,
            expired,
            left,
            began.iter().map(|it| it.entry.0).collect::<Vec<Uuid>>(),
            began.iter().map(|it| it.user.0).collect::<Vec<Uuid>>(),
            places,
            began.iter().map(|it| it.promoted_at).collect::<Vec<_>>(),
            began.iter().map(|it| it.active_until).collect::<Vec<_>>(),
            ended.into_iter().map(|entry| entry.0).collect::<Vec<Uuid>>(),
        );
        rows::<Save, _, String>(&mut self.conn().await?, binds).await?;
        Ok(())
    }

    async fn load(&self, concert: ConcertId) -> Result<Option<(RoomMark, Vec<ActivePlace>)>, StoreError> {
        let found: Vec<MirrorColumns> = rows::<SelectMirror, _, _>(&mut self.conn().await?, (concert,)).await?;
        let Some(&(last_place, promoted_to, served, expired, left, ..)) = found.first() else { return Ok(None) };
        let mark = mark((last_place, promoted_to, served, expired, left));
        let active = |columns: MirrorColumns| {
            let (.., Some(entry), Some(user), Some(place), Some(promoted_at), Some(active_until)) = columns else { return None };
            Some(active_place((entry, user, place, promoted_at, active_until)))
        };
        Ok(Some((mark, found.into_iter().filter_map(active).collect())))
    }

    async fn admission(&self, concert: ConcertId) -> Result<Option<OwnAdmission>, StoreError> {
        let found: Option<(AdmissionRow, i64)> = row::<SelectAdmission, _, _>(&mut self.conn().await?, (concert,)).await?;
        Ok(found.map(own_admission).transpose()?)
    }

    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<Option<OwnAdmission>, StoreError> {
        let (mode, max_active, count, seconds, auto, adaptive) = stored_admission(to);
        let (was_mode, was_max_active, was_count, was_seconds, was_auto, was_adaptive) = stored_admission(was);
        let offset_us = self.offset_us();
        let binds = (
            concert,
            mode,
            max_active,
            count,
            seconds,
            auto,
            adaptive,
            offset_us,
            was_mode,
            was_max_active,
            was_count,
            was_seconds,
            was_auto,
            was_adaptive,
        );
        let version: Option<i64> = row::<UpdateAdmission, _, _>(&mut self.conn().await?, binds).await?;
        Ok(version.map(|version| OwnAdmission { admission: to, version }))
    }

    async fn keep_draw(&self, concert: ConcertId, draw: DrawRecord) -> Result<bool, StoreError> {
        let keys = draw.keys.concat();
        let binds = (concert, draw.closed_at, stored(draw.base)?, keys.as_slice(), draw.seed.as_slice(), draw.beacon.as_deref());
        Ok(run::<InsertDraw>(&mut self.conn().await?, binds).await? == 1)
    }

    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawRecord>, StoreError> {
        let found: Option<DrawRow<Timestamp>> = row::<SelectDraw, _, _>(&mut self.conn().await?, (concert,)).await?;
        Ok(found.map(draw).transpose()?)
    }
}
