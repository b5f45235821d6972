//! `watch`: new messages are pushed, the unread ones first, each once, in order.

use std::time::Duration;

use super::BROKER;
use crate::harness::{Chat, OneFrame, ok, refused, text};

#[test]
fn watch_pushes_what_is_unread_and_then_what_comes() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("send henderson lama satu"));
    ok(messi.cmd("send henderson lama dua"));
    ok(henderson.cmd("watch"));
    let sent = ok(messi.cmd("send henderson baru"));
    let mut last = None;
    for wanted in ["lama satu", "lama dua", "baru"] {
        let event = henderson.event("message");
        assert_eq!(text(&event, "msg"), wanted);
        assert_eq!((text(&event, "box"), text(&event, "from")), ("local", "messi@realm1"));
        assert_eq!((text(&event, "msg_from"), text(&event, "msg_to")), ("Lionel Messi", "Jordan Henderson"));
        last = Some(event);
    }
    assert_eq!(last.expect("three came")["id"], sent["message_id"]);
}

#[test]
fn what_watch_pushed_is_read() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("watch"));
    for n in 0..20 {
        ok(messi.cmd(&format!("send henderson {n}")));
        assert_eq!(text(&henderson.event("message"), "msg"), n.to_string());
    }
    assert!(henderson.inbox().is_empty());
    assert!(Chat::login(&server, "realm1", "henderson").inbox().is_empty());
}

#[test]
fn a_thousand_messages_are_pushed_once_and_in_order_while_the_watcher_asks_other_things() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    for n in 0..300 {
        messi.start(&format!("send henderson {n}"));
    }
    ok(henderson.cmd("watch"));
    for n in 300..1000 {
        messi.start(&format!("send henderson {n}"));
    }
    for n in 0..20 {
        henderson.send(&format!("@p{n} ping"));
    }
    let (mut next, mut pings) = (0, 0);
    while next < 1000 || pings < 20 {
        let frame = henderson.reply();
        if frame["event"] == "message" {
            assert_eq!(text(&frame, "msg"), next.to_string());
            next += 1;
        } else {
            assert_eq!(ok(frame)["id"], format!("p{pings}"));
            pings += 1;
        }
    }
    (0..1000).for_each(|_| drop(ok(messi.reply())));
    assert!(henderson_has_nothing_more(&mut henderson));
}

fn henderson_has_nothing_more(henderson: &mut Chat) -> bool {
    henderson.send("@end ping");
    henderson.reply()["id"] == "end" && henderson.inbox().is_empty()
}

#[test]
fn unwatch_ends_it_and_later_messages_are_unread() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("watch"));
    ok(messi.cmd("watch"));
    ok(messi.cmd("unwatch"));
    ok(messi.cmd("unwatch"));
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("send messi setelah itu"));
    assert!(matches!(messi.next_frame(Duration::from_millis(200)), OneFrame::Silence));
    assert_eq!(messi.inbox().len(), 1);
    ok(messi.cmd("watch"));
    ok(henderson.cmd("send messi lagi"));
    assert_eq!(text(&messi.event("message"), "msg"), "lagi");
}

#[test]
fn two_watchers_of_one_user_both_see_what_comes() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut one = Chat::login(&server, "realm1", "henderson");
    let mut two = Chat::login(&server, "realm1", "henderson");
    ok(one.cmd("watch"));
    ok(two.cmd("watch"));
    for n in 0..50 {
        ok(messi.cmd(&format!("send henderson {n}")));
        for watcher in [&mut one, &mut two] {
            assert_eq!(text(&watcher.event("message"), "msg"), n.to_string());
        }
    }
}

#[test]
fn a_watcher_sees_messages_between_realms_under_their_realm() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    ok(lineker.cmd("watch"));
    ok(messi.cmd("sendprivaterealm realm2 lineker halo sebelah"));
    let event = lineker.event("message");
    assert_eq!((text(&event, "box"), text(&event, "msg")), ("realm1", "halo sebelah"));
    assert_eq!(text(&event, "from"), "messi@realm1");
    assert!(lineker.realm_inbox("realm1").is_empty(), "pushed is read");
}

#[test]
fn a_watcher_whose_session_has_ended_is_told_so_and_gets_nothing_more() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut same = messi.again(&server, "realm1");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("watch"));
    ok(same.cmd("logout"));
    // At the latest when there would have been something to push.
    ok(henderson.cmd("send messi tidak didorong"));
    messi.event("logged-out");
    assert!(matches!(messi.next_frame(Duration::from_millis(200)), OneFrame::Silence | OneFrame::Closed));
    assert_eq!(Chat::login(&server, "realm1", "messi").inbox().len(), 1);
}

#[test]
fn one_connection_has_one_watch_and_a_dead_token_has_none() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    refused(messi.ask("watch 9e3b6f1c-0000-4000-8000-000000000000"), "not-authorized");
    ok(messi.cmd("watch"));
    messi.start("send messi satu");
    // The event may come before the reply of the send or after it.
    let (one, two) = (messi.reply(), messi.reply());
    let (event, reply) = if one["event"] == "message" { (one, two) } else { (two, one) };
    assert_eq!(text(&event, "msg"), "satu");
    ok(reply);
    // A login of somebody else on the same connection does not mix the two.
    ok(messi.ask("auth henderson surabaya"));
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(henderson.cmd("send henderson rahasia"));
    assert!(matches!(messi.next_frame(Duration::from_millis(200)), OneFrame::Silence));
}
