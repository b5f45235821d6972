//! `block`: who is blocked cannot put anything into a mailbox, and is told no more than that nothing was delivered.

use super::BROKER;
use crate::harness::{Chat, eventually, ok, refused, text, texts};

#[test]
fn who_is_blocked_is_answered_as_by_nobody_until_unblocked() {
    let mut server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("send henderson sebelum"));
    ok(henderson.cmd("block messi"));
    ok(henderson.cmd("block messi@realm1"));
    assert_eq!(ok(henderson.cmd("blocks"))["blocks"].to_string(), r#"["messi@realm1"]"#);
    let blocked = refused(messi.cmd("send henderson satu"), "no-such-user");
    let nobody = refused(messi.cmd("send pele satu"), "no-such-user");
    assert_eq!(blocked.to_string().replace("henderson", "pele"), nobody.to_string());
    refused(messi.cmd("send henderson@realm1 dua"), "no-such-user");
    let group = ok(messi.cmd("sendgroup henderson,lineker tiga"));
    assert_eq!(group["unknown"].to_string(), r#"["henderson"]"#);
    ok(henderson.cmd("send messi ke sana boleh"));
    assert_eq!(texts(&henderson.inbox()), ["sebelum"], "what came before stays");
    henderson.settle();
    // Blocking lasts, and does not end the sessions of who blocks.
    server.crash();
    let (mut messi, mut henderson) = (messi.again(&server, "realm1"), henderson.again(&server, "realm1"));
    eventually("the realm is up", || (messi.cmd("whoami")["status"] == "OK").then_some(()));
    refused(messi.cmd("send henderson empat"), "no-such-user");
    ok(henderson.cmd("unblock messi"));
    ok(henderson.cmd("unblock messi"));
    ok(messi.cmd("send henderson lima"));
    assert_eq!(texts(&henderson.inbox()), ["lima"]);
}

#[test]
fn a_user_of_another_realm_is_blocked_and_others_of_it_are_not() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    ok(lineker.cmd("block messi@realm1"));
    // The user of the same name in the own realm is somebody else.
    let mut namesake = Chat::login(&server, "realm2", "messi");
    ok(namesake.cmd("send lineker dari sini"));
    let sent = ok(messi.cmd("sendprivaterealm realm2 lineker jangan"));
    let status = format!("status {}", text(&sent, "message_id"));
    let failed = eventually("the message has failed", || {
        let status = ok(messi.cmd(&status));
        (status["state"] == "failed").then_some(status)
    });
    assert_eq!(failed["receivers"][0]["reason"], "no-such-user");
    ok(messi.cmd("sendgrouprealm realm2 lineker,henderson untuk semua"));
    ok(henderson.cmd("send lineker@realm2 dari henderson"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["dari henderson"]);
    assert_eq!(texts(&lineker.inbox()), ["dari sini"]);
    // In the own realm, of a group that is filed under another one.
    ok(henderson.cmd("block messi"));
    ok(messi.cmd("sendgrouprealm realm2 henderson,messi sekali lagi"));
    assert_eq!(texts(&henderson.realm_inbox("realm2")), ["untuk semua"]);
}

#[test]
fn a_list_has_a_limit_and_no_nonsense() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    refused(messi.cmd("block messi"), "bad-request");
    refused(messi.cmd("block ../x"), "no-such-user");
    for n in 0..256 {
        messi.start(&format!("block u{n}"));
    }
    for _ in 0..256 {
        ok(messi.reply());
    }
    refused(messi.cmd("block satu-lagi"), "bad-request");
    ok(messi.cmd("unblock u7"));
    ok(messi.cmd("block satu-lagi"));
    assert_eq!(ok(messi.cmd("blocks"))["blocks"].as_array().map(Vec::len), Some(256));
    let mut stranger = server.connect("realm1");
    refused(stranger.ask("blocks 00000000-0000-4000-8000-000000000000"), "not-authorized");
}
