//! The walls between the crates: what a manifest may name, what a source may mention, and that no files of a crate
//! import each other in a circle. A wall that is crossed fails here with the file, the line and the rule.

#![expect(clippy::unwrap_used, reason = "a test reports by panicking, its helpers too")]

mod circles;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A crate's manifest and sources, by path from the repository's root.
struct Crate {
    name: &'static str,
    manifest: toml::Table,
    sources: Vec<(String, String)>,
}

/// What a crate's `[dependencies]` may name.
struct Wall {
    name: &'static str,
    /// Crates of this workspace, for use and for tests.
    internal: &'static [&'static str],
    /// Crates of this workspace, for tests alone.
    internal_tests: &'static [&'static str],
    /// Outside crates. `None`: anything that `never` does not name.
    external: Option<&'static [&'static str]>,
    /// Only as optional dependencies, behind a feature.
    optional: &'static [&'static str],
    /// Groups that are never there, in tests neither.
    never: &'static [&'static [&'static str]],
}

const PREFIX: &str = "boxoffice";

/// Groups of outside crates, by the beginnings of their names.
const WEB: &[&str] = &["actix", "utoipa", "tracing-actix", "axum", "hyper", "tower"];
const STORES: &[&str] = &["diesel", "libsqlite3", "tokio-postgres", "sqlx", "redis", "rslock", "rdkafka", "krafka", "lapin"];
const CLIENTS: &[&str] = &["reqwest"];
const ASYNC: &[&str] = &["tokio", "async-trait", "futures", "tracing"];
/// The command line and its reports.
const REPORTS: &[&str] = &["clap", "comfy-table", "hdrhistogram", "indicatif", "maud", "rand_chacha", "rand_distr"];
/// Starts the servers that tests run against.
const SERVICES: &[&str] = &["boxoffice-services"];

const WALLS: &[Wall] = &[
    Wall {
        name: "domain",
        internal: &[],
        internal_tests: &[],
        external: Some(&["chrono", "serde", "sha2", "thiserror", "uuid"]),
        optional: &[],
        never: &[ASYNC, &["rand"]],
    },
    Wall {
        name: "ports",
        internal: &["boxoffice-domain"],
        internal_tests: &[],
        external: Some(&["async-trait", "chrono", "thiserror", "tokio", "uuid"]),
        optional: &["futures-util", "mockall", "serde_json"],
        never: &[WEB, STORES, CLIENTS, REPORTS],
    },
    Wall {
        name: "engine",
        internal: &["boxoffice-domain", "boxoffice-ports"],
        internal_tests: &[],
        external: Some(&["async-trait", "chrono", "futures-util", "postcard", "rand", "thiserror", "tokio", "tracing", "uuid"]),
        optional: &[],
        never: &[WEB, STORES, CLIENTS, REPORTS],
    },
    Wall {
        name: "adapters",
        internal: &["boxoffice-domain", "boxoffice-ports"],
        internal_tests: SERVICES,
        external: None,
        optional: &[],
        never: &[WEB, REPORTS],
    },
    Wall {
        name: "app",
        internal: &["boxoffice-domain", "boxoffice-ports", "boxoffice-engine", "boxoffice-adapters"],
        internal_tests: SERVICES,
        external: None,
        optional: &[],
        never: &[STORES, REPORTS],
    },
    Wall {
        name: "simulate",
        internal: &["boxoffice-domain"],
        internal_tests: &[],
        external: Some(&["chrono", "clap", "maud", "rand", "rand_chacha", "rand_distr", "serde", "serde_json", "thiserror", "uuid"]),
        optional: &[],
        never: &[ASYNC],
    },
    Wall {
        name: "lab",
        internal: &["boxoffice-domain", "boxoffice-ports", "boxoffice-engine", "boxoffice-app", "boxoffice-simulate"],
        internal_tests: &["boxoffice-services", "boxoffice-adapters"],
        external: None,
        optional: &[],
        never: &[WEB, STORES],
    },
    Wall {
        name: "cli",
        internal: &["boxoffice-domain", "boxoffice-ports", "boxoffice-app", "boxoffice-simulate", "boxoffice-lab"],
        internal_tests: &[],
        external: None,
        optional: &[],
        never: &[WEB, STORES],
    },
];

