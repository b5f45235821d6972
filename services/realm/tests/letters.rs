//! What was put aside, and what operators do with it.

#![expect(clippy::unwrap_used, reason = "a test that meets an error is over")]

mod pair;

use antar_broker::fault::Faulty;
use antar_broker::{Append, Bucket, EntryId, Expect, Filter, KvChange, ReadFrom, ReadLimit, Seq, Subject};
use antar_proto::MessageId;
use antar_proto::reply::State;
use antar_realm::Realm;
use antar_realm::admin::{AdminReply, AdminRequest, LetterInfo, LetterState, LettersWanted};
use antar_realm::key::RealmKey;
use pair::{Pair, SOON, pair, realm, start_realm, user};
use serde_json::{Value, json};

fn bytes(envelope: &Value) -> Vec<u8> {
    serde_json::to_vec(envelope).unwrap()
}

/// An envelope of realm1 that is the `n`th after `last`, the first one being 1.
fn after(last: &Value, n: u64, text: &str) -> Value {
    let (mut envelope, seq) = (last.clone(), last["lane"]["seq"].as_u64().unwrap());
    envelope["id"] = MessageId::fresh().to_string().into();
    envelope["text"] = text.into();
    envelope["lane"]["prev"] = (seq + n - 1).into();
    envelope["lane"]["seq"] = (seq + n).into();
    envelope
}

async fn pair_that_has_met() -> (Pair, Value) {
    let pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let first = pair.envelope().await;
    (pair, first)
}

async fn list(realm: &Realm, wanted: LettersWanted) -> Vec<LetterInfo> {
    let wanted = LettersWanted { limit: 100, ..wanted };
    match realm.admin(AdminRequest::DeadList(wanted)).await {
        AdminReply::Letters { letters, next: None } => letters,
        other => panic!("{other:?}"),
    }
}

async fn open(realm: &Realm) -> Vec<LetterInfo> {
    list(realm, LettersWanted::default()).await
}

async fn redrive(realm: &Realm, letter: u64) -> AdminReply {
    realm.admin(AdminRequest::DeadRedrive { letter, by: "ops@test".into() }).await
}

#[track_caller]
fn code(reply: &AdminReply) -> &str {
    let AdminReply::Refused { code, .. } = reply else { panic!("{reply:?}") };
    code
}

/// Texts in lineker's box from realm1.
async fn delivered(pair: &Pair) -> Vec<String> {
    let mailbox = Filter::new("realm.realm2.mail.lineker.realm1").unwrap();
    let page =
        pair.broker.read(&mailbox, ReadFrom::After(Seq::ZERO), ReadLimit::entries(1000)).await.unwrap();
    let text =
        |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["text"].as_str().unwrap().to_owned();
    page.entries.iter().map(|entry| text(&entry.body)).collect()
}

async fn events(pair: &Pair, kind: &str) -> Vec<Value> {
    let log = Filter::new("realm.realm2.event").unwrap();
    let page = pair.broker.read(&log, ReadFrom::After(Seq::ZERO), ReadLimit::entries(1000)).await.unwrap();
    let all = page.entries.iter().map(|entry| serde_json::from_slice::<Value>(&entry.body).unwrap());
    all.filter(|event| event["event"] == kind).collect()
}

