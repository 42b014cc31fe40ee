//! The documents agree with the code: `tests/README.md` with the tests and the routes, `crates/README.md` with the files,
//! and both READMEs that name tests with their names.

use std::collections::BTreeSet;
use std::{env, fs};

use boxoffice_tests::sources::{Test, all_tests, module_of, root, sources, tests_of};
use boxoffice_tests::{mutants, tables};

/// Set, it makes a test write what it compares.
const WRITE_VARIABLE: &str = "BOXOFFICE_TEST_WRITE_TABLES";

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The spans in backticks outside of fenced blocks, each with the number of its line.
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

/// The rows of all tables: the number of the line, the head of the last column, and the cells.
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

/// Whether a text is a test's name: its path in the source, without `tests` modules.
fn is_test_name(text: &str) -> bool {
    text.contains("::") && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// The faults of a document: tests that it names and that do not exist, and rows without a test in a table whose last
/// column has tests.
fn unnamed(document: &str, markdown: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults: Vec<_> = quoted(markdown)
        .into_iter()
        .filter(|(_, text)| is_test_name(text) && !tests.contains(*text))
        .map(|(line, text)| format!("{document}:{line}: there is no test `{text}`"))
        .collect();
    for (line, _, cells) in rows_under(markdown).into_iter().filter(|(_, head, _)| ["tests", "shown by"].contains(head)) {
        if !cells[1..].iter().any(|cell| quoted(cell).iter().any(|(_, text)| is_test_name(text))) {
            faults.push(format!("{document}:{line}: the row `{}` names no test", cells[0]));
        }
    }
    faults
}

/// `GET /a/{}`: a route without the names of its parameters.
fn route(method: &str, path: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    format!("{} {}", method.to_uppercase(), segments.collect::<Vec<_>>().join("/"))
}

/// The routes that rows begin with.
fn routes_named(markdown: &str) -> BTreeSet<String> {
    let first_cells = rows(markdown).into_iter().flat_map(|(_, cells)| quoted(cells[0]));
    first_cells.filter_map(|(_, text)| text.split_once(' ')).filter(|(_, path)| path.starts_with('/')).map(|(m, p)| route(m, p)).collect()
}

/// The paths that `crates/README.md` names, from there or from the repository's root, and that do not exist.
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
    let tests: BTreeSet<_> = all_tests(&sources().unwrap()).iter().map(Test::path).collect();
    assert!(tests.len() > 100, "only {} tests were found: the search is broken", tests.len());
    let faults: Vec<_> =
        ["tests/README.md", "deploy/README.md"].iter().flat_map(|document| unnamed(document, &read(document), &tests)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_tables_of_the_tests_are_in_step() {
    let readme = read("tests/README.md");
    let made = tables::rewritten(&readme, &sources().unwrap(), &mutants::all().unwrap()).unwrap();
    if env::var_os(WRITE_VARIABLE).is_some() {
        fs::write(root().join("tests/README.md"), made).unwrap();
    } else {
        let first = readme.lines().zip(made.lines()).find(|(is, should_be)| is != should_be);
        assert!(readme == made, "tests/README.md is out of step with the tests: run `tests/run tables`. The first difference: {first:#?}");
    }
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
    for path in sources().unwrap().keys() {
        // The first level of each crate: a file, or the folder of a module.
        let segments: Vec<_> = path.split('/').collect();
        let ["crates", of, "src", first, ..] = segments[..] else { continue };
        let module = first.trim_end_matches(".rs");
        let names = [format!("{of}/src/{module}.rs"), format!("{of}/src/{module}")];
        if !["lib", "testing", "tests"].contains(&module) && !names.iter().any(|name| named.contains(name.as_str())) {
            faults.push(format!("crates/README.md: the map lacks `{}`", names[usize::from(segments.len() > 4)]));
        }
    }
    faults.dedup();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_guard_that_mutants_take_away_is_there() {
    let mutants = mutants::all().unwrap();
    assert!(mutants.len() > 20, "only {} guards were found", mutants.len());
    let mut names = BTreeSet::new();
    for mutant in mutants {
        let source = read(&mutant.file);
        assert_ne!(mutant.apply(&source).unwrap(), source, "{}", mutant.name);
        assert!(names.insert(mutant.name.clone()), "two guards are called {}", mutant.name);
    }
}

#[test]
fn a_document_that_is_out_of_step_is_found() {
    let tests = tests_of("crates/domain/src/decide/tests/holds.rs", "#[test]\nfn it_holds() {}\nfn helper() {}", &BTreeSet::new());
    let paths = |tests: &[Test]| tests.iter().map(Test::path).collect::<Vec<_>>();
    assert_eq!(paths(&tests), ["domain::decide::holds::it_holds"]);
    let contract = "pub async fn is_listed(f: Fixture) {}\npub async fn forgotten(f: Fixture) {}\n#[tokio::test]\nasync fn real() {}";
    let cases = tests_of("crates/ports/src/contract/room.rs", contract, &BTreeSet::from(["is_listed"]));
    assert_eq!(paths(&cases), ["ports::contract::room::is_listed", "ports::contract::room::real"]);
    assert_eq!(module_of("tests/tests/e2e/booking.rs"), "e2e::booking");

    let documented = tests_of(
        "tests/tests/e2e/queue.rs",
        "/// I4,\n/// always.\n#[test]\nfn a() {}\n/// I5.\nuse x;\n#[test]\nfn b() {}",
        &BTreeSet::new(),
    );
    assert_eq!(documented.iter().map(|test| test.doc.as_str()).collect::<Vec<_>>(), [" I4, always.", ""]);

    let tests = paths(&tests).into_iter().collect();
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
