//! One store behind each of its ports.

use boxoffice_ports::{Audit, Catalog, Ledger, Outbox, Queries, RoomMirror, Secrets, Stores, Upkeep};
use std::sync::Arc;

pub(crate) fn stores<S>(store: &Arc<S>) -> Stores
where
    S: Ledger + Queries + Catalog + Upkeep + Outbox + Audit + Secrets + RoomMirror + 'static,
{
    Stores {
        ledger: store.clone(),
        queries: store.clone(),
        catalog: store.clone(),
        upkeep: store.clone(),
        outbox: store.clone(),
        audit: store.clone(),
        secrets: store.clone(),
        mirror: store.clone(),
    }
}
