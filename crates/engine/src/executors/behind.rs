//! Which commands stay behind one that waits for a row which another transaction keeps locked.

use std::collections::HashSet;

use boxoffice_domain::{Command, Key, Request};

/// The key under which later commands stay behind one that waits: that of its lane. Seats and dates are no such keys:
/// they belong to no buyer.
pub(super) fn order_key(command: &Command) -> Option<Key> {
    match command.lane_key() {
        Key::Seat(_) | Key::Date(_) => None,
        key @ (Key::Payment(_) | Key::Reservation(_) | Key::Account(_)) => Some(key),
    }
}

/// Which of `requests` need a row for which `is_held`, or come behind one that does.
pub(super) fn divide<'r>(requests: impl IntoIterator<Item = &'r Request>, is_held: impl Fn(&Key) -> bool) -> Vec<bool> {
    let mut behind = HashSet::new();
    let mut waits = |request: &Request| {
        let waits = request.command.rows().iter().any(|row| is_held(row) || behind.contains(row));
        if waits {
            behind.extend(order_key(&request.command));
        }
        waits
    };
    requests.into_iter().map(&mut waits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{best, charge, id};

    fn pay(user: u128, n: u128, reservation: u128) -> Request {
        Request { command: Command::Pay { user: id(user), reservation: id(reservation), points: 0 }, ..charge(user, n) }
    }

    fn release(user: u128, n: u128, reservation: u128) -> Request {
        Request { command: Command::ReleaseHold { reservation: id(reservation) }, ..charge(user, n) }
    }

    #[test]
    fn commands_of_the_same_key_stay_behind_one_that_waits() {
        let held = Key::Account(id(1));
        let requests = [
            charge(2, 0),
            pay(1, 1, 77),
            // The same reservation, without a wallet.
            release(2, 2, 77),
            release(2, 3, 78),
            // Its wallet is held; its seat orders no other command.
            best(1, 4, false),
            best(2, 5, false),
            charge(1, 6),
        ];
        assert_eq!(divide(&requests, |row| *row == held), [false, true, true, false, true, false, true]);
    }
}
