//! What the rooms of an instance have in common: their parts and settings, and the news that they publish.

use std::sync::{Arc, Mutex};

use boxoffice_domain::waiting::{Health, LaneTerms, RoomChange};
use boxoffice_domain::{ConcertId, InstanceId, Timestamp};
use boxoffice_ports::{Beacon, Clock, RoomLog, RoomMirror, Secrets};
use tokio::runtime::Handle;
use tokio::sync::broadcast;

/// What every room obeys.
#[derive(Clone, Debug)]
pub struct RoomsSettings {
    pub active_ttl_s: u32,
    pub extensions_max: u32,
    pub grace_s: u32,
    pub waiting_grace_s: u32,
    pub p99_target_ms: u32,
    pub lanes: Vec<LaneTerms>,
}

/// What the rooms work with. The value of `beacon` is mixed into draws.
pub struct RoomsParts {
    pub log: Arc<dyn RoomLog>,
    pub mirror: Arc<dyn RoomMirror>,
    pub secrets: Arc<dyn Secrets>,
    pub clock: Arc<dyn Clock>,
    pub beacon: Option<Arc<dyn Beacon>>,
    pub instance: InstanceId,
    pub settings: RoomsSettings,
}

/// Something happened in a room, or a tick passed.
#[derive(Clone, Debug)]
pub struct RoomNews {
    pub concert: ConcertId,
    /// The room's time.
    pub now: Timestamp,
    /// The entries whose status changed, in order. Empty for a tick.
    pub changes: Vec<RoomChange>,
    /// The replica was replaced by another one: anything that was known of any entry may have changed.
    pub replaced: bool,
}

pub(super) struct Context {
    pub(super) parts: RoomsParts,
    pub(super) runtime: Handle,
    pub(super) news: broadcast::Sender<Arc<RoomNews>>,
    pub(super) health: Mutex<Option<Health>>,
}
