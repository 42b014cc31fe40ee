use async_trait::async_trait;
use boxoffice_domain::SeatChange;

use crate::Source;

/// What other instances told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Seats(Vec<SeatChange>),
    /// Something may have been missed: read again.
    Gap,
}

/// Tells the other instances, at once and at most once, what they would otherwise find out by reading: losing a
/// message costs time and nothing else.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Fanout: Send + Sync {
    /// Returns when the message was handed over. Those who told it may hear it as well. A message of no changes is
    /// handed over like any other, so it shows whether others would be.
    async fn tell(&self, changes: Vec<SeatChange>) -> Result<(), Source>;
    /// Hears what is told from now on.
    async fn listen(&self) -> Result<Box<dyn Listener>, Source>;
}

#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Listener: Send {
    /// The next message. It connects again by itself, with a pause, and then says [`Heard::Gap`]. Cancel-safe.
    async fn heard(&mut self) -> Heard;
}
