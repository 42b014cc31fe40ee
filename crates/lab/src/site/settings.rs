//! The settings of the servers that a strategy is measured on.

use std::net::SocketAddr;

use boxoffice_app::config::{AuthMode, JwtAlgorithm, QueueBackend, Secret, Settings, StoreBackend, StrategyName, Switch};
use boxoffice_app::max_active::MaxActive;
use boxoffice_domain::admission::MAX_ACTIVE_MAX;

use crate::entrant::Entrant;
use crate::error::LabError;

/// Longer than any run: no turn, hold or token ends by itself.
pub(super) const LONG_S: u32 = 86_400;
const SECRET_BYTES: usize = 48;

/// The configured store, services and strategy settings, and for the rest what the lab needs. If a PostgreSQL is configured
/// it is used, also when the server's own store is another one.
pub(crate) fn settings_for(base: &Settings, Entrant { strategy, partitions }: Entrant) -> Result<Settings, LabError> {
    let mut settings = Settings::defaults()?;
    settings.store = base.store.clone();
    // Only the services that the strategy needs, so that the counted Redis commands are the strategy's own.
    if strategy.locks_in_redis() || base.queue.backend == QueueBackend::Redis {
        settings.redis.urls = base.redis.urls.clone();
    }
    if strategy == StrategyName::Redlock {
        settings.redis.redlock_nodes = base.redis.redlock_nodes.clone();
    }
    match strategy {
        StrategyName::Kafka => settings.kafka = base.kafka.clone(),
        StrategyName::Rabbitmq => settings.rabbitmq = base.rabbitmq.clone(),
        _ => {}
    }
    settings.kafka.partitions = partitions.unwrap_or(settings.kafka.partitions);
    settings.strategy = base.strategy.clone();
    settings.http = base.http.clone();
    if base.store.postgres_url.scheme().is_some() {
        settings.store.backend = StoreBackend::Postgres;
    }
    settings.store.migrate_on_start = true;
    (settings.strategy.seat, settings.strategy.wallet, settings.strategy.payment) = (strategy, strategy, strategy);
    settings.queue.backend = base.queue.backend;
    settings.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    settings.http.requests_per_second_per_user = 0;
    settings.auth.mode = AuthMode::Jwt;
    settings.auth.algorithm = JwtAlgorithm::HS256;
    settings.auth.hs256_secret = Secret::new(secret());
    settings.wallet.self_charge = Switch::On;
    settings.demo.season = Switch::Off;
    settings.hold.ttl_s = LONG_S;
    settings.admission.active_ttl_s = LONG_S;
    settings.admission.max_active = MaxActive::At(MAX_ACTIVE_MAX);
    settings.admission.stock_linked = false;
    settings.admission.tick_ms = 50;
    settings.check()?;
    Ok(settings)
}

fn secret() -> String {
    (0..SECRET_BYTES).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect()
}
