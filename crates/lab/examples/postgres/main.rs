//! The speed of the default strategy on PostgreSQL on this machine, in process and over HTTP, compared with `pgbench`.
//!
//! ```sh
//! cargo run --release --example postgres
//! ```
//!
//! or a part of it: `-- wallet`, `-- http`, `-- holds`, `-- payments`, `-- growth`.
//!
//! It starts a cluster of its own with durable commits. `pgbench` runs the same statements one transaction at a time,
//! from 64 clients: it locks, updates and inserts the same rows. Seeding and warm-up are not measured; figures are
//! medians of three windows, and compared figures were measured alternately in one run. It prints figures and asserts
//! nothing.

#[allow(dead_code, reason = "the other benchmark uses all of it")]
#[path = "../benchmark/client.rs"]
mod client;
mod cpu;
mod load;
mod pgbench;
#[path = "../shared/process.rs"]
mod process;
mod seed;
#[allow(dead_code, reason = "the other benchmark uses all of it")]
#[path = "../benchmark/server.rs"]
mod server;

use anyhow::Result;
use boxoffice_adapters::clock::SystemClock;
use boxoffice_adapters::postgres::{PostgresOptions, PostgresStore, migrate};
use boxoffice_domain::Policy;
use boxoffice_engine::{Combining, CombiningSettings, Stats, Supervisor};
use boxoffice_ports::Traffic;
use boxoffice_services::Postgres;
use load::{Measured, Work, measure};
use pgbench::{Script, pgbench};
use seed::Shop;
use std::sync::Arc;

const CALLERS: [usize; 3] = [64, 256, 1_000];
const WINDOWS: usize = 3;
const BATCH_MAX: usize = 500;
const QUEUE_MAX: usize = 8_192;
/// The number of stored rows when growth is measured.
const GROWN_REPLIES: u32 = 5_000_000;
const GROWN_RESERVATIONS: u32 = 1_000_000;

#[tokio::main]
async fn main() -> Result<()> {
    if process::is_server() {
        return process::serve().await;
    }
    let part = std::env::args().nth(1);
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    let cluster = Postgres::start_durable()?;
    let bench = Bench::new(&cluster).await?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{} on {cores} cores, clients and server together",
        cluster.sql("SELECT 'PostgreSQL ' || current_setting('server_version')")?.trim()
    );
    if wanted("wallet") {
        bench.compare("charges of one wallet", 1, Work::Charge, Script::Charge).await?;
    }
    if wanted("http") {
        bench.over_http().await?;
    }
    if wanted("holds") {
        bench.compare("holds of one seat", 2, Work::Hold, Script::Hold).await?;
    }
    if wanted("payments") {
        bench.compare("hold and pay, one seat each", 2, Work::HoldAndPay, Script::HoldAndPay).await?;
    }
    if wanted("growth") {
        bench.grow()?;
        let stored = format!("with {GROWN_REPLIES} replies and {GROWN_RESERVATIONS} reservations stored");
        bench.compare(&format!("charges of one wallet {stored}"), 1, Work::Charge, Script::Charge).await?;
        bench.compare(&format!("holds of one seat {stored}"), 2, Work::Hold, Script::Hold).await?;
    }
    Ok(())
}

struct Bench<'a> {
    cluster: &'a Postgres,
    url: String,
    shop: Arc<Shop>,
}

impl<'a> Bench<'a> {
    async fn new(cluster: &'a Postgres) -> Result<Self> {
        let url = cluster.database()?;
        migrate(&url)?;
        let shop = Arc::new(Shop::seed(cluster, &url)?);
        Ok(Self { cluster, url, shop })
    }

    async fn combining(&self, lanes: usize) -> Result<Arc<Combining>> {
        let options = PostgresOptions { url: self.url.clone(), connections: 4, lanes, traffic: Arc::new(Traffic::default()) };
        let store = PostgresStore::open(options, Arc::new(SystemClock::default())).await?;
        let policy = Policy {
            hold_ttl_s: 300,
            extensions_max: 1,
            max_seats_per_user: 4,
            amount_max: 10_000_000,
            balance_max: i64::MAX / 2,
            reward_percent: 5,
            idempotency_ttl_s: 86_400,
        };
        let settings = CombiningSettings { lanes, batch_max: BATCH_MAX, queue_max: QUEUE_MAX };
        Ok(Combining::start(store, Arc::new(policy), settings, Arc::new(Stats::default()), &*Supervisor::new()))
    }

    /// The same work by `combining` and by `pgbench`, alternately.
    async fn compare(&self, what: &str, lanes: usize, work: Work, script: Script) -> Result<()> {
        let executor = self.combining(lanes).await?;
        let mut single = Vec::new();
        let mut combined: Vec<Vec<Measured>> = CALLERS.map(|_| Vec::new()).into();
        for _ in 0..WINDOWS {
            single.push(pgbench(self.cluster, &self.url, script, &self.shop)?);
            for (at, callers) in CALLERS.into_iter().enumerate() {
                combined[at].push(measure(executor.clone(), work, self.shop.clone(), callers, self.cluster.pid()?).await?);
            }
        }
        let single = median(single);
        println!("{what}: pgbench, 64 clients: {single:.0} a second");
        for (callers, mut windows) in CALLERS.into_iter().zip(combined) {
            windows.sort_by(|a, b| a.rate.total_cmp(&b.rate));
            let Measured { rate, client_us, server_us } = windows[windows.len() / 2];
            println!(
                "  {lanes} lane(s), {callers} callers: {rate:.0} a second, {:.1} times pgbench; CPU {client_us:.1} us here, \
                 {server_us:.1} us in the server each",
                rate / single
            );
        }
        Ok(())
    }

    /// Charges of one wallet through a server of its own, alternately with `pgbench`.
    async fn over_http(&self) -> Result<()> {
        let database = format!("store.postgres_url={}", self.url);
        let server = server::Server::start(&["store.backend=postgres", &database]).await?;
        let charge = server.charge(&server.user(false).await?.1);
        let (mut single, mut served) = (Vec::new(), Vec::new());
        for round in 0..WINDOWS {
            single.push(pgbench(self.cluster, &self.url, Script::Charge, &self.shop)?);
            // Each round has keys of its own.
            let (charge, first) = (charge.clone(), (round as u64) << 32);
            served.push(client::measure(&server.address, move |connection, n| charge(connection, first + n)).await?);
        }
        let single = median(single);
        served.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let client::Measured { rate, p50_ms, p99_ms } = served.swap_remove(WINDOWS / 2);
        println!(
            "POST /wallet/charges, one wallet, {} connections: {rate:.0} a second, {:.1} times pgbench ({single:.0});",
            client::CONNECTIONS,
            rate / single
        );
        println!("  p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms");
        Ok(())
    }

    fn grow(&self) -> Result<()> {
        self.shop.grow(self.cluster, &self.url, GROWN_REPLIES, GROWN_RESERVATIONS)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
