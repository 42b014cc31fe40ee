//! Frames as bytes: the same JSON as an event of a stream (WHATWG HTML, 9.2) and as a message of a WebSocket
//! (RFC 6455, 5.2).

use std::fmt::Write as _;
use std::sync::Arc;

/// How a listener is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Sse,
    WebSocket,
}

impl Form {
    /// One JSON object as one frame. It has no line breaks.
    pub(super) fn encode(self, event: &str, seq: u64, json: &str) -> Arc<[u8]> {
        match self {
            Self::Sse => format!("event: {event}\nid: {seq}\ndata: {json}\n\n").into_bytes().into(),
            Self::WebSocket => text_message(json).into(),
        }
    }
}

/// A whole text message, not masked.
fn text_message(text: &str) -> Vec<u8> {
    const FINAL_TEXT: u8 = 0x81;
    let mut bytes = Vec::with_capacity(text.len() + 10);
    bytes.push(FINAL_TEXT);
    match text.len() {
        short @ 0..=125 => bytes.push(short as u8),
        middle @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// A frame for many listeners, in both forms.
#[derive(Clone, Debug)]
pub(super) struct SharedFrame {
    sse: Arc<[u8]>,
    websocket: Arc<[u8]>,
}

impl SharedFrame {
    pub(super) fn new(event: &str, seq: u64, json: &str) -> Self {
        Self { sse: Form::Sse.encode(event, seq, json), websocket: Form::WebSocket.encode(event, seq, json) }
    }

    pub(super) fn of(&self, form: Form) -> Arc<[u8]> {
        match form {
            Form::Sse => self.sse.clone(),
            Form::WebSocket => self.websocket.clone(),
        }
    }
}

/// A frame that carries nothing but its event.
pub(super) fn plain(event: &str, seq: u64) -> String {
    format!("{{\"type\":\"{event}\",\"seq\":{seq}}}")
}

pub(super) fn position(seq: u64, admitted: u64, left: &[u64], admitted_per_s: f64) -> String {
    let mut json = String::with_capacity(96 + left.len() * 8);
    // Writing into a string cannot fail.
    let _ = write!(json, "{{\"type\":\"position\",\"seq\":{seq},\"admitted\":{admitted},\"left\":[");
    for (at, place) in left.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(json, "{comma}{place}");
    }
    let _ = write!(json, "],\"admitted_per_s\":{admitted_per_s:.3}}}");
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_carry_the_same_text() {
        let json = position(7, 12, &[3, 5], 1.0 / 3.0);
        assert_eq!(json, r#"{"type":"position","seq":7,"admitted":12,"left":[3,5],"admitted_per_s":0.333}"#);
        let frame = SharedFrame::new("position", 7, &json);
        assert_eq!(&*frame.of(Form::Sse), format!("event: position\nid: 7\ndata: {json}\n\n").as_bytes());
        assert_eq!(frame.of(Form::WebSocket)[..2], [0x81, json.len() as u8]);
        assert_eq!(&frame.of(Form::WebSocket)[2..], json.as_bytes());
    }

    #[test]
    fn a_message_of_any_length_carries_its_length() {
        for (length, head) in [
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 255, 255]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let message = text_message(&"x".repeat(length));
            assert_eq!((&message[..head.len()], message.len()), (&head[..], head.len() + length));
        }
    }
}
