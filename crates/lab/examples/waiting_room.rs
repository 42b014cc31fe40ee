//! A crowd in one waiting room in Redis: its memory, and the time to join, to be ranked and to be promoted; and the time
//! until every poll shows the place of a draw.
//!
//! `cargo run --release --example waiting_room -- --users 1000000 --drawn 200000`
//!
//! It starts a Redis; the ledger is in memory and the server is this process. It prints figures and asserts none.

use anyhow::{Context as _, Result, ensure};
use boxoffice_app::config::{self, Layers};
use boxoffice_app::http::document;
use boxoffice_app::wiring::{self, Running, SystemClock, SystemIds};
use boxoffice_domain::{AdmissionMode, ConcertId, Place, QueueEntryId, QueueStatus};
use boxoffice_ports::{Clock as _, Ids as _, Opening, WaitingRoom as _};
use boxoffice_services::Redis;
use chrono::TimeDelta;
use clap::Parser;
use rand::seq::IndexedRandom as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Concurrent joins.
const CALLERS: u64 = 4_000;
/// Users whose place is read.
const RANKED: usize = 100_000;
/// The longest wait for any step.
const LONG: Duration = Duration::from_secs(1_800);
/// Seconds until the sale of the draw starts.
const START_S: i64 = 3_600;

#[derive(Parser)]
struct Options {
    /// Users that join a concert on sale
    #[arg(long, default_value_t = 1_000_000)]
    users: u64,
    /// Users that join another concert before its sale starts
    #[arg(long, default_value_t = 200_000)]
    drawn: u64,
}

struct Site {
    node: Redis,
    running: Running,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let node = tokio::task::spawn_blocking(Redis::start).await??;
    let set = [
        "http.listen=127.0.0.1:0".to_owned(),
        "store.backend=memory".to_owned(),
        "queue.backend=redis".to_owned(),
        "demo.season=false".to_owned(),
        "admission.stock_linked=false".to_owned(),
        "admission.max_active=1000000".to_owned(),
        format!("redis.urls=[{:?}]", node.url()),
    ];
    let settings = config::load(&Layers { set: set.to_vec(), ..Layers::default() })?;
    let running = wiring::start(settings, Arc::new(SystemClock::default())).await?;
    let site = Site { node, running };
    if options.users > 0 {
        site.crowd(options.users).await?;
    }
    if options.drawn > 0 {
        site.draw(options.drawn).await?;
    }
    site.running.stop().await;
    Ok(())
}

impl Site {
    async fn concert(&self, key: &str, starts_in_s: Option<i64>) -> Result<ConcertId> {
        let starts_at = starts_in_s.map(|s| self.running.clock.now() + TimeDelta::seconds(s));
        let document = serde_json::json!({
            "key": key, "name": key, "venue": "Hall", "sale_starts_at": starts_at,
            "dates": [{"key": "day", "starts_at": "2099-01-02T00:00:00Z", "booking_opens_at": "2020-01-01T00:00:00Z",
                "booking_closes_at": "2099-01-01T00:00:00Z", "seats": [{"from": 1, "to": 1000, "grade": "R", "price": 100}]}]
        });
        let plans = document::parse_file(document.to_string().as_bytes(), 1_000).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
        let admission = self.running.settings.default_admission();
        let concert = self.running.stores.catalog.import(plans, admission).await?[0].id;
        self.running.room.open(Opening { concert, sale_starts_at: starts_at, admission }).await?;
        Ok(concert)
    }

