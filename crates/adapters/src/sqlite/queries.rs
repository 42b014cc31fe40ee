//! Read models, each from one snapshot and in the order of an index.

use super::SqliteStore;
use super::failure::Failure;
use super::rows::{
    PaymentTypes, ReservationRow, ReservationTypes, SeatColumns, SeatTypes, payment_columns, reservation, reservation_columns, seat,
    seat_columns,
};
use super::sql::{At, Id, row, rows, statements};
use crate::sql::catalog::{self as stored, AdmissionTypes, ConcertColumns, DateColumns, concert_columns, date_columns};
use crate::sql::queries::{EntryRow, LAST, PointsEntryRow, entry, entry_columns, page, payment_row, points_entry, points_entry_columns};
use async_trait::async_trait;
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{ConcertId, DateId, PaymentId, PointsEntry, Reservation, ReservationId, Timestamp, UserId, WalletEntry};
use boxoffice_ports::{ChangedSeats, ConcertRow, Page, PaymentRow, Queries, SeatMark, SeatRow, StoreError, WalletRow};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::{Connection, SqliteConnection};

statements! {
    SelectConcerts -> (Binary, Text, Text, Text, Text, Nullable<BigInt>, AdmissionTypes) =
        concat!("SELECT ", concert_columns!(), " FROM concerts ORDER BY sale_starts_at, id");
    SelectDates -> (Binary, Binary, Text, BigInt, Nullable<BigInt>, BigInt, BigInt, BigInt, BigInt, BigInt, BigInt, BigInt) =
        concat!("SELECT ", date_columns!(), " FROM dates ORDER BY starts_at, id");
    SelectCatalogVersion -> BigInt = "SELECT version FROM catalog_version";
    SelectSeats -> SeatTypes = concat!("SELECT ", seat_columns!(), " FROM seats WHERE date_id = ? ORDER BY number");
    SelectWallet -> (BigInt, BigInt) = "SELECT balance, points FROM accounts WHERE user_id = ?";
    SelectEntries -> (BigInt, Binary, Text, BigInt, BigInt, Nullable<Text>, Nullable<Binary>, Nullable<Binary>, BigInt) =
        concat!("SELECT ", entry_columns!(), " FROM entries WHERE user_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?");
    SelectPointsEntries -> (BigInt, Binary, Text, BigInt, BigInt, Binary, BigInt) =
        concat!("SELECT ", points_entry_columns!(), " FROM points_entries WHERE user_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?");
    SelectReservations -> ReservationTypes = concat!(
        "SELECT ", reservation_columns!(), " FROM reservations r WHERE r.user_id = ? AND r.id < ? ORDER BY r.id DESC LIMIT ?"
    );
    SelectReservation -> ReservationTypes =
        concat!("SELECT ", reservation_columns!(), " FROM reservations r WHERE r.user_id = ? AND r.id = ?");
    SelectPayments -> (PaymentTypes, ReservationTypes) = concat!(
        "SELECT ", payment_columns!(), ", ", reservation_columns!(),
        " FROM payments p JOIN reservations r ON r.id = p.reservation_id
          WHERE p.user_id = ? AND p.id < ? ORDER BY p.id DESC LIMIT ?"
    );
    SelectPayment -> (PaymentTypes, ReservationTypes) = concat!(
        "SELECT ", payment_columns!(), ", ", reservation_columns!(),
        " FROM payments p JOIN reservations r ON r.id = p.reservation_id WHERE p.user_id = ? AND p.id = ?"
    );
    SelectPaymentsBetween -> (PaymentTypes, ReservationTypes) = concat!(
        "SELECT ", payment_columns!(), ", ", reservation_columns!(),
        " FROM payments p JOIN reservations r ON r.id = p.reservation_id
          WHERE p.id >= ? AND p.id < ? ORDER BY p.id LIMIT ?"
    );
    // Two conditions on the status: the first repeats the index's own, word for word.
    SelectLiveHolds -> Binary =
        "SELECT id FROM reservations
         WHERE user_id = ? AND concert_id = ? AND status IN ('held', 'confirmed') AND status = 'held' AND expires_at > ?";
    SelectRevenue -> BigInt =
        "SELECT coalesce(sum(amount - coalesce(refund_amount, 0)), 0) FROM payments WHERE concert_id = ?";
}

fn catalog(conn: &mut SqliteConnection) -> Result<Vec<ConcertRow>, Failure> {
    let dates: Vec<DateColumns<At>> = rows::<SelectDates, _, _>(conn, ())?;
    let concerts: Vec<ConcertColumns<At>> = rows::<SelectConcerts, _, _>(conn, ())?;
    Ok(stored::catalog(concerts, dates)?)
}

#[async_trait]
impl Queries for SqliteStore {
    async fn catalog(&self) -> Result<Vec<ConcertRow>, StoreError> {
        Ok(self.readers.read(|conn| conn.transaction(catalog)).await?)
    }

