//! What proves where an envelope comes from, and what becomes of one that nothing proves.

#![expect(clippy::unwrap_used, reason = "a test that meets an error is over")]

mod pair;

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use antar_broker::{
    Append, Bucket, EntryId, Expect, Filter, Headers, ReadFrom, ReadLimit, Seq, Settings, SharedBroker,
    Subject,
};
use antar_proto::MessageId;
use antar_proto::command::Receiver;
use antar_proto::reply::{Event, State};
use antar_realm::admin::{AdminReply, AdminRequest, PeerInfo};
use antar_realm::key::RealmKey;
use antar_realm::{AddRealmError, KeyError, Provision, Realm, RealmConfig, Send, SendError, StartError};
use pair::{Pair, SOON, pair, realm, start_realm, user};
use serde_json::{Value, json};

/// The envelope that would be next in the lane, with another id.
fn next(first: &Value) -> Value {
    let mut next = first.clone();
    let last = first["lane"]["seq"].as_u64().unwrap();
    next["id"] = MessageId::fresh().to_string().into();
    next["lane"]["prev"] = last.into();
    next["lane"]["seq"] = 1_000_000_000_u64.into();
    next["text"] = "palsu".into();
    next
}

fn bytes(envelope: &Value) -> Vec<u8> {
    serde_json::to_vec(envelope).unwrap()
}

fn codes(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["code"].as_str().unwrap()).collect()
}

async fn peer_of(realm: &Realm, id: &str) -> PeerInfo {
    realm.peers().await.unwrap().into_iter().find(|peer| peer.realm == id).unwrap()
}

