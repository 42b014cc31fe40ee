//! The places that still wait: appended at the end, taken out anywhere, counted before any place in O(log n).
//!
//! A Fenwick tree over places (P. Fenwick, *A New Data Structure for Cumulative Frequency Tables*, 1994): four bytes
//! for each place ever given. Places count from 1 and are never given twice.

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// `tree[i - 1]` sums the waiting places in `(i - lowbit(i), i]`.
    tree: Vec<u32>,
    waiting: u64,
}

impl Line {
    /// How many wait.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The place that the next one to come will get.
    pub fn next_place(&self) -> u64 {
        self.tree.len() as u64 + 1
    }

    /// Gives out the next place, to an entry that waits.
    pub fn append(&mut self) -> u64 {
        self.push(1);
        self.waiting += 1;
        self.tree.len() as u64
    }

    /// Leaves places empty until the next one given is `place`; for loading what was there.
    pub fn skip_to(&mut self, place: u64) {
        while self.next_place() < place {
            self.push(0);
        }
    }

    /// An entry waits at this free place: one that was given out before, or one beyond the last.
    pub fn occupy(&mut self, place: u64) {
        self.skip_to(place + 1);
        let mut at = place as usize;
        while at <= self.tree.len() {
            self.tree[at - 1] += 1;
            at += at & at.wrapping_neg();
        }
        self.waiting += 1;
    }

    /// Takes a waiting place out. The caller knows that it waits.
    pub fn remove(&mut self, place: u64) {
        debug_assert!(place >= 1 && place < self.next_place());
        let mut at = place as usize;
        while at <= self.tree.len() {
            self.tree[at - 1] -= 1;
            at += at & at.wrapping_neg();
        }
        self.waiting -= 1;
    }

    /// How many wait before `place`.
    pub fn before(&self, place: u64) -> u64 {
        self.sum((place.saturating_sub(1) as usize).min(self.tree.len()))
    }

    /// The first place that waits.
    pub fn first(&self) -> Option<u64> {
        self.nth(0)
    }

    /// The place that waits behind so many others.
    pub fn nth(&self, before: u64) -> Option<u64> {
        if before >= self.waiting {
            return None;
        }
        // The longest prefix that sums to no more than that ends just before it.
        let (mut at, mut step, mut left) = (0, self.tree.len().next_power_of_two(), before);
        while step > 0 {
            if let Some(&sum) = self.tree.get(at + step - 1).filter(|sum| u64::from(**sum) <= left) {
                left -= u64::from(sum);
                at += step;
            }
            step /= 2;
        }
        Some(at as u64 + 1)
    }

    fn sum(&self, mut at: usize) -> u64 {
        let mut sum = 0;
        while at > 0 {
            sum += u64::from(self.tree[at - 1]);
            at -= at & at.wrapping_neg();
        }
        sum
    }

    fn push(&mut self, value: u32) {
        let at = self.tree.len() + 1;
        let low = at & at.wrapping_neg();
        // Everything else that the new node covers is already in the tree.
        let covered = self.sum(at - 1) - self.sum(at - low);
        self.tree.push(covered as u32 + value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn line_counts_like_a_plain_list(steps in proptest::collection::vec((0u8..5, any::<prop::sample::Index>()), 0..300)) {
            let (mut line, mut list) = (Line::default(), Vec::<bool>::new());
            for (what, index) in steps {
                match what {
                    0 | 1 => {
                        list.push(true);
                        prop_assert_eq!(line.append(), list.len() as u64);
                    }
                    2 => {
                        line.skip_to(list.len() as u64 + 2);
                        list.push(false);
                    }
                    3 => {
                        // A free place: one that was given out, or one beyond the last.
                        let empty: Vec<_> = (0..list.len() + 3).filter(|&at| !list.get(at).copied().unwrap_or(false)).collect();
                        let at = *index.get(&empty);
                        list.resize(list.len().max(at + 1), false);
                        list[at] = true;
                        line.occupy(at as u64 + 1);
                        prop_assert_eq!(line.next_place(), list.len() as u64 + 1);
                    }
                    _ => {
                        let waiting: Vec<_> = (0..list.len()).filter(|&at| list[at]).collect();
                        if !waiting.is_empty() {
                            let at = *index.get(&waiting);
                            list[at] = false;
                            line.remove(at as u64 + 1);
                        }
                    }
                }
                prop_assert_eq!(line.first(), list.iter().position(|&waits| waits).map(|at| at as u64 + 1));
                let waiting: Vec<_> = (0..list.len()).filter(|&at| list[at]).map(|at| at as u64 + 1).collect();
                for before in 0..=waiting.len() {
                    prop_assert_eq!(line.nth(before as u64), waiting.get(before).copied());
                }
                prop_assert_eq!(line.waiting(), list.iter().filter(|&&waits| waits).count() as u64);
                for place in 1..=list.len() {
                    prop_assert_eq!(line.before(place as u64), list[..place - 1].iter().filter(|&&waits| waits).count() as u64);
                }
            }
        }
    }
}
