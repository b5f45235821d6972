//! What a send does and what a reader finds: fields, groups, order, repetition, bounds.

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

use super::BROKER;
use crate::harness::{Chat, ok, refused, text, texts};

#[test]
fn a_message_has_its_id_its_time_and_its_sender() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let sent = ok(messi.cmd("send henderson halo"));
    assert_eq!(sent["id"], sent["message_id"], "without a tag the id is the message's");
    let id: Uuid = text(&sent, "message_id").parse().expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    let read = henderson.inbox();
    let message = &read[0];
    assert_eq!(message["id"], sent["message_id"]);
    assert_eq!((text(message, "from"), text(message, "to")), ("messi@realm1", "henderson@realm1"));
    let ts = text(message, "ts");
    assert!(
        ts.len() >= 20 && ts.ends_with('Z') && &ts[4..5] == "-" && &ts[10..11] == "T",
        "RFC 3339, UTC: {ts}"
    );
}

#[test]
fn a_session_token_is_a_random_uuid() {
    let server = BROKER.demo();
    let tokens: HashSet<_> = (0..3).map(|_| Chat::login(&server, "realm1", "messi").token).collect();
    assert_eq!(tokens.len(), 3);
    for token in tokens {
        assert_eq!(token.parse::<Uuid>().expect("a UUID").get_version_num(), 4);
        assert_eq!(token, token.to_lowercase());
        assert_eq!(token.len(), 36);
    }
}

#[test]
fn all_names_of_a_command_do_the_same() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for name in ["send", "sendprivate", "SEND", "SendPrivate"] {
        assert_eq!(ok(messi.cmd(&format!("{name} messi lewat {name}")))["message"], "Message Sent");
    }
    let two = ok(messi.cmd("getinbox"));
    assert_eq!(two["messages"]["messi"].as_array().map(Vec::len), Some(4));
    for name in ["inbox", "getinbox", "INBOX"] {
        assert_eq!(ok(messi.cmd(name))["messages"], serde_json::json!({}), "{name}");
    }
}

#[test]
fn a_group_send_delivers_to_those_who_exist_and_names_those_who_do_not() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let sent = ok(messi.cmd("sendgroup messi,pele,henderson,henderson,a.b,,messi  satu grup"));
    let mut unknown: Vec<_> =
        sent["unknown"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    unknown.sort_unstable();
    assert_eq!(unknown, ["a.b", "pele"]);
    for user in [&mut messi, &mut henderson] {
        let read = user.inbox();
        assert_eq!(texts(&read), ["satu grup"], "a name given twice gets one copy");
        assert_eq!(read[0]["id"], sent["message_id"]);
    }
    let none = refused(messi.cmd("sendgroup pele,zidane hai"), "no-such-user");
    assert_eq!(none["unknown"].as_array().map(Vec::len), Some(2));
    assert!(ok(messi.cmd("sendgroup henderson hai"))["unknown"].is_null());
}

#[test]
fn a_group_may_have_1024_names_and_no_more() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let names = |count: usize| (0..count).map(|n| format!("u{n}")).collect::<Vec<_>>().join(",");
    let sent = ok(messi.cmd(&format!("sendgroup messi,{} banyak", names(1023))));
    assert_eq!(sent["unknown"].as_array().map(Vec::len), Some(1023));
    refused(messi.cmd(&format!("sendgroup messi,{} banyak", names(1024))), "bad-request");
    assert_eq!(messi.inbox().len(), 1);
}

#[test]
fn a_send_repeated_with_the_same_uuid_is_one_message() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let tag = Uuid::now_v7().simple().to_string();
    for round in 0..5 {
        let sent = ok(messi.cmd(&format!("@{tag} send henderson sekali saja")));
        assert_eq!(sent["id"], tag);
        let id: Uuid = text(&sent, "message_id").parse().expect("a UUID");
        assert_eq!(id.simple().to_string(), tag);
        assert_eq!(sent["duplicate"] == true, round > 0, "{sent}");
    }
    assert_eq!(texts(&henderson.inbox()), ["sekali saja"]);
    // Also after it was read, and for a whole group.
    assert_eq!(ok(messi.cmd(&format!("@{tag} send henderson sekali saja")))["duplicate"], true);
    assert!(henderson.inbox().is_empty());
    let tag = Uuid::now_v7().simple().to_string();
    for _ in 0..3 {
        ok(messi.cmd(&format!("@{tag} sendgroup henderson,messi sekali")));
    }
    assert_eq!((henderson.inbox().len(), messi.inbox().len()), (1, 1));
}

#[test]
fn nothing_is_sent_under_an_id_that_the_server_made() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    for tag in ["", "@7 "] {
        let sent = ok(messi.cmd(&format!("{tag}send henderson sekali")));
        let id: Uuid = text(&sent, "message_id").parse().expect("a UUID");
        refused(messi.cmd(&format!("@{} send henderson sekali", id.simple())), "bad-request");
        assert_eq!(texts(&henderson.inbox()), ["sekali"]);
        henderson.settle();
        assert_eq!(ok(messi.cmd(&format!("status {id}")))["state"], "read");
    }
}

