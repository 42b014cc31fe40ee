//! The codes of tickets: each opens the door for one seat.
//!
//! A code is 24 characters of Crockford's base 32: when its payment was made, in steps of 4 ms (40 bits), then 80 bits of
//! HMAC-SHA256 over payment and seat. The key is a secret of the store, so neither events nor logs nor a copy of the
//! other tables are enough to make one. The time finds the few payments that may have the code by their own ids, which
//! begin with it; no code is stored.
//!
//! Payments from before the key was drawn keep the code that they were sold with, 16 characters of plain SHA-256. The
//! instant is kept with the key. Such a code is found by going through those payments, the only ones it may belong to.

use boxoffice_domain::{PaymentId, SeatNumber};
use boxoffice_ports::{PaymentRow, Queries, StoreError, Stores};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The name of the secret in the store: the key, then the instant from which payments are keyed, in milliseconds.
const SECRET: &str = "ticket";
const KEY: usize = 32;
const TIME: usize = 5;
const MAC: usize = 10;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a code, and of a code from before there was a key.
const CODE: usize = (TIME + MAC) * 8 / 5;
const PLAIN_CODE: usize = MAC * 8 / 5;
/// Payments read together.
const PAGE: u32 = 1_000;

/// Makes codes and finds what they belong to.
pub(crate) struct TicketCodes {
    mac: Hmac<Sha256>,
    /// Payments whose id is older have a plain code.
    keyed_from_ms: u64,
}

impl TicketCodes {
    /// With the store's key. It is drawn now if there is none.
    pub(crate) async fn of(stores: &Stores) -> Result<Self, StoreError> {
        let is_fresh = stores.queries.payments_between(PaymentId(Uuid::nil()), PaymentId(Uuid::max()), 1).await?.is_empty();
        let now_ms = stores.queries.now().await?.timestamp_millis();
        let keyed_from_ms = if is_fresh { 0 } else { u64::try_from(now_ms).unwrap_or(0) };
        let mut fresh = rand::random::<[u8; KEY]>().to_vec();
        fresh.extend(keyed_from_ms.to_be_bytes());
        let secret = stores.secrets.secret(SECRET.to_owned(), fresh).await?;
        Self::from_secret(&secret).ok_or_else(|| StoreError::Broken("the key of tickets has another length".into()))
    }

    fn from_secret(secret: &[u8]) -> Option<Self> {
        let (key, keyed_from) = secret.split_at_checked(KEY)?;
        let keyed_from_ms = u64::from_be_bytes(keyed_from.try_into().ok()?);
        Some(Self { mac: Hmac::new_from_slice(key).ok()?, keyed_from_ms })
    }

    /// The code of one seat of a payment.
    pub(crate) fn code(&self, payment: PaymentId, seat: SeatNumber) -> String {
        if millis(payment) < self.keyed_from_ms { plain(payment, seat) } else { self.keyed(payment, seat) }
    }

    fn keyed(&self, payment: PaymentId, seat: SeatNumber) -> String {
        let mut mac = self.mac.clone();
        mac.update(payment.0.as_bytes());
        mac.update(&seat.to_be_bytes());
        let mut bytes = [0; TIME + MAC];
        bytes[..TIME].copy_from_slice(&steps(millis(payment)).to_be_bytes()[8 - TIME..]);
        bytes[TIME..].copy_from_slice(&mac.finalize().into_bytes()[..MAC]);
        base32(&bytes)
    }

    /// The payment and the seat that `code` belongs to.
    pub(crate) async fn find(&self, queries: &dyn Queries, code: &str) -> Result<Option<(PaymentRow, SeatNumber)>, StoreError> {
        let Some(code) = normalised(code) else { return Ok(None) };
        let (from, until) = match code.len() {
            PLAIN_CODE => (0, self.keyed_from_ms),
            _ => {
                let from = decoded_steps(&code) * 4;
                (from, from + 4)
            }
        };
        let (mut from, until) = (first_id(from), first_id(until));
        loop {
            let page = queries.payments_between(from, until, PAGE).await?;
            let last = page.last().map(|row| row.payment.id);
            let is_full = page.len() == PAGE as usize;
            for row in page {
                let mut seats = row.reservation.seats.iter().map(|seat| seat.number);
                // Timing reveals no more than that two codes share their time.
                if let Some(seat) = seats.find(|seat| self.code(row.payment.id, *seat) == code) {
                    return Ok(Some((row, seat)));
                }
            }
            match last {
                Some(last) if is_full => from = PaymentId(Uuid::from_u128(last.0.as_u128() + 1)),
                _ => return Ok(None),
            }
        }
    }
}

/// UUIDv7 begins with the milliseconds of the Unix epoch.
fn millis(payment: PaymentId) -> u64 {
    (payment.0.as_u128() >> 80) as u64
}

