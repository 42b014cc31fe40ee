//! Readers at work, and what they took.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boxoffice_domain::{CommandId, Key};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::case::{LONG, TAKEN_MAX, key, readers};
use crate::{CommandLog, CommandReader, LoggedCommand};

/// How long one reader is asked before the next.
const POLL: Duration = Duration::from_millis(20);

/// Without what came again.
pub(super) fn firsts(all: &[LoggedCommand]) -> Vec<LoggedCommand> {
    let mut seen = BTreeSet::new();
    all.iter().filter(|command| seen.insert(command.request.command_id)).cloned().collect()
}

/// Each key's commands in the order they were first taken.
pub(super) fn by_key(all: &[LoggedCommand]) -> BTreeMap<Key, Vec<LoggedCommand>> {
    let mut by_key: BTreeMap<Key, Vec<LoggedCommand>> = BTreeMap::new();
    for command in firsts(all) {
        by_key.entry(key(&command)).or_default().push(command);
    }
    by_key
}

pub(super) fn ids(of: &[LoggedCommand]) -> BTreeSet<CommandId> {
    of.iter().map(|command| command.request.command_id).collect()
}

/// What the first reader that has something takes, and which one that is.
pub(super) async fn take_first(readers: &mut [Box<dyn CommandReader>], max: usize) -> (usize, Vec<LoggedCommand>) {
    let taken = async {
        for at in (0..readers.len()).cycle() {
            if let Ok(batch) = timeout(POLL, readers[at].take(max)).await {
                return (at, batch);
            }
        }
        panic!("there are no readers");
    };
    timeout(LONG, taken).await.expect("something arrives")
}

/// What readers took, in that order, and what of it was acknowledged.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) all: Vec<LoggedCommand>,
    acknowledged: BTreeSet<CommandId>,
}

/// Readers at work, each in a task of its own.
pub(super) struct Taking {
    taken: Arc<Mutex<Taken>>,
    more: Arc<Notify>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Box<dyn CommandReader>>,
}

impl Taking {
    /// Each takes `max` at most, and acknowledges it if `acknowledge`.
    pub(super) fn start(readers: Vec<Box<dyn CommandReader>>, max: usize, acknowledge: bool) -> Self {
        Self::start_on(Arc::default(), Arc::default(), readers, max, acknowledge)
    }

    /// Adds to what others take.
    pub(super) fn beside(&self, readers: Vec<Box<dyn CommandReader>>, max: usize, acknowledge: bool) -> Self {
        Self::start_on(self.taken.clone(), self.more.clone(), readers, max, acknowledge)
    }

    fn start_on(taken: Arc<Mutex<Taken>>, more: Arc<Notify>, readers: Vec<Box<dyn CommandReader>>, max: usize, acknowledge: bool) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for mut reader in readers {
            let (taken, more, mut stopped) = (taken.clone(), more.clone(), stopped.clone());
            tasks.spawn(async move {
                loop {
                    let batch = tokio::select! {
                        batch = reader.take(max) => batch,
                        _ = stopped.wait_for(|stop| *stop) => return reader,
                    };
                    assert!((1..=max).contains(&batch.len()), "{} were taken", batch.len());
                    let ids = ids(&batch);
                    taken.lock().expect("no panic").all.extend(batch);
                    if acknowledge {
                        match reader.acknowledge(usize::MAX).await {
                            Ok(()) => taken.lock().expect("no panic").acknowledged.extend(ids),
                            // Another reader takes it again.
                            Err(error) => println!("not acknowledged: {error}"),
                        }
                    }
                    more.notify_waiters();
                }
            });
        }
        Self { taken, more, stop, tasks }
    }

    pub(super) async fn until(&self, enough: impl Fn(&Taken) -> bool) -> Vec<LoggedCommand> {
        let arrived = async {
            loop {
                let mut more = std::pin::pin!(self.more.notified());
                more.as_mut().enable();
                {
                    let taken = self.taken.lock().expect("no panic");
                    if enough(&taken) {
                        return taken.all.clone();
                    }
                }
                more.await;
            }
        };
        if let Ok(all) = timeout(LONG, arrived).await {
            return all;
        }
        let taken = self.taken.lock().expect("no panic");
        panic!("only {} arrived, {} of them different, {} acknowledged", taken.all.len(), ids(&taken.all).len(), taken.acknowledged.len());
    }

    pub(super) async fn until_taken(&self, wanted: &[LoggedCommand]) -> Vec<LoggedCommand> {
        let wanted = ids(wanted);
        self.until(|taken| wanted.is_subset(&ids(&taken.all))).await
    }

    pub(super) async fn until_acknowledged(&self, wanted: &[LoggedCommand]) -> Vec<LoggedCommand> {
        let wanted = ids(wanted);
        self.until(|taken| wanted.is_subset(&taken.acknowledged)).await
    }

    /// Stops taking; what was begun to be acknowledged is.
    pub(super) async fn stop(self) -> Vec<Box<dyn CommandReader>> {
        self.stop.send_replace(true);
        timeout(LONG, self.tasks.join_all()).await.expect("the readers stop")
    }
}

/// Takes everything until all of `wanted` came and is acknowledged, and is gone.
pub(super) async fn drain(log: &Arc<dyn CommandLog>, wanted: &[LoggedCommand]) -> Vec<LoggedCommand> {
    let taking = Taking::start(readers(log).await, TAKEN_MAX, true);
    taking.until_acknowledged(wanted).await;
    let taken = taking.taken.clone();
    drop(taking.stop().await);
    std::mem::take(&mut taken.lock().expect("no panic").all)
}
