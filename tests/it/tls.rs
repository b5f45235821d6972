//! TLS: the same conversations, the same bad input, and a certificate that changes under way.

use std::fs;
use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{
    Builder, Certificate, Chat, Conn, Nats, OneFrame, PASSWORD, Server, Tunnel, antar, connect_over_tls,
    eventually, ok, refused, text, texts,
};

/// How much a server may grow by anything that one client sends, as in `bad_input.rs`.
const GROWTH_MAX_KIB: u64 = 8 * 1024;

/// A server with TLS, its certificate, and a tunnel to it.
fn start() -> (Server, Certificate, Tunnel) {
    let certificate = Certificate::new();
    let server = Builder::serve().tls(&certificate).start();
    let tunnel = Tunnel::open(server.tls("realm1"), &certificate.file());
    (server, certificate, tunnel)
}

fn login(tunnel: &Tunnel, user: &str) -> Chat {
    let mut conn = Conn::open(tunnel.addr());
    let reply = ok(conn.ask(&format!("auth {user} {PASSWORD}")));
    Chat::resumed(conn, text(&reply, "tokenid"))
}

fn run<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

#[test]
fn a_conversation_over_tls_is_the_one_over_plain_text() {
    let (server, _certificate, tunnel) = start();
    let mut messi = login(&tunnel, "messi");
    let mut henderson = login(&tunnel, "henderson");
    let mut plain = Chat::login(&server, "realm1", "lineker");
    ok(henderson.cmd("watch"));
    ok(messi.cmd("send henderson halo bang hen"));
    let pushed = henderson.event("message");
    assert_eq!(pushed["msg"], "halo bang hen", "{pushed}");
    ok(plain.cmd("send messi dari luar"));
    assert_eq!(texts(&messi.inbox()), ["dari luar"]);
    // A line of nearly the longest, and replies that are many records long.
    let long = "x".repeat(60_000);
    for _ in 0..10 {
        ok(messi.cmd(&format!("send lineker {long}")));
    }
    let history = ok(messi.cmd("history limit=10"));
    let said = history["messages"].as_array().expect("a list");
    assert!(said.len() == 10 && said.iter().all(|message| message["msg"] == long), "all of it came through");
    ok(messi.cmd("logout"));
    refused(messi.cmd("whoami"), "not-authorized");
}

#[test]
fn many_lines_at_once_are_answered_in_their_order_over_tls() {
    let (_server, _certificate, tunnel) = start();
    let mut messi = login(&tunnel, "messi");
    let lines: String =
        (0..5_000).map(|n| format!("@{n} {}\r\n", messi.line(&format!("send messi ke-{n}")))).collect();
    let mut writer = messi.writer();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, lines.as_bytes()));
    for n in 0..5_000 {
        assert_eq!(ok(messi.reply())["id"], n.to_string());
    }
    writing.join().expect("the writer does not panic").expect("all was taken");
}

#[test]
fn chat_checks_whom_it_talks_to() {
    let (server, certificate, _tunnel) = start();
    let addr = server.tls("realm1").to_string();
    let ca = certificate.file();
    let ca = ca.to_str().expect("a temporary path is UTF-8");
    let good = antar(["chat", "--server", &addr, "--ca", ca, "--json", "-c", "ping"]).exits(0);
    assert_eq!(good.json_lines()[0]["message"], "pong");
    let other = Certificate::new();
    let other = other.file();
    let other = other.to_str().expect("a temporary path is UTF-8");
    let bad = antar(["chat", "--server", &addr, "--ca", other, "-c", "ping"]).exits(1);
    assert!(bad.stderr.contains("no TLS with") && bad.stderr.contains("certificate"), "{bad:?}");
    // The certificate is for localhost too, and for no other name.
    let port = server.tls("realm1").port();
    antar(["chat", "--server", &format!("localhost:{port}"), "--ca", ca, "-c", "ping"]).exits(0);
    antar(["chat", "--server", &format!("127.0.0.2:{port}"), "--ca", ca, "-c", "ping"]).exits(3);
    let plain = antar(["chat", "--server", &addr, "-c", "ping"]).exits(5);
    assert!(plain.stderr.contains("TLS only"), "{plain:?}");
    let command = server.addr("realm1").to_string();
    antar(["chat", "--server", &command, "--ca", ca, "-c", "ping"]).exits(1);
    antar(["chat", "--server", &addr, "--ca", "nowhere.pem", "-c", "ping"]).exits(2);
    server.assert_serves();
}

#[test]
fn a_handshake_that_stalls_is_broken_off() {
    let certificate = Certificate::new();
    let server = Builder::serve().tls(&certificate).limit("unauthenticated_seconds", 1).start();
    let before = server.open_files();
    for begun in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut stalled = Conn::open(server.tls("realm1"));
        stalled.send_raw(begun);
        assert!(matches!(stalled.next_frame(crate::harness::PATIENCE), OneFrame::Closed), "{begun:?}");
    }
    eventually("the sockets are closed", || (server.open_files() <= before).then_some(()));
    server.assert_serves();
}

