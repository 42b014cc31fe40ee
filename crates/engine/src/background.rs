//! The background work of an instance: promotion, expiry of turns and holds, the catalogue, the outbox, pruning.
//!
//! Each piece runs in its own task at its own interval, kept by the supervisor. A round that fails is logged and tried
//! again at the next interval. A round that takes longer than its interval delays the next one instead of piling up.
//! All stop together, each after the round it is in. Every instance runs all pieces: one that another instance is
//! running, or has just run, finds nothing to do. The outbox alone is shared out (`relay`).

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::Policy;
use boxoffice_ports::WhenFailing::{Impaired, NotReady};
use boxoffice_ports::{EventSink, Ids, InstanceId, Kept, Ledger, Source, Stores, Tasks, WaitingRoom, WhenFailing};
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::admission_loop::{AdmissionLoop, AdmissionParts, AdmissionSettings};
use crate::relay::Relay;
use crate::seat_sync::SeatSync;
use crate::sweep::Sweep;
use crate::{Catalogue, HoldReturns, Peers, SeatView, ServerHealth, Stats, StoreTime, TurnEnds, catalogue, store_time};

const GAUGE_EVERY: Duration = Duration::from_secs(5);
/// How often the waiting rooms get this instance's health.
const FARES_EVERY: Duration = Duration::from_secs(1);
/// How often holds of abandoned users are given back.
const RETURNS_EVERY: Duration = Duration::from_millis(100);
const PRUNE_EVERY: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub struct BackgroundSettings {
    pub tick: Duration,
    pub sweep: Duration,
    pub stock_linked: bool,
}

/// What the background works with. `ledger` is the observed one. `instance` claims its share of the outbox, whose
/// events go to `sink` if there is one.
pub struct BackgroundParts {
    pub instance: InstanceId,
    pub sink: Option<Arc<dyn EventSink>>,
    pub stores: Stores,
    pub ledger: Arc<dyn Ledger>,
    pub room: Arc<dyn WaitingRoom>,
    pub catalogue: Arc<Catalogue>,
    pub seats: Arc<SeatView>,
    pub peers: Arc<Peers>,
    pub turns: Arc<TurnEnds>,
    pub returns: Arc<HoldReturns>,
    pub server_health: Arc<ServerHealth>,
    pub time: Arc<StoreTime>,
    pub ids: Arc<dyn Ids>,
    pub policy: Arc<Policy>,
    pub stats: Arc<Stats>,
    pub tasks: Arc<dyn Tasks>,
}

/// The running tasks.
pub struct Background {
    stop: watch::Sender<bool>,
    /// Closed when all of them have ended.
    ended: mpsc::Receiver<()>,
    _kept: Vec<Kept>,
}

impl Background {
    /// Reads the catalogue and opens the rooms, so that requests find them, then starts the tasks.
    pub async fn start(parts: BackgroundParts, settings: BackgroundSettings) -> Result<Self, Source> {
        let BackgroundParts {
            instance,
            sink,
            stores,
            ledger,
            room,
            catalogue,
            seats,
            peers,
            turns,
            returns,
            server_health,
            time,
            ids,
            policy,
            stats,
            tasks,
        } = parts;
        let sync = SeatSync::new(seats.clone(), peers);
        let rooms = room.clone();
        let admission = AdmissionLoop::new(
            AdmissionParts { room, catalogue, seats, clock: time.clone(), stats: stats.clone(), returns: returns.clone() },
            AdmissionSettings { patience: settings.tick, stock_linked: settings.stock_linked },
        );
        let sweep = Arc::new(Sweep { ledger, upkeep: stores.upkeep, ids, policy, stats: stats.clone() });
        let relay = Relay::new(stores.outbox, turns, sink, instance, stats);
        // The first mark comes before anything is loaded.
        let shared = sync.round().await?;
        admission.begin().await?;

        let (stop, stopped) = watch::channel(false);
        let (alive, ended) = mpsc::channel(1);
        let mut pieces = Pieces { tasks: tasks.clone(), stopped, alive, kept: Vec::new() };
        if shared {
            let listening = sync.clone();
            pieces.keep("seats.read", NotReady, move |stopped| sync.clone().read_again(stopped));
            pieces.keep("seats.listen", NotReady, move |stopped| listening.clone().listen(stopped));
        }
        let relaying = relay.clone();
        pieces.every("time", Impaired, store_time::REFRESH, &time, |time| async move { time.refresh().await });
        pieces.every("catalogue", Impaired, catalogue::REFRESH, &admission, |admission| async move { admission.refresh().await });
        pieces.every("admission", NotReady, settings.tick, &admission, |admission| async move { admission.tick().await });
        pieces.every("returns", Impaired, RETURNS_EVERY, &returns, |returns| async move { returns.round().await });
        pieces.every("sweep", NotReady, settings.sweep, &sweep, |sweep| async move { sweep.holds().await });
        pieces.every("prune", Impaired, PRUNE_EVERY, &sweep, |sweep| async move { sweep.replies().await });
        pieces.every("fares", Impaired, FARES_EVERY, &server_health, move |server_health| {
            rooms.report_health(server_health.take());
            async { Ok(()) }
        });
        pieces.keep("relay", NotReady, move |stopped| relaying.clone().run(tasks.clone(), stopped));
        pieces.every("gauge", Impaired, GAUGE_EVERY, &relay, |relay| async move { relay.gauge().await });
        Ok(Self { stop, ended, _kept: pieces.kept })
    }

