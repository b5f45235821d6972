//! The command port's protocol over WebSocket, and what is refused there. A client of its own, so that it can send what no
//! library would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::harness::{Builder, PATIENCE, Server, eventually, http_get, ok, refused, text};

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

struct Socket(TcpStream);

/// Asks to speak WebSocket, and returns the head of the answer too.
fn shake(addr: SocketAddr, more: &str) -> (Socket, String) {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a positive timeout");
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    (Socket(stream), String::from_utf8(head).expect("a head is text"))
}

impl Socket {
    #[track_caller]
    fn open(server: &Server) -> Self {
        let (socket, head) = shake(http(server), "");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert!(!head.to_lowercase().contains("extensions"), "nothing is compressed: {head}");
        socket
    }

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..=125 => bytes.push(0x80 | u8::try_from(short).expect("short")),
            length => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        bytes.extend(mask);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        bytes
    }

    #[track_caller]
    fn raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server takes what is written");
    }

    /// The next frame, or `None` at the end.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        let length = match head[1] {
            127 => {
                let mut length = [0; 8];
                self.0.read_exact(&mut length).ok()?;
                usize::try_from(u64::from_be_bytes(length)).expect("it fits")
            }
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).ok()?;
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[0], payload))
    }

    #[track_caller]
    fn reply(&mut self) -> Value {
        let (first, payload) = self.next().expect("a frame");
        assert_eq!(first, TEXT, "{}", String::from_utf8_lossy(&payload));
        serde_json::from_slice(&payload).expect("a frame is one JSON object")
    }

    #[track_caller]
    fn ask(&mut self, line: &str) -> Value {
        self.raw(&Self::frame(TEXT, line.as_bytes()));
        self.reply()
    }

    #[track_caller]
    fn login(&mut self, user: &str) -> String {
        text(&ok(self.ask(&format!("auth {user} surabaya"))), "tokenid").to_owned()
    }

    /// Reads on until the server closes, and says with which code.
    #[track_caller]
    fn closed(&mut self) -> u16 {
        while let Some((first, payload)) = self.next() {
            if first == CLOSE {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
        panic!("it ended without a close frame")
    }
}

fn builder() -> Builder {
    Builder::serve().env("LISTEN__HTTP", "127.0.0.1:0")
}

fn http(server: &Server) -> SocketAddr {
    server.http("realm1").expect("the first line names its address")
}

#[test]
fn commands_and_events_are_those_of_the_command_port() {
    let server = builder().start();
    let (mut messi, mut henderson) = (Socket::open(&server), Socket::open(&server));
    let (token, other) = (messi.login("messi"), henderson.login("henderson"));
    ok(henderson.ask(&format!("watch {other}")));
    let sent = ok(messi.ask(&format!("send {token} henderson  halo  dari peramban é")));
    let event = henderson.reply();
    assert_eq!(event["event"], "message", "{event}");
    assert_eq!((&event["msg"], &event["id"]), (&"halo  dari peramban é".into(), &sent["id"]));
    // Who speaks TCP is in the same realm.
    let mut line = server.connect("realm1");
    ok(line.ask(&format!("send {token} henderson dari TCP")));
    assert_eq!(henderson.reply()["msg"], "dari TCP");
    refused(messi.ask("frobnicate"), "unknown-command");
    refused(messi.ask("ping\nping"), "bad-request");
    messi.raw(&Socket::frame(PING, b"masih?"));
    assert_eq!(messi.next(), Some((PONG, b"masih?".to_vec())));
    messi.raw(&Socket::frame(CLOSE, &[0x03, 0xe8]));
    assert_eq!(messi.closed(), 1000);
}

#[test]
fn a_thousand_frames_in_one_go_are_answered_in_order() {
    let server = builder().start();
    let mut messi = Socket::open(&server);
    let token = messi.login("messi");
    let all: Vec<u8> = (0..1000)
        .flat_map(|at| Socket::frame(TEXT, format!("@n{at} send {token} messi {at}").as_bytes()))
        .collect();
    messi.raw(&all);
    for at in 0..1000 {
        assert_eq!(ok(messi.reply())["id"], format!("n{at}"));
    }
}

#[test]
fn what_is_no_message_closes_with_a_code_and_others_go_on() {
    let server = builder().start();
    let mut good = Socket::open(&server);
    let token = good.login("messi");
    let mut endless = vec![TEXT, 0xff];
    endless.extend((1u64 << 40).to_be_bytes());
    endless.extend([0; 4]);
    let long = vec![b'x'; 70_000];
    for (bytes, code) in [
        (b"\x81\x04ping".to_vec(), 1002),
        (Socket::frame(BINARY, b"ping"), 1003),
        (Socket::frame(TEXT | 0x40, b"ping"), 1002),
        (endless, 1009),
        (Socket::frame(TEXT, &long), 1009),
    ] {
        let mut bad = Socket::open(&server);
        // The server need not read it to its end.
        let _ = bad.0.write_all(&bytes[..bytes.len().min(1000)]);
        assert_eq!(bad.closed(), code);
    }
    let mut guest = Socket::open(&server);
    refused(guest.ask(&"x".repeat(13_000)), "line-too-long");
    ok(guest.ask("ping"));
    ok(good.ask(&format!("whoami {token}")));
}

#[test]
fn fragments_without_end_are_bounded() {
    let server = builder().start();
    let mut bad = Socket::open(&server);
    bad.login("messi");
    let part = vec![b'x'; 10_000];
    bad.raw(&Socket::frame(0x01, &part));
    for _ in 0..6 {
        let _ = bad.0.write_all(&Socket::frame(0x00, &part));
    }
    assert_eq!(bad.closed(), 1009);
    server.assert_serves();
}

#[test]
fn a_page_from_elsewhere_is_refused() {
    let server = builder().start();
    let addr = http(&server);
    let (_, head) = shake(addr, "Origin: https://evil.example\r\n");
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let (_, head) = shake(addr, &format!("Origin: http://{addr}\r\n"));
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(http_get(addr, "/ws").starts_with("HTTP/1.1 426"));
}

#[test]
fn a_frame_that_does_not_end_in_time_closes_its_connection_only() {
    let server = builder().limit("line_seconds", 1).start();
    let mut good = Socket::open(&server);
    let token = good.login("messi");
    for begun in [&Socket::frame(TEXT, b"ping")[..8], &[TEXT], &Socket::frame(PING, b"ping")[..8]] {
        let mut slow = Socket::open(&server);
        slow.login("henderson");
        slow.raw(begun);
        slow.closed();
    }
    ok(good.ask(&format!("whoami {token}")));
}

#[test]
fn who_never_logs_in_or_never_reads_is_closed() {
    let server = builder().limit("unauthenticated_seconds", 1).limit("write_stall_seconds", 1).start();
    let mut messi = Socket::open(&server);
    let token = messi.login("messi");
    Socket::open(&server).closed();
    let mut deaf = Socket::open(&server);
    deaf.login("henderson");
    let lines: Vec<u8> = (0..1000).flat_map(|_| Socket::frame(TEXT, b"help")).collect();
    eventually("the reader that never reads is closed", || deaf.0.write_all(&lines).is_err().then_some(()));
    ok(messi.ask(&format!("whoami {token}")));
}

#[test]
fn at_the_end_watchers_are_told_and_closed() {
    let mut server = builder().start();
    let mut messi = Socket::open(&server);
    let token = messi.login("messi");
    ok(messi.ask(&format!("watch {token}")));
    server.sigterm();
    assert_eq!(messi.reply()["event"], "shutdown");
    assert_eq!(messi.closed(), 1001);
}
