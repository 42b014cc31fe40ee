//! Telling those who wait how they stand, at a cost that does not grow with what there is to say.
//!
//! Whoever listens gets their own `queue` frame first: the queue object, with how many were `admitted` from their lane
//! so far. Then frames that are the same for all of their class, rendered once: how many were admitted, which places
//! left without a turn. From these everybody computes their own number:
//!
//! > `ahead` = its last value − growth of `admitted` − those of `left` that are smaller than one's place
//!
//! *Invariant.* After every frame that is exactly what the room says of the instant at which the frame was made. What a
//! frame says is read from the replica in one look, together with what departed since the look before; an own frame in
//! between whose number holds departures that the next shared frame will name is followed by another own frame in that
//! one's place. When the room has changed in a way that the formula has no word for (another replica, places given
//! back, a draw), all concerned get their own frame again.
//!
//! *Classes.* The next [`NEAR`] of a lane are told every second, those behind every five, which then cover the five.
//! What concerns somebody alone (`active`, `expired`) is told at once, and modes to everybody who waits. `seq` counts
//! without a gap; a `queue` frame begins the count anew. Counts begin anywhere, so that one that a client resumes with
//! names one stream of one instance, or nothing.
//!
//! *Failure.* News that this instance was too slow for, or another replica: own frames for everybody, in steps of
//! [`TOGETHER_MAX`]. A listener that does not take its frames is given up ([`QUEUED_MAX`]). The log away: no ticks,
//! no frames; what was said last stands.
//!
//! *Locks*, in this order: the table of channels, one channel, the replica, one listener. Frames are handed over by one
//! task, so each listener gets them in order; the first ones are put there before anybody else can.

mod channel;
mod frame;
mod listener;
mod stream;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use boxoffice_domain::waiting::Place;
use boxoffice_domain::{ConcertId, QueueEntryId, Timestamp};
use boxoffice_ports::{Kept, RoomError, Tasks, WhenFailing};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::{RoomNews, Rooms, Stats};
use channel::{Channel, Look};
pub use frame::Form;
pub use listener::{End, Listener, Next, QUEUED_MAX};

/// So many of each lane are told every second.
pub const NEAR: u64 = 10_000;
/// Own frames that are made in one look, so that nobody waits for long.
const TOGETHER_MAX: usize = 250;
/// Listeners that a shared frame is handed to before others get the processor.
const HANDED_TOGETHER: usize = 2_000;
/// Listeners of one instance; beyond it nobody is taken.
pub const LISTENERS_MAX: usize = 100_000;

/// How an entry is shown to whoever it belongs to: one JSON object of type `queue`.
pub trait OwnFrames: Send + Sync {
    fn queue(&self, concert: ConcertId, place: &Place, seq: u64, admitted: u64, now: Timestamp) -> String;
}

/// How often whom is told.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub near: Duration,
    pub far: Duration,
    /// Over how long those who waited for the sale are told of its start.
    pub spread: Duration,
    /// So many of each lane are near.
    pub nearest: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { near: Duration::from_secs(1), far: Duration::from_secs(5), spread: Duration::from_millis(1_500), nearest: NEAR }
    }
}

/// Why nobody is listened to.
#[derive(Debug, thiserror::Error)]
pub enum NotHeard {
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Too many listen, or the server ends.
    #[error("no more connections are taken")]
    Full,
}

/// See the module's opening.
pub struct Hub {
    rooms: Arc<Rooms>,
    frames: Arc<dyn OwnFrames>,
    stats: Arc<Stats>,
    pace: Pace,
    channels: RwLock<HashMap<ConcertId, Arc<Mutex<Channel>>>>,
    ids: AtomicU64,
    listeners: AtomicU64,
    closing: AtomicBool,
    /// Ends with the hub.
    task: Mutex<Option<Kept>>,
}

