use std::sync::Arc;

use crate::{Audit, Catalog, Ledger, Outbox, Queries, RoomMirror, Secrets, Upkeep};

/// Everything one store gives: the same rows seen through each port.
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
