//! `OK` means stored: whatever was answered OK is read after a kill -9, once, in order.

use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::harness::{Builder, Chat, Conn, OneFrame, PATIENCE, Server, eventually, ok, text, texts};

/// Numbers of the messages that were answered OK, in order.
type Ledger = Arc<Mutex<Vec<u64>>>;

/// Sends numbered messages on `chat` with `command`, many in flight, until the connection dies; `next` is the first
/// number. Returns the first number that was never sent.
fn send_until_death(chat: &mut Chat, command: &str, next: u64, window: u64, oks: &Ledger) -> u64 {
    let (mut sent, mut answered) = (next, next);
    loop {
        while sent < answered + window {
            let line = chat.line(&format!("@{sent} {command} {sent}"));
            if chat.try_send_raw(format!("{line}\r\n")).is_err() {
                return sent + 1;
            }
            sent += 1;
        }
        match chat.next_frame(PATIENCE) {
            OneFrame::Frame(frame) => {
                let reply: serde_json::Value = serde_json::from_slice(&frame).expect("JSON");
                assert_eq!(reply["id"], answered.to_string(), "replies keep their order");
                if reply["status"] == "OK" {
                    oks.lock().expect("no holder panics").push(answered);
                }
                answered += 1;
            }
            OneFrame::Closed => return sent,
            OneFrame::Silence => panic!("the server neither answers nor dies"),
        }
    }
}

/// Says that all of `oks` were read, in order, each once; what was not answered may be there too, also once.
fn reconcile(oks: &[u64], read: &[serde_json::Value]) {
    let read: Vec<u64> = texts(read).iter().map(|text| text.parse().expect("a number")).collect();
    assert!(read.is_sorted_by(|a, b| a < b), "out of order or twice");
    let lost: Vec<_> = oks.iter().filter(|n| read.binary_search(n).is_err()).collect();
    assert!(
        lost.is_empty(),
        "{} of {} messages that were answered OK are lost: {lost:?}",
        lost.len(),
        oks.len()
    );
}

/// Kills the server in the middle of pipelined sends, again and again, each time at another depth into the stream.
/// Returns the numbers that were answered OK.
fn ledger_over_kills(server: &mut Server, messi: &Chat, command: &'static str, kills: usize) -> Vec<u64> {
    let oks: Ledger = Ledger::default();
    let mut next = 0;
    for round in 0..kills {
        let mut chat = messi.again(server, "realm1");
        let ledger = Arc::clone(&oks);
        let before = oks.lock().expect("no holder panics").len();
        let sender = std::thread::spawn(move || send_until_death(&mut chat, command, next, 64, &ledger));
        let enough = before + 100 + 53 * round;
        eventually("sends are answered", || {
            assert!(!sender.is_finished(), "the sender gave up");
            (oks.lock().expect("no holder panics").len() >= enough).then_some(())
        });
        server.kill9();
        next = sender.join().expect("the sender does not panic");
        server.start();
    }
    let oks = oks.lock().expect("no holder panics");
    oks.clone()
}

#[test]
fn every_send_answered_ok_is_read_once_and_in_order_over_eight_kills() {
    let mut server = Server::demo();
    let messi = Chat::login(&server, "realm1", "messi");
    let henderson = Chat::login(&server, "realm1", "henderson");
    let oks = ledger_over_kills(&mut server, &messi, "send henderson", 8);
    reconcile(&oks, &henderson.again(&server, "realm1").inbox());
    server.assert_serves();
}

#[test]
fn every_send_to_another_realm_answered_ok_arrives_once_and_in_order_over_four_kills() {
    let mut server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    let oks = ledger_over_kills(&mut server, &messi, "sendprivaterealm realm2 lineker", 4);
    let last = oks.last().expect("there were some").to_string();
    let mut lineker = lineker.again(&server, "realm2");
    let mut read = Vec::new();
    eventually("the last message arrives", || {
        read.extend(lineker.realm_inbox("realm1"));
        texts(&read).contains(&last.as_str()).then_some(())
    });
    reconcile(&oks, &read);
}

