//! The audit of a store.

use crate::StoreError;
use async_trait::async_trait;

pub use boxoffice_domain::audit::{AuditReport, BREACHES_MAX, Breach};

/// Checks the invariants of [`boxoffice_domain::audit`] over the whole store, in one snapshot and beside its work.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Audit: Send + Sync {
    /// `max_seats_per_user` is the limit of I10. Idempotency (I3) is judged by what replies claim: every reply of
    /// success has its effect once.
    async fn audit(&self, max_seats_per_user: u32) -> Result<AuditReport, StoreError>;
}
