//! A scripted command log in memory that notes what is done with it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use boxoffice_ports::{Answer, AnswerReader, CommandLog, CommandReader, InstanceId, LogError, LoggedCommand, Source};
use tokio::sync::{mpsc, watch};

use super::number;

/// What becomes of an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Appends {
    #[default]
    Work,
    Block,
    /// It fails, and nothing was appended.
    Fail,
    /// It never returns, and nothing was appended.
    Hang,
    /// It never returns, and was appended.
    HangAppended,
}

#[derive(Default)]
struct Shard {
    left: VecDeque<LoggedCommand>,
    /// How many of them its reader has taken.
    taken: usize,
    reader: Option<u64>,
}

/// Each shard belongs to the reader that took from it first, until that is dropped.
pub(crate) struct MemoryLog {
    shards: Mutex<Vec<Shard>>,
    changed: watch::Sender<()>,
    readers: AtomicU64,
    listeners: Mutex<HashMap<InstanceId, mpsc::UnboundedSender<Vec<Answer>>>>,
    pub(crate) appends: Mutex<Appends>,
    /// Messages to other instances, and whether they get lost.
    pub(crate) sent: Mutex<Vec<(InstanceId, Vec<Answer>)>>,
    pub(crate) loses_answers: AtomicBool,
    pub(crate) acknowledging_hangs: AtomicBool,
    pub(crate) acknowledging_fails: AtomicBool,
    /// How many dead letters are refused before one is taken.
    pub(crate) dead_letter_fails: AtomicU32,
    pub(crate) dead: Mutex<Vec<(u128, String)>>,
    /// What was done, in order.
    pub(crate) steps: Mutex<Vec<String>>,
}

impl MemoryLog {
    pub(crate) fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: Mutex::new((0..shards).map(|_| Shard::default()).collect()),
            changed: watch::Sender::new(()),
            readers: AtomicU64::new(0),
            listeners: Mutex::default(),
            appends: Mutex::default(),
            sent: Mutex::default(),
            loses_answers: AtomicBool::new(false),
            acknowledging_hangs: AtomicBool::new(false),
            acknowledging_fails: AtomicBool::new(false),
            dead_letter_fails: AtomicU32::new(0),
            dead: Mutex::default(),
            steps: Mutex::default(),
        })
    }

    pub(crate) fn note(&self, step: impl Into<String>) {
        self.steps.lock().unwrap().push(step.into());
    }

    pub(crate) fn put(&self, command: LoggedCommand) {
        {
            let mut shards = self.shards.lock().unwrap();
            // The first key that the command contends for.
            let key = command.request.command.lane_key().to_string();
            let at = key.bytes().fold(0, |sum, byte| sum + usize::from(byte)) % shards.len();
            shards[at].left.push_back(command);
        }
        self.changed.send_replace(());
    }

    /// Commands that are not acknowledged.
    pub(crate) fn left(&self) -> usize {
        self.shards.lock().unwrap().iter().map(|shard| shard.left.len()).sum()
    }

    pub(crate) fn taken(&self) -> usize {
        self.shards.lock().unwrap().iter().map(|shard| shard.taken).sum()
    }

    pub(crate) fn appends(&self, appends: Appends) {
        *self.appends.lock().unwrap() = appends;
    }

    fn take(&self, reader: u64, max: usize) -> Vec<LoggedCommand> {
        let mut taken = Vec::new();
        for shard in self.shards.lock().unwrap().iter_mut() {
            if shard.left.len() > shard.taken && *shard.reader.get_or_insert(reader) == reader {
                let some = shard.left.iter().skip(shard.taken).take(max - taken.len());
                let before = taken.len();
                taken.extend(some.cloned());
                shard.taken += taken.len() - before;
            }
        }
        taken
    }

    fn of(&self, reader: u64, mut what: impl FnMut(&mut Shard)) {
        self.shards.lock().unwrap().iter_mut().filter(|shard| shard.reader == Some(reader)).for_each(&mut what);
    }
}