#[test]
fn a_handshake_counts_among_those_that_have_not_logged_in() {
    let certificate = Certificate::new();
    let server = Builder::serve().tls(&certificate).limit("unauthenticated_per_address", 3).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let stall = || {
        let mut stalled = Conn::open(server.tls("realm1"));
        stalled.send_raw(b"\x16\x03\x01");
        stalled
    };
    let mut first = stall();
    let _others = [stall(), stall(), stall()];
    assert!(
        matches!(first.next_frame(crate::harness::PATIENCE), OneFrame::Closed),
        "the first one made room"
    );
    // Plain connections are counted with them, and who has logged in is not.
    let mut plain = server.connect("realm1");
    assert!(plain.answers());
    ok(messi.cmd("whoami"));
}

#[test]
fn plain_text_on_the_tls_port_is_told_so_and_nothing_of_it_is_executed() {
    let (server, _certificate, tunnel) = start();
    let mut messi = login(&tunnel, "messi");
    let line = messi.line("send messi terang");
    for text in [&*line, "GET / HTTP/1.1\r\nHost: a", "\r\n", "ping"] {
        let mut plain = Conn::open(server.tls("realm1"));
        plain.send(text);
        let told = plain.reply_or_end().expect("an answer");
        assert_eq!(told["status"], "ERROR", "{told}");
        assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("TLS only")), "{told}");
        plain.expect_end();
    }
    assert!(messi.inbox().is_empty());
    server.assert_serves();
}

#[test]
fn tls_on_the_plain_port_is_an_error_and_ends() {
    let (server, certificate, _tunnel) = start();
    let addr = server.addr("realm1");
    let refused = run(connect_over_tls(addr, &certificate.file()));
    assert!(refused.is_err(), "plain text was taken for TLS");
    server.assert_serves();
}

#[test]
fn an_endless_line_over_tls_is_skipped_and_not_kept() {
    let (server, _certificate, tunnel) = start();
    let mut messi = login(&tunnel, "messi");
    ok(messi.cmd("whoami"));
    let before = server.memory_kib("VmRSS");
    let piece = vec![b'x'; 1 << 20];
    for n in 0..16 {
        messi.send_raw(&piece);
        let now = server.memory_kib("VmRSS");
        assert!(now < before + GROWTH_MAX_KIB, "{before} KiB before, {now} KiB after {n} MiB");
    }
    messi.send_raw("\r\n@after ping\r\n");
    refused(messi.reply(), "line-too-long");
    assert_eq!(ok(messi.reply())["id"], "after");
    let mut guest = Conn::open(tunnel.addr());
    guest.send(&"y".repeat(20_000));
    refused(guest.reply(), "line-too-long");
    server.assert_serves();
}

#[test]
fn who_ends_its_side_gets_what_was_asked_before() {
    let (server, certificate, tunnel) = start();
    let mut messi = login(&tunnel, "messi");
    let line = messi.line("send messi terakhir");
    messi.send_raw(format!("{line}\r\n{line}\r\n{line}"));
    messi.finish_writing();
    ok(messi.reply());
    ok(messi.reply());
    messi.expect_end();
    let mut again = login(&tunnel, "messi");
    assert_eq!(texts(&again.inbox()), ["terakhir", "terakhir"], "half a line is not executed");
    // One that ends without the end of TLS is ended too.
    run(async {
        let mut stream =
            connect_over_tls(server.tls("realm1"), &certificate.file()).await.expect("a handshake");
        stream.write_all(b"@a ping\r\n@b pi").await.expect("it takes it");
        stream.flush().await.expect("it takes it");
        let socket = stream.get_mut().0;
        socket.shutdown().await.expect("the socket is open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an orderly end");
        let answer = String::from_utf8(answer).expect("ASCII");
        assert!(answer.contains("\"id\":\"a\"") && !answer.contains("\"b\""), "{answer}");
    });
    server.assert_serves();
}

#[test]
fn a_record_that_is_none_ends_its_connection_only() {
    let (server, certificate, tunnel) = start();
    let mut messi = login(&tunnel, "messi");
    run(async {
        for garbage in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x17, 3, 3, 0xff, 0xff], &[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]]
        {
            let mut stream =
                connect_over_tls(server.tls("realm1"), &certificate.file()).await.expect("a handshake");
            stream.write_all(b"ping\r\n").await.expect("it takes it");
            stream.flush().await.expect("it takes it");
            let mut first = [0; 1];
            stream.read_exact(&mut first).await.expect("an answer");
            stream.get_mut().0.write_all(garbage).await.expect("it takes it");
            let ended = stream.read_to_end(&mut Vec::new()).await;
            assert!(ended.is_err(), "an alert says what is wrong: {garbage:?}");
        }
    });
    ok(messi.cmd("whoami"));
    server.assert_serves();
}

