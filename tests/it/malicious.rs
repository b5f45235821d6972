//! A realm that means harm, with the credentials that every realm gets: it reaches nothing of the others, nobody believes
//! it, and what it sends stands in no one's way.

use std::time::Duration;

use nkeys::KeyPair;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::tenants::base64url;
use crate::harness::wire::Message;
use crate::harness::{Chat, Nats, Realms, Server, Tenants, Wire, eventually, ok, text, texts};

/// How long an answer that must not come is waited for.
const A_MOMENT: Duration = Duration::from_millis(50);
/// What must not be seen by others.
const CANARY: &str = "kenari-4711";
/// Envelopes of the flood.
const FLOOD: usize = 5_000;

/// realm1 and realm2, which know each other, and realm3, which has the worst in mind. Each has its own account.
pub(super) struct Town {
    pub(super) nats: Nats,
    pub(super) tenants: Tenants,
    pub(super) realms: Realms,
    pub(super) one: Server,
    pub(super) two: Server,
    pub(super) messi: Chat,
    pub(super) lineker: Chat,
}

impl Town {
    #[track_caller]
    pub(super) fn start() -> Self {
        let tenants = Tenants::of(&["realm1", "realm2", "realm3"]);
        let nats = Nats::options().config(&tenants.accounts()).start();
        let realms = Realms::new();
        let [one, two] = ["realm1", "realm2"].map(|realm| edge(&realms, &tenants, &nats, realm));
        let mut messi = Chat::login(&one, "realm1", "messi");
        let lineker = Chat::login(&two, "realm2", "lineker");
        ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
        Self { nats, tenants, realms, one, two, messi, lineker }
    }

    #[track_caller]
    pub(super) fn wire(&self, realm: &str) -> Wire {
        self.tenants.wire(self.nats.addr(), realm)
    }

    /// Has realm3 behave at first, so that its key is known: an edge of it, its user henderson, and an envelope of theirs to lineker
    /// as it goes by on `wire`.
    #[track_caller]
    pub(super) fn settle_realm3(&mut self, wire: &mut Wire) -> (Server, Chat, Message) {
        let three = edge(&self.realms, &self.tenants, &self.nats, "realm3");
        let mut pele = Chat::login(&three, "realm3", "henderson");
        for realm in ["realm1", "realm2"] {
            ok(pele.cmd(&format!("addrealm {realm} 127.0.0.1 4001")));
        }
        ok(pele.cmd("sendprivaterealm realm2 lineker halo"));
        assert_eq!(texts(&self.lineker.realm_inbox_of("realm3", 1)), ["halo"]);
        let own = envelope_with(wire, "halo");
        (three, pele, own)
    }

    /// Whoever has realm3's key, and its place on the wire.
    #[track_caller]
    pub(super) fn forger(&self, wire: Wire) -> Forger {
        let seed = self.realms.key_of("realm3");
        Forger { wire, key: KeyPair::from_seed(seed.trim()).expect("a seed") }
    }

    /// Says that messi's words still reach lineker, and that nothing else does.
    #[track_caller]
    pub(super) fn is_at_peace(&mut self) {
        ok(self.messi.cmd("sendprivaterealm realm2 lineker apa kabar"));
        assert_eq!(texts(&self.lineker.realm_inbox_of("realm1", 1)), ["apa kabar"]);
        // The own realm stands for whatever realm it came from.
        assert!(self.lineker.inbox().is_empty() && self.lineker.realm_inbox("realm2").is_empty());
        assert!(self.messi.inbox().is_empty() && self.messi.realm_inbox("realm1").is_empty());
    }

