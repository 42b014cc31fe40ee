//! The queue token: a user's entry and place in a waiting room and the end of the turn, under a signature.
//!
//! It states what was true when it was signed; [`super::turn`] judges what is true now.

use boxoffice_domain::{ConcertId, Lane, Place, QueueEntryId, QueueStatus, Timestamp, UserId};
use boxoffice_ports::PlaceClaim;
use chrono::DateTime;
use uuid::Uuid;

use super::signing::SigningKeys;

/// The first byte of every payload; other payloads under the same keys begin with another.
const VERSION: u8 = 2;
/// Version, user, concert, entry, arrival, until, lane.
const PAYLOAD: usize = 1 + 3 * 16 + 8 + 8 + 1;

/// The contents of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueToken {
    pub(crate) user: UserId,
    pub(crate) concert: ConcertId,
    pub(crate) entry: QueueEntryId,
    pub(crate) lane: Lane,
    pub(crate) arrival: u64,
    /// The end of the turn; `None` while it has not come.
    pub(crate) until: Option<Timestamp>,
}

impl QueueToken {
    /// The current token of a place.
    pub(crate) fn of(concert: ConcertId, place: &Place) -> Self {
        let until = place.active_until.filter(|_| place.status == QueueStatus::Active);
        Self { user: place.user, concert, entry: place.entry, lane: place.lane, arrival: place.arrival, until }
    }

    /// Restores the entry in a room that has lost it.
    pub(crate) fn claim(&self) -> PlaceClaim {
        PlaceClaim { entry: self.entry, user: self.user, lane: self.lane, place: self.arrival, active_until: self.until }
    }

    fn payload(&self) -> [u8; PAYLOAD] {
        let mut bytes = [0; PAYLOAD];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(self.user.0.as_bytes());
        bytes[17..33].copy_from_slice(self.concert.0.as_bytes());
        bytes[33..49].copy_from_slice(self.entry.0.as_bytes());
        bytes[49..57].copy_from_slice(&self.arrival.to_be_bytes());
        bytes[65] = self.lane.0;
        // No turn ends at the epoch.
        bytes[57..65].copy_from_slice(&self.until.map_or(0, |until| until.timestamp_micros()).to_be_bytes());
        bytes
    }

    fn read(bytes: &[u8; PAYLOAD]) -> Option<Self> {
        let uuid = |at: usize| Uuid::from_slice(&bytes[at..at + 16]).ok();
        let word = |at: usize| <[u8; 8]>::try_from(&bytes[at..at + 8]).ok();
        let until = match i64::from_be_bytes(word(57)?) {
            0 => None,
            micros => Some(DateTime::from_timestamp_micros(micros)?),
        };
        (bytes[0] == VERSION).then_some(Self {
            user: UserId(uuid(1)?),
            concert: ConcertId(uuid(17)?),
            entry: QueueEntryId(uuid(33)?),
            lane: Lane(bytes[65]),
            arrival: u64::from_be_bytes(word(49)?),
            until,
        })
    }
}

pub(crate) fn sign(keys: &SigningKeys, token: &QueueToken) -> String {
    keys.sign(&token.payload())
}

/// The contents of a token; `None` if none of the keys has signed it.
pub(crate) fn verify(keys: &SigningKeys, text: &str) -> Option<QueueToken> {
    QueueToken::read(&keys.verify(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(until: Option<i64>) -> QueueToken {
        QueueToken {
            user: Uuid::from_u128(1).into(),
            concert: Uuid::from_u128(2).into(),
            entry: Uuid::from_u128(3).into(),
            lane: Lane(7),
            arrival: 42,
            until: until.and_then(DateTime::from_timestamp_micros),
        }
    }

    #[test]
    fn a_token_is_verified_as_it_was_signed() {
        let keys = SigningKeys::of(&[("a", 1)]);
        for token in [token(None), token(Some(1_800_000_000_123_456))] {
            assert_eq!(verify(&keys, &sign(&keys, &token)), Some(token));
        }
    }

    #[test]
    fn other_signed_payloads_are_no_tokens() {
        let keys = SigningKeys::of(&[("a", 1)]);
        assert_eq!(verify(&keys, &keys.sign(&[VERSION + 1; PAYLOAD])), None);
        assert_eq!(verify(&keys, &keys.sign(&[VERSION; PAYLOAD - 1])), None);
    }
}
