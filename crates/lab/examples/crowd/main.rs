//! The cost of keeping a crowd informed of its places: sockets, event streams and polls compared.
//!
//! ```text
//! boxoffice-services cargo run --release --example crowd -- --waiters 10000,100000
//! ```
//!
//! Starts server processes on the services' PostgreSQL and Redis, and joins the waiters to one concert that promotes some
//! every second. Client processes connect them: the files of a process and the ports of an address are limited, and
//! pollers share their connections. For `--seconds` it measures the servers' CPU, their memory for each socket, bytes and
//! requests, and their statements and Redis commands. Clients use plain HTTP and only count, so that they take little of
//! the machine that they share with the servers.

mod client;
#[path = "../shared/process.rs"]
mod process;
mod servers;

use anyhow::{Context, Result, bail};
use clap::Parser;
use comfy_table::Table;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::time::sleep;

use servers::{Servers, Usage};

/// How the waiters learn their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Via {
    Socket,
    Stream,
    /// Every second.
    Poll1,
    /// Every ten seconds.
    Poll10,
    /// An empty answer every ten seconds: the cost of polling alone.
    Empty10,
}

impl Via {
    fn shown(self) -> &'static str {
        match self {
            Self::Socket => "WebSocket",
            Self::Stream => "SSE",
            Self::Poll1 => "polls every 1 s",
            Self::Poll10 => "polls every 10 s",
            Self::Empty10 => "an empty answer every 10 s",
        }
    }

    /// Seconds between two polls; `None`: the server pushes.
    pub(crate) fn every_s(self) -> Option<u64> {
        match self {
            Self::Socket | Self::Stream => None,
            Self::Poll1 => Some(1),
            Self::Poll10 | Self::Empty10 => Some(10),
        }
    }
}

#[derive(Parser)]
struct Options {
    /// Sizes of the crowd, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000")]
    waiters: Vec<usize>,
    #[arg(long, value_delimiter = ',', value_enum, default_value = "socket,stream,poll1,poll10")]
    via: Vec<Via>,
    /// Server processes. Default: as many as the connections need files, at least two; one for polls.
    #[arg(long)]
    instances: Option<usize>,
    /// The most connections of one process.
    #[arg(long, default_value_t = 17_000)]
    per_process: usize,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Promotions a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Backend of the rooms' logs: `store` or `redis`.
    #[arg(long, default_value = "redis")]
    queue: String,
    /// The task of a client process; used internally.
    #[arg(long, hide = true)]
    client: Option<String>,
}

/// The counters of one client process during the measurement.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) open: u64,
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
}

impl Counted {
    fn add(&mut self, other: Self) {
        self.open += other.open;
        self.bytes += other.bytes;
        self.messages += other.messages;
        self.requests += other.requests;
        self.failed += other.failed;
    }
}

fn main() -> Result<()> {
    if process::is_server() {
        return tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(process::serve());
    }
    boxoffice_app::crypto::install();
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    match &options.client {
        Some(task) => runtime.block_on(client::run(serde_json::from_str(task)?)),
        None => runtime.block_on(measure_all(&options)),
    }
}

async fn measure_all(options: &Options) -> Result<()> {
    let mut table = Table::new();
    table.set_header([
        "waiters",
        "informed by",
        "servers",
        "CPU, cores",
        "KiB/socket",
        "bytes/s each",
        "messages/s",
        "requests/s",
        "store calls/s",
        "failed",
    ]);
    for &waiters in &options.waiters {
        for &via in &options.via {
            let row = measure(options, waiters, via).await.with_context(|| format!("{waiters} waiters by {}", via.shown()))?;
            eprintln!("{}", row.join(" | "));
            table.add_row(row);
        }
    }
    println!("{table}");
    Ok(())
}

async fn measure(options: &Options, waiters: usize, via: Via) -> Result<Vec<String>> {
    let (processes, least) = match via.every_s() {
        None => (waiters.div_ceil(options.per_process).max(1), 2),
        Some(_) => (1, 1),
    };
    let instances = options.instances.unwrap_or(processes.max(least));
    let servers = Servers::start(instances, &options.queue, options.rate).await?;
    let crowd = client::Crowd::join(&servers, waiters, processes, via).await?;
    let alone = servers.usage()?;
    let mut crowd = crowd.connect().await?;
    // Connecting is not part of the measurement.
    sleep(Duration::from_secs(8)).await;
    let calls = servers.store_calls().await?;
    crowd.begin().await?;
    let (before, began) = (servers.usage()?, Instant::now());
    sleep(Duration::from_secs(options.seconds)).await;
    let (after, took) = (servers.usage()?, began.elapsed().as_secs_f64());
    let counted = crowd.end().await?;
    let calls = (servers.store_calls().await? - calls) / began.elapsed().as_secs_f64();
    if counted.open == 0 && via.every_s().is_none() {
        bail!("no waiter is connected: {counted:?}");
    }
    servers.stop().await?;
    let per_socket = (after.memory_kib - alone.memory_kib) / counted.open.max(1) as f64;
    let Usage { cpu_s, .. } = before;
    Ok(vec![
        waiters.to_string(),
        via.shown().to_owned(),
        instances.to_string(),
        format!("{:.2}", (after.cpu_s - cpu_s) / took),
        if via.every_s().is_some() { "-".to_owned() } else { format!("{per_socket:.1}") },
        format!("{:.1}", counted.bytes as f64 / took / waiters as f64),
        format!("{:.0}", counted.messages as f64 / took),
        format!("{:.0}", counted.requests as f64 / took),
        format!("{calls:.0}"),
        counted.failed.to_string(),
    ])
}
