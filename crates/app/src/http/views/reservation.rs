//! Reservations.

use boxoffice_domain::money::Money;
use boxoffice_domain::{Reservation, ReservationStatus};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::records::{ConcertRefView, DateRefView, SeatAtSaleView};

#[derive(ToSchema)]
#[schema(as = ReservationStatus, rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the domain's type")]
pub(crate) enum ReservationStatusSchema {
    Held,
    Confirmed,
    Released,
    Expired,
    Cancelled,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Reservation)]
pub(crate) struct ReservationView<'a> {
    id: Uuid,
    #[schema(value_type = ReservationStatusSchema)]
    status: ReservationStatus,
    concert: ConcertRefView<'a>,
    date: DateRefView,
    seats: Vec<SeatAtSaleView<'a>>,
    total: Money,
    #[schema(example = "KRW")]
    currency: &'a str,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// Whole seconds left; 0 unless it is held.
    expires_in_s: i64,
    extensions_left: u32,
    payment_id: Option<Uuid>,
}

impl<'a> ReservationView<'a> {
    /// As it is at `at`. `extensions_left` is for as long as it is held.
    pub(crate) fn at(reservation: &'a Reservation, at: DateTime<Utc>, extensions_left: u32, currency: &'a str) -> Self {
        let status = reservation.status_at(at);
        let held = status == ReservationStatus::Held;
        Self {
            id: reservation.id.0,
            status,
            concert: (&reservation.concert).into(),
            date: (&reservation.date).into(),
            seats: reservation.seats.iter().map(Into::into).collect(),
            total: reservation.total(),
            currency,
            created_at: reservation.created_at,
            expires_at: reservation.expires_at,
            expires_in_s: if held { (reservation.expires_at - at).num_seconds() } else { 0 },
            extensions_left: if held { extensions_left } else { 0 },
            payment_id: reservation.payment.map(|id| id.0),
        }
    }
}
