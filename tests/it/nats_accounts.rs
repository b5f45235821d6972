//! The accounts that `antar realm nats-config` writes, on a real server: what joins realms, and what does not.

use std::time::Duration;

use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::harness::tenants::sign_in;
use crate::harness::{Chat, Nats, Realms, Tenants, Wire, eventually, ok, text, texts};

/// How long something that must not come is waited for: after everything that could send it was flushed.
const A_MOMENT: Duration = Duration::from_millis(200);
/// What others must not see.
const CANARY: &str = "kenari-4711";

/// A server with these realms, and a connection of each.
#[track_caller]
fn realms<const N: usize>(names: [&str; N]) -> (Nats, Tenants, [Wire; N]) {
    let tenants = Tenants::of(&names);
    let server = Nats::options().config(&tenants.accounts()).start();
    let wires = names.map(|name| tenants.wire(server.addr(), name));
    (server, tenants, wires)
}

/// One request to JetStream's API: what it answers.
#[track_caller]
fn api(wire: &mut Wire, request: &str, body: &Value) -> Value {
    let answer = wire.request(&format!("$JS.API.{request}"), body.to_string()).expect("the server answers");
    serde_json::from_str(&answer.expect("JetStream answers").text()).expect("it answers in JSON")
}

/// Makes a stream in the account of `wire`.
#[track_caller]
fn stream(wire: &mut Wire, name: &str, subjects: &[&str]) -> Value {
    let config = json!({ "name": name, "subjects": subjects, "storage": "file", "discard": "new" });
    let made = api(wire, &format!("STREAM.CREATE.{name}"), &config);
    assert_eq!(made["error"], Value::Null, "{made}");
    made
}

/// Everything that came so far.
#[track_caller]
fn seen(wire: &mut Wire) -> Vec<(String, String)> {
    wire.flush().expect("the server answers");
    let next = || wire.next(A_MOMENT).expect("the connection is open");
    std::iter::from_fn(next).map(|message| (message.subject.clone(), message.text())).collect()
}

#[test]
fn an_envelope_arrives_under_its_senders_name_and_its_acknowledgement_comes_back() {
    let (_server, _tenants, [mut a, mut b, mut c]) = realms(["a", "b", "c"]);
    stream(&mut b, "REALM_b_INBOX", &["realm.b.inbox", "realm.b.inbox.*"]);
    b.subscribe("realm.b.inbox.>").expect("it is written");
    b.flush().expect("the server answers");
    let send = |wire: &mut Wire, id: &str| -> Value {
        let headers = [("Nats-Msg-Id", id)];
        let sent = wire.request_with("realm.b.inbox", &headers, b"halo", Duration::from_secs(5));
        let ack = sent.expect("the server answers").expect("b's stream acknowledges");
        serde_json::from_str(&ack.text()).expect("an acknowledgement is JSON")
    };
    assert_eq!(send(&mut a, "1"), json!({ "stream": "REALM_b_INBOX", "seq": 1 }));
    assert_eq!(send(&mut a, "1")["duplicate"], true, "the header goes with it");
    assert_eq!(send(&mut c, "2")["seq"], 2);
    for (from, id) in [("a", "1"), ("a", "1"), ("c", "2")] {
        let message = b.next(Duration::from_secs(5)).expect("the connection is open").expect("it comes");
        assert_eq!(
            (message.subject.clone(), message.header("Nats-Msg-Id")),
            (format!("realm.b.inbox.{from}"), Some(id))
        );
    }
    // What is stored says the same.
    let last = api(&mut b, "STREAM.MSG.GET.REALM_b_INBOX", &json!({ "seq": 2 }));
    assert_eq!(last["message"]["subject"], "realm.b.inbox.c");
}

