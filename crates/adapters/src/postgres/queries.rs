//! Read models, each from one snapshot and in the order of an index, on connections apart from the ledger's. All read the
//! primary, so a read that begins after an answer sees it, on any instance.
//!
//! One round trip each, except the catalogue, whose two statements share a snapshot.

use super::PostgresStore;
use super::failure::Failure;
use super::pool::{Conn, Isolation};
use super::rows::{
    PaymentTypes, ReservationRow, ReservationTypes, SeatColumns, SeatTypes, StateWord, narrow, payment_columns, reservation,
    reservation_columns, seat, seat_columns, seat_state_of,
};
use super::sql::{Id, State, row, rows, statements};
use crate::sql::catalog::{self as stored, AdmissionTypes, ConcertColumns, DateColumns, concert_columns, date_columns};
use crate::sql::queries::{EntryRow, LAST, PointsEntryRow, entry, entry_columns, page, payment_row, points_entry, points_entry_columns};
use crate::sql::rows::Contradiction;
use async_trait::async_trait;
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{
    ConcertId, DateId, PaymentId, PointsEntry, Reservation, ReservationId, SeatChange, SeatKey, Timestamp, UserId, WalletEntry,
};
use boxoffice_ports::{ChangedSeats, ConcertRow, Page, PaymentRow, Queries, SeatMark, SeatRow, StoreError, WalletRow};
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

statements! {
    SelectConcerts -> (SqlUuid, Text, Text, Text, Text, Nullable<Timestamptz>, AdmissionTypes) =
        concat!("SELECT ", concert_columns!(), " FROM concerts ORDER BY sale_starts_at NULLS FIRST, id");
    SelectCatalogVersion -> BigInt = "SELECT count(*) FROM catalog_changes";
    SelectDates -> (SqlUuid, SqlUuid, Text, Timestamptz, Nullable<Timestamptz>, Timestamptz, Timestamptz, Timestamptz, BigInt, BigInt, BigInt,
        BigInt) =
        concat!("SELECT ", date_columns!(), " FROM dates ORDER BY starts_at, id");
    SelectSeats -> SeatTypes = concat!("SELECT ", seat_columns!(), " FROM seats s WHERE s.date_id = $1 ORDER BY s.number");
    // The mark is the oldest transaction still running in the same snapshot that the rows come from. No later commit has
    // a lower number, however long ago its transaction began. A first call, without a mark, gets no rows.
    SelectChanged -> (BigInt, Nullable<SqlUuid>, Nullable<Integer>, Nullable<Text>, Nullable<SqlUuid>, Nullable<Timestamptz>,
        Nullable<BigInt>) =
        "SELECT m.mark, s.date_id, s.number, s.state, s.reservation_id, s.held_until, s.version
         FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS mark) m
         LEFT JOIN seats s ON s.date_id = ANY ($1) AND s.changed_xid >= $2::bigint::text::xid8";
    SelectWallet -> (BigInt, BigInt) = "SELECT balance, points FROM accounts WHERE user_id = $1";
    SelectEntries -> (BigInt, SqlUuid, Text, BigInt, BigInt, Nullable<Text>, Nullable<SqlUuid>, Nullable<SqlUuid>, Timestamptz) =
        concat!("SELECT ", entry_columns!(), " FROM entries WHERE user_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3");
    SelectPointsEntries -> (BigInt, SqlUuid, Text, BigInt, BigInt, SqlUuid, Timestamptz) =
        concat!("SELECT ", points_entry_columns!(), " FROM points_entries WHERE user_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3");
    SelectReservations -> ReservationTypes = concat!(
        "SELECT ", reservation_columns!(), " FROM reservations r WHERE r.user_id = $1 AND r.id < $2 ORDER BY r.id DESC LIMIT $3"
    );
    SelectReservation -> ReservationTypes =
        concat!("SELECT ", reservation_columns!(), " FROM reservations r WHERE r.user_id = $1 AND r.id = $2");
    SelectPayments -> (PaymentTypes, ReservationTypes) = concat!(
        "SELECT ", payment_columns!(), ", ", reservation_columns!(),
        " FROM payments p JOIN reservations r ON r.id = p.reservation_id
          WHERE p.user_id = $1 AND p.id < $2 ORDER BY p.id DESC LIMIT $3"
    );
    SelectPayment -> (PaymentTypes, ReservationTypes) = concat!(
        "SELECT ", payment_columns!(), ", ", reservation_columns!(),
        " FROM payments p JOIN reservations r ON r.id = p.reservation_id WHERE p.user_id = $1 AND p.id = $2"
    );
    SelectPaymentsBetween -> (PaymentTypes, ReservationTypes) = concat!(
        "SELECT ", payment_columns!(), ", ", reservation_columns!(),
        " FROM payments p JOIN reservations r ON r.id = p.reservation_id
          WHERE p.id >= $1 AND p.id < $2 ORDER BY p.id LIMIT $3"
    );
    // Two conditions on the status: the first repeats the index's own.
    SelectLiveHolds -> SqlUuid =
        "SELECT id FROM reservations
         WHERE user_id = ANY($1) AND concert_id = $2 AND status IN ('held', 'confirmed') AND status = 'held'
           AND expires_at > (SELECT clock_timestamp() + $3 * interval '1 microsecond')";
    SelectRevenue -> BigInt =
        "SELECT coalesce(sum(amount - coalesce(refund_amount, 0)), 0)::bigint FROM payments WHERE concert_id = $1";
    SelectNow -> Timestamptz = "SELECT clock_timestamp() + $1 * interval '1 microsecond'";
}

