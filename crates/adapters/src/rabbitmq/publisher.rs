//! Messages of any number of callers, handed over in flights.
//!
//! [`PUBLISHERS`] tasks take whatever has queued up while the last flight was on its way, each on a channel of its own:
//! a lone caller waits for one confirm, a thousand share a few. Beyond [`WAITING_MAX`] messages nobody else is taken.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_ports::{Source, Tasks, Traffic, WhenFailing};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::failure::Failure;
use super::flight::{FLIGHT_MAX, Message, Runway};
use super::link::Link;

/// Flights under way at once: while one is confirmed the next one is written.
const PUBLISHERS: usize = 4;
/// The most messages that wait to be handed over; beyond it the next ones are refused as by a broker that is blocked.
const WAITING_MAX: usize = 16_384;
/// The longest a flight may take. The connection is given up then: a broker that is merely busy confirms far sooner.
const CONFIRM_MAX: Duration = Duration::from_secs(5);
/// The longest a caller waits, its turn included.
const SEND_MAX: Duration = Duration::from_secs(10);

struct Order {
    message: Message,
    done: oneshot::Sender<Result<(), Failure>>,
}

pub(super) struct Publisher {
    link: Link,
    orders: mpsc::Sender<Order>,
}

impl Publisher {
    /// The tasks are kept by `tasks`, and end with this.
    pub(super) fn start(link: Link, traffic: &Arc<Traffic>, tasks: &dyn Tasks) -> Self {
        let (orders, taken) = mpsc::channel(WAITING_MAX);
        let taken = Arc::new(Mutex::new(taken));
        for at in 0..PUBLISHERS {
            let (link, taken, traffic) = (link.clone(), taken.clone(), traffic.clone());
            let run = move || publish(link.clone(), taken.clone(), traffic.clone());
            tasks.keep(format!("rabbitmq.publisher.{at}"), WhenFailing::NotReady, run).detach();
        }
        Self { link, orders }
    }

    /// Returns once the broker has stored the message, or is known not to, or nothing is known for too long.
    pub(super) async fn send(&self, message: Message) -> Result<(), Failure> {
        if self.link.is_blocked() {
            return Err(Failure::Blocked);
        }
        let (done, outcome) = oneshot::channel();
        self.orders.try_send(Order { message, done }).map_err(|_| Failure::Blocked)?;
        match timeout(SEND_MAX, outcome).await {
            Ok(outcome) => outcome.unwrap_or(Err(Failure::Unconfirmed)),
            Err(_) => Err(Failure::Silent(SEND_MAX)),
        }
    }
}

async fn publish(link: Link, orders: Arc<Mutex<mpsc::Receiver<Order>>>, traffic: Arc<Traffic>) -> Result<(), Source> {
    let mut runway = Runway::default();
    let mut taken = Vec::with_capacity(FLIGHT_MAX);
    while orders.lock().await.recv_many(&mut taken, FLIGHT_MAX).await > 0 {
        // Whoever went away while it waited wants nothing any more.
        let (messages, callers): (Vec<_>, Vec<_>) =
            taken.drain(..).filter(|order| !order.done.is_closed()).map(|order| (order.message, order.done)).unzip();
        if messages.is_empty() {
            continue;
        }
        traffic.broker_messages(messages.len() as u64);
        let outcomes = runway.fly(&link, messages, CONFIRM_MAX).await;
        for (caller, outcome) in callers.into_iter().zip(outcomes) {
            // It may have gone away.
            let _ = caller.send(outcome);
        }
    }
    Ok(())
}
