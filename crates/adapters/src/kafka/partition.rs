//! The partition of a key: the one that every other client of Kafka chooses.
//!
//! Commands that go together as one message have one partition and several keys, so it is chosen here and not by the
//! client. The hash is MurmurHash2 of 32 bits, with the seed and the byte order of Kafka's own clients.

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;
const R: u32 = 24;

/// One of `partitions`; 0 if there are none.
pub(super) fn partition_of(key: &[u8], partitions: usize) -> usize {
    // The sign is dropped, and a partition is counted in 31 bits.
    (murmur2(key) & 0x7fff_ffff) as usize % partitions.max(1)
}

fn murmur2(bytes: &[u8]) -> u32 {
    // The length counts in 32 bits.
    let start = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    let mixed = words.iter().fold(start, |hash, word| {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        hash.wrapping_mul(M) ^ (k ^ (k >> R)).wrapping_mul(M)
    });
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    let hash = if tail.is_empty() { mixed } else { (mixed ^ u32::from_le_bytes(last)).wrapping_mul(M) };
    let hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_equals_that_of_other_clients() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn every_key_has_a_partition() {
        assert_eq!(partition_of(b"foobar", 0), 0);
        assert_eq!(partition_of(b"foobar", 1), 0);
        assert_eq!(partition_of(b"foobar", 7), (-790_332_482_i32 as u32 & 0x7fff_ffff) as usize % 7);
    }
}
