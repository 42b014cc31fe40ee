//! The keys that tokens are signed with.

use async_trait::async_trait;
use boxoffice_ports::{Secrets, StoreError};

use super::MemoryStore;

#[async_trait]
impl Secrets for MemoryStore {
    async fn secret(&self, name: String, fresh: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        Ok(self.tables()?.secrets.entry(name).or_insert(fresh).clone())
    }
}
