//! Ten times more commands than can be served, in process: accepted ones stay fast, and memory does not grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use boxoffice_adapters::clock::{SystemClock, SystemIds};
use boxoffice_adapters::sqlite::{self, SqliteOptions, SqliteStore};
use boxoffice_app::config::Settings;
use boxoffice_domain::UserId;
use boxoffice_engine::{Combining, CombiningSettings, Stats, Supervisor};
use boxoffice_ports::{Deadline, Executor, Ids};
use hdrhistogram::Histogram;
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

use crate::sweep::charge;

const CALLERS: usize = 256;
const WINDOW: Duration = Duration::from_secs(3);

pub(crate) async fn run() -> Result<()> {
    let folder = TempDir::new()?;
    let path = folder.path().join("boxoffice.db");
    sqlite::migrate(&path)?;
    let tasks = Supervisor::new();
    let store = SqliteStore::open(SqliteOptions { path, readers: 2 }, Arc::new(SystemClock::default()), &*tasks)?;
    let settings = Settings::defaults()?;
    let strategy = &settings.strategy;
    let combining = CombiningSettings { lanes: 1, batch_max: strategy.batch_max, queue_max: strategy.queue_max };
    let stats = Arc::new(Stats::default());
    let executor = Combining::start(store.stores().ledger, Arc::new(settings.policy()), combining, stats.clone(), &*tasks);
    let user = UserId(SystemIds.fresh());

    let peak = at_peak(&executor, user, strategy.wait()).await;
    println!("charges of one wallet in process, {CALLERS} callers: {peak:.0} a second");
    let before = resident_mib();
    let flood = flood(&executor, user, peak * 10.0, strategy.wait()).await;
    println!(
        "  ten times that offered for {} s ({:.0} a second): {:.0} accepted a second ({:.0} % of the peak), p99 of the accepted {:.0} ms \
         (wait_ms {}), {} refused, memory {before:.0} to {:.0} MiB",
        WINDOW.as_secs(),
        flood.offered,
        flood.accepted,
        100.0 * flood.accepted / peak,
        flood.p99_ms,
        strategy.wait_ms,
        flood.refused,
        resident_mib(),
    );
    Ok(())
}

async fn at_peak(executor: &Arc<Combining>, user: UserId, wait: Duration) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (executor, count) = (executor.clone(), count.clone());
            tokio::spawn(async move {
                while executor.execute(charge(user), Deadline::after(wait)).await.is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (started, before) = (Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(WINDOW).await;
    let rate = (count.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64();
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    rate
}

struct Flood {
    offered: f64,
    accepted: f64,
    refused: u64,
    p99_ms: f64,
}

/// Offers `rate` commands a second, answered or not.
async fn flood(executor: &Arc<Combining>, user: UserId, rate: f64, wait: Duration) -> Flood {
    let (accepted, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let latencies = Arc::new(Mutex::new(Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).ok()));
    let started = Instant::now();
    let mut offered = 0_u64;
    while started.elapsed() < WINDOW {
        let due = (started.elapsed().as_secs_f64() * rate) as u64;
        while offered < due {
            offered += 1;
            let (executor, accepted, refused, latencies) = (executor.clone(), accepted.clone(), refused.clone(), latencies.clone());
            tokio::spawn(async move {
                let since = Instant::now();
                if executor.execute(charge(user), Deadline::after(wait)).await.is_ok() {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    if let Some(histogram) = latencies.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                        histogram.saturating_record(since.elapsed().as_micros() as u64);
                    }
                } else {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
            if offered.is_multiple_of(256) {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let accepted = accepted.load(Ordering::Relaxed) as f64 / elapsed;
    let p99_ms =
        latencies.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |all| all.value_at_quantile(0.99)) as f64 / 1_000.0;
    Flood { offered: offered as f64 / elapsed, accepted, refused: refused.load(Ordering::Relaxed), p99_ms }
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1_024.0
}
