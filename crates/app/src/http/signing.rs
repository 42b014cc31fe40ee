//! Signatures over state that clients keep: queue tokens, and the ids of accepted commands.
//!
//! `kid.payload‖mac` with the latter in base64url; the MAC is HMAC-SHA256 over `kid.` and the payload, whose first byte
//! is its kind. The first key signs, every key verifies, so keys are rotated by putting a new one in front. Verifying
//! needs no store and takes constant time.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use boxoffice_ports::{Secrets, StoreError};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::{QueueKey, Settings};

const MAC: usize = 32;
/// The longest payload with its MAC, bytes.
const SIGNED_MAX: usize = 128;
/// The name of the key that the store keeps when none is configured.
const STORED_KID: &str = "store";

struct SigningKey {
    kid: String,
    mac: Hmac<Sha256>,
}

impl SigningKey {
    /// The MAC over `kid.` and a payload.
    fn over(&self, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(self.kid.as_bytes());
        mac.update(b".");
        mac.update(payload);
        mac
    }
}

/// See the module's opening.
pub(crate) struct SigningKeys {
    /// Never empty; the first key signs.
    keys: Vec<SigningKey>,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.kid)).finish()
    }
}

impl SigningKeys {
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
            // HMAC takes keys of any length, so this error cannot occur.
            Hmac::new_from_slice(&secret).ok().map(|mac| SigningKey { kid, mac })
        };
        Self { keys: keys.into_iter().filter_map(key).collect() }
    }

    pub(crate) fn sign(&self, payload: &[u8]) -> String {
        let Some(key) = self.keys.first() else { return String::new() };
        let mut bytes = [0; SIGNED_MAX];
        let Some(signed) = bytes.get_mut(..payload.len() + MAC) else { return String::new() };
        let (plain, mac) = signed.split_at_mut(payload.len());
        plain.copy_from_slice(payload);
        mac.copy_from_slice(&key.over(payload).finalize().into_bytes());
        let mut text = String::with_capacity(key.kid.len() + 1 + signed.len().div_ceil(3) * 4);
        text.push_str(&key.kid);
        text.push('.');
        BASE64.encode_string(signed, &mut text);
        text
    }

    /// Whether a verified text was signed by the key that signs now.
    pub(crate) fn is_current(&self, text: &str) -> bool {
        self.keys.first().is_some_and(|key| text.strip_prefix(&*key.kid).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The payload; `None` if none of the keys has signed it, or if it is not `N` bytes long.
    pub(crate) fn verify<const N: usize>(&self, text: &str) -> Option<[u8; N]> {
        let (kid, encoded) = text.split_once('.')?;
        let key = self.keys.iter().find(|key| key.kid == kid)?;
        let mut bytes = [0; SIGNED_MAX];
        // A longer text does not fit.
        let length = BASE64.decode_slice(encoded, &mut bytes).ok()?;
        let (payload, mac) = bytes.get(..length)?.split_first_chunk::<N>()?;
        key.over(payload).verify_slice(mac).ok()?;
        Some(*payload)
    }
}

#[cfg(test)]
impl SigningKeys {
    pub(crate) fn of(keys: &[(&str, u8)]) -> Self {
        Self::new(keys.iter().map(|(kid, byte)| QueueKey { kid: (*kid).to_owned(), secret: vec![*byte; 32] }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &[u8; 9] = b"a payload";

    #[test]
    fn text_with_any_character_changed_is_refused() {
        let keys = SigningKeys::of(&[("a", 1)]);
        let text = keys.sign(PAYLOAD);
        assert_eq!(keys.verify(&text), Some(*PAYLOAD));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'B' { b'C' } else { b'B' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(keys.verify::<9>(&changed), None, "character {at}");
        }
        for broken in ["", ".", "a.", "a", &text[..text.len() - 4], &format!("{text}AAAA"), &format!("{text}="), &"a.A".repeat(300)] {
            assert_eq!(keys.verify::<9>(broken), None, "{broken}");
        }
        assert_eq!((keys.verify::<8>(&text), keys.verify::<10>(&text)), (None, None), "of another length");
    }

    #[test]
    fn keys_rotate() {
        let (old, both) = (SigningKeys::of(&[("old", 1)]), SigningKeys::of(&[("new", 2), ("old", 1)]));
        let new = SigningKeys::of(&[("new", 2)]);
        assert_eq!(both.verify(&old.sign(PAYLOAD)), Some(*PAYLOAD), "the old key still verifies");
        assert_eq!(new.verify(&both.sign(PAYLOAD)), Some(*PAYLOAD), "the first key signs");
        assert!(both.is_current(&both.sign(PAYLOAD)) && !both.is_current(&old.sign(PAYLOAD)), "a token of an old key is replaced");
        assert_eq!(new.verify::<9>(&old.sign(PAYLOAD)), None, "a removed key verifies nothing");
        assert_eq!(SigningKeys::of(&[("old", 9)]).verify::<9>(&old.sign(PAYLOAD)), None, "the name of a key is not the key");
    }
}
