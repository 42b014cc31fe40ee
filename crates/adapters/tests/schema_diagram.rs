//! `migrations/README.md` shows each schema as it is, and each `down.sql` takes back what its `up.sql` made.

#[cfg(feature = "postgres")]
#[path = "schema_diagram/postgres.rs"]
mod postgres;
#[cfg(feature = "sqlite")]
#[path = "schema_diagram/sqlite.rs"]
mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where the migrations themselves are kept account of.
const OF_DIESEL: &str = "__diesel_schema_migrations";

/// Columns by table: type, and whether it is part of the primary key or of a unique one.
type Schema = BTreeMap<String, BTreeMap<String, (String, BTreeSet<&'static str>)>>;

/// The keys that a column is part of.
fn keys(primary: bool, unique: bool) -> BTreeSet<&'static str> {
    [(primary, "PK"), (unique, "UK")].into_iter().filter(|(is, _)| *is).map(|(_, key)| key).collect()
}

/// Fails unless the page's section of that name draws what was migrated, and has a sentence on each table.
fn compare(section: &str, migrated: &Schema) {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/README.md")).expect("the page");
    let (_, text) = page.split_once(&format!("## {section}\n")).expect("a section");
    let drawn = drawn(text);
    assert!(migrated.len() >= 12, "{:?}", migrated.keys());
    let tables = |schema: &Schema| schema.keys().cloned().collect::<Vec<_>>();
    assert_eq!(tables(&drawn), tables(migrated), "tables: drawn, migrated");
    for (table, columns) in migrated {
        assert_eq!(&drawn[table], columns, "columns of {table}: drawn, migrated");
        assert!(page.contains(&format!("| `{table}` | ")), "{table} has no sentence");
    }
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
