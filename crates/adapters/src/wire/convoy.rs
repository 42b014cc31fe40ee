//! Commands on their way to the log: what has queued for a shard while the last ones were under way goes together.
//!
//! A lone command goes alone and at once. Of a thousand callers each waits for one way to the broker and back, and most
//! of them for the rest of the one before; the broker sees a few messages ([`sequence`]) and writes them down once. So
//! what a message costs, here and there, is shared, as the ledger's readers share a commit.
//!
//! *Order.* A shard has one convoy under way, so the order of the log is that of arrival, but for commands that were here
//! at the same moment and go as several messages.
//!
//! *Bounds.* [`WAITING_MAX`] commands wait for each shard; the next is [`Unsent::Full`] at once. Who has waited for
//! [`TURN_MAX`] goes no more, [`Unsent::Late`]: nothing was sent. A convoy has [`CONVOY_MAX`] commands, a message
//! [`MESSAGE_COMMANDS_MAX`] and [`MESSAGE_BYTES_MAX`], or one command alone.
//!
//! *Failure.* The commands of a message share its fate. Whoever goes away while it waits is left behind; what is under
//! way arrives or not. A shard's task that panics is started again; what it had under way is told as [`Unsent::Late`] too,
//! and may have been sent. Dropped, nothing more is sent, and who waits is told [`Unsent::Late`].

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
/// How long a command waits for its turn. Longer, and the broker is away: the one before waits for it already.
const TURN_MAX: Duration = Duration::from_secs(4);
/// The most commands that go together. Beyond it the first wait for the broker to store the last.
const CONVOY_MAX: usize = 1_000;
/// With so many the share of each in what a message costs is small, and readers that fetch ahead by messages hold little.
const MESSAGE_COMMANDS_MAX: usize = 200;
/// Far below what a broker takes at once.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// What goes to a shard as one message.
#[derive(Debug)]
pub(crate) struct Message {
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
    async fn carry(&self, shard: usize, messages: Vec<Message>) -> Vec<Result<(), Self::Failure>>;
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

struct Waiting<F> {
    id: CommandId,
    key: Key,
    text: Vec<u8>,
    since: Instant,
    done: oneshot::Sender<Result<(), Unsent<F>>>,
}

/// See the module's opening.
pub(crate) struct Convoys<F> {
    shards: Vec<mpsc::Sender<Waiting<F>>>,
    /// Ended when dropped.
    _tasks: Vec<Kept>,
}

impl<F: Clone + Send + 'static> Convoys<F> {
    /// For so many shards, one at least, each a task that `tasks` keeps under the `broker`'s name.
    pub(crate) fn start(carrier: &Arc<impl Carrier<Failure = F>>, shards: usize, broker: &str, tasks: &dyn Tasks) -> Self {
        let start = |shard| {
            let (queue, waiting) = mpsc::channel(WAITING_MAX);
            let (carrier, waiting) = (carrier.clone(), Arc::new(Mutex::new(waiting)));
            let run = move || run(carrier.clone(), shard, waiting.clone());
            (queue, tasks.keep(format!("{broker}.append.{shard}"), WhenFailing::NotReady, run))
        };
        let (shards, tasks) = (0..shards.max(1)).map(start).unzip();
        Self { shards, _tasks: tasks }
    }

    /// Returns once a command is in the log, or may not be. `text` is one JSON text.
    pub(crate) async fn append(&self, shard: usize, id: CommandId, key: Key, text: Vec<u8>) -> Result<(), Unsent<F>> {
        let (done, outcome) = oneshot::channel();
        let waiting = Waiting { id, key, text, since: Instant::now(), done };
        self.shards[shard % self.shards.len()].try_send(waiting).map_err(|_| Unsent::Full)?;
        outcome.await.unwrap_or(Err(Unsent::Late(Duration::ZERO)))
    }
}

type Callers<F> = Vec<oneshot::Sender<Result<(), Unsent<F>>>>;

/// What a run that fails had in hand is unknown to its callers; what has queued up is for the next run.
async fn run<F: Clone + Send + 'static>(
    carrier: Arc<impl Carrier<Failure = F>>,
    shard: usize,
    waiting: Arc<Mutex<mpsc::Receiver<Waiting<F>>>>,
) -> Result<(), Source> {
    let (mut waiting, mut taken) = (waiting.lock().await, Vec::new());
    while waiting.recv_many(&mut taken, CONVOY_MAX).await > 0 {
        let (messages, callers) = load(taken.drain(..));
        if messages.is_empty() {
            continue;
        }
        let outcomes = carrier.carry(shard, messages).await;
        for (callers, outcome) in callers.into_iter().zip(outcomes) {
            let outcome = outcome.map_err(Unsent::Failed);
            for caller in callers {
                // It may have gone away.
                let _ = caller.send(outcome.clone());
            }
        }
    }
    Ok(())
}

/// Puts what still wants to go into messages, in order, each with those who wait for it.
fn load<F>(waiting: impl Iterator<Item = Waiting<F>>) -> (Vec<Message>, Vec<Callers<F>>) {
    let (mut messages, mut callers) = (Vec::new(), Vec::new());
    let (mut first, mut texts, mut some, mut bytes) = (None, Vec::new(), Vec::new(), 0);
    let now = Instant::now();
    for Waiting { id, key, text, since, done } in waiting {
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

fn message(first: &mut Option<(CommandId, Key)>, texts: &mut Vec<Vec<u8>>) -> Option<Message> {
    let (id, key) = first.take()?;
    let is_sequence = texts.len() > 1;
    let bytes = if is_sequence { sequence(texts) } else { texts.pop().unwrap_or_default() };
    texts.clear();
    Some(Message { id, key, bytes, is_sequence })
}

#[cfg(test)]
mod tests;
