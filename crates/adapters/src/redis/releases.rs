//! Notifies waiters of releases: one connection, and one channel for each key that a caller in this process waits for.
//!
//! A channel is subscribed with its first waiter and kept for [`LINGER`] after its last, because a hot key's next
//! waiter comes at once. Each channel counts its messages. A waiter remembers the count from before its try, so that no
//! message that comes meanwhile is missed. After a reconnection all waiters are notified, since messages may have been lost.
//!
//! *Failure.* Messages are hints: while the connection is away waiters poll. The connection is made again with the
//! pauses of a [`Backoff`], and pinged each [`TICK`], so that one that died silently is noticed.
//!
//! *Bounds.* There are as many channels as keys waited for in the last [`LINGER`]; the number of waiting callers is
//! bounded elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxoffice_ports::{Kept, Source, Tasks, WhenFailing};
use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::backoff::Backoff;
use super::connect::Redis;
use super::failure::{Failure, ROUND_TRIP_MAX, bounded};

/// How long a channel without waiters is kept.
const LINGER: Duration = Duration::from_secs(2);
/// How often idle channels are removed and the connection is pinged.
const TICK: Duration = Duration::from_secs(1);
/// The pauses between attempts to connect.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// The channels, and the task that receives their messages. It ends when this is dropped.
pub(super) struct Releases {
    channels: Arc<Channels>,
    _task: Kept,
}

struct Channels {
    by_name: Mutex<HashMap<String, Channel>>,
    /// A channel was added.
    added: Notify,
}

struct Channel {
    /// The number of its messages; zero until Redis has confirmed the subscription.
    messages: watch::Sender<u64>,
    waiters: usize,
    /// Since when it has no waiters.
    idle: Instant,
    /// It was subscribed to, over this connection.
    asked: bool,
}

impl Releases {
    pub(super) fn start(redis: Redis, tasks: &dyn Tasks) -> Self {
        let channels = Arc::new(Channels { by_name: Mutex::default(), added: Notify::new() });
        let listened = channels.clone();
        // Waiters poll while no messages are received.
        let task = tasks.keep("redis.releases", WhenFailing::Impaired, move || listen(listened.clone(), redis.clone()));
        Self { channels, _task: task }
    }

    /// Subscribes a waiter to a channel.
    pub(super) fn subscription(&self, channel: &str) -> Subscription {
        let mut by_name = self.channels.locked();
        let known = by_name.contains_key(channel);
        let entry = by_name.entry(channel.to_owned()).or_insert_with(Channel::new);
        entry.waiters += 1;
        let messages = entry.messages.subscribe();
        drop(by_name);
        if !known {
            self.channels.added.notify_one();
        }
        Subscription { channels: self.channels.clone(), channel: channel.to_owned(), messages }
    }
}

impl Channel {
    fn new() -> Self {
        Self { messages: watch::Sender::new(0), waiters: 0, idle: Instant::now(), asked: false }
    }
}

/// See [`Releases::subscription`].
pub(super) struct Subscription {
    channels: Arc<Channels>,
    channel: String,
    messages: watch::Receiver<u64>,
}

impl Subscription {
    /// Returns when Redis has confirmed it, or by `deadline`, or when that takes too long: the poll covers it then.
    pub(super) async fn confirmed(&mut self, deadline: Instant) {
        let soon = (Instant::now() + ROUND_TRIP_MAX).min(deadline);
        let _ = timeout_at(soon, self.messages.wait_for(|messages| *messages > 0)).await;
    }

    /// From here on every message counts.
    pub(super) fn mark(&mut self) {
        self.messages.mark_unchanged();
    }

    /// Returns once there was a message since the mark. Cancel-safe.
    pub(super) async fn notified(&mut self) {
        if self.messages.changed().await.is_err() {
            // Impossible: the entry lives as long as this.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(entry) = self.channels.locked().get_mut(&self.channel) {
            entry.waiters -= 1;
            entry.idle = Instant::now();
        }
    }
}