impl Hub {
    /// Kept by `tasks`, for as long as it is held.
    pub fn start(rooms: Arc<Rooms>, frames: Arc<dyn OwnFrames>, stats: Arc<Stats>, pace: Pace, tasks: &dyn Tasks) -> Arc<Self> {
        let mut news = Some(rooms.news());
        let hub = Arc::new(Self {
            rooms,
            frames,
            stats,
            pace,
            channels: RwLock::default(),
            ids: AtomicU64::new(1),
            listeners: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            task: Mutex::default(),
        });
        let weak: Weak<Self> = Arc::downgrade(&hub);
        let run = move || {
            // What a run that failed had heard may not have been told: the next one begins with everything.
            let first = news.take();
            let weak = weak.clone();
            async move {
                let Some(hub) = weak.upgrade() else { return Ok(()) };
                let mut news = match first {
                    Some(news) => news,
                    None => {
                        let news = hub.rooms.news();
                        hub.tell_everybody().await;
                        news
                    }
                };
                drop(hub);
                loop {
                    let heard = news.recv().await;
                    let Some(hub) = weak.upgrade() else { return Ok(()) };
                    match heard {
                        Ok(news) => hub.heard(&news).await,
                        Err(RecvError::Lagged(missed)) => {
                            tracing::warn!(missed, "listeners are told everything again");
                            hub.tell_everybody().await;
                        }
                        Err(RecvError::Closed) => return Ok(()),
                    }
                }
            }
        };
        *lock(&hub.task) = Some(tasks.keep("push", WhenFailing::NotReady, run));
        hub
    }

    /// Somebody begins to listen. With `resume`, the last `seq` they got, they get what they missed if it is known
    /// still, and their own frame otherwise. An entry that is over is told so, and that is all. `forgotten` is what an
    /// entry reads as that is not known.
    pub fn listen(
        self: &Arc<Self>,
        concert: ConcertId,
        entry: QueueEntryId,
        form: Form,
        resume: Option<u64>,
        forgotten: &Place,
    ) -> Result<Subscription, NotHeard> {
        if self.closing.load(Ordering::Acquire) || self.listeners.fetch_add(1, Ordering::AcqRel) >= LISTENERS_MAX as u64 {
            self.listeners.fetch_sub(1, Ordering::AcqRel);
            return Err(NotHeard::Full);
        }
        let listener = Listener::new(self.ids.fetch_add(1, Ordering::Relaxed), entry, form);
        self.opened(form).add(1);
        let mut subscription = Subscription { hub: self.clone(), concert, listener: listener.clone(), is_present: false };
        let channel = self.channel(concert);
        let mut channel = lock(&channel);
        let stays = self.rooms.watch(concert, |generation, room, now| {
            let is_known = room.place(entry, now).is_some();
            (is_known, channel.join(&listener, resume, &self.teller(), Look { generation, room, now }))
        });
        let (is_known, stays) = match stays {
            Err(RoomError::NoRoom) => (false, false),
            other => other?,
        };
        drop(channel);
        if !is_known {
            let seq = stream::anywhere();
            let json = self.frames.queue(concert, forgotten, seq, 0, Timestamp::UNIX_EPOCH);
            listener.push(form.encode("queue", seq, &json));
            listener.end(End::Over);
        }
        subscription.is_present = stays;
        if self.closing.load(Ordering::Acquire) {
            listener.end(End::Closing);
        }
        if subscription.is_present {
            self.rooms.connected(concert, entry);
        }
        Ok(subscription)
    }

