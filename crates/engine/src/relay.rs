//! The outbox, emptied in order by the owner of each shard: events go to the sink, ends of paid turns to the waiting
//! rooms, and a row is deleted once both have it.
//!
//! *Who.* Each instance claims a share of the shards ([`LEASE`]) and renews the claim while it lives. Nothing is sent for
//! a shard whose claim is older than that; a publication that would outlast it is given up. Claims are renewed between
//! steps. On stopping the claim is given back, so that others need not wait for its end.
//!
//! *Order.* Each shard goes one step at a time: rows are read from the oldest on, published, deleted. A failure leaves
//! them, in order, for the next step, after a pause that grows. Shards go on independently, [`STEPS_AT_ONCE`] at the same
//! moment.
//!
//! *Two readers.* Neither the sink nor the rooms wait for the other. The turns of a step begin to end before its rows are
//! published, also when that fails. A turn that has not ended [`ROOM_WAIT`] after the publication is set aside: its
//! row leaves the way of those behind it, is not published again, and a task of its own ends it when the room is back.
//! While rooms are away nothing waits for them here.
//!
//! *Round trips.* One read, one publication and one deletion a step, and one exchange with the rooms of its payments; none
//! for those that this instance has ended. Rows set aside cost one more, and two when they are taken.
//!
//! *A crash* at any point repeats and loses nothing: a row is deleted or set aside only after it was published, and deleted
//! only after its turn has ended. Two relays at one shard, as after a renewal that could not wait for a slow step, do double
//! work and nothing worse.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boxoffice_domain::event::OUTBOX_SHARDS;
use boxoffice_ports::{EventSink, InstanceId, Outbox, OutboxRow, Source, Tasks, WhenFailing};
use rand::Rng;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::sync::lock;
use crate::{Stats, TurnEnd, TurnEnds};

/// Rows taken from a shard in one step: without a sink as many as are quickly deleted, with one as many as a slow broker
/// takes in [`PUBLISH_MAX`].
const STEP: u32 = 4_000;
const STEP_PUBLISHED: u32 = 500;
/// Steps that run at the same moment; others wait for their turn.
const STEPS_AT_ONCE: usize = 4;
/// How long a claim holds. It is renewed after a third of it, so two renewals may fail.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// How long steps that run are waited for before a claim is renewed. Longer, and one may go on for a shard that was given
/// to another relay.
const QUIET_MAX: Duration = Duration::from_secs(3);
/// How long claiming may take. Longer, and it has failed.
const CLAIM_MAX: Duration = Duration::from_secs(3);
/// How soon a claim that failed is tried again.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);
/// How long a publication may take. Longer, and it has failed.
const PUBLISH_MAX: Duration = Duration::from_secs(5);
/// How long a step waits for the ends of its turns, once its rows are published. Longer, and they are set aside.
const ROOM_WAIT: Duration = Duration::from_millis(500);
/// How long the ends of turns that were set aside may take. Longer, and they have failed.
const ROOM_MAX: Duration = Duration::from_secs(5);
/// The longest pause before rooms that are away are tried again; the first is [`EVERY`], then they double.
const ROOM_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a shard is looked at that had nothing to send.
const EVERY: Duration = Duration::from_millis(250);
/// The longest pause after failures; the first is [`EVERY`], then they double.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How long giving the claim back may take. Longer, and the lease's end does it.
const RELEASE_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Relay {
    outbox: Arc<dyn Outbox>,
    turns: Arc<TurnEnds>,
    sink: Option<Arc<dyn EventSink>>,
    instance: InstanceId,
    stats: Arc<Stats>,
    /// Until when each shard is ours.
    claim: Mutex<HashMap<u32, Instant>>,
    /// Shards with rows that were set aside, as far as is known.
    aside: Mutex<HashSet<u32>>,
    /// The rooms did not take what was tried last.
    rooms_away: AtomicBool,
    steps: Semaphore,
}

