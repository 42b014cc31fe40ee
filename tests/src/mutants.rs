//! The guards that `tests/run mutants` takes away.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const LIST: &str = include_str!("../mutants.toml");

/// One guard, and the change that takes it away.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    pub name: String,
    /// What holds because of it.
    pub guard: String,
    pub file: String,
    /// Stands exactly once in the file.
    pub find: String,
    pub replace: String,
    /// Arguments of `cargo test`: those that name the binary, then one filter.
    pub test: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// All of them, in the order of the list.
pub fn all() -> Result<Vec<Mutant>> {
    let list: List = toml::from_str(LIST).context("tests/mutants.toml")?;
    Ok(list.mutant)
}

impl Mutant {
    /// The source without the guard.
    pub fn apply(&self, source: &str) -> Result<String> {
        let found = source.matches(&self.find).count();
        ensure!(found == 1, "{}: {:?} stands {found} times in {}", self.name, self.find, self.file);
        Ok(source.replacen(&self.find, &self.replace, 1))
    }
}
