//! Bytes to lines and back: whatever way a request arrives in, it gets one reply, in order.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Chat, Conn, OneFrame, Server, ok, refused, text, texts};

/// `send T messi aaa…` of exactly this many bytes, its end not counted.
fn line_of(chat: &Chat, bytes: usize) -> String {
    let head = chat.line("send messi a");
    let fill = bytes - head.len();
    head + &"a".repeat(fill)
}

#[test]
fn a_thousand_pipelined_sends_get_a_thousand_ordered_replies_and_are_stored_once_in_order() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let lines: String =
        (0..1000).map(|n| messi.line(&format!("@n{n} send henderson nomor {n}")) + "\r\n").collect();
    let mut writer = messi.writer();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, lines.as_bytes()));
    let mut ids = Vec::new();
    for n in 0..1000 {
        let reply = ok(messi.reply());
        assert_eq!(reply["id"], format!("n{n}"));
        ids.push(reply["message_id"].clone());
    }
    sending.join().expect("the writer does not panic").expect("everything is written");
    let read = henderson.inbox();
    let wanted: Vec<_> = (0..1000).map(|n| format!("nomor {n}")).collect();
    assert_eq!(texts(&read), wanted);
    let read_ids: Vec<_> = read.iter().map(|message| message["id"].clone()).collect();
    assert_eq!(read_ids, ids);
}

#[test]
fn a_line_may_arrive_a_byte_at_a_time() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let line = messi.line("@7 send messi sedikit demi sedikit");
    for byte in format!("{line}\r\n").bytes() {
        messi.send_raw([byte]);
    }
    assert_eq!(ok(messi.reply())["id"], "7");
    assert_eq!(texts(&messi.inbox()), ["sedikit demi sedikit"]);
}

#[test]
fn one_segment_may_hold_several_lines_and_a_line_several_segments() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let (one, two) = (messi.line("@1 send messi satu"), messi.line("@2 send messi dua"));
    messi.send_raw(format!("{one}\r\n{two}\n@3 pi"));
    messi.send_raw("ng\r\n\r\n   \r\n@4 ping\r\n");
    let tags: Vec<_> = (0..4).map(|_| text(&ok(messi.reply()), "id").to_owned()).collect();
    assert_eq!(tags, ["1", "2", "3", "4"]);
    assert_eq!(texts(&messi.inbox()), ["satu", "dua"]);
}

#[test]
fn half_a_line_then_fin_is_not_executed() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut other = messi.again(&server, "realm1");
    let (whole, half) = (messi.line("send messi utuh"), messi.line("send messi separuh"));
    messi.send_raw(format!("{whole}\r\n{half}"));
    messi.finish_writing();
    ok(messi.reply());
    messi.expect_end();
    assert_eq!(texts(&other.inbox()), ["utuh"]);
}

#[test]
fn what_was_asked_before_fin_is_answered_after_it() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let lines: String = (0..50).map(|n| messi.line(&format!("@{n} send messi pesan {n}")) + "\r\n").collect();
    messi.send_raw(lines);
    messi.finish_writing();
    for n in 0..50 {
        assert_eq!(ok(messi.reply())["id"], n.to_string());
    }
    messi.expect_end();
}

#[test]
fn the_longest_line_is_taken_and_one_byte_more_is_refused_and_skipped() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let longest = line_of(&messi, 65_536);
    ok(messi.ask(&longest));
    for too_long in [65_537, 65_538, 70_000, 200_000] {
        let line = line_of(&messi, too_long);
        refused(messi.ask(&line), "line-too-long");
        ok(messi.ask("@after ping"));
    }
    let read = messi.inbox();
    assert_eq!(read.len(), 1);
    assert!(longest.ends_with(text(&read[0], "msg")));
}

