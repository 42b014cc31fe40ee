//! Read models.

use async_trait::async_trait;
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{
    Admission, ConcertId, ConcertRef, DateId, DateRef, Payment, PaymentId, PointsEntry, Reservation, ReservationId, Seat, SeatChange,
    Timestamp, UserId, WalletEntry,
};

use crate::StoreError;

/// One page of a list, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Whether more follow the last of `items`.
    pub more: bool,
}

/// A concert as the catalogue shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcertRow {
    pub concert: ConcertRef,
    pub key: String,
    pub time_zone: String,
    pub sale_starts_at: Option<Timestamp>,
    pub admission: Admission,
    /// By `starts_at`.
    pub dates: Vec<DateRow>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateRow {
    pub date: DateRef,
    pub key: String,
    pub booking_opens_at: Timestamp,
    pub booking_closes_at: Timestamp,
    pub refund_closes_at: Timestamp,
    pub total: u64,
    pub price_min: Money,
    pub price_max: Money,
    /// Rises with every import that changes the date's seats.
    pub seats_version: i64,
}

/// Up to where the changes of seats were read. Opaque: only the store that made it can interpret it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatMark(pub u64);

/// What [`Queries::changed_seats`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedSeats {
    /// May repeat some that were returned before.
    pub changes: Vec<SeatChange>,
    /// The mark for the next call.
    pub mark: SeatMark,
}

/// A seat with the version of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatRow {
    pub seat: Seat,
    pub version: i64,
}

/// A payment with what it bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRow {
    pub payment: Payment,
    pub reservation: Reservation,
}

/// Balance and points of a user; zero for a user without an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalletRow {
    pub balance: Money,
    pub points: Points,
}

/// Read models. What a user reads includes every effect that any instance has answered before.
///
/// Lists are newest first, after the last row of the page before (`after`); at most `limit + 1` rows are read.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Queries: Send + Sync {
    /// The whole catalogue, by `sale_starts_at` (none first), then id. Small: a season, not its seats.
    async fn catalog(&self) -> Result<Vec<ConcertRow>, StoreError>;
    /// Another number once the catalogue has changed: a catalogue that is read after this number includes everything that
    /// was committed before it. Cheap, so that it can be polled.
    async fn catalog_version(&self) -> Result<i64, StoreError>;
    /// All seats of a date, by number.
    async fn seats(&self, date: DateId) -> Result<Vec<SeatRow>, StoreError>;
    /// The seats of `dates` that any instance may have changed since `since`, however late their transaction was
    /// committed. Without a mark: no seats, and the first mark. `None` from a store that only this process writes.
    async fn changed_seats(&self, dates: Vec<DateId>, since: Option<SeatMark>) -> Result<Option<ChangedSeats>, StoreError>;
    async fn wallet(&self, user: UserId) -> Result<WalletRow, StoreError>;
    /// By `seq`, descending, below `after`.
    async fn entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<WalletEntry>, StoreError>;
    /// By `seq`, descending, below `after`.
    async fn points_entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<PointsEntry>, StoreError>;
    /// By id (which is by time), descending, below `after`.
    async fn reservations(&self, user: UserId, after: Option<ReservationId>, limit: u32) -> Result<Page<Reservation>, StoreError>;
    /// `None` as well for another user's.
    async fn reservation(&self, user: UserId, id: ReservationId) -> Result<Option<Reservation>, StoreError>;
    /// By id, descending, below `after`.
    async fn payments(&self, user: UserId, after: Option<PaymentId>, limit: u32) -> Result<Page<PaymentRow>, StoreError>;
    /// `None` as well for another user's.
    async fn payment(&self, user: UserId, id: PaymentId) -> Result<Option<PaymentRow>, StoreError>;
    /// Payments of all users with `from <= id < until`, by id, ascending, `limit` at most.
    async fn payments_between(&self, from: PaymentId, until: PaymentId, limit: u32) -> Result<Vec<PaymentRow>, StoreError>;
    /// The user's reservations of a concert that are held and not yet over at the store's time.
    async fn live_holds(&self, user: UserId, concert: ConcertId) -> Result<Vec<ReservationId>, StoreError> {
        self.live_holds_of(vec![user], concert).await
    }
    /// The same for many users, in one read.
    async fn live_holds_of(&self, users: Vec<UserId>, concert: ConcertId) -> Result<Vec<ReservationId>, StoreError>;
    /// Money taken by payments of a concert, less refunds.
    async fn revenue(&self, concert: ConcertId) -> Result<Money, StoreError>;
    /// The store's clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}
