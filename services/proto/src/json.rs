//! JSON as the line protocol wants it: ASCII only, with no CR and no LF in it.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Ends every reply and every event.
pub const FRAME_END: &[u8] = b"\r\n\r\n";

/// Escapes every character beyond ASCII as `\uXXXX`, astral ones as a surrogate pair: existing clients decode replies
/// in chunks of 64 bytes and break on a split character.
struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.is_ascii() {
            return CompactFormatter.write_string_fragment(writer, fragment);
        }
        let mut units = [0u16; 2];
        for run in fragment.split_inclusive(|c: char| !c.is_ascii()) {
            let last = run.chars().next_back().filter(|c| !c.is_ascii());
            let plain = run.len() - last.map_or(0, char::len_utf8);
            writer.write_all(&run.as_bytes()[..plain])?;
            for unit in last.iter().flat_map(|c| c.encode_utf16(&mut units).to_vec()) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// `value` and [`FRAME_END`], for what is written to many. See [`write_frame`].
pub fn frame_of<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, value);
    out
}

/// Appends `value` and [`FRAME_END`] to `out`.
///
/// The value must be one that JSON can express: string keys, no failing `Serialize`. All types of this crate are.
pub fn write_frame<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    let mut serializer = Serializer::with_formatter(&mut *out, AsciiFormatter);
    if value.serialize(&mut serializer).is_err() {
        // Writing to a Vec cannot fail, so this is a value that JSON cannot express: a mistake of ours that must not
        // leave half a frame on the wire.
        debug_assert!(false, "a reply that is not JSON");
        out.truncate(start);
        out.extend_from_slice(br#"{"status":"ERROR","code":"unavailable","message":"internal error"}"#);
    }
    out.extend_from_slice(FRAME_END);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(&mut out, text);
        out
    }

    #[test]
    fn characters_beyond_ascii_are_escaped() {
        assert_eq!(frame("é😀a"), b"\"\\u00e9\\ud83d\\ude00a\"\r\n\r\n");
        assert_eq!(frame("a\"\\\u{1b}\r\n"), b"\"a\\\"\\\\\\u001b\\r\\n\"\r\n\r\n");
    }

    proptest! {
        #[test]
        fn any_text_comes_back_and_its_frame_is_ascii_with_one_end(text in any::<String>()) {
            let bytes = frame(&text);
            prop_assert!(bytes.is_ascii());
            let body = bytes.strip_suffix(FRAME_END).unwrap();
            prop_assert!(!body.iter().any(|b| matches!(b, b'\r' | b'\n')));
            prop_assert_eq!(serde_json::from_slice::<String>(body).unwrap(), text);
        }
    }
}
