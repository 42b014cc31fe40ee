//! The commands that a reader of a log has handed out and that are not acknowledged, and where each message ends.
//!
//! Commands are acknowledged by count, a log knows messages, and a message may hold several commands. So a message counts
//! as decided once all commands are that were handed out up to its end. In a log that acknowledges messages one by one, it
//! also counts once all of its own commands are.

use std::collections::{BTreeSet, VecDeque};

/// `E`: the end of a message, as the log counts it.
#[derive(Debug)]
pub(crate) struct Taken<E> {
    /// Commands handed out since the beginning.
    given: u64,
    acknowledged: u64,
    /// Each with the count of `given` by then.
    ends: VecDeque<(u64, E)>,
    /// The commands that are decided though some before them are not, by the count of `given` with them.
    beyond: BTreeSet<u64>,
}

impl<E> Default for Taken<E> {
    fn default() -> Self {
        Self { given: 0, acknowledged: 0, ends: VecDeque::new(), beyond: BTreeSet::new() }
    }
}

impl<E> Taken<E> {
    pub(crate) fn gave(&mut self, commands: usize) {
        self.given += commands as u64;
    }

    /// A message has ended: its last command was handed out, or it had none.
    pub(crate) fn over(&mut self, end: E) {
        self.ends.push_back((self.given, end));
    }

    /// How many commands are not acknowledged.
    pub(crate) fn outstanding(&self) -> usize {
        // That many commands were in memory.
        (self.given - self.acknowledged) as usize
    }

    /// The first so many commands are decided. Returns the messages that are decided with them, in order.
    pub(crate) fn acknowledge(&mut self, commands: usize) -> impl Iterator<Item = E> {
        self.acknowledged = self.given.min(self.acknowledged.saturating_add(commands as u64));
        self.beyond = self.beyond.split_off(&(self.acknowledged + 1));
        let decided = self.ends.partition_point(|(given, _)| *given <= self.acknowledged);
        self.ends.drain(..decided).map(|(_, end)| end)
    }

    /// The commands at `places` are decided, `0` being the oldest that is not acknowledged. Returns the messages of which all
    /// commands are decided; a message without commands of its own stays.
    pub(crate) fn acknowledge_beyond(&mut self, places: &[usize]) -> Vec<E> {
        self.beyond.extend(places.iter().map(|place| self.acknowledged + *place as u64 + 1));
        let (mut decided, mut begin) = (Vec::new(), self.acknowledged);
        for (given, end) in std::mem::take(&mut self.ends) {
            let is_decided = given > begin && (begin + 1..=given).all(|command| self.beyond.contains(&command));
            begin = given;
            if is_decided { decided.push(end) } else { self.ends.push_back((given, end)) }
        }
        decided
    }

    /// Forgets the ends of some messages, whose commands still count. Whether there were any.
    pub(crate) fn forget(&mut self, of: impl Fn(&E) -> bool) -> bool {
        let before = self.ends.len();
        self.ends.retain(|(_, end)| !of(end));
        self.ends.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_decided_with_its_last_command() {
        let mut taken = Taken::default();
        taken.gave(3);
        taken.over('a');
        taken.gave(2);
        assert_eq!(taken.acknowledge(2).count(), 0);
        assert_eq!(taken.acknowledge(1).collect::<Vec<_>>(), ['a']);
        assert_eq!((taken.acknowledge(1).count(), taken.outstanding()), (0, 1), "its message has not ended");
        taken.over('b');
        assert_eq!(taken.acknowledge(1).collect::<Vec<_>>(), ['b']);
        assert_eq!((taken.acknowledge(usize::MAX).count(), taken.outstanding()), (0, 0));
    }

    #[test]
    fn a_message_without_commands_is_decided_with_those_before_it() {
        let mut taken = Taken::default();
        taken.over('a');
        taken.gave(1);
        taken.over('b');
        taken.over('c');
        assert_eq!(taken.acknowledge(0).collect::<Vec<_>>(), ['a']);
        assert_eq!(taken.acknowledge(usize::MAX).collect::<Vec<_>>(), ['b', 'c']);
    }

    #[test]
    fn a_message_behind_one_that_is_not_decided_is_decided_with_all_of_its_own() {
        let mut taken = Taken::default();
        for (commands, end) in [(1, 'a'), (2, 'b'), (1, 'c'), (1, 'd')] {
            taken.gave(commands);
            taken.over(end);
        }
        assert_eq!(taken.acknowledge_beyond(&[1, 3]), ['c'], "one command of b is not decided");
        assert_eq!(taken.acknowledge_beyond(&[3]), [] as [char; 0], "reported once");
        assert_eq!(taken.acknowledge_beyond(&[2]), ['b']);
        assert_eq!(taken.outstanding(), 5, "a is the oldest, and not decided");
        assert_eq!(taken.acknowledge(4).collect::<Vec<_>>(), ['a']);
        assert_eq!(taken.acknowledge_beyond(&[0]), ['d']);
        assert_eq!((taken.acknowledge(1).count(), taken.outstanding()), (0, 0));
    }

    #[test]
    fn commands_of_a_forgotten_message_still_count() {
        let mut taken = Taken::default();
        for end in ['a', 'b', 'c'] {
            taken.gave(1);
            taken.over(end);
        }
        assert!(taken.forget(|end| *end == 'b'));
        assert!(!taken.forget(|end| *end == 'b'));
        assert_eq!(taken.acknowledge(2).collect::<Vec<_>>(), ['a']);
        assert_eq!(taken.acknowledge(1).collect::<Vec<_>>(), ['c']);
    }
}
