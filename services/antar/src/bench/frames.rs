//! Reads frames off a socket with as little work as possible: one buffer for all connections of a thread, frame ends
//! found at memory speed, no copies but of what is cut off at the end of a read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use antar_proto::frame::FRAME_BYTES_MAX;
use antar_proto::json::FRAME_END;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

/// Room for one read: about a thousand frames of messages of 100 bytes.
const READ_BYTES: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The reading side of a connection.
#[derive(Debug)]
pub(crate) struct FrameReader {
    half: OwnedReadHalf,
    /// The beginning of a frame whose end has not come.
    carry: Vec<u8>,
}

/// What kind of frame it is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A reply that says OK.
    Ok,
    /// A reply that says something else.
    Error,
    /// Pushed.
    Event,
}

/// What kind of frame it is.
pub(crate) fn kind(frame: &[u8]) -> Kind {
    if frame.starts_with(br#"{"event""#) {
        Kind::Event
    } else if frame.starts_with(br#"{"status":"OK""#) {
        Kind::Ok
    } else {
        Kind::Error
    }
}

impl FrameReader {
    /// Reads from `half`.
    pub(crate) fn new(half: OwnedReadHalf) -> Self {
        Self { half, carry: Vec::new() }
    }

    /// Waits until something comes and calls `each` with every frame that is whole by then, without its end; there may
    /// be none. An error also at the end of the stream. Cancel-safe: what was read stays in `carry`.
    pub(crate) async fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        poll_fn(|cx| SCRATCH.with_borrow_mut(|scratch| self.poll_read(cx, scratch, &mut each))).await
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        each: &mut impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let kept = self.carry.len();
        if kept > FRAME_BYTES_MAX {
            return Poll::Ready(Err(io::Error::other("a reply without end: is this an Antar server?")));
        }
        if scratch.len() < kept + READ_BYTES {
            scratch.resize(kept + READ_BYTES, 0);
        }
        let mut buffer = ReadBuf::new(&mut scratch[kept..]);
        ready!(Pin::new(&mut self.half).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        scratch[..kept].copy_from_slice(&self.carry);
        let bytes = &scratch[..kept + read];
        // The end itself may have been cut: look again at its last bytes.
        let rest = split(bytes, kept.saturating_sub(FRAME_END.len() - 1), each);
        self.carry.clear();
        self.carry.extend_from_slice(rest);
        Poll::Ready(Ok(()))
    }
}

/// Calls `each` with every whole frame of `bytes`; the first `scanned` bytes have no end in them. Returns the rest.
fn split<'a>(bytes: &'a [u8], scanned: usize, each: &mut impl FnMut(&[u8])) -> &'a [u8] {
    let (mut start, mut from) = (0, scanned);
    // No LF stands inside a frame, so the first one belongs to its end.
    while let Some(at) = memchr::memchr(b'\n', &bytes[from..]) {
        let lf = from + at;
        let end = lf + 3;
        if end > bytes.len() {
            break;
        }
        if lf > start && &bytes[lf - 1..end] == FRAME_END {
            each(&bytes[start..lf - 1]);
            start = end;
            from = end;
        } else {
            from = lf + 1;
        }
    }
    &bytes[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let stream = b"{\"a\"}\r\n\r\n{}\r\n\r\n{\"long\":1}\r\n\r\nhalf\r\n\r";
        for piece in 1..stream.len() {
            let (mut carry, mut seen) = (Vec::new(), Vec::new());
            for part in stream.chunks(piece) {
                let kept = carry.len();
                carry.extend_from_slice(part);
                let mut each = |frame: &[u8]| seen.push(String::from_utf8(frame.to_vec()).unwrap());
                let rest = split(&carry, kept.saturating_sub(3), &mut each).to_vec();
                carry = rest;
            }
            assert_eq!(seen, ["{\"a\"}", "{}", "{\"long\":1}"], "pieces of {piece}");
            assert_eq!(carry, b"half\r\n\r");
        }
    }

    #[test]
    fn a_frame_is_told_by_its_first_bytes() {
        assert_eq!(kind(br#"{"status":"OK","message":"Message Sent"}"#), Kind::Ok);
        assert_eq!(kind(br#"{"status":"ERROR","code":"slow-down"}"#), Kind::Error);
        assert_eq!(kind(br#"{"event":"message"}"#), Kind::Event);
    }
}