/// realm1's key from now on, as realm2 has to see it.
async fn trust(pair: &Pair, key: &RealmKey) {
    let key = key.public().to_string();
    let trust = AdminRequest::RealmTrust { realm: "realm1".into(), key: Some(key.clone()) };
    assert_eq!(pair.two.admin(trust).await, AdminReply::Trusted { key });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_under_a_key_that_is_trusted_later_is_redriven_once_and_its_sender_told() {
    let (pair, first) = pair_that_has_met().await;
    let key = RealmKey::fresh().0;
    // A bundle, so that all of it stands in one letter; its second line is for nobody.
    let (mut two, mut three) = (after(&first, 1, "two"), after(&first, 2, "three"));
    three["to"] = json!(["pele"]);
    // So that there is somebody to be told of it.
    let id = pair.send("one again").await;
    assert_eq!(pair.received(1).await, ["one again"]);
    two["id"] = json!(id);
    two["from"] = "henderson@realm1".into();
    let body = [bytes(&two), b"\n".to_vec(), bytes(&three)].concat();
    pair.post_with(key.headers(&body), body).await;
    assert_eq!(pair.dead(1).await[0]["code"], "unknown-key");
    let letter = open(&pair.two).await.remove(0);
    assert_eq!(
        (letter.origin.as_deref(), letter.proven, letter.state),
        (Some("realm1"), false, LetterState::Open)
    );
    assert_eq!(letter.ids.len(), 2);
    assert_eq!(code(&redrive(&pair.two, letter.letter).await), "unknown-key");
    assert_eq!(open(&pair.two).await, std::slice::from_ref(&letter), "and it is as it was");

    trust(&pair, &key).await;
    let done = redrive(&pair.two, letter.letter).await;
    assert_eq!(done, AdminReply::Redriven { ids: vec![id.to_string()], already: false });
    assert!(matches!(redrive(&pair.two, letter.letter).await, AdminReply::Redriven { already: true, .. }));
    assert_eq!(delivered(&pair).await, ["one", "one again", "two"]);
    assert!(open(&pair.two).await.is_empty());
    let all = list(&pair.two, LettersWanted { all_states: true, ..LettersWanted::default() }).await;
    assert_eq!((all[0].state, all[0].by.as_deref()), (LetterState::Redriven, Some("ops@test")));
    let noted = events(&pair, "dead-redriven").await;
    assert_eq!(
        (noted.len(), &noted[0]["by"], &noted[0]["letter"]),
        (1, &json!("ops@test"), &json!(letter.letter))
    );
    let outbox = Filter::new("realm.realm2.outbox.realm1").unwrap();
    let page = pair.broker.read(&outbox, ReadFrom::End, ReadLimit::entries(1)).await.unwrap();
    let receipt: Value = serde_json::from_slice(&page.entries[0].body).unwrap();
    assert_eq!(
        receipt["results"],
        json!([{"id": id, "sender": "henderson", "users": ["lineker"], "state": "delivered"}])
    );
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_not_proven_is_redriven() {
    let (pair, first) = pair_that_has_met().await;
    let key = pair.key("realm1");
    let good = bytes(&after(&first, 1, "palsu"));
    let altered = String::from_utf8(good.clone()).unwrap().replace("palsu", "pulsa").into_bytes();
    let mut elsewhere = after(&first, 1, "palsu");
    elsewhere["dest"] = "realm9".into();
    let mut foreign = after(&first, 1, "palsu");
    foreign["from"] = "messi@realm9".into();
    let mut long = key.headers(&good);
    long[0].1 = "U".repeat(2_000);
    let cases = [
        (Vec::new(), good.clone(), "unsigned"),
        (key.headers(&good), altered, "bad-signature"),
        (RealmKey::fresh().0.headers(&good), good.clone(), "unknown-key"),
        (key.headers(&bytes(&elsewhere)), bytes(&elsewhere), "wrong-realm"),
        (key.headers(&bytes(&foreign)), bytes(&foreign), "foreign-sender"),
        ([key.headers(&good), key.headers(&good)].concat(), good.clone(), "unsigned"),
        (key.headers(b"\xff\x00"), b"\xff\x00".to_vec(), "malformed"),
        (long, good.clone(), "incomplete"),
    ];
    for (headers, body, _) in &cases {
        pair.post_with(headers.clone(), body.clone()).await;
    }
    let dead = pair.dead(cases.len()).await;
    for (letter, (.., expected)) in dead.iter().zip(&cases) {
        let letter = letter["letter"].as_u64().unwrap();
        assert_eq!(code(&redrive(&pair.two, letter).await), *expected);
    }
    assert_eq!(open(&pair.two).await.len(), cases.len());
    let AdminReply::Letter { info, headers, part, more } = pair
        .two
        .admin(AdminRequest::DeadShow { letter: dead[1]["letter"].as_u64().unwrap(), offset: 0 })
        .await
    else {
        panic!("it is shown")
    };
    assert_eq!((info.code.as_str(), headers.len(), more), ("bad-signature", 2, false));
    assert_eq!(data_encoding::BASE64.decode(part.as_bytes()).unwrap(), cases[1].1);
    assert_eq!(code(&redrive(&pair.two, 1_000_000).await), "no-such-letter");
    assert_eq!(delivered(&pair).await, ["one"]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_realms_bundle_is_one_letter_and_what_failed_becomes_delivered() {
    let (pair, first) = pair_that_has_met().await;
    let block = |blocked| AdminRequest::RealmBlock { realm: "realm1".into(), blocked };
    assert_eq!(pair.two.admin(block(true)).await, AdminReply::Done);
    let id = pair.send("unwanted").await;
    let until = async |state| {
        let mut feed = pair.one.watch(&user("messi")).await.unwrap();
        while pair.one.status(&user("messi"), id).await.unwrap().unwrap().state != state {
            tokio::time::timeout(SOON, feed.next()).await.expect("news come").unwrap();
        }
    };
    until(State::Failed).await;
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for n in 1..=64_u64 {
        let mut envelope = after(&first, 1, "many");
        envelope["lane"]["epoch"] = (first["lane"]["epoch"].as_u64().unwrap() + 1).into();
        envelope["lane"]["seq"] = n.into();
        envelope["lane"]["prev"] = (n - 1).into();
        lines.push(bytes(&envelope));
    }
    pair.post(lines.join(&b'\n')).await;
    let dead = pair.dead(2).await;
    assert_eq!((&dead[0]["code"], &dead[1]["code"]), (&json!("realm-blocked"), &json!("realm-blocked")));
    let letters: Vec<u64> = dead.iter().map(|letter| letter["letter"].as_u64().unwrap()).collect();
    assert_eq!(code(&redrive(&pair.two, letters[0]).await), "realm-blocked");
    assert_eq!(pair.two.admin(block(false)).await, AdminReply::Done);
    for letter in &letters {
        let done = redrive(&pair.two, *letter).await;
        assert!(matches!(done, AdminReply::Redriven { already: false, .. }), "{done:?}");
    }
    assert_eq!(delivered(&pair).await.len(), 66);
    until(State::Delivered).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edges_that_redrive_at_once_after_a_crash_and_after_the_window_deliver_one_copy() {
    let (pair, first) = pair_that_has_met().await;
    let key = RealmKey::fresh().0;
    let mut envelope = after(&first, 1, "sekali");
    envelope["to"] = json!(["lineker", "henderson"]);
    let body = bytes(&envelope);
    pair.post_with(key.headers(&body), body.clone()).await;
    pair.dead(1).await;
    let letter = open(&pair.two).await[0].letter;
    trust(&pair, &key).await;
    // As a redrive that died after the first mailbox, so long ago that the broker knows no id any more: one has it, and
    // the mark says that somebody has begun.
    let mailbox = Subject::new("realm.realm2.mail.lineker.realm1").unwrap();
    pair.broker.append(Append::new(mailbox, EntryId::unique(), body)).await.unwrap().await.unwrap();
    let (broker, faults) = Faulty::wrap(pair.broker.clone());
    let other = start_realm(&broker, "realm2", pair.key_file("realm2")).await;
    faults.stall_after(1);
    let marks = Bucket::new("REALM_realm2_dead").unwrap();
    let mut watch = pair.broker.kv_watch(&marks).await.unwrap();
    let began = {
        let dies = redrive(&other, letter);
        let marked = async {
            loop {
                if let KvChange::Put(entry) = watch.next().await.unwrap() {
                    return entry;
                }
            }
        };
        tokio::select! {
            _ = dies => panic!("everything stands still"),
            began = marked => began,
        }
    };
    faults.stall(false);
    faults.forget_ids(true);
    let mut mark: Value = serde_json::from_slice(&began.value).unwrap();
    mark["at"] = "2026-01-01T00:00:00Z".into();
    let expect = Expect::Revision(began.revision);
    pair.broker.kv_put(&marks, &began.key, bytes(&mark).into(), expect, None).await.unwrap();
    assert_eq!(open(&pair.two).await[0].state, LetterState::Redriving);
    assert_eq!(code(&pair.two.admin(AdminRequest::DeadDrop { letter, by: "x".into() }).await), "redriving");

    let edges = [&pair.two, &other, &pair.two, &other];
    let done = futures_util::future::join_all(edges.map(|edge| redrive(edge, letter))).await;
    for reply in &done {
        assert!(matches!(reply, AdminReply::Redriven { .. }), "{done:?}");
    }
    assert_eq!(delivered(&pair).await, ["one", "sekali"]);
    let there = Filter::new("realm.realm2.mail.henderson.realm1").unwrap();
    let page = pair.broker.read(&there, ReadFrom::After(Seq::ZERO), ReadLimit::entries(9)).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(events(&pair, "dead-redriven").await.len(), 1);
    other.stop().await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_acknowledgements_while_redriving_leave_one_copy() {
    let pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let first = pair.envelope().await;
    let key = RealmKey::fresh().0;
    let body = bytes(&after(&first, 1, "sekali"));
    pair.post_with(key.headers(&body), body).await;
    pair.dead(1).await;
    let letter = open(&pair.two).await[0].letter;
    trust(&pair, &key).await;
    let (broker, faults) = Faulty::wrap(pair.broker.clone());
    let other = start_realm(&broker, "realm2", pair.key_file("realm2")).await;
    for lost in 0..6 {
        faults.lose_acks(lost);
        let _ = redrive(&other, letter).await;
    }
    faults.lose_acks(0);
    assert!(matches!(redrive(&other, letter).await, AdminReply::Redriven { .. }));
    assert_eq!(delivered(&pair).await, ["one", "sekali"]);
    other.stop().await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_was_put_aside_is_redriven_too() {
    let pair = pair().await;
    // realm2 does not believe realm1, so what realm1 sends, receipts among it, is put aside there.
    let id = MessageId::fresh();
    let to = antar_proto::command::Receiver::User(user("messi"));
    let there = realm("realm1");
    let sending =
        pair.two.send(&user("lineker"), antar_realm::Send::RealmOne(&there, &to), "hai", id).await.unwrap();
    sending.await.unwrap();
    let receipt = json!({"v": 1, "id": MessageId::fresh(), "origin": "realm1", "dest": "realm2",
        "sent_at": "2026-01-01T00:00:00Z", "kind": "receipt",
        "results": [{"id": id, "sender": "lineker", "users": ["messi"], "state": "read"}]});
    pair.post(bytes(&receipt)).await;
    assert_eq!(pair.dead(1).await[0]["code"], "no-lane");
    let letter = open(&pair.two).await[0].letter;
    assert!(matches!(redrive(&pair.two, letter).await, AdminReply::Redriven { already: false, .. }));
    let status = pair.two.status(&user("lineker"), id).await.unwrap().unwrap();
    assert_eq!(status.state, State::Read);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_stands_for_another_message_is_not_redriven_over_it() {
    let (pair, first) = pair_that_has_met().await;
    let mut other = after(&first, 1, "lain");
    other["id"] = first["id"].clone();
    pair.post(bytes(&other)).await;
    assert_eq!(pair.dead(1).await[0]["code"], "id-reused");
    let letter = open(&pair.two).await[0].letter;
    assert_eq!(code(&redrive(&pair.two, letter).await), "id-reused");
    assert_eq!(delivered(&pair).await, ["one"]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_is_neither_listed_nor_redriven_and_the_event_says_who() {
    let (pair, first) = pair_that_has_met().await;
    for (n, origin) in ["realm1", "realm1", "realm9"].into_iter().enumerate() {
        let mut envelope = after(&first, 1, &n.to_string());
        envelope["origin"] = origin.into();
        pair.post_with(Vec::new(), bytes(&envelope)).await;
    }
    pair.dead(3).await;
    let all = open(&pair.two).await;
    assert!(all[0].letter > all[1].letter, "the newest first");
    assert_eq!(all[0].code, "unknown-origin");
    let of = |origin: &str| LettersWanted { origin: Some(origin.into()), ..LettersWanted::default() };
    assert_eq!(list(&pair.two, of("realm9")).await, all[..1]);
    let unsigned =
        LettersWanted { code: Some("unsigned".into()), oldest_first: true, ..LettersWanted::default() };
    assert_eq!(list(&pair.two, unsigned).await, [all[2].clone(), all[1].clone()]);
    let page = LettersWanted { limit: 2, ..LettersWanted::default() };
    let AdminReply::Letters { letters, next: Some(next) } =
        pair.two.admin(AdminRequest::DeadList(page)).await
    else {
        panic!("there are more")
    };
    assert_eq!(letters, all[..2]);
    let rest = LettersWanted { after: Some(next), ..LettersWanted::default() };
    assert_eq!(list(&pair.two, rest).await, all[2..]);

    let letter = all[1].letter;
    let drop = async |by: &str| pair.two.admin(AdminRequest::DeadDrop { letter, by: by.into() }).await;
    assert_eq!(drop("ops@test").await, AdminReply::Dropped { already: false });
    assert_eq!(drop("other").await, AdminReply::Dropped { already: true });
    assert_eq!(code(&drop("").await), "bad-request");
    assert_eq!(code(&drop("a\nb").await), "bad-request");
    assert_eq!(open(&pair.two).await, [all[0].clone(), all[2].clone()]);
    assert_eq!(code(&redrive(&pair.two, letter).await), "dropped");
    let noted = events(&pair, "dead-dropped").await;
    assert_eq!(
        (noted.len(), &noted[0]["by"], &noted[0]["code"]),
        (1, &json!("ops@test"), &json!("unsigned"))
    );
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_the_version_before_are_listed_and_say_why_they_cannot_be_redriven() {
    let pair = pair().await;
    let old =
        json!({"reason": "it is not signed", "code": "unsigned", "inbox_seq": 15, "time": "x", "body": "{}"});
    let dead = Subject::new("realm.realm2.dead").unwrap();
    pair.broker.append(Append::new(dead, EntryId::unique(), bytes(&old))).await.unwrap().await.unwrap();
    let letter = open(&pair.two).await.remove(0);
    assert_eq!((letter.code.as_str(), letter.inbox_seq, letter.lacks.is_some()), ("unsigned", 15, true));
    assert_eq!(code(&redrive(&pair.two, letter.letter).await), "incomplete");
    pair.stop().await;
}
