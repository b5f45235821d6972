//! Bytes to frames, for clients: a reply or an event is what stands before CR LF CR LF.

use crate::json::FRAME_END;

/// Longest frame a client takes, in bytes. An `inbox` reply is the largest: 1 MiB of text, which escapes can make six
/// times as long, and the fields around it.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Collects bytes until a frame is whole.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    scanned: usize,
}

/// The other side sent more than [`FRAME_BYTES_MAX`] bytes without the end of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reply of more than {FRAME_BYTES_MAX} bytes: is this an Antar server?")]
pub struct FrameTooLong;

impl FrameBuffer {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FrameTooLong> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        if self.bytes.len() + bytes.len() > FRAME_BYTES_MAX {
            return Err(FrameTooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole frame, without its end.
    pub fn next_frame(&mut self) -> Option<&[u8]> {
        let from = self.scanned.saturating_sub(FRAME_END.len() - 1).max(self.start);
        let Some(at) = memchr::memmem::find(&self.bytes[from..], FRAME_END) else {
            self.scanned = self.bytes.len();
            return None;
        };
        let frame = self.start..from + at;
        self.start = frame.end + FRAME_END.len();
        self.scanned = self.start;
        Some(&self.bytes[frame])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(bytes: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut buffer = FrameBuffer::default();
        let mut seen = Vec::new();
        for input in bytes.chunks(piece) {
            buffer.push(input).unwrap();
            while let Some(frame) = buffer.next_frame() {
                seen.push(frame.to_vec());
            }
        }
        seen
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_they_arrive(bodies in proptest::collection::vec("[a-z\"{}]{0,40}", 0..20), piece in 1usize..64) {
            let mut bytes = Vec::new();
            for body in &bodies {
                bytes.extend_from_slice(body.as_bytes());
                bytes.extend_from_slice(FRAME_END);
            }
            bytes.extend_from_slice(b"half\r\n\r");
            let expected: Vec<_> = bodies.iter().map(|b| b.as_bytes().to_vec()).collect();
            prop_assert_eq!(frames(&bytes, piece), expected);
        }
    }

    #[test]
    fn a_frame_without_end_is_bounded() {
        let mut buffer = FrameBuffer::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..20).any(|_| {
            assert!(buffer.next_frame().is_none());
            buffer.push(&piece).is_err()
        });
        assert!(refused);
    }
}
