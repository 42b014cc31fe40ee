//! Read models, each from one snapshot, by the indexes that lists are read in, on connections that never write for the
//! ledger. They come from the primary, so a read that begins after an answer sees it, on whatever instance.
//!
//! One round trip each, but for the catalogue, whose two statements share a snapshot.

use super::PostgresStore;
use super::failure::Failure;
use super::pool::{Conn, Isolation};
use super::rows::{
    AdmissionRow, AdmissionTypes, PaymentRow as PaymentColumns, PaymentTypes, ReservationRow, ReservationTypes, SeatColumns, SeatTypes,
    StateWord, admission, admission_columns, narrow, payment, payment_columns, reservation, reservation_columns, seat, seat_columns,
    seat_state_of,
};
use super::sql::{Id, State, row, rows, statements};
use async_trait::async_trait;
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{
    ConcertId, ConcertRef, DateId, DateRef, Entry, EntryId, EntryKind, PaymentId, PointsEntry, PointsKind, Reservation, ReservationId,
    SeatChange, SeatKey, Timestamp, UserId,
};
use boxoffice_ports::{ChangedSeats, ConcertRow, DateRow, Page, PaymentRow, Queries, SeatMark, SeatRow, StoreError, WalletRow};
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use std::collections::HashMap;
use uuid::Uuid;

statements! {
    SelectConcerts -> (SqlUuid, Text, Text, Text, Text, Nullable<Timestamptz>, AdmissionTypes) = concat!(
        "SELECT id, key, name, venue, time_zone, sale_starts_at, ", admission_columns!(), " FROM concerts ORDER BY sale_starts_at NULLS FIRST, id"
    );
    SelectCatalogVersion -> BigInt = "SELECT count(*) FROM catalog_changes";
    SelectDates -> (SqlUuid, SqlUuid, Text, Timestamptz, Nullable<Timestamptz>, Timestamptz, Timestamptz, Timestamptz, BigInt, BigInt, BigInt,
        BigInt) =
        "SELECT id, concert_id, key, starts_at, ends_at, booking_opens_at, booking_closes_at, refund_closes_at,
                seats_total, price_min, price_max, seats_version
         FROM dates ORDER BY starts_at, id";
    SelectSeats -> SeatTypes = concat!("SELECT ", seat_columns!(), " FROM seats s WHERE s.date_id = $1 ORDER BY s.number");
    // The mark is the oldest transaction that was still running in the very snapshot that the rows come from: whatever
    // commits later, however long ago it began, is not older. Without a mark to begin with there are no rows.
    SelectChanged -> (BigInt, Nullable<SqlUuid>, Nullable<Integer>, Nullable<Text>, Nullable<SqlUuid>, Nullable<Timestamptz>,
        Nullable<BigInt>) =
        "SELECT m.mark, s.date_id, s.number, s.state, s.reservation_id, s.held_until, s.version
         FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS mark) m
         LEFT JOIN seats s ON s.date_id = ANY ($1) AND s.changed_xid >= $2::bigint::text::xid8";
    SelectWallet -> (BigInt, BigInt) = "SELECT balance, points FROM accounts WHERE user_id = $1";
    SelectEntries -> (BigInt, SqlUuid, Text, BigInt, BigInt, Nullable<Text>, Nullable<SqlUuid>, Nullable<SqlUuid>, Timestamptz) =
        "SELECT seq, id, kind, amount, balance, memo, reservation_id, payment_id, created_at
         FROM entries WHERE user_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
    SelectPointsEntries -> (BigInt, SqlUuid, Text, BigInt, BigInt, SqlUuid, Timestamptz) =
        "SELECT seq, id, kind, points, balance, payment_id, created_at
         FROM points_entries WHERE user_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
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
    // Both conditions on the status: the first is the index's own.
    SelectLiveHolds -> SqlUuid =
        "SELECT id FROM reservations
         WHERE user_id = ANY($1) AND concert_id = $2 AND status IN ('held', 'confirmed') AND status = 'held'
           AND expires_at > (SELECT clock_timestamp() + $3 * interval '1 microsecond')";
    SelectRevenue -> BigInt =
        "SELECT coalesce(sum(amount - coalesce(refund_amount, 0)), 0)::bigint FROM payments WHERE concert_id = $1";
    SelectNow -> Timestamptz = "SELECT clock_timestamp() + $1 * interval '1 microsecond'";
}

type ConcertColumns = (Id<ConcertId>, String, String, String, String, Option<Timestamp>, AdmissionRow);
type DateColumns =
    (Id<DateId>, Id<ConcertId>, String, Timestamp, Option<Timestamp>, Timestamp, Timestamp, Timestamp, i64, Money, Money, i64);
type ChangedColumns =
    (i64, Option<Id<DateId>>, Option<i32>, Option<State<StateWord>>, Option<Id<ReservationId>>, Option<Timestamp>, Option<i64>);
type EntryColumns =
    (i64, Id<EntryId>, State<EntryKind>, Money, Money, Option<String>, Option<Id<ReservationId>>, Option<Id<PaymentId>>, Timestamp);
type PointsColumns = (i64, Id<EntryId>, State<PointsKind>, Points, Points, Id<PaymentId>, Timestamp);

/// Above every id that is given out.
const LAST: Uuid = Uuid::max();

/// The store's time; in a transaction that has no snapshot yet it is taken by this.
pub(super) async fn now(conn: &mut Conn, offset_us: i64) -> Result<Timestamp, Failure> {
    let now: Option<Timestamp> = row::<SelectNow, _, _>(conn, (offset_us,)).await?;
    now.ok_or_else(|| Failure::Data("the clock told no time".to_owned()))
}