#[test]
fn sessions_accounts_and_unread_messages_survive_a_kill() {
    let mut server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let xavi = Chat::register(&server, "realm1", "xavi");
    ok(messi.cmd("send xavi sebelum"));
    ok(messi.cmd("passwd surabaya barubaru1"));
    server.crash();
    let (mut messi, mut xavi) = (messi.again(&server, "realm1"), xavi.again(&server, "realm1"));
    assert_eq!(text(&ok(messi.cmd("whoami")), "user"), "messi");
    assert_eq!(texts(&xavi.inbox()), ["sebelum"]);
    let mut conn: Conn = server.connect("realm1");
    crate::harness::refused(conn.ask("auth messi surabaya"), "bad-password");
    ok(conn.ask("auth messi barubaru1"));
    ok(conn.ask("auth xavi surabaya"));
}

#[test]
fn a_logout_survives_a_kill() {
    let mut server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("logout"));
    server.crash();
    crate::harness::refused(messi.again(&server, "realm1").cmd("inbox"), "not-authorized");
}

#[test]
fn what_was_read_stays_read_over_a_restart() {
    let mut server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for n in 0..20 {
        ok(messi.cmd(&format!("send messi {n}")));
    }
    assert_eq!(messi.inbox().len(), 20);
    server.restart();
    let mut messi = messi.again(&server, "realm1");
    assert!(messi.inbox().is_empty());
    ok(messi.cmd("send messi baru"));
    assert_eq!(texts(&messi.inbox()), ["baru"]);
}

#[test]
fn what_was_read_and_asked_again_stays_read_over_a_kill() {
    let mut server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for n in 0..20 {
        ok(messi.cmd(&format!("send messi {n}")));
    }
    assert_eq!(messi.inbox().len(), 20);
    assert!(messi.inbox().is_empty());
    // A later write that was acknowledged: the cursor went before it.
    ok(messi.cmd("send messi baru"));
    server.crash();
    let mut messi = messi.again(&server, "realm1");
    assert_eq!(texts(&messi.inbox()), ["baru"]);
}

#[test]
fn a_send_repeated_after_a_kill_is_one_message() {
    let mut server = Server::demo();
    let messi = Chat::login(&server, "realm1", "messi");
    let henderson = Chat::login(&server, "realm1", "henderson");
    let tags: Vec<_> = (0..40).map(|_| Uuid::now_v7().simple().to_string()).collect();
    let send_all = |chat: &mut Chat| {
        let lines: String = tags
            .iter()
            .enumerate()
            .map(|(n, tag)| chat.line(&format!("@{tag} send henderson {n}")) + "\r\n")
            .collect();
        chat.send_raw(lines);
    };
    // Some are answered, all are repeated; nobody can tell which of the rest were stored.
    let mut chat = messi.again(&server, "realm1");
    send_all(&mut chat);
    ok(chat.reply());
    server.crash();
    let mut chat = messi.again(&server, "realm1");
    send_all(&mut chat);
    assert_eq!(ok(chat.reply())["duplicate"], true, "the first one had been answered");
    (1..tags.len()).for_each(|_| drop(ok(chat.reply())));
    let read = henderson.again(&server, "realm1").inbox();
    assert_eq!(texts(&read), (0..tags.len()).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_server_of_one_realm_keeps_its_promises_too() {
    let mut server = Builder::serve().start();
    let messi = Chat::login(&server, "realm1", "messi");
    let oks: Ledger = Ledger::default();
    let ledger = Arc::clone(&oks);
    let mut chat = messi.again(&server, "realm1");
    let sender = std::thread::spawn(move || send_until_death(&mut chat, "send henderson", 0, 16, &ledger));
    eventually("sends are answered", || (oks.lock().expect("no holder panics").len() >= 200).then_some(()));
    server.kill9();
    sender.join().expect("the sender does not panic");
    server.start();
    let oks = oks.lock().expect("no holder panics").clone();
    reconcile(&oks, &Chat::login(&server, "realm1", "henderson").inbox());
}
