//! What this process hears of releases: one connection, one channel for each key that somebody here waits for.
//!
//! A channel is subscribed with its first waiter and kept for [`LINGER`] after its last, because a hot key's next
//! waiter comes at once. Each entry counts what it was told; whoever waits remembers the count from before its try, so
//! nothing told meanwhile is missed. After a reconnection everybody is told, since messages may have been lost.
//!
//! *Failure.* Messages are hints: while the connection is away waiters poll. The connection is made again with the
//! pauses of a [`Backoff`], and pinged each [`TICK`], so that one that died silently is noticed.
//!
//! *Bounds.* There are as many channels as keys waited for in the last [`LINGER`], and callers waiting are bounded
//! above.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxoffice_ports::{Kept, Source, Tasks, WhenFailing};
use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::connect::{Failure, ROUND_TRIP_MAX, Redis};
use super::lease::Backoff;

/// How long a channel nobody waits on is kept.
const LINGER: Duration = Duration::from_secs(2);
/// How often channels are looked over and the connection is pinged.
const TICK: Duration = Duration::from_secs(1);
/// The pauses between attempts to connect.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// The channels, and the task that listens to them. It ends when this is dropped.
pub(super) struct Releases {
    shared: Arc<Shared>,
    _task: Kept,
}

struct Shared {
    channels: Mutex<HashMap<String, Channel>>,
    /// A channel was added.
    added: Notify,
}

struct Channel {
    /// How often it was told; zero until Redis has confirmed the subscription.
    told: watch::Sender<u64>,
    waiters: usize,
    /// Since when nobody waits.
    idle: Instant,
    /// Redis was asked for it, over this connection.
    asked: bool,
}

impl Releases {
    pub(super) fn start(redis: Redis, tasks: &dyn Tasks) -> Self {
        let shared = Arc::new(Shared { channels: Mutex::default(), added: Notify::new() });
        let heard = shared.clone();
        // Waiters poll while nothing is heard.
        let task = tasks.keep("redis.releases", WhenFailing::Impaired, move || listen(heard.clone(), redis.clone()));
        Self { shared, _task: task }
    }

    /// A waiter's ear on a channel.
    pub(super) fn subscription(&self, channel: &str) -> Subscription {
        let mut channels = self.shared.channels();
        let known = channels.contains_key(channel);
        let entry = channels.entry(channel.to_owned()).or_insert_with(Channel::new);
        entry.waiters += 1;
        let told = entry.told.subscribe();
        drop(channels);
        if !known {
            self.shared.added.notify_one();
        }
        Subscription { shared: self.shared.clone(), channel: channel.to_owned(), told }
    }
}

impl Channel {
    fn new() -> Self {
        Self { told: watch::Sender::new(0), waiters: 0, idle: Instant::now(), asked: false }
    }
}

/// See [`Releases::subscription`].
pub(super) struct Subscription {
    shared: Arc<Shared>,
    channel: String,
    told: watch::Receiver<u64>,
}

impl Subscription {
    /// Returns when Redis has confirmed it, or by `deadline`, or when that takes too long: the poll covers it then.
    pub(super) async fn confirmed(&mut self, deadline: Instant) {
        let soon = (Instant::now() + ROUND_TRIP_MAX).min(deadline);
        let _ = tokio::time::timeout_at(soon, self.told.wait_for(|told| *told > 0)).await;
    }

    /// From here on everything told counts.
    pub(super) fn mark(&mut self) {
        self.told.mark_unchanged();
    }

    /// Returns when something was told since the mark. Cancel-safe.
    pub(super) async fn told(&mut self) {
        if self.told.changed().await.is_err() {
            // The entry lives as long as this; it cannot happen.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(entry) = self.shared.channels().get_mut(&self.channel) {
            entry.waiters -= 1;
            entry.idle = Instant::now();
        }
    }
}

