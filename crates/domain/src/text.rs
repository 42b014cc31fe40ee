//! The one rule for text from outside, which every store can keep and every page can show on one line: Unicode without
//! control characters (NUL, line breaks and tabs among them), line and paragraph separators, and noncharacters.
//!
//! The length is counted in characters; UTF-8 takes at most four bytes for each, so the rule bounds the bytes, too.

/// The longest name, key, venue, section, row, grade or memo, in characters: at most 800 bytes.
pub const TEXT_MAX: usize = 200;

/// Why `text` cannot be taken, or `None` when it can. The empty text can.
pub fn fault(text: &str, chars_max: usize) -> Option<String> {
    // The bytes first: a text of megabytes is not counted.
    if text.len() > 4 * chars_max || text.chars().count() > chars_max {
        return Some(format!("must be at most {chars_max} characters"));
    }
    text.chars().any(is_refused).then(|| "must not contain control characters, line separators or noncharacters".to_owned())
}

fn is_refused(char: char) -> bool {
    let code = u32::from(char);
    char.is_control() || matches!(code, 0x2028 | 0x2029 | 0xFDD0..=0xFDEF) || code & 0xFFFE == 0xFFFE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_and_without_what_a_store_cannot_hold() {
        for fine in ["", "Ann", "김민수 🎫", "a\u{200d}b", "\u{202b}אבג\u{202c}", &"🎫".repeat(TEXT_MAX)] {
            assert_eq!(fault(fine, TEXT_MAX), None, "{fine:?}");
        }
        for wrong in
            ["\0", "a\0b", "a\nb", "\t", "\u{1b}[31m", "\u{7f}", "\u{85}", "\u{2028}", "\u{2029}", "\u{fffe}", "\u{1ffff}", "\u{fdd0}"]
        {
            assert!(fault(wrong, TEXT_MAX).is_some(), "{wrong:?}");
        }
        assert!(fault(&"x".repeat(TEXT_MAX + 1), TEXT_MAX).is_some());
        assert!(fault(&"é".repeat(TEXT_MAX + 1), TEXT_MAX).is_some());
    }
}
