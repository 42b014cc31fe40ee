//! One step of a room: appends what this instance has noticed and what is due, then saves what the mirror lacks.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::waiting::{DrawView, INSTANCE_REPORTS_S, Room, RoomInput, RoomOutput, Stock, Ticked};
use boxoffice_ports::{DrawRecord, RoomError};
use chrono::TimeDelta;
use tokio::time::Instant;

use super::begin;
use super::error::{room_unavailable, unavailable};
use super::handle::RoomHandle;
use super::snapshot::{RoomCopy, encode};
use crate::sync::lock;

/// A log is compacted when it has grown by so many inputs, and by more than [`COMPACT_FACTOR`] for each entry.
const COMPACT_MIN: usize = 100_000;
const COMPACT_FACTOR: usize = 4;
/// How long an empty room is not stepped: what is due by time alone is found then. An answer about it may be this old.
const REST: Duration = Duration::from_secs(2);
/// How long the log of an empty room is not asked. Logs that expire without a reader are kept so.
const KEPT: Duration = Duration::from_secs(3_600);
/// The pause after a snapshot that failed.
const COMPACT_AGAIN: Duration = Duration::from_secs(5);

/// Presence inputs that are being appended. If that fails, or is given up half way, they go with the next step.
struct Appending<'a> {
    handle: &'a RoomHandle,
    inputs: Vec<RoomInput>,
}

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.handle.put_back(std::mem::take(&mut self.inputs));
    }
}

impl RoomHandle {
    pub(super) async fn step(self: &Arc<Self>, stock: Stock) -> Result<Ticked, RoomError> {
        let _guard = self.stepping.lock().await;
        let mut inputs = self.presence_inputs();
        if self.is_due(stock) {
            inputs.push(RoomInput::Tick(stock));
        }
        let mut ticked = Ticked::default();
        if inputs.is_empty() && self.rests() {
            if self.replica().log_time.elapsed() > KEPT {
                self.catch_up().await?;
            }
            *lock(&self.stepped_at) = Some(Instant::now());
            return Ok(ticked);
        }
        if inputs.is_empty() {
            self.catch_up().await?;
        } else {
            let mut appending = Appending { handle: self, inputs };
            let outputs = self.append_all(appending.inputs.clone()).await?;
            appending.inputs.clear();
            for output in outputs {
                if let RoomOutput::Ticked(all) = output {
                    ticked = all;
                }
            }
        }
        self.publish(Vec::new(), false);
        if self.replica().room.as_ref().is_some_and(Room::awaits_reveal) {
            self.reveal_soon().await?;
        }
        if self.context.parts.log.is_volatile() {
            self.reserve_ahead().await?;
            self.save().await?;
        }
        self.compact_soon();
        *lock(&self.stepped_at) = Some(Instant::now());
        ticked.abandoned = self.take_abandoned();
        Ok(ticked)
    }

    /// The room is empty and nothing is on its way: what other instances append is read when a caller asks. Most
    /// concerts' rooms are empty most of the time, and each instance has them all.
    fn rests(&self) -> bool {
        // One lock after the other: none is held while waiting for another.
        let is_quiet = lock(&self.presence).is_quiet();
        let is_mirrored = lock(&self.unmirrored).is_empty();
        let is_empty = self.replica().room.as_ref().is_some_and(|room| room.is_empty() && !room.awaits_reveal());
        is_quiet && is_mirrored && is_empty && !self.has_abandoned()
    }

    /// Whether a step can wait: the room rests, and was stepped a moment ago.
    pub(super) fn needs_no_step(&self) -> bool {
        let stepped_at = *lock(&self.stepped_at);
        stepped_at.is_some_and(|at| at.elapsed() < REST) && self.rests()
    }

    /// Whether the log has to be asked before a caller is answered from the replica: a room that rests is not stepped.
    pub(super) fn is_behind(&self) -> bool {
        let replica = self.replica();
        replica.log_time.elapsed() > REST && replica.room.as_ref().is_none_or(Room::is_empty)
    }

    fn is_due(&self, stock: Stock) -> bool {
        self.replica().is_due(&*self.context.parts.clock, stock).unwrap_or(true)
    }

    /// Reveals the seed, beside the steps if a beacon has to answer first. A later step tries again after a failure.
    async fn reveal_soon(self: &Arc<Self>) -> Result<(), RoomError> {
        let Ok(guard) = self.revealing.clone().try_lock_owned() else { return Ok(()) };
        if self.context.parts.beacon.is_none() {
            return self.reveal().await;
        }
        let handle = self.clone();
        self.context.runtime.spawn(async move {
            let _guard = guard;
            if let Err(error) = handle.reveal().await {
                tracing::warn!(concert.id = %handle.concert, error = &error as &dyn std::error::Error, "the seed of a draw could not be revealed yet");
            }
        });
        Ok(())
    }

