//! Bytes that no honest client sends. Never a panic, never growth without bound, and afterwards the server serves.

use std::time::Duration;

use crate::harness::{Chat, OneFrame, Server, eventually, ok, refused, text};

/// How much a server may grow by anything that one client sends. (The design says 1 MiB for what is kept; pages that an
/// allocator holds back are counted here too.)
const GROWTH_MAX_KIB: u64 = 8 * 1024;

#[test]
fn lines_that_are_not_text_are_errors_and_nothing_of_them_is_executed() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let head = messi.line("send messi ").into_bytes();
    let cases: &[&[u8]] = &[
        b"\xff\xfe",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"a\x00b",
        b"\x00",
        b"halo\rsend b y",
        b"\xf4\x90\x80\x80",
        b"caf\xc3",
    ];
    for case in cases {
        messi.send_raw([&head[..], case, b"\r\n"].concat());
        let reply = messi.reply();
        assert_eq!(reply["status"], "ERROR", "{case:?}: {reply}");
        assert_eq!(reply["code"], "bad-request", "{case:?}");
    }
    assert!(messi.inbox().is_empty());
    // A lone CR does not make two requests of one line.
    let (one, two) = (messi.line("send messi satu"), messi.line("send messi dua"));
    messi.send_raw(format!("{one}\r{two}\r\n"));
    refused(messi.reply(), "bad-request");
    assert!(messi.inbox().is_empty());
    server.assert_serves();
}

#[test]
fn names_that_try_to_be_subjects_or_paths_reach_nobody() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let long = "x".repeat(256);
    let names = [
        "a.b",
        "*",
        ">",
        "../x",
        "messi.local",
        "henderson.*",
        "x/y",
        "$SYS",
        "me\u{202e}ssi",
        "меssi",
        "Messi",
        &long,
    ];
    for name in names {
        refused(messi.cmd(&format!("send {name} hai")), "no-such-user");
        refused(messi.cmd(&format!("sendgroup {name},pele hai")), "no-such-user");
        refused(messi.cmd(&format!("getpresence {name}")), "no-such-user");
        refused(messi.cmd(&format!("sendprivaterealm {name} messi hai")), "no-such-realm");
        refused(messi.cmd(&format!("sendgrouprealm {name} messi hai")), "no-such-realm");
        refused(messi.cmd(&format!("getrealminbox {name}")), "no-such-realm");
        refused(messi.cmd(&format!("addrealm {name} 127.0.0.1 4002")), "no-such-realm");
        refused(messi.cmd(&format!("send messi@{name} hai")), "no-such-user");
        refused(messi.ask(&format!("auth {name} surabaya")), "no-such-account");
        let history = messi.cmd(&format!("history {name}"));
        assert_eq!(history["status"], "ERROR", "{name}: {history}");
    }
    refused(messi.cmd("sendprivaterealm local messi hai"), "no-such-realm");
    assert!(messi.inbox().is_empty());
    server.assert_serves();
}

#[test]
fn sixty_four_mebibytes_without_a_line_end_are_skipped_and_not_kept() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("whoami"));
    let before = server.memory_kib("VmRSS");
    let piece = vec![b'x'; 1 << 20];
    for n in 0..64 {
        messi.send_raw(&piece);
        if n % 8 == 7 {
            let now = server.memory_kib("VmRSS");
            assert!(now < before + GROWTH_MAX_KIB, "{before} KiB before, {now} KiB after {n} MiB");
        }
    }
    messi.send_raw("\r\n@after ping\r\n");
    refused(messi.reply(), "line-too-long");
    assert_eq!(ok(messi.reply())["id"], "after", "told once, then the connection goes on");
    server.assert_serves();
}

