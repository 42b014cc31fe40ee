//! The queue token: who stands where in which waiting room, and until when the turn lasts, under a signature.
//!
//! `kid.payload‖mac` with the latter in base64url; the MAC is HMAC-SHA256 over `kid.` and the payload. The first key
//! signs, every key verifies, so keys can be rotated by putting a new one in front. Checking needs no store and is
//! constant in time. A token says what was true when it was signed; [`super::turn`] judges what is true now.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use boxoffice_domain::{ConcertId, Place, QueueEntryId, QueueStatus, Timestamp, UserId};
use boxoffice_ports::{PlaceClaim, Secrets, StoreError};
use chrono::DateTime;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::config::{QueueKey, Settings};

/// The first byte of every payload.
const VERSION: u8 = 1;
/// Version, user, concert, entry, arrival, until.
const PAYLOAD: usize = 1 + 3 * 16 + 8 + 8;
const MAC: usize = 32;
/// How the one key is called that is kept in the store when none is configured.
const STORED_KID: &str = "store";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueToken {
    pub(crate) user: UserId,
    pub(crate) concert: ConcertId,
    pub(crate) entry: QueueEntryId,
    pub(crate) arrival: u64,
    /// The end of the turn; `None` while it has not come.
    pub(crate) until: Option<Timestamp>,
}

impl QueueToken {
    /// The current token of a place.
    pub(crate) fn of(concert: ConcertId, place: &Place) -> Self {
        let until = place.active_until.filter(|_| place.status == QueueStatus::Active);
        Self { user: place.user, concert, entry: place.entry, arrival: place.arrival, until }
    }

    /// What it says to a room that has forgotten the entry.
    pub(crate) fn claim(&self) -> PlaceClaim {
        PlaceClaim { entry: self.entry, user: self.user, place: self.arrival, active_until: self.until }
    }

    fn payload(&self) -> [u8; PAYLOAD] {
        let mut bytes = [0; PAYLOAD];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(self.user.0.as_bytes());
        bytes[17..33].copy_from_slice(self.concert.0.as_bytes());
        bytes[33..49].copy_from_slice(self.entry.0.as_bytes());
        bytes[49..57].copy_from_slice(&self.arrival.to_be_bytes());
        // No turn ends at the epoch.
        bytes[57..].copy_from_slice(&self.until.map_or(0, |until| until.timestamp_micros()).to_be_bytes());
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
            arrival: u64::from_be_bytes(word(49)?),
            until,
        })
    }
}

struct Key {
    kid: String,
    mac: Hmac<Sha256>,
}

impl Key {
    /// The MAC over `kid.` and a payload.
    fn over(&self, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(self.kid.as_bytes());
        mac.update(b".");
        mac.update(payload);
        mac
    }
}

/// Signs and verifies.
pub(crate) struct QueueTokens {
    /// Never empty; the first one signs.
    keys: Vec<Key>,
}

impl fmt::Debug for QueueTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.kid)).finish()
    }
}

impl QueueTokens {
    /// The configured keys, or else the one in the store.
    pub(crate) async fn from_settings(settings: &Settings, secrets: &dyn Secrets) -> Result<Self, StoreError> {
        let configured = settings.auth.queue_keys();
        if !configured.is_empty() {
            return Ok(Self::new(configured));
        }
        let secret = secrets.secret("queue_token".to_owned(), rand::random::<[u8; 32]>().to_vec()).await?;
        Ok(Self::new(vec![QueueKey { kid: STORED_KID.to_owned(), secret }]))
    }

    fn new(keys: Vec<QueueKey>) -> Self {
        let key = |QueueKey { kid, secret }| {
            // HMAC takes keys of any length: the error cannot occur, and a key that could not be read signs nothing.
            Hmac::new_from_slice(&secret).ok().map(|mac| Key { kid, mac })
        };
        Self { keys: keys.into_iter().filter_map(key).collect() }
    }

    pub(crate) fn sign(&self, token: &QueueToken) -> String {
        let Some(key) = self.keys.first() else { return String::new() };
        let payload = token.payload();
        let mac = key.over(&payload).finalize().into_bytes();
        let mut bytes = [0; PAYLOAD + MAC];
        bytes[..PAYLOAD].copy_from_slice(&payload);
        bytes[PAYLOAD..].copy_from_slice(&mac);
        let mut text = String::with_capacity(key.kid.len() + 1 + bytes.len().div_ceil(3) * 4);
        text.push_str(&key.kid);
        text.push('.');
        BASE64.encode_string(bytes, &mut text);
        text
    }

    /// What a token says; `None` for one that none of the keys has signed.
    pub(crate) fn verify(&self, text: &str) -> Option<QueueToken> {
        let (kid, encoded) = text.split_once('.')?;
        let key = self.keys.iter().find(|key| key.kid == kid)?;
        let mut bytes = [0; PAYLOAD + MAC];
        // Of another length it is none of ours, and does not fit or does not fill.
        let length = BASE64.decode_slice(encoded, &mut bytes).ok()?;
        let (payload, mac) = bytes.split_first_chunk::<PAYLOAD>()?;
        if length != PAYLOAD + MAC {
            return None;
        }
        key.over(payload).verify_slice(mac).ok()?;
        QueueToken::read(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(keys: &[(&str, u8)]) -> QueueTokens {
        QueueTokens::new(keys.iter().map(|(kid, byte)| QueueKey { kid: (*kid).to_owned(), secret: vec![*byte; 32] }).collect())
    }

    fn token(until: Option<i64>) -> QueueToken {
        QueueToken {
            user: Uuid::from_u128(1).into(),
            concert: Uuid::from_u128(2).into(),
            entry: Uuid::from_u128(3).into(),
            arrival: 42,
            until: until.and_then(DateTime::from_timestamp_micros),
        }
    }

    #[test]
    fn token_says_what_was_signed() {
        let tokens = tokens(&[("a", 1)]);
        for token in [token(None), token(Some(1_800_000_000_123_456))] {
            assert_eq!(tokens.verify(&tokens.sign(&token)), Some(token));
        }
    }

    #[test]
    fn token_with_any_character_changed_is_refused() {
        let tokens = tokens(&[("a", 1)]);
        let text = tokens.sign(&token(Some(7)));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'B' { b'C' } else { b'B' };
            assert_eq!(tokens.verify(&String::from_utf8(bytes).unwrap()), None, "character {at}");
        }
        for broken in ["", ".", "a.", "a", &text[..text.len() - 4], &format!("{text}AAAA"), &format!("{text}=")] {
            assert_eq!(tokens.verify(broken), None, "{broken}");
        }
    }

    #[test]
    fn keys_rotate() {
        let (old, both, new) = (tokens(&[("old", 1)]), tokens(&[("new", 2), ("old", 1)]), tokens(&[("new", 2)]));
        let token = token(None);
        assert_eq!(both.verify(&old.sign(&token)), Some(token.clone()), "the old key still verifies");
        assert_eq!(new.verify(&both.sign(&token)), Some(token.clone()), "the first key signs");
        assert_eq!(new.verify(&old.sign(&token)), None, "a key that is gone verifies nothing");
        assert_eq!(tokens(&[("old", 9)]).verify(&old.sign(&token)), None, "the name of a key is not the key");
    }
}
