//! One raw connection to a command port.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::wait::PATIENCE;

/// A client that knows nothing but bytes and frames. Every read and every write has a deadline.
pub(crate) struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

/// What became of waiting for a frame.
#[derive(Debug)]
pub(crate) enum OneFrame {
    /// A frame, without its end.
    Frame(Vec<u8>),
    /// The other side closed or reset the connection.
    Closed,
    /// Nothing came in time.
    Silence,
}

impl Conn {
    /// Connects.
    #[track_caller]
    pub(crate) fn open(addr: SocketAddr) -> Self {
        Self::try_open(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"))
    }

    /// Connects, or tells why not.
    pub(crate) fn try_open(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new(), start: 0 })
    }

    /// Connects from a certain address of this machine.
    pub(crate) fn open_from(from: &str, addr: SocketAddr) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        let from: SocketAddr = format!("{from}:0").parse().expect("an address");
        socket.bind(&from.into())?;
        socket.connect_timeout(&addr.into(), PATIENCE)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: socket.into(), buffer: Vec::new(), start: 0 })
    }

    /// A second handle on the same socket, for writing while this one reads.
    pub(crate) fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket can be cloned")
    }

    /// Has the kernel keep little of what is not read: by itself it may keep tens of megabytes.
    pub(crate) fn keep_little(&self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_recv_buffer_size(64 * 1024).expect("the kernel takes any size");
    }

    /// Writes bytes as they are.
    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes what is written");
    }

    /// Writes bytes as they are, or tells why not.
    pub(crate) fn try_send_raw(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Writes a line and its CR LF.
    #[track_caller]
    pub(crate) fn send(&mut self, line: &str) {
        self.send_raw(format!("{line}\r\n"));
    }

    /// Says that nothing more will be written.
    pub(crate) fn finish_writing(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the socket is open");
    }

    /// Waits up to `patience` for the next frame.
    pub(crate) fn next_frame(&mut self, patience: Duration) -> OneFrame {
        let deadline = Instant::now() + patience;
        let mut scanned = self.start;
        loop {
            if let Some(at) = find(&self.buffer[scanned..], b"\r\n\r\n") {
                let end = scanned + at;
                let frame = self.buffer[self.start..end].to_vec();
                self.start = end + 4;
                if self.start == self.buffer.len() {
                    self.buffer.clear();
                    self.start = 0;
                }
                return OneFrame::Frame(frame);
            }
            scanned = self.buffer.len().saturating_sub(3).max(self.start);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return OneFrame::Silence;
            }
            self.stream.set_read_timeout(Some(left)).expect("a positive timeout");
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => return OneFrame::Closed,
                Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return OneFrame::Silence;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return OneFrame::Closed,
            }
        }
    }

    /// The next frame's bytes.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        match self.next_frame(PATIENCE) {
            OneFrame::Frame(frame) => frame,
            other => panic!("no frame: {other:?}; read so far: {:?}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// The next frame, reply or event; but who comes and goes is told at any time, and left out. Every frame that any test sees is
    /// checked: ASCII, one object, no line end.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Value {
        loop {
            let frame = parse(&self.frame());
            if frame["event"] != "presence" {
                return frame;
            }
        }
    }

    /// Whether it is told within a second that a user is `online` or `offline`; puts what it is told of others to `others`.
    #[track_caller]
    pub(crate) fn is_told(&mut self, user: &str, state: &str, others: &mut Vec<Value>) -> bool {
        loop {
            let OneFrame::Frame(frame) = self.next_frame(Duration::from_secs(1)) else { return false };
            let event = parse(&frame);
            assert_eq!(event["event"], "presence", "{event}");
            if event["user"] == user && event["state"] == state {
                return true;
            }
            others.push(event);
        }
    }

    /// The next frame, or `None` when the connection is closed.
    #[track_caller]
    pub(crate) fn reply_or_end(&mut self) -> Option<Value> {
        match self.next_frame(PATIENCE) {
            OneFrame::Frame(frame) => Some(parse(&frame)),
            OneFrame::Closed => None,
            OneFrame::Silence => panic!("neither a frame nor the end"),
        }
    }

    /// Asks one line and returns its reply.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> Value {
        self.send(line);
        self.reply()
    }

    /// Asks as the clients of the reports do: the answer is read 64 bytes at a time, each piece is decoded by itself,
    /// and what ends with CR LF CR LF is whole.
    #[track_caller]
    pub(crate) fn ask_like_the_reports(&mut self, bytes: &[u8]) -> Value {
        assert_eq!(self.buffer.len(), self.start, "something was read before");
        self.send_raw(bytes);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a positive timeout");
        let mut whole = String::new();
        while !whole.ends_with("\r\n\r\n") {
            let mut piece = [0; 64];
            let n = self.stream.read(&mut piece).expect("a reply");
            assert!(n > 0, "closed after {whole:?}");
            whole += std::str::from_utf8(&piece[..n]).expect("every piece can be decoded by itself");
        }
        parse(whole.trim_end().as_bytes())
    }

    /// Waits until the server has closed the connection, dropping what it still says.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        while self.reply_or_end().is_some() {}
    }

    /// Whether the server still answers on this connection.
    pub(crate) fn answers(&mut self) -> bool {
        self.try_send_raw(b"ping\r\n").is_ok() && matches!(self.next_frame(PATIENCE), OneFrame::Frame(_))
    }
}

#[track_caller]
fn parse(frame: &[u8]) -> Value {
    let shown = String::from_utf8_lossy(frame);
    assert!(frame.is_ascii(), "not ASCII: {shown}");
    assert!(!frame.iter().any(|b| *b < b' '), "a control character: {shown:?}");
    let value: Value = serde_json::from_slice(frame).unwrap_or_else(|e| panic!("not JSON ({e}): {shown}"));
    assert!(value.is_object(), "not an object: {shown}");
    assert!(
        value["status"].is_string() != value["event"].is_string(),
        "neither a reply nor an event: {shown}"
    );
    value
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