#[test]
fn a_reader_that_takes_nothing_over_tls_is_cut() {
    let certificate = Certificate::new();
    let server = Builder::serve().tls(&certificate).limit("write_stall_seconds", 1).start();
    run(async {
        let mut stream =
            connect_over_tls(server.tls("realm1"), &certificate.file()).await.expect("a handshake");
        stream.write_all(b"auth messi surabaya\r\n").await.expect("it takes it");
        // It asks and asks, and reads nothing: at some point nothing more is taken, and then it is cut.
        let line = "help\r\n".repeat(1_000);
        while stream.write_all(line.as_bytes()).await.is_ok() {}
    });
    assert!(server.log().contains("a reader takes nothing"), "{}", server.log());
    server.assert_serves();
}

#[test]
fn a_new_certificate_is_shown_after_a_hangup_and_connections_stay() {
    let (server, certificate, tunnel) = start();
    let mut messi = login(&tunnel, "messi");
    let shown = |authority: &std::path::Path| run(connect_over_tls(server.tls("realm1"), authority)).is_ok();
    let old = certificate.kept("old.pem");
    // Not yet: what stands in the files cannot be used.
    let key = fs::read(certificate.key_file()).expect("readable");
    fs::write(certificate.key_file(), "no key").expect("writable");
    server.signal("HUP");
    eventually("the mistake is logged", || {
        server.log().contains("the new certificate cannot be used").then_some(())
    });
    assert!(shown(&old), "the one before is shown on");
    fs::write(certificate.key_file(), key).expect("writable");
    certificate.renew();
    server.signal("HUP");
    eventually("the new certificate is shown", || shown(&certificate.file()).then_some(()));
    assert!(!shown(&old));
    ok(messi.cmd("send messi masih di sini"));
    assert_eq!(texts(&messi.inbox()), ["masih di sini"]);
    server.assert_serves();
}

#[test]
fn a_certificate_that_was_renewed_is_found_without_a_word() {
    let (server, certificate, _tunnel) = start();
    let old = certificate.kept("old.pem");
    certificate.renew();
    let shown = |authority: &std::path::Path| run(connect_over_tls(server.tls("realm1"), authority)).is_ok();
    eventually("the new certificate is shown", || shown(&certificate.file()).then_some(()));
    assert!(!shown(&old));
}

#[test]
fn a_hangup_without_tls_changes_nothing() {
    let server = Builder::serve().start();
    server.signal("HUP");
    server.assert_serves();
}

#[test]
fn plain_text_off_loopback_has_to_be_asked_for() {
    let (code, said) = Builder::serve().listen("0.0.0.0:0").start_refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("listen.allow_plaintext = true") && said.contains("listen.tls"), "{said}");
    let server = Builder::serve().listen("0.0.0.0:0").env("LISTEN__ALLOW_PLAINTEXT", true).start();
    assert!(server.log().contains("plain text beyond this machine"), "{}", server.log());
    // Over TLS nobody has to ask.
    let certificate = Certificate::new();
    let server = Builder::serve().tls(&certificate).env("LISTEN__TLS", "0.0.0.0:0").start();
    assert!(!server.log().contains("plain text beyond this machine"), "{}", server.log());
}

#[test]
fn a_certificate_that_cannot_be_used_ends_the_start() {
    let certificate = Certificate::new();
    fs::write(certificate.key_file(), "no key").expect("writable");
    let (code, said) = Builder::serve().tls(&certificate).start_refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("tls.key"), "{said}");
    let (code, said) = Builder::serve().env("LISTEN__TLS", "127.0.0.1:0").start_refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("tls.certificate_file"), "{said}");
}

#[test]
fn http_is_https_with_a_certificate_and_health_is_still_asked_from_here() {
    let certificate = Certificate::new();
    let server = Builder::serve().tls(&certificate).env("LISTEN__HTTP", "127.0.0.1:0").start();
    let addr = server.http("realm1").expect("it was told to");
    let stalled = Conn::open(addr);
    run(async {
        let mut stream = connect_over_tls(addr, &certificate.file()).await.expect("a handshake");
        let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("it takes it");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        read.expect("in time").expect("an orderly end");
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ready\n"), "{answer}");
    });
    antar(["healthcheck", "--http", &addr.to_string()]).exits(0);
    drop(stalled);
}

#[test]
fn the_broker_is_reached_over_tls_with_a_certificate_on_both_sides() {
    let (servers, ours) = (Certificate::new(), Certificate::new());
    let nats = Nats::options()
        .config(&format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
            servers.file(),
            servers.key_file(),
            ours.file()
        ))
        .start();
    let url = nats.url().replace("nats://", "tls://");
    let known = Builder::serve_with(&url).env("BROKER__CA_FILE", servers.file().display());
    let server = known
        .clone()
        .env("BROKER__CERTIFICATE_FILE", ours.file().display())
        .env("BROKER__CERTIFICATE_KEY_FILE", ours.key_file().display())
        .start();
    server.assert_serves();
    let (code, said) = known.clone().env("BROKER__CA_FILE", ours.file().display()).start_refused();
    assert_eq!(code, Some(3), "an authority that did not sign: {said}");
    let (code, said) = known.env("BROKER__CA_FILE", "nowhere.pem").start_refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nowhere.pem"), "{said}");
}