/// A phrase that only some files may have in their code; comments may speak of anything.
struct Phrase {
    /// Found as a whole word, or as a path that begins with it.
    words: &'static [&'static str],
    /// The crates it is looked for in.
    crates: &'static [&'static str],
    /// Files, or folders that end in `/`, where it belongs.
    allowed: &'static [&'static str],
    because: &'static str,
}

const ALL: &[&str] = &["domain", "ports", "engine", "adapters", "app", "simulate", "lab", "cli"];

const PHRASES: &[Phrase] = &[
    Phrase {
        words: &["Utc::now", "Local::now", "Uuid::now_v7", "Uuid::new_v4"],
        crates: ALL,
        allowed: &["crates/adapters/src/clock.rs"],
        because: "time comes from Clock or a store, identifiers come from Ids",
    },
    Phrase {
        words: &["boxoffice_adapters"],
        crates: ALL,
        allowed: &["crates/app/src/wiring.rs", "crates/app/src/wiring/"],
        because: "only the wiring names concrete adapters",
    },
    Phrase {
        words: &["boxoffice_engine"],
        crates: &["domain", "ports", "adapters"],
        allowed: &[],
        because: "the engine is built on ports, nothing below the application knows it",
    },
    Phrase {
        words: &["actix_web", "diesel", "diesel_async", "tokio_postgres", "redis", "rslock", "rustls", "rdkafka", "lapin"],
        crates: &["domain", "ports", "engine"],
        allowed: &[],
        because: "no technology's type this side of the ports",
    },
    Phrase {
        words: &["async", "await", "std::time", "std::thread", "std::fs", "std::net", "std::env"],
        crates: &["domain"],
        allowed: &[],
        because: "the decision is synchronous and knows no clock, thread, file or socket",
    },
];

/// Every wall that is crossed, one line each.
fn violations(crates: &[Crate]) -> Vec<String> {
    let mut found = Vec::new();
    for Crate { name, manifest, sources } in crates {
        match WALLS.iter().find(|wall| wall.name == *name) {
            Some(wall) => check_manifest(wall, manifest, &mut found),
            None => found.push(format!("crates/{name}: a crate that the design does not know")),
        }
        for phrase in PHRASES.iter().filter(|phrase| phrase.crates.contains(name)) {
            for (path, text) in sources.iter().filter(|(path, _)| !is_allowed(path, phrase.allowed)) {
                for (at, line) in text.lines().enumerate() {
                    for word in phrase.words.iter().filter(|word| mentions(code_of(line), word)) {
                        found.push(format!("{path}:{}: `{word}`: {}", at + 1, phrase.because));
                    }
                }
            }
        }
    }
    found
}

fn check_manifest(wall: &Wall, manifest: &toml::Table, found: &mut Vec<String>) {
    let mut cross = |table: &str, dependency: &str, why: &str| {
        found.push(format!("crates/{}/Cargo.toml [{table}]: `{dependency}` {why}", wall.name));
    };
    for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
        for (name, how) in dependencies {
            let package = how.get("package").and_then(toml::Value::as_str).unwrap_or(name);
            if package.starts_with(PREFIX) {
                let for_tests = table == "dev-dependencies" && wall.internal_tests.contains(&package);
                if !for_tests && !wall.internal.contains(&package) {
                    cross(table, package, "is behind a wall");
                }
                continue;
            }
            if wall.never.iter().copied().flatten().any(|start| package.starts_with(start)) {
                let optional = wall.optional.contains(&package) || table == "dev-dependencies" && package.starts_with("tokio");
                if !optional {
                    cross(table, package, "never belongs here");
                    continue;
                }
            }
            if table != "dependencies" {
                continue;
            }
            let is_optional = how.get("optional").and_then(toml::Value::as_bool).unwrap_or(false);
            match wall.external {
                Some(list) if list.contains(&package) => {}
                Some(_) if wall.optional.contains(&package) && is_optional => {}
                Some(_) if wall.optional.contains(&package) => cross(table, package, "must be optional"),
                Some(_) => cross(table, package, "is not on the list of what the crate may use"),
                None => {}
            }
        }
    }
    if manifest.contains_key("target") {
        cross("target", "*", "dependencies by platform are not looked into here: use [dependencies]");
    }
}