#[test]
fn a_name_card_is_asked_for_over_the_border() {
    let (_server, _tenants, [mut a, mut b]) = realms(["a", "b"]);
    b.subscribe("realm.b.info").expect("it is written");
    b.flush().expect("the server answers");
    a.subscribe("cards").expect("it is written");
    a.publish_with("realm.b.info", Some("cards"), &[], b"").expect("it is written");
    let asked = b.next(Duration::from_secs(5)).expect("the connection is open").expect("it is asked");
    b.publish(&asked.reply.expect("it says where to answer"), "a card").expect("it is written");
    let card = a.next(Duration::from_secs(5)).expect("the connection is open").expect("it is answered");
    assert_eq!((card.subject.as_str(), card.text().as_str()), ("cards", "a card"));
}

#[test]
fn a_realm_reaches_nothing_else_of_another() {
    let (_server, _tenants, [mut a, mut b, _c]) = realms(["a", "b", "c"]);
    stream(&mut b, "REALM_b_INBOX", &["realm.b.inbox", "realm.b.inbox.*"]);
    stream(&mut b, "REALM_b_MAIL", &["realm.b.mail.>"]);
    stream(&mut b, "KV_REALM_b_sessions", &["$KV.REALM_b_sessions.>"]);
    b.subscribe(">").expect("it is written");
    b.flush().expect("the server answers");
    for subject in [
        "realm.b.inbox.a",
        "realm.b.inbox.c",
        "realm.b.inbox.x.y",
        "realm.b.mail.messi.local",
        "realm.b.outbox.a",
        "realm.b.event",
        "realm.b.live.mail.messi.local",
        "realm.b.info.x",
        "$KV.REALM_b_sessions.x",
        "$JS.ACK.REALM_b_INBOX.c.1.1.1.1.0",
        "$SRV.PING",
    ] {
        let answer = a.request(subject, CANARY).expect("the server answers");
        assert_eq!(answer, None, "{subject}");
    }
    // JetStream's API is that of a's own account, where nothing of this is known.
    for request in [
        "STREAM.INFO.REALM_b_INBOX",
        "STREAM.DELETE.REALM_b_INBOX",
        "STREAM.PURGE.REALM_b_MAIL",
        "STREAM.MSG.GET.REALM_b_MAIL",
        "CONSUMER.DURABLE.CREATE.REALM_b_MAIL.spy",
    ] {
        let body = json!({ "stream_name": "REALM_b_MAIL", "seq": 1, "canary": CANARY,
            "config": { "durable_name": "spy", "deliver_subject": "spy", "ack_policy": "none" } });
        let body = if request.contains("MSG.GET") { json!({ "seq": 1 }) } else { body };
        let body = if request.contains("INFO") || request.contains("DELETE") { Value::Null } else { body };
        let answer = api(&mut a, request, &body);
        assert_ne!(answer["error"], Value::Null, "{request}: {answer}");
    }
    let of_a: Vec<_> = seen(&mut b).into_iter().filter(|(_, text)| text.contains(CANARY)).collect();
    assert_eq!(of_a, [], "b was reached");
}

#[test]
fn a_realm_sees_nothing_of_what_others_say() {
    let (_server, _tenants, [mut a, mut b, mut c]) = realms(["a", "b", "c"]);
    a.subscribe(">").expect("it is written");
    a.flush().expect("the server answers");
    stream(&mut b, "REALM_b_INBOX", &["realm.b.inbox", "realm.b.inbox.*"]);
    stream(&mut b, "REALM_b_MAIL", &["realm.b.mail.>"]);
    for subject in ["realm.b.mail.messi.local", "realm.b.inbox"] {
        assert!(b.request(subject, CANARY).expect("the server answers").is_some(), "b's own stream answers");
    }
    b.publish("realm.b.live.mail.messi.local", CANARY).expect("it is written");
    b.flush().expect("the server answers");
    assert!(c.request("realm.b.inbox", CANARY).expect("the server answers").is_some());
    // The one thing that does come says that a would have seen the others.
    a.publish("marker", "marker").expect("it is written");
    assert_eq!(seen(&mut a), [("marker".to_owned(), "marker".to_owned())]);
}

