//! Read models. Each call sees all rows at one instant.

use async_trait::async_trait;
use boxoffice_domain::money::Money;
use boxoffice_domain::{
    ConcertId, DateId, Payment, PaymentId, PointsEntry, Reservation, ReservationId, ReservationStatus, Timestamp, UserId, WalletEntry,
};
use boxoffice_ports::{ChangedSeats, ConcertRow, DateRow, Page, PaymentRow, Queries, SeatMark, SeatRow, StoreError, WalletRow};

use super::MemoryStore;
use super::tables::Tables;

#[async_trait]
impl Queries for MemoryStore {
    async fn catalog_version(&self) -> Result<i64, StoreError> {
        Ok(self.tables()?.catalog_version)
    }

    async fn catalog(&self) -> Result<Vec<ConcertRow>, StoreError> {
        let tables = self.tables()?;
        let mut rows: Vec<_> = tables
            .concerts
            .values()
            .map(|record| ConcertRow {
                concert: record.concert.clone(),
                key: record.key.clone(),
                time_zone: record.time_zone.clone(),
                sale_starts_at: record.sale_starts_at,
                admission: record.admission,
                dates: date_rows(&tables, record.dates.values()),
            })
            .collect();
        rows.sort_by_key(|row| (row.sale_starts_at, row.concert.id));
        Ok(rows)
    }

    async fn seats(&self, date: DateId) -> Result<Vec<SeatRow>, StoreError> {
        let tables = self.tables()?;
        let rows = tables.seats.get(&date).into_iter().flat_map(|seats| seats.values());
        Ok(rows.map(|row| SeatRow { seat: row.value.clone(), version: row.version }).collect())
    }

    async fn changed_seats(&self, _: Vec<DateId>, _: Option<SeatMark>) -> Result<Option<ChangedSeats>, StoreError> {
        Ok(None)
    }

    async fn wallet(&self, user: UserId) -> Result<WalletRow, StoreError> {
        let tables = self.tables()?;
        let account = tables.accounts.get(&user).map(|row| &row.value);
        Ok(account.map_or_else(WalletRow::default, |account| WalletRow { balance: account.balance, points: account.points }))
    }

    async fn entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<WalletEntry>, StoreError> {
        let tables = self.tables()?;
        let lines = tables.entries.get(&user).into_iter().flatten().rev();
        Ok(page(lines.skip_while(|line| after.is_some_and(|after| line.seq >= after)).cloned(), limit))
    }

    async fn points_entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<PointsEntry>, StoreError> {
        let tables = self.tables()?;
        let lines = tables.points_entries.get(&user).into_iter().flatten().rev();
        Ok(page(lines.skip_while(|line| after.is_some_and(|after| line.seq >= after)).cloned(), limit))
    }

    async fn reservations(&self, user: UserId, after: Option<ReservationId>, limit: u32) -> Result<Page<Reservation>, StoreError> {
        let tables = self.tables()?;
        let rows = tables.reservations_of(user).rev();
        Ok(page(rows.skip_while(|row| after.is_some_and(|after| row.id >= after)).cloned(), limit))
    }

    async fn reservation(&self, user: UserId, id: ReservationId) -> Result<Option<Reservation>, StoreError> {
        let tables = self.tables()?;
        Ok(tables.reservations.get(&id).map(|row| &row.value).filter(|reservation| reservation.user == user).cloned())
    }

    async fn payments(&self, user: UserId, after: Option<PaymentId>, limit: u32) -> Result<Page<PaymentRow>, StoreError> {
        let tables = self.tables()?;
        let ids = tables.payments_of.get(&user).into_iter().flatten().rev();
        let rows = ids.skip_while(|id| after.is_some_and(|after| **id >= after)).filter_map(|id| tables.payments.get(id));
        Ok(page(rows.filter_map(|row| payment_row(&tables, &row.value)), limit))
    }

    async fn payment(&self, user: UserId, id: PaymentId) -> Result<Option<PaymentRow>, StoreError> {
        let tables = self.tables()?;
        let payment = tables.payments.get(&id).map(|row| &row.value).filter(|payment| payment.user == user);
        Ok(payment.and_then(|payment| payment_row(&tables, payment)))
    }

    async fn payments_between(&self, from: PaymentId, until: PaymentId, limit: u32) -> Result<Vec<PaymentRow>, StoreError> {
        let tables = self.tables()?;
        let mut ids: Vec<_> = tables.payments.keys().copied().filter(|id| (from..until).contains(id)).collect();
        ids.sort_unstable();
        let payments = ids.iter().take(limit as usize).filter_map(|id| tables.payments.get(id));
        Ok(payments.filter_map(|row| payment_row(&tables, &row.value)).collect())
    }

    async fn live_holds_of(&self, users: Vec<UserId>, concert: ConcertId) -> Result<Vec<ReservationId>, StoreError> {
        let (tables, now) = self.tables_now()?;
        let live = |row: &&Reservation| row.concert.id == concert && row.status_at(now) == ReservationStatus::Held;
        Ok(users.iter().flat_map(|user| tables.reservations_of(*user)).filter(live).map(|row| row.id).collect())
    }

    async fn revenue(&self, concert: ConcertId) -> Result<Money, StoreError> {
        let tables = self.tables()?;
        let of_concert = |payment: &&Payment| {
            let reservation = tables.reservations.get(&payment.reservation);
            reservation.is_some_and(|row| row.value.concert.id == concert)
        };
        let kept = |payment: &Payment| payment.amount - payment.refund.as_ref().map_or(0, |refund| refund.amount);
        Ok(tables.payments.values().map(|row| &row.value).filter(of_concert).map(kept).sum())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }
}

fn date_rows<'a>(tables: &Tables, ids: impl Iterator<Item = &'a DateId>) -> Vec<DateRow> {
    let row = |id: &DateId| {
        let record = tables.dates.get(id)?;
        Some(DateRow {
            date: record.terms.date.clone(),
            key: record.key.clone(),
            booking_opens_at: record.terms.booking_opens_at,
            booking_closes_at: record.terms.booking_closes_at,
            refund_closes_at: record.terms.refund_closes_at,
            total: tables.seats.get(id).map_or(0, |seats| seats.len() as u64),
            price_min: record.price_min,
            price_max: record.price_max,
            seats_version: record.seats_version,
        })
    };
    let mut rows: Vec<_> = ids.filter_map(row).collect();
    rows.sort_by_key(|row| (row.date.starts_at, row.date.id));
    rows
}

fn payment_row(tables: &Tables, payment: &Payment) -> Option<PaymentRow> {
    let reservation = tables.reservations.get(&payment.reservation)?.value.clone();
    Some(PaymentRow { payment: payment.clone(), reservation })
}

fn page<T>(mut rows: impl Iterator<Item = T>, limit: u32) -> Page<T> {
    let items = rows.by_ref().take(limit as usize).collect();
    Page { items, more: rows.next().is_some() }
}