/// The log as one instance sees it: with one reader.
pub(crate) struct Log(pub(crate) Arc<MemoryLog>);

#[async_trait]
impl CommandLog for Log {
    async fn append(&self, command: LoggedCommand) -> Result<(), LogError> {
        let appends = *self.0.appends.lock().unwrap();
        match appends {
            Appends::Block => return Err(LogError::Blocked),
            Appends::Fail => return Err(LogError::Unavailable("gone".into())),
            Appends::Hang => std::future::pending().await,
            Appends::Work | Appends::HangAppended => self.0.put(command),
        }
        if appends == Appends::HangAppended {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn readers(&self) -> Result<Vec<Box<dyn CommandReader>>, Source> {
        let id = self.0.readers.fetch_add(1, Ordering::SeqCst);
        Ok(vec![Box::new(Reader { log: self.0.clone(), changed: self.0.changed.subscribe(), id, given: VecDeque::new() })])
    }

    async fn answer(&self, instance: InstanceId, answers: Vec<Answer>) -> Result<(), Source> {
        self.0.sent.lock().unwrap().push((instance, answers.clone()));
        if self.0.loses_answers.load(Ordering::SeqCst) {
            return Err("lost".into());
        }
        if let Some(listener) = self.0.listeners.lock().unwrap().get(&instance) {
            let _ = listener.send(answers);
        }
        Ok(())
    }

    async fn answers(&self, instance: InstanceId) -> Result<Box<dyn AnswerReader>, Source> {
        let (listener, heard) = mpsc::unbounded_channel();
        self.0.listeners.lock().unwrap().insert(instance, listener);
        Ok(Box::new(AnswerQueue(heard)))
    }
}

struct AnswerQueue(mpsc::UnboundedReceiver<Vec<Answer>>);

#[async_trait]
impl AnswerReader for AnswerQueue {
    async fn next(&mut self) -> Vec<Answer> {
        match self.0.recv().await {
            Some(answers) => answers,
            None => std::future::pending().await,
        }
    }
}

struct Reader {
    log: Arc<MemoryLog>,
    changed: watch::Receiver<()>,
    id: u64,
    /// What it took and did not acknowledge.
    given: VecDeque<LoggedCommand>,
}

#[async_trait]
impl CommandReader for Reader {
    async fn take(&mut self, max: usize) -> Vec<LoggedCommand> {
        loop {
            self.changed.mark_unchanged();
            let taken = self.log.take(self.id, max);
            if !taken.is_empty() {
                self.log.note(format!("take {}", taken.len()));
                self.given.extend(taken.iter().cloned());
                return taken;
            }
            self.changed.changed().await.unwrap();
        }
    }

    async fn acknowledge(&mut self, count: usize) -> Result<(), Source> {
        if self.log.acknowledging_hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.log.note(format!("acknowledge {count}"));
        if self.log.acknowledging_fails.load(Ordering::SeqCst) {
            return Err("the reader does not own the shard any more".into());
        }
        for _ in 0..count {
            let oldest = self.given.pop_front().expect("no more than was taken");
            self.log.of(self.id, |shard| {
                if shard.left.front().is_some_and(|command| *command == oldest) {
                    shard.left.pop_front();
                    shard.taken -= 1;
                }
            });
        }
        Ok(())
    }

    async fn acknowledge_beyond(&mut self, places: &[usize]) -> Result<(), Source> {
        assert!(places.iter().all(|place| *place > 0 && *place < self.given.len()), "behind the oldest: {places:?}");
        self.log.note(format!("beyond {}", places.len()));
        Ok(())
    }

    async fn dead_letter(&mut self, command: LoggedCommand, reason: String) -> Result<(), Source> {
        let fails = &self.log.dead_letter_fails;
        if fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err("not now".into());
        }
        self.log.note("dead letter");
        self.log.dead.lock().unwrap().push((number(&command.request), reason));
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.log.of(self.id, |shard| (shard.taken, shard.reader) = (0, None));
        self.log.changed.send_replace(());
    }
}
