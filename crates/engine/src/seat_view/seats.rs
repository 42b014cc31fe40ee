//! A date's seats as readers see them.

use std::sync::Arc;

use boxoffice_domain::SeatNumber;
use boxoffice_domain::money::Money;

/// What never changes while a date is on sale, but by an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatInfo {
    pub number: SeatNumber,
    pub section: Option<Arc<str>>,
    pub row: Option<Arc<str>>,
    pub grade: Arc<str>,
    pub price: Money,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatStatus {
    Available,
    Held,
    Sold,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeatCounts {
    pub total: u64,
    pub available: u64,
    pub held: u64,
    pub sold: u64,
}

/// A date's seats at one instant; `statuses[i]` is that of `infos[i]`.
#[derive(Clone, Debug)]
pub struct SeatSnapshot {
    /// Opaque, this process's own. A different version means that something may have changed.
    pub version: u64,
    pub infos: Arc<[SeatInfo]>,
    pub statuses: Vec<SeatStatus>,
}