type ChangedColumns =
    (i64, Option<Id<DateId>>, Option<i32>, Option<State<StateWord>>, Option<Id<ReservationId>>, Option<Timestamp>, Option<i64>);

/// The store's time. In a repeatable-read transaction this statement takes the snapshot, if it is the first.
pub(super) async fn now(conn: &mut Conn, offset_us: i64) -> Result<Timestamp, Failure> {
    let now: Option<Timestamp> = row::<SelectNow, _, _>(conn, (offset_us,)).await?;
    now.ok_or_else(|| Failure::Data("the server returned no time".to_owned()))
}

async fn catalog(conn: &mut Conn) -> Result<Vec<ConcertRow>, Failure> {
    conn.begin(Isolation::ReadOnly).await?;
    let dates: Vec<DateColumns<Timestamp>> = rows::<SelectDates, _, _>(conn, ()).await?;
    let concerts: Vec<ConcertColumns<Timestamp>> = rows::<SelectConcerts, _, _>(conn, ()).await?;
    conn.rollback().await?;
    Ok(stored::catalog(concerts, dates)?)
}

fn seat_change(columns: ChangedColumns) -> Option<Result<SeatChange, Contradiction>> {
    let (_, Some(date), Some(number), Some(state), reservation, until, Some(version)) = columns else { return None };
    let change = || {
        let key = SeatKey { date: date.0, number: narrow("seat number", number)? };
        Ok(SeatChange { key, version, state: seat_state_of(state.0, reservation.map(|id| id.0), until)? })
    };
    Some(change())
}

#[async_trait]
impl Queries for PostgresStore {
    async fn catalog(&self) -> Result<Vec<ConcertRow>, StoreError> {
        Ok(catalog(&mut self.conn().await?).await?)
    }

    async fn catalog_version(&self) -> Result<i64, StoreError> {
        Ok(row::<SelectCatalogVersion, _, _>(&mut self.conn().await?, ()).await?.unwrap_or_default())
    }

    async fn seats(&self, date: DateId) -> Result<Vec<SeatRow>, StoreError> {
        let found: Vec<SeatColumns> = rows::<SelectSeats, _, _>(&mut self.conn().await?, (date,)).await?;
        let seats = found.into_iter().map(|columns| seat(columns).map(|(seat, version)| SeatRow { seat, version }));
        Ok(seats.collect::<Result<_, _>>()?)
    }

    async fn changed_seats(&self, dates: Vec<DateId>, since: Option<SeatMark>) -> Result<Option<ChangedSeats>, StoreError> {
        // Higher than any transaction's number.
        let from = since.map_or(i64::MAX, |mark| i64::try_from(mark.0).unwrap_or(i64::MAX));
        let dates: Vec<Uuid> = if since.is_some() { dates.into_iter().map(|date| date.0).collect() } else { Vec::new() };
        let found: Vec<ChangedColumns> = rows::<SelectChanged, _, _>(&mut self.conn().await?, (dates, from)).await?;
        let Some(&(mark, ..)) = found.first() else { return Ok(None) };
        let changes = found.into_iter().filter_map(seat_change).collect::<Result<_, _>>()?;
        Ok(Some(ChangedSeats { changes, mark: SeatMark(mark.unsigned_abs()) }))
    }

