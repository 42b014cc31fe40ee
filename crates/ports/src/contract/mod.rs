//! The suites every adapter must pass, whatever its technology.

use std::any::Any;
use std::sync::Arc;

use chrono::TimeDelta;

use crate::{Stores, WaitingRoom};

/// One fresh, empty store with a clock that can be moved.
pub struct Fixture {
    pub stores: Stores,
    pub room: Arc<dyn WaitingRoom>,
    /// Moves the clock of the store and of the room.
    pub advance: Arc<dyn Fn(TimeDelta) + Send + Sync>,
    /// Whatever must live as long as the store, such as its temporary folder.
    pub keep: Box<dyn Any + Send + Sync>,
}
