//! Callers that each wait for an answer before their next command.

use super::cpu::Cpu;
use super::seed::{Shop, user};
use anyhow::{Result, bail};
use boxoffice_adapters::clock::SystemIds;
use boxoffice_domain::{Actor, Command, Decision, Fingerprint, FreshIds, Request, ReservationId, UserId};
use boxoffice_engine::Combining;
use boxoffice_ports::{Deadline, Executor, Ids, Receipt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(3);
/// How long a command may take.
const WAIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
pub(crate) enum Work {
    Charge,
    Hold,
    HoldAndPay,
}

#[derive(Clone, Copy)]
pub(crate) struct Measured {
    /// A second.
    pub(crate) rate: f64,
    /// CPU time of this process and of the server for each unit of work.
    pub(crate) client_us: f64,
    pub(crate) server_us: f64,
}

/// The rate of `work` by so many callers; `server` is the id of the server's process.
pub(crate) async fn measure(executor: Arc<Combining>, work: Work, shop: Arc<Shop>, callers: usize, server: u32) -> Result<Measured> {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (executor, shop, done, stop) = (executor.clone(), shop.clone(), done.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    once(&executor, work, &shop).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    tokio::time::sleep(WARM_UP).await;
    let (before, cpu, started) = (done.load(Ordering::Relaxed), Cpu::so_far(server), Instant::now());
    tokio::time::sleep(WINDOW).await;
    let (count, seconds) = ((done.load(Ordering::Relaxed) - before) as f64, started.elapsed().as_secs_f64());
    let cpu = Cpu::so_far(server).since(cpu);
    let us = |time: Duration| time.as_secs_f64() * 1e6 / count;
    let measured = Measured { rate: count / seconds, client_us: us(cpu.client), server_us: us(cpu.server) };
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    Ok(measured)
}

async fn once(executor: &Combining, work: Work, shop: &Shop) -> Result<()> {
    if let Work::Charge = work {
        let user = user(0);
        return execute(executor, request(user, Command::ChargeWallet { user, amount: 1 })).await;
    }
    let (user, date, seat) = shop.take();
    let hold = Command::HoldSeats { user, date, count: 1, choices: vec![vec![seat]], best: false, last: false };
    let hold = request(user, hold);
    let reservation = ReservationId(hold.fresh.subject);
    execute(executor, hold).await?;
    if let Work::HoldAndPay = work {
        execute(executor, request(user, Command::Pay { user, reservation, points: 0 })).await?;
    }
    Ok(())
}

fn request(user: UserId, command: Command) -> Request {
    let fresh = || SystemIds.fresh();
    let fresh = FreshIds { subject: fresh(), entry: fresh(), points: [fresh(), fresh()] };
    // Random, as command ids are hashes of the clients' keys.
    let command_id = uuid::Uuid::new_v8(rand::random()).into();
    Request { command_id, actor: Actor::User(user), fingerprint: Some(Fingerprint([7; 32])), fresh, command }
}

async fn execute(executor: &Combining, request: Request) -> Result<()> {
    match executor.execute(request, Deadline::after(WAIT)).await? {
        Receipt::Done(reply) if matches!(reply.decision, Decision::Done(_)) => Ok(()),
        other => bail!("{other:?}"),
    }
}