impl Relay {
    pub(crate) fn new(
        outbox: Arc<dyn Outbox>,
        turns: Arc<TurnEnds>,
        sink: Option<Arc<dyn EventSink>>,
        instance: InstanceId,
        stats: Arc<Stats>,
    ) -> Arc<Self> {
        let (claim, aside, rooms_away) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { outbox, turns, sink, instance, stats, claim, aside, rooms_away, steps: Semaphore::new(STEPS_AT_ONCE) })
    }

    /// Relays until `stopped`, each shard after the step it is in, then gives the claim back. Each shard is a task of
    /// its own: one that fails is started again and keeps no other one back.
    pub(crate) async fn run(self: Arc<Self>, tasks: Arc<dyn Tasks>, mut stopped: watch::Receiver<bool>) {
        // What starts a task again has a clone of the one end: the other one is closed once all have ended.
        let (alive, mut ended) = mpsc::channel::<()>(1);
        let (relay, stop, lives) = (self.clone(), stopped.clone(), alive.clone());
        let mut kept = vec![tasks.keep("relay.claim", WhenFailing::NotReady, move || {
            let _lives = &lives;
            relay.clone().keep_claim(stop.clone())
        })];
        let (relay, stop, lives) = (self.clone(), stopped.clone(), alive.clone());
        kept.push(tasks.keep("relay.rooms", WhenFailing::NotReady, move || {
            let _lives = &lives;
            relay.clone().end_aside(stop.clone())
        }));
        kept.extend((0..OUTBOX_SHARDS).map(|shard| {
            let (relay, stop, lives) = (self.clone(), stopped.clone(), alive.clone());
            tasks.keep(format!("relay.{shard}"), WhenFailing::NotReady, move || {
                let _lives = &lives;
                relay.clone().relay(shard, stop.clone())
            })
        }));
        drop(alive);
        // Also when nobody is left who could say so.
        let _ = stopped.wait_for(|stop| *stop).await;
        // Those who wait for their turn need not have it.
        self.steps.close();
        ended.recv().await;
        match timeout(RELEASE_MAX, self.outbox.release(self.instance)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the outbox was not given back; its lease ends by itself"),
            Err(_) => tracing::warn!("the outbox was not given back in time; its lease ends by itself"),
        }
    }

    async fn keep_claim(self: Arc<Self>, mut stopped: watch::Receiver<bool>) -> Result<(), Source> {
        loop {
            let pause = match self.renew().await {
                Ok(()) => LEASE / 3,
                Err(error) => {
                    tracing::warn!(error, "no part of the outbox could be claimed");
                    CLAIM_AGAIN
                }
            };
            if rest(pause, &mut stopped).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Between steps: the store may give a part of the shards to another relay, which then need not meet a step of ours.
    async fn renew(&self) -> Result<(), Source> {
        let quiet = timeout(QUIET_MAX, self.steps.acquire_many(STEPS_AT_ONCE as u32)).await;
        if matches!(quiet, Ok(Err(_))) {
            return Ok(());
        }
        // The lease counts from before the store was asked, so it ends here no later than there.
        let until = Instant::now() + LEASE;
        let shards = timeout(CLAIM_MAX, self.outbox.claim(self.instance, LEASE)).await??;
        let mut claim = lock(&self.claim);
        // Its last owner may have left rows aside.
        let is_new = |shard: &u32| claim.get(shard).is_none_or(|until| *until <= Instant::now());
        lock(&self.aside).extend(shards.iter().copied().filter(is_new));
        *claim = shards.into_iter().map(|shard| (shard, until)).collect();
        Ok(())
    }

    /// Until when `shard` is ours, if it is.
    fn claimed(&self, shard: u32) -> Option<Instant> {
        lock(&self.claim).get(&shard).copied().filter(|until| Instant::now() < *until)
    }

    async fn relay(self: Arc<Self>, shard: u32, mut stopped: watch::Receiver<bool>) -> Result<(), Source> {
        let mut failures = 0;
        // Those that start together do not ask at the same moment.
        let mut pause = EVERY.mul_f64(rand::rng().random_range(0.0..1.0));
        while rest(pause, &mut stopped).await.is_ok() {
            pause = match self.step(shard).await {
                Ok(more) => {
                    failures = 0;
                    if more { Duration::ZERO } else { EVERY }
                }
                Err(error) => {
                    tracing::warn!(error, shard, failures, "a shard of the outbox was not relayed");
                    failures += 1;
                    (EVERY * 2_u32.saturating_pow(failures - 1)).min(PAUSE_MAX)
                }
            };
        }
        Ok(())
    }

    /// Sends the oldest rows of `shard`, if it is ours. Whether there may be more.
    async fn step(&self, shard: u32) -> Result<bool, Source> {
        if self.claimed(shard).is_none() {
            return Ok(false);
        }
        let Ok(_permit) = self.steps.acquire().await else { return Ok(false) };
        let limit = if self.sink.is_some() { STEP_PUBLISHED } else { STEP };
        let rows = self.outbox.unsent(shard, limit).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        let ends: Vec<_> = rows.iter().filter_map(|row| Some((row.id, TurnEnd::of_row(row)?))).collect();
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        // Those of one step share an exchange with the room's log; most were ended before their callers were answered.
        if !self.rooms_away.load(Ordering::Relaxed) {
            ends.iter().for_each(|(_, end)| self.turns.begin(*end));
        }
        // Much may have happened since the rows were asked for.
        let Some(until) = self.claimed(shard) else { return Ok(false) };
        self.publish(rows, until).await?;
        let count = ids.len();
        let running = self.not_ended(&ends).await;
        let (aside, done): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| running.contains(id));
        if !aside.is_empty() {
            self.outbox.set_aside(shard, aside).await?;
            lock(&self.aside).insert(shard);
        }
        // What both have is deleted by the relay that sent it, even when the shard is another one's by now.
        self.outbox.sent(shard, done).await?;
        self.stats.relayed_events.add(count as u64);
        Ok(count >= limit as usize)
    }

    /// The rows of `ends` whose turns may still be running after [`ROOM_WAIT`], or now while rooms are away.
    async fn not_ended(&self, ends: &[(i64, TurnEnd)]) -> HashSet<i64> {
        if self.rooms_away.load(Ordering::Relaxed) {
            return ends.iter().filter(|(_, end)| !self.turns.has_ended(*end)).map(|(id, _)| *id).collect();
        }
        let running = self.running_after(ends, ROOM_WAIT).await;
        if !running.is_empty() {
            self.rooms_away.store(true, Ordering::Relaxed);
        }
        running
    }

    async fn running_after(&self, ends: &[(i64, TurnEnd)], bound: Duration) -> HashSet<i64> {
        ends.iter().for_each(|(_, end)| self.turns.begin(*end));
        let (deadline, mut running) = (Instant::now() + bound, HashSet::new());
        for (id, end) in ends {
            if self.turns.ended_within(*end, deadline.saturating_duration_since(Instant::now())).await.is_err() {
                running.insert(*id);
            }
        }
        running
    }

    /// Ends the turns whose rows were set aside, until `stopped`.
    async fn end_aside(self: Arc<Self>, mut stopped: watch::Receiver<bool>) -> Result<(), Source> {
        let mut pause = EVERY;
        while rest(pause, &mut stopped).await.is_ok() {
            pause = match self.end_some_aside().await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(error, "paid turns cannot be ended; events go on");
                    (pause * 2).min(ROOM_PAUSE_MAX)
                }
            };
        }
        Ok(())
    }

    /// Goes once through the shards that may have rows aside. Fails when no room takes anything.
    async fn end_some_aside(&self) -> Result<(), Source> {
        let shards: Vec<_> = lock(&self.aside).iter().copied().collect();
        for shard in shards.into_iter().filter(|shard| self.claimed(*shard).is_some()) {
            // Before it is read: a step may set more aside meanwhile.
            lock(&self.aside).remove(&shard);
            let ended = self.end_shard_aside(shard).await;
            if !matches!(ended, Ok(true)) {
                lock(&self.aside).insert(shard);
            }
            ended?;
        }
        Ok(())
    }

    /// Whether nothing is left aside.
    async fn end_shard_aside(&self, shard: u32) -> Result<bool, Source> {
        let rows = self.outbox.aside(shard, STEP).await?;
        if rows.is_empty() {
            return Ok(true);
        }
        let ends: Vec<_> = rows.iter().filter_map(|row| Some((row.id, TurnEnd::of_row(row)?))).collect();
        let running = self.running_after(&ends, ROOM_MAX).await;
        let is_away = !ends.is_empty() && running.len() == ends.len();
        self.rooms_away.store(is_away, Ordering::Relaxed);
        if is_away {
            return Err("no waiting room takes the end of a turn".into());
        }
        let taken = rows.iter().map(|row| row.id).filter(|id| !running.contains(id)).collect();
        self.outbox.taken(shard, taken).await?;
        Ok(false)
    }

    async fn publish(&self, rows: Vec<OutboxRow>, until: Instant) -> Result<(), Source> {
        let Some(sink) = &self.sink else { return Ok(()) };
        let bound = until.min(Instant::now() + PUBLISH_MAX);
        timeout_at(bound, sink.publish(rows)).await.unwrap_or_else(|_| Err("the events were not published in time".into()))
    }

    /// Says how many events wait, and for how long.
    pub(crate) async fn gauge(&self) -> Result<(), Source> {
        let unsent = self.outbox.backlog().await?;
        self.stats.unsent_events.set(unsent.count);
        self.stats.unsent_age_ms.set(unsent.oldest.as_millis() as u64);
        Ok(())
    }
}

/// `Err` when it is time to stop.
async fn rest(pause: Duration, stopped: &mut watch::Receiver<bool>) -> Result<(), ()> {
    tokio::select! {
        biased;
        // Also when nobody is left who could say so.
        _ = stopped.wait_for(|stop| *stop) => Err(()),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
