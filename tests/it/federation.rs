//! Two realms: who gets what, and what comes back.

use super::BROKER;
use crate::harness::{Chat, Server, eventually, ok, refused, text, texts};

/// messi of realm1, which has added realm2; henderson of realm1; henderson and lineker of realm2.
fn people(server: &Server) -> [Chat; 4] {
    let mut messi = Chat::login(server, "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    let henderson = Chat::login(server, "realm1", "henderson");
    [messi, henderson, Chat::login(server, "realm2", "henderson"), Chat::login(server, "realm2", "lineker")]
}

#[test]
fn a_group_across_realms_reaches_each_name_where_it_exists() {
    let server = BROKER.demo();
    let [mut messi, mut here, mut there, mut lineker] = people(&server);
    Chat::register(&server, "realm1", "xavi");
    let mut xavi = Chat::login(&server, "realm1", "xavi");
    ok(messi.cmd("sendgrouprealm realm2 henderson,lineker,xavi halo semua"));
    // henderson exists in both realms and gets a copy in each; xavi here only; lineker in both.
    for (chat, realm) in
        [(&mut here, "realm2"), (&mut xavi, "realm2"), (&mut there, "realm1"), (&mut lineker, "realm1")]
    {
        let read = chat.realm_inbox_of(realm, 1);
        assert_eq!(texts(&read), ["halo semua"]);
        assert_eq!(text(&read[0], "from"), "messi@realm1");
    }
    assert!(here.inbox().is_empty(), "it is filed under the other realm only");
    assert!(messi.realm_inbox("realm2").is_empty(), "nothing comes back");
}

#[test]
fn a_name_found_in_neither_realm_comes_back_as_a_notice() {
    let server = BROKER.demo();
    let [mut messi, _, _, mut lineker] = people(&server);
    let sent = ok(messi.cmd("sendgrouprealm realm2 lineker,pele halo"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["halo"]);
    let notice = messi.realm_inbox_of("realm2", 1).remove(0);
    assert_eq!((text(&notice, "kind"), text(&notice, "from")), ("notice", "@realm2"));
    assert_eq!(notice["about"], sent["message_id"]);
    assert!(text(&notice, "msg").contains("pele"), "{notice}");
}

#[test]
fn a_private_message_to_nobody_comes_back_as_a_notice() {
    let server = BROKER.demo();
    let [mut messi, ..] = people(&server);
    let sent = ok(messi.cmd("sendprivaterealm realm2 pele halo"));
    let notice = messi.realm_inbox_of("realm2", 1).remove(0);
    assert_eq!(text(&notice, "kind"), "notice");
    assert_eq!(notice["about"], sent["message_id"]);
    assert!(text(&notice, "msg").contains("pele"), "{notice}");
}

#[test]
fn a_qualified_name_means_just_that_one() {
    let server = BROKER.demo();
    let [mut messi, mut here, mut there, mut lineker] = people(&server);
    ok(messi.cmd("sendgrouprealm realm2 henderson@realm1,lineker@realm2 tepat"));
    assert_eq!(texts(&here.realm_inbox_of("realm2", 1)), ["tepat"]);
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["tepat"]);
    ok(messi.cmd("send henderson@realm2 langsung"));
    assert_eq!(texts(&there.realm_inbox_of("realm1", 1)), ["langsung"]);
    assert!(here.realm_inbox("realm2").is_empty());
}

#[test]
fn a_private_message_goes_to_the_other_realm_alone() {
    let server = BROKER.demo();
    let [mut messi, mut here, mut there, _] = people(&server);
    ok(messi.cmd("sendprivaterealm realm2 henderson ke sana saja"));
    assert_eq!(texts(&there.realm_inbox_of("realm1", 1)), ["ke sana saja"]);
    assert!(here.realm_inbox("realm2").is_empty() && here.inbox().is_empty());
}

#[test]
fn the_own_realms_inbox_shows_what_came_from_any_realm() {
    let server = BROKER.demo();
    let [mut messi, _, _, mut lineker] = people(&server);
    ok(messi.cmd("sendprivaterealm realm2 lineker satu"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm2", 1)), ["satu"]);
    assert!(lineker.realm_inbox("realm1").is_empty(), "reading marks read");
    ok(messi.cmd("sendprivaterealm realm2 lineker dua"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["dua"]);
    assert!(lineker.realm_inbox("realm2").is_empty());
}

#[test]
fn realm_messages_and_local_messages_have_separate_inboxes() {
    let server = BROKER.demo();
    let [mut messi, _, mut there, mut lineker] = people(&server);
    ok(messi.cmd("sendprivaterealm realm2 lineker dari jauh"));
    ok(there.cmd("send lineker dari dekat"));
    assert_eq!(texts(&lineker.inbox_of(1)), ["dari dekat"]);
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["dari jauh"]);
}

#[test]
fn both_realms_can_send_once_each_has_added_the_other() {
    let server = BROKER.demo();
    let [mut messi, _, _, mut lineker] = people(&server);
    ok(lineker.cmd("addrealm realm1 127.0.0.1 4001"));
    refused(lineker.cmd("addrealm realm1 127.0.0.1 4001"), "realm-exists");
    for n in 0..20 {
        ok(messi.cmd(&format!("sendprivaterealm realm2 lineker ping {n}")));
        ok(lineker.cmd(&format!("sendprivaterealm realm1 messi pong {n}")));
    }
    let (to_lineker, to_messi) = (lineker.realm_inbox_of("realm1", 20), messi.realm_inbox_of("realm2", 20));
    assert_eq!(texts(&to_lineker), (0..20).map(|n| format!("ping {n}")).collect::<Vec<_>>());
    assert_eq!(texts(&to_messi), (0..20).map(|n| format!("pong {n}")).collect::<Vec<_>>());
}

#[test]
fn one_side_that_has_added_the_other_is_enough_for_both_to_send() {
    let server = BROKER.demo();
    let [mut messi, _, _, mut lineker] = people(&server);
    ok(lineker.cmd("sendprivaterealm realm1 messi tanpa menambah"));
    assert_eq!(texts(&messi.realm_inbox_of("realm2", 1)), ["tanpa menambah"]);
    ok(lineker.cmd("addrealm realm1 127.0.0.1 4001"));
}

#[test]
fn an_unknown_realm_is_no_such_realm_and_holds_nobody_up() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    messi.start("addrealm realm9 127.0.0.1 4009");
    for n in 0..50 {
        ok(henderson.cmd(&format!("send henderson {n}")));
    }
    refused(messi.reply(), "no-such-realm");
    refused(messi.cmd("sendprivaterealm realm9 lineker hai"), "no-such-realm");
    refused(messi.cmd("getrealminbox realm9"), "no-such-realm");
    assert_eq!(ok(messi.cmd("connectedrealm"))["realms"], serde_json::json!([]));
}

#[test]
fn a_realm_cannot_add_itself() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let reply = messi.cmd("addrealm realm1 127.0.0.1 4001");
    assert_eq!(reply["status"], "ERROR", "{reply}");
    ok(messi.cmd("send messi masih di sini"));
    assert_eq!(messi.inbox().len(), 1);
}

#[test]
fn a_repeated_send_between_realms_is_one_message() {
    let server = BROKER.demo();
    let [mut messi, mut here, _, mut lineker] = people(&server);
    let tag = uuid::Uuid::now_v7().simple().to_string();
    for round in 0..5 {
        let sent = ok(messi.cmd(&format!("@{tag} sendgrouprealm realm2 lineker,henderson@realm1 sekali")));
        assert_eq!(sent["duplicate"] == true, round > 0, "{sent}");
    }
    ok(messi.cmd("sendgrouprealm realm2 lineker,henderson@realm1 penutup"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 2)), ["sekali", "penutup"]);
    assert_eq!(texts(&here.realm_inbox_of("realm2", 2)), ["sekali", "penutup"]);
}

#[test]
fn a_thousand_messages_between_realms_arrive_once_and_in_order() {
    let server = BROKER.demo();
    let [mut messi, _, _, mut lineker] = people(&server);
    let lines: String =
        (0..1000).map(|n| messi.line(&format!("sendprivaterealm realm2 lineker {n}")) + "\r\n").collect();
    messi.send_raw(lines);
    (0..1000).for_each(|_| drop(ok(messi.reply())));
    let read = lineker.realm_inbox_of("realm1", 1000);
    assert_eq!(texts(&read), (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn peers_survive_a_restart() {
    let mut server = BROKER.demo();
    let [messi, _, _, lineker] = people(&server);
    server.crash();
    let mut messi = messi.again(&server, "realm1");
    refused(messi.cmd("addrealm realm2 127.0.0.1 4002"), "realm-exists");
    ok(messi.cmd("sendprivaterealm realm2 lineker masih kenal"));
    let mut lineker = lineker.again(&server, "realm2");
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["masih kenal"]);
    eventually("the lane is up again", || {
        let realms = ok(messi.cmd("connectedrealm"));
        (realms["realms"][0]["state"] == "up" && realms["realms"][0]["queued"] == 0).then_some(())
    });
}
