//! Which of the commands that a reader took are decided, so that they are acknowledged once and in order.

use std::collections::VecDeque;

/// Whether each command that was taken and not acknowledged is decided, in order. A log knows only up to which command
/// all are decided.
#[derive(Default)]
pub(super) struct Unacknowledged {
    /// The number of the oldest.
    first: u64,
    decided: VecDeque<bool>,
    /// The numbers of those that were decided since the last acknowledgement.
    news: Vec<u64>,
}

impl Unacknowledged {
    /// Adds `count` commands. Returns the number of the first.
    pub(super) fn took(&mut self, count: usize) -> u64 {
        let first = self.first + self.decided.len() as u64;
        self.decided.extend(std::iter::repeat_n(false, count));
        first
    }

    pub(super) fn decided(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            if let Some(decided) = number.checked_sub(self.first).and_then(|at| self.decided.get_mut(at as usize)) {
                *decided = true;
                self.news.push(number);
            }
        }
    }

    /// How many commands from the oldest on are decided. From now on they count as acknowledged.
    pub(super) fn acknowledge(&mut self) -> usize {
        let count = self.decided.iter().take_while(|decided| **decided).count();
        self.decided.drain(..count);
        self.first += count as u64;
        count
    }

    /// The places of the decided commands behind undecided ones, each once.
    pub(super) fn acknowledge_beyond(&mut self) -> Vec<usize> {
        let first = self.first;
        self.news.drain(..).filter_map(|number| number.checked_sub(first)).map(|place| place as usize).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.decided.len()
    }
}
