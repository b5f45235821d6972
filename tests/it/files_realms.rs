//! Files between realms: they come as they were, over kills and outages, and hold up no text.

use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::BROKER;
use super::files::{get, line, noise, parts};
use crate::harness::{Chat, Server, eventually, ok, refused, text, texts};

/// messi of realm1, which has added realm2, and lineker of realm2.
fn people(server: &Server) -> [Chat; 2] {
    let mut messi = Chat::login(server, "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    [messi, Chat::login(server, "realm2", "lineker")]
}

/// Waits until a message has come to a state at all its receivers, and returns what there is to be told.
#[track_caller]
fn has_state(chat: &mut Chat, id: &str, state: &str) -> serde_json::Value {
    eventually(&format!("the message is {state}"), || {
        Some(ok(chat.cmd(&format!("status {id}")))).filter(|status| status["state"] == state)
    })
}

#[test]
fn a_file_reaches_users_of_another_realm_and_copies_here() {
    let server = BROKER.demo();
    let [mut messi, mut lineker] = people(&server);
    let mut here = Chat::login(&server, "realm1", "henderson");
    let mut there = Chat::login(&server, "realm2", "henderson");
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &noise(30_000, 1)].concat();
    let sum = HEXLOWER.encode(&Sha256::digest(&png));
    let data = BASE64.encode(&png);
    let sent = ok(messi.cmd(&format!("sendfilerealm realm2 lineker ../foto.exe {data} sha256={sum}")));
    let id = text(&sent, "message_id").to_owned();
    let read = lineker.realm_inbox_of("realm1", 1);
    assert_eq!((&read[0]["file"], text(&read[0], "from")), (&sent["file"], "messi@realm1"));
    assert_eq!((text(&read[0]["file"], "type"), text(&read[0]["file"], "sha256")), ("image/png", &*sum));
    assert!(get(&mut lineker, &id) == png, "other bytes came out");
    let files = ok(lineker.cmd("files"));
    assert_eq!(
        (&files["files"][0]["from"], &files["files"][0]["to"]),
        (&"messi@realm1".into(), &serde_json::json!(["lineker"]))
    );
    assert_eq!(ok(messi.cmd("files"))["files"][0]["to"], serde_json::json!(["lineker@realm2"]));
    // Nobody else there has it, whatever they know of it.
    refused(there.cmd(&format!("getfile {id}")), "no-such-file");
    has_state(&mut messi, &id, "read");
    // To several, some of them here, one of them nowhere.
    let sent = ok(messi.cmd(&format!("sendgroupfilerealm realm2 henderson,lineker,pele kopi.png {data}")));
    let id = text(&sent, "message_id");
    for (chat, realm) in [(&mut here, "realm2"), (&mut there, "realm1"), (&mut lineker, "realm1")] {
        assert_eq!(chat.realm_inbox_of(realm, 1)[0]["file"], sent["file"]);
        assert!(get(chat, id) == png, "other bytes came out");
    }
    let notice = messi.realm_inbox_of("realm2", 1).remove(0);
    assert!(notice["about"] == sent["message_id"] && text(&notice, "msg").contains("pele"), "{notice}");
    // A qualified name will do, and one that is nobody's or in no realm does not.
    let sent = ok(messi.cmd(&format!("sendfile lineker@realm2 x.png {data}")));
    assert_eq!(lineker.realm_inbox_of("realm1", 1)[0]["file"], sent["file"]);
    refused(messi.cmd(&format!("sendfile lineker@realm9 x.png {data}")), "no-such-realm");
    refused(messi.cmd(&format!("sendfilerealm realm9 lineker x.png {data}")), "no-such-realm");
    let sent = ok(messi.cmd(&format!("sendfile pele@realm2 x.png {data}")));
    let status = has_state(&mut messi, text(&sent, "message_id"), "failed");
    assert_eq!(status["receivers"][0]["reason"], "no-such-user", "{status}");
}

/// Sends a file of so many bytes into an outage, kills the edges of both realms while it comes, and compares it.
#[track_caller]
fn send_under_kills(bytes: usize, kills: usize) {
    let mut server = BROKER.demo();
    let [mut messi, mut lineker] = people(&server);
    let (bytes, id) = (noise(bytes, 7), Uuid::now_v7());
    let parts = parts(&bytes);
    server.operate(&["realm", "pause", "realm2"]);
    for number in 1..=parts.len() {
        ok(messi.cmd(&line("lineker@realm2", "film.bin", id, &parts, bytes.len(), number)));
    }
    server.operate(&["realm", "resume", "realm2"]);
    ok(messi.cmd("send lineker@realm2 teks"));
    // What was written after the file is there before it.
    let first = eventually("a message comes", || lineker.realm_inbox("realm1").into_iter().next());
    assert_eq!(texts(&[first]), ["teks"]);
    for _ in 0..kills {
        server.crash();
    }
    let mut lineker = lineker.again(&server, "realm2");
    let mut messi = messi.again(&server, "realm1");
    let read = eventually("the file comes", || {
        // What was read before a kill may come again.
        lineker.realm_inbox("realm1").into_iter().find(|message| !message["file"].is_null())
    });
    assert_eq!(text(&read["file"], "sha256"), HEXLOWER.encode(&Sha256::digest(&bytes)));
    assert!(get(&mut lineker, &id.to_string()) == bytes, "other bytes came out");
    eventually("its sender is told", || {
        let state = ok(messi.cmd(&format!("status {id}")))["state"].clone();
        (state == "delivered" || state == "read").then_some(())
    });
    assert!(lineker.realm_inbox("realm1").iter().all(|message| message["file"].is_null()), "it came once");
}

#[test]
fn a_file_comes_while_edges_of_both_realms_are_killed() {
    send_under_kills(3 * 1024 * 1024, 2);
}

#[test]
#[ignore = "takes long"]
fn a_file_of_ten_mebibytes_comes_while_edges_of_both_realms_are_killed() {
    send_under_kills(10 * 1024 * 1024, 4);
}

#[test]
fn a_file_that_is_too_much_for_the_other_realm_fails_there() {
    let server = BROKER.demo_builder().limit("peer_file_bytes_max", 50_000).start();
    let [mut messi, mut lineker] = people(&server);
    let data = BASE64.encode(&noise(40_000, 3));
    let sent = ok(messi.cmd(&format!("sendfilerealm realm2 lineker a.bin {data}")));
    assert_eq!(lineker.realm_inbox_of("realm1", 1)[0]["file"], sent["file"]);
    let sent = ok(messi.cmd(&format!("sendfilerealm realm2 lineker b.bin {data}")));
    let id = text(&sent, "message_id");
    let status = has_state(&mut messi, id, "failed");
    assert_eq!(status["receivers"][0]["reason"], "file-quota", "{status}");
    assert!(text(&messi.realm_inbox_of("realm2", 1)[0], "msg").starts_with("Kuota File Penuh"));
    assert!(lineker.realm_inbox("realm1").is_empty());
    refused(lineker.cmd(&format!("getfile {id}")), "no-such-file");
}
