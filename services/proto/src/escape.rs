//! Text from others, made harmless for a terminal.
//!
//! Owns: which characters are shown as escapes. Must not know where the text comes from: everything that others wrote
//! goes through here before it is shown.

use std::borrow::Cow;

/// Shows control characters and invisible ones that change the order or the lines of text as escapes (`\u{1b}`).
///
/// Control characters would let a message move the cursor, set the title or type into the terminal. Bidirectional
/// overrides (U+202A–202E, U+2066–2069) and marks let it look like another text (Unicode Technical Report 36); line and
/// paragraph separators let it look like a second message. Joiners stay: scripts and emoji need them.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => shown.extend(c.escape_default()),
            c if is_unsafe(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal would obey a character, or be misled by it.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{2028}' | '\u{2029}'
            | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_sequences_and_overrides_are_shown_and_not_obeyed() {
        for (text, expected) in [
            ("\u{1b}[2J\u{1b}]0;x\u{7}", "\\u{1b}[2J\\u{1b}]0;x\\u{7}"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{7f}\u{8}", "\\u{7f}\\u{8}"),
            ("ab\u{202e}dc", "ab\\u{202e}dc"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("one\u{2028}[14:03] two", "one\\u{2028}[14:03] two"),
        ] {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn ordinary_text_of_any_script_stays_as_it_is() {
        for text in ["halo bang hen", "é ü ñ", "مرحبا", "שלום", "你好", "👨‍👩‍👧", "\\u{1b} typed out"]
        {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left_of_any_text(text in any::<String>()) {
            prop_assert!(!escape(&text).chars().any(is_unsafe));
        }
    }
}
