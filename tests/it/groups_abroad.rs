//! Groups with members from two realms: one order for all of them, and an outage delays those of its realm only.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::BROKER;
use super::replay::replay;
use crate::harness::{Chat, Server, eventually, holds_for, ok, refused, text, texts};

/// messi's group in realm1 with henderson, and lineker and henderson of realm2.
fn team(server: &Server) -> [Chat; 4] {
    let mut messi = Chat::login(server, "realm1", "messi");
    let mut henderson = Chat::login(server, "realm1", "henderson");
    let mut there = ["lineker", "henderson"].map(|user| Chat::login(server, "realm2", user));
    ok(there[0].cmd("addrealm realm1 127.0.0.1 4001"));
    ok(messi.cmd("addgroup tim"));
    ok(henderson.cmd("joingroup tim"));
    for member in &mut there {
        let joined = ok(member.cmd("joingroup #tim@realm1"));
        assert_eq!(text(&joined, "group"), "tim@realm1", "{joined}");
    }
    let [lineker, other] = there;
    [messi, henderson, lineker, other]
}

/// The texts that a watch pushes, until there are so many.
fn pushed(chat: &mut Chat, count: usize) -> Vec<String> {
    (0..count).map(|_| text(&chat.event_among("message"), "msg").to_owned()).collect()
}

#[test]
fn members_of_two_realms_see_what_all_say_once_and_in_one_order() {
    const EACH: usize = 100;
    let server = BROKER.demo();
    let mut members = team(&server);
    let mut watching =
        [("realm1", "messi"), ("realm1", "henderson"), ("realm2", "lineker"), ("realm2", "henderson")]
            .map(|(realm, user)| Chat::login(&server, realm, user));
    watching.iter_mut().for_each(|chat| drop(ok(chat.cmd("watch"))));
    for n in 0..EACH {
        for (who, member) in members.iter_mut().enumerate() {
            let group = if who < 2 { "#tim" } else { "#tim@realm1" };
            member.start(&format!("sendgroup {group} {who}-{n}"));
        }
    }
    for member in &mut members {
        (0..EACH).for_each(|_| drop(ok(member.reply())));
    }
    let seen = watching.each_mut().map(|chat| pushed(chat, 4 * EACH));
    for other in &seen[1..] {
        assert_eq!(*other, seen[0]);
    }
    for who in 0..4 {
        let own: Vec<&String> = seen[0].iter().filter(|text| text.starts_with(&format!("{who}-"))).collect();
        let sent: Vec<String> = (0..EACH).map(|n| format!("{who}-{n}")).collect();
        assert_eq!(own, sent.iter().collect::<Vec<_>>(), "each in the order of its OKs");
    }
    watching.iter_mut().for_each(Chat::settle);
    for (member, group) in members.iter_mut().zip(["#tim", "#tim@realm1", "#tim@realm1", "#tim@realm1"]) {
        assert!(member.inbox().is_empty(), "what was pushed is read");
        assert_eq!(member.history(group), seen[0]);
    }
}

#[test]
fn an_inbox_has_what_other_realms_say_and_the_status_tells_how_far_it_came() {
    let server = BROKER.demo();
    let [mut messi, mut henderson, mut lineker, mut other] = team(&server);
    let post = ok(lineker.cmd("sendgroup #tim@realm1 dari seberang"));
    for (chat, group) in [(&mut messi, "tim"), (&mut henderson, "tim"), (&mut other, "tim@realm1")] {
        let read = chat.inbox_of(1);
        assert_eq!(texts(&read), ["dari seberang"]);
        assert_eq!(read[0]["id"], post["message_id"]);
        let shown = ["from", "to", "group"].map(|field| text(&read[0], field));
        assert_eq!(shown, ["lineker@realm2", "#tim@realm1", group]);
        chat.settle();
    }
    assert!(lineker.inbox().is_empty(), "not one's own");
    let status =
        |chat: &mut Chat, id: &Value| ok(chat.cmd(&format!("status {}", id.as_str().expect("an id"))));
    eventually("it has come back to its sender's realm and was read there", || {
        (status(&mut lineker, &post["message_id"])["state"] == "read").then_some(())
    });
    let answer = ok(messi.cmd("sendgroup #tim jawaban"));
    assert_eq!(texts(&lineker.inbox_of(1)), ["jawaban"]);
    eventually("it is in the other realm's log", || {
        let reply = status(&mut messi, &answer["message_id"]);
        let receivers = reply["receivers"].as_array().expect("a list").clone();
        let there = receivers.iter().find(|one| one["user"] == "lineker@realm2").expect("a member").clone();
        (there["state"] == "stored").then_some(())
    });
}

