//! The listeners of an instance: one task hands them their frames.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use boxoffice_domain::waiting::Place;
use boxoffice_domain::{ConcertId, QueueEntryId, Timestamp};
use boxoffice_ports::{Kept, RoomError, Tasks, WhenFailing};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::channel::{Channel, RoomView};
use super::frame::Form;
use super::listener::{End, Listener, Next};
use super::pace::Pace;
use super::sender::{FrameSender, OwnFrames};
use super::stream;
use crate::sync::{lock, read, write};
use crate::{Gauge, RoomNews, Rooms, Stats};

/// Own frames that are made in one look: the locks are held for no longer.
const TOGETHER_MAX: usize = 250;
/// Listeners that a shared frame is handed to before others get the processor.
const HANDED_TOGETHER: usize = 2_000;
/// Listeners of one instance. Beyond it, no more are taken.
pub const LISTENERS_MAX: usize = 100_000;

/// Why a listener was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(transparent)]
    Room(#[from] RoomError),
    /// There are too many listeners, or the server stops.
    #[error("no more connections are taken")]
    Full,
}

/// See the opening of `push`.
pub struct Hub {
    rooms: Arc<Rooms>,
    frames: Arc<dyn OwnFrames>,
    stats: Arc<Stats>,
    pace: Pace,
    channels: RwLock<HashMap<ConcertId, Arc<Mutex<Channel>>>>,
    ids: AtomicU64,
    listeners: AtomicU64,
    closing: AtomicBool,
    /// Dropping it ends the task.
    task: Mutex<Option<Kept>>,
}

impl Hub {
    /// Starts the task, kept by `tasks`; it ends when the hub is dropped.
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
            // A run that failed may have received news and sent no frames: the next run refreshes every listener.
            let first = news.take();
            let weak = weak.clone();
            async move {
                let Some(hub) = weak.upgrade() else { return Ok(()) };
                let mut news = match first {
                    Some(news) => news,
                    None => {
                        let news = hub.rooms.news();
                        hub.refresh_all().await;
                        news
                    }
                };
                drop(hub);
                loop {
                    let received = news.recv().await;
                    let Some(hub) = weak.upgrade() else { return Ok(()) };
                    match received {
                        Ok(news) => hub.apply(&news).await,
                        Err(RecvError::Lagged(missed)) => {
                            tracing::warn!(missed, "news of waiting rooms were missed; every listener gets its own frame again");
                            hub.refresh_all().await;
                        }
                        Err(RecvError::Closed) => return Ok(()),
                    }
                }
            }
        };
        *lock(&hub.task) = Some(tasks.keep("push", WhenFailing::NotReady, run));
        hub
    }

    /// Adds a listener. With `resume`, the last `seq` that it got, it gets the frames that it missed if they are still
    /// known, and an own frame otherwise. For an entry that is over the own frame is the only one. An entry that is not
    /// known reads as `forgotten`.
    pub fn listen(
        self: &Arc<Self>,
        concert: ConcertId,
        entry: QueueEntryId,
        form: Form,
        resume: Option<u64>,
        forgotten: &Place,
    ) -> Result<Subscription, ListenError> {
        if self.closing.load(Ordering::Acquire) || self.listeners.fetch_add(1, Ordering::AcqRel) >= LISTENERS_MAX as u64 {
            self.listeners.fetch_sub(1, Ordering::AcqRel);
            return Err(ListenError::Full);
        }
        let listener = Listener::new(self.ids.fetch_add(1, Ordering::Relaxed), entry, form);
        self.opened(form).add(1);
        let mut subscription = Subscription { hub: self.clone(), concert, listener: listener.clone(), is_present: false };
        let channel = self.channel(concert);
        let mut channel = lock(&channel);
        let stays = self.rooms.watch(concert, |generation, room, now| {
            let is_known = room.place(entry, now).is_some();
            (is_known, channel.join(&listener, resume, &self.sender(), RoomView { generation, room, now }))
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

    /// Ends every listener, and takes no more.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        for channel in self.all() {
            lock(&channel).end_all(End::Closing);
        }
    }

    /// How many there are.
    pub fn listeners(&self) -> u64 {
        self.listeners.load(Ordering::Acquire)
    }

    fn opened(&self, form: Form) -> &Gauge {
        match form {
            Form::Sse => &self.stats.sse_streams,
            Form::WebSocket => &self.stats.websockets,
        }
    }

    fn all(&self) -> Vec<Arc<Mutex<Channel>>> {
        read(&self.channels).values().cloned().collect()
    }

    fn known(&self, concert: ConcertId) -> Option<Arc<Mutex<Channel>>> {
        read(&self.channels).get(&concert).cloned()
    }

    fn channel(&self, concert: ConcertId) -> Arc<Mutex<Channel>> {
        if let Some(channel) = self.known(concert) {
            return channel;
        }
        let mut channels = write(&self.channels);
        channels.entry(concert).or_insert_with(|| Arc::new(Mutex::new(Channel::new(concert, self.pace)))).clone()
    }

    fn sender(&self) -> FrameSender<'_> {
        FrameSender { frames: &*self.frames, stats: &self.stats }
    }

    async fn apply(&self, news: &RoomNews) {
        let Some(channel) = self.known(news.concert) else { return };
        if !news.changes.is_empty() {
            let mut channel = lock(&channel);
            if channel.is_empty() {
                return;
            }
            // The news name the entries concerned; how they read is looked up.
            let looked = self.rooms.watch(news.concert, |generation, room, now| {
                for change in &news.changes {
                    channel.changed(change, &self.sender(), RoomView { generation, room, now });
                }
            });
            if looked.is_err() {
                channel.invalidate_all();
            }
        }
        if news.replaced {
            lock(&channel).invalidate_all();
        }
        if news.replaced || news.changes.is_empty() {
            self.pulse(news.concert, &channel).await;
        }
    }

    /// Hands over the shared frames that are due, then own frames where the shared ones do not fit.
    async fn pulse(&self, concert: ConcertId, channel: &Mutex<Channel>) {
        let (due, own) = {
            let mut channel = lock(channel);
            if channel.is_empty() {
                return;
            }
            let pulse = self
                .rooms
                .watch(concert, |generation, room, now| channel.pulse(&self.sender(), Instant::now(), RoomView { generation, room, now }));
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
        self.send_own(concert, channel, &own).await;
    }

    /// Sends own frames, in steps.
    async fn send_own(&self, concert: ConcertId, channel: &Mutex<Channel>, ids: &[u64]) {
        for some in ids.chunks(TOGETHER_MAX) {
            let looked = {
                let mut channel = lock(channel);
                self.rooms.watch(concert, |generation, room, now| {
                    for id in some {
                        channel.send_own(*id, &self.sender(), RoomView { generation, room, now });
                    }
                })
            };
            if looked.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn refresh_all(&self) {
        let concerts: Vec<_> = read(&self.channels).keys().copied().collect();
        for concert in concerts {
            if let Some(channel) = self.known(concert) {
                lock(&channel).invalidate_all();
                self.pulse(concert, &channel).await;
            }
        }
    }
}

/// A listener of the hub, until this is dropped.
pub struct Subscription {
    hub: Arc<Hub>,
    concert: ConcertId,
    listener: Arc<Listener>,
    /// Whether the connection counts as presence.
    is_present: bool,
}

impl Subscription {
    /// The next frame, or why there will be no more.
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
