use async_trait::async_trait;
use boxoffice_domain::waiting::{DrawView, Entered, Extended, Health, Place, PlaceClaim, RoomCounts, RoomSummary, Stock, Ticked};
use boxoffice_domain::{Admission, ConcertId, QueueEntryId, Timestamp, UserId};

use crate::Source;

#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// No room was opened for this concert.
    #[error("there is no waiting room for this concert")]
    NoRoom,
    /// Draining: nobody new may join.
    #[error("the waiting room takes nobody new")]
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

/// The waiting rooms of all concerts. Each change is atomic over all instances and as durable as the log it is kept in
/// when it returns. Time is the log's store's.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait WaitingRoom: Send + Sync {
    /// Opens the room of a concert, or brings its start of sale up to date. Opening again is harmless.
    async fn open(&self, opening: Opening) -> Result<(), RoomError>;
    /// Whether the room is open as this says, as far as is known here without asking: then opening it would change nothing.
    fn is_open(&self, opening: &Opening) -> bool {
        let _ = opening;
        false
    }
    /// Joins, or finds the place one has; `fresh` names the entry if it is new. A lane that there is not is the general
    /// one. [`RoomError::Closed`] while draining.
    async fn join(&self, concert: ConcertId, user: UserId, lane: Option<String>, fresh: QueueEntryId) -> Result<Entered, RoomError>;
    /// An entry as a poll shows it: from memory, as it was a tick ago at most. `None` for one that is not known.
    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError>;
    /// The same with everything that any instance was answered before, for starting a hold (I4).
    async fn touch(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Option<Place>, RoomError>;
    /// Gives an entry back that the room has lost with its memory, by what a genuine token says of it; one that it
    /// knows stays as it is. Never more than the admission allows become active, never is somebody overtaken: whose
    /// turn cannot be given back waits at their place. `None` for an entry that was not lost.
    async fn restore(&self, concert: ConcertId, claim: PlaceClaim) -> Result<Option<Place>, RoomError>;
    /// Ends an entry as left; one that has ended stays as it is.
    async fn leave(&self, concert: ConcertId, entry: QueueEntryId) -> Result<(), RoomError>;
    /// Ends the user's turn, if it is running and began before `paid_at`, because it was paid. Telling it again, after
    /// the user came back for another turn, harms nobody.
    async fn finish(&self, concert: ConcertId, user: UserId, paid_at: Timestamp) -> Result<(), RoomError>;
    /// Lengthens a turn that ends at `until`, as often as may be. Telling it again, after the turn was lengthened, finds
    /// the longer one.
    async fn extend(&self, concert: ConcertId, entry: QueueEntryId, until: Timestamp) -> Result<Extended, RoomError>;
    /// Ends what is over and promotes whoever may go, in one capped step; tells what this instance has noticed.
    async fn tick(&self, concert: ConcertId, stock: Stock) -> Result<Ticked, RoomError>;
    /// Whether a tick can wait: nobody is in the room as far as is known here, and it was ticked a moment ago.
    fn rests(&self, concert: ConcertId) -> bool {
        let _ = concert;
        false
    }
    /// How this instance fared in the last second: admission that adapts looks at it.
    fn fares(&self, health: Health);
    async fn admission(&self, concert: ConcertId) -> Result<Admission, RoomError>;
    /// Replaces `was` by `to`, from now on and over restarts. False, and nothing is changed, when it is not `was` any
    /// more: of two instances that change it at once, one reads it again.
    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<bool, RoomError>;
    async fn counts(&self, concert: ConcertId) -> Result<RoomCounts, RoomError>;
    async fn summary(&self, concert: ConcertId) -> Result<RoomSummary, RoomError>;
    /// The draw as anybody may see it; `None` where nothing is drawn.
    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawView>, RoomError>;
    /// Whether the rooms' store answers.
    async fn ping(&self) -> Result<(), RoomError>;
}
