//! Concerts, dates and seats as reservations and payments keep them: as they were when sold.

use boxoffice_domain::money::Money;
use boxoffice_domain::{ConcertRef, DateRef, SeatAtSale, SeatNumber};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Serialize, ToSchema)]
#[schema(as = ConcertRef)]
pub(crate) struct ConcertRefView<'a> {
    id: Uuid,
    name: &'a str,
    venue: &'a str,
}

impl<'a> From<&'a ConcertRef> for ConcertRefView<'a> {
    fn from(concert: &'a ConcertRef) -> Self {
        Self { id: concert.id.0, name: &concert.name, venue: &concert.venue }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = DateRef)]
pub(crate) struct DateRefView {
    id: Uuid,
    starts_at: DateTime<Utc>,
    ends_at: Option<DateTime<Utc>>,
}

impl From<&DateRef> for DateRefView {
    fn from(date: &DateRef) -> Self {
        Self { id: date.id.0, starts_at: date.starts_at, ends_at: date.ends_at }
    }
}

/// A seat with the grade and price it had when it was held.
#[derive(Serialize, ToSchema)]
#[schema(as = SeatAtSale)]
pub(crate) struct SeatAtSaleView<'a> {
    number: SeatNumber,
    section: Option<&'a str>,
    row: Option<&'a str>,
    grade: &'a str,
    /// Minor units.
    price: Money,
}

impl<'a> From<&'a SeatAtSale> for SeatAtSaleView<'a> {
    fn from(seat: &'a SeatAtSale) -> Self {
        let (section, row) = (seat.section.as_deref(), seat.row.as_deref());
        Self { number: seat.number, section, row, grade: &seat.grade, price: seat.price }
    }
}