impl Shared {
    /// Always whole: nothing that could panic runs while it is locked.
    fn channels(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection knows no channel.
    fn forget_connection(&self) {
        self.channels().values_mut().for_each(|entry| entry.asked = false);
    }

    /// The channels Redis was not asked for yet.
    fn to_ask(&self) -> Vec<String> {
        let mut channels = self.channels();
        let new = channels.iter_mut().filter(|(_, entry)| !entry.asked);
        new.map(|(name, entry)| {
            entry.asked = true;
            name.clone()
        })
        .collect()
    }

    fn tell(&self, channel: &str) {
        if let Some(entry) = self.channels().get(channel) {
            entry.told.send_modify(|told| *told += 1);
        }
    }

    /// Takes out the channels that nobody has waited on for a while.
    fn take_idle(&self) -> Vec<String> {
        let mut channels = self.channels();
        let idle: Vec<_> = channels.iter().filter(|(_, entry)| entry.waiters == 0 && entry.idle.elapsed() >= LINGER).collect();
        let idle: Vec<String> = idle.into_iter().map(|(name, _)| name.clone()).collect();
        for name in &idle {
            channels.remove(name);
        }
        idle
    }
}

/// For ever: connects, hears, and connects again.
async fn listen(shared: Arc<Shared>, redis: Redis) -> Result<(), Source> {
    loop {
        // The first waiter is what a connection is made for.
        while shared.channels().is_empty() {
            shared.added.notified().await;
        }
        let mut backoff = Backoff::new(RECONNECT_PAUSE_MIN, RECONNECT_PAUSE_MAX);
        loop {
            match redis.subscriber().await {
                Ok(connection) => {
                    let (sink, stream) = connection.split();
                    shared.forget_connection();
                    let why = hear(&shared, &redis, sink, stream).await;
                    tracing::warn!(error = why.map(|failure| failure.to_string()), "the releases of locks are not heard for a moment");
                    break;
                }
                Err(_) => {
                    backoff.pause(Instant::now() + RECONNECT_PAUSE_MAX).await;
                }
            }
        }
    }
}

/// Until the connection is lost.
async fn hear(shared: &Shared, redis: &Redis, mut sink: PubSubSink, mut stream: PubSubStream) -> Option<Failure> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let new = shared.to_ask();
        if !new.is_empty() {
            redis.counted(1);
            match timeout(ROUND_TRIP_MAX, sink.subscribe(&new)).await {
                Ok(Ok(())) => new.iter().for_each(|channel| shared.tell(channel)),
                Ok(Err(error)) => return Some(Failure::Unreachable(error)),
                Err(_) => return Some(Failure::Silent),
            }
        }
        tokio::select! {
            () = shared.added.notified() => {}
            message = stream.next() => shared.tell(message?.get_channel_name()),
            _ = tick.tick() => {
                let idle = shared.take_idle();
                redis.counted(1);
                let answered = timeout(ROUND_TRIP_MAX, async {
                    if idle.is_empty() { sink.ping::<redis::Value>().await.map(drop) } else { sink.unsubscribe(&idle).await }
                });
                match answered.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Some(Failure::Unreachable(error)),
                    Err(_) => return Some(Failure::Silent),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_services::Redis as Server;

    /// Longer than anything here needs.
    const LONG: Duration = Duration::from_secs(30);

    async fn told(subscription: &mut Subscription) {
        timeout(LONG, subscription.told()).await.expect("it is told");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiters_are_told_of_releases_and_of_every_gap_and_idle_channels_go() {
        let server = Server::start().unwrap();
        let releases = Releases::start(Redis::open(&[server.url()], Arc::default()).unwrap(), &*boxoffice_ports::contract::supervisor());
        let (mut one, mut same, mut other) = (releases.subscription("a"), releases.subscription("a"), releases.subscription("b"));
        for subscription in [&mut one, &mut same, &mut other] {
            subscription.confirmed(Instant::now() + LONG).await;
            assert_eq!(*subscription.told.borrow(), 1, "confirmed by Redis, once");
            subscription.mark();
        }
        assert_eq!(server.command(&["PUBLISH", "a", ""]).unwrap(), ":1", "one connection hears it for all");
        told(&mut one).await;
        told(&mut same).await;
        assert!(!other.told.has_changed().unwrap(), "another channel's message is not its own");

        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
        for subscription in [&mut one, &mut same, &mut other] {
            told(subscription).await;
        }

        drop((one, other));
        let deadline = Instant::now() + LONG;
        while server.command(&["PUBSUB", "CHANNELS"]).unwrap() != "*1" {
            assert!(Instant::now() < deadline, "the channel that nobody waits on stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        same.mark();
        assert_eq!(server.command(&["PUBLISH", "a", ""]).unwrap(), ":1", "the other one is kept");
        told(&mut same).await;
    }
}
