//! `federation.quarantine`: what comes from a realm that nobody here has added is held, and an operator decides.

use serde_json::Value;

use super::BROKER;
use crate::harness::{Chat, Server, eventually, ok, text, texts};

/// Two realms that hold what strangers write. messi of realm1 has added realm2; nobody there has added realm1.
fn strangers() -> (Server, Chat, Chat) {
    let server = BROKER.demo_builder().env("FEDERATION__QUARANTINE", true).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    (server, messi, lineker)
}

fn send(messi: &mut Chat, words: &str) -> String {
    text(&ok(messi.cmd(&format!("send lineker@realm2 {words}"))), "message_id").to_owned()
}

#[track_caller]
fn reaches(chat: &mut Chat, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), || {
        (ok(chat.cmd(&format!("status {id}")))["state"] == state).then_some(())
    });
}

/// What realm2 says of realm1, once so many envelopes are held.
#[track_caller]
fn held(server: &Server, count: usize) -> Value {
    eventually(&format!("{count} envelopes are held"), || {
        let listed = server.operate(&["realm", "quarantine", "list", "realm2", "--json"]).json_lines();
        listed.into_iter().find(|peer| peer["realm"] == "realm1" && peer["held"] == count)
    })
}

#[test]
fn what_strangers_write_is_held_and_released_in_its_order() {
    let (mut server, mut messi, mut lineker) = strangers();
    let ids = ["satu", "dua", "tiga"].map(|words| send(&mut messi, words));
    let peer = held(&server, 3);
    assert_eq!((&peer["quarantined"], &peer["key"].is_string()), (&Value::Bool(true), &true));
    server.crash();
    let (mut messi, mut again) = (messi.again(&server, "realm1"), lineker.again(&server, "realm2"));
    eventually("the realm is up", || (messi.cmd("whoami")["status"] == "OK").then_some(()));
    held(&server, 3);
    assert!(again.realm_inbox("realm1").is_empty());
    assert_eq!(ok(messi.cmd(&format!("status {}", ids[2])))["state"], "stored", "its sender is told nothing");
    // Who is written to from here is heard: what goes back is no message.
    let said = text(&ok(again.cmd("send henderson@realm1 halo")), "message_id").to_owned();
    reaches(&mut again, &said, "delivered");
    let said = server.operate(&["realm", "quarantine", "release", "realm2", "realm1", "--by", "jaga malam"]);
    assert!(said.stdout.contains("out of quarantine"), "{said:?}");
    assert_eq!(texts(&again.realm_inbox_of("realm1", 3)), ["satu", "dua", "tiga"]);
    for id in &ids {
        reaches(&mut messi, id, "read");
    }
    let id = send(&mut messi, "empat");
    reaches(&mut messi, &id, "delivered");
    assert_eq!(texts(&again.realm_inbox_of("realm1", 1)), ["empat"]);
    lineker = again;
    let listed = server.operate(&["realm", "quarantine", "list", "realm2"]);
    assert!(listed.stdout.is_empty() && listed.stderr.contains("no realm is in quarantine"), "{listed:?}");
    // To repeat it is no mistake, and delivers nothing twice.
    server.operate(&["realm", "quarantine", "release", "realm2", "realm1"]);
    assert!(lineker.realm_inbox("realm1").is_empty());
}

#[test]
fn what_is_dropped_stays_away_and_a_user_who_adds_the_realm_lets_it_in() {
    let (server, mut messi, mut lineker) = strangers();
    send(&mut messi, "buang");
    held(&server, 1);
    server.operate(&["realm", "quarantine", "drop", "realm2", "realm1"]);
    held(&server, 0);
    ok(lineker.cmd("addrealm realm1 127.0.0.1 4001"));
    let id = send(&mut messi, "simpan");
    reaches(&mut messi, &id, "delivered");
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["simpan"]);
}

#[test]
fn a_stranger_can_fill_the_quarantine_and_no_more() {
    let (server, mut messi, mut lineker) = strangers();
    for n in 0..1_100 {
        messi.start(&format!("send lineker@realm2 {n}"));
    }
    let sent: Vec<Value> = (0..1_100).map(|_| ok(messi.reply())).collect();
    let last = text(&sent[1_099], "message_id").to_owned();
    reaches(&mut messi, &last, "failed");
    let status = ok(messi.cmd(&format!("status {last}")));
    assert_eq!(status["receivers"][0]["reason"], "quarantined", "{status}");
    held(&server, 1_000);
    assert_eq!(ok(messi.cmd(&format!("status {}", text(&sent[0], "message_id"))))["state"], "stored");
    assert!(lineker.realm_inbox("realm1").is_empty());
}