    /// Connections, entries seen, and that this instance lives.
    fn presence_inputs(&self) -> Vec<RoomInput> {
        let (instance, mut inputs) = (self.context.parts.instance, Vec::new());
        let looked = self.replica().look(&*self.context.parts.clock, |room, now| {
            let silence = room.silent_since().map(|since| now - since);
            (room.heard_at(instance), room.admission().heeds_health(), !room.is_empty(), silence, now)
        });
        let mut presence = lock(&self.presence);
        let Some((heard_at, heeds_health, is_used, silence, now)) = looked else { return inputs };
        // An instance's health matters to a room with entries that wait or have their turn.
        if heard_at.is_none() && (presence.has_connections() || heeds_health && is_used) {
            inputs.push(RoomInput::Appear { instance });
            presence.mark_all_changed();
        }
        let (connected, disconnected) = presence.take_changed();
        let is_there = presence.has_connections();
        if !connected.is_empty() {
            inputs.push(RoomInput::Connect { instance, entries: connected });
        }
        if !disconnected.is_empty() {
            inputs.push(RoomInput::Disconnect { instance, entries: disconnected });
        }
        let seen = presence.take_seen();
        if !seen.is_empty() {
            inputs.push(RoomInput::Seen { entries: seen });
        }
        drop(presence);
        let (silent_for, most) = (heard_at.map_or(TimeDelta::MAX, |at| now - at), TimeDelta::seconds(INSTANCE_REPORTS_S));
        if heeds_health && is_used && silent_for >= TimeDelta::seconds(1) {
            inputs.push(RoomInput::Report { instance, health: *lock(&self.context.health) });
        } else if inputs.is_empty() && (is_there && silent_for >= most || is_used && silence.is_some_and(|silence| silence >= most)) {
            // Also without connections, unless the room is empty: if all were silent, none could be known to have
            // crashed.
            inputs.push(RoomInput::Report { instance, health: None });
        }
        inputs
    }

    /// These could not be appended: the next step appends what is true by then.
    fn put_back(&self, inputs: Vec<RoomInput>) {
        let mut presence = lock(&self.presence);
        for input in inputs {
            match input {
                RoomInput::Connect { entries, .. } | RoomInput::Disconnect { entries, .. } => presence.put_back(entries),
                RoomInput::Seen { entries } => entries.into_iter().for_each(|entry| presence.seen(entry)),
                _ => {}
            }
        }
    }

    /// Reveals the seed once the list of draw keys is closed and published, and the beacon, if there is one, has its
    /// value.
    async fn reveal(self: &Arc<Self>) -> Result<(), RoomError> {
        let found = self.replica().room.as_ref().and_then(|room| Some((room.terms().sale_starts_at?, room.draw()?)));
        let Some((start, DrawView { base, keys: Some(keys), .. })) = found else { return Ok(()) };
        let beacon = match &self.context.parts.beacon {
            Some(beacon) => Some(beacon.value(start).await.map_err(room_unavailable)?),
            None => None,
        };
        let seed = begin::seed(self).await.map_err(room_unavailable)?;
        if self.context.parts.log.is_volatile() {
            let record = DrawRecord { closed_at: self.now(), base, keys, seed, beacon: beacon.clone() };
            let mirror = &self.context.parts.mirror;
            // The record that was kept first decides the draw, wherever the room is built again.
            if !mirror.keep_draw(self.concert, record).await.map_err(room_unavailable)?
                && let Some(kept) = mirror.draw(self.concert).await.map_err(room_unavailable)?
            {
                return self.append(RoomInput::Reveal { seed: kept.seed, beacon: kept.beacon }).await.map(drop);
            }
        }
        self.append(RoomInput::Reveal { seed, beacon }).await.map(drop)
    }

    /// Replaces a log that has grown long by a snapshot of the room, beside the steps.
    fn compact_soon(self: &Arc<Self>) {
        let is_long = {
            let replica = self.replica();
            let room = replica.room.as_ref();
            room.is_some_and(|room| replica.since_snapshot > COMPACT_MIN + COMPACT_FACTOR * room.size())
        };
        if !is_long {
            return;
        }
        let Ok(guard) = self.compacting.clone().try_lock_owned() else { return };
        let handle = self.clone();
        self.context.runtime.spawn(async move {
            let _guard = guard;
            if let Err(error) = handle.compact().await {
                tracing::warn!(concert.id = %handle.concert, error = &error as &dyn std::error::Error, "a waiting room's log could not be compacted");
                tokio::time::sleep(COMPACT_AGAIN).await;
            }
        });
    }

    async fn compact(self: &Arc<Self>) -> Result<(), RoomError> {
        let Some(RoomCopy { position, since_snapshot, room }) = self.copy().await? else { return Ok(()) };
        let snapshot = encode(room).await?;
        self.context.parts.log.compact(self.concert, position, snapshot).await.map_err(|error| RoomError::from(unavailable(error)))?;
        // Whichever instance was first, it is done: only what came since the copy counts.
        let mut replica = self.replica_mut();
        replica.since_snapshot = replica.since_snapshot.saturating_sub(since_snapshot);
        Ok(())
    }
}
