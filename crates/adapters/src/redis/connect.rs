//! One connection to Redis for all commands of a process, whatever stands behind it.
//!
//! Commands of any number of callers share one multiplexed connection; its answers come in the order of the commands,
//! so what one caller sends later is done later, also when it did not wait for the first answer. Blocking commands
//! have no place on it. Subscriptions get connections of their own.
//!
//! *Bounds.* A command, connecting included, takes at most [`ROUND_TRIP_MAX`]. A connection that breaks, or on which an
//! answer did not come in that time, is given up; the next command makes a new one, one at a time for all callers. When
//! that fails the next try waits, [`RECONNECT_PAUSE_MIN`] at first and twice as long each time up to
//! [`RECONNECT_PAUSE_MAX`], and whoever asks meanwhile is refused at once. Sentinels are asked again at each
//! connection; a master that has become a replica refuses writes, which gives up the connection too.
//!
//! *Failure.* [`Failure::Unreachable`] and [`Failure::Silent`] leave unknown whether the command was done: a server
//! that hung may do it when it wakes, even after commands sent later over another connection. Messages hold no
//! address and no password.
//!
//! *Counting.* Every command counts in `Traffic::redis_commands`, a script as one, a pipeline as what it holds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use boxoffice_ports::{StoreError, Traffic};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture, ServerErrorKind, ToRedisArgs, Value,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;

/// The longest a command may take, connecting included. Commands take well under a millisecond; a node that needs
/// longer than this hangs, and its callers have deadlines of their own.
pub(super) const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);
/// The longest one attempt to connect may take: several Sentinels may have to be asked.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The pause after the first failed attempt: a node that starts again is there soon.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause between two attempts: who comes back is noticed within it.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Commands that may wait to be written before their callers wait themselves.
const WRITE_BUFFER: usize = 1_024;

/// Why something did not work in Redis.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The settings name no Redis.
    #[error("{0}")]
    Address(String),
    /// There is no connection, or it broke; whether the command was done is unknown.
    #[error("Redis cannot be reached: {0}")]
    Unreachable(#[source] RedisError),
    /// No answer in time; whether the command was done is unknown.
    #[error("Redis did not answer within {} ms", ROUND_TRIP_MAX.as_millis())]
    Silent,
    /// An attempt to connect ended by a defect; another one follows.
    #[error("connecting to Redis has failed by a defect")]
    Broken,
    /// It answered with an error, or with what makes no sense here.
    #[error("Redis refused a command: {0}")]
    Refused(#[source] RedisError),
}

impl Failure {
    /// The classes that callers tell apart: a server that may come back, and a defect.
    fn from_redis(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io
            | ErrorKind::ClusterConnectionNotFound
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::EmptySentinelList => Self::Unreachable(error),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::TryAgain,
            ) => Self::Unreachable(error),
            _ if error.is_unrecoverable_error() => Self::Unreachable(error),
            _ => Self::Refused(error),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(_) => Self::Broken(failure.into()),
            _ => Self::Unavailable(failure.into()),
        }
    }
}

/// A script, sent by its hash; sent whole where the node does not know it yet.
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }

    fn command(&self, known: bool, keys: &[String], arguments: &impl ToRedisArgs) -> Cmd {
        let mut command = if known { redis::cmd("EVALSHA") } else { redis::cmd("EVAL") };
        command.arg(if known { &self.hash } else { self.text }).arg(keys.len()).arg(keys).arg(arguments);
        command
    }
}

/// Redis, as one process sees it. Clones share the connection.
#[derive(Clone)]
pub struct Redis {
    link: Arc<Link>,
    traffic: Arc<Traffic>,
}

impl Redis {
    /// Reads the addresses; connects with the first command.
    pub fn open(urls: &[String], traffic: Arc<Traffic>) -> Result<Self, Failure> {
        let address = Arc::new(Address::parse(urls)?);
        Ok(Self { link: Arc::new(Link { address, turn: AtomicUsize::new(0), state: Mutex::new(State::INITIAL) }), traffic })
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Failure> {
        self.query::<()>(&redis::cmd("PING")).await
    }

    /// Whether the last command was answered: false while it is being reached again.
    pub(super) fn is_answering(&self) -> bool {
        matches!(*self.link.state(), State::Up(..))
    }

    /// As the server calls its version.
    pub async fn version(&self) -> Result<String, Failure> {
        let told: String = self.query(redis::cmd("INFO").arg("server")).await?;
        let named = told.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(named.unwrap_or("unknown").trim().to_owned())
    }

    /// Whether keys may lie on different nodes, so that one script cannot have them all.
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

    /// Counts what is sent over a connection of [`Redis::subscriber`].
    pub(super) fn counted(&self, commands: u64) {
        self.traffic.redis_commands(commands);
    }

    /// A connection of its own for subscriptions. It does not connect again by itself.
    pub(super) async fn subscriber(&self) -> Result<PubSub, Failure> {
        self.link.subscriber().await
    }
}

/// A connection that can be shared.
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
    /// Counts connections: which of several Sentinels or seeds to begin with, and which connection a caller had.
    turn: AtomicUsize,
    state: Mutex<State>,
}

