//! One step of a room: what this instance has noticed, what is due, what the mirror has to know.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_domain::waiting::{DrawView, INSTANCE_REPORTS_S, Room, RoomInput, RoomOutput, Stock, Ticked};
use boxoffice_ports::{DrawRecord, RoomError, StoreError};
use chrono::TimeDelta;
use tokio::time::Instant;

use super::begin;
use super::hall::{Copied, Hall, unavailable};
use super::lock;

/// A log is put together when it has grown by so many inputs, and by more than [`COMPACT_FACTOR`] for each entry.
const COMPACT_MIN: usize = 100_000;
const COMPACT_FACTOR: usize = 4;
/// How long an empty room is not stepped: what time alone brings is found then. It is also how old an answer about it may be.
const REST: Duration = Duration::from_secs(2);
/// How long the log of an empty room is not asked, so that logs that are given up when nobody touches them are kept.
const KEPT: Duration = Duration::from_secs(3_600);
/// How long no other snapshot is tried after one that failed.
const COMPACT_AGAIN: Duration = Duration::from_secs(5);

/// Noticed inputs on their way: what does not arrive, or is given up half way, is told with the next step.
struct Telling<'a> {
    hall: &'a Hall,
    inputs: Vec<RoomInput>,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.hall.tell_again(std::mem::take(&mut self.inputs));
    }
}

