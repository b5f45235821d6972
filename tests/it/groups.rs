//! Named groups: who may be in them, who may read them, and that all members see one order.

use serde_json::{Value, json};
use uuid::Uuid;

use super::BROKER;
use crate::harness::{Chat, Server, eventually, ok, refused, text, texts};

/// A group of messi's with henderson and lineker in it.
fn team(server: &Server) -> [Chat; 3] {
    let mut members = ["messi", "henderson", "lineker"].map(|user| Chat::login(server, "realm1", user));
    ok(members[0].cmd("addgroup tim"));
    for member in &mut members[1..] {
        ok(member.cmd("joingroup tim"));
    }
    members
}

fn history(chat: &mut Chat, group: &str) -> Vec<String> {
    let said = ok(chat.cmd(&format!("history {group} limit=200")));
    let said = said["messages"].as_array().expect("a list").clone();
    texts(&said).into_iter().map(str::to_owned).collect()
}

/// The texts that a watch pushes until `last`.
fn pushed_until(chat: &mut Chat, last: &str) -> Vec<String> {
    let mut pushed: Vec<String> = Vec::new();
    while pushed.last().is_none_or(|text| text != last) {
        pushed.push(text(&chat.event_among("message"), "msg").to_owned());
    }
    pushed
}

#[test]
fn what_many_say_at_once_comes_to_every_member_once_and_in_one_order() {
    const EACH: usize = 200;
    let server = BROKER.demo();
    let [mut messi, mut henderson, mut lineker] = team(&server);
    let mut watching = ["messi", "henderson", "lineker"].map(|user| Chat::login(&server, "realm1", user));
    ok(watching[0].cmd("watch"));
    ok(watching[1].cmd("watch"));
    for n in 0..EACH {
        messi.start(&format!("sendgroup #tim a{n}"));
        henderson.start(&format!("sendgroup #tim b{n}"));
    }
    // One begins to watch in the middle of it.
    ok(watching[2].cmd("watch"));
    for n in 0..EACH {
        lineker.start(&format!("sendgroup #tim c{n}"));
    }
    for chat in [&mut messi, &mut henderson, &mut lineker] {
        for _ in 0..EACH {
            ok(chat.reply());
        }
    }
    ok(messi.cmd("sendgroup #tim selesai"));
    let [first, second, third] = watching.each_mut().map(|chat| pushed_until(chat, "selesai"));
    assert_eq!(first.len(), 3 * EACH + 1);
    assert_eq!(first, second);
    assert_eq!(first, third);
    for name in ["a", "b", "c"] {
        let of_one: Vec<&String> = first.iter().filter(|text| text.starts_with(name)).collect();
        let sent: Vec<String> = (0..EACH).map(|n| format!("{name}{n}")).collect();
        assert_eq!(of_one, sent.iter().collect::<Vec<_>>(), "each in the order of its OKs");
    }
    assert_eq!(history(&mut messi, "#tim"), first[first.len() - 200..]);
    watching[2].settle();
    assert!(lineker.inbox().is_empty(), "what was pushed is read");
}

#[test]
fn an_inbox_has_what_others_said_since_one_joined_and_once() {
    let server = BROKER.demo();
    let [mut messi, mut henderson, mut lineker] = team(&server);
    ok(lineker.cmd("leavegroup tim"));
    ok(messi.cmd("sendgroup #tim satu"));
    ok(henderson.cmd("send messi berdua"));
    ok(henderson.cmd("sendgroup #tim dua"));
    ok(lineker.cmd("joingroup tim"));
    let sent = ok(messi.cmd("sendgroup #tim tiga"));
    let read = lineker.inbox();
    assert_eq!(texts(&read), ["tiga"]);
    assert_eq!(read[0]["id"], sent["message_id"]);
    assert_eq!((text(&read[0], "group"), text(&read[0], "to")), ("tim", "#tim@realm1"));
    assert_eq!(texts(&henderson.inbox()), ["satu", "tiga"], "not one's own");
    let of_messi = messi.inbox();
    assert_eq!(texts(&of_messi), ["berdua", "dua"]);
    assert!(of_messi[0]["group"].is_null());
    for chat in [&mut messi, &mut henderson, &mut lineker] {
        assert!(chat.inbox().is_empty());
        assert_eq!(history(chat, "#tim"), ["satu", "dua", "tiga"]);
    }
}

