//! The tables of `tests/README.md`, made from the sources: from the names and doc comments of tests, from the first
//! sentence of each module's `//!`, and from the guards in `tests/mutants.toml`.
//!
//! A test belongs to a route or an invariant if its doc comment names it: `` `GET /api/v1/queue` ``, `I4`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::mutants::Mutant;
use crate::sources::{Test, all_tests, module_of};

/// What the tables stand between.
const BEGIN: &str = "<!-- The tables from here on are made by `tests/run tables`. -->\n";
const END: &str = "<!-- End of the tables. -->\n";

/// The invariants, from I1 on.
const INVARIANTS: [&str; 12] = [
    "a seat has one reservation, and a reservation one payment",
    "a balance is the sum of its entries, and never below zero",
    "one effect for each key, and equal answers",
    "never too many active, and never too fast",
    "a success that was answered is durable",
    "available + held + sold = total",
    "each change is an event, in order for each seat",
    "no user reads or changes another user's things",
    "points add up",
    "a user has no more seats than the limit",
    "amount = prices as held − points",
    "no hold outlives the sweep; a 202 ends in a reply or a dead letter",
];

/// `readme` with its tables made anew.
pub fn rewritten(readme: &str, sources: &BTreeMap<String, String>, mutants: &[Mutant]) -> Result<String> {
    let (head, rest) = readme.split_once(BEGIN).context("tests/README.md lacks the line before the tables")?;
    let (_, tail) = rest.split_once(END).context("tests/README.md lacks the line after the tables")?;
    let mut text = format!("{head}{BEGIN}");
    let tests = all_tests(sources);
    routes(&mut text, &tests);
    invariants(&mut text, &tests, mutants);
    modules(&mut text, sources, &tests);
    guards(&mut text, mutants);
    Ok(format!("{text}\n{END}{tail}"))
}

fn table<const N: usize>(text: &mut String, title: &str, head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let _ = write!(text, "\n## {title}\n\n| {} |\n|{}\n", head.join(" | "), " --- |".repeat(N));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
}

fn quoted(names: impl IntoIterator<Item = String>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The routes that a doc comment names, path first.
fn routes_in(doc: &str) -> impl Iterator<Item = (&str, &str)> {
    let spans = doc.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.split_once(' ')).filter(|(_, path)| path.starts_with('/')).map(|(method, path)| (path, method))
}

fn names_invariant(text: &str, number: usize) -> bool {
    let name = format!("I{number}");
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == name)
}

fn routes(text: &mut String, tests: &[Test]) {
    let mut shown: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for test in tests {
        for route in routes_in(&test.doc).collect::<BTreeSet<_>>() {
            shown.entry(route).or_default().push(test.path());
        }
    }
    let rows = shown.into_iter().map(|((path, method), names)| [format!("`{method} {path}`"), quoted(names)]);
    table(text, "Routes", ["route", "tests"], rows);
}

fn invariants(text: &mut String, tests: &[Test], mutants: &[Mutant]) {
    let rows = (1..).zip(INVARIANTS).map(|(number, invariant)| {
        let names = tests.iter().filter(|test| names_invariant(&test.doc, number)).map(Test::path);
        let guards = mutants.iter().filter(|mutant| names_invariant(&mutant.guard, number)).map(|mutant| mutant.name.clone());
        [format!("I{number} {invariant}"), quoted(guards), quoted(names)]
    });
    table(text, "Invariants", ["invariant", "guards", "tests"], rows);
}

/// The tests of whole servers and the contract suites by name, all others by their number.
fn modules(text: &mut String, sources: &BTreeMap<String, String>, tests: &[Test]) {
    let mut by_module: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for test in tests {
        by_module.entry(&test.module).or_default().push(&test.name);
    }
    let opening = |module: &str| {
        let files = sources.iter().filter(|(path, _)| module_of(path) == module);
        let openings = files.map(|(path, text)| (!path.contains("/tests"), first_sentence(text)));
        // A file of tests describes itself better than the file under test does.
        openings.filter(|(_, sentence)| !sentence.is_empty()).min().map(|(_, sentence)| sentence).unwrap_or_default()
    };
    let named = |module: &str| module.starts_with("e2e") || module.starts_with("ports::contract");
    let (by_name, by_number): (Vec<_>, Vec<_>) = by_module.into_iter().partition(|(module, _)| named(module));
    let rows = by_name.into_iter().map(|(module, names)| {
        let names = names.into_iter().map(|name| name.replace('_', " ")).collect::<Vec<_>>().join("; ");
        [module.to_owned(), opening(module), names]
    });
    table(text, "Whole servers and contract suites", ["module", "about", "what holds"], rows);
    let rows = by_number.into_iter().map(|(module, names)| [module.to_owned(), opening(module), names.len().to_string()]);
    table(text, "Other modules with tests", ["module", "about", "number of tests"], rows);
}

fn guards(text: &mut String, mutants: &[Mutant]) {
    let rows = mutants.iter().map(|mutant| [format!("`{}`", mutant.name), mutant.guard.clone(), format!("`{}`", mutant.test.join(" "))]);
    table(text, "Guards that `tests/run mutants` takes away", ["name", "what it guarantees", "arguments of `cargo test`"], rows);
}

/// The first sentence of the `//!` that a source begins with.
fn first_sentence(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let end = paragraph.match_indices(". ").find(|(at, _)| !paragraph[..*at].ends_with(".g") && !paragraph[..*at].ends_with(".e"));
    let sentence = end.map_or(&*paragraph, |(at, _)| &paragraph[..at]);
    let plain = sentence.trim_end_matches(['.', ':']).replace("[`", "`").replace("`]", "`");
    // Only names of tests are quoted with `::`: a check looks for each.
    let spans = plain.split('`').enumerate();
    spans.map(|(at, span)| if at % 2 == 0 || span.contains("::") { span.to_owned() } else { format!("`{span}`") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doc_comment_names_its_routes_and_invariants() {
        let doc = " `GET /a/{id}` and `POST /a`, never above `max_active` (I10).";
        assert_eq!(routes_in(doc).collect::<Vec<_>>(), [("/a/{id}", "GET"), ("/a", "POST")]);
        assert!(names_invariant(doc, 10) && !names_invariant(doc, 1));
    }

    #[test]
    fn a_module_is_described_by_its_first_sentence() {
        assert_eq!(
            first_sentence("//! Holds, e.g. of [`Seat`]s,\n//! end [`a::b`]. And more.\n\nuse x;"),
            "Holds, e.g. of `Seat`s, end a::b"
        );
        assert_eq!(first_sentence("//! One table:\n//!\n//! | a |"), "One table");
        assert_eq!(first_sentence("use x;"), "");
    }

    #[test]
    fn only_the_tables_are_rewritten() {
        let readme = format!("before\n{BEGIN}old\n{END}after\n");
        let written = rewritten(&readme, &BTreeMap::new(), &[]).unwrap();
        assert!(written.starts_with(&format!("before\n{BEGIN}\n## Routes")) && written.ends_with(&format!("\n{END}after\n")), "{written}");
        assert_eq!(rewritten(&written, &BTreeMap::new(), &[]).unwrap(), written);
        assert!(rewritten("no tables", &BTreeMap::new(), &[]).is_err());
    }
}