fn first_id(millis: u64) -> PaymentId {
    PaymentId(Uuid::from_u128(u128::from(millis) << 80))
}

/// As many bits as a code has room for.
fn steps(millis: u64) -> u64 {
    millis >> 2 & ((1 << (8 * TIME)) - 1)
}

fn plain(payment: PaymentId, seat: SeatNumber) -> String {
    let digest = Sha256::new().chain_update(b"ticket").chain_update(payment.0.as_bytes()).chain_update(seat.to_be_bytes()).finalize();
    base32(&digest[..MAC])
}

/// Five bits a character, without a remainder.
fn base32(bytes: &[u8]) -> String {
    let block = |block: &[u8]| {
        let bits = block.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        (0..8).rev().map(move |at| char::from(ALPHABET[(bits >> (5 * at) & 31) as usize]))
    };
    bytes.chunks_exact(5).flat_map(block).collect()
}

fn decoded_steps(code: &str) -> u64 {
    let digit = |char| ALPHABET.iter().position(|known| *known == char).unwrap_or(0) as u64;
    code.bytes().take(8 * TIME / 5).fold(0, |bits, char| bits << 5 | digit(char))
}

/// A code as a person may have typed it: in either case, with hyphens or spaces, O for 0, I and L for 1.
fn normalised(text: &str) -> Option<String> {
    let meant = |char: char| match char.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        char => char,
    };
    // Of a long text no more is read than a code with a separator after each character.
    let code: String = text.chars().take(2 * CODE + 1).filter(|char| !matches!(char, '-' | ' ')).map(meant).collect();
    let known = code.chars().all(|char| u8::try_from(char).is_ok_and(|char| ALPHABET.contains(&char)));
    (known && (code.len() == CODE || code.len() == PLAIN_CODE)).then_some(code)
}

#[cfg(test)]
impl TicketCodes {
    /// Keyed from `keyed_from_ms` on.
    pub(crate) fn keyed_from(keyed_from_ms: u64) -> Self {
        let mut secret = vec![7; KEY];
        secret.extend(keyed_from_ms.to_be_bytes());
        Self::from_secret(&secret).expect("a key of the right length")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paid_at(millis: u64) -> PaymentId {
        PaymentId(Uuid::from_u128(u128::from(millis) << 80 | 7 << 76 | 5))
    }

    #[test]
    fn codes_differ_by_seat_payment_and_key() {
        let tickets = TicketCodes::keyed_from(0);
        let (a, b) = (paid_at(1_790_000_000_000), paid_at(1_790_000_000_001));
        let code = tickets.code(a, 1);
        assert_eq!((code.len(), normalised(&code).as_ref()), (24, Some(&code)));
        assert_eq!(tickets.code(a, 1), code);
        let mut other = TicketCodes::keyed_from(0);
        other.mac = Hmac::new_from_slice(b"another").unwrap();
        for differs in [tickets.code(a, 2), tickets.code(b, 1), other.code(a, 1)] {
            assert_ne!(differs, code);
        }
        // What every event contains does not make a code.
        assert!(!code.contains(&plain(a, 1)));
    }

    #[test]
    fn a_code_contains_the_time_of_its_payment() {
        let tickets = TicketCodes::keyed_from(0);
        for millis in [0, 3, 4, 1_790_000_000_123, (1 << 42) - 1] {
            let steps = decoded_steps(&tickets.code(paid_at(millis), 1));
            assert!((steps * 4..steps * 4 + 4).contains(&millis), "{millis}");
        }
    }

    #[test]
    fn payments_from_before_the_key_keep_their_codes() {
        let tickets = TicketCodes::keyed_from(1_000);
        assert_eq!(tickets.code(paid_at(999), 1), plain(paid_at(999), 1));
        assert_eq!(plain(paid_at(999), 1).len(), 16);
        assert_eq!(tickets.code(paid_at(1_000), 1).len(), 24);
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = "01H3K7Q2M8Z9YD3M0E4T7QXW";
        for typed in
            [code, "01h3k7q2m8z9yd3m0e4t7qxw", "01H3-K7Q2-M8Z9-YD3M-0E4T-7QXW", "O1H3 K7Q2 M8Z9 YD3M 0E4T 7QXW", "oih3k7q2m8z9yd3moe4t7qxw"]
        {
            assert_eq!(normalised(typed).as_deref(), Some(code), "{typed}");
        }
        for wrong in ["", "U1H3K7Q2M8Z9YD3M0E4T7QXW", "01H3K7Q2M8Z9YD3M0E4T7QX", "é1H3K7Q2M8Z9YD3M0E4T7QXW", &"0".repeat(1_000)] {
            assert_eq!(normalised(wrong), None, "{wrong}");
        }
    }
}
