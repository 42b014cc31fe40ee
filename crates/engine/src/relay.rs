//! The outbox, emptied in order by the owner of each shard. Events go to the sink, and ends of paid turns to the
//! waiting rooms. A row is deleted once both have it.
//!
//! *Claims.* Each instance claims a share of the shards ([`LEASE`]) and renews the claim while it lives. Nothing is
//! sent for a shard whose claim is older than that; a publication that would outlast it is given up. Claims are renewed
//! between steps. A relay that stops gives its claim back, so that the others need not wait for its end.
//!
//! *Order.* Each shard goes one step at a time: rows are read from the oldest on, published, deleted. A failure leaves
//! them, in order, for the next step, after a pause that grows. Shards go on independently, [`STEPS_AT_ONCE`] at the
//! same moment.
//!
//! *Two consumers.* Neither the sink nor the rooms wait for the other. The turns of a step begin to end before its rows
//! are published, even if that fails. If a turn has not ended [`ROOM_WAIT`] after the publication, its row is set
//! aside: it no longer blocks those behind it and is not published again. A task of its own ends the turn when the room
//! is back. While rooms are away no step waits for them.
//!
//! *Round trips.* One read, one publication and one deletion a step, and one exchange with the rooms of its payments.
//! Turns that this instance has ended cost none. Rows set aside cost one more, and two when their turns are ended.
//!
//! *A crash* at any point repeats work and loses nothing. A row is deleted or set aside only after it was published,
//! and deleted only after its turn has ended. Two relays at one shard, as after a renewal that could not wait for a
//! slow step, do double work and nothing worse.

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

/// Rows read from a shard in one step: without a sink as many as are deleted quickly, with one as many as a slow broker
/// accepts in [`PUBLISH_MAX`].
const STEP: u32 = 4_000;
const STEP_PUBLISHED: u32 = 500;
/// Steps that run at the same moment; others wait for their turn.
const STEPS_AT_ONCE: usize = 4;
/// How long a claim holds. It is renewed after a third of it, so two renewals may fail.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// How long a renewal waits for running steps. Longer, and a step may go on for a shard that was given to another
/// relay.
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
/// How often a shard that had nothing to send is read.
const EVERY: Duration = Duration::from_millis(250);
/// The longest pause after failures; the first is [`EVERY`], then they double.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How long giving the claim back may take. Longer, and it ends with its lease.
const RELEASE_MAX: Duration = Duration::from_secs(2);

