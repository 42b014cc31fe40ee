//! The keys that tokens are signed with.

use super::SqliteStore;
use super::failure::Failure;
use super::sql::{row, run, statements};
use super::writer::Share;
use async_trait::async_trait;
use boxoffice_ports::{Secrets, StoreError};
use diesel::sql_types::Binary;

statements! {
    InsertSecret = "INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING";
    SelectSecret -> Binary = "SELECT value FROM secrets WHERE name = ?";
}

#[async_trait]
impl Secrets for SqliteStore {
    async fn secret(&self, name: String, fresh: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let write = self.writer.write(Share::Small, move |session| {
            run::<InsertSecret>(&mut session.conn, (name.as_str(), fresh.as_slice()))?;
            let secret: Option<Vec<u8>> = row::<SelectSecret, _, _>(&mut session.conn, (name.as_str(),))?;
            secret.ok_or_else(|| Failure::Data("a secret that was just written is missing".to_owned()))
        });
        Ok(write.await?)
    }
}
