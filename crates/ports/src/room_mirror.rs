//! What the ledger's database keeps of a waiting room, so that a room can be rebuilt whose log was lost.

use async_trait::async_trait;
use boxoffice_domain::draw::Hash32;
use boxoffice_domain::{Admission, ConcertId, QueueEntryId, Timestamp};

pub use boxoffice_domain::waiting::{ActivePlace, RoomMark};

use crate::StoreError;

/// An admission that an operator set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAdmission {
    pub admission: Admission,
    /// The higher of two versions is newer.
    pub version: i64,
}

/// What a concert's draw was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawRecord {
    pub closed_at: Timestamp,
    /// How many places were given out before the draw.
    pub base: u64,
    /// The draw keys of all participants, ascending.
    pub keys: Vec<Hash32>,
    pub seed: Hash32,
    /// What was mixed into the seed.
    pub beacon: Option<String>,
}

/// What a room leaves in the ledger's database, to be rebuilt from if its log is lost. What an operator set is
/// authoritative here; the room has a copy.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RoomMirror: Send + Sync {
    /// Saves in one transaction: the mark, each number of which only rises; entries whose turn began or was lengthened;
    /// and entries whose turn ended.
    async fn save(&self, concert: ConcertId, mark: RoomMark, began: Vec<ActivePlace>, ended: Vec<QueueEntryId>) -> Result<(), StoreError>;
    /// What was saved last, with every entry whose turn goes on; `None` if nothing was saved.
    async fn load(&self, concert: ConcertId) -> Result<Option<(RoomMark, Vec<ActivePlace>)>, StoreError>;
    /// `None` while the admission is the one the room was opened with.
    async fn admission(&self, concert: ConcertId) -> Result<Option<OwnAdmission>, StoreError>;
    /// Replaces `was`, or the one the room was opened with, by `to`. `None`, and nothing is changed, if the admission is
    /// no longer `was`, or if there is no such concert.
    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<Option<OwnAdmission>, StoreError>;
    /// Returns whether it was kept: the first draw of a concert stays for ever.
    async fn keep_draw(&self, concert: ConcertId, draw: DrawRecord) -> Result<bool, StoreError>;
    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawRecord>, StoreError>;
}
