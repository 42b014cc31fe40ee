//! The embedded store's schema.

use super::{OF_DIESEL, Schema, compare, keys};
use boxoffice_adapters::sqlite;
use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use std::path::Path;

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = BigInt)]
    pk: i64,
    #[diesel(sql_type = BigInt)]
    uk: i64,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

fn connect(path: &Path) -> SqliteConnection {
    SqliteConnection::establish(path.to_str().expect("a path")).expect("a connection")
}

fn migrated(path: &Path) -> Schema {
    let columns: Vec<Column> = sql_query(
        "SELECT t.name AS table_name, c.name, c.type AS kind, c.pk,
                EXISTS (SELECT 1 FROM pragma_index_list(t.name) i JOIN pragma_index_info(i.name) k WHERE i.origin = 'u' AND k.name = c.name) AS uk
         FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'",
    )
    .load(&mut connect(path))
    .expect("the schema");
    let mut schema = Schema::new();
    for column in columns.into_iter().filter(|column| column.table_name != OF_DIESEL) {
        let keys = keys(column.pk != 0, column.uk != 0);
        schema.entry(column.table_name).or_default().insert(column.name, (column.kind, keys));
    }
    schema
}

#[test]
fn diagram_shows_every_table_and_column_of_the_schema() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("boxoffice.db");
    assert_eq!(
        sqlite::migrate(&path).expect("migrated"),
        ["0001_initial", "0002_room_mirror", "0003_room_log", "0004_outbox_rooms", "0005_catalog_version"]
    );
    compare("SQLite", &migrated(&path), |postgres| match postgres {
        "uuid" | "bytea" => "BLOB",
        "text" => "TEXT",
        _ => "INTEGER",
    });
}

#[test]
fn down_takes_back_what_up_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("boxoffice.db");
    sqlite::migrate(&path).expect("migrated");
    sqlite::revert(&path).expect("reverted");
    let left: Vec<Name> =
        sql_query("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").load(&mut connect(&path)).expect("read");
    let left: Vec<&str> = left.iter().map(|row| row.name.as_str()).filter(|name| !name.contains(OF_DIESEL)).collect();
    assert_eq!(left, Vec::<&str>::new());
}
