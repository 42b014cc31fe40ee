//! Changes of seats, published to the other instances.
//!
//! At once and at most once: instances also find the changes by reading the store. A lost message costs time and nothing else.

use async_trait::async_trait;
use boxoffice_domain::SeatChange;

use crate::Source;

/// What was received from other instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FanoutMessage {
    Seats(Vec<SeatChange>),
    /// Messages may have been lost: read the store again.
    Gap,
}

/// Publishes changes of seats to the other instances.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Fanout: Send + Sync {
    /// Returns once the message was published. The publisher may receive it as well. A message without changes is
    /// published like any other, so it shows whether the connection works.
    async fn publish(&self, changes: Vec<SeatChange>) -> Result<(), Source>;
    /// Subscribes, from now on.
    async fn listen(&self) -> Result<Box<dyn FanoutListener>, Source>;
}

#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait FanoutListener: Send {
    /// The next message. Connects again by itself, with a pause, and then returns [`FanoutMessage::Gap`]. Cancel-safe.
    async fn next(&mut self) -> FanoutMessage;
}
