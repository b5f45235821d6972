//! The inboxes of a realm: the plain one, and one for each peer, where the broker puts what this peer publishes.

#![expect(clippy::unwrap_used, reason = "a test that meets an error is over")]

mod pair;

use std::path::PathBuf;
use std::time::Duration;

use antar_broker::{Append, EntryId, Filter, QueueName, ReadLimit, Seq, Settings, SharedBroker, Subject};
use antar_proto::MessageId;
use antar_proto::envelope::{Content, Envelope};
use antar_proto::reply::{Event, State};
use antar_realm::Realm;
use antar_realm::admin::{AdminReply, AdminRequest};
use antar_realm::key::RealmKey;
use pair::{Pair, SOON, pair, realm, start_realm, user};
use serde_json::{Value, json};

/// The plain inbox, and those of realm1 and realm3.
const PLAIN: &str = "realm.realm2.inbox";
const OF_ONE: &str = "realm.realm2.inbox.realm1";
const OF_THREE: &str = "realm.realm2.inbox.realm3";

/// The envelope at a place in the lane from `origin` to realm2.
fn envelope(origin: &str, seq: u64, prev: u64, text: &str) -> Vec<u8> {
    let envelope = json!({
        "v": 1, "id": MessageId::fresh().to_string(), "origin": origin, "dest": "realm2",
        "sent_at": "2026-11-21T23:42:12.875597Z",
        "lane": { "epoch": 1_795_304_532_874_925_u64, "seq": seq, "prev": prev, "attempt": 1 },
        "kind": "message", "from": format!("messi@{origin}"), "name": "Messi", "to": ["lineker"], "text": text,
    });
    serde_json::to_vec(&envelope).unwrap()
}

/// Puts an envelope there, signed by its realm, as a lane of that realm does.
async fn post(broker: &SharedBroker, key: &RealmKey, subject: &str, bytes: Vec<u8>) {
    let headers = key.headers(&bytes);
    let append = Append { headers, ..Append::new(Subject::new(subject).unwrap(), EntryId::unique(), bytes) };
    broker.append(append).await.unwrap().await.unwrap();
}

/// What lineker has on realm2 when `last` is there.
async fn received_until(two: &Realm, last: &str) -> Vec<String> {
    let mut feed = two.watch(&user("lineker")).await.unwrap();
    let mut texts: Vec<String> = Vec::new();
    while !texts.iter().any(|text| text == last) {
        let step = tokio::time::timeout(SOON, feed.next()).await.expect("messages come").unwrap();
        texts.extend(step.events.into_iter().map(antar_realm::Pushed::into_event).filter_map(|event| {
            match event {
                Event::Message { message, .. } => Some(message.msg),
                _ => None,
            }
        }));
    }
    texts
}

/// The entries of a subject.
async fn count(broker: &SharedBroker, subject: &str) -> u64 {
    broker.count(&Subject::new(subject).unwrap()).await.unwrap()
}

/// Makes realm3 a peer of realm2.
async fn add_three(pair: &Pair) -> RealmKey {
    let three = start_realm(&pair.broker, "realm3", pair.key_file("realm3")).await;
    three.add_realm(&user("messi"), &realm("realm2"), "127.0.0.1", 4002).await.unwrap();
    three.stop().await;
    pair.key("realm3")
}

