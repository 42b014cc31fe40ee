//! The suites that every store passes.

use super::support::Place;
use boxoffice_ports::contract::Fixture;
use std::sync::Arc;

pub(crate) async fn fixture() -> Fixture {
    let place = Place::new();
    let (store, clock) = (place.open().await, place.clock.clone());
    Fixture { stores: store.stores(), advance: Arc::new(move |by| clock.advance(by)), keep: Box::new(place) }
}

boxoffice_ports::ledger_contract!(fixture);
boxoffice_ports::mirror_contract!(fixture);
