//! Choosing the best seats: higher price first, then lower number.

use std::sync::Arc;

use boxoffice_domain::{SeatNumber, Timestamp};

use super::{SeatInfo, SeatMap};

/// How many choices one call offers.
pub(super) const CHOICES_MAX: usize = 8;

pub(super) struct Wish<'a> {
    pub(super) count: usize,
    pub(super) grade: Option<&'a str>,
    /// Consecutive numbers in the same section, row and grade.
    pub(super) adjacent: bool,
}

/// How many choices were skipped for whom was last offered seats of this version. Callers at the same moment would
/// otherwise all be offered the same seats, and all but one would have to choose again.
#[derive(Default)]
pub(super) struct Offered {
    version: u64,
    skip: usize,
}

pub(super) fn rank(infos: &[SeatInfo]) -> Arc<[u32]> {
    let mut ranked: Vec<u32> = (0..infos.len() as u32).collect();
    ranked.sort_by_key(|&at| {
        let info = &infos[at as usize];
        (std::cmp::Reverse(info.price), info.number)
    });
    ranked.into()
}

impl SeatMap {
    pub(super) fn best_choices(&mut self, wish: &Wish<'_>, now: Timestamp) -> Vec<Vec<SeatNumber>> {
        self.pass_to(now);
        if wish.count == 0 || wish.count > self.infos.len() {
            return Vec::new();
        }
        if self.offered.version != self.version {
            self.offered = Offered { version: self.version, skip: 0 };
        }
        let wanted = self.offered.skip + CHOICES_MAX;
        let mut choices = if wish.adjacent { self.runs(wish, now, wanted) } else { self.singles(wish, now, wanted) };
        // Near the end of the seats everybody gets what there is, from the best on.
        let skip = if choices.len() > self.offered.skip { self.offered.skip } else { 0 };
        self.offered.skip = skip + 1;
        choices.drain(..skip);
        choices.truncate(CHOICES_MAX);
        choices
    }

    fn is_eligible(&self, at: usize, wish: &Wish<'_>, now: Timestamp) -> bool {
        self.rows[at].1.is_free(now) && wish.grade.is_none_or(|grade| *self.infos[at].grade == *grade)
    }

    fn singles(&self, wish: &Wish<'_>, now: Timestamp, wanted: usize) -> Vec<Vec<SeatNumber>> {
        let free: Vec<SeatNumber> = self
            .ranked
            .iter()
            .map(|&at| at as usize)
            .filter(|&at| self.is_eligible(at, wish, now))
            .take(wanted * wish.count)
            .map(|at| self.infos[at].number)
            .collect();
        free.chunks_exact(wish.count).map(<[SeatNumber]>::to_vec).collect()
    }

    fn runs(&self, wish: &Wish<'_>, now: Timestamp, wanted: usize) -> Vec<Vec<SeatNumber>> {
        let mut used = vec![false; self.infos.len()];
        let mut choices = Vec::new();
        for first in self.ranked.iter().map(|&at| at as usize) {
            if choices.len() == wanted {
                break;
            }
            // `infos` is in order of number, so a run of consecutive numbers is a slice of it.
            let Some(run) = self.infos.get(first..first + wish.count) else { continue };
            let together = run.iter().enumerate().all(|(n, info)| {
                info.number == run[0].number + n as u32
                    && info.section == run[0].section
                    && info.row == run[0].row
                    && info.grade == run[0].grade
                    && !used[first + n]
                    && self.is_eligible(first + n, wish, now)
            });
            if together {
                used[first..first + wish.count].fill(true);
                choices.push(run.iter().map(|info| info.number).collect());
            }
        }
        choices
    }
}
