//! The speed of the embedded default on this machine, with the clients on the same machine.
//!
//! ```sh
//! cargo run --release --example benchmark
//! ```
//!
//! or a part of it: `-- rest`, `-- wallet`, `-- seats`, `-- overload`, `-- sweep`.
//!
//! The server runs as a process of its own on a temporary file; the clients are plain keep-alive connections. Seeding
//! and warm-up are not measured, figures are medians of several windows, and ratios compare figures of one run. It prints
//! figures and asserts nothing.

mod client;
mod overload;
#[path = "../shared/process.rs"]
mod process;
mod server;
mod sweep;

use std::time::{Duration, Instant};

use anyhow::Result;
use client::{CONNECTIONS, Connection, measure};
use server::Server;

#[tokio::main]
async fn main() -> Result<()> {
    if process::is_server() {
        return process::serve().await;
    }
    let part = std::env::args().nth(1);
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    println!("{}", machine());
    if wanted("rest") {
        at_rest().await?;
    }
    if wanted("wallet") {
        let empty = empty_handler().await?;
        let batched = wallet("one commit a batch", &[], empty).await?;
        let single = wallet("one commit a command (strategy.batch_max = 1)", &["strategy.batch_max=1"], empty).await?;
        println!("  ratio: {:.1} times one commit a command", batched / single);
    }
    if wanted("seats") {
        seat_map().await?;
    }
    if wanted("overload") {
        overload::run().await?;
    }
    if wanted("sweep") {
        sweep::run().await?;
    }
    Ok(())
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (cpu, memory) = (field(&read("/proc/cpuinfo"), "model name"), field(&read("/proc/meminfo"), "MemTotal"));
    format!("boxoffice {} on {cores} cores ({cpu}), {memory}, client and server together", env!("CARGO_PKG_VERSION"))
}

async fn at_rest() -> Result<()> {
    let server = Server::start(&[]).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("memory at rest, demo season loaded: {:.1} MiB", server.memory_mib()?);
    Ok(())
}

/// The rate of the server's cheapest answer: the cost of HTTP alone.
async fn empty_handler() -> Result<f64> {
    let server = Server::start(&[]).await?;
    let request = format!("GET /health/live HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    let rate = measure(&server.address, move |_, _| request.clone().into_bytes()).await?.rate;
    println!("GET /health/live, {CONNECTIONS} connections: {rate:.0} a second (an empty handler)");
    Ok(rate)
}

/// Charges of one wallet; returns the rate.
async fn wallet(what: &str, set: &[&str], empty: f64) -> Result<f64> {
    let server = Server::start(set).await?;
    let charge = server.charge(&server.user(false).await?.1);
    let before = server.counters().await?;
    let result = measure(&server.address, charge).await?;
    let after = server.counters().await?;
    println!("POST /wallet/charges, one wallet, {CONNECTIONS} connections, {what}:");
    println!(
        "  {:.0} a second ({:.0} % of the empty handler), p50 {:.1} ms, p99 {:.1} ms, {:.1} commands a commit, {:.1} MiB",
        result.rate,
        100.0 * result.rate / empty,
        result.p50_ms,
        result.p99_ms,
        (after.commands - before.commands) / (after.batches - before.batches).max(1.0),
        server.memory_mib()?,
    );
    Ok(result.rate)
}

/// Time to the first byte of a map of 20,000 seats.
async fn seat_map() -> Result<()> {
    const ROUNDS: usize = 200;
    let server = Server::start(&["hold.ttl_s=600"]).await?;
    let turn = server.turn_for_a_hall(20_000).await?;
    let mut connection = Connection::open(&server.address).await?;
    let head = format!("Host: {}\r\nAuthorization: Bearer {}\r\nQueue-Token: {}\r\n", server.address, turn.token, turn.queue_token);
    let map = |extra: &str| format!("GET /api/v1/dates/{}/seats HTTP/1.1\r\n{head}{extra}\r\n", turn.date).into_bytes();
    println!("GET /dates/{{id}}/seats, 20,000 seats, time to first byte, median and p99 of {ROUNDS}:");
    for (what, extra, changed) in [
        ("unchanged map", "", false),
        ("unchanged map, gzip", "Accept-Encoding: gzip\r\n", false),
        ("map that has just changed", "", true),
        ("map that has just changed, gzip", "Accept-Encoding: gzip\r\n", true),
    ] {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for round in 0..ROUNDS {
            if changed {
                server.hold_and_release(&turn, round as u32 + 1).await?;
            }
            let started = Instant::now();
            let answer = connection.send(&map(extra)).await?;
            times.push((answer.first_byte - started).as_secs_f64() * 1_000.0);
            bytes = answer.body.len();
        }
        times.sort_by(f64::total_cmp);
        println!("  {what}: {:.2} ms, {:.2} ms ({bytes} bytes)", times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
    }
    let etag = connection.send(&map("")).await?.header("etag").unwrap_or_default();
    let started = Instant::now();
    let answer = connection.send(&map(&format!("If-None-Match: {etag}\r\n"))).await?;
    println!("  If-None-Match: {} in {:.2} ms", answer.status, (answer.first_byte - started).as_secs_f64() * 1_000.0);
    Ok(())
}