    /// Stops everything, each after the round it is in.
    pub async fn stop(mut self) {
        // An error means that all tasks have ended already.
        let _ = self.stop.send(true);
        // Nothing is ever sent: this returns when the last task has ended.
        self.ended.recv().await;
    }
}

/// Starts the pieces under the supervisor.
struct Pieces {
    tasks: Arc<dyn Tasks>,
    stopped: watch::Receiver<bool>,
    /// Each piece's factory has a clone, dropped with it.
    alive: mpsc::Sender<()>,
    kept: Vec<Kept>,
}

impl Pieces {
    /// Starts a piece that runs until it is stopped.
    fn keep<R>(&mut self, name: &'static str, when_failing: WhenFailing, mut run: impl FnMut(watch::Receiver<bool>) -> R + Send + 'static)
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let (stopped, alive) = (self.stopped.clone(), self.alive.clone());
        self.kept.push(self.tasks.keep(name, when_failing, move || {
            let (run, _alive) = (run(stopped.clone()), &alive);
            async move {
                run.await;
                Ok(())
            }
        }));
    }

    /// Starts a piece that works in rounds, each with a clone of `on`.
    fn every<T, R>(
        &mut self,
        name: &'static str,
        when_failing: WhenFailing,
        interval: Duration,
        on: &Arc<T>,
        round: impl Fn(Arc<T>) -> R + Send + Sync + Clone + 'static,
    ) where
        T: Send + Sync + 'static,
        R: Future<Output = Result<(), Source>> + Send + 'static,
    {
        let on = on.clone();
        self.keep(name, when_failing, move |stopped| {
            let (on, round) = (on.clone(), round.clone());
            every(name, interval, stopped, move || round(on.clone()))
        });
    }
}

/// Rounds `interval` apart, the first after a random part of it, so that instances that start together do not do the
/// same work at the same moment.
async fn every<R>(what: &'static str, interval: Duration, mut stopped: watch::Receiver<bool>, round: impl Fn() -> R)
where
    R: Future<Output = Result<(), Source>>,
{
    let first = Instant::now() + interval.mul_f64(rand::rng().random_range(0.0..1.0));
    let mut timer = tokio::time::interval_at(first, interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            // An error means that the sender is gone: that stops the task, too.
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = round().await {
            tracing::warn!(error, task = what, "a round of background work failed; it is tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::until;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_failed_round_is_tried_again_and_stopping_ends_the_task() {
        let rounds = Arc::new(AtomicU32::new(0));
        let (stop, stopped) = watch::channel(false);
        let counted = rounds.clone();
        let task = tokio::spawn(every("test", Duration::from_millis(10), stopped, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Err("it fails".into()) }
        }));
        while rounds.load(Ordering::SeqCst) < 5 {
            tokio::time::advance(Duration::from_millis(10)).await;
            tokio::task::yield_now().await;
        }
        stop.send(true).unwrap();
        until(|| task.is_finished()).await;
        task.await.unwrap();
    }
}