    async fn catalog_version(&self) -> Result<i64, StoreError> {
        let version = self.readers.read(|conn| Ok(row::<SelectCatalogVersion, _, _>(conn, ())?)).await?;
        Ok(version.unwrap_or_default())
    }

    async fn seats(&self, date: DateId) -> Result<Vec<SeatRow>, StoreError> {
        let read = self.readers.read(move |conn| {
            let found: Vec<SeatColumns> = rows::<SelectSeats, _, _>(conn, (date,))?;
            let row = |columns| seat(date, columns).map(|(seat, version)| SeatRow { seat, version });
            Ok(found.into_iter().map(row).collect::<Result<_, _>>()?)
        });
        Ok(read.await?)
    }

    /// One server has the file for itself; any other process that writes to it changes the catalogue's versions.
    async fn changed_seats(&self, _: Vec<DateId>, _: Option<SeatMark>) -> Result<Option<ChangedSeats>, StoreError> {
        Ok(None)
    }

    async fn wallet(&self, user: UserId) -> Result<WalletRow, StoreError> {
        let found: Option<(Money, Points)> = self.readers.read(move |conn| Ok(row::<SelectWallet, _, _>(conn, (user,))?)).await?;
        Ok(found.map_or_else(WalletRow::default, |(balance, points)| WalletRow { balance, points }))
    }

    async fn entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<WalletEntry>, StoreError> {
        let binds = (user, after.unwrap_or(i64::MAX), i64::from(limit) + 1);
        let found: Vec<EntryRow<At>> = self.readers.read(move |conn| Ok(rows::<SelectEntries, _, _>(conn, binds)?)).await?;
        Ok(page(found, limit, |row| Ok(entry(user, row)))?)
    }

    async fn points_entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<PointsEntry>, StoreError> {
        let binds = (user, after.unwrap_or(i64::MAX), i64::from(limit) + 1);
        let found: Vec<PointsEntryRow<At>> = self.readers.read(move |conn| Ok(rows::<SelectPointsEntries, _, _>(conn, binds)?)).await?;
        Ok(page(found, limit, |row| Ok(points_entry(user, row)))?)
    }

    async fn reservations(&self, user: UserId, after: Option<ReservationId>, limit: u32) -> Result<Page<Reservation>, StoreError> {
        let binds = (user, after.unwrap_or(ReservationId(LAST)), i64::from(limit) + 1);
        let found: Vec<ReservationRow> = self.readers.read(move |conn| Ok(rows::<SelectReservations, _, _>(conn, binds)?)).await?;
        Ok(page(found, limit, |row| Ok(reservation(row)?.0))?)
    }

    async fn reservation(&self, user: UserId, id: ReservationId) -> Result<Option<Reservation>, StoreError> {
        let found: Option<ReservationRow> = self.readers.read(move |conn| Ok(row::<SelectReservation, _, _>(conn, (user, id))?)).await?;
        Ok(found.map(reservation).transpose()?.map(|(reservation, _)| reservation))
    }

    async fn payments(&self, user: UserId, after: Option<PaymentId>, limit: u32) -> Result<Page<PaymentRow>, StoreError> {
        let binds = (user, after.unwrap_or(PaymentId(LAST)), i64::from(limit) + 1);
        let found = self.readers.read(move |conn| Ok(rows::<SelectPayments, _, _>(conn, binds)?)).await?;
        Ok(page(found, limit, payment_row::<At, i64>)?)
    }

    async fn payment(&self, user: UserId, id: PaymentId) -> Result<Option<PaymentRow>, StoreError> {
        let found = self.readers.read(move |conn| Ok(row::<SelectPayment, _, _>(conn, (user, id))?)).await?;
        Ok(found.map(payment_row::<At, i64>).transpose()?)
    }

    async fn payments_between(&self, from: PaymentId, until: PaymentId, limit: u32) -> Result<Vec<PaymentRow>, StoreError> {
        let binds = (from, until, i64::from(limit));
        let found = self.readers.read(move |conn| Ok(rows::<SelectPaymentsBetween, _, _>(conn, binds)?)).await?;
        Ok(found.into_iter().map(payment_row::<At, i64>).collect::<Result<_, _>>()?)
    }

    async fn live_holds_of(&self, users: Vec<UserId>, concert: ConcertId) -> Result<Vec<ReservationId>, StoreError> {
        let clock = self.clock.clone();
        let read = self.readers.read(move |conn| {
            let mut holds = Vec::new();
            for user in users {
                let found: Vec<Id<ReservationId>> = rows::<SelectLiveHolds, _, _>(conn, (user, concert, At(clock.now())))?;
                holds.extend(found.into_iter().map(|id| id.0));
            }
            Ok(holds)
        });
        Ok(read.await?)
    }

    async fn revenue(&self, concert: ConcertId) -> Result<Money, StoreError> {
        let sum: Option<Money> = self.readers.read(move |conn| Ok(row::<SelectRevenue, _, _>(conn, (concert,))?)).await?;
        Ok(sum.unwrap_or(0))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }
}
