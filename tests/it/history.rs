//! `history`: what was said stays, read or not, and can be paged through.

use serde_json::Value;

use super::BROKER;
use crate::harness::{Chat, eventually, ok, refused, text, texts};

fn history(chat: &mut Chat, args: &str) -> Vec<Value> {
    let reply = ok(chat.cmd(&format!("history {args}")));
    reply["messages"].as_array().unwrap_or_else(|| panic!("not a list: {reply}")).clone()
}

#[test]
fn what_was_read_stays_in_the_history_of_both() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("send henderson satu"));
    ok(henderson.cmd("send messi dua"));
    ok(messi.cmd("send henderson tiga"));
    henderson.inbox();
    for chat in [&mut messi, &mut henderson] {
        let said = history(chat, "");
        assert_eq!(texts(&said), ["satu", "dua", "tiga"], "newest last");
        assert_eq!(text(&said[0], "from"), "messi@realm1");
    }
    assert_eq!(messi.inbox().len(), 1, "history marks nothing read");
}

#[test]
fn history_with_a_user_shows_that_conversation_only() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let mut lineker = Chat::login(&server, "realm1", "lineker");
    ok(messi.cmd("send henderson untuk henderson"));
    ok(lineker.cmd("send messi dari lineker"));
    ok(messi.cmd("sendgroup henderson,lineker untuk keduanya"));
    ok(henderson.cmd("send lineker tanpa messi"));
    assert_eq!(texts(&history(&mut messi, "henderson")), ["untuk henderson", "untuk keduanya"]);
    assert_eq!(texts(&history(&mut messi, "lineker")), ["dari lineker", "untuk keduanya"]);
    assert_eq!(texts(&history(&mut messi, "")), ["untuk henderson", "dari lineker", "untuk keduanya"]);
    assert_eq!(texts(&history(&mut lineker, "henderson")), ["tanpa messi"]);
}

#[test]
fn history_pages_backwards_without_gap_or_repetition() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    for n in 0..75 {
        let sender = if n % 3 == 0 { &mut henderson } else { &mut messi };
        let to = if n % 3 == 0 { "messi" } else { "henderson" };
        ok(sender.cmd(&format!("send {to} {n}")));
    }
    let mut pages = Vec::new();
    let mut before = String::new();
    loop {
        let page = history(&mut messi, &format!("henderson limit=20 {before}"));
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 20);
        before = format!("before={}", text(&page[0], "id"));
        pages.insert(0, page);
    }
    assert_eq!(pages.len(), 4);
    let all: Vec<Value> = pages.concat();
    assert_eq!(texts(&all), (0..75).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(history(&mut messi, "").len(), 50, "fifty unless told otherwise");
    assert_eq!(history(&mut messi, "limit=200").len(), 75);
    for bad in ["limit=0", "limit=201", "limit=x", "before=x"] {
        refused(messi.cmd(&format!("history {bad}")), "bad-request");
    }
}

#[test]
fn history_with_a_realm_or_a_user_of_it() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    ok(messi.cmd("send henderson di sini saja"));
    ok(messi.cmd("sendprivaterealm realm2 lineker ke lineker"));
    ok(messi.cmd("sendprivaterealm realm2 henderson ke henderson sebelah"));
    lineker.realm_inbox_of("realm1", 1);
    ok(lineker.cmd("addrealm realm1 127.0.0.1 4001"));
    ok(lineker.cmd("sendprivaterealm realm1 messi jawaban"));
    messi.realm_inbox_of("realm2", 1);
    let with_realm = history(&mut messi, "@realm2");
    assert_eq!(texts(&with_realm), ["ke lineker", "ke henderson sebelah", "jawaban"]);
    assert_eq!(texts(&history(&mut messi, "lineker@realm2")), ["ke lineker", "jawaban"]);
    assert_eq!(texts(&history(&mut messi, "henderson")), ["di sini saja"]);
    assert_eq!(texts(&history(&mut lineker, "messi@realm1")), ["ke lineker", "jawaban"]);
    assert_eq!(texts(&history(&mut lineker, "@realm1 limit=1")), ["jawaban"]);
}

#[test]
fn nobody_sees_what_others_said() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm1", "lineker");
    let sent = ok(messi.cmd("send henderson hanya kita"));
    assert!(history(&mut lineker, "").is_empty());
    assert!(history(&mut lineker, "messi").is_empty());
    let before = format!("before={}", text(&sent, "message_id"));
    refused(lineker.cmd(&format!("history {before}")), "no-such-message");
}

#[test]
fn history_survives_a_restart() {
    let mut server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for n in 0..10 {
        ok(messi.cmd(&format!("send messi {n}")));
    }
    messi.inbox();
    server.crash();
    let mut messi = messi.again(&server, "realm1");
    let said = eventually("the realm is up", || Some(history(&mut messi, "messi")));
    assert_eq!(texts(&said), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}
