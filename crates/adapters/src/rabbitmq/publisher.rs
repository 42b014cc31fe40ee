//! Messages of any number of callers, published together.
//!
//! [`PUBLISHERS`] tasks, each on a channel of its own, take the messages that queued up during the last round trip. A lone
//! caller waits for one confirm, a thousand share a few. Beyond [`WAITING_MAX`] messages the next is refused.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_ports::{Source, Tasks, Traffic, WhenFailing};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::confirm_channel::{ConfirmChannel, MESSAGES_MAX, Message};
use super::failure::Failure;
use super::link::Link;

/// Round trips under way at once: while one is confirmed the next one is written.
const PUBLISHERS: usize = 4;
/// The most messages that wait to be published; beyond it the next ones are refused as by a broker that is blocked.
const WAITING_MAX: usize = 16_384;
/// The longest a confirm may take. The connection is given up then: a broker that is merely busy confirms far sooner.
const CONFIRM_MAX: Duration = Duration::from_secs(5);
/// The longest a caller waits, its turn included.
const SEND_MAX: Duration = Duration::from_secs(10);

struct Queued {
    message: Message,
    done: oneshot::Sender<Result<(), Failure>>,
}

pub(super) struct Publisher {
    link: Link,
    queue: mpsc::Sender<Queued>,
}

impl Publisher {
    /// The tasks are kept by `tasks`, and end when this is dropped.
    pub(super) fn start(link: Link, traffic: &Arc<Traffic>, tasks: &dyn Tasks) -> Self {
        let (queue, queued) = mpsc::channel(WAITING_MAX);
        let queued = Arc::new(Mutex::new(queued));
        for at in 0..PUBLISHERS {
            let (link, queued, traffic) = (link.clone(), queued.clone(), traffic.clone());
            let run = move || run(link.clone(), queued.clone(), traffic.clone());
            tasks.keep(format!("rabbitmq.publisher.{at}"), WhenFailing::NotReady, run).detach();
        }
        Self { link, queue }
    }

    /// Returns once the broker has stored or refused the message, or has not answered for too long.
    pub(super) async fn send(&self, message: Message) -> Result<(), Failure> {
        if self.link.is_blocked() {
            return Err(Failure::Blocked);
        }
        let (done, outcome) = oneshot::channel();
        self.queue.try_send(Queued { message, done }).map_err(|_| Failure::Blocked)?;
        match timeout(SEND_MAX, outcome).await {
            Ok(outcome) => outcome.unwrap_or(Err(Failure::Unconfirmed)),
            Err(_) => Err(Failure::Silent(SEND_MAX)),
        }
    }
}

async fn run(link: Link, queued: Arc<Mutex<mpsc::Receiver<Queued>>>, traffic: Arc<Traffic>) -> Result<(), Source> {
    let mut channel = ConfirmChannel::default();
    let mut taken = Vec::with_capacity(MESSAGES_MAX);
    while queued.lock().await.recv_many(&mut taken, MESSAGES_MAX).await > 0 {
        // The message of a caller that gave up is not sent.
        let (messages, callers): (Vec<_>, Vec<_>) =
            taken.drain(..).filter(|queued| !queued.done.is_closed()).map(|queued| (queued.message, queued.done)).unzip();
        if messages.is_empty() {
            continue;
        }
        traffic.broker_messages(messages.len() as u64);
        let outcomes = channel.publish(&link, messages, CONFIRM_MAX).await;
        for (caller, outcome) in callers.into_iter().zip(outcomes) {
            // It may have given up.
            let _ = caller.send(outcome);
        }
    }
    Ok(())
}
