//! The waiting rooms: admission, lanes, presence, the draw.

use crate::max_active::MaxActive;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionSettings {
    pub max_active: MaxActive,
    pub stock_linked: bool,
    /// 0, like `per_interval_s`: no rate.
    pub per_interval_count: u32,
    pub per_interval_s: u32,
    pub tick_ms: u64,
    /// How long an answer that ends a turn waits for the room.
    pub room_wait_ms: u64,
    pub active_ttl_s: u32,
    pub extensions_max: u32,
    pub waiting_grace_s: u32,
    pub adaptive: bool,
    pub p99_target_ms: u32,
    pub lanes: Vec<LaneSettings>,
}

impl AdmissionSettings {
    pub fn room_wait(&self) -> Duration {
        Duration::from_millis(self.room_wait_ms)
    }
}

/// A line of its own for users whose token names it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LaneSettings {
    pub name: String,
    /// Of all promotions, while users wait in it.
    pub share: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceSettings {
    pub grace_s: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DrawSettings {
    /// Empty: no beacon.
    pub beacon_url: String,
}
