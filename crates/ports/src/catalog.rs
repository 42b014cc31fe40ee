//! What is on sale: importing concerts, dates and seats.

use async_trait::async_trait;
use boxoffice_domain::{Admission, ConcertId, ConcertPlan, DateId, SeatNumber, Timestamp};

use crate::{Source, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The plan changes seats that are held or sold. `field` is a path into the document.
    #[error("{field}: seat {seat} is held or sold")]
    Conflict { field: String, seat: SeatNumber },
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Source),
    #[error("the store failed: {0}")]
    Broken(#[source] Source),
}

impl From<StoreError> for CatalogError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) => Self::Unavailable(source),
            StoreError::Broken(source) => Self::Broken(source),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportEffect {
    Created,
    Updated,
    Unchanged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedDate {
    pub id: DateId,
    pub key: String,
    pub starts_at: Timestamp,
    /// All seats of the date, those of earlier imports included.
    pub total: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub id: ConcertId,
    pub key: String,
    pub effect: ImportEffect,
    /// The dates of the plan, in its order.
    pub dates: Vec<ImportedDate>,
}

/// What is on sale.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Imports checked plans, all of them or none. A concert and its dates are identified by their keys: the same plan
    /// again changes nothing, a new one updates what may change. Dates and seats that it does not name stay as they
    /// are. `admission` is used when a concert is created and its plan has none of its own.
    async fn import(&self, plans: Vec<ConcertPlan>, admission: Admission) -> Result<Vec<Imported>, CatalogError>;
}
