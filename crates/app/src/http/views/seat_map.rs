//! The seat map of a date.

use boxoffice_domain::SeatNumber;
use boxoffice_domain::money::Money;
use boxoffice_engine::{SeatInfo, SeatStatus};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
pub(crate) struct SeatMap<'a> {
    /// Opaque: another one means that something may have changed.
    pub(crate) version: u64,
    /// By number.
    pub(crate) items: Vec<SeatView<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Seat)]
pub(crate) struct SeatView<'a> {
    number: SeatNumber,
    section: Option<&'a str>,
    row: Option<&'a str>,
    grade: &'a str,
    /// Minor units.
    price: Money,
    status: SeatStatusView,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SeatStatus)]
pub(crate) enum SeatStatusView {
    Available,
    Held,
    Sold,
}

impl From<SeatStatus> for SeatStatusView {
    fn from(status: SeatStatus) -> Self {
        match status {
            SeatStatus::Available => Self::Available,
            SeatStatus::Held => Self::Held,
            SeatStatus::Sold => Self::Sold,
        }
    }
}

impl<'a> SeatView<'a> {
    pub(crate) fn new(info: &'a SeatInfo, status: SeatStatus) -> Self {
        let (section, row) = (info.section.as_deref(), info.row.as_deref());
        Self { number: info.number, section, row, grade: &info.grade, price: info.price, status: status.into() }
    }
}