impl Channels {
    /// Never left half changed: no code that could panic runs while it is locked.
    fn locked(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection knows no channel.
    fn forget_connection(&self) {
        self.locked().values_mut().for_each(|entry| entry.asked = false);
    }

    /// The channels that are not subscribed to yet.
    fn to_ask(&self) -> Vec<String> {
        let mut channels = self.locked();
        let new = channels.iter_mut().filter(|(_, entry)| !entry.asked);
        new.map(|(name, entry)| {
            entry.asked = true;
            name.clone()
        })
        .collect()
    }

    fn notify(&self, channel: &str) {
        if let Some(entry) = self.locked().get(channel) {
            entry.messages.send_modify(|messages| *messages += 1);
        }
    }

    /// Removes the channels that have had no waiters for a while.
    fn take_idle(&self) -> Vec<String> {
        let mut channels = self.locked();
        let idle: Vec<_> = channels.iter().filter(|(_, entry)| entry.waiters == 0 && entry.idle.elapsed() >= LINGER).collect();
        let idle: Vec<String> = idle.into_iter().map(|(name, _)| name.clone()).collect();
        for name in &idle {
            channels.remove(name);
        }
        idle
    }
}

/// Without end: connects, receives messages, and connects again.
async fn listen(channels: Arc<Channels>, redis: Redis) -> Result<(), Source> {
    loop {
        // There is no connection before the first waiter.
        while channels.locked().is_empty() {
            channels.added.notified().await;
        }
        let mut backoff = Backoff::new(RECONNECT_PAUSE_MIN, RECONNECT_PAUSE_MAX);
        loop {
            match redis.subscriber().await {
                Ok(connection) => {
                    let (sink, stream) = connection.split();
                    channels.forget_connection();
                    let end = receive(&channels, &redis, sink, stream).await;
                    tracing::warn!(
                        error = end.err().map(|failure| failure.to_string()),
                        "the subscription to releases of locks was lost; connecting again"
                    );
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
async fn receive(channels: &Channels, redis: &Redis, mut sink: PubSubSink, mut stream: PubSubStream) -> Result<(), Failure> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let new = channels.to_ask();
        if !new.is_empty() {
            redis.counted(1);
            bounded(sink.subscribe(&new)).await?;
            new.iter().for_each(|channel| channels.notify(channel));
        }
        tokio::select! {
            () = channels.added.notified() => {}
            message = stream.next() => match message {
                Some(message) => channels.notify(message.get_channel_name()),
                None => return Ok(()),
            },
            _ = tick.tick() => {
                let idle = channels.take_idle();
                redis.counted(1);
                bounded(async {
                    if idle.is_empty() { sink.ping::<redis::Value>().await.map(drop) } else { sink.unsubscribe(&idle).await }
                })
                .await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_services::Redis as Server;
    use tokio::time::timeout;

    /// Longer than anything here needs.
    const LONG: Duration = Duration::from_secs(30);

    async fn is_notified(subscription: &mut Subscription) {
        timeout(LONG, subscription.notified()).await.expect("it is notified");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn waiters_are_notified_of_releases_and_gaps_and_idle_channels_are_removed() {
        let server = Server::start().unwrap();
        let releases = Releases::start(Redis::open(&[server.url()], Arc::default()).unwrap(), &*boxoffice_ports::contract::supervisor());
        let (mut one, mut same, mut other) = (releases.subscription("a"), releases.subscription("a"), releases.subscription("b"));
        for subscription in [&mut one, &mut same, &mut other] {
            subscription.confirmed(Instant::now() + LONG).await;
            assert_eq!(*subscription.messages.borrow(), 1, "confirmed by Redis, once");
            subscription.mark();
        }
        assert_eq!(server.command(&["PUBLISH", "a", ""]).unwrap(), ":1", "one connection receives it for all");
        is_notified(&mut one).await;
        is_notified(&mut same).await;
        assert!(!other.messages.has_changed().unwrap(), "another channel's message is not its own");

        server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
        for subscription in [&mut one, &mut same, &mut other] {
            is_notified(subscription).await;
        }

        drop((one, other));
        let deadline = Instant::now() + LONG;
        while server.command(&["PUBSUB", "CHANNELS"]).unwrap() != "*1" {
            assert!(Instant::now() < deadline, "the channel without waiters stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        same.mark();
        assert_eq!(server.command(&["PUBLISH", "a", ""]).unwrap(), ":1", "the other one is kept");
        is_notified(&mut same).await;
    }
}