fn is_allowed(path: &str, allowed: &[&str]) -> bool {
    allowed.iter().any(|place| if place.ends_with('/') { path.starts_with(place) } else { path == *place })
}

/// A line without its comment. An address (`https://…`) is not a comment.
fn code_of(line: &str) -> &str {
    let mut from = 0;
    while let Some(at) = line[from..].find("//").map(|at| at + from) {
        if !line[..at].ends_with(':') {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}

/// Whether `word` stands in `code` with no letter, digit or underscore next to it.
fn mentions(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (code[..at].chars().next_back(), code[at + word.len()..].chars().next());
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository").to_path_buf()
}

fn read_sources(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            read_sources(&entry, into);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let path = entry.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            into.push((path, fs::read_to_string(&entry).unwrap()));
        }
    }
}

fn workspace() -> Vec<Crate> {
    let mut crates = BTreeMap::new();
    for entry in fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let name: &'static str = entry.file_name().unwrap().to_str().unwrap().to_owned().leak();
        let manifest = fs::read_to_string(entry.join("Cargo.toml")).unwrap().parse().unwrap();
        let mut sources = Vec::new();
        read_sources(&entry.join("src"), &mut sources);
        crates.insert(name, Crate { name, manifest, sources });
    }
    crates.into_values().collect()
}