    async fn wallet(&self, user: UserId) -> Result<WalletRow, StoreError> {
        let found: Option<(Money, Points)> = row::<SelectWallet, _, _>(&mut self.conn().await?, (user,)).await?;
        Ok(found.map_or_else(WalletRow::default, |(balance, points)| WalletRow { balance, points }))
    }

    async fn entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<WalletEntry>, StoreError> {
        let binds = (user, after.unwrap_or(i64::MAX), i64::from(limit) + 1);
        let found: Vec<EntryRow<Timestamp>> = rows::<SelectEntries, _, _>(&mut self.conn().await?, binds).await?;
        Ok(page(found, limit, |row| Ok(entry(user, row)))?)
    }

    async fn points_entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<PointsEntry>, StoreError> {
        let binds = (user, after.unwrap_or(i64::MAX), i64::from(limit) + 1);
        let found: Vec<PointsEntryRow<Timestamp>> = rows::<SelectPointsEntries, _, _>(&mut self.conn().await?, binds).await?;
        Ok(page(found, limit, |row| Ok(points_entry(user, row)))?)
    }

    async fn reservations(&self, user: UserId, after: Option<ReservationId>, limit: u32) -> Result<Page<Reservation>, StoreError> {
        let binds = (user, after.unwrap_or(ReservationId(LAST)), i64::from(limit) + 1);
        let found: Vec<ReservationRow> = rows::<SelectReservations, _, _>(&mut self.conn().await?, binds).await?;
        Ok(page(found, limit, |row| Ok(reservation(row)?.0))?)
    }

    async fn reservation(&self, user: UserId, id: ReservationId) -> Result<Option<Reservation>, StoreError> {
        let found: Option<ReservationRow> = row::<SelectReservation, _, _>(&mut self.conn().await?, (user, id)).await?;
        Ok(found.map(reservation).transpose()?.map(|(reservation, _)| reservation))
    }

    async fn payments(&self, user: UserId, after: Option<PaymentId>, limit: u32) -> Result<Page<PaymentRow>, StoreError> {
        let binds = (user, after.unwrap_or(PaymentId(LAST)), i64::from(limit) + 1);
        let found = rows::<SelectPayments, _, _>(&mut self.conn().await?, binds).await?;
        Ok(page(found, limit, payment_row::<Timestamp, i32>)?)
    }

    async fn payment(&self, user: UserId, id: PaymentId) -> Result<Option<PaymentRow>, StoreError> {
        let found = row::<SelectPayment, _, _>(&mut self.conn().await?, (user, id)).await?;
        Ok(found.map(payment_row::<Timestamp, i32>).transpose()?)
    }

    async fn payments_between(&self, from: PaymentId, until: PaymentId, limit: u32) -> Result<Vec<PaymentRow>, StoreError> {
        let binds = (from, until, i64::from(limit));
        let found: Vec<_> = rows::<SelectPaymentsBetween, _, _>(&mut self.conn().await?, binds).await?;
        Ok(found.into_iter().map(payment_row::<Timestamp, i32>).collect::<Result<_, _>>()?)
    }

    async fn live_holds_of(&self, users: Vec<UserId>, concert: ConcertId) -> Result<Vec<ReservationId>, StoreError> {
        let users: Vec<Uuid> = users.into_iter().map(|user| user.0).collect();
        let binds = (users, concert, self.offset_us());
        let found: Vec<Id<ReservationId>> = rows::<SelectLiveHolds, _, _>(&mut self.conn().await?, binds).await?;
        Ok(found.into_iter().map(|id| id.0).collect())
    }

    async fn revenue(&self, concert: ConcertId) -> Result<Money, StoreError> {
        let sum: Option<Money> = row::<SelectRevenue, _, _>(&mut self.conn().await?, (concert,)).await?;
        Ok(sum.unwrap_or(0))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(now(&mut self.conn().await?, self.offset_us()).await?)
    }
}