#[test]
fn only_members_send_and_read_and_only_who_is_invited_joins() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("addgroup rahasia invite"));
    for command in [
        "sendgroup #rahasia hai",
        "history #rahasia",
        "members rahasia",
        "topic rahasia",
        "leavegroup rahasia",
    ] {
        refused(henderson.cmd(command), "not-a-member");
    }
    refused(henderson.cmd("joingroup rahasia"), "not-allowed");
    for command in ["invitegroup rahasia henderson", "kickgroup rahasia messi", "topic rahasia punyaku"] {
        refused(henderson.cmd(command), "not-a-member");
    }
    refused(messi.cmd("invitegroup rahasia pele"), "no-such-user");
    refused(messi.cmd("kickgroup rahasia messi"), "not-allowed");
    ok(messi.cmd("invitegroup rahasia henderson"));
    assert_eq!(ok(henderson.cmd("groups"))["groups"][0]["invited"], true);
    ok(henderson.cmd("joingroup rahasia"));
    assert!(ok(henderson.cmd("groups"))["groups"][0]["invited"].is_null());
    for command in ["invitegroup rahasia lineker", "kickgroup rahasia messi", "topic rahasia punyaku"] {
        refused(henderson.cmd(command), "not-allowed");
    }
    ok(henderson.cmd("sendgroup #rahasia di dalam"));
}

#[test]
fn a_removed_member_gets_nothing_from_then_on() {
    let server = BROKER.demo();
    let [mut messi, mut henderson, mut lineker] = team(&server);
    let mut watching = Chat::login(&server, "realm1", "henderson");
    ok(watching.cmd("watch"));
    ok(messi.cmd("sendgroup #tim sebelum"));
    assert_eq!(text(&watching.event_among("message"), "msg"), "sebelum");
    ok(messi.cmd("kickgroup tim henderson"));
    ok(messi.cmd("sendgroup #tim sesudah"));
    ok(messi.cmd("send henderson tanda"));
    assert_eq!(text(&watching.event_among("message"), "msg"), "tanda");
    refused(henderson.cmd("sendgroup #tim hai"), "not-a-member");
    refused(henderson.cmd("history #tim"), "not-a-member");
    refused(henderson.cmd("joingroup tim"), "not-allowed");
    assert!(henderson.inbox().is_empty());
    assert_eq!(texts(&lineker.inbox()), ["sebelum", "sesudah"]);
    ok(messi.cmd("invitegroup tim henderson"));
    ok(henderson.cmd("joingroup tim"));
    ok(messi.cmd("sendgroup #tim lagi"));
    assert_eq!(text(&watching.event_among("message"), "msg"), "lagi");
}

#[test]
fn a_group_message_repeated_with_the_same_uuid_is_one_message() {
    let server = BROKER.demo();
    let [mut messi, mut henderson, _] = team(&server);
    let tag = Uuid::now_v7().simple().to_string();
    for round in 0..3 {
        let sent = ok(messi.cmd(&format!("@{tag} sendgroup #tim sekali")));
        assert_eq!(sent["duplicate"] == true, round > 0, "{sent}");
    }
    refused(messi.cmd(&format!("@{tag} sendgroup #tim yang lain")), "bad-request");
    assert_eq!(texts(&henderson.inbox()), ["sekali"]);
    henderson.settle();
    let status = ok(messi.cmd(&format!("status {tag}")));
    let wanted = json!([{"user": "henderson@realm1", "state": "read"}, {"user": "lineker@realm1", "state": "delivered"}]);
    assert_eq!((&status["receivers"], &status["state"]), (&wanted, &Value::from("delivered")));
}

