//! Bytes to lines, with a bound. Owns what is left of a line between two reads.

use std::borrow::Cow;

/// Longest line by default, without its end: 64 KiB (`protocol.md`, Framing).
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// How much of a line's beginning [`LineSplitter::line_so_far`] shows: a tag, a command and a token fit.
pub const LINE_HEAD_BYTES: usize = 256;

/// Cuts a stream of bytes into lines. Holds nothing while no line is half read.
#[derive(Debug)]
pub struct LineSplitter {
    line_bytes_max: usize,
    partial: Vec<u8>,
    skipping: bool,
}

/// One step of the splitter.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A line, without its LF or CR LF.
    Line(Cow<'a, [u8]>),
    /// A line has grown beyond the limit. Reported once for each; the rest of it will be skipped.
    TooLong,
}

impl LineSplitter {
    /// One that takes lines of up to `line_bytes_max` bytes, their end not counted.
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, partial: Vec::new(), skipping: false }
    }

    /// Takes the next line out of `input` and what is left from before; `None` when `input` is used up.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Step<'a>> {
        while !input.is_empty() {
            let Some(end) = memchr::memchr(b'\n', input) else {
                return self.keep(input);
            };
            let (head, rest) = input.split_at(end);
            *input = &rest[1..];
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.partial.is_empty() {
                let line = without_cr(head);
                return Some(if line.len() > self.line_bytes_max {
                    Step::TooLong
                } else {
                    Step::Line(Cow::Borrowed(line))
                });
            }
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(head);
            line.truncate(without_cr(&line).len());
            return Some(if line.len() > self.line_bytes_max {
                Step::TooLong
            } else {
                Step::Line(Cow::Owned(line))
            });
        }
        None
    }

    /// Keeps what has no end yet, or gives it up when it is too long already.
    fn keep<'a>(&mut self, input: &mut &'a [u8]) -> Option<Step<'a>> {
        let head = std::mem::take(input);
        if self.skipping {
            return None;
        }
        // One byte beyond the limit may yet turn out to be the CR of the line's end.
        if self.partial.len() + head.len() > self.line_bytes_max + 1 {
            self.partial = Vec::new();
            self.skipping = true;
            return Some(Step::TooLong);
        }
        self.partial.extend_from_slice(head);
        None
    }

    /// Changes the limit, from the line on that is being read.
    pub fn set_line_bytes_max(&mut self, line_bytes_max: usize) {
        self.line_bytes_max = line_bytes_max;
    }

    /// How long the line is already that `input` goes on with, and how it begins: up to [`LINE_HEAD_BYTES`].
    pub fn line_so_far(&self, input: &[u8]) -> (usize, Vec<u8>) {
        let more = memchr::memchr(b'\n', input).unwrap_or(input.len());
        let head = self.partial.iter().chain(&input[..more]).take(LINE_HEAD_BYTES).copied().collect();
        (self.partial.len() + more, head)
    }

    /// Whether a line has begun and not ended.
    pub fn is_partial(&self) -> bool {
        self.skipping || !self.partial.is_empty()
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `bytes` in pieces of `piece`; a too long line is shown as `!`.
    fn lines(bytes: &[u8], piece: usize, max: usize) -> Vec<String> {
        let mut splitter = LineSplitter::new(max);
        let mut seen = Vec::new();
        for mut input in bytes.chunks(piece) {
            while let Some(step) = splitter.next(&mut input) {
                seen.push(match step {
                    Step::Line(line) => String::from_utf8_lossy(&line).into_owned(),
                    Step::TooLong => "!".into(),
                });
            }
        }
        seen
    }

    #[test]
    fn lines_end_with_lf_or_crlf_however_they_arrive() {
        for piece in 1..20 {
            assert_eq!(
                lines(b"a b\r\nc\n\r\nd\re\nhalf", piece, 99),
                ["a b", "c", "", "d\re"],
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_does_not() {
        for piece in 1..20 {
            assert_eq!(
                lines(b"12345678\r\n12345678\n123456789\r\nx\n", piece, 8),
                ["12345678", "12345678", "!", "x"]
            );
            assert_eq!(lines(b"1234567890123456789\nx\n", piece, 8), ["!", "x"], "reported once");
        }
    }

    proptest! {
        #[test]
        fn how_bytes_are_cut_makes_no_difference(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a')], 0..200), piece in 1usize..50) {
            prop_assert_eq!(lines(&bytes, piece, 10), lines(&bytes, 1000, 10));
        }
    }
}
