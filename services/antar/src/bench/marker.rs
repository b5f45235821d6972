//! The text of a bench message: whose run it belongs to, its number, when it was due; and the account of what came.
//!
//! All of it is hexadecimal of a fixed width behind a `~`, so that it is found in a frame without reading JSON.

use std::collections::HashSet;

use memchr::memmem::Finder;

const RUN_DIGITS: usize = 8;
const SEQ_DIGITS: usize = 10;
const TIME_DIGITS: usize = 12;
/// Shortest text that holds all of it.
pub(crate) const MARKER_BYTES: usize = 1 + RUN_DIGITS + SEQ_DIGITS + TIME_DIGITS;

/// Tells one run of the bench from another, so that messages left over from an earlier one are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunId(u32);

impl RunId {
    /// A fresh one.
    pub(crate) fn fresh() -> Self {
        let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self((high >> 32) as u32)
    }
}

/// What a message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Its number with its sender, from 0.
    pub(crate) seq: u64,
    /// When it was due, in nanoseconds since the start of the bench.
    pub(crate) due_ns: u64,
}

/// A request line that is written once; sending copies it and puts in number and time.
#[derive(Debug)]
pub(crate) struct Template {
    line: Vec<u8>,
    seq_at: usize,
}

impl Template {
    /// `prefix` is everything before the text: `send TOKEN USER `.
    pub(crate) fn new(prefix: &str, run: RunId, size: usize) -> Self {
        let mut line = format!("{prefix}~{:08x}", run.0).into_bytes();
        let seq_at = line.len();
        line.resize(seq_at + SEQ_DIGITS + TIME_DIGITS, b'0');
        line.resize(prefix.len() + size.max(MARKER_BYTES), b'x');
        line.extend_from_slice(b"\r\n");
        Self { line, seq_at }
    }

    /// Appends the line of one message to `out`.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, marker: Marker) {
        let (seq, time) = self.line[self.seq_at..].split_at_mut(SEQ_DIGITS);
        put_hex(seq, marker.seq);
        put_hex(&mut time[..TIME_DIGITS], marker.due_ns);
        out.extend_from_slice(&self.line);
    }
}

/// Finds the messages of one run in frames.
#[derive(Debug)]
pub(crate) struct MarkerFinder(Finder<'static>);

impl MarkerFinder {
    /// Those of `run`.
    pub(crate) fn new(run: RunId) -> Self {
        Self(Finder::new(&format!("\"msg\":\"~{:08x}", run.0)).into_owned())
    }

    /// Each message in `frame`, in order: one in an event, many in the reply to `inbox`.
    pub(crate) fn find<'a>(&'a self, frame: &'a [u8]) -> impl Iterator<Item = Marker> + 'a {
        let digits = self.0.needle().len();
        self.0.find_iter(frame).filter_map(move |at| {
            let seq_at = at + digits;
            let seq = frame.get(seq_at..seq_at + SEQ_DIGITS)?;
            let time = frame.get(seq_at + SEQ_DIGITS..seq_at + SEQ_DIGITS + TIME_DIGITS)?;
            Some(Marker { seq: hex(seq)?, due_ns: hex(time)? })
        })
    }
}

fn put_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, &digit| match digit {
        b'0'..=b'9' => Some(value << 4 | u64::from(digit - b'0')),
        b'a'..=b'f' => Some(value << 4 | u64::from(digit - b'a' + 10)),
        _ => None,
    })
}

/// What one receiver has got of one sender.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    next: u64,
    missing: HashSet<u64>,
}

/// How a message fits to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Newer than all before.
    InOrder,
    /// For the first time, but after a later one.
    OutOfOrder,
    /// It was here already.
    Duplicate,
}

impl Sequence {
    /// Notes one arrival.
    pub(crate) fn arrived(&mut self, seq: u64) -> Arrival {
        if seq >= self.next {
            self.missing.extend(self.next..seq);
            self.next = seq + 1;
            return Arrival::InOrder;
        }
        if self.missing.remove(&seq) { Arrival::OutOfOrder } else { Arrival::Duplicate }
    }

    /// How many of the messages below `acknowledged` never came, but for the `refused` ones.
    pub(crate) fn lost(&self, acknowledged: u64, refused: &HashSet<u64>) -> u64 {
        let inside =
            self.missing.iter().filter(|&&seq| seq < acknowledged && !refused.contains(&seq)).count() as u64;
        let refused_behind =
            refused.iter().filter(|&&seq| seq >= self.next && seq < acknowledged).count() as u64;
        inside + acknowledged.saturating_sub(self.next) - refused_behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_comes_back_out_of_a_frame() {
        let run = RunId(0xdead_beef);
        let mut template = Template::new("send T bench-1 ", run, 100);
        let mut out = Vec::new();
        let sent = [Marker { seq: 0, due_ns: 1 }, Marker { seq: 0xfff_ffff, due_ns: 0xabc_def0_1234 }];
        sent.iter().for_each(|&marker| template.write(&mut out, marker));
        let mut frame = Vec::new();
        for line in out.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let line = line.strip_suffix(b"\r").unwrap();
            let text = line.strip_prefix(b"send T bench-1 ").unwrap();
            assert_eq!(text.len(), 100);
            frame.extend_from_slice(br#"{"msg_from":"a","msg":""#);
            frame.extend_from_slice(text);
            frame.extend_from_slice(br#"","id":"x"}"#);
        }
        assert_eq!(MarkerFinder::new(run).find(&frame).collect::<Vec<_>>(), sent);
        assert_eq!(MarkerFinder::new(RunId(1)).find(&frame).count(), 0, "of another run");
        assert_eq!(MarkerFinder::new(run).find(b"\"msg\":\"~deadbeef00").count(), 0, "cut off");
    }

    #[test]
    fn lost_duplicated_and_reordered_messages_are_told_apart() {
        let mut sequence = Sequence::default();
        let arrivals: Vec<_> = [0, 1, 3, 2, 3, 6].map(|seq| sequence.arrived(seq)).to_vec();
        use Arrival::{Duplicate, InOrder, OutOfOrder};
        assert_eq!(arrivals, [InOrder, InOrder, InOrder, OutOfOrder, Duplicate, InOrder]);
        let none = HashSet::new();
        assert_eq!(sequence.lost(7, &none), 2, "4 and 5");
        assert_eq!(sequence.lost(5, &none), 1, "5 was not acknowledged");
        assert_eq!(sequence.lost(9, &none), 4, "7 and 8 too");
        assert_eq!(sequence.lost(9, &HashSet::from([4, 8])), 2, "refused ones are not lost");
    }
}
