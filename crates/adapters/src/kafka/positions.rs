//! How far a reader has taken each of its partitions, and what of that it may still commit.
//!
//! A broker takes a commit from any member of the group, even for a partition that has gone to another one. So what was
//! taken from a partition is forgotten here the moment it is revoked, before its next reader begins: both happen while
//! messages are asked for, never between taking and acknowledging. Whoever does not ask for too long is expelled, and
//! then the broker refuses.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::connect::told;

#[derive(Default)]
pub(super) struct Positions {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// The offset after the last one taken.
    next: HashMap<i32, i64>,
    /// Something that was taken is another's by now.
    lost: bool,
}

/// What is to be committed.
pub(super) struct Commit {
    next: HashMap<i32, i64>,
    pub(super) lost: bool,
}

impl Positions {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn took(&self, partition: i32, offset: i64) {
        self.taken().next.insert(partition, offset + 1);
    }

    /// Says once that something was lost.
    pub(super) fn commit(&self) -> Commit {
        let mut taken = self.taken();
        Commit { next: taken.next.clone(), lost: std::mem::take(&mut taken.lost) }
    }

    /// What was committed need not be again.
    pub(super) fn committed(&self, commit: &Commit) {
        self.taken().next.retain(|partition, next| commit.next.get(partition) != Some(next));
    }

    fn revoked(&self, partitions: impl Iterator<Item = i32>) {
        let mut taken = self.taken();
        for partition in partitions {
            taken.lost |= taken.next.remove(&partition).is_some();
        }
    }
}

impl Commit {
    pub(super) fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    pub(super) fn offsets(&self, topic: &str) -> Result<TopicPartitionList, KafkaError> {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(positions: &Positions) -> Vec<(i32, i64)> {
        let mut next: Vec<_> = positions.commit().next.into_iter().collect();
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
        let commit = positions.commit();
        assert!(commit.lost);
        assert_eq!(committed(&positions), [(2, 4)]);
        assert!(!positions.commit().lost);
        positions.revoked([5].into_iter());
        assert!(!positions.commit().lost, "nothing was taken from it");
    }

    #[test]
    fn what_was_taken_during_a_commit_is_left_for_the_next() {
        let positions = Positions::default();
        positions.took(1, 7);
        positions.took(2, 3);
        let commit = positions.commit();
        positions.took(1, 8);
        positions.committed(&commit);
        assert_eq!(committed(&positions), [(1, 9)]);
        positions.committed(&positions.commit());
        assert!(positions.commit().is_empty());
    }
}