/// The attempt under way, for everybody who waits for it.
type Attempt = Shared<BoxFuture<'static, Result<(usize, Channel), Failure>>>;

enum State {
    /// Since how many attempts, until when no other one is made, and what the last one said.
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
        let (turn, mut channel) = timeout_at(deadline, self.channel()).await.map_err(|_| Failure::Silent)??;
        let answer = timeout_at(deadline, command(&mut channel)).await;
        let answer = answer.map_or(Err(Failure::Silent), |answer| answer.map_err(Failure::from_redis));
        if let Err(Failure::Unreachable(_) | Failure::Silent) = answer {
            self.give_up(turn);
        }
        answer
    }

    async fn channel(self: &Arc<Self>) -> Result<(usize, Channel), Failure> {
        let attempt = {
            let mut state = self.state();
            match &*state {
                State::Up(turn, channel) => return Ok((*turn, channel.clone())),
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

    /// In a task of its own: callers may go away, and the next ones find what it made.
    fn connect(self: &Arc<Self>, failures: u32) -> Attempt {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let link = Arc::clone(self);
        self.attempt(turn, failures, async move { link.address.connect(turn).await })
    }

    fn attempt(
        self: &Arc<Self>,
        turn: usize,
        failures: u32,
        connecting: impl Future<Output = redis::RedisResult<Channel>> + Send + 'static,
    ) -> Attempt {
        let (tell, told) = oneshot::channel();
        let mut end = AttemptEnd { link: Arc::clone(self), turn, failures, made: Err(Failure::Broken) };
        tokio::spawn(async move {
            let made = timeout(CONNECT_MAX, connecting).await;
            let made = made.map_or(Err(Failure::Silent), |made| made.map_err(Failure::from_redis));
            end.made = made.clone();
            drop(end);
            // Nobody waits any more: the state says it.
            let _ = tell.send(made.map(|channel| (turn, channel)));
        });
        told.map(|told| told.unwrap_or(Err(Failure::Broken))).boxed().shared()
    }

    /// The connection of that turn is broken. A later one is left alone.
    fn give_up(&self, turn: usize) {
        let mut state = self.state();
        if matches!(&*state, State::Up(current, _) if *current == turn) {
            *state = State::INITIAL;
        }
    }

    async fn subscriber(&self) -> Result<PubSub, Failure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let made = timeout(CONNECT_MAX, async {
            match &*self.address {
                Address::Node(client) => client.get_async_pubsub().await,
                Address::Sentinel(sentinel) => sentinel.master(turn).await?.get_async_pubsub().await,
                Address::Cluster(cluster) => cluster.seed(turn).get_async_pubsub().await,
            }
        });
        made.await.map_or(Err(Failure::Silent), |made| made.map_err(Failure::from_redis))
    }

    /// Always whole: no code that could panic runs while it is locked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of an attempt, in whatever way its task ends: if that left no trace here, nobody would try again.
struct AttemptEnd {
    link: Arc<Link>,
    turn: usize,
    failures: u32,
    made: Result<Channel, Failure>,
}

impl Drop for AttemptEnd {
    fn drop(&mut self) {
        let state = match &self.made {
            Ok(channel) => State::Up(self.turn, channel.clone()),
            Err(failure) => {
                let pause = super::jittered(reconnect_pause(self.failures));
                State::Down { failures: self.failures.saturating_add(1), wait: Some((Instant::now() + pause, failure.clone())) }
            }
        };
        *self.link.state() = state;
    }
}

impl Address {
    async fn connect(&self, turn: usize) -> redis::RedisResult<Channel> {
        // The time-out is ours, so that it covers connecting too.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let config = config.set_pipeline_buffer_size(WRITE_BUFFER);
        Ok(match self {
            Self::Node(client) => Channel::Node(client.get_multiplexed_async_connection_with_config(&config).await?),
            Self::Sentinel(sentinel) => {
                Channel::Node(sentinel.master(turn).await?.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Self::Cluster(cluster) => Channel::Cluster(cluster.client.get_async_connection().await?),
        })
    }
}

/// The pause after the failure that follows `failures` others.
fn reconnect_pause(failures: u32) -> Duration {
    RECONNECT_PAUSE_MIN.saturating_mul(2u32.saturating_pow(failures)).min(RECONNECT_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_attempts_double_up_to_a_bound() {
        let pauses: Vec<_> = (0..7).map(|failures| reconnect_pause(failures).as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(reconnect_pause(u32::MAX), RECONNECT_PAUSE_MAX);
    }

    #[tokio::test]
    async fn an_attempt_that_panics_is_followed_by_another() {
        // Nothing listens at the reserved port.
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
