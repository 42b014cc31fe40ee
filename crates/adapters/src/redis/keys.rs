//! The names of locks in Redis.
//!
//! The braces are a hash tag: on a Cluster all keys about one contention key lie in one slot, and those of different
//! contention keys in any.

use boxoffice_domain::Key;

/// The lock of a contention key: `command_id:random` while it is held.
pub(super) fn lock(key: &Key) -> String {
    format!("boxoffice:lock:{{{key}}}")
}

/// The mark that another process waits for it.
pub(super) fn wanted(lock: &str) -> String {
    format!("{lock}:wanted")
}

/// The note that names a Redlock's holder.
pub(super) fn note(lock: &str) -> String {
    format!("{lock}:holder")
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_domain::SeatKey;
    use uuid::Uuid;

    #[test]
    fn different_keys_have_different_names_and_their_own_slot() {
        let id = Uuid::from_u128(7);
        let seat = |number| Key::Seat(SeatKey { date: id.into(), number });
        let all = [Key::Payment(id.into()), Key::Reservation(id.into()), Key::Date(id.into()), seat(1), seat(12), Key::Account(id.into())];
        let names: std::collections::BTreeSet<_> = all.iter().map(lock).collect();
        assert_eq!(names.len(), all.len());
        for name in names {
            let tag = |name: &str| name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag.to_owned());
            assert!(tag(&name).is_some_and(|tag| !tag.is_empty()));
            assert_eq!(tag(&name), tag(&wanted(&name)));
        }
    }
}
