//! One connection to Redis for all commands of a process: to a node, behind Sentinel, or to a Cluster.
//!
//! Commands of any number of callers share one multiplexed connection, whose answers come in the order of the commands. So
//! the commands of one caller run in the order in which it sends them, even if it does not wait for the answers. Blocking
//! commands must not be sent over it. Subscriptions get connections of their own.
//!
//! *Bounds.* A command, connecting included, takes at most [`ROUND_TRIP_MAX`]. A connection that breaks, or on which an
//! answer did not come in that time, is given up. The next command makes a new one, one at a time for all callers. If
//! that fails the next try waits, [`RECONNECT_PAUSE_MIN`] at first and twice as long each time up to
//! [`RECONNECT_PAUSE_MAX`]; commands are refused at once meanwhile. Sentinels are asked again at each connection. A
//! master that has become a replica refuses writes, which gives up the connection too.
//!
//! *Failure.* After [`Failure::Unreachable`] and [`Failure::Silent`] it is unknown whether the command ran. A server that
//! hung may run it when it resumes, even after commands sent later over another connection.
//!
//! *Counting.* Every command counts in `Traffic::redis_commands`, a script as one, a pipeline as its commands.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxoffice_ports::Traffic;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisFuture, ServerErrorKind, ToRedisArgs, Value};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;
use super::failure::{Failure, ROUND_TRIP_MAX};
use super::script::Script;
use crate::pause::{doubled, jittered};

/// The longest one attempt to connect may take: several Sentinels may have to be asked.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The pause after the first failed attempt: a node that starts again is there soon.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two attempts: a node that is back is noticed within it.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Commands that may be queued for writing; beyond it their callers wait.
const WRITE_BUFFER: usize = 1_024;

/// The connection of this process to Redis. Clones share it.
#[derive(Clone)]
pub struct Redis {
    link: Arc<Link>,
    traffic: Arc<Traffic>,
}

impl Redis {
    /// Reads the addresses; connects with the first command.
    pub fn open(urls: &[String], traffic: Arc<Traffic>) -> Result<Self, Failure> {
        let address = Arc::new(Address::parse(urls)?);
        Ok(Self { link: Arc::new(Link { address, attempts: AtomicUsize::new(0), state: Mutex::new(State::INITIAL) }), traffic })
    }

    /// Returns once it answers.
    pub async fn ping(&self) -> Result<(), Failure> {
        self.query::<()>(&redis::cmd("PING")).await
    }

    /// Whether the last command was answered; `false` while it connects again.
    pub(super) fn is_answering(&self) -> bool {
        matches!(*self.link.state(), State::Up(..))
    }

    /// The version of the server.
    pub async fn version(&self) -> Result<String, Failure> {
        let info: String = self.query(redis::cmd("INFO").arg("server")).await?;
        let named = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(named.unwrap_or("unknown").trim().to_owned())
    }

    /// Whether keys may lie on different nodes, so that one script cannot use all of them.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(*self.link.address, Address::Cluster(_))
    }

    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        self.traffic.redis_commands(1);
        self.link.send(async |channel: &mut Channel| command.query_async(channel).await).await
    }

    /// On a Cluster all keys of `pipeline` must share a slot.
    pub(super) async fn pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, Failure> {
        self.traffic.redis_commands(pipeline.len() as u64);
        self.link.send(async |channel: &mut Channel| pipeline.query_async(channel).await).await
    }

    /// Runs a script. On a Cluster all its keys must share a slot.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &impl ToRedisArgs,
    ) -> Result<T, Failure> {
        match self.query(&script.command(true, keys, arguments)).await {
            Err(Failure::Refused(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.query(&script.command(false, keys, arguments)).await
            }
            answer => answer,
        }
    }

    /// Counts the commands that are sent over a connection of [`Redis::subscriber`].
    pub(super) fn counted(&self, commands: u64) {
        self.traffic.redis_commands(commands);
    }

    /// A separate connection for subscriptions. It does not reconnect by itself.
    pub(super) async fn subscriber(&self) -> Result<PubSub, Failure> {
        self.link.subscriber().await
    }
}