    /// The codes of realm2's dead letters so far.
    #[track_caller]
    pub(super) fn dead(&self) -> Vec<String> {
        let (mut wire, mut from, mut codes) = (self.wire("realm2"), 1, Vec::new());
        loop {
            let wanted = json!({ "seq": from, "next_by_subj": "realm.realm2.dead" });
            let answer = wire.request("$JS.API.DIRECT.GET.REALM_realm2_LOG", wanted.to_string());
            let letter = answer.expect("the line holds").expect("the stream answers");
            if letter.status.starts_with("404") {
                return codes;
            }
            let seq = letter.header("Nats-Sequence").and_then(|seq| seq.parse::<u64>().ok());
            from = seq.expect("a stored message has a sequence") + 1;
            assert!(
                letter.header("Antar-Dead-Reason").is_some_and(|reason| !reason.is_empty()),
                "{letter:?}"
            );
            codes.push(letter.header("Antar-Dead-Code").expect("a dead letter says why").to_owned());
        }
    }
}

#[track_caller]
fn edge(realms: &Realms, tenants: &Tenants, nats: &Nats, realm: &str) -> Server {
    let seed = tenants.seed_path(realm);
    realms.edge(realm, &nats.url()).env("BROKER__CREDENTIALS_FILE", seed.display()).start()
}

/// One request to JetStream.
#[track_caller]
fn api(wire: &mut Wire, request: &str, body: &Value) -> Value {
    let answer = wire.request(&format!("$JS.API.{request}"), body.to_string()).expect("the line holds");
    serde_json::from_str(&answer.expect("JetStream answers").text()).expect("it answers in JSON")
}

