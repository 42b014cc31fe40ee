//! How far a reader has taken each of its partitions, and what of that it may still commit.
//!
//! A broker takes a commit from any member of the group, even for a partition that has gone to another one. So what was
//! taken from a partition is forgotten here the moment it is revoked, before its next reader begins: the consumer learns
//! of it while messages are asked for. Whoever does not ask for too long is expelled, and then the broker refuses.
//!
//! What was acknowledged is committed in the background ([`Committer`]), one commit after the other and each with all that
//! came meanwhile. What failed is tried again, for as long as its partition stays.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::connect::{Failure, told};
use crate::wire::taken::Taken;

/// Longer than a commit takes that waits for another coordinator and fails.
const COMMIT_MAX: Duration = Duration::from_secs(20);
/// The pause after a commit that failed: partitions may be moving.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How many commits one after the other may fail at the end, before what was acknowledged is left to come again.
const LAST_TRIES: u32 = 3;

#[derive(Default)]
pub(super) struct Positions {
    state: Mutex<State>,
}

/// Partitions, and the offset after a message.
#[derive(Default)]
struct State {
    taken: Taken<(i32, i64)>,
    /// Of the last message of each.
    acknowledged: HashMap<i32, i64>,
    /// Something that was taken is another's by now.
    lost: bool,
    /// Since when a commit waits for its answer.
    committing_since: Option<Instant>,
}

pub(super) struct Acknowledged {
    /// There is something to commit.
    pub(super) any: bool,
    pub(super) lost: bool,
}

impl Positions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn gave(&self, commands: usize) {
        self.state().taken.gave(commands);
    }

    /// A message is over.
    pub(super) fn over(&self, partition: i32, offset: i64) {
        self.state().taken.over((partition, offset + 1));
    }

    /// Commands that were given out and not acknowledged.
    pub(super) fn outstanding(&self) -> usize {
        self.state().taken.outstanding()
    }

    /// Of the first so many commands. Says once that something was lost.
    pub(super) fn acknowledge(&self, commands: usize) -> Acknowledged {
        let state = &mut *self.state();
        state.acknowledged.extend(state.taken.acknowledge(commands));
        Acknowledged { any: !state.acknowledged.is_empty(), lost: std::mem::take(&mut state.lost) }
    }

    /// Whether a commit waits for longer than any should. One whose coordinator ended was seen to wait for ever.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.state().committing_since.is_some_and(|since| now.duration_since(since) > COMMIT_MAX)
    }

    /// What is to be committed now, from now on.
    fn begin(&self, now: Instant) -> HashMap<i32, i64> {
        let mut state = self.state();
        state.committing_since = Some(now);
        state.acknowledged.clone()
    }

    fn end(&self, committed: &HashMap<i32, i64>) {
        let mut state = self.state();
        state.committing_since = None;
        state.acknowledged.retain(|partition, next| committed.get(partition) != Some(next));
    }

    fn revoked(&self, partitions: impl Iterator<Item = i32>) {
        let mut state = self.state();
        for partition in partitions {
            state.lost |= state.taken.forget(|(of, _)| *of == partition);
            state.acknowledged.remove(&partition);
        }
    }
}

/// Commits for one consumer, in a thread: a commit with an answer blocks for as long as its coordinator is sought, and
/// one without tells nothing.
pub(super) struct Committer {
    more: Sender<()>,
    thread: JoinHandle<()>,
}

impl Committer {
    pub(super) fn start(consumer: Arc<StreamConsumer<Positions>>, topic: String) -> Result<Self, Failure> {
        Self::start_with(move |asked| commit_all(&consumer, &topic, asked))
    }

    fn start_with(commit_all: impl FnOnce(&Receiver<()>) + Send + 'static) -> Result<Self, Failure> {
        let (more, asked) = channel();
        let thread = thread::Builder::new().name("kafka-commit".to_owned()).spawn(move || commit_all(&asked));
        Ok(Self { more, thread: thread.map_err(Failure::Thread)? })
    }

    /// Commits what was acknowledged, soon.
    pub(super) fn commit(&self) {
        // It ends with this alone.
        let _ = self.more.send(());
    }

    /// It commits no more: a defect has ended it.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until what was acknowledged is committed, or could not be.
    pub(super) fn finish(self) {
        drop(self.more);
        let _ = self.thread.join();
    }
}

