//! Takes guards away, one at a time, and demands that a test fails: `tests/run mutants [NAME…]`.
//!
//! The guards are listed in `tests/mutants.toml`: a piece of source, its replacement, and the tests that must fail. Each
//! is tried in a copy of the tracked files, so the tree itself is never changed; all share one target folder. First the
//! tests run on the unchanged copy and must pass. Exits with 1 when the tests pass without some guard.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Instant;
use std::{env, fs, str};

use anyhow::{Context, Result, bail, ensure};
use boxoffice_tests::mutants::{Mutant, all};

/// How long a build or a suite may take.
const SECONDS_MAX: &str = "300";

fn main() -> Result<ExitCode> {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let root = repository()?;
    let mutants: Vec<Mutant> =
        all()?.into_iter().filter(|mutant| wanted.is_empty() || wanted.iter().any(|name| mutant.name.contains(name.as_str()))).collect();
    ensure!(!mutants.is_empty(), "no guard's name contains {}", wanted.join(", "));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("mutants");
    let copy = Copy { root: target.join("tree"), target: target.join("build") };
    copy.take(&root)?;

    let mut suites: Vec<&[String]> = mutants.iter().map(|mutant| mutant.test.as_slice()).collect();
    suites.sort_unstable();
    suites.dedup();
    for suite in suites {
        let passed = copy.test(suite)?;
        if !passed.status.success() {
            print_end(&passed);
            bail!("`cargo test {}` fails on the unchanged source", suite.join(" "));
        }
    }
    let mut survivors = Vec::new();
    for mutant in &mutants {
        let began = Instant::now();
        let verdict = copy.try_mutant(mutant)?;
        println!("{:<9} {:<40} {:>4} s  {}", verdict, mutant.name, began.elapsed().as_secs(), mutant.guard);
        if verdict != "caught" {
            survivors.push(mutant.name.as_str());
        }
    }
    println!("{} of {} guards cannot be taken away without a test failing", mutants.len() - survivors.len(), mutants.len());
    Ok(if survivors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn repository() -> Result<PathBuf> {
    let output = Command::new("git").args(["rev-parse", "--show-toplevel"]).output().context("git")?;
    ensure!(output.status.success(), "not in a git repository");
    Ok(PathBuf::from(str::from_utf8(&output.stdout)?.trim()))
}

/// A copy of the tracked files.
struct Copy {
    root: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn take(&self, from: &Path) -> Result<()> {
        let listed = Command::new("git").arg("-C").arg(from).args(["ls-files", "-z"]).output().context("git")?;
        for name in str::from_utf8(&listed.stdout)?.split('\0').filter(|name| !name.is_empty()) {
            let (source, to) = (from.join(name), self.root.join(name));
            // Deleted and not yet committed.
            let Ok(text) = fs::read(&source) else { continue };
            // Unchanged files keep their time, so that cargo does not build them again.
            if fs::read(&to).is_ok_and(|there| there == text) {
                continue;
            }
            fs::create_dir_all(to.parent().context("no folder")?)?;
            fs::write(&to, text).with_context(|| to.display().to_string())?;
        }
        Ok(())
    }

    fn try_mutant(&self, mutant: &Mutant) -> Result<&'static str> {
        let path = self.root.join(&mutant.file);
        let source = fs::read_to_string(&path).with_context(|| mutant.file.clone())?;
        fs::write(&path, mutant.apply(&source)?)?;
        let tried = self.compile(&mutant.test).and_then(|compiled| {
            if !compiled.status.success() {
                print_end(&compiled);
                return Ok("no build");
            }
            Ok(if self.test(&mutant.test)?.status.success() { "SURVIVED" } else { "caught" })
        });
        fs::write(&path, source)?;
        tried
    }

    /// A mutant that does not compile shows nothing about the tests.
    fn compile(&self, test: &[String]) -> Result<Output> {
        // The filter is last, after the arguments that name the binary.
        let (_, binary) = test.split_last().context("no test")?;
        self.cargo(&[&["test".to_owned(), "--no-run".to_owned()], binary].concat())
    }

    fn test(&self, test: &[String]) -> Result<Output> {
        self.cargo(&[&["test".to_owned()], test].concat())
    }

    fn cargo(&self, arguments: &[String]) -> Result<Output> {
        // Without a guard a test may wait for ever: the time limit makes that a failure.
        let mut cargo = Command::new("timeout");
        cargo
            .args(["--kill-after=10", SECONDS_MAX, "cargo"])
            .args(arguments)
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .stdin(Stdio::null());
        cargo.output().context("cargo")
    }
}

fn print_end(output: &Output) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
}
