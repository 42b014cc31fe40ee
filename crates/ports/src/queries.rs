use async_trait::async_trait;
use boxoffice_domain::money::{Money, Points};
use boxoffice_domain::{
    Admission, ConcertId, ConcertRef, DateId, DateRef, Entry, Payment, PaymentId, PointsEntry, Reservation, ReservationId, Seat,
    SeatChange, Timestamp, UserId,
};

use crate::StoreError;

/// One page of a list, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Whether there are more behind the last of `items`.
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

/// Up to where the changes of seats were seen; opaque, a store's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatMark(pub u64);

/// What [`Queries::changed_seats`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedSeats {
    /// Perhaps some that were told of before.
    pub changes: Vec<SeatChange>,
    /// What to ask with the next time.
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

/// Balance and points of a user; zero for one who never had any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalletRow {
    pub balance: Money,
    pub points: Points,
}

/// Read models. What a user reads shows everything answered to anybody before, on any instance.
///
/// Lists are newest first, after the row that the last page ended with (`after`), `limit + 1` rows at most looked at.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Queries: Send + Sync {
    /// The whole catalogue, by `sale_starts_at` (none first), then id. Small: a season, not its seats.
    async fn catalog(&self) -> Result<Vec<ConcertRow>, StoreError>;
    /// Another number once the catalogue has changed: what is committed before a read of this number shows in a catalogue
    /// that is read after it. Cheap, for asking again and again.
    async fn catalog_version(&self) -> Result<i64, StoreError>;
    /// All seats of a date, by number.
    async fn seats(&self, date: DateId) -> Result<Vec<SeatRow>, StoreError>;
    /// The seats of `dates` that any instance may have changed since `since`, however late their transaction was
    /// committed; without a mark none, and the mark to begin with. `None` of a store that only this process writes.
    async fn changed_seats(&self, dates: Vec<DateId>, since: Option<SeatMark>) -> Result<Option<ChangedSeats>, StoreError>;
    async fn wallet(&self, user: UserId) -> Result<WalletRow, StoreError>;
    /// By `seq`, descending, below `after`.
    async fn entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<Entry>, StoreError>;
    /// By `seq`, descending, below `after`.
    async fn points_entries(&self, user: UserId, after: Option<i64>, limit: u32) -> Result<Page<PointsEntry>, StoreError>;
    /// By id (which is by time), descending, below `after`.
    async fn reservations(&self, user: UserId, after: Option<ReservationId>, limit: u32) -> Result<Page<Reservation>, StoreError>;
    /// One of this user's; another's is `None`.
    async fn reservation(&self, user: UserId, id: ReservationId) -> Result<Option<Reservation>, StoreError>;
    /// By id, descending, below `after`.
    async fn payments(&self, user: UserId, after: Option<PaymentId>, limit: u32) -> Result<Page<PaymentRow>, StoreError>;
    /// One of this user's; another's is `None`.
    async fn payment(&self, user: UserId, id: PaymentId) -> Result<Option<PaymentRow>, StoreError>;
    /// Payments of all users with `from <= id < until`, by id, ascending, `limit` at most.
    async fn payments_between(&self, from: PaymentId, until: PaymentId, limit: u32) -> Result<Vec<PaymentRow>, StoreError>;
    /// The user's reservations of a concert that are held and not yet over at the store's time.
    async fn live_holds(&self, user: UserId, concert: ConcertId) -> Result<Vec<ReservationId>, StoreError> {
        self.live_holds_of(vec![user], concert).await
    }
    /// The same of many users, in one read.
    async fn live_holds_of(&self, users: Vec<UserId>, concert: ConcertId) -> Result<Vec<ReservationId>, StoreError>;
    /// Money taken by payments of a concert, less refunds.
    async fn revenue(&self, concert: ConcertId) -> Result<Money, StoreError>;
    /// The store's clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}