/// Waits until a realm sees a peer so.
async fn until_peer(realm: &Realm, id: &str, so: impl Fn(&PeerInfo) -> bool) -> PeerInfo {
    let seen = async {
        loop {
            let peer = peer_of(realm, id).await;
            if so(&peer) {
                return peer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, seen).await.expect("the peer is seen so")
}

/// What was told to messi about a message, as a notice.
async fn notice(pair: &Pair, about: MessageId) -> String {
    let mut feed = pair.one.watch(&user("messi")).await.unwrap();
    loop {
        let step = tokio::time::timeout(SOON, feed.next()).await.expect("a notice comes").unwrap();
        for event in step.events.into_iter().map(antar_realm::Pushed::into_event) {
            if let Event::Message { message, .. } = event
                && message.about == Some(about)
            {
                return message.msg;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_envelope_is_put_aside_and_neither_shown_nor_answered_nor_in_the_way() {
    let pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let (key, stranger) = (pair.key("realm1"), RealmKey::fresh().0);
    let envelope = next(&pair.envelope().await);
    let good = bytes(&envelope);
    let with = |field: &str, value: Value| {
        let mut other = envelope.clone();
        other[field] = value;
        bytes(&other)
    };
    let header = |by: &RealmKey, signature: String| -> Headers {
        vec![("Antar-Key".into(), by.public().to_string()), ("Antar-Signature".into(), signature)]
    };
    let mut cases: Vec<(Headers, Vec<u8>, &str)> = vec![
        (Vec::new(), good.clone(), "unsigned"),
        (header(&key, key.sign(&good))[..1].to_vec(), good.clone(), "unsigned"),
        ([key.headers(&good), key.headers(&good)].concat(), good.clone(), "unsigned"),
        (stranger.headers(&good), good.clone(), "unknown-key"),
        (header(&key, stranger.sign(&good)), good.clone(), "bad-signature"),
        (header(&key, String::new()), good.clone(), "bad-signature"),
        (key.headers(&good), with("text", "palsu!".into()), "bad-signature"),
        (key.headers(&good), with("from", "lineker@realm1".into()), "bad-signature"),
    ];
    let mut flipped = key.sign(&good).into_bytes();
    flipped[10] = if flipped[10] == b'A' { b'B' } else { b'A' };
    cases.push((header(&key, String::from_utf8(flipped).unwrap()), good.clone(), "bad-signature"));
    let at = good.windows(5).position(|part| part == b"palsu").unwrap();
    let mut other = good.clone();
    other[at] ^= 1;
    cases.push((key.headers(&good), other, "bad-signature"));
    let for_another = with("dest", "realm3".into());
    cases.push((key.headers(&for_another), for_another, "wrong-realm"));
    let of_nobody = with("origin", "realm9".into());
    cases.push((key.headers(&of_nobody), of_nobody, "unknown-origin"));
    let of_ourselves = with("origin", "realm2".into());
    cases.push((pair.key("realm2").headers(&of_ourselves), of_ourselves, "unknown-origin"));
    cases.push((key.headers(b"halo"), b"halo".to_vec(), "malformed"));
    for (headers, body, _) in &cases {
        pair.post_with(headers.clone(), body.clone()).await;
    }
    let second = pair.send("two").await;
    assert_eq!(pair.received(1).await, ["two"], "the next good one is delivered, and nothing else was");
    let expected: Vec<_> = cases.iter().map(|(.., code)| *code).collect();
    assert_eq!(codes(&pair.dead(expected.len()).await), expected);
    let outbox = Filter::new("realm.realm2.outbox.realm1").unwrap();
    let (mut receipts, mut told) = (pair.broker.tail(&outbox, Seq::ZERO).await.unwrap(), String::new());
    while !told.contains(&second.to_string()) {
        let batch = tokio::time::timeout(SOON, receipts.next_batch(ReadLimit::entries(100))).await;
        let entries = batch.expect("a receipt comes").unwrap();
        told.extend(entries.iter().map(|entry| String::from_utf8_lossy(&entry.body).into_owned()));
    }
    assert!(!told.contains(envelope["id"].as_str().unwrap()), "realm1 is told nothing of what it never sent");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_again_with_another_text_is_put_aside() {
    let pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let outbox = Subject::new("realm.realm1.outbox.realm2").unwrap();
    let filter = Filter::from(&outbox);
    let page = pair.broker.read(&filter, ReadFrom::After(Seq::ZERO), ReadLimit::entries(1)).await.unwrap();
    let other = String::from_utf8_lossy(&page.entries[0].body).replace("\"one\"", "\"eins\"");
    pair.broker.append(Append::new(outbox, EntryId::unique(), other)).await.unwrap().await.unwrap();
    pair.send("two").await;
    assert_eq!(pair.received(1).await, ["two"]);
    assert_eq!(codes(&pair.dead(1).await), ["id-reused"]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_realm_is_told_so_and_nothing_can_be_sent_to_it() {
    let pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let block = |blocked| AdminRequest::RealmBlock { realm: "realm1".into(), blocked };
    assert_eq!(pair.two.admin(block(true)).await, AdminReply::Done);
    assert!(peer_of(&pair.two, "realm1").await.blocked);
    let id = pair.send("unwanted").await;
    assert_eq!(notice(&pair, id).await, "Realm Diblokir");
    assert_eq!(pair.one.status(&user("messi"), id).await.unwrap().unwrap().state, State::Failed);
    assert_eq!(codes(&pair.dead(1).await), ["realm-blocked"]);
    let (to, there) = (Receiver::User(user("messi")), realm("realm1"));
    let sent = pair.two.send(&user("lineker"), Send::RealmOne(&there, &to), "x", MessageId::fresh()).await;
    assert_eq!(sent.err(), Some(SendError::RealmBlocked));
    let added = pair.two.add_realm(&user("lineker"), &there, "127.0.0.1", 4001).await;
    assert!(matches!(added, Err(AddRealmError::Blocked(_))), "{added:?}");
    assert_eq!(pair.two.admin(block(false)).await, AdminReply::Done);
    pair.send("two").await;
    assert_eq!(pair.received(1).await, ["two"], "and what was refused does not come any more");
    let stranger = AdminRequest::RealmBlock { realm: "realm9".into(), blocked: true };
    assert!(
        matches!(pair.two.admin(stranger).await, AdminReply::Refused { code, .. } if code == "no-such-realm")
    );
    pair.stop().await;
}

/// Gives realm1 a new key, as if its operators had lost the old one.
async fn new_key(pair: &mut Pair) {
    pair.one.stop().await;
    std::fs::remove_file(pair.key_file("realm1")).unwrap();
    let settings = Bucket::new("REALM_realm1_settings").unwrap();
    pair.broker.kv_delete(&settings, "key", Expect::Any).await.unwrap();
    pair.one = start_realm(&pair.broker, "realm1", pair.key_file("realm1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_is_refused_until_it_is_trusted_and_nothing_is_lost() {
    let mut pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let old = pair.key("realm1").public().to_string();
    let first = pair.envelope().await;
    new_key(&mut pair).await;
    let new = pair.key("realm1").public().to_string();
    assert_ne!(old, new);
    pair.send("two").await;
    // Neither side sends: realm1 is told that its key is not trusted, realm2 does not know who has it.
    let waiting = until_peer(&pair.one, "realm2", |peer| peer.state == "waiting").await;
    assert!(waiting.last_error.unwrap().contains("another key"));
    let seen = until_peer(&pair.two, "realm1", |peer| peer.offered.is_some()).await;
    assert_eq!((seen.key, seen.offered), (Some(old.clone()), Some(new.clone())));
    let added = pair.two.add_realm(&user("lineker"), &realm("realm1"), "127.0.0.1", 4001).await;
    let Err(AddRealmError::KeyChanged(why)) = added else { panic!("{added:?}") };
    assert!(why.contains(&old) && why.contains(&new), "{why}");
    pair.post(bytes(&next(&first))).await;
    assert_eq!(codes(&pair.dead(1).await), ["key-changed"]);
    let (to, there) = (Receiver::User(user("messi")), realm("realm1"));
    let sent = pair.two.send(&user("lineker"), Send::RealmOne(&there, &to), "hai", MessageId::fresh()).await;
    sent.unwrap().await.unwrap();
    until_peer(&pair.two, "realm1", |peer| peer.state == "waiting" && peer.queued > 0).await;

    let trust =
        |key: Option<&str>| AdminRequest::RealmTrust { realm: "realm1".into(), key: key.map(Into::into) };
    assert!(matches!(pair.two.admin(trust(Some("U"))).await, AdminReply::Refused { .. }));
    assert_eq!(pair.two.admin(trust(None)).await, AdminReply::Trusted { key: new.clone() });
    assert_eq!(pair.received(1).await, ["two"]);
    let mut feed = pair.one.watch(&user("messi")).await.unwrap();
    let came = async {
        loop {
            let step = feed.next().await.unwrap();
            let mut events = step.events.into_iter().map(antar_realm::Pushed::into_event);
            if events.any(|event| matches!(event, Event::Message { message, .. } if message.msg == "hai")) {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, came).await.expect("what waited at realm2 comes");
    let seen = peer_of(&pair.two, "realm1").await;
    assert_eq!((seen.key, seen.offered), (Some(new), None));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_too_early_under_a_new_key_is_not_in_the_way_of_what_comes_after_it_is_trusted() {
    let mut pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let first = pair.envelope().await;
    new_key(&mut pair).await;
    // As a lane that asks nobody: it goes on, and what it has sent is put aside.
    let place = |envelope: &mut Value, prev: u64, seq: u64| {
        envelope["lane"]["prev"] = prev.into();
        envelope["lane"]["seq"] = seq.into();
    };
    let (mut early, mut late) = (next(&first), next(&first));
    place(&mut early, first["lane"]["seq"].as_u64().unwrap(), 500_000);
    place(&mut late, 500_000, 500_001);
    late["text"] = "late".into();
    pair.post(bytes(&early)).await;
    assert_eq!(codes(&pair.dead(1).await), ["unknown-key"]);
    let key = pair.key("realm1").public().to_string();
    let trust = AdminRequest::RealmTrust { realm: "realm1".into(), key: Some(key.clone()) };
    assert_eq!(pair.two.admin(trust).await, AdminReply::Trusted { key });
    pair.post(bytes(&late)).await;
    assert_eq!(pair.received(1).await, ["late"]);
    // From there on it is a lane again.
    place(&mut late, 600_000, 600_001);
    late["id"] = MessageId::fresh().to_string().into();
    pair.post(bytes(&late)).await;
    assert_eq!(codes(&pair.dead(2).await), ["unknown-key", "lane-gap"]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_is_not_believed_for_the_key_that_it_names() {
    let pair = pair().await;
    let pinned = peer_of(&pair.two, "realm1").await.key.unwrap();
    assert_eq!(pinned, pair.key("realm1").public().as_str());
    let stranger = RealmKey::fresh().0;
    let info = Subject::new("realm.realm2.info").unwrap();
    for (from, refused) in [("realm1", "key-changed"), ("realm3", "no-card")] {
        let hello = json!({"op": "hello", "from": from, "key": stranger.public()});
        let reply = pair.broker.request(&info, bytes(&hello).into(), SOON).await.unwrap();
        let card: Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!(card["refused"], refused, "{card}");
        assert_eq!(card["key"], pair.key("realm2").public().as_str());
    }
    let peers = pair.two.peers().await.unwrap();
    assert_eq!(peers.len(), 1, "realm3 has no card, so it is no peer");
    assert_eq!((&peers[0].key, &peers[0].offered), (&Some(pinned), &None));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_realms_that_add_each_other_at_once_both_succeed() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(&dir).await;
        let one = start_realm(&broker, "realm1", dir.path().join("1.nk")).await;
        let two = start_realm(&broker, "realm2", dir.path().join("2.nk")).await;
        let (messi, lineker) = (user("messi"), user("lineker"));
        let (id_one, id_two) = (realm("realm1"), realm("realm2"));
        let began = std::time::Instant::now();
        let (here, there) = tokio::join!(
            one.add_realm(&messi, &id_two, "127.0.0.1", 4002),
            two.add_realm(&lineker, &id_one, "127.0.0.1", 4001)
        );
        assert_eq!((here, there), (Ok(()), Ok(())));
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "nobody waited for the other: {:?}",
            began.elapsed()
        );
        one.stop().await;
        two.stop().await;
        broker.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_a_version_without_keys_is_pinned_by_its_first_card() {
    let mut pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    pair.one.stop().await;
    pair.two.stop().await;
    for (bucket, peer) in [("REALM_realm1_peers", "realm2"), ("REALM_realm2_peers", "realm1")] {
        let bucket = Bucket::new(bucket).unwrap();
        let kept = pair.broker.kv_get(&bucket, peer).await.unwrap().unwrap();
        let mut old: Value = serde_json::from_slice(&kept.value).unwrap();
        for field in ["key", "offered", "blocked", "trusted_at", "told"] {
            old.as_object_mut().unwrap().remove(field).unwrap();
        }
        pair.broker.kv_put(&bucket, peer, bytes(&old).into(), Expect::Any, None).await.unwrap();
    }
    pair.one = start_realm(&pair.broker, "realm1", pair.key_file("realm1")).await;
    pair.two = start_realm(&pair.broker, "realm2", pair.key_file("realm2")).await;
    pair.send("two").await;
    assert_eq!(pair.received(1).await, ["two"]);
    assert_eq!(peer_of(&pair.two, "realm1").await.key.unwrap(), pair.key("realm1").public().as_str());
    pair.stop().await;
}

async fn open(dir: &tempfile::TempDir) -> SharedBroker {
    antar_broker::open(&Settings::new(format!("sqlite:{}", dir.path().join("a.db").display()))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_edges_of_a_realm_have_one_key_and_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(&dir).await;
    let file = dir.path().join("keys/kampus.nk");
    let config = RealmConfig { key_file: Some(file.clone()), ..RealmConfig::new(realm("kampus")) };
    let never = RealmConfig { provision: Provision::Never, ..config.clone() };
    let refused = Realm::init(&broker, &never).await;
    assert!(matches!(refused, Err(StartError::Missing { .. })), "{refused:?}");
    assert!(!Realm::exists(&broker, &realm("kampus")).await.unwrap());

    let made = Realm::init(&broker, &config).await.unwrap();
    assert!(made.is_key_new && made.names.len() >= 3, "{made:?}");
    assert!(Realm::exists(&broker, &realm("kampus")).await.unwrap());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let files = std::fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "no draft is left");
    let again = Realm::init(&broker, &never).await.unwrap();
    assert!(!again.is_key_new && again.names.is_empty() && again.key == made.key, "{again:?}");

    // An edge with a copy of the file is one of the realm's; one without it, or with another, is not.
    let copy = dir.path().join("copy.nk");
    std::fs::copy(&file, &copy).unwrap();
    let with = |path: &std::path::Path| RealmConfig { key_file: Some(path.to_owned()), ..config.clone() };
    Realm::init(&broker, &with(&copy)).await.unwrap();
    let absent = dir.path().join("absent.nk");
    let refused = Realm::init(&broker, &with(&absent)).await.unwrap_err();
    assert!(matches!(&refused, StartError::Key(KeyError::NotHere { kept, .. }) if kept.as_str() == made.key));
    assert!(refused.to_string().contains("copy it from an edge"), "{refused}");
    assert!(!absent.exists(), "no key was invented");
    std::fs::write(&copy, format!("{}\n", *RealmKey::fresh().1)).unwrap();
    let refused = Realm::init(&broker, &with(&copy)).await.unwrap_err();
    assert!(matches!(&refused, StartError::Key(KeyError::Other { kept, .. }) if kept.as_str() == made.key));

    for (text, mode) in [("", 0o600), ("SUhalo", 0o600)] {
        std::fs::write(&copy, text).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = Realm::init(&broker, &with(&copy)).await.unwrap_err();
        assert!(matches!(refused, StartError::Key(KeyError::File { .. })), "{refused}");
    }
    for mode in [0o640, 0o604, 0o660] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = Realm::init(&broker, &config).await.unwrap_err();
        assert!(matches!(refused, StartError::Key(KeyError::Exposed { .. })), "{refused}");
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_that_start_at_once_with_one_file_make_one_key() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(&dir).await;
        let file = dir.path().join("kampus.nk");
        let config = RealmConfig { key_file: Some(file), ..RealmConfig::new(realm("kampus")) };
        let (a, b) = tokio::join!(
            tokio::spawn({
                let (broker, config) = (broker.clone(), config.clone());
                async move { Realm::init(&broker, &config).await }
            }),
            tokio::spawn({
                let (broker, config) = (broker.clone(), config.clone());
                async move { Realm::init(&broker, &config).await }
            }),
        );
        let (a, b) = (a.unwrap().unwrap(), b.unwrap().unwrap());
        assert_eq!(a.key, b.key);
        broker.close().await;
    }
}