/// A connection that several callers share.
#[derive(Clone)]
enum Channel {
    Node(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Channel {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Node(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(&'a mut self, pipeline: &'a Pipeline, offset: usize, count: usize) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// The shared connection and how to make another one.
struct Link {
    address: Arc<Address>,
    /// Counts the attempts. The number of an attempt selects the first Sentinel or seed, and identifies its connection.
    attempts: AtomicUsize,
    state: Mutex<State>,
}

/// The attempt under way, for all callers that wait for it.
type Attempt = Shared<BoxFuture<'static, Result<(usize, Channel), Failure>>>;

enum State {
    /// How many attempts have failed, until when no other one is made, and why the last one failed.
    Down {
        failures: u32,
        wait: Option<(Instant, Failure)>,
    },
    Connecting(Attempt),
    Up(usize, Channel),
}

impl State {
    const INITIAL: Self = Self::Down { failures: 0, wait: None };
}

impl Link {
    async fn send<T>(self: &Arc<Self>, command: impl AsyncFnOnce(&mut Channel) -> redis::RedisResult<T>) -> Result<T, Failure> {
        let deadline = Instant::now() + ROUND_TRIP_MAX;
        let (number, mut channel) = timeout_at(deadline, self.channel()).await.map_err(|_| Failure::Silent)??;
        let answer = timeout_at(deadline, command(&mut channel)).await;
        let answer = answer.map_or(Err(Failure::Silent), |answer| answer.map_err(Failure::from_redis));
        if let Err(Failure::Unreachable(_) | Failure::Silent) = answer {
            self.give_up(number);
        }
        answer
    }

    async fn channel(self: &Arc<Self>) -> Result<(usize, Channel), Failure> {
        let attempt = {
            let mut state = self.state();
            match &*state {
                State::Up(number, channel) => return Ok((*number, channel.clone())),
                State::Connecting(attempt) => attempt.clone(),
                State::Down { wait: Some((until, last)), .. } if Instant::now() < *until => return Err(last.clone()),
                State::Down { failures, .. } => {
                    let attempt = self.connect(*failures);
                    *state = State::Connecting(attempt.clone());
                    attempt
                }
            }
        };
        attempt.await
    }

    /// In a task of its own: callers may give up, and later ones use its connection.
    fn connect(self: &Arc<Self>, failures: u32) -> Attempt {
        let number = self.attempts.fetch_add(1, Ordering::Relaxed);
        let link = Arc::clone(self);
        self.attempt(number, failures, async move { link.address.connect(number).await })
    }

    fn attempt(
        self: &Arc<Self>,
        number: usize,
        failures: u32,
        connecting: impl Future<Output = redis::RedisResult<Channel>> + Send + 'static,
    ) -> Attempt {
        let (done, outcome) = oneshot::channel();
        let mut end = AttemptEnd { link: Arc::clone(self), number, failures, made: Err(Failure::Broken) };
        tokio::spawn(async move {
            let made = timeout(CONNECT_MAX, connecting).await;
            let made = made.map_or(Err(Failure::Silent), |made| made.map_err(Failure::from_redis));
            end.made = made.clone();
            drop(end);
            // An error: no caller waits any more, and the state has the outcome.
            let _ = done.send(made.map(|channel| (number, channel)));
        });
        outcome.map(|outcome| outcome.unwrap_or(Err(Failure::Broken))).boxed().shared()
    }

    /// The connection of that attempt is broken. A later one is kept.
    fn give_up(&self, number: usize) {
        let mut state = self.state();
        if matches!(&*state, State::Up(current, _) if *current == number) {
            *state = State::INITIAL;
        }
    }

    async fn subscriber(&self) -> Result<PubSub, Failure> {
        let number = self.attempts.fetch_add(1, Ordering::Relaxed);
        let made = timeout(CONNECT_MAX, async {
            match &*self.address {
                Address::Node(client) => client.get_async_pubsub().await,
                Address::Sentinel(sentinel) => sentinel.master(number).await?.get_async_pubsub().await,
                Address::Cluster(cluster) => cluster.seed(number).get_async_pubsub().await,
            }
        });
        made.await.map_or(Err(Failure::Silent), |made| made.map_err(Failure::from_redis))
    }

    /// Never left half changed: no code that could panic runs while it is locked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records the end of an attempt, also if its task panics: otherwise no other attempt would follow.
struct AttemptEnd {
    link: Arc<Link>,
    number: usize,
    failures: u32,
    made: Result<Channel, Failure>,
}

impl Drop for AttemptEnd {
    fn drop(&mut self) {
        let state = match &self.made {
            Ok(channel) => State::Up(self.number, channel.clone()),
            Err(failure) => {
                let pause = jittered(doubled(RECONNECT_PAUSE_MIN, RECONNECT_PAUSE_MAX, self.failures));
                State::Down { failures: self.failures.saturating_add(1), wait: Some((Instant::now() + pause, failure.clone())) }
            }
        };
        *self.link.state() = state;
    }
}

impl Address {
    async fn connect(&self, number: usize) -> redis::RedisResult<Channel> {
        // The time-out is applied outside, so that it covers connecting too.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let config = config.set_pipeline_buffer_size(WRITE_BUFFER);
        Ok(match self {
            Self::Node(client) => Channel::Node(client.get_multiplexed_async_connection_with_config(&config).await?),
            Self::Sentinel(sentinel) => {
                Channel::Node(sentinel.master(number).await?.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Self::Cluster(cluster) => Channel::Cluster(cluster.client.get_async_connection().await?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_attempt_that_panics_is_followed_by_another() {
        // There is no server at the reserved port.
        let redis = Redis::open(&["redis://127.0.0.1:1".to_owned()], Arc::default()).unwrap();
        let attempt = redis.link.attempt(0, 0, async { panic!("a defect") });
        *redis.link.state() = State::Connecting(attempt.clone());
        assert!(matches!(attempt.await, Err(Failure::Broken)));
        let connects = async {
            while !matches!(redis.ping().await, Err(Failure::Unreachable(_))) {
                tokio::time::sleep(RECONNECT_PAUSE_MIN).await;
            }
        };
        timeout(Duration::from_secs(5), connects).await.expect("it connects anew, and is refused by a real socket");
    }
}
