//! The documents that speak of the code are held against it: `tests/README.md` against the tests there are and the
//! routes that are served, `crates/README.md` against the files there are.

#![expect(clippy::unwrap_used, reason = "a test reports by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository").to_path_buf()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands in backticks, line by line, outside of fenced blocks.
fn quoted(markdown: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in markdown.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(|text| (at + 1, text)));
        }
    }
    found
}

/// The rows of all tables, as cells, without heads and rules; with what stands above a row's last cell.
fn rows_under(markdown: &str) -> Vec<(usize, &str, Vec<&str>)> {
    let lines: Vec<_> = markdown.lines().collect();
    let is_rule = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("| ---") || line.starts_with("|---"));
    let mut found = Vec::new();
    let mut head = "";
    for (at, line) in lines.iter().enumerate() {
        let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if is_rule(at + 1) {
            head = cells.last().copied().unwrap_or_default();
        } else if line.starts_with('|') && !is_rule(at) {
            found.push((at + 1, head, cells));
        }
    }
    found
}

fn rows(markdown: &str) -> Vec<(usize, Vec<&str>)> {
    rows_under(markdown).into_iter().map(|(line, _, cells)| (line, cells)).collect()
}

/// A test's name: its path in the source, `tests` modules left out.
fn is_test_name(text: &str) -> bool {
    text.contains("::") && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// `crates/domain/src/decide/tests/holds.rs` is `domain::decide::holds`; `tests/tests/e2e/booking.rs` is `e2e::booking`.
fn module_of(path: &str) -> String {
    let mut segments: Vec<_> = path.trim_end_matches(".rs").split('/').collect();
    segments.remove(0);
    segments.retain(|segment| !matches!(*segment, "src" | "tests" | "mod" | "lib" | "main"));
    segments.join("::")
}

/// Where macros make tests of functions that are not marked themselves.
const SUITES: [&str; 5] = [
    "crates/ports/src/contract/",
    "tests/tests/e2e/contention/",
    "tests/tests/e2e/brokers/",
    "tests/tests/e2e/hangs/",
    "tests/tests/e2e/commands.rs",
];

/// The functions marked as tests in a source, with their modules. Cases of a suite are not marked: they are functions
/// that its macro lists.
fn tests_of(path: &str, text: &str, listed: &BTreeSet<&str>) -> Vec<String> {
    let module = module_of(path);
    let mut found = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        let shared = line.starts_with("pub async fn ") || line.starts_with("pub(super) async fn ");
        let case = shared && SUITES.iter().any(|suite| path.starts_with(suite));
        if let Some(name) = function_named(line) {
            if marked || case && listed.contains(name) {
                found.push(format!("{module}::{name}"));
            }
            marked = false;
        } else if line.starts_with("#[") && line.contains("test") && !line.contains("cfg") {
            marked = true;
        }
    }
    found
}

fn function_named(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(super) ")).unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, into: &mut BTreeMap<String, String>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                into.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    for folder in ["crates", "tests"] {
        walk(&root().join(folder), &mut all);
    }
    all
}

fn all_tests(sources: &BTreeMap<String, String>) -> BTreeSet<String> {
    // The macros list cases as bare words, one a line, perhaps behind their module.
    let is_suite =
        |path: &str| SUITES.iter().any(|suite| path.starts_with(suite) || suite.trim_end_matches('/') == path.trim_end_matches(".rs"));
    let lists = |text: &str| text.contains("macro_rules!") || text.contains("through_each_log! {");
    let macros = sources.iter().filter(|(path, text)| is_suite(path) && lists(text));
    let words = macros.flat_map(|(_, text)| text.lines().flat_map(str::split_whitespace));
    let listed: BTreeSet<_> = words.map(|word| word.rsplit("::").next().unwrap_or(word)).collect();
    sources.iter().flat_map(|(path, text)| tests_of(path, text, &listed)).collect()
}

/// What is wrong with what a document says of tests, given those there are: each that it names exists, and each row of a
/// table whose last column is of tests names one.
fn unnamed(document: &str, markdown: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults: Vec<_> = quoted(markdown)
        .into_iter()
        .filter(|(_, text)| is_test_name(text) && !tests.contains(*text))
        .map(|(line, text)| format!("{document}:{line}: there is no test `{text}`"))
        .collect();
    for (line, _, cells) in rows_under(markdown).into_iter().filter(|(_, head, _)| ["tests", "shown by", "what it shows"].contains(head)) {
        if !cells[1..].iter().any(|cell| quoted(cell).iter().any(|(_, text)| is_test_name(text))) {
            faults.push(format!("{document}:{line}: `{}` names no test", cells[0]));
        }
    }
    faults
}

/// `GET /a/{id}`, whatever the parameter is called.
fn route(method: &str, path: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    format!("{} {}", method.to_uppercase(), segments.collect::<Vec<_>>().join("/"))
}

/// Routes that rows begin with.
fn routes_named(markdown: &str) -> BTreeSet<String> {
    let first_cells = rows(markdown).into_iter().flat_map(|(_, cells)| quoted(cells[0]));
    first_cells.filter_map(|(_, text)| text.split_once(' ')).filter(|(_, path)| path.starts_with('/')).map(|(m, p)| route(m, p)).collect()
}

