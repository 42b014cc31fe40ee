//! What the other side of a stream says. It has nothing to say, so little is read and less is kept.
//!
//! *Bounds.* A frame is judged by its header: one that claims more than [`MESSAGE_MAX`] ends the connection with 1009
//! before its payload is read, so no claim costs memory. [`SAID_MAX`] bytes between two heartbeats end it, too: frames
//! that are small and endless would cost a processor.

use actix_http::ws::{OpCode, Parser};
use actix_web::web::BytesMut;
use boxoffice_engine::push::Form;

/// The longest message that is read, bytes.
const MESSAGE_MAX: usize = 1_024;
/// Bytes that may come between two heartbeats.
const SAID_MAX: usize = 16 << 10;

pub(super) const NORMAL: u16 = 1_000;
const PROTOCOL_ERROR: u16 = 1_002;
const POLICY_VIOLATION: u16 = 1_008;
const MESSAGE_TOO_BIG: u16 = 1_009;

/// How it goes on after something was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    /// The pong to a ping.
    Answer(Vec<u8>),
    /// The other side closes, or breaks a rule.
    Close(u16),
    Gone,
}

/// See the module's opening.
#[derive(Default)]
pub(super) struct Incoming {
    /// A frame that has begun.
    begun: BytesMut,
    /// Bytes since the last heartbeat.
    said: usize,
}

impl Incoming {
    /// A heartbeat later as much may be said again.
    pub(super) fn begin_anew(&mut self) {
        self.said = 0;
    }

    /// Judges what was read.
    pub(super) fn take(&mut self, form: Form, read: &[u8]) -> Heard {
        self.said += read.len();
        if self.said > SAID_MAX {
            return Heard::Close(POLICY_VIOLATION);
        }
        if form == Form::Sse {
            return Heard::Nothing;
        }
        self.begun.extend_from_slice(read);
        let mut pongs = BytesMut::new();
        loop {
            // The parser judges a length when the whole frame is there.
            if claimed(&self.begun).is_some_and(|length| length > MESSAGE_MAX as u64) {
                return Heard::Close(MESSAGE_TOO_BIG);
            }
            match Parser::parse(&mut self.begun, true, MESSAGE_MAX) {
                Ok(Some((_, OpCode::Ping, payload))) => {
                    Parser::write_message(&mut pongs, payload.unwrap_or_default(), OpCode::Pong, true, false);
                }
                Ok(Some((_, OpCode::Close, _))) => return Heard::Close(NORMAL),
                // What clients say is not listened to.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return Heard::Close(PROTOCOL_ERROR),
            }
        }
        if self.begun.is_empty() {
            // Its memory goes with it.
            self.begun = BytesMut::new();
        }
        if pongs.is_empty() { Heard::Nothing } else { Heard::Answer(pongs.to_vec()) }
    }
}

/// The length of payload that a frame's header claims (RFC 6455, 5.2); `None` until that part of it is there.
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

    /// A masked frame's head and as much of its payload as is given.
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
                // No byte of the payload is there.
                let heard = incoming.take(Form::WebSocket, &frame(opcode, length, b""));
                assert_eq!(heard, Heard::Close(MESSAGE_TOO_BIG), "{length} by {opcode:#x}");
            }
        }
    }

    #[test]
    fn what_is_allowed_is_kept_until_it_is_whole_and_no_longer() {
        let mut incoming = Incoming::default();
        let whole = frame(0x1, 1_024, &[b'x'; 1_024]);
        for byte in &whole[..whole.len() - 1] {
            assert_eq!(incoming.take(Form::WebSocket, &[*byte]), Heard::Nothing);
        }
        assert_eq!(incoming.take(Form::WebSocket, &whole[whole.len() - 1..]), Heard::Nothing);
        assert_eq!(incoming.begun.capacity(), 0);
        let heard = incoming.take(Form::WebSocket, &frame(0x9, 2, b"hi"));
        assert_eq!(heard, Heard::Answer(vec![0x8a, 2, b'h', b'i']));
        assert_eq!(incoming.take(Form::WebSocket, &frame(0x8, 0, b"")), Heard::Close(NORMAL));
    }

    #[test]
    fn an_endless_talk_is_ended() {
        for form in [Form::Sse, Form::WebSocket] {
            let mut incoming = Incoming::default();
            let ping = frame(0x9, 0, b"");
            let heard: Vec<_> = (0..SAID_MAX).map(|_| incoming.take(form, &ping)).collect();
            assert!(heard.contains(&Heard::Close(POLICY_VIOLATION)), "{form:?}");
            incoming.begin_anew();
            assert!(!matches!(incoming.take(form, &ping), Heard::Close(_)), "{form:?}");
        }
    }
}
