use async_trait::async_trait;
use boxoffice_domain::draw::Hash32;
use boxoffice_domain::{Admission, ConcertId, QueueEntryId, Timestamp};

pub use boxoffice_domain::waiting::{ActivePlace, RoomMark};

use crate::StoreError;

/// An admission that an operator set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAdmission {
    pub admission: Admission,
    /// Of two the one with the higher version is newer.
    pub version: i64,
}

/// What a concert's draw was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrawRecord {
    pub closed_at: Timestamp,
    /// Places that were given out before.
    pub base: u64,
    /// Draw keys of whoever took part, ascending.
    pub keys: Vec<Hash32>,
    pub seed: Hash32,
    /// What was mixed into the seed.
    pub beacon: Option<String>,
}

/// What a room that keeps its places in memory elsewhere leaves in the ledger's database, to be rebuilt from. What an
/// operator set is the truth here, and a copy there.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RoomMirror: Send + Sync {
    /// In one transaction: the mark, of which the higher numbers stay; entries whose turn began, or is longer; entries
    /// whose turn ended.
    async fn save(&self, concert: ConcertId, mark: RoomMark, began: Vec<ActivePlace>, ended: Vec<QueueEntryId>) -> Result<(), StoreError>;
    /// What was saved last, with every entry that is still in its turn; `None` when nothing was.
    async fn load(&self, concert: ConcertId) -> Result<Option<(RoomMark, Vec<ActivePlace>)>, StoreError>;
    /// `None` while the admission is the one the room was opened with.
    async fn admission(&self, concert: ConcertId) -> Result<Option<OwnAdmission>, StoreError>;
    /// Replaces `was`, or the one the room was opened with, by `to`. `None`, and nothing is changed, when it is another
    /// by now, or when there is no such concert.
    async fn set_admission(&self, concert: ConcertId, was: Admission, to: Admission) -> Result<Option<OwnAdmission>, StoreError>;
    /// Whether it was kept: of one concert the first stays for ever.
    async fn keep_draw(&self, concert: ConcertId, draw: DrawRecord) -> Result<bool, StoreError>;
    async fn draw(&self, concert: ConcertId) -> Result<Option<DrawRecord>, StoreError>;
}
