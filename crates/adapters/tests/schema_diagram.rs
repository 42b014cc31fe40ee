//! `migrations/README.md` shows both schemas as they are, and each `down.sql` reverts its `up.sql`.

#[cfg(feature = "postgres")]
#[path = "schema_diagram/postgres.rs"]
mod postgres;
#[cfg(feature = "sqlite")]
#[path = "schema_diagram/sqlite.rs"]
mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The table in which diesel records applied migrations.
const OF_DIESEL: &str = "__diesel_schema_migrations";

const STORES: [&str; 2] = ["SQLite", "PostgreSQL"];

/// Columns by table: the type, and whether the column is part of the primary key or of a unique one.
type Schema = BTreeMap<String, BTreeMap<String, (String, BTreeSet<&'static str>)>>;

/// The keys that a column is part of.
fn keys(primary: bool, unique: bool) -> BTreeSet<&'static str> {
    [(primary, "PK"), (unique, "UK")].into_iter().filter(|(is, _)| *is).map(|(_, key)| key).collect()
}

/// Fails unless the page draws the schema that `store` has after its migrations, and describes each table. `kind` is the
/// store's name for one of PostgreSQL's types.
fn compare(store: &str, migrated: &Schema, kind: fn(&str) -> &str) {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/README.md")).expect("the page");
    let drawn = drawn(&page, store, kind);
    assert!(migrated.len() >= 12, "{:?}", migrated.keys());
    let tables = |schema: &Schema| schema.keys().cloned().collect::<Vec<_>>();
    assert_eq!(tables(&drawn), tables(migrated), "tables: drawn, migrated");
    for (table, columns) in migrated {
        assert_eq!(&drawn[table], columns, "columns of {table}: drawn, migrated");
        assert!(page.contains(&format!("| `{table}` | ")), "{table} has no description");
    }
}

/// Whether a description or a note leaves its table or column to another store.
fn is_of_another(store: &str, text: &str) -> bool {
    STORES.iter().any(|other| *other != store && text.starts_with(other))
}

/// The tables of the page's diagram that `store` has.
fn drawn(page: &str, store: &str, kind: fn(&str) -> &str) -> Schema {
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
            let mut parts = line.split('"');
            let (text, note) = (parts.next().expect("a line").replace(',', " "), parts.next().unwrap_or_default());
            if is_of_another(store, note) {
                continue;
            }
            let words: Vec<&str> = text.split_whitespace().collect();
            let [postgres, name, keys @ ..] = words.as_slice() else { panic!("no column: {line}") };
            let keys = keys.iter().map(|key| match *key {
                "PK" => "PK",
                "UK" => "UK",
                other => panic!("no key: {other} in {line}"),
            });
            let twice = columns.insert((*name).to_owned(), (kind(postgres).to_owned(), keys.collect()));
            assert_eq!(twice, None, "twice: {line}");
        }
    }
    let description = |table: &str| page.split(&format!("| `{table}` | ")).nth(1).unwrap_or_default();
    schema.retain(|table, _| !is_of_another(store, description(table)));
    schema
}
