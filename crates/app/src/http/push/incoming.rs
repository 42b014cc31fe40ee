//! Bytes that the client of a stream sends. It needs to send nothing but control frames, so little is read and less is
//! kept.
//!
//! *Bounds.* A frame is judged by its header: a frame that claims more than [`MESSAGE_MAX`] ends the connection with 1009
//! before its payload is read, so no claim costs memory. [`RECEIVED_MAX`] bytes between two heartbeats end it as well:
//! small frames without end would cost processor time.

use actix_http::ws::{OpCode, Parser};
use actix_web::web::BytesMut;
use boxoffice_engine::push::Form;

/// The longest message that is read, bytes.
const MESSAGE_MAX: usize = 1_024;
/// Bytes that may come between two heartbeats.
const RECEIVED_MAX: usize = 16 << 10;

pub(super) const NORMAL: u16 = 1_000;
const PROTOCOL_ERROR: u16 = 1_002;
const POLICY_VIOLATION: u16 = 1_008;
const MESSAGE_TOO_BIG: u16 = 1_009;

/// What to do after a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Nothing,
    /// The pong to a ping.
    Answer(Vec<u8>),
    /// The client closes, or breaks a rule.
    Close(u16),
    Gone,
}

/// See the module's opening.
#[derive(Default)]
pub(super) struct Incoming {
    /// A frame that is not whole yet.
    partial: BytesMut,
    /// Bytes since the last heartbeat.
    received: usize,
}

impl Incoming {
    /// A heartbeat resets the bound.
    pub(super) fn reset(&mut self) {
        self.received = 0;
    }

    /// Judges bytes that were read.
    pub(super) fn take(&mut self, form: Form, read: &[u8]) -> Received {
        self.received += read.len();
        if self.received > RECEIVED_MAX {
            return Received::Close(POLICY_VIOLATION);
        }
        if form == Form::Sse {
            return Received::Nothing;
        }
        self.partial.extend_from_slice(read);
        let mut pongs = BytesMut::new();
        loop {
            // The parser checks a length only when the whole frame has arrived.
            if claimed(&self.partial).is_some_and(|length| length > MESSAGE_MAX as u64) {
                return Received::Close(MESSAGE_TOO_BIG);
            }
            match Parser::parse(&mut self.partial, true, MESSAGE_MAX) {
                Ok(Some((_, OpCode::Ping, payload))) => {
                    Parser::write_message(&mut pongs, payload.unwrap_or_default(), OpCode::Pong, true, false);
                }
                Ok(Some((_, OpCode::Close, _))) => return Received::Close(NORMAL),
                // Messages of clients are ignored.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return Received::Close(PROTOCOL_ERROR),
            }
        }
        if self.partial.is_empty() {
            // Frees its memory.
            self.partial = BytesMut::new();
        }
        if pongs.is_empty() { Received::Nothing } else { Received::Answer(pongs.to_vec()) }
    }
}

/// The length of payload that a frame's header claims (RFC 6455, 5.2); `None` until that part of it has arrived.
fn claimed(frame: &[u8]) -> Option<u64> {
    let (_, rest) = frame.split_first()?;
    let (second, rest) = rest.split_first()?;
    match second & 0x7f {
        126 => rest.first_chunk().map(|length| u64::from(u16::from_be_bytes(*length))),
        127 => rest.first_chunk().map(|length| u64::from_be_bytes(*length)),
        short => Some(u64::from(short)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame's header, followed by `payload`, which may be shorter than claimed.
    fn frame(opcode: u8, length: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        match length {
            short @ 0..=125 => bytes.push(0x80 | short as u8),
            middle @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(0x80 | 127);
                bytes.extend(long.to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_claim_beyond_the_bound_is_refused_from_the_header() {
        for length in [1_025, 65_535, 65_536, 1 << 40, u64::MAX] {
            for opcode in [0x0, 0x1, 0x2, 0x9] {
                let mut incoming = Incoming::default();
                // No byte of the payload has arrived.
                let received = incoming.take(Form::WebSocket, &frame(opcode, length, b""));
                assert_eq!(received, Received::Close(MESSAGE_TOO_BIG), "{length} by {opcode:#x}");
            }
        }
    }

    #[test]
    fn a_partial_frame_is_kept_until_it_is_whole() {
        let mut incoming = Incoming::default();
        let whole = frame(0x1, 1_024, &[b'x'; 1_024]);
        for byte in &whole[..whole.len() - 1] {
            assert_eq!(incoming.take(Form::WebSocket, &[*byte]), Received::Nothing);
        }
        assert_eq!(incoming.take(Form::WebSocket, &whole[whole.len() - 1..]), Received::Nothing);
        assert_eq!(incoming.partial.capacity(), 0);
        let received = incoming.take(Form::WebSocket, &frame(0x9, 2, b"hi"));
        assert_eq!(received, Received::Answer(vec![0x8a, 2, b'h', b'i']));
        assert_eq!(incoming.take(Form::WebSocket, &frame(0x8, 0, b"")), Received::Close(NORMAL));
    }

    #[test]
    fn a_client_that_sends_too_much_is_disconnected() {
        for form in [Form::Sse, Form::WebSocket] {
            let mut incoming = Incoming::default();
            let ping = frame(0x9, 0, b"");
            let received: Vec<_> = (0..RECEIVED_MAX).map(|_| incoming.take(form, &ping)).collect();
            assert!(received.contains(&Received::Close(POLICY_VIOLATION)), "{form:?}");
            incoming.reset();
            assert!(!matches!(incoming.take(form, &ping), Received::Close(_)), "{form:?}");
        }
    }
}