async fn catalog(conn: &mut Conn) -> Result<Vec<ConcertRow>, Failure> {
    conn.begin(Isolation::ReadOnly).await?;
    let date_rows: Vec<DateColumns> = rows::<SelectDates, _, _>(conn, ()).await?;
    let concerts: Vec<ConcertColumns> = rows::<SelectConcerts, _, _>(conn, ()).await?;
    conn.rollback().await?;
    let mut dates: HashMap<ConcertId, Vec<DateRow>> = HashMap::new();
    for (id, concert, key, starts_at, ends_at, opens_at, closes_at, refund_closes_at, total, price_min, price_max, version) in date_rows {
        dates.entry(concert.0).or_default().push(DateRow {
            date: DateRef { id: id.0, starts_at, ends_at },
            key,
            booking_opens_at: opens_at,
            booking_closes_at: closes_at,
            refund_closes_at,
            total: narrow("seats_total", total)?.into(),
            price_min,
            price_max,
            seats_version: version,
        });
    }
    let concerts = concerts.into_iter().map(|(id, key, name, venue, time_zone, sale_starts_at, admits)| {
        Ok(ConcertRow {
            concert: ConcertRef { id: id.0, name: name.into(), venue: venue.into() },
            key,
            time_zone,
            sale_starts_at,
            admission: admission(admits)?,
            dates: dates.remove(&id.0).unwrap_or_default(),
        })
    });
    concerts.collect()
}

fn seat_change(columns: ChangedColumns) -> Option<Result<SeatChange, Failure>> {
    let (_, Some(date), Some(number), Some(state), reservation, until, Some(version)) = columns else { return None };
    let change = || {
        let key = SeatKey { date: date.0, number: narrow("seat number", number)? };
        Ok(SeatChange { key, version, state: seat_state_of(state.0, reservation.map(|id| id.0), until)? })
    };
    Some(change())
}

/// A page of `found`, of which there is one more than `limit` if there are more.
fn page<R, T>(found: Vec<R>, limit: u32, item: impl FnMut(R) -> Result<T, Failure>) -> Result<Page<T>, Failure> {
    let more = found.len() > limit as usize;
    let items = found.into_iter().take(limit as usize).map(item).collect::<Result<_, _>>()?;
    Ok(Page { items, more })
}

fn payment_row((paid, held): (PaymentColumns, ReservationRow)) -> Result<PaymentRow, Failure> {
    Ok(PaymentRow { payment: payment(paid).0, reservation: reservation(held)?.0 })
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
        // No transaction has a number that high.
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

    async fn entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<Entry>, StoreError> {
        let binds = (user, after.unwrap_or(i64::MAX), i64::from(limit) + 1);
        let found: Vec<EntryColumns> = rows::<SelectEntries, _, _>(&mut self.conn().await?, binds).await?;
        let entry = |(seq, id, kind, amount, balance, memo, reservation, payment, created_at): EntryColumns| {
            let (reservation, payment) = (reservation.map(|id| id.0), payment.map(|id| id.0));
            Ok(Entry { id: id.0, user, seq, kind: kind.0, amount, balance, memo, reservation, payment, created_at })
        };
        Ok(page(found, limit, entry)?)
    }

    async fn points_entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<PointsEntry>, StoreError> {
        let binds = (user, after.unwrap_or(i64::MAX), i64::from(limit) + 1);
        let found: Vec<PointsColumns> = rows::<SelectPointsEntries, _, _>(&mut self.conn().await?, binds).await?;
        let entry = |(seq, id, kind, points, balance, payment, created_at): PointsColumns| {
            Ok(PointsEntry { id: id.0, user, seq, kind: kind.0, points, balance, payment: payment.0, created_at })
        };
        Ok(page(found, limit, entry)?)
    }

    async fn reservations(&self, user: UserId, after: Option<ReservationId>, limit: u32) -> Result<Page<Reservation>, StoreError> {
        let binds = (user, after.unwrap_or(ReservationId(LAST)), i64::from(limit) + 1);
        let found: Vec<ReservationRow> = rows::<SelectReservations, _, _>(&mut self.conn().await?, binds).await?;
        Ok(page(found, limit, |row| Ok(reservation(row)?.0))?)
    }

    async fn reservation(&self, user: UserId, id: ReservationId) -> Result<Option<Reservation>, StoreError> {
        let found: Option<ReservationRow> = row::<SelectReservation, _, _>(&mut self.conn().await?, (user, id)).await?;
        Ok(found.map(reservation).transpose().map_err(Failure::from)?.map(|(reservation, _)| reservation))
    }

    async fn payments(&self, user: UserId, after: Option<PaymentId>, limit: u32) -> Result<Page<PaymentRow>, StoreError> {
        let binds = (user, after.unwrap_or(PaymentId(LAST)), i64::from(limit) + 1);
        let found = rows::<SelectPayments, _, _>(&mut self.conn().await?, binds).await?;
        Ok(page(found, limit, payment_row)?)
    }

    async fn payment(&self, user: UserId, id: PaymentId) -> Result<Option<PaymentRow>, StoreError> {
        let found = row::<SelectPayment, _, _>(&mut self.conn().await?, (user, id)).await?;
        Ok(found.map(payment_row).transpose()?)
    }

    async fn payments_between(&self, from: PaymentId, until: PaymentId, limit: u32) -> Result<Vec<PaymentRow>, StoreError> {
        let binds = (from, until, i64::from(limit));
        let found: Vec<_> = rows::<SelectPaymentsBetween, _, _>(&mut self.conn().await?, binds).await?;
        Ok(found.into_iter().map(payment_row).collect::<Result<_, _>>()?)
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