#[test]
fn before_a_login_a_line_has_12_kib_unless_it_has_a_live_token() {
    let server = Server::demo();
    let messi = Chat::login(&server, "realm1", "messi");
    let mut guest = server.connect("realm1");
    refused(guest.ask(&format!("auth messi {}", "x".repeat(12_288))), "line-too-long");
    refused(
        guest.ask(&format!("send 9e3b6f1c-0000-4000-8000-000000000000 messi {}", "x".repeat(20_000))),
        "line-too-long",
    );
    refused(guest.ask(&format!("auth pele {}", "x".repeat(12_000))), "no-such-account");
    // The same session on a new connection, its first line a long one.
    let mut fresh = messi.again(&server, "realm1");
    let long = line_of(&messi, 60_000);
    ok(fresh.ask(&long));
    // Also when it comes in pieces, of which the first one does not hold the whole token.
    let mut pieces = messi.again(&server, "realm1");
    for piece in long.as_bytes()[..20].chunks(7).chain(long.as_bytes()[20..].chunks(5000)) {
        pieces.send_raw(piece);
    }
    pieces.send_raw("\r\n");
    ok(pieces.reply());
    assert_eq!(fresh.inbox().len(), 2);
}

#[test]
fn a_line_of_70000_bytes_is_one_error_among_its_neighbours() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let long = line_of(&messi, 70_000);
    messi.send_raw(format!("@1 ping\r\n{long}\r\n@2 ping\r\n"));
    assert_eq!(ok(messi.reply())["id"], "1");
    refused(messi.reply(), "line-too-long");
    assert_eq!(ok(messi.reply())["id"], "2");
    assert!(messi.inbox().is_empty());
}

#[test]
fn spaces_around_words_do_not_count_and_spaces_inside_text_stay() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let token = messi.token.clone();
    ok(messi.ask(&format!("  SendPrivate   {token}    messi    dua  spasi   di  dalam   ")));
    ok(messi.ask(&format!("@x   SEND {token} messi tab\tdi dalam")));
    assert_eq!(texts(&messi.inbox()), ["dua  spasi   di  dalam", "tab\tdi dalam"]);
}

#[test]
fn a_tag_comes_back_on_every_kind_of_reply() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let longest = "A-z.0_9".repeat(4) + "last";
    for command in
        ["whoami", "list", "inbox", "send messi hai", "send nobody hai", "history", "users", "status x"]
    {
        for tag in ["1", "a.b_c-D", &longest] {
            assert_eq!(messi.cmd(&format!("@{tag} {command}"))["id"], *tag, "{command}");
        }
    }
    for (line, code) in [
        ("@7 nothing", "unknown-command"),
        ("@7 send", "bad-request"),
        ("@7", "unknown-command"),
        ("@7 list bad-token", "not-authorized"),
        ("@7 auth pele x", "no-such-account"),
    ] {
        assert_eq!(refused(messi.ask(line), code)["id"], "7", "{line}");
    }
    for bad in ["@ ping", "@a/b ping", &format!("@{} ping", "x".repeat(33)), "@é ping"] {
        let reply = messi.ask(bad);
        assert_eq!(reply["status"], "ERROR", "{bad}");
        assert_eq!(reply["id"], Value::Null, "{bad}");
    }
}

#[test]
fn replies_keep_the_order_of_requests_of_different_cost() {
    let server = Server::demo();
    let mut conn = server.connect("realm1");
    let mut lines = String::new();
    for n in 0..30 {
        // A login takes a hash, a ping nothing at all.
        let command = ["ping", "auth messi surabaya", "help", "auth messi salah", "nothing"][n % 5];
        lines += &format!("@{n} {command}\r\n");
    }
    conn.send_raw(lines);
    for n in 0..30 {
        assert_eq!(conn.reply()["id"], n.to_string());
    }
}

#[test]
fn other_commands_wait_for_the_sends_before_them() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for round in 0..20 {
        let (send, inbox) = (messi.line(&format!("send messi putaran {round}")), messi.line("inbox"));
        messi.send_raw(format!("{send}\r\n{inbox}\r\n"));
        ok(messi.reply());
        let inbox = ok(messi.reply());
        let messages = inbox["messages"]["messi"].as_array().expect("the message is there at once");
        assert_eq!(texts(messages), [format!("putaran {round}")]);
    }
}

#[test]
fn empty_lines_get_no_reply() {
    let server = Server::demo();
    let mut conn: Conn = server.connect("realm1");
    conn.send_raw("\r\n\n   \r\n \n");
    assert!(matches!(conn.next_frame(Duration::from_millis(100)), OneFrame::Silence));
    conn.send_raw("@1 ping\r\n");
    assert_eq!(ok(conn.reply())["id"], "1");
}
