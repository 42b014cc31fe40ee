use async_trait::async_trait;

use crate::StoreError;

/// Keys that tokens are signed with. They live in the store, so that tokens outlive a restart.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The secret called `name`; `fresh` becomes it when there is none. Of two callers at once both get the same.
    async fn secret(&self, name: String, fresh: Vec<u8>) -> Result<Vec<u8>, StoreError>;
}
