//! What a store brings to its suites.

use std::any::Any;
use std::sync::Arc;

use chrono::TimeDelta;

use crate::Stores;

/// One fresh, empty store with a clock that can be moved.
pub struct Fixture {
    pub stores: Stores,
    /// Moves the store's clock.
    pub advance: Arc<dyn Fn(TimeDelta) + Send + Sync>,
    /// What must live as long as the store, such as its temporary folder.
    pub keep: Box<dyn Any + Send + Sync>,
}
