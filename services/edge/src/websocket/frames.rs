//! Frames of WebSocket, both ways, as bytes. Owns what is left of a frame between two reads; knows no stream and no time.

use antar_proto::json::FRAME_END;

/// Longest head of a frame: two bytes, a length of eight, a mask of four.
const HEAD_BYTES_MAX: usize = 14;
/// Longest payload of a ping, a pong or a close.
const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why nothing more is read, and what the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// The client has closed.
    Asked,
    /// The stream has ended.
    Gone,
    /// This side ends it.
    GoingAway,
    /// These are no frames of a client.
    Protocol,
    /// A message is binary.
    Binary,
    /// A message is longer than any line may be.
    TooLong,
}

impl Close {
    fn code(self) -> u16 {
        match self {
            Self::Asked => 1000,
            Self::Gone | Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::Binary => 1003,
            Self::TooLong => 1009,
        }
    }
}

/// A frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    opcode: u8,
    is_last: bool,
    left: u64,
    mask: [u8; 4],
    /// Which byte of the mask is next.
    turn: usize,
}

/// Makes lines of what a client sends.
#[derive(Debug)]
pub(super) struct Decoder {
    message_bytes_max: u64,
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    frame: Option<Frame>,
    /// Bytes of the message that has begun and not ended.
    message_bytes: Option<u64>,
    control: Vec<u8>,
}

