//! How far a reader has taken each of its partitions, and which of these positions it may still commit.
//!
//! A broker accepts a commit from any member of the group, even for a partition that has moved to another one. So the
//! positions of a partition are forgotten the moment it is revoked, before its next reader begins: the consumer learns of
//! that while it polls. A member that does not poll for too long is expelled, and then the broker refuses its commits.
//!
//! Acknowledged positions are committed in the background ([`Committer`]), one commit after the other, each with all that
//! were acknowledged meanwhile. A commit that failed is retried for as long as its partition stays.

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

use super::connect::ClientLog;
use super::failure::Failure;
use crate::wire::taken::Taken;

/// Longer than the slowest commit takes, one that waits for another coordinator and fails.
const COMMIT_MAX: Duration = Duration::from_secs(20);
/// The pause after a commit that failed: partitions may be moving.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How many commits in a row may fail while closing, before the acknowledged commands are left to come again.
const LAST_TRIES: u32 = 3;

#[derive(Default)]
pub(super) struct Positions {
    state: Mutex<State>,
}

/// Each with its partition and the offset after its message.
#[derive(Default)]
struct State {
    taken: Taken<(i32, i64)>,
    /// By partition: the offset after its last message.
    acknowledged: HashMap<i32, i64>,
    /// A partition of commands that were taken belongs to another reader by now.
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

    /// The first so many commands are decided. A loss is reported once.
    pub(super) fn acknowledge(&self, commands: usize) -> Acknowledged {
        let state = &mut *self.state();
        state.acknowledged.extend(state.taken.acknowledge(commands));
        Acknowledged { any: !state.acknowledged.is_empty(), lost: std::mem::take(&mut state.lost) }
    }

    /// Whether a commit takes longer than any should. One whose coordinator ended was seen to wait for ever.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.state().committing_since.is_some_and(|since| now.duration_since(since) > COMMIT_MAX)
    }

    /// The positions to commit; the commit begins.
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

/// Commits for one consumer, in a thread. A commit with an answer blocks while its coordinator is sought, and one without
/// an answer does not show whether it succeeded.
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

    /// Commits the acknowledged positions, soon.
    pub(super) fn commit(&self) {
        // The receiver is gone only after a defect (`has_ended`).
        let _ = self.more.send(());
    }

    /// It no longer commits: a defect has ended it.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the acknowledged positions are committed, or have failed.
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
                tracing::debug!(%error, "positions could not be committed; trying again");
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
        // It was committed already.
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
        committed => committed,
    }
}

impl ClientContext for Positions {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        ClientLog.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        ClientLog.error(error, reason);
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

    fn to_commit(positions: &Positions) -> Vec<(i32, i64)> {
        let mut next: Vec<_> = positions.begin(Instant::now()).into_iter().collect();
        next.sort_unstable();
        next
    }

    fn taken_whole(positions: &Positions, partition: i32, offset: i64) {
        positions.gave(1);
        positions.over(partition, offset);
    }

    #[test]
    fn a_committer_that_panicked_has_ended() {
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
    fn revoked_positions_are_not_committed_and_their_loss_is_reported_once() {
        let positions = Positions::default();
        for (partition, offset) in [(1, 7), (1, 8), (2, 3)] {
            taken_whole(&positions, partition, offset);
        }
        positions.revoked([1, 5].into_iter());
        assert_eq!(positions.outstanding(), 3);
        assert!(positions.acknowledge(3).lost);
        assert_eq!(to_commit(&positions), [(2, 4)]);
        assert!(!positions.acknowledge(0).lost);
        positions.revoked([2, 5].into_iter());
        let Acknowledged { any, lost } = positions.acknowledge(0);
        assert!(!any && !lost, "positions acknowledged before are no loss, and the next reader commits them");
        assert!(to_commit(&positions).is_empty());
    }

    #[test]
    fn positions_taken_ahead_are_not_committed_with_acknowledged_ones() {
        let positions = Positions::default();
        for (partition, offset) in [(1, 7), (2, 3), (1, 8)] {
            taken_whole(&positions, partition, offset);
        }
        assert!(positions.acknowledge(2).any);
        assert_eq!(to_commit(&positions), [(1, 8), (2, 4)]);
        positions.revoked([1].into_iter());
        assert!(positions.acknowledge(1).lost, "the one ahead");
        assert_eq!(to_commit(&positions), [(2, 4)]);
    }

    #[test]
    fn acknowledged_positions_are_committed_until_the_broker_has_them() {
        let positions = Positions::default();
        taken_whole(&positions, 1, 7);
        taken_whole(&positions, 2, 3);
        assert!(to_commit(&positions).is_empty(), "nothing is acknowledged");
        assert!(positions.acknowledge(2).any);
        assert_eq!(to_commit(&positions), [(1, 8), (2, 4)]);
        positions.end(&HashMap::new());
        assert_eq!(to_commit(&positions), [(1, 8), (2, 4)], "it failed");
        taken_whole(&positions, 1, 8);
        positions.acknowledge(1);
        positions.end(&HashMap::from([(1, 8), (2, 4)]));
        assert_eq!(to_commit(&positions), [(1, 9)]);
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