#[test]
fn groups_and_what_is_unread_survive_a_kill() {
    let mut server = BROKER.demo();
    let [mut messi, mut henderson, lineker] = team(&server);
    ok(messi.cmd("topic tim final"));
    ok(messi.cmd("sendgroup #tim dibaca"));
    assert_eq!(texts(&henderson.inbox()), ["dibaca"]);
    henderson.settle();
    for n in 0..100 {
        ok(messi.cmd(&format!("sendgroup #tim {n}")));
    }
    server.crash();
    let said: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let (mut henderson, mut lineker) = (henderson.again(&server, "realm1"), lineker.again(&server, "realm1"));
    assert_eq!(texts(&henderson.inbox()), said);
    assert_eq!(texts(&lineker.inbox())[1..], said);
    assert_eq!(ok(henderson.cmd("topic tim"))["topic"], "final");
}

#[test]
fn a_group_goes_to_its_oldest_member_and_with_its_last_one() {
    let server = BROKER.demo();
    let [mut messi, mut henderson, mut lineker] = team(&server);
    ok(messi.cmd("sendgroup #tim lama"));
    ok(messi.cmd("leavegroup tim"));
    assert_eq!(ok(lineker.cmd("members tim"))["owner"], "henderson@realm1");
    server.operate(&["user", "remove", "henderson", "--realm", "realm1"]);
    let left = ok(lineker.cmd("members tim"));
    assert_eq!((&left["owner"], &left["members"]), (&json!("lineker@realm1"), &json!(["lineker@realm1"])));
    ok(lineker.cmd("leavegroup tim"));
    for command in ["joingroup tim", "history #tim", "sendgroup #tim hai"] {
        refused(lineker.cmd(command), "no-such-group");
    }
    refused(henderson.cmd("groups"), "not-authorized");
    ok(lineker.cmd("addgroup tim"));
    assert!(history(&mut lineker, "#tim").is_empty(), "nothing is left of the one before");
}

#[test]
fn names_and_limits_of_groups_are_checked() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for name in ["Tim", "a.b", "*", ">", "_x", "tim@realm1", &"x".repeat(33)] {
        refused(messi.cmd(&format!("addgroup {name}")), "bad-name");
        if name != "tim@realm1" {
            refused(messi.cmd(&format!("joingroup {name}")), "no-such-group");
            refused(messi.cmd(&format!("sendgroup #{name} hai")), "no-such-group");
        }
    }
    refused(messi.cmd("joingroup tim@realm2"), "no-such-realm");
    refused(messi.cmd("addgroup tim closed"), "bad-request");
    for n in 0..64 {
        ok(messi.cmd(&format!("addgroup g{n}")));
    }
    refused(messi.cmd("addgroup lebih"), "group-full");
    ok(messi.cmd(&format!("topic g0 {}", "x".repeat(512))));
    refused(messi.cmd(&format!("topic g0 {}", "x".repeat(513))), "bad-request");
    ok(messi.cmd("sendgroup #g0@realm1 dengan realm"));
    assert_eq!(history(&mut messi, "#g0"), ["dengan realm"]);
}

#[test]
fn who_watches_is_told_who_of_their_groups_comes_and_goes() {
    let server = BROKER.demo();
    let [_messi, _henderson, lineker] = team(&server);
    let mut stranger = Chat::register(&server, "realm1", "xavi");
    let mut watching = Chat::login(&server, "realm1", "messi");
    ok(watching.cmd("watch"));
    let (mut lineker, mut others) = (Some(lineker), Vec::new());
    // Who comes and goes within a moment is not told of.
    eventually("both is told", || {
        ok(lineker.take()?.cmd("logout"));
        ok(stranger.cmd("logout"));
        let is_gone = watching.is_told("lineker@realm1", "offline", &mut others);
        lineker = Some(Chat::login(&server, "realm1", "lineker"));
        stranger = Chat::login(&server, "realm1", "xavi");
        let is_back = watching.is_told("lineker@realm1", "online", &mut others);
        (is_gone && is_back).then_some(())
    });
    assert!(others.iter().all(|event| event["user"] != "xavi@realm1"), "{others:?}");
    assert!(others.iter().all(|event| event["user"] != "messi@realm1"), "{others:?}");
}