#[test]
fn the_address_for_the_answer_is_no_way_in() {
    let (_server, _tenants, [mut a, mut b]) = realms(["a", "b"]);
    stream(&mut b, "REALM_b_INBOX", &["realm.b.inbox", "realm.b.inbox.*"]);
    stream(&mut b, "KV_REALM_b_peers", &["$KV.REALM_b_peers.>"]);
    b.subscribe("$KV.REALM_b_peers.>").expect("it is written");
    b.flush().expect("the server answers");
    // Inside one account the acknowledgement would be written over this key.
    a.publish_with("realm.b.inbox", Some("$KV.REALM_b_peers.c"), &[], b"forged").expect("it is written");
    a.publish_with("realm.b.inbox", Some("$JS.API.STREAM.DELETE.REALM_b_INBOX"), &[], b"forged")
        .expect("it is written");
    assert!(a.request("realm.b.inbox", "after").expect("the server answers").is_some());
    assert_eq!(seen(&mut b), [], "an answer was written into b's account");
    let info = api(&mut b, "STREAM.INFO.REALM_b_INBOX", &Value::Null);
    assert_eq!(info["state"]["messages"], 3, "{info}");
}

#[test]
fn only_the_key_of_a_realm_opens_its_account() {
    let (server, tenants, [_, _]) = realms(["a", "b"]);
    let (a, b) = (tenants.key("a"), tenants.key("b"));
    assert!(sign_in(server.addr(), &a.public_key(), &b).is_err(), "b's signature under a's name");
    let stranger = KeyPair::new_user();
    assert!(sign_in(server.addr(), &stranger.public_key(), &stranger).is_err(), "a stranger");
    assert!(Wire::connect(server.addr()).is_err(), "nobody");
    assert!(Wire::connect_as(server.addr(), "a", "a").is_err(), "a password");
    assert!(sign_in(server.addr(), &a.public_key(), &a).is_ok());
}

#[test]
fn an_account_stores_in_files_and_no_more_than_it_may() {
    let (_server, _tenants, [mut a]) = realms(["a"]);
    let create = |a: &mut Wire, config: Value| api(a, "STREAM.CREATE.S", &config);
    let memory = create(&mut a, json!({ "name": "S", "subjects": ["s"], "storage": "memory" }));
    assert_ne!(memory["error"], Value::Null, "{memory}");
    let large = json!({ "name": "S", "subjects": ["s"], "storage": "file", "max_bytes": 2_u64 << 30 });
    let large = create(&mut a, large);
    assert_ne!(large["error"], Value::Null, "{large}");
    stream(&mut a, "S", &["s"]);
}

#[test]
fn realms_with_an_account_each_exchange_messages_and_word_of_them_both_ways() {
    let (nats, tenants, _wires) = realms(["realm1", "realm2"]);
    let keys = Realms::new();
    let [one, two] = ["realm1", "realm2"].map(|realm| {
        let seed = tenants.seed_path(realm);
        keys.edge(realm, &nats.url()).env("BROKER__CREDENTIALS_FILE", seed.display()).start()
    });
    let mut messi = Chat::login(&one, "realm1", "messi");
    let mut lineker = Chat::login(&two, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    // One has made both of them peers: to add it again changes nothing.
    let again = lineker.cmd("addrealm realm1 127.0.0.1 4001");
    assert!(again["status"] == "OK" || again["code"] == "realm-exists", "{again}");
    let reaches = |chat: &mut Chat, id: &str, state: &str| {
        eventually(&format!("{id} is {state}"), || {
            (ok(chat.cmd(&format!("status {id}")))["state"] == state).then_some(())
        });
    };
    for round in 0..3 {
        let there = ok(messi.cmd(&format!("sendprivaterealm realm2 lineker ke sana {round}")));
        let back = ok(lineker.cmd(&format!("sendprivaterealm realm1 messi ke sini {round}")));
        reaches(&mut messi, text(&there, "message_id"), "delivered");
        reaches(&mut lineker, text(&back, "message_id"), "delivered");
        assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), [format!("ke sana {round}")]);
        assert_eq!(texts(&messi.realm_inbox_of("realm2", 1)), [format!("ke sini {round}")]);
        reaches(&mut messi, text(&there, "message_id"), "read");
    }
}
