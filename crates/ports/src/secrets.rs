//! Keys that tokens are signed with.

use async_trait::async_trait;

use crate::StoreError;

/// Secrets in the store, so that tokens outlive a restart and are valid on every instance.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The secret called `name`; `fresh` becomes it if there is none. Two concurrent callers get the same.
    async fn secret(&self, name: String, fresh: Vec<u8>) -> Result<Vec<u8>, StoreError>;
}