/// Paths of files and folders that a text of `crates/` names: from there, or from the repository's root.
fn missing_paths(markdown: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let is_path = |text: &str| {
        let ends = [".rs", ".toml", ".md", ".sql", "/"].iter().any(|end| text.ends_with(end));
        ends && text.contains('/') && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
    };
    let named = quoted(markdown).into_iter().filter(|(_, text)| is_path(text) && !text.starts_with('/'));
    named.filter(|(_, path)| !exists(path)).map(|(line, path)| format!("crates/README.md:{line}: there is no `{path}`")).collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let tests = all_tests(&sources());
    assert!(tests.len() > 100, "only {} tests were found: the search is broken", tests.len());
    let faults: Vec<_> =
        ["tests/README.md", "deploy/README.md"].iter().flat_map(|document| unnamed(document, &read(document), &tests)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_route_and_invariant_has_a_row() {
    let readme = read("tests/README.md");
    let openapi = serde_json::to_value(boxoffice_app::http::openapi()).unwrap();
    let mut served = BTreeSet::new();
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().keys().filter(|key| ["get", "post", "put", "patch", "delete"].contains(&key.as_str()));
        served.extend(methods.map(|method| route(method, path)));
    }
    assert!(!served.is_empty());
    let named = routes_named(&readme);
    assert_eq!(served.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "routes without a row in tests/README.md");
    assert_eq!(
        named.difference(&served).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "rows for routes that are not in the OpenAPI document"
    );
    for invariant in (1..=12).map(|n| format!("I{n}")) {
        assert!(rows(&readme).iter().any(|(_, cells)| cells[0].starts_with(&format!("{invariant} "))), "{invariant} has no row");
    }
}

#[test]
fn the_map_of_the_code_names_what_there_is() {
    let readme = read("crates/README.md");
    let exists = |path: &str| root().join("crates").join(path).exists() || root().join(path).exists();
    let mut faults = missing_paths(&readme, exists);
    let named: BTreeSet<_> = quoted(&readme).into_iter().map(|(_, text)| text.trim_end_matches('/')).collect();
    for path in sources().keys() {
        // The first level of each crate: a file, or the folder that a module has become.
        let segments: Vec<_> = path.split('/').collect();
        let ["crates", of, "src", first, ..] = segments[..] else { continue };
        let module = first.trim_end_matches(".rs");
        let names = [format!("{of}/src/{module}.rs"), format!("{of}/src/{module}")];
        if !["lib", "testing"].contains(&module) && !names.iter().any(|name| named.contains(name.as_str())) {
            faults.push(format!("crates/README.md: the map lacks `{}`", names[usize::from(segments.len() > 4)]));
        }
    }
    faults.dedup();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_guard_that_mutants_take_away_is_there() {
    let mutants = boxoffice_tests::mutants::all().unwrap();
    assert!(mutants.len() > 20);
    let mut names = BTreeSet::new();
    for mutant in mutants {
        let source = read(&mutant.file);
        assert_ne!(mutant.apply(&source).unwrap(), source, "{}", mutant.name);
        assert!(names.insert(mutant.name.clone()), "two are called {}", mutant.name);
    }
}

#[test]
fn a_document_that_is_out_of_step_is_found() {
    let tests = tests_of("crates/domain/src/decide/tests/holds.rs", "#[test]\nfn it_holds() {}\nfn helper() {}", &BTreeSet::new());
    assert_eq!(tests, ["domain::decide::holds::it_holds"]);
    let contract = "pub async fn listed(f: Fixture) {}\npub async fn forgotten(f: Fixture) {}\n#[tokio::test]\nasync fn real() {}";
    let cases = tests_of("crates/ports/src/contract/room.rs", contract, &BTreeSet::from(["listed"]));
    assert_eq!(cases, ["ports::contract::room::listed", "ports::contract::room::real"]);
    assert_eq!(module_of("tests/tests/e2e/booking.rs"), "e2e::booking");

    let tests = tests.into_iter().collect();
    let table = |row: &str| format!("| what | tests |\n| --- | --- |\n{row}\n");
    let faults = |row: &str| unnamed("a document", &table(row), &tests).len();
    assert_eq!(faults("| a hold | `domain::decide::holds::it_holds` |"), 0);
    assert_eq!(faults("| a hold | `domain::decide::holds::it_helds` |"), 1);
    assert_eq!(faults("| a hold | by hand |"), 1, "a row without any test");
    assert_eq!(unnamed("a document", "| key | meaning |\n| --- | --- |\n| a hold | by hand |", &tests).len(), 0);
    assert_eq!(routes_named(&table("| `GET /a/{id}/b` | x |")), BTreeSet::from(["GET /a/{}/b".to_owned()]));

    let exists = |path: &str| path == "domain/src/room.rs";
    assert!(missing_paths("see `domain/src/room.rs`, `Room`, and `/api/x/`\n```\n`gone/x.rs`\n```", exists).is_empty());
    assert_eq!(missing_paths("see `domain/src/rooms.rs`", exists).len(), 1);
}
