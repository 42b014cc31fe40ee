//! The seats of a date that are on offer to callers.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::watch;

/// Seats that are offered to callers.
#[derive(Debug, Default)]
pub(super) struct Claims {
    last: u64,
    open: BTreeMap<u64, Claim>,
    by_seat: HashMap<usize, u64>,
    /// The most open claims since there were none, and those of the period before that.
    crowd: usize,
    crowd_before: usize,
}

#[derive(Debug)]
pub(super) struct Claim {
    pub(super) seats: Vec<usize>,
    pub(super) done: watch::Receiver<()>,
}

impl Claims {
    /// How far callers should be spread: about as many as there are.
    pub(super) fn spread(&self) -> usize {
        self.crowd.max(self.crowd_before).max(1)
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Claim> {
        self.open.values().rev()
    }

    pub(super) fn has(&self, seat: usize) -> bool {
        self.by_seat.contains_key(&seat)
    }

    pub(super) fn seats(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_seat.keys().copied()
    }

    /// The same claims on a map whose seats lie elsewhere.
    pub(super) fn moved(mut self, to: impl Fn(usize) -> Option<usize>) -> Self {
        self.by_seat.clear();
        for (&number, claim) in &mut self.open {
            claim.seats = claim.seats.iter().filter_map(|&seat| to(seat)).collect();
            self.by_seat.extend(claim.seats.iter().map(|&seat| (seat, number)));
        }
        self
    }

    pub(super) fn add(&mut self, seats: &[usize]) -> (u64, watch::Sender<()>) {
        let (sender, done) = watch::channel(());
        self.last += 1;
        self.by_seat.extend(seats.iter().map(|&seat| (seat, self.last)));
        self.open.insert(self.last, Claim { seats: seats.to_vec(), done });
        self.crowd = self.crowd.max(self.open.len());
        (self.last, sender)
    }

    pub(super) fn take(&mut self, number: u64) -> Vec<usize> {
        let Some(claim) = self.open.remove(&number) else { return Vec::new() };
        for seat in &claim.seats {
            self.by_seat.remove(seat);
        }
        if self.open.is_empty() {
            (self.crowd_before, self.crowd) = (self.crowd, 0);
        }
        claim.seats
    }
}
