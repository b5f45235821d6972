//! `status`: where a sent message is.

use super::BROKER;
use crate::harness::{Chat, eventually, ok, refused, text};

/// Waits until the message is in this state.
#[track_caller]
fn reaches(chat: &mut Chat, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), || {
        let reply = ok(chat.cmd(&format!("status {id}")));
        (reply["state"] == state).then_some(())
    });
}

#[test]
fn a_local_message_is_delivered_and_then_read() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let sent = ok(messi.cmd("send henderson halo"));
    let id = text(&sent, "message_id");
    assert_eq!(ok(messi.cmd(&format!("status {id}")))["state"], "delivered");
    henderson.inbox();
    reaches(&mut messi, id, "read");
}

#[test]
fn only_its_sender_may_ask_for_a_message() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let sent = ok(messi.cmd("send henderson halo"));
    refused(henderson.cmd(&format!("status {}", text(&sent, "message_id"))), "no-such-message");
}

#[test]
fn a_message_to_another_realm_is_delivered_and_then_read() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    let sent = ok(messi.cmd("sendprivaterealm realm2 lineker halo"));
    let id = text(&sent, "message_id");
    reaches(&mut messi, id, "delivered");
    lineker.realm_inbox_of("realm1", 1);
    reaches(&mut messi, id, "read");
}

#[test]
fn a_message_waits_as_accepted_while_its_realm_is_paused() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    server.operate(&["realm", "pause", "realm2"]);
    let sent = ok(messi.cmd("sendprivaterealm realm2 lineker halo"));
    let id = text(&sent, "message_id");
    let state = ok(messi.cmd(&format!("status {id}")))["state"].clone();
    assert!(state == "accepted" || state == "stored", "{state}");
    server.operate(&["realm", "resume", "realm2"]);
    reaches(&mut messi, id, "delivered");
}

#[test]
fn a_message_to_a_name_that_does_not_exist_there_has_failed() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    let sent = ok(messi.cmd("sendprivaterealm realm2 pele halo"));
    let id = text(&sent, "message_id");
    reaches(&mut messi, id, "failed");
    let reply = ok(messi.cmd(&format!("status {id}")));
    assert!(reply.to_string().contains("no-such-user"), "the reason is there: {reply}");
}

#[test]
fn a_sender_who_watches_is_told_of_each_state() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    let mut watcher = messi.again(&server, "realm1");
    ok(watcher.cmd("watch"));
    let sent = ok(messi.cmd("sendprivaterealm realm2 lineker halo"));
    let wait_for = |watcher: &mut Chat, state: &str| {
        loop {
            let event = watcher.event_among("status");
            assert_eq!(event["realm"], "realm2");
            assert_eq!(event["ids"], serde_json::json!([sent["message_id"]]));
            if event["state"] == state {
                return;
            }
        }
    };
    wait_for(&mut watcher, "delivered");
    lineker.realm_inbox_of("realm1", 1);
    wait_for(&mut watcher, "read");
}
