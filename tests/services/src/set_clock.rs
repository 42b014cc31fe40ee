//! A clock that can be set while a process runs: by libfaketime, which replaces the library calls that read the time.
//! Only the time of day is moved, as when a machine's clock is set; monotonic time goes on.

use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The environment variable for the library's path, if it is not where packages put it.
const LIBRARY_VARIABLE: &str = "BOXOFFICE_FAKETIME";
const PLACES: [&str; 2] = ["/usr/lib", "/usr/lib64"];
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The clock of every process that is started with [`SetClock::environment`].
pub struct SetClock {
    library: PathBuf,
    folder: TempDir,
}

impl SetClock {
    /// One that agrees with the machine's.
    pub fn start() -> Result<Self> {
        let clock = Self { library: find()?, folder: tempfile::tempdir()? };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds ahead of the machine's, or behind.
    pub fn set(&self, ahead_s: i64) -> Result<()> {
        // Replaced as a whole: a process may read the file at any moment.
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, format!("{ahead_s:+}\n"))?;
        Ok(fs::rename(fresh, self.file())?)
    }

    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let always = ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC", "FAKETIME_DISABLE_SHM"];
        let own = [("LD_PRELOAD", self.library.clone()), ("FAKETIME_TIMESTAMP_FILE", self.file())];
        own.into_iter().chain(always.map(|name| (name, PathBuf::from("1")))).collect()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ahead")
    }
}

fn find() -> Result<PathBuf> {
    if let Some(library) = env::var_os(LIBRARY_VARIABLE).map(PathBuf::from) {
        ensure!(library.exists(), "{LIBRARY_VARIABLE}: {} does not exist", library.display());
        return Ok(library);
    }
    let within = |place: &Path| {
        let folders = fs::read_dir(place).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        [place.to_owned()].into_iter().chain(folders).map(|folder| folder.join(LIBRARY)).find(|library| library.exists())
    };
    let found = PLACES.iter().find_map(|place| within(Path::new(place)));
    found.with_context(|| format!("libfaketime is missing: `apt-get install libfaketime`, or set {LIBRARY_VARIABLE} to its library"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn a_process_that_is_started_with_it_reads_the_time_it_was_set_to() {
        let clock = SetClock::start().expect("libfaketime is there");
        let reads = || {
            let output = Command::new("date").arg("+%s").envs(clock.environment()).output().expect("date runs");
            let read: i64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            read - i64::try_from(now).expect("a time")
        };
        let is = |ahead_s: i64| (ahead_s - 60..ahead_s + 60).contains(&reads());
        assert!(is(0));
        clock.set(3_600).expect("it is set");
        assert!(is(3_600));
        clock.set(-86_400).expect("it is set");
        assert!(is(-86_400));
    }
}
