//! A set of numbers below a fixed bound. The first member from any number on is found in one step for each factor of 64
//! in the bound: four for 16 million.

const WORD: usize = u64::BITS as usize;

#[derive(Debug)]
pub(super) struct Bits {
    /// The members, then which words of the level below have any, up to a single word.
    levels: Vec<Vec<u64>>,
}

impl Bits {
    /// Empty, for numbers below `bound`.
    pub(super) fn new(bound: usize) -> Self {
        let mut words = bound.div_ceil(WORD).max(1);
        let mut levels = vec![vec![0; words]];
        while words > 1 {
            words = words.div_ceil(WORD);
            levels.push(vec![0; words]);
        }
        Self { levels }
    }

    pub(super) fn insert(&mut self, mut number: usize) {
        for level in &mut self.levels {
            level[number / WORD] |= 1 << (number % WORD);
            number /= WORD;
        }
    }

    pub(super) fn remove(&mut self, mut number: usize) {
        for level in &mut self.levels {
            let word = &mut level[number / WORD];
            *word &= !(1 << (number % WORD));
            if *word != 0 {
                return;
            }
            number /= WORD;
        }
    }

    /// The lowest member that is `from` or higher.
    pub(super) fn first_from(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for (up, level) in self.levels.iter().enumerate() {
            let word = at / WORD;
            let members = *level.get(word)? & (u64::MAX << (at % WORD));
            if members != 0 {
                let mut found = word * WORD + members.trailing_zeros() as usize;
                for below in self.levels[..up].iter().rev() {
                    found = found * WORD + below[found].trailing_zeros() as usize;
                }
                return Some(found);
            }
            at = word + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_behaves_like_a_sorted_set() {
        for bound in [1, 63, 64, 65, 4_096, 5_000, 300_000] {
            let (mut bits, mut set) = (Bits::new(bound), BTreeSet::new());
            assert_eq!(bits.first_from(0), None);
            let mut number = 7_usize;
            for step in 0..4_000 {
                // A linear congruential generator: the same numbers on every run.
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (number >> 33) % bound;
                if step % 3 == 2 {
                    bits.remove(at);
                    set.remove(&at);
                } else {
                    bits.insert(at);
                    set.insert(at);
                }
                let from = (number >> 11) % (bound + 2);
                assert_eq!(bits.first_from(from), set.range(from..).next().copied(), "{bound}, from {from}");
            }
            for at in set {
                bits.remove(at);
            }
            assert_eq!(bits.first_from(0), None, "{bound}");
        }
    }
}
