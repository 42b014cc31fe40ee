//! Identifiers. All but [`CommandId`] are UUIDv7, so that new rows land at the right edge of an index.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )*};
}

id! {
    /// A person, the `sub` of a bearer token.
    UserId,
    ConcertId,
    /// One performance of a concert.
    DateId,
    ReservationId,
    PaymentId,
    /// A line of a wallet's or of the points' journal.
    EntryId,
    /// One stay in a waiting room. Joining again after it ended is another entry.
    QueueEntryId,
    /// What makes a command unique: derived from user and idempotency key, so a repeat has the same one everywhere.
    CommandId,
    /// One server, for as long as its process lives: drawn at its start, unknown before.
    InstanceId,
}

impl CommandId {
    /// UUIDv8 of SHA-256(user ‖ key), so that two users' equal keys are different commands.
    pub fn derive(user: UserId, key: &str) -> Self {
        let digest = Sha256::new().chain_update(user.0.as_bytes()).chain_update(key.as_bytes()).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(Uuid::new_v8(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_id_depends_on_user_and_key_alone() {
        let (a, b) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        assert_eq!(CommandId::derive(a, "k"), CommandId::derive(a, "k"));
        assert_ne!(CommandId::derive(a, "k"), CommandId::derive(b, "k"));
        assert_ne!(CommandId::derive(a, "k"), CommandId::derive(a, "K"));
        assert_eq!(CommandId::derive(a, "k").0.get_version_num(), 8);
    }
}
