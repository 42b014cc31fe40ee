//! Hashes as text.

use boxoffice_domain::draw::Hash32;

/// Lower-case.
pub fn hex(hash: &Hash32) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
        text
    })
}
