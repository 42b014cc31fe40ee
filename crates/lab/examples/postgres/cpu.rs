//! CPU time of this process and of the server, as the kernel counts it: unlike a rate it hardly depends on other load of
//! the machine.

use std::fs;
use std::time::Duration;

/// The kernel counts in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) client: Duration,
    pub(crate) server: Duration,
}

impl Cpu {
    /// The time of this process, and of the server with all of its running processes.
    pub(crate) fn so_far(server: u32) -> Self {
        let own = std::process::id();
        let mut cpu = Self { client: Duration::ZERO, server: Duration::ZERO };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let Some((parent, time)) = of(process) else { continue };
            if process == own {
                cpu.client += time;
            } else if process == server || parent == server {
                cpu.server += time;
            }
        }
        cpu
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { client: self.client.saturating_sub(before.client), server: self.server.saturating_sub(before.server) }
    }
}

/// A process's parent and CPU time.
fn of(process: u32) -> Option<(u32, Duration)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before may contain any character, also blanks.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks: u32 = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some((fields.get(1)?.parse().ok()?, TICK * ticks))
}
