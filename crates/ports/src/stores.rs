//! The ports of one store.

use std::sync::Arc;

use crate::{Audit, Catalog, Ledger, Outbox, Queries, RoomMirror, Secrets, Upkeep};

/// Every port of one store: the same rows seen through each.
#[derive(Clone)]
pub struct Stores {
    pub ledger: Arc<dyn Ledger>,
    pub queries: Arc<dyn Queries>,
    pub catalog: Arc<dyn Catalog>,
    pub upkeep: Arc<dyn Upkeep>,
    pub outbox: Arc<dyn Outbox>,
    pub audit: Arc<dyn Audit>,
    pub secrets: Arc<dyn Secrets>,
    pub mirror: Arc<dyn RoomMirror>,
}
