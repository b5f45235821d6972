//! Messages and bytes a minute: who has sent too many is told when to go on, and a lane that has carried too many waits.

use super::BROKER;
use crate::harness::{Chat, eventually, ok, refused, text, texts};

#[test]
fn a_user_who_sends_too_much_is_told_when_to_go_on_and_others_are_not_held_up() {
    let server = BROKER.serve().limit("user_messages_per_minute", 5).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    for n in 0..5 {
        messi.start(&format!("send lineker {n}"));
    }
    messi.start("@terlalu send lineker banyak");
    for _ in 0..5 {
        ok(messi.reply());
    }
    let reply = refused(messi.reply(), "rate-limited");
    let wait = reply["retry_after_s"].as_u64().unwrap_or_else(|| panic!("when to go on: {reply}"));
    assert!((1..=13).contains(&wait) && text(&reply, "id") == "terlalu", "{reply}");
    // The share is the user's, whichever session it is, and only what is sent counts.
    let mut elsewhere = Chat::login(&server, "realm1", "messi");
    refused(elsewhere.cmd("sendgroup lineker,henderson banyak"), "rate-limited");
    ok(elsewhere.cmd("history"));
    ok(henderson.cmd("send lineker satu"));
    let mut lineker = Chat::login(&server, "realm1", "lineker");
    assert_eq!(lineker.inbox().len(), 6, "what was refused was not stored");
}

#[test]
fn an_address_has_one_share_for_all_who_connect_from_there_and_bytes_count_too() {
    let server = BROKER.serve().limit("address_bytes_per_minute", 1_000).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd(&format!("send lineker {}", "x".repeat(600))));
    let reply = refused(henderson.cmd(&format!("send lineker {}", "x".repeat(600))), "rate-limited");
    assert!(text(&reply, "detail").contains("address"), "{reply}");
    ok(henderson.cmd("send lineker pendek"));
}

#[test]
fn a_lane_that_has_carried_its_share_waits_says_so_and_loses_nothing() {
    // So many a minute are one each tenth of a second once the share is used up.
    let server = BROKER.demo_builder().limit("peer_messages_per_minute", 600).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    for n in 0..630 {
        messi.start(&format!("send lineker@realm2 {n}"));
    }
    for _ in 0..630 {
        ok(messi.reply());
    }
    eventually("the lane says why it waits", || {
        let realms = ok(messi.cmd("connectedrealm"))["realms"].clone();
        realms[0]["last_error"].as_str().filter(|why| why.contains("per_minute")).map(drop)
    });
    let numbers: Vec<String> = (0..630).map(|n| n.to_string()).collect();
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 630)), numbers);
}
