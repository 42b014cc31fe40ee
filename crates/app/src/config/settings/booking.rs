//! The rules of a booking: money, wallets, points, holds, replies; and the demo season.

use crate::config::values::Switch;
use boxoffice_domain::money::Money;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MoneySettings {
    /// ISO 4217.
    pub currency: String,
    pub amount_max: Money,
    pub balance_max: Money,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WalletSettings {
    /// Use `Settings::self_charge`.
    pub self_charge: Switch,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RewardSettings {
    pub percent: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HoldSettings {
    pub ttl_s: u32,
    pub extensions_max: u32,
    pub max_seats_per_user: u32,
    pub sweep_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IdempotencySettings {
    pub ttl_s: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DemoSettings {
    /// Use `Settings::demo_season`.
    pub season: Switch,
}
