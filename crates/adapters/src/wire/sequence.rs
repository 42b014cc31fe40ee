//! Several JSON texts in one message: RFC 7464, each between a record separator and a line feed.
//!
//! Neither byte occurs inside a JSON text that this process writes, and no JSON text begins with the separator. So a
//! message that begins with it is a sequence, any other is one text, and a text that cannot be read does not affect its
//! neighbours.

use std::ops::Range;
use std::sync::Arc;

const SEPARATOR: u8 = 0x1e;
const END: u8 = b'\n';

/// One message of all texts, in order.
pub(crate) fn sequence(texts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(texts.iter().map(|text| text.len() + 2).sum());
    for text in texts {
        bytes.push(SEPARATOR);
        bytes.extend_from_slice(text);
        bytes.push(END);
    }
    bytes
}

/// A message of which some texts were taken. A copy begins at the same text.
#[derive(Clone, Debug)]
pub(crate) struct Texts {
    bytes: Arc<[u8]>,
    rest: Range<usize>,
    /// Whether every text was taken. An empty message is one text, and unreadable.
    over: bool,
}

impl Texts {
    pub(crate) fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let rest = usize::from(bytes.first() == Some(&SEPARATOR))..bytes.len();
        Self { bytes, rest, over: false }
    }

    /// Whether every text was taken.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The next text. Every message has one at least.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        if self.over {
            return None;
        }
        let is_sequence = self.bytes.first() == Some(&SEPARATOR);
        let rest = self.rest.clone();
        let end = match self.bytes[rest.clone()].iter().position(|byte| is_sequence && *byte == SEPARATOR) {
            Some(length) => {
                self.rest.start = rest.start + length + 1;
                rest.start + length
            }
            None => {
                self.over = true;
                rest.end
            }
        };
        let text = &self.bytes[rest.start..end];
        Some(if is_sequence { text.strip_suffix(&[END]).unwrap_or(text) } else { text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut texts = Texts::new(bytes);
        let mut all = Vec::new();
        while let Some(text) = texts.next() {
            all.push(text.to_vec());
        }
        assert!(texts.is_over());
        all
    }

    #[test]
    fn a_sequence_is_split_into_the_texts_it_was_made_of() {
        for texts in [&[b"{}".to_vec()][..], &[b"{\"a\":1}".to_vec(), Vec::new(), b"[\n]".to_vec()]] {
            assert_eq!(all(&sequence(texts)), texts);
        }
    }

    #[test]
    fn any_other_message_is_one_text() {
        for bytes in [&b""[..], b"{}", b"{\n}\n", b"{\"a\":\"\x1e\"}", b"\0\x1e"] {
            assert_eq!(all(bytes), [bytes]);
        }
    }

    #[test]
    fn a_truncated_or_empty_part_is_a_text_too() {
        assert_eq!(all(b"\x1e"), [b""]);
        assert_eq!(all(b"\x1e{}\n\x1e{\"a\""), [&b"{}"[..], b"{\"a\""]);
        assert_eq!(all(b"\x1e\x1e{}"), [&b""[..], b"{}"]);
    }

    #[test]
    fn a_copy_goes_on_where_it_was_made() {
        let mut texts = Texts::new(sequence(&[b"1".to_vec(), b"2".to_vec()]));
        assert_eq!(texts.next(), Some(&b"1"[..]));
        let mut copy = texts.clone();
        assert_eq!((texts.next(), copy.next()), (Some(&b"2"[..]), Some(&b"2"[..])));
        assert_eq!((texts.next(), copy.is_over()), (None, true));
    }
}
