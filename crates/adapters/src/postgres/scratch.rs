//! Temporary databases on a server that has others: for measuring, never for production.

use super::connect::{Address, Role};
use super::failure::Failure;
use boxoffice_ports::{Deadline, StoreError};
use std::time::Duration;
use tokio_postgres::Client;

/// The longest name PostgreSQL keeps whole, bytes.
const NAME_MAX: usize = 63;
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Creates an empty database on the server at `url`, whose own database stays untouched, and returns the new address.
/// A name is lower-case letters, digits and `_`.
pub async fn create_database(url: &str, name: &str) -> Result<String, StoreError> {
    Ok(create(url, name).await?)
}

/// Drops a database, and ends the connections to it.
pub async fn drop_database(url: &str, name: &str) -> Result<(), StoreError> {
    Ok(statement(url, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", checked(name)?)).await?)
}

/// The server's version, in its own words.
pub async fn server_version(url: &str) -> Result<String, StoreError> {
    Ok(version(url).await?)
}

async fn create(url: &str, name: &str) -> Result<String, Failure> {
    statement(url, &format!("CREATE DATABASE {}", checked(name)?)).await?;
    with_database(url, name)
}

async fn version(url: &str) -> Result<String, Failure> {
    let row = client(url).await?.query_one("SHOW server_version", &[]).await?;
    Ok(row.try_get(0)?)
}

async fn statement(url: &str, statement: &str) -> Result<(), Failure> {
    Ok(client(url).await?.batch_execute(statement).await?)
}

async fn client(url: &str) -> Result<Client, Failure> {
    Ok(Address::parse(url)?.connect(Role::Reader, Deadline::after(CONNECT_MAX)).await?.drive())
}

/// These statements take no parameters, so the name itself must be harmless.
fn checked(name: &str) -> Result<&str, Failure> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let sound = (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain);
    sound.then_some(name).ok_or_else(|| Failure::Data("a database's name must be lower-case letters, digits and _".to_owned()))
}

/// The same server, user and options with another database.
fn with_database(url: &str, name: &str) -> Result<String, Failure> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| Failure::Data("the address is no URL".to_owned()))?;
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    // A password may hold an unescaped slash.
    let path_from = place.rfind('@').map_or(0, |at| at + 1);
    let authority = place[path_from..].find('/').map_or(place, |at| &place[..path_from + at]);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{name}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_database_keeps_all_else() {
        for (url, other) in [
            ("postgres://db", "postgres://db/b1"),
            ("postgres://ann:pw@db:5432/shop", "postgres://ann:pw@db:5432/b1"),
            ("postgresql://ann:p/w@[::1]:5/shop?sslmode=require", "postgresql://ann:p/w@[::1]:5/b1?sslmode=require"),
        ] {
            assert_eq!(with_database(url, "b1").unwrap(), other);
        }
    }

    #[test]
    fn names_cannot_become_statements() {
        assert!(checked("boxoffice_bench_0f").is_ok());
        for name in ["", "a b", "a;drop", "A", "a\"", "ä", &"a".repeat(64)] {
            assert!(checked(name).is_err(), "{name}");
        }
    }
}
