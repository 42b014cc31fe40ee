//! What the operating system counts of processes: processor time and peak memory, read from `/proc`.
//!
//! A figure that cannot be read, on another system or without permission, is `None` and shown as a dash: never a guess.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Ticks a second in which Linux reports processor time to programs, on every architecture this server runs on.
const TICKS_PER_SECOND: f64 = 100.0;
const KIB_PER_MIB: f64 = 1_024.0;
/// In `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Processor time of this process, seconds, in all its threads.
pub(super) fn own_cpu_s() -> Option<f64> {
    let stat = Stat::read("self")?;
    Some(stat.own_ticks as f64 / TICKS_PER_SECOND)
}

/// Resets the peak; returns whether that was permitted.
pub(super) fn reset_own_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Peak resident memory of this process since the last reset.
pub(super) fn own_peak_mib() -> Option<f64> {
    let kib: f64 = field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")?.split_whitespace().next()?.parse().ok()?;
    Some(kib / KIB_PER_MIB)
}

/// Processor time of the servers that listen on these ports of this machine, with all their children, also those that
/// have ended. `None` when one of them cannot be found.
pub(super) fn servers_cpu_s(ports: &[u16]) -> Option<f64> {
    if ports.is_empty() {
        return None;
    }
    let processes = processes();
    let mut ticks = 0;
    for &port in ports {
        let root = listener(port, &processes)?;
        ticks += processes.get(&root)?.all_ticks;
        ticks += children_of(root, &processes).iter().filter_map(|id| processes.get(id)).map(|stat| stat.all_ticks).sum::<u64>();
    }
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// Resident memory of the servers that listen on these ports of this machine, with all their children.
pub(super) fn servers_memory_mib(ports: &[u16]) -> Option<f64> {
    if ports.is_empty() {
        return None;
    }
    let processes = processes();
    let mut kib = 0.0;
    for &port in ports {
        let root = listener(port, &processes)?;
        for id in children_of(root, &processes).into_iter().chain([root]) {
            // A child may have ended meanwhile.
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let resident = field(&status, "VmRSS").and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
            kib += resident.unwrap_or_default();
        }
    }
    Some(kib / KIB_PER_MIB)
}

/// The processor's name and the memory of this machine.
pub(super) fn machine() -> (Option<String>, Option<f64>) {
    let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| field(&text, "model name").map(str::to_owned));
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kib: f64 = field(&text, "MemTotal")?.split_whitespace().next()?.parse().ok()?;
        Some(kib / KIB_PER_MIB)
    });
    (cpu, memory)
}

/// `name: value` or `name\t: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()))
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// In user and kernel mode.
    own_ticks: u64,
    /// The same, plus those of every child that has ended and was waited for.
    all_ticks: u64,
}

impl Stat {
    fn read(process: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// proc(5), `/proc/pid/stat`. The second field is a name in parentheses that may hold spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // What follows the name begins with the third field.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let own_ticks = number(14)? + number(15)?;
        Some(Self { parent: u32::try_from(number(4)?).ok()?, own_ticks, all_ticks: own_ticks + number(16)? + number(17)? })
    }
}

fn processes() -> HashMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| Some((id, Stat::read(&id.to_string())?))).collect()
}

fn children_of(root: u32, processes: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(processes.iter().filter(|(_, stat)| stat.parent == parent).map(|(id, _)| *id));
        at += 1;
    }
    found.split_off(1)
}

/// The process that listens on a port: of several that share the socket the oldest, whose children the others are.
fn listener(port: u16, processes: &HashMap<u32, Stat>) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let sockets: Vec<String> = tables.iter().flat_map(|table| listening(table, port)).map(|inode| format!("socket:[{inode}]")).collect();
    let holds = |id: &u32| {
        let Ok(open) = fs::read_dir(Path::new("/proc").join(id.to_string()).join("fd")) else { return false };
        let names = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        names.filter_map(|name| name.to_str().map(str::to_owned)).any(|name| sockets.contains(&name))
    };
    processes.keys().copied().filter(holds).min()
}

/// The inodes of a table's sockets that listen on a port.
fn listening(table: &str, port: u16) -> Vec<&str> {
    let port = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && row[1].ends_with(&port) && row[3] == LISTENING).map(|row| row[9]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_past_an_odd_name() {
        let stat = Stat::parse("12 (a b) c) S 7 12 12 0 -1 4194304 1 2 3 4 50 25 8 2 20 0 1 0 100 0 0").unwrap();
        assert_eq!(stat, Stat { parent: 7, own_ticks: 75, all_ticks: 85 });
        assert_eq!(Stat::parse("12 (short) S 7"), None);
    }

    #[test]
    fn only_listening_sockets_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   100        0 4711 1 x\n\
             1: 0100007F:1538 0100007F:9C40 01 00000000:00000000 00:00000000 00000000   100        0 4712 1 x\n\
             2: 0100007F:1539 00000000:0000 0A 00000000:00000000 00:00000000 00000000   100        0 4713 1 x";
        assert_eq!(listening(table, 0x1538), ["4711"]);
        assert!(listening(table, 80).is_empty());
    }

    #[test]
    fn descendants_are_found_whatever_their_order() {
        let stat = |parent| Stat { parent, own_ticks: 0, all_ticks: 0 };
        let processes = HashMap::from([(5, stat(1)), (6, stat(9)), (9, stat(5)), (7, stat(5)), (8, stat(2))]);
        let mut found = children_of(5, &processes);
        found.sort_unstable();
        assert_eq!(found, [6, 7, 9]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_listener_of_this_process_is_found_with_its_time() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(listener(port, &processes()), Some(std::process::id()));
        assert!(servers_memory_mib(&[port]) > Some(1.0), "{:?}", servers_memory_mib(&[port]));
        assert!(servers_cpu_s(&[port]).is_some() && own_cpu_s().is_some() && own_peak_mib() > Some(1.0));
        drop(socket);
        assert_eq!(servers_cpu_s(&[port]), None, "the listener is closed");
        assert_eq!((servers_cpu_s(&[]), servers_memory_mib(&[]), servers_memory_mib(&[port])), (None, None, None));
    }
}
