//! The sections of the configuration, typed. `deploy/boxoffice.toml` says what each key means.

mod admission;
mod auth;
mod booking;
mod server;
mod services;
mod store;
mod strategy;

pub use admission::*;
pub use auth::*;
pub use booking::*;
pub use server::*;
pub use services::*;
pub use store::*;
pub use strategy::*;

use boxoffice_domain::waiting::{LaneTerms, SHARES};
use boxoffice_domain::{Admission, AdmissionMode, PerInterval, Policy};
use boxoffice_engine::RoomsSettings;
use serde::{Deserialize, Serialize};
use server::cores;
use std::time::Duration;

/// Default number of lanes on PostgreSQL: at most this, and no more than cores. More gain nothing, and a hot row is slower
/// with two connections than with one.
const POSTGRES_LANES_MAX: usize = 4;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub http: HttpSettings,
    pub store: StoreSettings,
    pub queue: QueueSettings,
    pub redis: RedisSettings,
    pub strategy: StrategySettings,
    pub kafka: KafkaSettings,
    pub rabbitmq: RabbitmqSettings,
    pub events: EventsSettings,
    pub money: MoneySettings,
    pub wallet: WalletSettings,
    pub reward: RewardSettings,
    pub hold: HoldSettings,
    pub idempotency: IdempotencySettings,
    pub demo: DemoSettings,
    pub admission: AdmissionSettings,
    pub presence: PresenceSettings,
    pub draw: DrawSettings,
    pub auth: AuthSettings,
    pub telemetry: TelemetrySettings,
}

impl Settings {
    /// The rules of decisions.
    pub fn policy(&self) -> Policy {
        Policy {
            hold_ttl_s: self.hold.ttl_s,
            extensions_max: self.hold.extensions_max,
            max_seats_per_user: self.hold.max_seats_per_user,
            amount_max: self.money.amount_max,
            balance_max: self.money.balance_max,
            reward_percent: self.reward.percent,
            idempotency_ttl_s: self.idempotency.ttl_s,
        }
    }

    /// Admission of a concert whose document sets none.
    pub fn default_admission(&self) -> Admission {
        let AdmissionSettings { max_active, per_interval_count: count, per_interval_s: seconds, adaptive, .. } = self.admission;
        let per_interval = (count > 0 && seconds > 0).then_some(PerInterval { count, seconds });
        let (max_active, auto) = max_active.parts();
        Admission { mode: AdmissionMode::Running, max_active, per_interval, auto, adaptive }
    }

    /// The rules of every waiting room.
    pub fn rooms(&self) -> RoomsSettings {
        let AdmissionSettings { active_ttl_s, extensions_max, waiting_grace_s, p99_target_ms, .. } = self.admission;
        // Rounded to thousandths, which lanes count in; the check at start has refused any number that is not a share.
        let share = |share: f64| (share * f64::from(SHARES)).round() as u16;
        let lane = |lane: &LaneSettings| LaneTerms { name: lane.name.clone(), share: share(lane.share) };
        let lanes = self.admission.lanes.iter().map(lane).collect();
        RoomsSettings { active_ttl_s, extensions_max, grace_s: self.presence.grace_s, waiting_grace_s, p99_target_ms, lanes }
    }

    /// Commits of `combining` that may be in flight at the same time.
    pub fn lane_count(&self) -> usize {
        match (self.strategy.lanes, self.store.backend) {
            (0, StoreBackend::Postgres) => cores().min(POSTGRES_LANES_MAX),
            (0, StoreBackend::Sqlite | StoreBackend::Memory) => 1,
            (lanes, _) => lanes,
        }
    }

    /// How long a command may stay in a log: half as long as its reply is kept, so that a command that is read again
    /// still finds its reply.
    pub fn command_retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.idempotency.ttl_s)) / 2
    }

    /// Whether users may charge their own wallets.
    pub fn self_charge(&self) -> bool {
        self.wallet.self_charge.resolve(self.auth.mode == AuthMode::Dev)
    }

    /// Whether an empty store is filled with the demo season.
    pub fn demo_season(&self) -> bool {
        self.demo.season.resolve(self.auth.mode == AuthMode::Dev && self.store.backend == StoreBackend::Sqlite)
    }
}
