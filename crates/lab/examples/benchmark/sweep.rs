//! A hundred thousand holds that end at the same instant, in process: the time of the sweep, and of charges meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use boxoffice_adapters::clock::SystemIds;
use boxoffice_app::config::{self, Layers};
use boxoffice_app::wiring::{self, SystemClock};
use boxoffice_domain::{
    Actor, Batch, Command, CommandId, ConcertPlan, DateId, DatePlan, Fingerprint, FreshIds, Request, SeatNumber, SeatPlan, UserId,
};
use boxoffice_ports::{Clock, Deadline, Guard, Ids};
use chrono::TimeDelta;
use tempfile::TempDir;

const HOLDS: u32 = 100_000;
const BATCH: u32 = 1_000;
const CALL_MAX: Duration = Duration::from_secs(30);

pub(crate) async fn run() -> Result<()> {
    let folder = TempDir::new()?;
    let path = format!("store.sqlite_path={}", folder.path().join("boxoffice.db").display());
    let set = ["http.listen=127.0.0.1:0", "demo.season=false", &path].map(str::to_owned).to_vec();
    let settings = config::load(&Layers { set, ..Layers::default() })?;
    let clock = Arc::new(SystemClock::default());
    let running = wiring::start(settings.clone(), clock.clone()).await?;
    let (stores, policy) = (running.stores.clone(), Arc::new(settings.policy()));
    let imported = stores.catalog.import(vec![hall(clock.as_ref())], settings.default_admission()).await?;
    let date = imported.first().and_then(|concert| concert.dates.first()).context("no date")?.id;

    let started = Instant::now();
    for first in (1..=HOLDS).step_by(BATCH as usize) {
        let holds: Vec<_> = (first..first + BATCH).map(|seat| hold(date, seat)).collect();
        stores.ledger.transact(Batch::new(holds, policy.clone()), Guard::RowLock, Deadline::after(CALL_MAX)).await?;
    }
    let held = f64::from(HOLDS) / started.elapsed().as_secs_f64();
    println!("holds of one seat in process, {BATCH} in a commit: {held:.0} a second");

    let swept_before = running.stats.swept_holds.get();
    clock.advance(TimeDelta::seconds(i64::from(policy.hold_ttl_s) + 1));
    let due = Instant::now();
    let (user, mut charges_ms) = (UserId(SystemIds.fresh()), Vec::new());
    while running.stats.swept_holds.get() - swept_before < u64::from(HOLDS) && due.elapsed() < Duration::from_secs(60) {
        let sent = Instant::now();
        stores.ledger.transact(Batch::new(vec![charge(user)], policy.clone()), Guard::RowLock, Deadline::after(CALL_MAX)).await?;
        charges_ms.push(sent.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let swept = due.elapsed().as_secs_f64();
    charges_ms.sort_by(f64::total_cmp);
    println!(
        "{HOLDS} holds due at once: all swept after {swept:.2} s (hold.sweep_ms {}); {} charges meanwhile, p50 {:.1} ms, p99 {:.1} ms",
        settings.hold.sweep_ms,
        charges_ms.len(),
        charges_ms[charges_ms.len() / 2],
        charges_ms[charges_ms.len() * 99 / 100],
    );
    running.stop().await;
    Ok(())
}

fn hall(clock: &dyn Clock) -> ConcertPlan {
    let at = |days: i64| clock.now() + TimeDelta::days(days);
    let seats = SeatPlan { from: 1, to: HOLDS, grade: "R".to_owned(), price: 90_000, section: None, row: None };
    let date = DatePlan {
        key: "d".to_owned(),
        starts_at: at(3),
        ends_at: None,
        booking_opens_at: at(-1),
        booking_closes_at: at(2),
        refund_closes_at: at(2),
        seats: vec![seats],
    };
    ConcertPlan {
        key: "sweep".to_owned(),
        name: "Sweep".to_owned(),
        venue: "Hall".to_owned(),
        time_zone: "UTC".to_owned(),
        sale_starts_at: None,
        admission: None,
        dates: vec![date],
    }
}

fn hold(date: DateId, seat: SeatNumber) -> Request {
    let user = UserId(SystemIds.fresh());
    request(user, Command::HoldSeats { user, date, count: 1, choices: vec![vec![seat]], best: false, last: true })
}

pub(crate) fn charge(user: UserId) -> Request {
    request(user, Command::ChargeWallet { user, amount: 1 })
}

fn request(user: UserId, command: Command) -> Request {
    let fresh = SystemIds.fresh();
    Request {
        command_id: CommandId(fresh),
        actor: Actor::User(user),
        fingerprint: Some(Fingerprint([7; 32])),
        fresh: FreshIds { subject: fresh, entry: SystemIds.fresh(), points: [fresh; 2] },
        command,
    }
}
