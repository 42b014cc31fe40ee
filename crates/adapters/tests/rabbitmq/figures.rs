//! Throughput, printed and not asserted.

use std::time::Instant;

use boxoffice_ports::CommandLog;
use boxoffice_ports::contract::build::user;
use tokio::task::JoinSet;

use super::support::{command, new_name, open, shared};

#[tokio::test(flavor = "multi_thread")]
async fn thirty_thousand_commands_are_appended_and_taken() {
    const COMMANDS: i64 = 30_000;
    for (callers, users) in [(100, 1_000), (1_000, 1_000), (1_000, 1)] {
        let (url, name) = (shared().await.url(), new_name());
        let log = open(&url, &name);
        log.ping().await.expect("it answers");
        let users: Vec<_> = (0..users).map(|_| user()).collect();
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let (log, users) = (log.clone(), users.clone());
            tasks.spawn(async move {
                for nth in 0..COMMANDS / callers {
                    let of = users[(caller + nth) as usize % users.len()];
                    log.append(command(of, 1 + caller * COMMANDS + nth)).await.expect("appended");
                }
            });
        }
        tasks.join_all().await;
        let appended = start.elapsed();
        let start = Instant::now();
        let (sender, mut counts) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for mut reader in log.readers().await.expect("readers") {
            let sender = sender.clone();
            tasks.spawn(async move {
                loop {
                    let batch = reader.take(500).await;
                    reader.acknowledge(usize::MAX).await.expect("acknowledged");
                    let _ = sender.send(batch.len());
                }
            });
        }
        let (mut taken, mut batches) = (0, 0);
        while taken < COMMANDS as usize {
            taken += counts.recv().await.expect("readers");
            batches += 1;
        }
        let read = start.elapsed();
        let per_second = |time: std::time::Duration| (COMMANDS as f64 / time.as_secs_f64()).round();
        println!(
            "{callers} callers, {} wallets: {} appends/s, {} taken/s in batches of {}",
            users.len(),
            per_second(appended),
            per_second(read),
            taken / batches
        );
    }
}