#[test]
fn no_crate_crosses_a_boundary() {
    let crates = workspace();
    assert_eq!(
        crates.iter().map(|of| of.name).collect::<Vec<_>>(),
        ["adapters", "app", "cli", "domain", "engine", "lab", "ports", "simulate"]
    );
    assert!(crates.iter().all(|of| !of.sources.is_empty()));
    let found = violations(&crates);
    assert!(found.is_empty(), "boundaries are crossed:\n{}", found.join("\n"));
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() {
    let found: Vec<String> = workspace().iter().flat_map(|of| circles::circles(&of.sources)).collect();
    assert!(found.is_empty(), "files import each other in a circle:\n{}", found.join("\n"));
}

fn synthetic(name: &'static str, manifest: &str, path: &str, text: &str) -> Vec<String> {
    let sources = vec![(format!("crates/{name}/src/{path}"), text.to_owned())];
    violations(&[Crate { name, manifest: manifest.parse().unwrap(), sources }])
}

#[test]
fn a_manifest_that_crosses_a_boundary_is_found() {
    for (name, manifest, expected) in [
        ("domain", "[dependencies]\nserde = \"1\"\nuuid.workspace = true", None),
        ("domain", "[dependencies]\ntokio = \"1\"", Some("`tokio` never belongs")),
        ("domain", "[dependencies]\nregex = \"1\"", Some("`regex` is not on the list")),
        ("domain", "[dev-dependencies]\nboxoffice-ports.workspace = true", Some("`boxoffice-ports` is behind a wall")),
        ("ports", "[dependencies]\ntokio = { version = \"1\", optional = true }", None),
        ("ports", "[dependencies]\ntokio = \"1\"", None),
        ("ports", "[dependencies]\nboxoffice-engine.workspace = true", Some("`boxoffice-engine` is behind a wall")),
        ("engine", "[dependencies]\nboxoffice-ports.workspace = true\ntokio = \"1\"", None),
        ("engine", "[dependencies]\nactix-web = \"4\"", Some("`actix-web` never belongs")),
        ("engine", "[dependencies]\ndb = { package = \"diesel\", version = \"2\" }", Some("`diesel` never belongs")),
        ("engine", "[dev-dependencies]\nredis = \"1\"", Some("`redis` never belongs")),
        ("engine", "[dev-dependencies]\nboxoffice-adapters.workspace = true", Some("`boxoffice-adapters` is behind a wall")),
        ("engine", "[target.'cfg(unix)'.dependencies]\ndiesel = \"2\"", Some("dependencies by platform")),
        ("adapters", "[dependencies]\ndiesel = \"2\"\nboxoffice-ports.workspace = true", None),
        ("adapters", "[dependencies]\nboxoffice-engine.workspace = true", Some("`boxoffice-engine` is behind a wall")),
        ("adapters", "[dev-dependencies]\nboxoffice.workspace = true", Some("`boxoffice` is behind a wall")),
        ("app", "[dependencies]\nboxoffice-adapters.workspace = true\nactix-web = \"4\"", None),
        ("adapters", "[dependencies]\ndiesel-async = \"0.9\"\ntokio-postgres = \"0.7\"\nredis = \"1\"\nrslock = \"0.10\"", None),
        ("adapters", "[dev-dependencies]\nboxoffice-services.workspace = true", None),
        ("adapters", "[dependencies]\nboxoffice-services.workspace = true", Some("`boxoffice-services` is behind a wall")),
        ("engine", "[dev-dependencies]\nboxoffice-services.workspace = true", Some("`boxoffice-services` is behind a wall")),
        ("engine", "[dependencies]\nrslock = \"0.10\"", Some("`rslock` never belongs")),
        ("ports", "[dependencies]\ntokio-postgres = \"0.7\"", Some("`tokio-postgres` never belongs")),
        ("app", "[dependencies]\ndiesel-async = \"0.9\"", Some("`diesel-async` never belongs")),
        ("app", "[dependencies]\ntokio-postgres = \"0.7\"", Some("`tokio-postgres` never belongs")),
        ("app", "[dependencies]\nredis = { version = \"1\", optional = true }", Some("`redis` never belongs")),
        ("app", "[dev-dependencies]\nrslock = \"0.10\"", Some("`rslock` never belongs")),
        ("app", "[dependencies]\nrdkafka = \"0.39\"", Some("`rdkafka` never belongs")),
        ("app", "[dependencies]\nboxoffice-lab.workspace = true", Some("`boxoffice-lab` is behind a wall")),
        ("app", "[dependencies]\nboxoffice-simulate.workspace = true", Some("`boxoffice-simulate` is behind a wall")),
        ("app", "[dependencies]\ncomfy-table = \"8\"", Some("`comfy-table` never belongs")),
        ("simulate", "[dependencies]\nboxoffice-domain.workspace = true\nmaud = \"0.27\"", None),
        ("simulate", "[dependencies]\nboxoffice-ports.workspace = true", Some("`boxoffice-ports` is behind a wall")),
        ("lab", "[dependencies]\nboxoffice-app.workspace = true\nhdrhistogram = \"7\"", None),
        ("lab", "[dependencies]\nboxoffice.workspace = true", Some("`boxoffice` is behind a wall")),
        ("lab", "[dependencies]\nboxoffice-adapters.workspace = true", Some("`boxoffice-adapters` is behind a wall")),
        ("lab", "[dev-dependencies]\nboxoffice-adapters.workspace = true", None),
        ("cli", "[dependencies]\nactix-web = \"4\"", Some("`actix-web` never belongs")),
        ("helpers", "", Some("a crate that the design does not know")),
    ] {
        let found = synthetic(name, manifest, "lib.rs", "");
        match expected {
            None => assert!(found.is_empty(), "{name} {manifest}: {found:?}"),
            Some(expected) => assert!(matches!(&found[..], [one] if one.contains(expected)), "{name} {manifest}: {found:?}"),
        }
    }
}

#[test]
fn a_source_that_crosses_a_boundary_is_found() {
    for (name, path, text, crossed) in [
        ("app", "http/mod.rs", "let now = Utc::now();", true),
        ("app", "http/mod.rs", "let now = chrono::Utc::now();", true),
        ("app", "http/mod.rs", "// never Utc::now()", false),
        ("app", "http/mod.rs", "let a = \"https://x\"; let id = Uuid::now_v7();", true),
        ("adapters", "clock.rs", "Utc::now().timestamp_micros() + Uuid::now_v7()", false),
        ("adapters", "memory/clock.rs", "Utc::now()", true),
        ("app", "wiring.rs", "use boxoffice_adapters::memory::MemoryStore;", false),
        ("cli", "main.rs", "use boxoffice_adapters::memory::MemoryStore;", true),
        ("lab", "site.rs", "use boxoffice_adapters::memory::MemoryStore;", true),
        ("engine", "sweep.rs", "use boxoffice_adapters::memory;", true),
        ("adapters", "memory/mod.rs", "use boxoffice_engine::SeatView;", true),
        ("engine", "sweep.rs", "use diesel::prelude::*;", true),
        ("engine", "sweep.rs", "fn f(e: tokio_postgres::Error) {}", true),
        ("ports", "lock.rs", "fn f(e: rslock::LockError) {}", true),
        ("app", "wiring/redis.rs", "use boxoffice_adapters::redis::Redis;", false),
        ("engine", "sweep.rs", "let redistributed = predieseled();", false),
        ("domain", "room.rs", "pub async fn tick() {}", true),
        ("domain", "room.rs", "let at = std::time::Instant::now();", true),
        ("domain", "room.rs", "//! No async here.", false),
    ] {
        let found = synthetic(name, "", path, text);
        assert_eq!(!found.is_empty(), crossed, "{name}/{path} {text}: {found:?}");
    }
}

#[test]
fn a_circle_of_imports_is_found_and_named() {
    let circles = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(path, text)| (format!("crates/x/src/{path}"), (*text).to_owned())).collect();
        circles::circles(&files)
    };
    let lib = "mod a;\nmod b;\npub use a::A;";
    for (a, b, line) in [
        ("use crate::b::B;", "\nuse crate::a::A;", Some(2)),
        ("use crate::b::B;", "use super::a::{self, X as Y};", Some(1)),
        // Through a re-export, in an expression, through a name that a `use` bound.
        ("pub struct A;\nfn f() { crate::b::g() }", "use crate::A;", Some(1)),
        ("use super::b;\nfn f() -> b::B { todo() }", "fn g() { super::a::f() }", Some(1)),
        ("use crate::b::B;", "use std::fmt;\n// use crate::a::A;\nconst TEXT: &str = \"crate::a::A\";", None),
        ("use crate::b::B;", "#[cfg(test)]\nmod tests { use crate::a::A; }", None),
        ("use crate::b::B;", "#[cfg(test)]\nuse crate::a::{A, C};\nstruct B;", None),
    ] {
        let found = circles(&[("lib.rs", lib), ("a.rs", a), ("b.rs", b)]);
        match line {
            None => assert!(found.is_empty(), "{a} {b}: {found:?}"),
            Some(line) => {
                let [one] = &found[..] else { panic!("{a} {b}: {found:?}") };
                assert!(
                    one.contains(&format!("crates/x/src/b.rs:{line} imports crates/x/src/a.rs")) && one.ends_with("2 files in all"),
                    "{one}"
                );
            }
        }
    }
    // A child that needs what its parent defines, while the parent uses the child.
    let parent = "mod child;\nuse child::Child;\npub struct Parent(Child);";
    assert_eq!(circles(&[("lib.rs", "mod p;"), ("p.rs", parent), ("p/child.rs", "use super::Parent;")]).len(), 1);
    assert_eq!(circles(&[("lib.rs", "mod p;"), ("p.rs", parent), ("p/child.rs", "pub struct Child;")]).len(), 0);
    // A sibling, by way of the parent's re-export, is no way back to the parent.
    let facade = "mod one;\nmod two;\npub use one::*;\npub use two::Two;";
    assert_eq!(circles(&[("lib.rs", facade), ("one.rs", "pub struct One;"), ("two.rs", "use crate::One;")]).len(), 0);
}
