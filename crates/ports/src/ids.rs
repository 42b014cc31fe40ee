//! Where identifiers come from.

use uuid::Uuid;

/// New identifiers, UUIDv7.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait Ids: Send + Sync {
    fn fresh(&self) -> Uuid;
}
