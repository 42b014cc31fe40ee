//! One connection that is kept up in the background.
//!
//! A task connects, declares the topology, and then watches the connection. When it ends, falls silent (the heartbeat), or
//! is given up by a caller that waited in vain, the task connects to the next node of the cluster. The
//! pauses double from [`PAUSE_MIN`] to [`PAUSE_MAX`] and are jittered, so that instances that lost a broker together do not
//! return together. A caller that publishes meanwhile is refused at once; only the first attempt of all is waited for.
//!
//! `connection.blocked` (the broker has an alarm and reads nothing more from connections that publish) is a state of its
//! own and no failure: the connection stays. The broker reports it at the first message after the alarm, not before.
//!
//! The task, which the supervisor keeps, ends when the last clone of the link is dropped, and the connection with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use boxoffice_ports::{Source, Tasks, WhenFailing};
use futures_util::StreamExt;
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::address::Address;
use super::failure::Failure;
use super::topology::Topology;
use crate::pause::{doubled, jittered};

/// The longest an attempt to connect, the topology included, may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The longest that opening a channel, declaring or subscribing on it may take.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// The pause after the first failure: a broker that closed its connections is there at once.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause: a broker that comes back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// After a connection that lasted for so long the pauses begin anew.
const STEADY: Duration = Duration::from_secs(10);
/// How often the connection is checked, in case its end was not reported.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a connection that was given up may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// One connection, from when it is made to its end.
pub(super) struct OpenConnection {
    number: u64,
    connection: Connection,
    given_up: Notify,
}

impl OpenConnection {
    pub(super) async fn channel(&self) -> Result<Channel, Failure> {
        self.bounded(self.connection.create_channel()).await
    }

    /// The answer to a few requests, within [`OPEN_MAX`]. A connection that hangs is given up.
    pub(super) async fn bounded<T>(&self, requests: impl Future<Output = lapin::Result<T>>) -> Result<T, Failure> {
        match timeout(OPEN_MAX, requests).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                self.give_up();
                Err(Failure::Silent(OPEN_MAX))
            }
        }
    }

    pub(super) fn lapin(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }

    /// It hangs; another one is made.
    pub(super) fn give_up(&self) {
        self.given_up.notify_one();
    }
}

#[derive(Clone)]
enum State {
    /// The first attempt is under way.
    Connecting,
    Up(Arc<OpenConnection>),
    Blocked(Arc<OpenConnection>),
    Down(Failure),
}

/// See the module's opening. Clones share the connection.
#[derive(Clone)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    topology: Topology,
}

impl Link {
    /// Connects in the background; `purpose` is how the broker lists the connection.
    pub(super) fn start(address: Arc<Address>, topology: Topology, purpose: &'static str, tasks: &dyn Tasks) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let keeper = Arc::new(Keeper { address, topology: topology.clone(), purpose, state: sender, attempts: AtomicU64::new(0) });
        tasks.keep(format!("rabbitmq.{purpose}"), WhenFailing::NotReady, move || keeper.clone().run()).detach();
        Self { state, topology }
    }

    /// The connection, for publishing: without waiting for one that is down.
    pub(super) async fn connection(&self) -> Result<Arc<OpenConnection>, Failure> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match state.as_deref() {
            Ok(State::Up(connection)) => Ok(connection.clone()),
            Ok(State::Blocked(_)) => Err(Failure::Blocked),
            Ok(State::Down(failure)) => Err(failure.clone()),
            Ok(State::Connecting) | Err(_) => Err(Failure::Unconfirmed),
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        matches!(*self.state.borrow(), State::Blocked(_))
    }

