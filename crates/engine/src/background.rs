//! The work nobody asked for: promotion, expiry of turns and holds, the catalogue, the outbox, pruning.
//!
//! Each piece runs in its own task at its own interval; a round that fails is logged and tried again at the next, a
//! round that takes longer than its interval delays the next one instead of piling up. All stop together, each after
//! the round it is in. Every instance runs all of it; a piece that another instance is at, or has just done, finds
//! nothing to do; the outbox alone is shared out (`relay`).

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::Policy;
use boxoffice_ports::{EventSink, Ids, InstanceId, Ledger, Source, Stores, WaitingRoom};
use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::admission_loop::AdmissionLoop;
use crate::relay::Relay;
use crate::seat_sync::SeatSync;
use crate::sweep::Sweep;
use crate::{Fares, HoldReturns, RoomTeller, SeatView, Shows, Siblings, Stats, StoreTime, shows, store_time};

const GAUGE_EVERY: Duration = Duration::from_secs(5);
/// How often the waiting rooms are told how this instance fares.
const FARES_EVERY: Duration = Duration::from_secs(1);
const PRUNE_EVERY: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub struct BackgroundSettings {
    pub tick: Duration,
    pub sweep: Duration,
    pub stock_linked: bool,
}

/// What the background works with. `ledger` is the watched one; `instance` claims its share of the outbox, whose events
/// go to `sink`, or to nobody without one.
pub struct Parts {
    pub instance: InstanceId,
    pub sink: Option<Arc<dyn EventSink>>,
    pub stores: Stores,
    pub ledger: Arc<dyn Ledger>,
    pub room: Arc<dyn WaitingRoom>,
    pub shows: Arc<Shows>,
    pub seats: Arc<SeatView>,
    pub siblings: Arc<Siblings>,
    pub teller: Arc<RoomTeller>,
    pub returns: Arc<HoldReturns>,
    pub fares: Arc<Fares>,
    pub time: Arc<StoreTime>,
    pub ids: Arc<dyn Ids>,
    pub policy: Arc<Policy>,
    pub stats: Arc<Stats>,
}

/// The running tasks.
pub struct Background {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Background {
    /// Reads the catalogue and opens the rooms, so that requests find them, then starts the tasks.
    pub async fn start(parts: Parts, settings: BackgroundSettings) -> Result<Self, Source> {
        let Parts { instance, sink, stores, ledger, room, shows, seats, siblings, teller, returns, fares, time, ids, policy, stats } =
            parts;
        let sync = SeatSync::new(stores.queries, seats.clone(), siblings);
        let told = room.clone();
        let admission = Arc::new(AdmissionLoop {
            room,
            shows,
            seats,
            clock: time.clone(),
            stats: stats.clone(),
            returns,
            stock_linked: settings.stock_linked,
        });
        let sweep = Arc::new(Sweep { ledger, upkeep: stores.upkeep, ids, policy, stats: stats.clone() });
        let relay = Relay::new(stores.outbox, teller, sink, instance, stats);
        // The first mark comes before anything is loaded.
        let shared = sync.round().await?;
        admission.refresh().await?;

        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if shared {
            tasks.spawn(sync.clone().read_again(stopped.clone()));
            tasks.spawn(sync.listen(stopped.clone()));
        }
        tasks.spawn(every("time", store_time::REFRESH, stopped.clone(), async move || time.refresh().await));
        let refresh = admission.clone();
        tasks.spawn(every("catalogue", shows::REFRESH, stopped.clone(), async move || refresh.refresh().await));
        tasks.spawn(every("admission", settings.tick, stopped.clone(), async move || admission.tick().await));
        let holds = sweep.clone();
        tasks.spawn(every("sweep", settings.sweep, stopped.clone(), async move || holds.holds().await));
        tasks.spawn(every("prune", PRUNE_EVERY, stopped.clone(), async move || sweep.replies().await));
        tasks.spawn(every("fares", FARES_EVERY, stopped.clone(), async move || {
            told.fares(fares.take());
            Ok(())
        }));
        tasks.spawn(relay.clone().run(stopped.clone()));
        tasks.spawn(every("gauge", GAUGE_EVERY, stopped, async move || relay.gauge().await));
        Ok(Self { stop, tasks })
    }

    /// Stops everything, each after the round it is in.
    pub async fn stop(mut self) {
        // Nobody listens any more when all tasks have ended.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Rounds `interval` apart, the first after a part of one that differs between instances, so that those that start
/// together do not do the same work at the same moment.
async fn every<F>(what: &'static str, interval: Duration, mut stopped: watch::Receiver<bool>, round: F)
where
    F: AsyncFn() -> Result<(), Source>,
{
    let first = Instant::now() + interval.mul_f64(rand::rng().random_range(0.0..1.0));
    let mut timer = tokio::time::interval_at(first, interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            _ = stopped.changed() => return,
        }
        if let Err(error) = round().await {
            tracing::warn!(error, task = what, "a round of background work failed");
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
        let task = tokio::spawn(every("test", Duration::from_millis(10), stopped, async move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Err("it fails".into())
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
