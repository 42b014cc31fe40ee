//! One connection that is kept up in the background.
//!
//! A task connects, declares the topology, and then watches: when the connection ends, is given up by who waited in
//! vain, or falls silent (the heartbeat), it connects again, to the next node of a cluster each time, with pauses that
//! double from [`PAUSE_MIN`] to [`PAUSE_MAX`], each drawn anew from its upper half, so that instances that lost a broker together do not come back
//! together. Whoever wants to publish meanwhile is told at once; only the first attempt of all is waited for.
//!
//! `connection.blocked` (the broker has an alarm and reads nothing more from whoever publishes) is a state of its own
//! and no failure: the connection stays. The broker tells it at the first message after the alarm, not before.
//!
//! The task, which the supervisor keeps, ends, and the connection with it, when the last clone of the link is dropped.

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
use super::jittered;
use super::topology::Topology;

/// The longest an attempt to connect, the topology included, may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The longest that opening a channel, declaring or subscribing on it may take.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// The pause after the first failure: a broker that closed its connections is there at once.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause: a broker that comes back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A connection that lived for so long was a good one: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(10);
/// How often the connection is looked at, should its end not have been told.
const LOOK: Duration = Duration::from_secs(1);
/// How long a connection that was given up may take to say goodbye.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// One connection, from its making to its end.
pub(super) struct Session {
    number: u64,
    connection: Connection,
    given_up: Notify,
}

impl Session {
    pub(super) async fn channel(&self) -> Result<Channel, Failure> {
        self.answers(self.connection.create_channel()).await
    }

    /// What the broker says to a few questions. One that hangs is given up.
    pub(super) async fn answers<T>(&self, questions: impl Future<Output = lapin::Result<T>>) -> Result<T, Failure> {
        match timeout(OPEN_MAX, questions).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                self.give_up();
                Err(Failure::Silent(OPEN_MAX))
            }
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }

    /// It hangs: another one is made.
    pub(super) fn give_up(&self) {
        self.given_up.notify_one();
    }
}

#[derive(Clone)]
enum State {
    /// The first attempt is under way.
    Connecting,
    Up(Arc<Session>),
    Blocked(Arc<Session>),
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
        let (tell, state) = watch::channel(State::Connecting);
        let keeper = Arc::new(Keeper { address, topology: topology.clone(), purpose, tell, sessions: AtomicU64::new(0) });
        tasks.keep(format!("rabbitmq.{purpose}"), WhenFailing::NotReady, move || keeper.clone().run()).detach();
        Self { state, topology }
    }

    /// The connection, for whoever publishes and will not wait for one.
    pub(super) async fn session(&self) -> Result<Arc<Session>, Failure> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match state.as_deref() {
            Ok(State::Up(session)) => Ok(session.clone()),
            Ok(State::Blocked(_)) => Err(Failure::Blocked),
            Ok(State::Down(failure)) => Err(failure.clone()),
            Ok(State::Connecting) | Err(_) => Err(Failure::Unconfirmed),
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        matches!(*self.state.borrow(), State::Blocked(_))
    }

    /// The connection, for whoever has time.
    pub(super) async fn up(&self) -> Arc<Session> {
        let mut state = self.state.clone();
        loop {
            if let State::Up(session) | State::Blocked(session) = &*state.borrow_and_update() {
                return session.clone();
            }
            if state.changed().await.is_err() {
                // The runtime shuts down: there will be none.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when one can no longer publish over `session`.
    pub(super) async fn left(&self, session: &Session) {
        let mut state = self.state.clone();
        let left = state.wait_for(|state| !matches!(state, State::Up(current) if current.is(session))).await;
        drop(left);
    }

    /// Declares again what has turned out to be missing.
    pub(super) async fn declare(&self, session: &Session) -> Result<(), Failure> {
        declare(session, &self.topology).await
    }

    /// Whether the broker answers and takes messages.
    pub(super) async fn ping(&self) -> Result<(), Failure> {
        let session = self.session().await?;
        let channel = session.channel().await?;
        session.answers(channel.close(REPLY_SUCCESS, "OK".into())).await
    }
}
async fn declare(session: &Session, topology: &Topology) -> Result<(), Failure> {
    session.answers(topology.declare(&session.connection)).await
}

/// Closes a connection that nobody watches any more, also after a panic: the broker would keep its exclusive queue for it.
struct Goodbye(Arc<Session>);

impl Drop for Goodbye {
    fn drop(&mut self) {
        let session = self.0.clone();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // Whether it hears that makes no difference.
                let _ = timeout(CLOSE_MAX, session.connection.close(REPLY_SUCCESS, "OK".into())).await;
            });
        }
    }
}

struct Keeper {
    address: Arc<Address>,
    topology: Topology,
    purpose: &'static str,
    tell: watch::Sender<State>,
    /// How many were begun.
    sessions: AtomicU64,
}

impl Keeper {
    async fn run(self: Arc<Self>) -> Result<(), Source> {
        let mut failures = 0_u32;
        while !self.tell.is_closed() {
            let number = self.sessions.fetch_add(1, Ordering::Relaxed);
            let since = Instant::now();
            let failure = match self.connect(number).await {
                Ok(session) => {
                    let goodbye = Goodbye(session.clone());
                    tracing::info!(broker.connection = self.purpose, "connected to RabbitMQ");
                    let failure = tokio::select! {
                        failure = self.watch(&session) => failure,
                        () = self.tell.closed() => return Ok(()),
                    };
                    if since.elapsed() > STEADY {
                        failures = 0;
                    }
                    drop(goodbye);
                    failure
                }
                Err(failure) => failure,
            };
            if failures == 0 {
                tracing::warn!(broker.connection = self.purpose, error = %failure, "no connection to RabbitMQ");
            }
            self.tell.send_replace(State::Down(failure));
            let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(failures)).min(PAUSE_MAX);
            failures = failures.saturating_add(1);
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = self.tell.closed() => return Ok(()),
            }
        }
        Ok(())
    }

    async fn connect(&self, number: u64) -> Result<Arc<Session>, Failure> {
        let properties = ConnectionProperties::default().with_connection_name(format!("boxoffice {}", self.purpose).into());
        let made = async {
            let connection = Connection::connect_uri(self.address.uri(number), properties).await?;
            let session = Arc::new(Session { number, connection, given_up: Notify::new() });
            declare(&session, &self.topology).await?;
            Ok(session)
        };
        timeout(CONNECT_MAX, made).await.unwrap_or(Err(Failure::Silent(CONNECT_MAX)))
    }

    /// Tells how the connection stands, until it ends.
    async fn watch(&self, session: &Arc<Session>) -> Failure {
        let mut events = std::pin::pin!(session.connection.events_listener());
        self.tell.send_replace(State::Up(session.clone()));
        let mut last = None;
        loop {
            let status = session.connection.status();
            // An error of one channel is told here, too, and ends nothing.
            if !status.connected() {
                return last.map_or(Failure::Unconfirmed, Failure::Unreachable);
            }
            self.tell.send_if_modified(|state| {
                let next = if status.blocked() { State::Blocked(session.clone()) } else { State::Up(session.clone()) };
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
                () = session.given_up.notified() => return Failure::Silent(OPEN_MAX),
                () = sleep(LOOK) => {}
            }
        }
    }
}