    /// Waits for the connection.
    pub(super) async fn up(&self) -> Arc<OpenConnection> {
        let mut state = self.state.clone();
        loop {
            if let State::Up(connection) | State::Blocked(connection) = &*state.borrow_and_update() {
                return connection.clone();
            }
            if state.changed().await.is_err() {
                // The runtime shuts down: there will be none.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when publishing over `connection` is no longer possible.
    pub(super) async fn left(&self, connection: &OpenConnection) {
        let mut state = self.state.clone();
        let left = state.wait_for(|state| !matches!(state, State::Up(current) if current.is(connection))).await;
        drop(left);
    }

    /// Declares the queues and exchanges again after one was found missing.
    pub(super) async fn declare(&self, connection: &OpenConnection) -> Result<(), Failure> {
        declare(connection, &self.topology).await
    }

    /// Whether the broker answers and accepts messages.
    pub(super) async fn ping(&self) -> Result<(), Failure> {
        let connection = self.connection().await?;
        let channel = connection.channel().await?;
        connection.bounded(channel.close(REPLY_SUCCESS, "OK".into())).await
    }
}

async fn declare(connection: &OpenConnection, topology: &Topology) -> Result<(), Failure> {
    connection.bounded(topology.declare(connection.lapin())).await
}

/// Closes a connection that is no longer watched, also after a panic: the broker would keep its exclusive queue for it.
struct CloseOnDrop(Arc<OpenConnection>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let connection = self.0.clone();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // The connection is abandoned in any case.
                let _ = timeout(CLOSE_MAX, connection.lapin().close(REPLY_SUCCESS, "OK".into())).await;
            });
        }
    }
}

struct Keeper {
    address: Arc<Address>,
    topology: Topology,
    purpose: &'static str,
    state: watch::Sender<State>,
    /// How many were begun.
    attempts: AtomicU64,
}

impl Keeper {
    async fn run(self: Arc<Self>) -> Result<(), Source> {
        let mut failures = 0_u32;
        while !self.state.is_closed() {
            let number = self.attempts.fetch_add(1, Ordering::Relaxed);
            let since = Instant::now();
            let failure = match self.connect(number).await {
                Ok(connection) => {
                    let closing = CloseOnDrop(connection.clone());
                    tracing::info!(broker.connection = self.purpose, "connected to RabbitMQ");
                    let failure = tokio::select! {
                        failure = self.watch(&connection) => failure,
                        () = self.state.closed() => return Ok(()),
                    };
                    if since.elapsed() > STEADY {
                        failures = 0;
                    }
                    drop(closing);
                    failure
                }
                Err(failure) => failure,
            };
            if failures == 0 {
                tracing::warn!(broker.connection = self.purpose, error = %failure, "no connection to RabbitMQ");
            }
            self.state.send_replace(State::Down(failure));
            let pause = doubled(PAUSE_MIN, PAUSE_MAX, failures);
            failures = failures.saturating_add(1);
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = self.state.closed() => return Ok(()),
            }
        }
        Ok(())
    }

    async fn connect(&self, number: u64) -> Result<Arc<OpenConnection>, Failure> {
        let properties = ConnectionProperties::default().with_connection_name(format!("boxoffice {}", self.purpose).into());
        let made = async {
            let connection = Connection::connect_uri(self.address.uri(number), properties).await?;
            let connection = Arc::new(OpenConnection { number, connection, given_up: Notify::new() });
            declare(&connection, &self.topology).await?;
            Ok(connection)
        };
        timeout(CONNECT_MAX, made).await.unwrap_or(Err(Failure::Silent(CONNECT_MAX)))
    }

    /// Keeps the state of the connection current, until it ends.
    async fn watch(&self, connection: &Arc<OpenConnection>) -> Failure {
        let mut events = std::pin::pin!(connection.lapin().events_listener());
        self.state.send_replace(State::Up(connection.clone()));
        let mut last = None;
        loop {
            let status = connection.lapin().status();
            // An error of one channel is an event here, too, and ends nothing.
            if !status.connected() {
                return last.map_or(Failure::Unconfirmed, Failure::Unreachable);
            }
            self.state.send_if_modified(|state| {
                let next = if status.blocked() { State::Blocked(connection.clone()) } else { State::Up(connection.clone()) };
                let changed = std::mem::discriminant(state) != std::mem::discriminant(&next);
                if changed {
                    *state = next;
                }
                changed
            });
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Error(error)) => last = Some(error),
                    Some(_) => {}
                    None => return Failure::Unconfirmed,
                },
                () = connection.given_up.notified() => return Failure::Silent(OPEN_MAX),
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }
}