#[test]
fn hundreds_of_thousands_of_empty_lines_hold_nobody_up() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut flood = server.connect("realm1");
    let before = server.memory_kib("VmRSS");
    let mut writer = flood.writer();
    let sending = std::thread::spawn(move || {
        let lines = "\r\n".repeat(10_000);
        (0..30).try_for_each(|_| std::io::Write::write_all(&mut writer, lines.as_bytes()))
    });
    for n in 0..50 {
        ok(messi.cmd(&format!("send messi sementara {n}")));
    }
    sending.join().expect("the writer does not panic").expect("the flood is taken or throttled");
    flood.send_raw("@done ping\r\n");
    assert_eq!(ok(flood.reply())["id"], "done");
    assert!(server.memory_kib("VmRSS") < before + GROWTH_MAX_KIB);
    server.assert_serves();
}

#[test]
fn tls_and_http_on_the_command_port_are_errors() {
    let server = Server::demo();
    let mut http = server.connect("realm1");
    http.send_raw("GET / HTTP/1.1\r\nHost: antar.example\r\nUser-Agent: x\r\n\r\n");
    let first = http.reply();
    assert_eq!(first["status"], "ERROR", "{first}");
    while http.answers() {
        // The other header lines were errors too; the connection may go on or be closed.
        if matches!(http.next_frame(Duration::from_millis(50)), OneFrame::Silence | OneFrame::Closed) {
            break;
        }
    }
    let mut tls = server.connect("realm1");
    let mut hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    hello.extend((0..500u32).map(|n| (n * 7 + 3) as u8));
    hello.push(b'\n');
    tls.send_raw(&hello);
    while let OneFrame::Frame(frame) = tls.next_frame(Duration::from_millis(200)) {
        assert!(String::from_utf8_lossy(&frame).contains("ERROR"), "{frame:?}");
    }
    server.assert_serves();
}

#[test]
fn random_bytes_never_stop_the_server() {
    let server = Server::demo();
    // A small generator is enough: what matters is that all byte values and many line lengths occur.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = move |len: usize| -> Vec<u8> {
        let byte = |state: &mut u64| {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            (*state >> 32) as u8
        };
        (0..len).map(|_| byte(&mut state)).collect()
    };
    for len in [1, 10, 100, 1_000, 10_000, 100_000] {
        let mut conn = server.connect("realm1");
        let _ = conn.try_send_raw(noise(len));
        let _ = conn.try_send_raw("\r\n@last ping\r\n");
        while let OneFrame::Frame(frame) = conn.next_frame(Duration::from_millis(500)) {
            if String::from_utf8_lossy(&frame).contains("last") {
                break;
            }
        }
    }
    server.assert_serves();
}

#[test]
fn connections_that_are_dropped_at_any_moment_leave_nothing_behind() {
    let server = Server::demo();
    let chat = Chat::login(&server, "realm1", "messi");
    let line = chat.line("send messi putus");
    let before = server.open_files();
    for n in 0..200 {
        let mut conn = server.connect("realm1");
        let _ = conn.try_send_raw(&line.as_bytes()[..n % line.len()]);
        if n % 3 == 0 {
            let _ = conn.try_send_raw("\r\n");
        }
    }
    eventually("the sockets are closed", || (server.open_files() <= before + 3).then_some(()));
    server.assert_serves();
}

#[test]
fn escape_sequences_are_escaped_in_replies_and_cannot_forge_a_log_line() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let nasty = "\u{1b}[2J\u{1b}]0;judul\u{7}\u{8}\u{7f}\u{9b}31m merah";
    ok(messi.cmd(&format!("send messi {nasty}")));
    let read = messi.inbox();
    assert_eq!(text(&read[0], "msg"), nasty);
    for line in [format!("auth {nasty} x"), format!("{nasty} x"), format!("register {nasty} rahasia123 X Y")]
    {
        assert_eq!(messi.ask(&line)["status"], "ERROR");
    }
    refused(messi.ask(&format!("register xavi rahasia123 X Nama {nasty}")), "bad-name");
    let log = server.log();
    let raw =
        log.bytes().any(|b| b == 0x07 || b == 0x08) || log.contains("\u{1b}[2J") || log.contains("\u{1b}]0");
    assert!(!raw, "an escape sequence of a client stands in the log");
}