#[test]
fn whoever_is_invited_from_another_realm_joins_and_whoever_is_removed_gets_nothing() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    let mut other = Chat::login(&server, "realm2", "henderson");
    refused(lineker.cmd("joingroup #rahasia@realm1"), "no-such-realm");
    ok(messi.cmd("addgroup rahasia invite"));
    refused(messi.cmd("invitegroup rahasia lineker@realm2"), "no-such-realm");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    refused(lineker.cmd("joingroup #rahasia@realm1"), "not-allowed");
    refused(lineker.cmd("joingroup #tidakada@realm1"), "no-such-group");
    refused(lineker.cmd("sendgroup #rahasia@realm1 hai"), "not-a-member");
    refused(lineker.cmd("history #rahasia@realm1"), "not-a-member");
    ok(messi.cmd("invitegroup rahasia lineker@realm2"));
    eventually("the invitation is there", || {
        let groups = ok(lineker.cmd("groups"))["groups"].clone();
        (groups[0]["group"] == "rahasia@realm1" && groups[0]["invited"] == true).then_some(())
    });
    ok(messi.cmd("sendgroup #rahasia sebelum"));
    ok(lineker.cmd("joingroup #rahasia@realm1"));
    refused(other.cmd("joingroup #rahasia@realm1"), "not-allowed");
    refused(lineker.cmd("topic #rahasia@realm1 punyaku"), "not-allowed");
    ok(messi.cmd("topic rahasia penting"));
    ok(messi.cmd("sendgroup #rahasia sesudah"));
    assert_eq!(texts(&lineker.inbox_of(1)), ["sesudah"], "what was said before one joined is not unread");
    eventually("the topic is known", || {
        (ok(lineker.cmd("topic #rahasia@realm1"))["topic"] == "penting").then_some(())
    });
    let members = ok(lineker.cmd("members #rahasia@realm1"));
    assert_eq!(members["members"], serde_json::json!(["lineker@realm2", "messi@realm1"]));
    ok(messi.cmd("kickgroup rahasia lineker@realm2"));
    eventually("it is known there too", || {
        (ok(lineker.cmd("groups"))["groups"] == serde_json::json!([])).then_some(())
    });
    ok(messi.cmd("sendgroup #rahasia tanpa dia"));
    refused(lineker.cmd("sendgroup #rahasia@realm1 hai"), "not-a-member");
    assert!(holds_for(Duration::from_millis(200), || lineker.inbox().is_empty()));
}

#[test]
fn a_group_whose_owner_leaves_goes_to_a_member_in_another_realm() {
    let server = BROKER.demo();
    let [mut messi, mut henderson, mut lineker, mut other] = team(&server);
    ok(henderson.cmd("leavegroup tim"));
    ok(messi.cmd("leavegroup tim"));
    eventually("lineker owns it", || {
        (ok(lineker.cmd("members #tim@realm1"))["owner"] == "lineker@realm2").then_some(())
    });
    ok(lineker.cmd("topic #tim@realm1 milik kita"));
    ok(lineker.cmd("sendgroup #tim@realm1 berdua"));
    assert_eq!(texts(&other.inbox_of(1)), ["berdua"]);
    refused(messi.cmd("sendgroup #tim hai"), "not-a-member");
    ok(lineker.cmd("kickgroup #tim@realm1 henderson@realm2"));
    ok(lineker.cmd("leavegroup #tim@realm1"));
    eventually("it is over", || {
        let gone =
            [&mut lineker, &mut other].map(|chat| ok(chat.cmd("groups"))["groups"] == serde_json::json!([]));
        (gone == [true, true]).then_some(())
    });
    eventually("its name is free", || (messi.cmd("addgroup tim")["status"] == "OK").then_some(()));
    assert!(messi.history("#tim").is_empty());
}

