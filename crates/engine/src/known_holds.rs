//! The owner and the concert of each hold that was made on this instance. They never change, so paying and extending a
//! hold need not read them from the store first.
//!
//! *Bounds.* The last [`HOLDS_MAX`] holds are known, twice as many at most. Any other is read from the store.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use boxoffice_domain::{ConcertId, Reservation, ReservationId, UserId};

use crate::sync::lock;

/// Holds known in each of two halves.
const HOLDS_MAX: usize = 16_384;

/// See the module's opening.
#[derive(Default)]
pub struct KnownHolds {
    /// The younger half, then the older one.
    halves: Mutex<[HashMap<ReservationId, (UserId, ConcertId)>; 2]>,
}

impl KnownHolds {
    pub(crate) fn made(&self, reservation: &Reservation) {
        let mut halves = self.halves();
        let [younger, older] = &mut *halves;
        if younger.len() >= HOLDS_MAX {
            std::mem::swap(younger, older);
            younger.clear();
        }
        younger.insert(reservation.id, (reservation.user, reservation.concert.id));
    }

    /// The concert of a hold of this user; `None` if the hold is not known here, or is another user's.
    pub fn concert_of(&self, user: UserId, reservation: ReservationId) -> Option<ConcertId> {
        let halves = self.halves();
        let found = halves.iter().find_map(|half| half.get(&reservation));
        found.filter(|(owner, _)| *owner == user).map(|(_, concert)| *concert)
    }

    fn halves(&self) -> MutexGuard<'_, [HashMap<ReservationId, (UserId, ConcertId)>; 2]> {
        lock(&self.halves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONCERT, id, paid};
    use boxoffice_domain::Outcome;

    fn hold(n: u128) -> Reservation {
        let Outcome::Paid { reservation, .. } = paid(5) else { unreachable!() };
        Reservation { id: id(n), ..reservation }
    }

    #[test]
    fn the_latest_holds_are_known_to_their_owners_alone() {
        let known = KnownHolds::default();
        let most = 3 * HOLDS_MAX as u128;
        (0..most).for_each(|n| known.made(&hold(n)));
        assert!(known.halves().iter().all(|half| half.len() <= HOLDS_MAX), "bounded");
        for n in most - HOLDS_MAX as u128..most {
            assert_eq!(known.concert_of(id(5), id(n)), Some(id(CONCERT)));
            assert_eq!(known.concert_of(id(6), id(n)), None, "another user's");
        }
        assert_eq!(known.concert_of(id(5), id(most)), None);
    }
}