pub(crate) struct Relay {
    outbox: Arc<dyn Outbox>,
    turns: Arc<TurnEnds>,
    sink: Option<Arc<dyn EventSink>>,
    instance: InstanceId,
    stats: Arc<Stats>,
    /// Until when this relay owns each shard.
    claim: Mutex<HashMap<u32, Instant>>,
    /// Shards that may have rows set aside.
    set_aside: Mutex<HashSet<u32>>,
    /// The last attempt to end turns failed.
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
        let (claim, set_aside, rooms_away) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { outbox, turns, sink, instance, stats, claim, set_aside, rooms_away, steps: Semaphore::new(STEPS_AT_ONCE) })
    }

    /// Relays until `stopped`, each shard after the step it is in, then gives the claim back. Each shard is a task of
    /// its own: one that fails is started again and keeps no other one back.
    pub(crate) async fn run(self: Arc<Self>, tasks: Arc<dyn Tasks>, mut stopped: watch::Receiver<bool>) {
        // Each task's factory has a clone of the sender, so the receiver is closed once all tasks have ended.
        let (alive, mut ended) = mpsc::channel::<()>(1);
        let (relay, stop, lives) = (self.clone(), stopped.clone(), alive.clone());
        let mut kept = vec![tasks.keep("relay.claim", WhenFailing::NotReady, move || {
            let _lives = &lives;
            relay.clone().keep_claim(stop.clone())
        })];
        let (relay, stop, lives) = (self.clone(), stopped.clone(), alive.clone());
        kept.push(tasks.keep("relay.rooms", WhenFailing::NotReady, move || {
            let _lives = &lives;
            relay.clone().end_set_aside(stop.clone())
        }));
        kept.extend((0..OUTBOX_SHARDS).map(|shard| {
            let (relay, stop, lives) = (self.clone(), stopped.clone(), alive.clone());
            tasks.keep(format!("relay.{shard}"), WhenFailing::NotReady, move || {
                let _lives = &lives;
                relay.clone().relay(shard, stop.clone())
            })
        }));
        drop(alive);
        // An error means that the sender is gone: that stops the relay, too.
        let _ = stopped.wait_for(|stop| *stop).await;
        // Steps that wait for a permit do not begin.
        self.steps.close();
        ended.recv().await;
        match timeout(RELEASE_MAX, self.outbox.release(self.instance)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the claim on the outbox was not released; it ends with its lease"),
            Err(_) => tracing::warn!("timed out releasing the claim on the outbox; it ends with its lease"),
        }
    }

    async fn keep_claim(self: Arc<Self>, mut stopped: watch::Receiver<bool>) -> Result<(), Source> {
        loop {
            let pause = match self.renew().await {
                Ok(()) => LEASE / 3,
                Err(error) => {
                    tracing::warn!(error, "the claim on the outbox could not be renewed");
                    CLAIM_AGAIN
                }
            };
            if rest(pause, &mut stopped).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Renews the claim between steps: the store may give shards to another relay, which then should meet no running
    /// step.
    async fn renew(&self) -> Result<(), Source> {
        let quiet = timeout(QUIET_MAX, self.steps.acquire_many(STEPS_AT_ONCE as u32)).await;
        if matches!(quiet, Ok(Err(_))) {
            return Ok(());
        }
        // The lease counts from before the store was asked, so it ends here no later than there.
        let until = Instant::now() + LEASE;
        let shards = timeout(CLAIM_MAX, self.outbox.claim(self.instance, LEASE)).await??;
        let mut claim = lock(&self.claim);
        // Its last owner may have left rows set aside.
        let is_new = |shard: &u32| claim.get(shard).is_none_or(|until| *until <= Instant::now());
        lock(&self.set_aside).extend(shards.iter().copied().filter(is_new));
        *claim = shards.into_iter().map(|shard| (shard, until)).collect();
        Ok(())
    }

    /// Until when this relay owns `shard`, if it does.
    fn claimed(&self, shard: u32) -> Option<Instant> {
        lock(&self.claim).get(&shard).copied().filter(|until| Instant::now() < *until)
    }

    async fn relay(self: Arc<Self>, shard: u32, mut stopped: watch::Receiver<bool>) -> Result<(), Source> {
        let mut failures = 0;
        // Relays that start together do not read at the same moment.
        let mut pause = EVERY.mul_f64(rand::rng().random_range(0.0..1.0));
        while rest(pause, &mut stopped).await.is_ok() {
            pause = match self.step(shard).await {
                Ok(more) => {
                    failures = 0;
                    if more { Duration::ZERO } else { EVERY }
                }
                Err(error) => {
                    tracing::warn!(error, shard, failures, "a shard of the outbox could not be relayed; it is tried again");
                    failures += 1;
                    (EVERY * 2_u32.saturating_pow(failures - 1)).min(PAUSE_MAX)
                }
            };
        }
        Ok(())
    }

    /// Sends the oldest rows of `shard`, if this relay owns it. Whether there may be more.
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
        // Turns of one step share an exchange with the room's log. Most have ended before their callers were answered.
        if !self.rooms_away.load(Ordering::Relaxed) {
            ends.iter().for_each(|(_, end)| self.turns.begin(*end));
        }
        // The claim may have ended since the rows were asked for.
        let Some(until) = self.claimed(shard) else { return Ok(false) };
        self.publish(rows, until).await?;
        let count = ids.len();
        let running = self.not_ended(&ends).await;
        let (late, done): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| running.contains(id));
        if !late.is_empty() {
            self.outbox.set_aside(shard, late).await?;
            lock(&self.set_aside).insert(shard);
        }
        // The relay that sent the rows deletes them, even if another one owns the shard by now.
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
    async fn end_set_aside(self: Arc<Self>, mut stopped: watch::Receiver<bool>) -> Result<(), Source> {
        let mut pause = EVERY;
        while rest(pause, &mut stopped).await.is_ok() {
            pause = match self.end_all_set_aside().await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(error, "paid turns could not be ended; it is tried again, and events go on");
                    (pause * 2).min(ROOM_PAUSE_MAX)
                }
            };
        }
        Ok(())
    }

    /// Goes once through the shards that may have rows set aside. Fails if no turn could be ended.
    async fn end_all_set_aside(&self) -> Result<(), Source> {
        let shards: Vec<_> = lock(&self.set_aside).iter().copied().collect();
        for shard in shards.into_iter().filter(|shard| self.claimed(*shard).is_some()) {
            // Before the rows are read: a step may set more aside meanwhile.
            lock(&self.set_aside).remove(&shard);
            let ended = self.end_set_aside_of(shard).await;
            if !matches!(ended, Ok(true)) {
                lock(&self.set_aside).insert(shard);
            }
            ended?;
        }
        Ok(())
    }

    /// Whether the shard has no row set aside any more.
    async fn end_set_aside_of(&self, shard: u32) -> Result<bool, Source> {
        let rows = self.outbox.aside(shard, STEP).await?;
        if rows.is_empty() {
            return Ok(true);
        }
        let ends: Vec<_> = rows.iter().filter_map(|row| Some((row.id, TurnEnd::of_row(row)?))).collect();
        let running = self.running_after(&ends, ROOM_MAX).await;
        let is_away = !ends.is_empty() && running.len() == ends.len();
        self.rooms_away.store(is_away, Ordering::Relaxed);
        if is_away {
            return Err("timed out waiting for the waiting rooms to end turns".into());
        }
        let taken = rows.iter().map(|row| row.id).filter(|id| !running.contains(id)).collect();
        self.outbox.taken(shard, taken).await?;
        Ok(false)
    }

    async fn publish(&self, rows: Vec<OutboxRow>, until: Instant) -> Result<(), Source> {
        let Some(sink) = &self.sink else { return Ok(()) };
        let bound = until.min(Instant::now() + PUBLISH_MAX);
        timeout_at(bound, sink.publish(rows)).await.unwrap_or_else(|_| Err("timed out publishing events".into()))
    }

    /// Measures how many events wait, and for how long.
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
        // An error means that the sender is gone: that stops the relay, too.
        _ = stopped.wait_for(|stop| *stop) => Err(()),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