    /// Everybody is told to go, and nobody is taken any more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        for channel in self.all() {
            lock(&channel).end_all(End::Closing);
        }
    }

    /// How many listen.
    pub fn listeners(&self) -> u64 {
        self.listeners.load(Ordering::Acquire)
    }

    fn opened(&self, form: Form) -> &crate::Gauge {
        match form {
            Form::Sse => &self.stats.sse_streams,
            Form::WebSocket => &self.stats.websockets,
        }
    }

    fn all(&self) -> Vec<Arc<Mutex<Channel>>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn known(&self, concert: ConcertId) -> Option<Arc<Mutex<Channel>>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).get(&concert).cloned()
    }

    fn channel(&self, concert: ConcertId) -> Arc<Mutex<Channel>> {
        if let Some(channel) = self.known(concert) {
            return channel;
        }
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        channels.entry(concert).or_insert_with(|| Arc::new(Mutex::new(Channel::new(concert, self.pace)))).clone()
    }

    fn teller(&self) -> Teller<'_> {
        Teller { frames: &*self.frames, stats: &self.stats }
    }

    async fn heard(&self, news: &RoomNews) {
        let Some(channel) = self.known(news.concert) else { return };
        if !news.changes.is_empty() {
            let mut channel = lock(&channel);
            if channel.is_empty() {
                return;
            }
            // Who is concerned is known from the news; how they read is looked up.
            let told = self.rooms.watch(news.concert, |generation, room, now| {
                for change in &news.changes {
                    channel.changed(change, &self.teller(), Look { generation, room, now });
                }
            });
            if told.is_err() {
                channel.distrust_all();
            }
        }
        if news.anew {
            lock(&channel).distrust_all();
        }
        if news.anew || news.changes.is_empty() {
            self.pulse(news.concert, &channel).await;
        }
    }

    /// What time brings: shared frames that are due, and own frames for whom something is different.
    async fn pulse(&self, concert: ConcertId, channel: &Mutex<Channel>) {
        let (due, alone) = {
            let mut channel = lock(channel);
            if channel.is_empty() {
                return;
            }
            let pulse = self
                .rooms
                .watch(concert, |generation, room, now| channel.pulse(&self.teller(), Instant::now(), Look { generation, room, now }));
            match pulse {
                Ok(pulse) => pulse,
                Err(_) => return,
            }
        };
        for delivery in &due {
            for some in delivery.to.chunks(HANDED_TOGETHER) {
                let sent = some.iter().filter(|listener| listener.push(delivery.frame.of(listener.form()))).count();
                self.stats.frames_sent.add(sent as u64);
                self.stats.slow_listeners.add((some.len() - sent) as u64);
                tokio::task::yield_now().await;
            }
        }
        self.tell_alone(concert, channel, &alone).await;
    }

    /// Own frames, in steps.
    async fn tell_alone(&self, concert: ConcertId, channel: &Mutex<Channel>, ids: &[u64]) {
        for some in ids.chunks(TOGETHER_MAX) {
            let told = {
                let mut channel = lock(channel);
                self.rooms.watch(concert, |generation, room, now| {
                    for id in some {
                        channel.tell_own(*id, &self.teller(), Look { generation, room, now });
                    }
                })
            };
            if told.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn tell_everybody(&self) {
        let concerts: Vec<_> = self.channels.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for concert in concerts {
            if let Some(channel) = self.known(concert) {
                lock(&channel).distrust_all();
                self.pulse(concert, &channel).await;
            }
        }
    }
}

/// What frames are made with.
struct Teller<'a> {
    frames: &'a dyn OwnFrames,
    stats: &'a Stats,
}

/// Somebody who listens. They do so until it is dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    concert: ConcertId,
    listener: Arc<Listener>,
    /// Whether their connection counts as presence.
    is_present: bool,
}

impl Subscription {
    /// The next frame, or that there is none any more.
    pub async fn next(&self) -> Next {
        self.listener.next().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(channel) = self.hub.known(self.concert) {
            lock(&channel).leave(&self.listener);
        }
        if self.is_present {
            self.hub.rooms.disconnected(self.concert, self.listener.entry());
        }
        self.hub.opened(self.listener.form()).sub(1);
        self.hub.listeners.fetch_sub(1, Ordering::AcqRel);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these mutexes can fail half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
