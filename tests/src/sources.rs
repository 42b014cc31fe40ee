//! The sources of the repository, and the tests that are in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Folders with Rust sources.
const FOLDERS: [&str; 3] = ["crates", "deploy", "tests"];

/// Files whose macros make tests of functions that have no attribute themselves: they list the cases, one word each,
/// with or without the module.
const SUITES: [&str; 5] = [
    "crates/ports/src/contract/",
    "tests/tests/e2e/contention/",
    "tests/tests/e2e/brokers/",
    "tests/tests/e2e/hangs/",
    "tests/tests/e2e/commands.rs",
];

/// One test, or one case of a suite, which runs once for each adapter or strategy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    pub module: String,
    pub name: String,
    /// Its doc comment.
    pub doc: String,
}

impl Test {
    /// The module and the name, as documents write it.
    pub fn path(&self) -> String {
        format!("{}::{}", self.module, self.name)
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Rust sources, by their paths from the root.
pub fn sources() -> io::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for folder in FOLDERS {
        walk(folder, &mut all)?;
    }
    Ok(all)
}

fn walk(folder: &str, into: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(root().join(folder))? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            walk(&path, into)?;
        } else if path.ends_with(".rs") {
            into.insert(path, fs::read_to_string(entry.path())?);
        }
    }
    Ok(())
}

/// `crates/domain/src/decide/tests/holds.rs` is `domain::decide::holds`; `tests/tests/e2e/booking.rs` is `e2e::booking`.
pub fn module_of(path: &str) -> String {
    let segments = path.trim_end_matches(".rs").split('/').skip(1);
    let segments: Vec<_> = segments.filter(|segment| !["src", "tests", "mod", "lib", "main"].contains(segment)).collect();
    segments.join("::")
}

/// The functions of a source that are tests: those with an attribute, and those of a suite that are `listed` as cases.
pub fn tests_of(path: &str, text: &str, listed: &BTreeSet<&str>) -> Vec<Test> {
    let module = module_of(path);
    let (mut found, mut marked, mut doc) = (Vec::new(), false, String::new());
    for line in text.lines().map(str::trim) {
        let shared = line.starts_with("pub async fn ") || line.starts_with("pub(super) async fn ");
        let is_case = shared && SUITES.iter().any(|suite| path.starts_with(suite));
        if let Some(comment) = line.strip_prefix("///") {
            doc.push_str(comment);
        } else if let Some(name) = function_named(line) {
            // Not the pattern in a macro, nor a helper with the name of a word beside the cases.
            let is_test = if marked { !name.starts_with('$') } else { is_case && name.contains('_') && listed.contains(name) };
            if is_test {
                found.push(Test { module: module.clone(), name: name.to_owned(), doc: std::mem::take(&mut doc) });
            }
            (marked, doc) = (false, String::new());
        } else if line.starts_with("#[") {
            marked |= line.contains("test") && !line.contains("cfg");
        } else {
            doc.clear();
        }
    }
    found
}

fn function_named(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(super) ")).unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// All tests, in the order of their sources.
pub fn all_tests(sources: &BTreeMap<String, String>) -> Vec<Test> {
    let is_suite =
        |path: &str| SUITES.iter().any(|suite| path.starts_with(suite) || suite.trim_end_matches('/') == path.trim_end_matches(".rs"));
    let lists_cases = |text: &str| text.contains("macro_rules!") || text.contains("through_each_log! {");
    let macros = sources.iter().filter(|(path, text)| is_suite(path) && lists_cases(text));
    let words = macros.flat_map(|(_, text)| text.lines().flat_map(str::split_whitespace));
    let listed: BTreeSet<_> = words.map(|word| word.rsplit("::").next().unwrap_or(word)).collect();
    sources.iter().flat_map(|(path, text)| tests_of(path, text, &listed)).collect()
}
