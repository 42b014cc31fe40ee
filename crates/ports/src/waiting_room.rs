//! The waiting rooms of all concerts.

use async_trait::async_trait;
use boxoffice_domain::waiting::{DrawView, Entered, Extended, Health, Place, PlaceClaim, RoomCounts, RoomSummary, Stock, Ticked};
use boxoffice_domain::{Admission, ConcertId, QueueEntryId, Timestamp, UserId};

use crate::Source;

#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// No room was opened for this concert.
    #[error("there is no waiting room for this concert")]
    NoRoom,
    /// Draining: no new entry may join.
    #[error("the waiting room is closed to new entries")]
    Closed,
    #[error("the waiting room is unavailable: {0}")]
    Unavailable(#[source] Source),
}

/// What a room must know of its concert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub concert: ConcertId,
    pub sale_starts_at: Option<Timestamp>,
    /// Used when the room has no admission of its own yet; afterwards only [`WaitingRoom::set_admission`] changes it.
    pub admission: Admission,
}

/// Each change is atomic over all instances, and as durable as the room's log, when its call returns. Time is that of the
/// log's store.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait WaitingRoom: Send + Sync {
    /// Opens the room of a concert, or brings its start of sale up to date. Opening again is harmless.
    async fn open(&self, opening: Opening) -> Result<(), RoomError>;
    /// Whether this instance knows, without a round trip, that the room is open with this opening. Then opening it again
    /// would change nothing.
    fn is_open(&self, opening: &Opening) -> bool {
        let _ = opening;
        false
    }
    /// Joins, or finds the user's place; `fresh` becomes the id of a new entry. An unknown lane means the general one.
    /// [`RoomError::Closed`] while draining.
    async fn join(&self, concert: ConcertId, user: UserId, lane: Option<String>, fresh: QueueEntryId) -> Result<Entered, RoomError>;
    /// An entry as a poll shows it: from memory, at most a tick old. `None` for an unknown entry.
    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError>;
    /// The same, with everything that was answered on any instance before, for starting a hold (I4).
    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError>;
    /// Restores an entry that the room has lost with its log, from the claim of a genuine token; a known entry stays as it
    /// is. No more entries become active than the admission allows, and none overtakes another: an entry whose turn
    /// cannot be restored waits at its place. `None` for an entry that was not lost.
    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<Place>, RoomError>;
    /// Ends an entry as left. An entry that has ended stays as it is.
    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError>;
    /// Ends the user's turn because of a payment, if the turn is running and began before `paid_at`. Calling it again
    /// after the user has begun another turn has no effect.
    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError>;
    /// Lengthens a turn that ends at `until`, a bounded number of times. Calling it again after the turn was lengthened
    /// returns the longer turn.
    async fn extend(&self, concert: ConcertId, entry: QueueEntryId, until: Timestamp) -> Result<Extended, RoomError>;
    /// Ends the entries that are over and promotes the next ones, in one bounded step; appends what this instance has
    /// noticed of its connections.
    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError>;
    /// Whether a tick can wait: the room is empty as far as this instance knows, and was ticked a moment ago.
    fn rests(&self, concert: ConcertId) -> bool {
        let _ = concert;
        false
    }
    /// The health of this instance in the last second, for an admission that adapts.
    fn report_health(&self, health: Health);
    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError>;
    /// Replaces `was` by `to`, durably. False, and nothing is changed, if the admission is no longer `was`: of two
    /// instances that change it at once, one reads it again.
    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError>;
    async fn counts(&self, concert: ConcertId) -> Result<RoomCounts, RoomError>;
    async fn summary(&self, concert: ConcertId) -> Result<RoomSummary, RoomError>;
    /// The public view of the draw; `None` if this sale has none.
    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawView>, RoomError>;
    /// Whether the rooms' store answers.
    async fn ping(&self) -> Result<(), RoomError>;
}