/// Names in a list that JetStream gives.
fn names(answer: &Value, list: &str) -> Vec<String> {
    let names = answer[list].as_array().map(Vec::as_slice).unwrap_or_default();
    names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn a_realm_reads_sniffs_acknowledges_purges_and_deletes_nothing_of_another() {
    let mut town = Town::start();
    let (mut mallory, mut owner) = (town.wire("realm3"), town.wire("realm2"));
    mallory.subscribe(">").expect("the line holds");
    mallory.flush().expect("the line holds");
    ok(town.messi.cmd(&format!("sendprivaterealm realm2 lineker {CANARY} satu")));
    assert_eq!(town.lineker.realm_inbox_of("realm1", 1).len(), 1);
    ok(town.messi.cmd(&format!("sendprivaterealm realm2 henderson {CANARY} dua")));

    let streams = names(&api(&mut owner, "STREAM.NAMES", &json!({})), "streams");
    assert!(streams.iter().any(|name| name == "REALM_realm2_INBOX"), "{streams:?}");
    for stream in &streams {
        let mut asked: Vec<(String, Value)> = ["INFO", "DELETE", "PURGE", "SNAPSHOT", "LEADER.STEPDOWN"]
            .map(|verb| (format!("STREAM.{verb}.{stream}"), json!({ "deliver_subject": "spy" })))
            .into();
        let own = json!({ "name": stream, "subjects": ["x"], "storage": "file", "sealed": true });
        let spy = json!({ "stream_name": stream, "config": { "durable_name": "spy", "deliver_subject": "spy",
            "ack_policy": "none", "deliver_policy": "all" } });
        asked.push((format!("STREAM.UPDATE.{stream}"), own));
        asked.push((format!("STREAM.MSG.GET.{stream}"), json!({ "seq": 1 })));
        asked.push((format!("STREAM.MSG.DELETE.{stream}"), json!({ "seq": 1 })));
        asked.push((format!("CONSUMER.LIST.{stream}"), json!({})));
        asked.push((format!("CONSUMER.DURABLE.CREATE.{stream}.spy"), spy.clone()));
        asked.push((format!("CONSUMER.CREATE.{stream}.spy"), spy));
        let list = api(&mut owner, &format!("CONSUMER.NAMES.{stream}"), &json!({}));
        // Work is shared out by keys of a bucket; should there be consumers, they are tried too.
        for consumer in names(&list, "consumers").into_iter().chain(["DELIVERY_realm2".to_owned()]) {
            asked.push((format!("CONSUMER.DELETE.{stream}.{consumer}"), Value::Null));
            let until = json!({ "pause_until": "2099-01-01T00:00:00Z" });
            asked.push((format!("CONSUMER.PAUSE.{stream}.{consumer}"), until));
            let ack = format!("$JS.ACK.{stream}.{consumer}.1.1.1.1.0");
            mallory.publish(&ack, "+ACK").expect("the line holds");
            let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
            let got = mallory.request_with(&next, &[], b"{\"batch\":1,\"no_wait\":true}", A_MOMENT);
            assert_eq!(got.expect("the line holds"), None, "{next}");
        }
        for (request, body) in asked {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let answer = mallory.request_with(
                &format!("$JS.API.{request}"),
                &[],
                body.as_bytes(),
                Duration::from_secs(2),
            );
            let said = answer.expect("the line holds").map(|answer| answer.text()).unwrap_or_default();
            assert!(said.is_empty() || said.contains("\"error\""), "{request}: {said}");
        }
        let direct = format!("$JS.API.DIRECT.GET.{stream}");
        let got = mallory.request_with(&direct, &[], b"{\"seq\":1}", A_MOMENT).expect("the line holds");
        assert!(got.is_none_or(|got| got.payload.is_empty()), "{direct}");
    }
    for subject in [
        "realm.realm2.mail.lineker.realm1",
        "realm.realm2.outbox.realm1",
        "realm.realm2.event",
        "realm.realm2.dead",
        "realm.realm2.inbox.realm1",
        "realm.realm2.live.mail.lineker.realm1",
        "$KV.REALM_realm2_sessions.x",
        "$KV.REALM_realm2_peers.realm1",
        "$KV.REALM_realm2_settings.paused",
        "$KV.antar_queues.DELIVERY_realm2",
        "$KV.antar_queues.DELIVERY_realm2FROMrealm1",
    ] {
        for header in [("Nats-Rollup", "all"), ("KV-Operation", "PURGE"), ("Nats-Msg-Id", "x")] {
            let got = mallory.request_with(subject, &[header], CANARY.as_bytes(), A_MOMENT);
            // What answers may be nothing but a stream of its own, and it has none.
            assert_eq!(got.expect("the line holds"), None, "{subject}");
        }
    }
    for stream in &streams {
        let info = api(&mut owner, &format!("STREAM.INFO.{stream}"), &Value::Null);
        assert_eq!(info["error"], Value::Null, "{stream} is gone: {info}");
    }
    // All is there still, for those whom it was for.
    let mut henderson = Chat::login(&town.two, "realm2", "henderson");
    assert_eq!(texts(&henderson.realm_inbox_of("realm1", 1)), [format!("{CANARY} dua")]);
    town.is_at_peace();
    while let Some(seen) = mallory.next(A_MOMENT).expect("the line holds") {
        let of_others = seen.text().contains(CANARY) && !is_own(&seen);
        assert!(!of_others && !seen.text().contains("apa kabar"), "seen: {seen:?}");
    }
}

/// What realm3 has published itself, with one of the headers above.
fn is_own(seen: &Message) -> bool {
    seen.text() == CANARY
}

/// realm3's own key, with which it may sign what it likes.
pub(super) struct Forger {
    pub(super) wire: Wire,
    pub(super) key: KeyPair,
}

impl Forger {
    /// Signs and publishes an envelope into realm2's inbox.
    #[track_caller]
    pub(super) fn post(&mut self, envelope: &Value) {
        let body = envelope.to_string();
        let signature = base64url(&self.key.sign(body.as_bytes()).expect("it has a seed"));
        let key = self.key.public_key();
        self.post_raw(&[("Antar-Key", &key), ("Antar-Signature", &signature)], body.as_bytes());
    }

    /// Publishes bytes with these headers into realm2's inbox, and waits until they are stored.
    #[track_caller]
    fn post_raw(&mut self, headers: &[(&str, &str)], body: &[u8]) {
        let ack = self.wire.request_with("realm.realm2.inbox", headers, body, Duration::from_secs(5));
        let ack = ack.expect("the line holds").expect("realm2's stream answers").text();
        assert!(ack.contains("\"seq\""), "{ack}");
    }
}

/// The signing headers of an envelope that was seen.
fn signed(seen: &Message) -> Vec<(String, String)> {
    let own = seen.headers.iter().filter(|(name, _)| name.starts_with("Antar-"));
    own.cloned().collect()
}

/// The envelope of a message with this text, on its way.
#[track_caller]
fn envelope_with(wire: &mut Wire, wanted: &str) -> Message {
    eventually("the envelope comes by", || {
        let seen = wire.next(Duration::from_secs(1)).expect("the line holds")?;
        (seen.text().contains(wanted) && seen.header("Antar-Signature").is_some()).then_some(seen)
    })
}

#[test]
fn what_is_forged_altered_misdirected_replayed_or_unsigned_is_put_aside_with_a_reason_and_never_shown() {
    let mut town = Town::start();
    let mut wire = town.wire("realm3");
    wire.subscribe("realm.>").expect("the line holds");
    wire.flush().expect("the line holds");
    // First realm3 behaves, so that its key is known and there are envelopes of its own and for it.
    let (mut three, mut pele, own) = town.settle_realm3(&mut wire);
    ok(pele.cmd("sendprivaterealm realm1 messi untuk realm1"));
    assert_eq!(texts(&town.messi.realm_inbox_of("realm3", 1)), ["untuk realm1"]);
    let for_one = envelope_with(&mut wire, "untuk realm1");
    ok(town.messi.cmd("sendprivaterealm realm3 henderson balasan"));
    assert_eq!(texts(&pele.realm_inbox_of("realm1", 1)), ["balasan"]);
    let from_one = envelope_with(&mut wire, "balasan");
    three.sigterm();

    let mut forger = town.forger(wire);
    assert_eq!(town.dead(), [""; 0]);
    let envelope: Value = serde_json::from_slice(&own.payload).expect("an envelope is JSON");
    let headers = signed(&own);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();

    // The same again, a hundred times: dropped without a word, since it was delivered.
    (0..100).for_each(|_| forger.post_raw(&headers, &own.payload));
    // Altered under its old signature; without one; with one of somebody unknown.
    let altered = own.text().replace("halo", "kata palsu");
    forger.post_raw(&headers, altered.as_bytes());
    forger.post_raw(&[], altered.as_bytes());
    let stranger = KeyPair::new_user();
    let by_stranger = base64url(&stranger.sign(altered.as_bytes()).expect("it has a seed"));
    let key = stranger.public_key();
    forger.post_raw(&[("Antar-Key", &key), ("Antar-Signature", &by_stranger)], altered.as_bytes());
    // In the name of another realm, forged and real.
    let mut forged = envelope.clone();
    forged["origin"] = json!("realm1");
    forged["from"] = json!("messi@realm1");
    forger.post(&forged);
    let stolen = signed(&from_one);
    let stolen: Vec<_> = stolen.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    forger.post_raw(&stolen, &from_one.payload);
    // Its own, for another realm.
    let misdirected = signed(&for_one);
    let misdirected: Vec<_> =
        misdirected.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    forger.post_raw(&misdirected, &for_one.payload);
    // No envelopes at all; one by JetStream itself, which answers wherever it is told to.
    forger.post_raw(&[], b"\xff\xfe\x00");
    forger.post_raw(&[], b"{}");
    forger.wire.publish_with("$JS.API.INFO", Some("realm.realm2.inbox"), &[], b"").expect("the line holds");
    forger.wire.flush().expect("the line holds");
    let before_lane =
        ["bad-signature", "unsigned", "unknown-key", "wrong-origin", "wrong-origin", "wrong-realm"];
    let malformed = ["malformed"; 3];
    let expected: Vec<&str> = before_lane.into_iter().chain(malformed).collect();
    eventually("all of it is put aside", || (town.dead().len() >= expected.len()).then_some(()));
    assert_eq!(town.dead(), expected);

    // Properly signed and in its place in the lane, but with somebody else's user, or an id that was used before.
    let next = |after: u64, change: &dyn Fn(&mut Value)| {
        let mut next = envelope.clone();
        let seq = envelope["lane"]["seq"].as_u64().expect("a place in the lane") + after;
        next["lane"]["prev"] = json!(seq - 1);
        next["lane"]["seq"] = json!(seq);
        next["id"] = json!(Uuid::now_v7());
        change(&mut next);
        next
    };
    forger.post(&next(1, &|next| next["from"] = json!("messi@realm1")));
    forger.post(&next(2, &|next| {
        next["id"] = envelope["id"].clone();
        next["text"] = json!("kata lain");
    }));
    forger.post(&next(3, &|next| next["v"] = json!(99)));
    eventually("these too", || (town.dead().len() >= expected.len() + 3).then_some(()));
    // Which id was used before is known only after a look into the mailbox: that one may come last.
    let mut these = town.dead().split_off(expected.len());
    these.sort_unstable();
    assert_eq!(these, ["foreign-sender", "id-reused", "unknown-version"]);
    town.is_at_peace();
}

#[test]
fn an_id_that_a_realm_guesses_suppresses_nothing() {
    let mut town = Town::start();
    let mut three = edge(&town.realms, &town.tenants, &town.nats, "realm3");
    let mut pele = Chat::login(&three, "realm3", "henderson");
    ok(pele.cmd("addrealm realm2 127.0.0.1 4002"));
    let id = Uuid::now_v7();
    let (tag, shown) = (id.simple().to_string(), id.to_string());
    // The same id through its own edge, and as every header that a broker could take for it.
    ok(pele.cmd(&format!("@{tag} sendprivaterealm realm2 lineker dari realm3")));
    assert_eq!(texts(&town.lineker.realm_inbox_of("realm3", 1)), ["dari realm3"]);
    three.sigterm();
    let mut wire = town.wire("realm3");
    for guess in [&tag, &shown, &format!("{tag}/messi"), &format!("{shown}/messi"), &format!("{tag}/lineker")]
    {
        let ack =
            wire.request_with("realm.realm2.inbox", &[("Nats-Msg-Id", guess)], b"{}", Duration::from_secs(5));
        assert!(ack.expect("the line holds").is_some(), "realm2's stream takes it");
    }
    let sent = ok(town.messi.cmd(&format!("@{tag} sendprivaterealm realm2 lineker dari realm1")));
    assert_eq!(text(&sent, "message_id"), shown);
    assert_eq!(texts(&town.lineker.realm_inbox_of("realm1", 1)), ["dari realm1"]);
    town.is_at_peace();
}

#[test]
fn a_flood_of_one_realm_does_not_stop_the_lanes_of_others() {
    let mut town = Town::start();
    let mut wire = town.wire("realm3");
    let junk = format!("{{\"v\":1,\"id\":\"{}\",\"origin\":\"realm3\",\"dest\":\"realm2\"}}", Uuid::now_v7());
    let flood = std::thread::spawn(move || {
        for _ in 0..FLOOD {
            wire.publish("realm.realm2.inbox", &junk).expect("the line holds");
        }
        wire.flush().expect("the line holds");
    });
    for n in 0..100 {
        ok(town.messi.cmd(&format!("sendprivaterealm realm2 lineker {n}")));
    }
    let read = town.lineker.realm_inbox_of("realm1", 100);
    assert_eq!(texts(&read), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    flood.join().expect("the flood is over");
    // Local chat does not notice either.
    let mut henderson = Chat::login(&town.one, "realm1", "henderson");
    ok(henderson.cmd("send messi halo"));
    assert_eq!(texts(&town.messi.inbox()), ["halo"]);
    town.is_at_peace();
}