/// Two realms that know each other; realm1 has no edge any more, so nobody but the test publishes under its key.
async fn pair_without_one() -> Pair {
    let pair = pair().await;
    pair.one.stop().await;
    pair
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_under_its_realms_name_is_delivered_and_answered() {
    let pair = pair_without_one().await;
    let first = envelope("realm1", 5, 0, "halo");
    let id = serde_json::from_slice::<Value>(&first).unwrap()["id"].clone();
    post(&pair.broker, &pair.key("realm1"), OF_ONE, first).await;
    assert_eq!(received_until(&pair.two, "halo").await, ["halo"]);
    let outbox = Filter::new("realm.realm2.outbox.realm1").unwrap();
    let mut tail = pair.broker.tail(&outbox, Seq::ZERO).await.unwrap();
    let batch = tokio::time::timeout(SOON, tail.next_batch(ReadLimit::entries(1))).await;
    let entries = batch.expect("a receipt comes").unwrap();
    let Content::Receipt { results } = Envelope::from_bytes(&entries[0].body).unwrap().content else {
        panic!("another kind of envelope");
    };
    assert_eq!((json!(results[0].id), results[0].state), (id, State::Delivered));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_of_another_realm_under_a_peers_name_is_put_aside_and_takes_no_place() {
    let pair = pair_without_one().await;
    let three = add_three(&pair).await;
    // What realm1 publishes under its own name, although realm3 has signed it.
    post(&pair.broker, &three, OF_ONE, envelope("realm3", 5, 0, "palsu")).await;
    let letters = pair.dead(1).await;
    assert_eq!(letters[0]["code"], "wrong-origin");
    assert!(letters[0]["reason"].as_str().unwrap().contains("realm3 but was published by realm1"));
    post(&pair.broker, &three, OF_THREE, envelope("realm3", 5, 0, "benar")).await;
    assert_eq!(received_until(&pair.two, "benar").await, ["benar"]);
    assert_eq!(count(&pair.broker, "realm.realm2.outbox.realm1").await, 0, "nobody was told");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_changes_its_inbox_again_and_again_is_delivered_once_and_in_order() {
    let pair = pair_without_one().await;
    let key = pair.key("realm1");
    let mut texts = Vec::new();
    for seq in 1..=300_u64 {
        let (text, bytes) = (format!("m{seq}"), envelope("realm1", seq, seq - 1, &format!("m{seq}")));
        let subject = if (seq / 25) % 2 == 0 { PLAIN } else { OF_ONE };
        post(&pair.broker, &key, subject, bytes.clone()).await;
        // A lane sends again what it does not know to be stored; meanwhile the operators may have changed its way.
        if seq % 7 == 0 {
            post(&pair.broker, &key, if subject == PLAIN { OF_ONE } else { PLAIN }, bytes).await;
        }
        texts.push(text);
    }
    assert_eq!(received_until(&pair.two, "m300").await, texts);
    post(&pair.broker, &key, PLAIN, envelope("realm1", 301, 300, "last")).await;
    texts.push("last".into());
    assert_eq!(received_until(&pair.two, "last").await, texts, "and nothing twice");
    assert_eq!(count(&pair.broker, "realm.realm2.dead").await, 0, "nothing was taken for a gap");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_one_on_either_inbox_when_nothing_is_left_that_could_fill_it() {
    let pair = pair_without_one().await;
    let key = pair.key("realm1");
    post(&pair.broker, &key, PLAIN, envelope("realm1", 1, 0, "m1")).await;
    assert_eq!(received_until(&pair.two, "m1").await, ["m1"]);
    post(&pair.broker, &key, OF_ONE, envelope("realm1", 9, 8, "m9")).await;
    assert_eq!(pair.dead(1).await[0]["code"], "lane-gap");
    post(&pair.broker, &key, PLAIN, envelope("realm1", 10, 9, "m10")).await;
    assert_eq!(pair.dead(2).await[1]["code"], "lane-gap");
    post(&pair.broker, &key, OF_ONE, envelope("realm1", 2, 1, "m2")).await;
    assert_eq!(received_until(&pair.two, "m2").await, ["m1", "m2"]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_in_before_its_realm_was_a_peer_is_delivered_when_it_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("a.db").display());
    let broker = antar_broker::open(&Settings::new(url)).await.unwrap();
    let file = |id: &str| -> PathBuf { dir.path().join(format!("{id}.nk")) };
    let one = start_realm(&broker, "realm1", file("realm1")).await;
    let two = start_realm(&broker, "realm2", file("realm2")).await;
    let key = RealmKey::from_seed(std::fs::read_to_string(file("realm1")).unwrap().trim()).unwrap();
    post(&broker, &key, OF_ONE, envelope("realm1", 1, 0, "dulu")).await;
    one.add_realm(&user("messi"), &realm("realm2"), "127.0.0.1", 4002).await.unwrap();
    assert_eq!(received_until(&two, "dulu").await, ["dulu"]);
    assert_eq!(count(&broker, "realm.realm2.dead").await, 0);
    one.stop().await;
    two.stop().await;
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_envelopes_are_held_up_delays_no_other() {
    let pair = pair_without_one().await;
    let three = add_three(&pair).await;
    let pause = |paused| pair.two.admin(AdminRequest::Pause { paused });
    assert_eq!(pause(true).await, AdminReply::Done);
    post(&pair.broker, &pair.key("realm1"), OF_ONE, envelope("realm1", 1, 0, "satu")).await;
    // As another edge would that hangs in the middle of its batch.
    let name = QueueName::new("DELIVERY_realm2FROMrealm1").unwrap();
    let queue =
        pair.broker.queue(&name, &Subject::new(OF_ONE).unwrap(), Duration::from_secs(600)).await.unwrap();
    let held =
        tokio::time::timeout(SOON, queue.next(ReadLimit::entries(1))).await.expect("it came in").unwrap();
    assert_eq!(pause(false).await, AdminReply::Done);
    for seq in 1..=50 {
        let bytes = envelope("realm3", seq, seq - 1, &format!("tiga {seq}"));
        post(&pair.broker, &three, OF_THREE, bytes).await;
    }
    let expected: Vec<String> = (1..=50).map(|seq| format!("tiga {seq}")).collect();
    assert_eq!(received_until(&pair.two, "tiga 50").await, expected);
    queue.nak(&held, Duration::ZERO).await.unwrap();
    let all = received_until(&pair.two, "satu").await;
    assert_eq!(all.iter().filter(|text| *text == "satu").count(), 1, "{all:?}");
    pair.stop().await;
}
