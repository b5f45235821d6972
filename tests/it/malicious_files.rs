//! Files of a realm that means harm: it gets none that were not for it, and what it sends is not shown as something else.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use nkeys::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::malicious::{Forger, Town};
use crate::harness::tenants::base64url;
use crate::harness::{Chat, eventually, ok, refused, text};
use crate::nats::files::get;

/// A question for bytes of a file, signed by `key` in the name of `from`.
fn question(key: &KeyPair, from: &str, file: &str, length: u64) -> String {
    let signed = format!("antar file asked {from} realm1 {file} 0 {length}");
    let signature = base64url(&key.sign(signed.as_bytes()).expect("it has a seed"));
    json!({"op": "file-bytes", "from": from, "to": "realm1", "file": file, "offset": 0, "length": length,
        "signature": signature})
    .to_string()
}

#[test]
fn a_realm_gets_no_file_that_was_not_for_it_and_passes_off_none_as_another() {
    let mut town = Town::start();
    // Where each realm has an account of its own, files need nothing more than text does.
    let sent =
        ok(town.messi.cmd(&format!("sendfilerealm realm2 lineker x.txt {}", BASE64.encode(b"rahasia"))));
    let id = text(&sent, "message_id").to_owned();
    assert_eq!(town.lineker.realm_inbox_of("realm1", 1)[0]["file"], sent["file"]);
    assert_eq!(get(&mut town.lineker, &id), b"rahasia");

    let mut wire = town.wire("realm3");
    wire.subscribe("realm.realm2.inbox").expect("the line holds");
    wire.flush().expect("the line holds");
    let (mut three, _pele, own) = town.settle_realm3(&mut wire);
    three.sigterm();
    let mut forger = town.forger(wire);

    // It asks for the file: in its own name, and in that of the realm that it was for.
    let (key, wire) = (&forger.key, &mut forger.wire);
    let answer = wire.request("realm.realm1.info", question(key, "realm3", &id, 7)).expect("the line holds");
    let answer = answer.expect("it has signed, so it is answered").text();
    assert!(answer.contains("no-such-file") && !answer.contains("rahasia"), "{answer}");
    let moment = Duration::from_millis(300);
    let asked = question(key, "realm2", &id, 7);
    let answer = wire.request_with("realm.realm1.info", &[], asked.as_bytes(), moment);
    assert_eq!(answer.expect("the line holds"), None, "it is not realm2");

    // Envelopes in their place in the lane, with files that are none.
    let envelope: Value = serde_json::from_slice(&own.payload).expect("an envelope is JSON");
    let mut after = 0;
    let mut post = |forger: &mut Forger, change: &dyn Fn(&mut Value)| -> String {
        after += 1;
        let (mut next, id) = (envelope.clone(), Uuid::now_v7().to_string());
        let seq = envelope["lane"]["seq"].as_u64().expect("a place in the lane") + after;
        (next["lane"]["prev"], next["lane"]["seq"]) = (json!(seq - 1), json!(seq));
        next["id"] = json!(id);
        next["file"] = json!({"id": id, "name": "x.png", "type": "image/png", "size": 4,
            "sha256": HEXLOWER.encode(&Sha256::digest(b"halo"))});
        change(&mut next["file"]);
        forger.post(&next);
        id
    };
    let bad: [&dyn Fn(&mut Value); 5] = [
        &|file| file["id"] = json!(Uuid::now_v7()),
        &|file| file["name"] = json!("../../etc/passwd"),
        &|file| file["type"] = json!("text/html\r\nSet-Cookie: x=1"),
        &|file| file["size"] = json!(0),
        &|file| file["sha256"] = json!("x"),
    ];
    for change in bad {
        post(&mut forger, change);
    }
    eventually("all of it is put aside", || (town.dead().len() >= bad.len()).then_some(()));
    assert_eq!(town.dead(), ["bad-file"; 5]);
    // Too large, and under the id of a file that is not its own.
    post(&mut forger, &|file| file["size"] = json!(u64::MAX));
    // One whose bytes are others than it has promised: realm3 serves them itself.
    forger.wire.subscribe("realm.realm3.info").expect("the line holds");
    let wrong = post(&mut forger, &|_| {});
    let asked = eventually("its bytes are asked for", || {
        let seen = forger.wire.next(Duration::from_secs(1)).expect("the line holds")?;
        (seen.subject == "realm.realm3.info" && seen.text().contains(&wrong)).then_some(seen)
    });
    let signed = format!(
        "antar file answered realm3 realm2 {wrong} 0 4 {}",
        HEXLOWER.encode(&Sha256::digest(b"lain"))
    );
    let signature = base64url(&forger.key.sign(signed.as_bytes()).expect("it has a seed"));
    let answer = format!("{}\nlain", json!({"signature": signature}));
    let reply = asked.reply.expect("an answer is waited for");
    forger.wire.publish(&reply, answer).expect("the line holds");
    forger.wire.flush().expect("the line holds");
    eventually("it is given up", || town.two.log().contains("file-mismatch").then_some(()));
    for id in [&wrong, &id] {
        let mut henderson = Chat::login(&town.two, "realm2", "henderson");
        refused(henderson.cmd(&format!("getfile {id}")), "no-such-file");
    }
    refused(town.lineker.cmd(&format!("getfile {wrong}")), "no-such-file");
    assert!(town.lineker.realm_inbox("realm3").is_empty());
    town.is_at_peace();
}
