//! Commands on their way to the log: those that queue up for a shard during a round trip go together in the next one.
//!
//! A lone command goes alone and at once. Of a thousand callers each waits for one round trip to the broker, and most of
//! them for the rest of the one before. The broker receives a few messages ([`sequence`]) and writes them to disk once. So
//! commands share the cost of a message, here and at the broker, as the ledger's readers share a commit.
//!
//! *Order.* A shard has one convoy under way, so the order of the log is that of arrival, except among commands that go in
//! one convoy as several messages.
//!
//! *Bounds.* [`WAITING_MAX`] commands wait for each shard; the next is [`Unsent::Full`] at once. A command that has waited
//! for [`TURN_MAX`] is not sent and is [`Unsent::Late`]. A convoy has [`CONVOY_MAX`] commands; a message has
//! [`MESSAGE_COMMANDS_MAX`] and [`MESSAGE_BYTES_MAX`], or one command alone.
//!
//! *Failure.* The commands of a message share its outcome. A command whose caller gave up while it waits is not sent; one
//! that is under way arrives or not. A shard's task that panics is started again. Its commands that were under way are
//! [`Unsent::Late`] too, and may have been sent. When the convoys are dropped nothing more is sent, and waiting commands are
//! [`Unsent::Late`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use boxoffice_domain::{CommandId, Key};
use boxoffice_ports::{Kept, Source, Tasks, WhenFailing};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::sequence::sequence;

/// More than callers wait for one shard, unless the broker is away.
const WAITING_MAX: usize = 20_000;
/// How long a command waits for its turn. After that the broker is away: the convoy before already waits for it.
const TURN_MAX: Duration = Duration::from_secs(4);
/// The most commands that go together. Beyond it the first wait for the broker to store the last.
const CONVOY_MAX: usize = 1_000;
/// With so many, each has a small share in the cost of a message, and readers that fetch ahead by messages hold little.
const MESSAGE_COMMANDS_MAX: usize = 200;
/// Far below what a broker takes at once.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// What goes to a shard as one message.
#[derive(Debug)]
pub(crate) struct LogMessage {
    /// Of its first command.
    pub(crate) id: CommandId,
    pub(crate) key: Key,
    /// One command, or a sequence of them.
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_sequence: bool,
}

/// Takes messages to the log.
#[async_trait]
pub(crate) trait Carrier: Send + Sync + 'static {
    type Failure: Clone + Send + 'static;
    /// One outcome for each message, in order; durable where it is `Ok`. Bounded in time.
    async fn carry(&self, shard: usize, messages: Vec<LogMessage>) -> Vec<Result<(), Self::Failure>>;
}

/// Why a command is not known to be in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unsent<F> {
    /// Too many wait. Nothing was sent.
    Full,
    /// Its turn did not come in this time. Nothing was sent.
    Late(Duration),
    Failed(F),
}

/// A command that waits for its turn.
struct Queued<F> {
    id: CommandId,
    key: Key,
    text: Vec<u8>,
    since: Instant,
    done: oneshot::Sender<Result<(), Unsent<F>>>,
}

/// See the module's opening.
pub(crate) struct Convoys<F> {
    shards: Vec<mpsc::Sender<Queued<F>>>,
    /// Ended when dropped.
    _tasks: Vec<Kept>,
}

impl<F: Clone + Send + 'static> Convoys<F> {
    /// For so many shards, one at least, each a task that `tasks` keeps under the `broker`'s name.
    pub(crate) fn start(carrier: &Arc<impl Carrier<Failure = F>>, shards: usize, broker: &str, tasks: &dyn Tasks) -> Self {
        let start = |shard| {
            let (queue, queued) = mpsc::channel(WAITING_MAX);
            let (carrier, queued) = (carrier.clone(), Arc::new(Mutex::new(queued)));
            let run = move || run(carrier.clone(), shard, queued.clone());
            (queue, tasks.keep(format!("{broker}.append.{shard}"), WhenFailing::NotReady, run))
        };
        let (shards, tasks) = (0..shards.max(1)).map(start).unzip();
        Self { shards, _tasks: tasks }
    }

    /// Returns once a command is in the log, or may not be. `text` is one JSON text.
    pub(crate) async fn append(&self, shard: usize, id: CommandId, key: Key, text: Vec<u8>) -> Result<(), Unsent<F>> {
        let (done, outcome) = oneshot::channel();
        let queued = Queued { id, key, text, since: Instant::now(), done };
        self.shards[shard % self.shards.len()].try_send(queued).map_err(|_| Unsent::Full)?;
        outcome.await.unwrap_or(Err(Unsent::Late(Duration::ZERO)))
    }
}

type Callers<F> = Vec<oneshot::Sender<Result<(), Unsent<F>>>>;

/// If a run fails, the outcome of its convoy is unknown to the callers; commands that queued up are for the next run.
async fn run<F: Clone + Send + 'static>(
    carrier: Arc<impl Carrier<Failure = F>>,
    shard: usize,
    queued: Arc<Mutex<mpsc::Receiver<Queued<F>>>>,
) -> Result<(), Source> {
    let (mut queued, mut convoy) = (queued.lock().await, Vec::new());
    while queued.recv_many(&mut convoy, CONVOY_MAX).await > 0 {
        let (messages, callers) = load(convoy.drain(..));
        if messages.is_empty() {
            continue;
        }
        let outcomes = carrier.carry(shard, messages).await;
        for (callers, outcome) in callers.into_iter().zip(outcomes) {
            let outcome = outcome.map_err(Unsent::Failed);
            for caller in callers {
                // It may have given up.
                let _ = caller.send(outcome.clone());
            }
        }
    }
    Ok(())
}

/// Puts the commands that still wait into messages, in order, each with its callers.
fn load<F>(convoy: impl Iterator<Item = Queued<F>>) -> (Vec<LogMessage>, Vec<Callers<F>>) {
    let (mut messages, mut callers) = (Vec::new(), Vec::new());
    let (mut first, mut texts, mut some, mut bytes) = (None, Vec::new(), Vec::new(), 0);
    let now = Instant::now();
    for Queued { id, key, text, since, done } in convoy {
        if done.is_closed() {
            continue;
        }
        if now.duration_since(since) > TURN_MAX {
            let _ = done.send(Err(Unsent::Late(TURN_MAX)));
            continue;
        }
        if texts.len() >= MESSAGE_COMMANDS_MAX || bytes + text.len() > MESSAGE_BYTES_MAX {
            messages.extend(message(&mut first, &mut texts));
            callers.extend((!some.is_empty()).then(|| std::mem::take(&mut some)));
            bytes = 0;
        }
        first.get_or_insert((id, key));
        bytes += text.len();
        texts.push(text);
        some.push(done);
    }
    messages.extend(message(&mut first, &mut texts));
    callers.extend((!some.is_empty()).then_some(some));
    (messages, callers)
}

fn message(first: &mut Option<(CommandId, Key)>, texts: &mut Vec<Vec<u8>>) -> Option<LogMessage> {
    let (id, key) = first.take()?;
    let is_sequence = texts.len() > 1;
    let bytes = if is_sequence { sequence(texts) } else { texts.pop().unwrap_or_default() };
    texts.clear();
    Some(LogMessage { id, key, bytes, is_sequence })
}

#[cfg(test)]
mod tests;