fn commit_all(consumer: &StreamConsumer<Positions>, topic: &str, asked: &Receiver<()>) {
    let mut failures = 0;
    loop {
        let goes_on = if failures == 0 {
            asked.recv().is_ok()
        } else {
            thread::sleep(AGAIN_AFTER);
            asked.try_recv() != Err(TryRecvError::Disconnected)
        };
        while asked.try_recv().is_ok() {}
        if !goes_on && (failures == 0 || failures >= LAST_TRIES) {
            return;
        }
        let positions = consumer.context();
        let mut next = positions.begin(Instant::now());
        match commit(consumer, topic, &next) {
            Ok(()) => failures = 0,
            Err(error) => {
                tracing::debug!(%error, "positions were not committed");
                failures += 1;
                next.clear();
            }
        }
        positions.end(&next);
    }
}

fn commit(consumer: &StreamConsumer<Positions>, topic: &str, next: &HashMap<i32, i64>) -> KafkaResult<()> {
    if next.is_empty() {
        return Ok(());
    }
    let mut offsets = TopicPartitionList::with_capacity(next.len());
    for (partition, next) in next {
        offsets.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
    }
    match consumer.commit(&offsets, CommitMode::Sync) {
        // It was there already.
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
        committed => committed,
    }
}

impl ClientContext for Positions {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        told(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Positions {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.revoked(partitions.elements().iter().map(|element| element.partition()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(positions: &Positions) -> Vec<(i32, i64)> {
        let mut next: Vec<_> = positions.begin(Instant::now()).into_iter().collect();
        next.sort_unstable();
        next
    }

    fn took(positions: &Positions, partition: i32, offset: i64) {
        positions.gave(1);
        positions.over(partition, offset);
    }

    #[test]
    fn a_committer_that_panicked_is_known_to_have_ended() {
        let lives = Committer::start_with(|asked| while asked.recv().is_ok() {}).unwrap();
        let panics = Committer::start_with(|_| panic!("a defect")).unwrap();
        let begun = Instant::now();
        while !panics.has_ended() {
            assert!(begun.elapsed() < Duration::from_secs(10));
            thread::yield_now();
        }
        assert!(!lives.has_ended());
        lives.finish();
        panics.finish();
    }

    #[test]
    fn what_was_revoked_is_not_committed_and_said_to_be_lost_once() {
        let positions = Positions::default();
        for (partition, offset) in [(1, 7), (1, 8), (2, 3)] {
            took(&positions, partition, offset);
        }
        positions.revoked([1, 5].into_iter());
        assert_eq!(positions.outstanding(), 3);
        assert!(positions.acknowledge(3).lost);
        assert_eq!(begun(&positions), [(2, 4)]);
        assert!(!positions.acknowledge(0).lost);
        positions.revoked([2, 5].into_iter());
        let Acknowledged { any, lost } = positions.acknowledge(0);
        assert!(!any && !lost, "what was acknowledged before is no loss, and another's to commit");
        assert!(begun(&positions).is_empty());
    }

    #[test]
    fn what_was_taken_ahead_is_not_committed_with_what_was_acknowledged() {
        let positions = Positions::default();
        for (partition, offset) in [(1, 7), (2, 3), (1, 8)] {
            took(&positions, partition, offset);
        }
        assert!(positions.acknowledge(2).any);
        assert_eq!(begun(&positions), [(1, 8), (2, 4)]);
        positions.revoked([1].into_iter());
        assert!(positions.acknowledge(1).lost, "the one ahead");
        assert_eq!(begun(&positions), [(2, 4)]);
    }

    #[test]
    fn what_was_acknowledged_is_committed_until_the_broker_has_it() {
        let positions = Positions::default();
        took(&positions, 1, 7);
        took(&positions, 2, 3);
        assert!(begun(&positions).is_empty(), "nothing is acknowledged");
        assert!(positions.acknowledge(2).any);
        assert_eq!(begun(&positions), [(1, 8), (2, 4)]);
        positions.end(&HashMap::new());
        assert_eq!(begun(&positions), [(1, 8), (2, 4)], "it failed");
        took(&positions, 1, 8);
        positions.acknowledge(1);
        positions.end(&HashMap::from([(1, 8), (2, 4)]));
        assert_eq!(begun(&positions), [(1, 9)]);
        positions.end(&HashMap::from([(1, 9)]));
        assert!(!positions.acknowledge(0).any);
    }

    #[test]
    fn a_commit_without_an_answer_is_stuck() {
        let (positions, start) = (Positions::default(), Instant::now());
        let (soon, late) = (start + COMMIT_MAX / 2, start + COMMIT_MAX * 2);
        assert!(!positions.is_stuck(late), "nothing is being committed");
        positions.begin(start);
        assert!(!positions.is_stuck(soon));
        assert!(positions.is_stuck(late));
        positions.end(&HashMap::new());
        assert!(!positions.is_stuck(late));
    }
}
