use async_trait::async_trait;

use crate::StoreError;

/// One row that breaks an invariant of the design.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// `I1` to `I12`.
    pub invariant: &'static str,
    /// Which row, and what is wrong with it.
    pub detail: String,
}

/// What an audit looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    pub breaches: Vec<Breach>,
    /// What was counted, by name: accounts, entries, seats, reservations, payments, replies.
    pub counted: Vec<(&'static str, u64)>,
    /// Held reservations whose time is over and that no sweep has written yet (I12's backlog): no breach by itself.
    pub overdue_holds: u64,
}

/// The most breaches one invariant is reported with.
pub const BREACHES_MAX: usize = 20;

/// Checks I1 to I3, I6, and I9 to I11 over the whole store, in one snapshot, without stopping anybody.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Audit: Send + Sync {
    /// `max_seats_per_user` is the limit of I10. `idempotency` I3 is judged by what replies claim: every reply of
    /// success has its effect once.
    async fn audit(&self, max_seats_per_user: u32) -> Result<AuditReport, StoreError>;
}
