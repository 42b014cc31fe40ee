//! The public beacon of draws as it is configured, and its readiness.

use crate::config::Settings;
use crate::http::{Health, Probe};
use boxoffice_adapters::http_beacon::HttpBeacon;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// `None`: none is configured.
pub(super) fn open(settings: &Settings) -> Option<Arc<HttpBeacon>> {
    let template = &settings.draw.beacon_url;
    (!template.is_empty()).then(|| Arc::new(HttpBeacon::new(template.clone())))
}

/// Everything but a draw goes on without the beacon, so a failure only impairs.
pub(super) struct BeaconProbe(pub(super) Arc<HttpBeacon>);

impl Probe for BeaconProbe {
    fn name(&self) -> &'static str {
        "beacon"
    }

    fn check(&self) -> BoxFuture<'_, Health> {
        async { self.0.last_failure().map_or(Health::Good, Health::Impaired) }.boxed()
    }
}
