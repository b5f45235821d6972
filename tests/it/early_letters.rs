//! What was published to a realm before it knew who had signed it, by whoever can reach its broker. (There is no way past a
//! realm into its file, so this is tested on NATS; what is done about it is tested on the realm itself, too.)

use nkeys::KeyPair;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::tenants::base64url;
use crate::harness::{Chat, Federation, Output, PATIENCE, Server, Wire, antar, eventually, ok, text, texts};

/// Runs `antar dead … --realm realm2` for an operator of this server.
fn dead(server: &Server, args: &[&str]) -> Output {
    let operator = server.operator();
    let realm = ["--realm", "realm2"];
    antar(["dead"].iter().chain(args).chain(&realm).copied().chain(operator.iter().map(String::as_str)))
}

fn listed(server: &Server) -> Vec<Value> {
    dead(server, &["list", "--json"]).exits(0).json_lines()
}

/// realm2 on NATS, and a line to the server: whoever may publish there can say anything.
struct Open {
    town: Federation,
    two: Server,
    lineker: Chat,
    wire: Wire,
}

impl Open {
    fn start() -> Self {
        let town = Federation::start();
        let two = town.edge("realm2");
        let lineker = Chat::login(&two, "realm2", "lineker");
        let wire = Wire::connect(town.nats.addr()).expect("the server listens");
        Self { town, two, lineker, wire }
    }

    /// Publishes an envelope of realm1 to lineker, signed by this key.
    fn post(&mut self, key: &KeyPair, id: Uuid, seq: u64) {
        let body = json!({"v": 1, "id": id, "origin": "realm1", "dest": "realm2", "sent_at": "2026-01-01T00:00:00Z",
            "lane": {"epoch": 1, "seq": seq, "prev": seq - 1, "attempt": 0}, "kind": "message",
            "from": "messi@realm1", "name": "Lionel Messi", "to": ["lineker"], "text": format!("pesan {seq}")})
        .to_string();
        let signature = base64url(&key.sign(body.as_bytes()).expect("it has a seed"));
        self.post_raw(&[("Antar-Key", &key.public_key()), ("Antar-Signature", &signature)], body.as_bytes());
    }

    fn post_raw(&mut self, headers: &[(&str, &str)], body: &[u8]) {
        let ack = self.wire.request_with("realm.realm2.inbox", headers, body, PATIENCE);
        assert!(ack.expect("the line holds").is_some_and(|ack| ack.text().contains("\"seq\"")));
    }
}

#[test]
fn what_came_before_its_realm_was_known_is_redriven_when_its_key_is_trusted() {
    let mut open = Open::start();
    let (key, id) = (KeyPair::new_user(), Uuid::now_v7());
    open.post(&key, id, 1);
    open.post_raw(&[("Antar-Key", "x")], b"\xff\xfe\x00");
    eventually("both are put aside", || (listed(&open.two).len() == 2).then_some(()));
    let letters = listed(&open.two);
    assert_eq!((text(&letters[0], "code"), text(&letters[1], "code")), ("malformed", "unknown-origin"));
    let (bad, early) = (letters[0]["letter"].to_string(), letters[1]["letter"].to_string());
    let shown = dead(&open.two, &["show", &bad, "--json"]).exits(0).json_lines().remove(0);
    assert_eq!((&shown["body"], text(&shown, "body_base64")), (&Value::Null, "//4A"));
    dead(&open.two, &["redrive", &bad]).exits(5);
    assert!(dead(&open.two, &["redrive", &early]).exits(5).stderr.contains("unknown-origin"));
    let mut one = open.town.edge("realm1");
    ok(Chat::login(&one, "realm1", "messi").ask("addrealm realm2 127.0.0.1 4002"));
    one.sigterm();
    assert!(dead(&open.two, &["redrive", &early]).exits(5).stderr.contains("unknown-key"));
    open.two.operate(&["realm", "trust", "realm2", "realm1", "--key", &key.public_key()]);
    dead(&open.two, &["redrive", &early]).exits(0);
    dead(&open.two, &["redrive", &early]).exits(0);
    assert_eq!(texts(&open.lineker.realm_inbox_of("realm1", 1)), ["pesan 1"]);
    // What comes in its lane after that is delivered, and the same message again is not.
    open.post(&key, id, 1);
    open.post(&key, Uuid::now_v7(), 2);
    assert_eq!(texts(&open.lineker.realm_inbox_of("realm1", 1)), ["pesan 2"]);
}

#[test]
fn a_realm_of_an_earlier_version_gets_the_bucket_of_letters_and_none_that_was_lost() {
    let town = Federation::start();
    let mut two = town.edge("realm2");
    let mut wire = Wire::connect(town.nats.addr()).expect("the server listens");
    let mut delete = |bucket: &str| {
        let request = format!("$JS.API.STREAM.DELETE.KV_REALM_realm2_{bucket}");
        let answer = wire.request(&request, "").expect("the line holds").expect("JetStream answers");
        assert!(answer.text().contains("\"success\":true"), "{answer:?}");
    };
    let edge = || town.realms.edge("realm2", &town.nats.url());
    two.sigterm();
    delete("dead");
    let (code, said) = edge().env("BROKER__PROVISION", "false").start_refused();
    assert!(code == Some(1) && said.contains("antar realm init"), "{code:?} {said}");
    two.start();
    assert!(listed(&two).is_empty());
    two.sigterm();
    delete("lanes");
    let (code, said) = edge().start_refused();
    assert!(code == Some(1) && said.contains("they were lost"), "{code:?} {said}");
}
