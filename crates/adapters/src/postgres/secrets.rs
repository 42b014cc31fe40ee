//! The keys that tokens are signed with.

use super::PostgresStore;
use super::failure::Failure;
use super::sql::{row, run, statements};
use async_trait::async_trait;
use boxoffice_ports::{Secrets, StoreError};
use diesel::sql_types::Binary;

statements! {
    InsertSecret = "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    SelectSecret -> Binary = "SELECT value FROM secrets WHERE name = $1";
}

#[async_trait]
impl Secrets for PostgresStore {
    /// The insert waits for another instance's insert of the same name, so every instance reads the same secret.
    async fn secret(&self, name: String, fresh: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let mut conn = self.conn().await?;
        let found: Option<Vec<u8>> = row::<SelectSecret, _, _>(&mut conn, (name.as_str(),)).await?;
        if let Some(secret) = found {
            return Ok(secret);
        }
        run::<InsertSecret>(&mut conn, (name.as_str(), fresh.as_slice())).await?;
        let secret = row::<SelectSecret, _, _>(&mut conn, (name.as_str(),)).await?;
        Ok(secret.ok_or_else(|| Failure::Data("a secret that was just written is missing".to_owned()))?)
    }
}
