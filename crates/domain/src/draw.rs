//! The draw: in which order entries from before the start of the sale are admitted, so that every client can check it.
//!
//! SHA-256 of a secret seed is published before the first user joins. At the start the list of draw keys is closed and its hash
//! published; then the seed is revealed, and with it, where one is configured, the value of a public beacon that was unknown
//! before. An operator who knows the seed early could choose accounts that it favours; the beacon takes that away.

use crate::{ConcertId, UserId};
use sha2::{Digest, Sha256};

/// What the public surface calls the way of drawing.
pub const ALGORITHM: &str = "sha256-v1";

/// A seed, a commitment, a draw key, a hash of the list.
pub type Hash32 = [u8; 32];

fn sha256(parts: &[&[u8]]) -> Hash32 {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// What is published of a seed before the first user joins.
pub fn commitment(seed: &Hash32) -> Hash32 {
    sha256(&[seed])
}

/// The key that a user is drawn by. It cannot be chosen, and does not reveal the user.
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

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    /// A draw is verified elsewhere, from what the public surface states of it and nothing else.
    #[test]
    fn every_step_is_what_another_program_makes_of_it() {
        let hex = |hash: Hash32| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let seed: Hash32 = std::array::from_fn(|at| at as u8);
        let key = draw_key(Uuid::from_u128(0xA1).into(), Uuid::from_u128(0xC1).into());
        let with_beacon = salt(&seed, Some("news"));
        assert_eq!(hex(commitment(&seed)), "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd");
        assert_eq!(hex(key), "6c670669396df258624a7b87fcf9b20654c6453c6d0773f8abc5d25ae85f0406");
        assert_eq!(hex(with_beacon), "5e56b218ddb554a3b38f330ea66fb0048537c447ad83a76d347c25d4c51c830f");
        assert_eq!(hex(rank(&with_beacon, &key)), "2c4c2c700d62b1c3ae879fcf1424784e326e08a6d4397d6d0b05bbe48a302732");
        assert_eq!(salt(&seed, None), seed);
        assert_eq!(hex(rank(&salt(&seed, None), &key)), "4f8b1775f03d89279c8384d279e347eaef0a971b3e9e9eaef3cc6a445b6ed77d");
        assert_eq!(hex(entries_hash(&[key, [0xFF; 32]])), "6162d92afc9216d29264423c0feb4265facafe1a1fea51488187ef95c045a6cd");
        assert_ne!(salt(&seed, Some("")), seed, "an empty beacon is one");
    }
}
