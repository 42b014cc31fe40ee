//! `migrations/README.md` shows the schema as it is, and `down.sql` takes back what `up.sql` made.

#![cfg(feature = "sqlite")]

use boxoffice_adapters::sqlite;
use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where the migrations themselves are kept account of.
const OF_DIESEL: &str = "__diesel_schema_migrations";

/// Columns by table: type, and whether it is part of the primary key or of a unique one.
type Schema = BTreeMap<String, BTreeMap<String, (String, BTreeSet<&'static str>)>>;

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
        let keys = [(column.pk, "PK"), (column.uk, "UK")].into_iter().filter(|(is, _)| *is != 0).map(|(_, key)| key).collect();
        schema.entry(column.table_name).or_default().insert(column.name, (column.kind, keys));
    }
    schema
}

/// The tables of the page's diagram.
fn drawn(page: &str) -> Schema {
    let diagram = page.split("erDiagram\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a diagram");
    let mut schema = Schema::new();
    let mut table = None;
    for line in diagram.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix(" {") {
            schema.insert(name.to_owned(), BTreeMap::new());
            table = Some(name);
        } else if line == "}" {
            table = None;
        } else if let Some(columns) = table.and_then(|table| schema.get_mut(table)) {
            let text = line.split('"').next().expect("a line").replace(',', " ");
            let words: Vec<&str> = text.split_whitespace().collect();
            let [kind, name, keys @ ..] = words.as_slice() else { panic!("no column: {line}") };
            let keys = keys.iter().map(|key| match *key {
                "PK" => "PK",
                "UK" => "UK",
                other => panic!("no key: {other} in {line}"),
            });
            let twice = columns.insert((*name).to_owned(), ((*kind).to_owned(), keys.collect()));
            assert_eq!(twice, None, "twice: {line}");
        }
    }
    schema
}

#[test]
fn diagram_shows_every_table_and_column_of_the_schema() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("boxoffice.db");
    assert_eq!(sqlite::migrate(&path).expect("migrated"), ["0001_initial"]);
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/README.md")).expect("the page");
    let (drawn, migrated) = (drawn(&page), migrated(&path));
    assert!(migrated.len() >= 12, "{:?}", migrated.keys());
    let tables = |schema: &Schema| schema.keys().cloned().collect::<Vec<_>>();
    assert_eq!(tables(&drawn), tables(&migrated), "tables: drawn, migrated");
    for (table, columns) in &migrated {
        assert_eq!(&drawn[table], columns, "columns of {table}: drawn, migrated");
        assert!(page.contains(&format!("| `{table}` | ")), "{table} has no sentence");
    }
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
