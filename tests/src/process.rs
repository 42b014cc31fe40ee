//! The real binary as a process that can be killed.

use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use boxoffice_adapters::clock::SystemClock;
use boxoffice_services::SetClock;
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, Command};

use crate::person::{Answer, Person, client};
use crate::server::{concert_by, time};
use crate::wait::eventually;

type Output = Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>;

fn lines(of: Option<impl AsyncRead + Send + Unpin + 'static>) -> Result<Output> {
    let boxed: Box<dyn AsyncRead + Send + Unpin> = Box::new(of.context("a stream is missing")?);
    Ok(BufReader::new(boxed).lines())
}

/// A running `boxoffice serve`. Killed when dropped.
pub struct Process {
    child: Child,
    output: Output,
    pub base: String,
    http: Client,
}

impl Process {
    /// The binary that was built with these tests.
    pub fn binary() -> Result<PathBuf> {
        let test = std::env::current_exe()?;
        let built = test.parent().and_then(Path::parent).context("no target folder")?.join("boxoffice");
        if !built.exists() {
            bail!("{} is missing: build it by `cargo build --workspace --all-features`, or by tests/run", built.display());
        }
        Ok(built)
    }

    /// Starts it on `database` and a free port. Returns once it has printed its address.
    pub async fn start(database: &Path, set: &[&str]) -> Result<Self> {
        Self::start_and(database, set, Vec::new(), false).await
    }

    /// The same on a machine whose clock is `clock`.
    pub async fn start_by(clock: &SetClock, database: &Path, set: &[&str]) -> Result<Self> {
        Self::start_and(database, set, clock.environment(), false).await
    }

    /// The same with `events.sink = "log"`: its standard output has the events alone, so it prints its address on
    /// standard error.
    pub async fn start_printing_events(database: &Path, set: &[&str]) -> Result<Self> {
        let set: Vec<_> = ["events.sink=log"].iter().chain(set).copied().collect();
        Self::start_and(database, &set, Vec::new(), true).await
    }

    async fn start_and(database: &Path, set: &[&str], environment: Vec<(&str, PathBuf)>, prints_events: bool) -> Result<Self> {
        let mut command = Command::new(Self::binary()?);
        command.envs(environment);
        command.args(["serve", "--set", "http.listen=127.0.0.1:0", "--set", &format!("store.sqlite_path={}", database.display())]);
        command.args(["--set", "demo.season=false", "--set", "admission.tick_ms=20"]);
        command.args(set.iter().flat_map(|set| ["--set", set]));
        let mut log = tempfile::tempfile()?;
        command.stderr(if prints_events { Stdio::piped() } else { log.try_clone()?.into() });
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let mut output = lines(child.stdout.take())?;
        let mut errors = if prints_events { Some(lines(child.stderr.take())?) } else { None };
        let base = loop {
            let Some(line) = errors.as_mut().unwrap_or(&mut output).next_line().await? else {
                let (status, mut reason) = (child.wait().await?, String::new());
                log.rewind()?;
                log.read_to_string(&mut reason)?;
                bail!("the server ended before it printed its address: {status}\n{reason}")
            };
            if let Some(at) = line.find("open at http://").map(|at| at + "open at ".len()) {
                break line[at..].split_whitespace().next().unwrap_or_default().trim_end_matches('/').to_owned();
            }
        };
        if let Some(mut errors) = errors {
            // A full pipe would block it.
            tokio::spawn(async move { while let Ok(Some(_)) = errors.next_line().await {} });
        }
        Ok(Self { child, output, base, http: client().build()? })
    }

    /// The next line of its standard output; an error once it has ended.
    pub async fn line(&mut self) -> Result<String> {
        self.output.next_line().await?.context("the server ended")
    }

    /// Its resident memory now, in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(self.proc("status")?)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Processor time since it began, all threads together.
    pub fn processor(&self) -> Result<Duration> {
        // In hundredths of a second on every machine (proc(5)).
        const TICK: Duration = Duration::from_millis(10);
        let stat = std::fs::read_to_string(self.proc("stat")?)?;
        let fields: Vec<_> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let ticks: u32 = fields.get(11).context("utime")?.parse::<u32>()? + fields.get(12).context("stime")?.parse::<u32>()?;
        Ok(TICK * ticks)
    }

    fn proc(&self, file: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/{file}", self.child.id().context("the server has ended")?)))
    }

    /// `kill -9`.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// `kill -TERM`; its exit status.
    pub async fn terminate(mut self) -> Result<std::process::ExitStatus> {
        let id = self.child.id().context("the server has ended")?;
        // `kill` is built into the shell; not every machine has it as a program.
        Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await?;
        Ok(self.child.wait().await?)
    }

    pub async fn person(&self, operator: bool) -> Person {
        let body = serde_json::json!({ "name": "a person", "operator": operator });
        Person::registered_as(self.http.clone(), self.base.clone(), body).await
    }

    /// Puts a concert of one date on sale, by the machine's clock, and waits until the server shows it: the ids of both.
    pub async fn one_date(&self, hall: Value) -> (String, String) {
        let clock = SystemClock::default();
        let document = concert_by(|seconds| time(&clock, seconds), "concert", &[hall]);
        let operator = self.person(true).await;
        let made = Answer::to(operator.request(Method::POST, "/admin/concerts").json(&document)).await.expect(201);
        let concert = made.text("id");
        self.shows(&concert).await;
        (concert, made.text("dates/0/id"))
    }

    /// Waits until this instance shows a concert that was imported at another.
    pub async fn shows(&self, concert: &str) {
        let path = format!("{}/api/v1/concerts/{concert}", self.base);
        eventually("the concert shows", async || (Answer::to(self.http.get(&path)).await.status == 200).then_some(())).await;
    }

    /// Runs a command of the binary on the same file, to its end.
    pub async fn run(database: &Path, arguments: &[&str]) -> Result<std::process::Output> {
        let store = format!("store.sqlite_path={}", database.display());
        Ok(Command::new(Self::binary()?).args(arguments).args(["--set", &store]).stdin(Stdio::null()).output().await?)
    }
}
