//! Text that a policy wrote, made safe to print.

use std::error::Error;
use std::fmt::Write as _;

/// `text` with control characters, and characters that reorder or hide their neighbours, escaped; at most `max` characters of the input,
/// then `…`.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max) + 8);
    for (index, character) in text.chars().enumerate() {
        if index == max {
            out.push('…');
            break;
        }
        if is_unsafe(character) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// `error` and what caused it, on one line: every error of this crate says its own part only.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Whether `character` can move the cursor, break a line, or change how its neighbours are shown.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The longest prefix of `text` within `max` bytes that ends between characters.
pub(crate) fn prefix(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// `bytes` in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_reorders_text_is_escaped() {
        assert_eq!(clean("a\x1b[2Jb\r\nc\u{202e}d\u{7f}", 100), r"a\u{1b}[2Jb\r\nc\u{202e}d\u{7f}");
        assert_eq!(clean("Größe 8 µs", 100), "Größe 8 µs");
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        let source = std::io::Error::other("disk on fire");
        let error = crate::CacheError::Io { path: "/cache".into(), source };
        assert_eq!(chain(&error), "the cache of compiled policies fails at `/cache`: disk on fire");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(clean("äöü", 2), "äö…");
        assert_eq!(clean("äöü", 3), "äöü");
        assert_eq!(prefix("äöü", 3), "ä");
    }
}