impl Decoder {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max: message_bytes_max as u64,
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            frame: None,
            message_bytes: None,
            control: Vec::new(),
        }
    }

    /// Whether a frame or a message has begun and not ended.
    pub(super) fn is_partial(&self) -> bool {
        self.head_bytes > 0 || self.frame.is_some() || self.message_bytes.is_some()
    }

    /// Appends what `bytes` says to `lines`; a message ends as a line does, and a line end inside one becomes a CR, which no
    /// line may have. The last ping in it is to be answered.
    pub(super) fn decode(&mut self, mut bytes: &[u8], lines: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Close> {
        let mut ping = None;
        while !bytes.is_empty() {
            let Some(frame) = &mut self.frame else {
                self.head[self.head_bytes] = bytes[0];
                self.head_bytes += 1;
                bytes = &bytes[1..];
                self.frame = self.head()?;
                if self.frame.as_ref().is_some_and(|frame| frame.left == 0) {
                    self.end_frame(lines, &mut ping)?;
                }
                continue;
            };
            let most = usize::try_from(frame.left).unwrap_or(usize::MAX);
            let (payload, rest) = bytes.split_at(most.min(bytes.len()));
            bytes = rest;
            frame.left -= payload.len() as u64;
            let (mask, turn) = (frame.mask, frame.turn);
            frame.turn = (turn + payload.len()) % mask.len();
            let is_done = frame.left == 0;
            let open = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[(turn + at) % mask.len()]);
            if frame.opcode >= CLOSE {
                self.control.extend(open);
            } else {
                lines.extend(open.map(|byte| if byte == b'\n' { b'\r' } else { byte }));
            }
            if is_done {
                self.end_frame(lines, &mut ping)?;
            }
        }
        Ok(ping)
    }

    /// The frame that begins here, once its head is whole. What is wrong with it is told at its second byte.
    fn head(&mut self) -> Result<Option<Frame>, Close> {
        let [first, second, rest @ ..] = &self.head;
        if self.head_bytes < 2 {
            return Ok(None);
        }
        let (opcode, is_last) = (first & 0x0f, first & FIN != 0);
        let begun = self.message_bytes.is_some();
        let short = second & !MASKED;
        let is_good = match opcode {
            CONTINUATION => begun,
            TEXT => !begun,
            BINARY => return Err(Close::Binary),
            CLOSE | PING | PONG => is_last && usize::from(short) <= CONTROL_BYTES_MAX,
            _ => false,
        };
        if !is_good || first & 0x70 != 0 || second & MASKED == 0 {
            return Err(Close::Protocol);
        }
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.head_bytes < 2 + length_bytes + 4 {
            return Ok(None);
        }
        let left = match length_bytes {
            0 => u64::from(short),
            _ => rest[..length_bytes].iter().fold(0, |length, byte| (length << 8) | u64::from(*byte)),
        };
        if opcode < CLOSE {
            let whole = self.message_bytes.unwrap_or_default().saturating_add(left);
            if whole > self.message_bytes_max {
                return Err(Close::TooLong);
            }
            self.message_bytes = Some(whole);
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&rest[length_bytes..length_bytes + 4]);
        self.head_bytes = 0;
        Ok(Some(Frame { opcode, is_last, left, mask, turn: 0 }))
    }

    fn end_frame(&mut self, lines: &mut Vec<u8>, ping: &mut Option<Vec<u8>>) -> Result<(), Close> {
        let Some(frame) = self.frame.take() else { return Ok(()) };
        match frame.opcode {
            CLOSE => return Err(Close::Asked),
            PING => *ping = Some(std::mem::take(&mut self.control)),
            PONG => self.control.clear(),
            _ if frame.is_last => {
                lines.push(b'\n');
                self.message_bytes = None;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Makes messages of replies and events.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// Of the message whose head was written: what is still to come.
    left: usize,
    /// Of the end of a reply, which no message has: what is still to be left out.
    end_left: usize,
}

impl Encoder {
    /// Whether a frame of another kind may come now.
    pub(super) fn is_between(&self) -> bool {
        self.left == 0
    }

    /// Appends about `most` bytes of `bytes`, and says how many of them that were.
    pub(super) fn encode(&mut self, bytes: &[u8], most: usize, into: &mut Vec<u8>) -> usize {
        let mut done = 0;
        while done < bytes.len() && into.len() < most {
            let rest = &bytes[done..];
            if self.end_left > 0 && self.left == 0 {
                let count = self.end_left.min(rest.len());
                self.end_left -= count;
                done += count;
                continue;
            }
            if self.left == 0 {
                // Replies are written whole, so the end is there.
                self.left = memchr::memmem::find(rest, FRAME_END).unwrap_or(rest.len());
                self.end_left = FRAME_END.len();
                head(TEXT, self.left, into);
            }
            let count = self.left.min(rest.len()).min(most);
            into.extend_from_slice(&rest[..count]);
            self.left -= count;
            done += count;
        }
        done
    }
}

fn head(opcode: u8, length: usize, into: &mut Vec<u8>) {
    into.push(FIN | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if usize::from(short) <= CONTROL_BYTES_MAX => into.push(short),
        (_, Ok(middle)) => {
            into.push(126);
            into.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            into.push(127);
            into.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a ping.
pub(super) fn ping(into: &mut Vec<u8>) {
    head(PING, 0, into);
}

/// Appends the answer to a ping.
pub(super) fn pong(ping: &[u8], into: &mut Vec<u8>) {
    head(PONG, ping.len(), into);
    into.extend_from_slice(ping);
}

/// Appends the last frame.
pub(super) fn close(why: Close, into: &mut Vec<u8>) {
    head(CLOSE, 2, into);
    into.extend_from_slice(&why.code().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        head(first & 0x0f, payload.len(), &mut bytes);
        bytes[0] = first;
        bytes[1] |= MASKED;
        let mask = [7, 1, 0xff, 0x30];
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        bytes
    }

    fn decode(bytes: &[u8], piece: usize) -> (String, Option<Close>) {
        let (mut decoder, mut lines) = (Decoder::new(20), Vec::new());
        let told = bytes.chunks(piece).find_map(|piece| decoder.decode(piece, &mut lines).err());
        (String::from_utf8_lossy(&lines).into_owned(), told)
    }

    #[test]
    fn messages_are_lines_however_they_are_cut() {
        let mut bytes = frame(FIN | TEXT, b"ping");
        bytes.extend(frame(TEXT, b"wh"));
        bytes.extend(frame(FIN | PING, b"still there?"));
        bytes.extend(frame(CONTINUATION, b""));
        bytes.extend(frame(FIN | CONTINUATION, b"o\nami\r\n"));
        bytes.extend(frame(FIN | TEXT, b""));
        for piece in 1..bytes.len() {
            assert_eq!(decode(&bytes, piece), ("ping\nwho\rami\r\r\n\n".into(), None), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_message_closes_with_its_code() {
        let unmasked = [FIN | TEXT, 4, b'p', b'i', b'n', b'g'];
        let endless = [FIN | TEXT, MASKED | 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let mut fragments = frame(TEXT, b"0123456789");
        fragments.extend(frame(CONTINUATION, b"0123456789"));
        fragments.extend(frame(CONTINUATION, b"0"));
        let twice = [frame(TEXT, b"a"), frame(TEXT, b"b")].concat();
        for (bytes, why) in [
            (&unmasked[..], Close::Protocol),
            (&endless, Close::TooLong),
            (&fragments, Close::TooLong),
            (&twice, Close::Protocol),
            (&frame(FIN | BINARY, b"x"), Close::Binary),
            (&frame(FIN | CONTINUATION, b"x"), Close::Protocol),
            (&frame(PING, b"x"), Close::Protocol),
            (&frame(FIN | 0x40 | TEXT, b"x"), Close::Protocol),
            (&frame(FIN | 3, b"x"), Close::Protocol),
            (&frame(FIN | CLOSE, &[3, 0xe8]), Close::Asked),
        ] {
            for piece in [1, 3, 100] {
                assert_eq!(decode(bytes, piece).1, Some(why), "{bytes:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn replies_are_messages_however_much_is_taken(lengths in proptest::collection::vec(0usize..70_000, 1..5), most in 1usize..20_000) {
            let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
            for length in lengths {
                let reply = vec![b'x'; length];
                head(TEXT, length, &mut wanted);
                wanted.extend_from_slice(&reply);
                bytes.extend_from_slice(&reply);
                bytes.extend_from_slice(FRAME_END);
            }
            let (mut encoder, mut got, mut done) = (Encoder::default(), Vec::new(), 0);
            while done < bytes.len() {
                let mut into = Vec::new();
                done += encoder.encode(&bytes[done..], most, &mut into);
                got.extend(into);
            }
            prop_assert!(got == wanted);
            prop_assert!(encoder.is_between());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..40) {
            decode(&bytes, piece);
        }
    }
}