impl Hall {
    pub(super) async fn step(self: &Arc<Self>, stock: Stock) -> Result<Ticked, RoomError> {
        let _turn = self.stepping.lock().await;
        let mut inputs = self.noticed_inputs();
        if self.is_due(stock) {
            inputs.push(RoomInput::Tick(stock));
        }
        let mut ticked = Ticked::default();
        if inputs.is_empty() && self.rests() {
            if self.replica().heard.elapsed() > KEPT {
                self.catch_up().await?;
            }
            *lock(&self.stepped_at) = Some(Instant::now());
            return Ok(ticked);
        }
        if inputs.is_empty() {
            self.catch_up().await?;
        } else {
            let mut telling = Telling { hall: self, inputs };
            let outputs = self.tell_all(telling.inputs.clone()).await?;
            telling.inputs.clear();
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
        if self.shared.log.is_volatile() {
            self.reserve_ahead().await?;
            self.save().await?;
        }
        self.compact_soon();
        *lock(&self.stepped_at) = Some(Instant::now());
        ticked.abandoned = self.take_abandoned();
        Ok(ticked)
    }

    /// Nobody is in the room and nothing is on its way: what others tell its log is heard of when a caller asks. Most
    /// concerts' rooms are empty most of the time, and each instance has them all.
    fn rests(&self) -> bool {
        // One lock after the other: none is held while another is waited for.
        let is_quiet = self.noticed().is_quiet();
        let is_told = lock(&self.mirrored).is_told();
        let is_empty = self.replica().room.as_ref().is_some_and(|room| room.is_empty() && !room.awaits_reveal());
        is_quiet && is_told && is_empty && !self.has_abandoned()
    }

    /// Whether a step can wait: the room rests, and was stepped a moment ago.
    pub(super) fn needs_no_step(&self) -> bool {
        let stepped_at = *lock(&self.stepped_at);
        stepped_at.is_some_and(|at| at.elapsed() < REST) && self.rests()
    }

    /// Whether the log has to be asked before a caller is answered from the replica: its steps do not ask while it rests.
    pub(super) fn is_behind(&self) -> bool {
        let replica = self.replica();
        replica.heard.elapsed() > REST && replica.room.as_ref().is_none_or(Room::is_empty)
    }

    fn is_due(&self, stock: Stock) -> bool {
        self.replica().is_due(&*self.shared.clock, stock).unwrap_or(true)
    }

    /// A beacon may take its time: meanwhile the steps go on, and each asks again once this has ended.
    async fn reveal_soon(self: &Arc<Self>) -> Result<(), RoomError> {
        let Ok(turn) = self.revealing.clone().try_lock_owned() else { return Ok(()) };
        if self.shared.beacon.is_none() {
            return self.reveal().await;
        }
        let hall = self.clone();
        self.shared.runtime.spawn(async move {
            let _turn = turn;
            if let Err(error) = hall.reveal().await {
                tracing::warn!(concert.id = %hall.concert, error = &error as &dyn std::error::Error, "the draw waits");
            }
        });
        Ok(())
    }

    /// Connections, people seen, and that this instance lives.
    fn noticed_inputs(&self) -> Vec<RoomInput> {
        let (instance, mut inputs) = (self.shared.instance, Vec::new());
        let heard = self.replica().look(&*self.shared.clock, |room, now| {
            let silence = room.silent_since().map(|since| now - since);
            (room.heard_at(instance), room.admission().heeds_health(), !room.is_empty(), silence, now)
        });
        let mut noticed = self.noticed();
        let Some((heard_at, heeds_health, is_used, silence, now)) = heard else { return inputs };
        // How an instance fares matters to a room with entries that wait or have their turn.
        if heard_at.is_none() && (noticed.has_connections() || heeds_health && is_used) {
            inputs.push(RoomInput::Appear { instance });
            noticed.tell_all_again();
        }
        let (connected, disconnected) = noticed.take_changed();
        let is_there = noticed.has_connections();
        if !connected.is_empty() {
            inputs.push(RoomInput::Connect { instance, entries: connected });
        }
        if !disconnected.is_empty() {
            inputs.push(RoomInput::Disconnect { instance, entries: disconnected });
        }
        let seen = noticed.take_seen();
        if !seen.is_empty() {
            inputs.push(RoomInput::Seen { entries: seen });
        }
        drop(noticed);
        let (silent_for, most) = (heard_at.map_or(TimeDelta::MAX, |at| now - at), TimeDelta::seconds(INSTANCE_REPORTS_S));
        if heeds_health && is_used && silent_for >= TimeDelta::seconds(1) {
            inputs.push(RoomInput::Report { instance, health: *lock(&self.shared.health) });
        } else if inputs.is_empty() && (is_there && silent_for >= most || is_used && silence.is_some_and(|silence| silence >= most)) {
            // Also without connections, where anybody is in the room: a silence of all would not tell which instance has died.
            inputs.push(RoomInput::Report { instance, health: None });
        }
        inputs
    }

    /// What was noticed could not be told: it is with the next step, as it is then.
    fn tell_again(&self, inputs: Vec<RoomInput>) {
        let mut noticed = self.noticed();
        for input in inputs {
            match input {
                RoomInput::Connect { entries, .. } | RoomInput::Disconnect { entries, .. } => noticed.put_back(entries),
                RoomInput::Seen { entries } => entries.into_iter().for_each(|entry| noticed.seen(entry)),
                _ => {}
            }
        }
    }

    /// The list is closed, which everybody can see; the beacon has spoken, where there is one: the seed is revealed.
    async fn reveal(self: &Arc<Self>) -> Result<(), RoomError> {
        let found = self.replica().room.as_ref().and_then(|room| Some((room.terms().sale_starts_at?, room.draw()?)));
        let Some((start, DrawView { base, keys: Some(keys), .. })) = found else { return Ok(()) };
        let beacon = match &self.shared.beacon {
            Some(beacon) => Some(beacon.value(start).await.map_err(RoomError::Unavailable)?),
            None => None,
        };
        let seed = begin::seed(self).await.map_err(|error| RoomError::Unavailable(error.into()))?;
        if self.shared.log.is_volatile() {
            let record = DrawRecord { closed_at: self.now(), base, keys, seed, beacon: beacon.clone() };
            let (mirror, failed) = (&self.shared.mirror, |error: StoreError| RoomError::Unavailable(error.into()));
            // What was kept first is what is drawn by, wherever the room is built again.
            if !mirror.keep_draw(self.concert, record).await.map_err(failed)?
                && let Some(kept) = mirror.draw(self.concert).await.map_err(failed)?
            {
                return self.tell(RoomInput::Reveal { seed: kept.seed, beacon: kept.beacon }).await.map(drop);
            }
        }
        self.tell(RoomInput::Reveal { seed, beacon }).await.map(drop)
    }

    /// Puts the room as it is in the place of a log that has grown long, beside the steps.
    fn compact_soon(self: &Arc<Self>) {
        let is_long = {
            let replica = self.replica();
            let room = replica.room.as_ref();
            room.is_some_and(|room| replica.since_snapshot > COMPACT_MIN + COMPACT_FACTOR * room.size())
        };
        if !is_long {
            return;
        }
        let Ok(turn) = self.compacting.clone().try_lock_owned() else { return };
        let hall = self.clone();
        self.shared.runtime.spawn(async move {
            let _turn = turn;
            if let Err(error) = hall.compact().await {
                tracing::warn!(concert.id = %hall.concert, error = &error as &dyn std::error::Error, "a log could not be put together");
                tokio::time::sleep(COMPACT_AGAIN).await;
            }
        });
    }

    async fn compact(self: &Arc<Self>) -> Result<(), RoomError> {
        let Some(Copied { position, since_snapshot, room }) = self.copy().await? else { return Ok(()) };
        let snapshot = begin::encode(room).await?;
        self.shared.log.compact(self.concert, position, snapshot).await.map_err(|error| RoomError::from(unavailable(error)))?;
        // Whichever instance was first, it is done: what counts is what came since the copy.
        let mut replica = self.replica_mut();
        replica.since_snapshot = replica.since_snapshot.saturating_sub(since_snapshot);
        Ok(())
    }
}
