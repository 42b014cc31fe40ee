//! How far a reader has taken each of its partitions, and what of that it may still commit.
//!
//! A broker takes a commit from any member of the group, even for a partition that has gone to another one. So what was
//! taken from a partition is forgotten here the moment it is revoked, before its next reader begins: both happen while
//! messages are asked for, never between taking and acknowledging. Whoever does not ask for too long is expelled, and
//! then the broker refuses.
//!
//! What was acknowledged is committed again with what follows until the broker has said that it has it. A consumer that
//! hears nothing at all of a commit is stuck: it may even never begin with the partitions it is given next.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::connect::told;

/// Longer than a commit takes that waits for another coordinator and fails.
const COMMIT_MAX: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Positions {
    state: Mutex<State>,
}

/// By partition, the offset after the last message.
#[derive(Default)]
struct State {
    taken: HashMap<i32, i64>,
    acknowledged: HashMap<i32, i64>,
    /// Something that was taken is another's by now.
    lost: bool,
    /// Commits whose outcome is not known yet, and since when nothing was heard of them.
    outstanding: u32,
    silent_since: Option<Instant>,
}

/// What is to be committed now.
pub(super) struct Acknowledged {
    pub(super) next: HashMap<i32, i64>,
    pub(super) lost: bool,
}

impl Positions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn took(&self, partition: i32, offset: i64) {
        self.state().taken.insert(partition, offset + 1);
    }

    /// Says once that something was lost.
    pub(super) fn acknowledge(&self) -> Acknowledged {
        let mut state = self.state();
        let taken = std::mem::take(&mut state.taken);
        state.acknowledged.extend(taken);
        Acknowledged { next: state.acknowledged.clone(), lost: std::mem::take(&mut state.lost) }
    }

    /// A commit is on its way.
    pub(super) fn committing(&self, now: Instant) {
        let mut state = self.state();
        state.outstanding += 1;
        state.silent_since.get_or_insert(now);
    }

    /// Whether the outcome of a commit is late. Outcomes are told before messages, so whoever has just asked for messages
    /// knows of all there are.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.state().silent_since.is_some_and(|since| now.duration_since(since) > COMMIT_MAX)
    }

    fn heard(&self, now: Instant) {
        let mut state = self.state();
        state.outstanding = state.outstanding.saturating_sub(1);
        state.silent_since = (state.outstanding > 0).then_some(now);
    }

    fn committed(&self, partitions: impl Iterator<Item = (i32, i64)>) {
        let mut state = self.state();
        for (partition, next) in partitions {
            if state.acknowledged.get(&partition) == Some(&next) {
                state.acknowledged.remove(&partition);
            }
        }
    }

    fn revoked(&self, partitions: impl Iterator<Item = i32>) {
        let mut state = self.state();
        for partition in partitions {
            state.lost |= state.taken.remove(&partition).is_some();
            state.acknowledged.remove(&partition);
        }
    }
}

impl Acknowledged {
    pub(super) fn offsets(&self, topic: &str) -> KafkaResult<TopicPartitionList> {
        let mut offsets = TopicPartitionList::with_capacity(self.next.len());
        for (partition, next) in &self.next {
            offsets.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
        }
        Ok(offsets)
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

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.heard(Instant::now());
        match result {
            Ok(()) => self.committed(offsets.elements().iter().filter_map(|element| match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(next)) => Some((element.partition(), next)),
                _ => None,
            })),
            Err(error) => tracing::debug!(%error, "positions were not committed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(positions: &Positions) -> Vec<(i32, i64)> {
        let mut next: Vec<_> = positions.acknowledge().next.into_iter().collect();
        next.sort_unstable();
        next
    }

    #[test]
    fn what_was_revoked_is_not_committed_and_said_to_be_lost_once() {
        let positions = Positions::default();
        for (partition, offset) in [(1, 7), (1, 8), (2, 3)] {
            positions.took(partition, offset);
        }
        positions.revoked([1, 5].into_iter());
        let Acknowledged { next, lost } = positions.acknowledge();
        assert_eq!((next.into_iter().collect::<Vec<_>>(), lost), (vec![(2, 4)], true));
        assert!(!positions.acknowledge().lost);
        positions.revoked([2, 5].into_iter());
        let Acknowledged { next, lost } = positions.acknowledge();
        assert!(next.is_empty() && !lost, "what was acknowledged before is no loss, and another's to commit");
    }

    #[test]
    fn what_was_acknowledged_is_committed_until_the_broker_has_it() {
        let positions = Positions::default();
        positions.took(1, 7);
        positions.took(2, 3);
        assert_eq!(acknowledged(&positions), [(1, 8), (2, 4)]);
        positions.took(1, 8);
        positions.committed([(1, 8)].into_iter());
        assert_eq!(acknowledged(&positions), [(1, 9), (2, 4)]);
        positions.committed([(1, 8), (2, 4)].into_iter());
        assert_eq!(acknowledged(&positions), [(1, 9)]);
        positions.committed([(1, 9)].into_iter());
        assert!(acknowledged(&positions).is_empty());
    }
    #[test]
    fn commits_of_which_nothing_is_heard_are_stuck() {
        let (positions, start) = (Positions::default(), Instant::now());
        let (soon, late) = (start + COMMIT_MAX / 2, start + COMMIT_MAX * 2);
        assert!(!positions.is_stuck(late), "nothing was committed");
        positions.committing(start);
        positions.committing(start);
        assert!(!positions.is_stuck(soon));
        assert!(positions.is_stuck(late));
        positions.heard(late);
        assert!(!positions.is_stuck(late + COMMIT_MAX / 2), "it goes on");
        assert!(positions.is_stuck(late + COMMIT_MAX * 2), "but the other one is not heard of");
        positions.heard(late + COMMIT_MAX * 2);
        assert!(!positions.is_stuck(late + COMMIT_MAX * 9));
    }
}
