//! A server as a process that cannot outlive this one.
//!
//! Between the two is a shell, the guard: it starts the server and then reads its standard input, a pipe from this
//! process. When this process ends, in any way, the pipe closes, and the guard kills the server and removes its folder.

use anyhow::{Context, Result, bail};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// Below the range from which the system gives ports to connections: one of those could take the port of a server that
/// is down.
const PORTS: Range<u16> = 20_000..32_000;
/// After so many tries no port counts as free.
const PORT_TRIES: usize = 1_000;

/// How many lines of a log an error quotes.
const QUOTED: usize = 10;

/// Arguments: folder, then the server's command. A line on standard input kills the server and leaves its folder; the
/// end of it removes the folder too.
const GUARD: &str = r#"
trap '' INT TERM HUP
folder=$1; shift
"$@" >>"$folder/log" 2>&1 &
pid=$!
echo "$pid"
if read -r _; then kill -9 "$pid"; wait "$pid"; exit 0; fi
kill -9 "$pid"; wait "$pid"
for _ in 1 2 3 4 5; do rm -rf "$folder" && break; sleep 0.2; done
"#;

pub(crate) struct Guarded {
    shell: Child,
    pid: u32,
}

impl Guarded {
    /// Starts `command` with its output appended to `folder/log`. The folder is removed when the guard ends.
    pub(crate) fn start(folder: &Path, command: &[String]) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "sh"]).arg(folder).args(command);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("a shell")?;
        let mut line = String::new();
        BufReader::new(shell.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let pid = line.trim().parse().with_context(|| format!("{command:?} was not started"))?;
        Ok(Self { shell, pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// `kill -9`; the folder stays. Its children are not killed: they notice by themselves, or see [`Guarded::signal`].
    pub(crate) fn kill(mut self) -> Result<()> {
        // If the write fails, the guard has ended, and the server with it.
        let _ = self.shell.stdin.take().map(|mut stdin| stdin.write_all(b"kill\n"));
        self.shell.wait()?;
        Ok(())
    }

    /// Whether the server has not ended by itself.
    pub(crate) fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The state follows the name, which may contain anything. The guard does not reap a dead server at once.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    /// Sends a signal to the server and to its children.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        // A child may have ended; the server itself must be there.
        let script = format!("for child in {children}; do kill -{signal} $child 2>/dev/null; done; kill -{signal} {pid}");
        let status = Command::new("sh").args(["-c", &script]).status()?;
        if status.success() { Ok(()) } else { bail!("SIG{signal} could not be sent to process {pid}") }
    }
}

/// A port that was free when this looked.
pub(crate) fn free_port() -> Result<u16> {
    free_ports(1)?.pop().context("no port")
}

/// Different ports that were free when this looked.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..PORT_TRIES {
        if taken.len() == count {
            break;
        }
        let port = PORTS.start + u16::try_from(random() % u64::from(PORTS.end - PORTS.start))?;
        taken.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    if taken.len() < count {
        bail!("no port is free between {} and {}", PORTS.start, PORTS.end);
    }
    taken.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// A number that differs from run to run.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A temporary folder, which the guard of its server removes.
pub(crate) fn folder(prefix: &str) -> Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix(prefix).tempdir()?.keep())
}

/// A server's log since [`new_log`], or since its first start.
pub(crate) fn log(folder: &Path) -> String {
    let bytes = std::fs::read(folder.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Removes a server's log, or the line that says it is ready would be that of the start before.
pub(crate) fn new_log(folder: &Path) -> Result<()> {
    let log = folder.join("log");
    if log.exists() { std::fs::remove_file(&log).with_context(|| log.display().to_string()) } else { Ok(()) }
}

/// Waits until `ready` returns true.
pub(crate) fn wait_until(what: &str, folder: &Path, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        if Instant::now() > deadline {
            bail!("timed out after {} s waiting for {what}: {:?}", PATIENCE.as_secs(), last_lines(folder));
        }
        sleep(POLL);
    }
    Ok(())
}

/// Waits until `ready` returns true; an error when one of the servers ends before.
pub(crate) fn wait_while_running(what: &str, servers: &[(&Guarded, &Path)], mut ready: impl FnMut() -> bool) -> Result<()> {
    let ended = || servers.iter().find(|(server, _)| !server.is_running());
    let first = servers.first().context("no server")?.1;
    wait_until(what, first, || ended().is_some() || ready())?;
    match ended() {
        Some((_, folder)) => bail!("{what} did not start: {:?}", last_lines(folder)),
        None => Ok(()),
    }
}

/// The last lines of a log, in the order they were written.
fn last_lines(folder: &Path) -> Vec<String> {
    let log = log(folder);
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(QUOTED)..].iter().map(|line| (*line).to_owned()).collect()
}

/// Runs a command to its end; its standard output, or its standard error as an error.
pub(crate) fn run(command: &[String]) -> Result<String> {
    let (program, arguments) = command.split_first().context("no command")?;
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().with_context(|| program.clone())?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
