//! Traces, as a collector gets them. Only of a program that was built with the feature `otel`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::harness::{Builder, Chat, Server, eventually, ok, texts};

/// What a collector was sent: the paths, and the bodies one after the other.
#[derive(Default)]
struct Got {
    paths: Vec<String>,
    bodies: Vec<u8>,
}

/// A collector that takes everything.
struct Collector {
    addr: SocketAddr,
    got: Arc<Mutex<Got>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (addr, got) = (listener.local_addr().expect("it is bound"), Arc::new(Mutex::default()));
        let shared = Arc::clone(&got);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let got = Arc::clone(&shared);
                std::thread::spawn(move || take_all(stream, &got));
            }
        });
        Self { addr, got }
    }

    fn has(&self, what: &str) -> bool {
        let got = self.got.lock().expect("no holder panics");
        got.bodies.windows(what.len()).any(|bytes| bytes == what.as_bytes())
    }
}

/// Answers every request on a connection.
fn take_all(stream: TcpStream, got: &Mutex<Got>) {
    let mut writer = stream.try_clone().expect("a socket can be cloned");
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut path, mut line) = (0, String::new(), String::new());
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            if let Some(rest) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = rest.trim().parse().expect("a length");
            }
            if path.is_empty() {
                path.clone_from(&line);
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if path.is_empty() || reader.read_exact(&mut body).is_err() {
            return;
        }
        let mut got = got.lock().expect("no holder panics");
        got.paths.push(path);
        got.bodies.extend(body);
        drop(got);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if writer.write_all(answer).is_err() {
            return;
        }
    }
}

fn demo(collector: SocketAddr) -> Server {
    Builder::demo().env("LOG__OTLP_ENDPOINT", format!("http://{collector}")).start()
}

#[test]
fn a_collector_gets_the_spans_of_a_message_and_not_its_text() {
    let collector = Collector::start();
    let mut server = demo(collector.addr);
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    let sent = ok(messi.cmd("sendprivaterealm realm2 lineker kenari rahasia"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["kenari rahasia"]);
    let id = sent["message_id"].as_str().expect("an id").to_owned();
    for what in ["send", "carry", "deliver", "service.name", "antar", &id] {
        eventually(&format!("the collector has {what}"), || collector.has(what).then_some(()));
    }
    // What was done at the very end comes too.
    let last = ok(messi.cmd("send messi penutup"))["message_id"].as_str().expect("an id").to_owned();
    server.sigterm();
    assert!(collector.has(&last), "the last spans were not flushed: {}", server.log());
    assert!(!collector.has("kenari rahasia") && !collector.has(&messi.token) && !collector.has("penutup"));
    let got = collector.got.lock().expect("no holder panics");
    assert!(got.paths.iter().all(|path| path.starts_with("POST /v1/traces ")), "{:?}", got.paths);
    assert!(!server.log().contains("antar_trace"), "spans are no part of the log");
}

#[test]
fn a_collector_that_is_away_or_never_answers_holds_nothing_up() {
    // Nobody accepts what is connected to this one: the system does, and nothing is ever answered.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let away = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    for addr in [silent.local_addr().expect("it is bound"), away] {
        let mut server = demo(addr);
        let mut messi = Chat::login(&server, "realm1", "messi");
        for n in 0..200 {
            ok(messi.cmd(&format!("send messi {n}")));
        }
        assert_eq!(messi.inbox().len(), 200);
        server.sigterm();
    }
}
