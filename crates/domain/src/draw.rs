//! The draw: in which order those are admitted who came before the sale started, so that anyone can check it.
//!
//! SHA-256 of a secret seed is published before anybody joins. At the start the list of draw keys is closed and its hash
//! published; then the seed is revealed, and with it, where one is configured, the value of a public beacon that nobody
//! could know before. Whoever knows the seed early could choose accounts that it favours; the beacon takes that away.

use crate::{ConcertId, UserId};
use sha2::{Digest, Sha256};

/// What the public surface calls the way of drawing.
pub const ALGORITHM: &str = "sha256-v1";

/// A seed, a commitment, a draw key, a hash of the list.
pub type Hash32 = [u8; 32];

fn sha256(parts: &[&[u8]]) -> Hash32 {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// What is published of a seed before anybody joins.
pub fn commitment(seed: &Hash32) -> Hash32 {
    sha256(&[seed])
}

/// What a user is drawn by. Nobody can choose it, and it shows nobody who it is.
pub fn draw_key(user: UserId, concert: ConcertId) -> Hash32 {
    sha256(&[user.0.as_bytes(), concert.0.as_bytes()])
}

/// The hash of the closed list: of all draw keys, ascending.
pub fn entries_hash(ascending: &[Hash32]) -> Hash32 {
    ascending.iter().fold(Sha256::new(), |hash, key| hash.chain_update(key)).finalize().into()
}

/// What the order is made with: the seed, or seed and beacon.
pub fn salt(seed: &Hash32, beacon: Option<&str>) -> Hash32 {
    beacon.map_or(*seed, |beacon| sha256(&[seed, beacon.as_bytes()]))
}

/// By what a draw key is ordered, under a [`salt`].
pub fn rank(salt: &Hash32, key: &Hash32) -> Hash32 {
    sha256(&[salt, key])
}
