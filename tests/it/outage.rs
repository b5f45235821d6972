//! A realm that takes nothing for a while: its messages wait, keep their order and are all there afterwards.

use std::time::Duration;

use super::BROKER;
use crate::harness::{Chat, Server, eventually, holds_for, ok, texts};

/// How many messages are sent into the outage.
const COUNT: usize = 1000;

fn pause(server: &Server, op: &str, realm: &str) {
    server.operate(&["realm", op, realm]);
}

fn send_into_outage(messi: &mut Chat, range: std::ops::Range<usize>) {
    let count = range.len();
    let lines: String =
        range.map(|n| messi.line(&format!("sendprivaterealm realm2 lineker {n}")) + "\r\n").collect();
    let mut writer = messi.writer();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, lines.as_bytes()));
    (0..count).for_each(|_| drop(ok(messi.reply())));
    sending.join().expect("the writer does not panic").expect("everything is written");
}

fn numbers() -> Vec<String> {
    (0..COUNT).map(|n| n.to_string()).collect()
}

#[test]
fn a_paused_realm_gets_everything_in_order_once_it_resumes() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    pause(&server, "pause", "realm2");
    send_into_outage(&mut messi, 0..COUNT);
    assert!(
        holds_for(Duration::from_millis(300), || lineker.realm_inbox("realm1").is_empty()),
        "it is paused"
    );
    let realms = ok(messi.cmd("connectedrealm"));
    let peer = &realms["realms"][0];
    assert!(peer["queued"].as_u64().is_some_and(|n| n > 0), "the queue is shown: {realms}");
    assert_ne!(peer["state"], "up", "{realms}");
    pause(&server, "resume", "realm2");
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", COUNT)), numbers());
    eventually("the queue is empty", || {
        let realms = ok(messi.cmd("connectedrealm"));
        (realms["realms"][0]["queued"] == 0).then_some(())
    });
    assert!(lineker.realm_inbox("realm1").is_empty(), "each message came once");
}

#[test]
fn what_waits_for_a_paused_realm_survives_a_kill() {
    let mut server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    pause(&server, "pause", "realm2");
    send_into_outage(&mut messi, 0..COUNT / 2);
    server.crash();
    let mut messi = messi.again(&server, "realm1");
    let mut lineker = lineker.again(&server, "realm2");
    send_into_outage(&mut messi, COUNT / 2..COUNT);
    assert!(
        holds_for(Duration::from_millis(300), || lineker.realm_inbox("realm1").is_empty()),
        "still paused"
    );
    server.crash();
    let mut lineker = lineker.again(&server, "realm2");
    pause(&server, "resume", "realm2");
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", COUNT)), numbers());
}

#[test]
fn a_kill_in_the_middle_of_a_delivery_loses_and_repeats_nothing() {
    let mut server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    pause(&server, "pause", "realm2");
    send_into_outage(&mut messi, 0..COUNT);
    pause(&server, "resume", "realm2");
    ok(lineker.cmd("watch"));
    // The killing begins when the queue is on the move.
    lineker.event("message");
    (0..5).for_each(|_| server.crash());
    lineker = lineker.again(&server, "realm2");
    // What was pushed before a kill may or may not count as read: the log tells what is there.
    eventually("the last message is there", || {
        let page = ok(lineker.cmd("history @realm1 limit=1"));
        (page["messages"][0]["msg"].as_str() == numbers().last().map(String::as_str)).then_some(())
    });
    assert_eq!(lineker.history("@realm1"), numbers());
}

#[test]
fn local_chat_does_not_notice_a_paused_realm() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let mut there = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    pause(&server, "pause", "realm2");
    send_into_outage(&mut messi, 0..100);
    ok(henderson.cmd("watch"));
    for n in 0..100 {
        ok(messi.cmd(&format!("send henderson {n}")));
        assert_eq!(henderson.event("message")["msg"], n.to_string());
        ok(there.cmd(&format!("send lineker {n}")));
    }
    assert_eq!(there.inbox().len(), 100, "inside the paused realm too");
    // A group across the realms reaches the members here at once.
    ok(messi.cmd("sendgrouprealm realm2 henderson@realm1,lineker@realm2 sebagian sekarang"));
    assert_eq!(henderson.event("message")["msg"], "sebagian sekarang");
}

#[test]
fn pausing_the_sending_realm_holds_its_messages_back_too() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    pause(&server, "pause", "realm1");
    ok(messi.cmd("sendprivaterealm realm2 lineker nanti"));
    assert!(holds_for(Duration::from_millis(300), || lineker.realm_inbox("realm1").is_empty()));
    pause(&server, "resume", "realm1");
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["nanti"]);
}
