//! No server outlives the process that started it, even when that is killed.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the servers may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command that the program under test runs: it prints the addresses of the brokers, and waits.
const COMMAND: &str = "echo $BOXOFFICE__KAFKA__BROKERS; echo $BOXOFFICE__RABBITMQ__URL; exec cat";

#[test]
fn all_services_end_with_the_program_that_started_them() {
    let temporary = tempfile::tempdir().expect("a folder");
    // PostgreSQL runs as another user, which must be able to enter the folder.
    std::fs::set_permissions(temporary.path(), PermissionsExt::from_mode(0o755)).expect("permitted");
    let mut starter = Command::new(env!("CARGO_BIN_EXE_boxoffice-services"));
    starter.args(["sh", "-c", COMMAND]).env("TMPDIR", temporary.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut starter = starter.spawn().expect("it starts");
    let mut lines = BufReader::new(starter.stdout.take().expect("output")).lines();
    let brokers = lines.next().expect("a line").expect("brokers");
    let url = lines.next().expect("a line").expect("a URL");
    let rabbitmq = url.strip_prefix("amqp://guest:guest@").and_then(|rest| rest.strip_suffix("/%2f")).expect("a URL");
    for address in [&brokers, rabbitmq] {
        TcpStream::connect(address).expect("it answers");
    }

    let started: HashSet<_> = family(starter.id()).into_iter().chain(marked(temporary.path())).collect();
    // The command and, each with its shell, PostgreSQL, six Redis nodes, Kafka, RabbitMQ.
    assert!(started.len() > 18, "{started:?}");
    starter.kill().expect("killed");
    starter.wait().expect("it ended");
    drop(starter.stdin.take());

    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<_> = started.iter().copied().filter(|&pid| is_alive(pid)).chain(marked(temporary.path())).collect();
        let folders = temporary.path().read_dir().expect("readable").count();
        if left.is_empty() && folders == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "processes {left:?} and {folders} folders are left");
        sleep(Duration::from_millis(10));
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// A process, all that it started, and all that those started.
fn family(pid: u32) -> Vec<u32> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task").read_dir().into_iter().flatten().flatten();
    let children: String = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect();
    children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(family).chain([pid]).collect()
}

/// Processes with the folder in their environment: also those that left the family, as a daemon does.
fn marked(folder: &Path) -> Vec<u32> {
    let folder = folder.as_os_str().as_encoded_bytes();
    let has = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| text.windows(folder.len()).any(|window| window == folder))
    };
    let processes = Path::new("/proc").read_dir().expect("processes").flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).filter(has).filter(|&pid| is_alive(pid)).collect()
}