    async fn join(&self, concert: ConcertId, users: u64) -> Result<Vec<QueueEntryId>> {
        let mut callers = JoinSet::new();
        for at in 0..CALLERS {
            let (room, count) = (self.running.room.clone(), users / CALLERS + u64::from(at < users % CALLERS));
            callers.spawn(async move {
                let mut entries = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    let (user, entry) = (SystemIds.fresh().into(), SystemIds.fresh().into());
                    entries.push(room.join(concert, user, None, entry).await?.place.entry);
                }
                Ok::<_, boxoffice_ports::RoomError>(entries)
            });
        }
        let mut entries = Vec::with_capacity(users as usize);
        while let Some(joined) = callers.join_next().await {
            entries.extend(joined??);
        }
        Ok(entries)
    }

    async fn place(&self, concert: ConcertId, entry: QueueEntryId) -> Result<Place> {
        self.running.room.place(concert, entry).await?.context("a user that joined has no place")
    }

    /// Memory of Redis and of this process, bytes.
    async fn weight(&self) -> Result<(u64, u64)> {
        let script = "return tonumber(redis.call('INFO', 'memory'):match('used_memory:(%d+)'))";
        let answer = self.node.command(&["EVAL", script, "0"])?;
        let own = std::fs::read_to_string("/proc/self/statm")?;
        let pages: u64 = own.split(' ').nth(1).context("no resident size")?.parse()?;
        Ok((answer.trim_start_matches(':').parse()?, pages * 4_096))
    }

    async fn crowd(&self, users: u64) -> Result<()> {
        let concert = self.concert("crowd", None).await?;
        let room = &self.running.room;
        let running = room.admission(concert).await?;
        let paused = boxoffice_domain::Admission { mode: AdmissionMode::Paused, ..running };
        ensure!(room.set_admission(concert, running, paused).await?, "the admission was changed concurrently");
        let (before, began) = (self.weight().await?, Instant::now());
        let entries = self.join(concert, users).await?;
        let joined = began.elapsed();
        let after = self.weight().await?;
        println!(
            "{users} joined in {:.1} s, {:.0} a second; {} bytes each in Redis, {} in the server",
            joined.as_secs_f64(),
            users as f64 / joined.as_secs_f64(),
            after.0.saturating_sub(before.0) / users,
            after.1.saturating_sub(before.1) / users
        );
        let some: Vec<_> = entries.choose_multiple(&mut rand::rng(), RANKED.min(entries.len())).copied().collect();
        let began = Instant::now();
        for entry in &some {
            let place = self.place(concert, *entry).await?;
            ensure!(place.ahead == Some(place.arrival - 1), "{place:?}");
        }
        let each = began.elapsed().as_secs_f64() / some.len() as f64;
        println!("{} ranked, one after the other: {:.2} µs each", some.len(), each * 1e6);

        let began = Instant::now();
        ensure!(room.set_admission(concert, paused, running).await?, "the admission was changed concurrently");
        while room.counts(concert).await?.active < users.min(u64::from(running.max_active)) {
            ensure!(began.elapsed() < LONG, "timed out waiting for promotions: {:?}", room.counts(concert).await?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let admitted = began.elapsed().as_secs_f64();
        println!("{users} promoted within {admitted:.1} s, {:.0} a second", users as f64 / admitted);
        Ok(())
    }

    async fn draw(&self, people: u64) -> Result<()> {
        let concert = self.concert("draw", Some(START_S)).await?;
        let began = Instant::now();
        let entries = self.join(concert, people).await?;
        println!("{people} joined before the sale in {:.1} s", began.elapsed().as_secs_f64());
        let began = Instant::now();
        self.running.clock.advance(TimeDelta::seconds(START_S));
        let mut drawn = None;
        let has_place = |status| !matches!(status, QueueStatus::PreSale);
        for entry in &entries {
            while !has_place(self.place(concert, *entry).await?.status) {
                ensure!(began.elapsed() < LONG, "timed out waiting for the draw");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drawn.get_or_insert_with(|| began.elapsed());
        }
        let (drawn, all) = (drawn.unwrap_or_default().as_secs_f64(), began.elapsed().as_secs_f64());
        println!("{people} drawn {drawn:.2} s after the start; all of them have polled their place after {all:.2} s");
        Ok(())
    }
}