#[test]
fn an_outage_of_a_realm_delays_its_members_only() {
    const COUNT: usize = 300;
    let mut server = BROKER.demo();
    let [mut messi, mut henderson, lineker, _] = team(&server);
    server.operate(&["realm", "pause", "realm2"]);
    for n in 0..COUNT {
        messi.start(&format!("sendgroup #tim {n}"));
    }
    (0..COUNT).for_each(|_| drop(ok(messi.reply())));
    assert_eq!(henderson.inbox_of(COUNT).len(), COUNT, "those here do not notice");
    henderson.settle();
    server.crash();
    let mut messi = messi.again(&server, "realm1");
    let mut lineker = lineker.again(&server, "realm2");
    assert!(lineker.inbox().is_empty());
    // What a member says meanwhile waits too, in the order of its OKs.
    ok(lineker.cmd("sendgroup #tim@realm1 menunggu"));
    ok(messi.cmd("sendgroup #tim terakhir"));
    server.operate(&["realm", "resume", "realm2"]);
    let all: Vec<String> = eventually("all of it has come", || {
        let all = lineker.history("#tim@realm1");
        (all.len() == COUNT + 2).then_some(all)
    });
    assert_eq!(all, messi.history("#tim"), "in the order of its realm");
    assert_eq!(all[..COUNT], (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn nothing_is_lost_or_comes_twice_over_four_kills() {
    const EACH: usize = 60;
    let mut server = BROKER.demo();
    let [mut messi, _, mut lineker, mut other] = team(&server);
    let id = |_: usize| Uuid::now_v7().simple().to_string();
    let ids: Vec<[String; 2]> = (0..4 * EACH).map(|n| [id(n), id(n)]).collect();
    for round in 0..4 {
        let range = round * EACH..(round + 1) * EACH;
        let send = |messi: &mut Chat, lineker: &mut Chat| {
            for n in range.clone() {
                messi.start(&format!("@{} sendgroup #tim a{n}", ids[n][0]));
                lineker.start(&format!("@{} sendgroup #tim@realm1 b{n}", ids[n][1]));
            }
        };
        send(&mut messi, &mut lineker);
        // The kill comes in the middle of it; what was not answered is sent again under its id.
        (0..EACH / 4).for_each(|_| drop(ok(messi.reply())));
        server.crash();
        [&mut messi, &mut lineker].into_iter().zip(["realm1", "realm2"]).for_each(|(chat, realm)| {
            *chat = chat.again(&server, realm);
        });
        send(&mut messi, &mut lineker);
        for chat in [&mut messi, &mut lineker] {
            (0..EACH).for_each(|_| drop(ok(chat.reply())));
        }
    }
    other = other.again(&server, "realm2");
    let there: Vec<String> = eventually("all of it has come", || {
        let all = other.history("#tim@realm1");
        (all.len() >= 2 * 4 * EACH).then_some(all)
    });
    assert_eq!(there, messi.history("#tim"));
    for name in ["a", "b"] {
        let own: Vec<&String> = there.iter().filter(|text| text.starts_with(name)).collect();
        let sent: Vec<String> = (0..4 * EACH).map(|n| format!("{name}{n}")).collect();
        assert_eq!(own, sent.iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_message_costs_one_envelope_for_each_realm_however_many_members_it_has_there() {
    let server = BROKER.demo();
    let [mut messi, _, mut lineker, mut other] = team(&server);
    ok(messi.cmd("sendgroup #tim satu saja"));
    for chat in [&mut lineker, &mut other] {
        assert_eq!(texts(&chat.inbox_of(1)), ["satu saja"]);
    }
    let args = ["--realm", "realm1", "--kind", "outbox", "--peer", "realm2", "--grep", "satu saja"];
    let said = replay(&server, &args).exits(0).stdout;
    assert_eq!(said.lines().filter(|line| line.contains("satu saja")).count(), 1, "{said}");
}

#[test]
fn who_leaves_is_out_at_once_also_while_the_groups_realm_is_away_or_blocked() {
    let server = BROKER.demo();
    let [mut messi, _, mut lineker, mut other] = team(&server);
    server.operate(&["realm", "pause", "realm1"]);
    ok(lineker.cmd("leavegroup #tim@realm1"));
    refused(lineker.cmd("sendgroup #tim@realm1 hai"), "not-a-member");
    refused(lineker.cmd("leavegroup #tim@realm1"), "not-a-member");
    server.operate(&["realm", "resume", "realm1"]);
    eventually("its realm knows", || {
        let members = ok(messi.cmd("members tim"))["members"].clone();
        (!members.to_string().contains("lineker")).then_some(())
    });
    server.operate(&["realm", "block", "realm2", "realm1"]);
    ok(other.cmd("leavegroup #tim@realm1"));
    assert_eq!(ok(other.cmd("groups"))["groups"], serde_json::json!([]));
    server.operate(&["realm", "unblock", "realm2", "realm1"]);
    ok(lineker.cmd("joingroup #tim@realm1"));
    ok(messi.cmd("sendgroup #tim kembali"));
    assert_eq!(texts(&lineker.inbox_of(1)), ["kembali"]);
}

#[test]
fn whoever_gets_the_name_of_an_erased_member_is_in_none_of_their_groups() {
    let server = BROKER.demo();
    let [mut messi, ..] = team(&server);
    // Before the group's realm knows of it.
    server.operate(&["realm", "pause", "realm1"]);
    server.operate(&["user", "remove", "lineker", "--erase", "--by", "jaga", "--realm", "realm2"]);
    let mut another = Chat::register(&server, "realm2", "lineker");
    assert_eq!(ok(another.cmd("groups"))["groups"], serde_json::json!([]));
    refused(another.cmd("history #tim@realm1"), "not-a-member");
    server.operate(&["realm", "resume", "realm1"]);
    eventually("its realm knows", || {
        let members = ok(messi.cmd("members tim"))["members"].clone();
        (!members.to_string().contains("lineker")).then_some(())
    });
    assert_eq!(ok(another.cmd("groups"))["groups"], serde_json::json!([]));
}
