//! Servers that slow down as more buyers shop at the same time.

use boxoffice_domain::waiting::Health;

/// The p99 that adaptive admission aims at.
pub(super) const P99_TARGET_MS: u32 = 500;
/// Without any shopper.
const P99_IDLE_MS: f64 = 50.0;
const P99_MAX_MS: f64 = 10_000.0;

/// As a single queue: the p99 grows with 1/(1 − load); requests beyond the capacity fail. Without a capacity the servers
/// never slow down.
pub(super) fn health(shoppers: u64, capacity: Option<u32>) -> Health {
    let load = capacity.map_or(0.0, |capacity| shoppers as f64 / f64::from(capacity));
    let p99_ms = if load < 1.0 { (P99_IDLE_MS / (1.0 - load)).min(P99_MAX_MS) } else { P99_MAX_MS };
    let errors = if load > 1.0 { 1_000.0 * (1.0 - 1.0 / load) } else { 0.0 };
    Health { p99_ms: p99_ms as u32, errors_permille: errors as u16, samples: u32::try_from(shoppers).unwrap_or(u32::MAX) }
}