#[test]
fn other_tags_repeat_nothing_and_one_users_ids_do_not_touch_anothers() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let mut lineker = Chat::login(&server, "realm1", "lineker");
    for tag in ["7", "7", &Uuid::new_v4().simple().to_string()] {
        ok(messi.cmd(&format!("@{tag} send lineker lagi")));
    }
    let tag = Uuid::now_v7().simple().to_string();
    ok(messi.cmd(&format!("@{tag} send lineker dari messi")));
    let theirs = ok(henderson.cmd(&format!("@{tag} send lineker dari henderson")));
    assert_ne!(theirs["duplicate"], true, "another sender's message cannot be suppressed");
    let read = lineker.inbox();
    let mut seen = texts(&read);
    seen.sort_unstable();
    assert_eq!(seen, ["dari henderson", "dari messi", "lagi", "lagi", "lagi"]);
}

#[test]
fn an_inbox_is_bounded_and_goes_on_in_order() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for n in 0..1200 {
        messi.start(&format!("send messi nomor {n}"));
    }
    for _ in 0..1200 {
        ok(messi.reply());
    }
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let reply = ok(messi.cmd("inbox"));
        let page = reply["messages"]["messi"].as_array().expect("a list").clone();
        assert!(page.len() <= 500, "{} in one reply", page.len());
        seen.extend(page);
        pages += 1;
        if reply["more"] != true {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(texts(&seen), (0..1200).map(|n| format!("nomor {n}")).collect::<Vec<_>>());
}

#[test]
fn an_inbox_of_long_messages_is_bounded_by_their_bytes() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let long = "x".repeat(60_000);
    for n in 0..40 {
        ok(messi.cmd(&format!("send messi {n} {long}")));
    }
    let first = ok(messi.cmd("inbox"));
    assert_eq!(first["more"], true);
    let bytes: usize =
        first["messages"]["messi"].as_array().expect("a list").iter().map(|m| text(m, "msg").len()).sum();
    assert!(bytes <= 1 << 20, "{bytes} bytes of text in one reply");
    let count = first["messages"]["messi"].as_array().map_or(0, Vec::len);
    assert_eq!(count + messi.inbox().len(), 40);
}

#[test]
fn many_senders_at_once_keep_the_order_of_each() {
    let server = BROKER.demo();
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("watch"));
    let senders: Vec<_> = (0..6)
        .map(|sender| {
            let mut messi = Chat::login(&server, "realm1", "messi");
            std::thread::spawn(move || {
                let command = if sender % 2 == 0 { "send henderson" } else { "sendgroup henderson,messi" };
                (0..150).for_each(|n| messi.start(&format!("{command} {sender} {n}")));
                (0..150).for_each(|_| drop(ok(messi.reply())));
            })
        })
        .collect();
    let mut next = [0; 6];
    for _ in 0..6 * 150 {
        let event = henderson.event("message");
        let (sender, n) = text(&event, "msg").split_once(' ').expect("two numbers");
        let (sender, n): (usize, usize) = (sender.parse().expect("a number"), n.parse().expect("a number"));
        assert_eq!(n, next[sender], "of sender {sender}");
        next[sender] += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().expect("a sender does not panic"));
    assert_eq!(Chat::login(&server, "realm1", "messi").inbox().len(), 3 * 150);
}

#[test]
fn reading_marks_read_for_all_sessions_of_a_user() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut one = Chat::login(&server, "realm1", "henderson");
    let mut two = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("send henderson sekali"));
    assert_eq!(one.inbox().len(), 1);
    one.settle();
    assert!(two.inbox().is_empty());
    ok(messi.cmd("send henderson dua kali"));
    assert_eq!(texts(&two.inbox()), ["dua kali"]);
    two.settle();
    assert!(one.inbox().is_empty());
}

#[test]
fn any_send_takes_a_qualified_name_of_its_own_realm() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("send messi@realm1 ke diri sendiri"));
    ok(messi.cmd("sendgroup messi@realm1,messi juga"));
    assert_eq!(texts(&messi.inbox()), ["ke diri sendiri", "juga"]);
    refused(messi.cmd("send pele@realm1 halo"), "no-such-user");
}

#[test]
fn a_full_mailbox_is_an_error_to_its_sender_and_drops_nothing() {
    let server = BROKER.serve().limit("mailbox_entries_max", 20).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let mut stored = 0;
    for n in 0..40 {
        let reply = messi.cmd(&format!("send henderson {n}"));
        if reply["status"] == "OK" {
            stored += 1;
        } else {
            refused(reply, "mailbox-full");
        }
    }
    assert!((1..=20).contains(&stored), "{stored} stored where 20 fit");
    let part = ok(messi.cmd("sendgroup henderson,messi sebagian"));
    assert_eq!(part["full"], serde_json::json!(["henderson"]), "who got no copy is named: {part}");
    let read = henderson.inbox();
    assert_eq!(texts(&read), (0..stored).map(|n| n.to_string()).collect::<Vec<_>>());
    henderson.settle();
    ok(messi.cmd("send henderson ada tempat lagi"));
    assert_eq!(texts(&henderson.inbox()), ["ada tempat lagi"], "what was read makes room");
}
