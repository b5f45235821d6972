//! Several envelopes in one entry of an inbox, one on each line, under one signature.

#![expect(clippy::unwrap_used, reason = "a test that meets an error is over")]

mod pair;

use antar_broker::{Filter, ReadFrom, ReadLimit, Seq};
use antar_proto::MessageId;
use antar_proto::envelope::{BUNDLE_BYTES_MAX, BUNDLE_ENVELOPES_MAX};
use antar_realm::admin::{AdminReply, AdminRequest};
use pair::{Pair, pair, realm, user};
use serde_json::Value;

/// An envelope of realm1 that is the `n`th after `last`, the first one being 1.
fn after(last: &Value, n: u64, text: &str) -> Value {
    let (mut envelope, seq) = (last.clone(), last["lane"]["seq"].as_u64().unwrap());
    envelope["id"] = MessageId::fresh().to_string().into();
    envelope["text"] = text.into();
    envelope["lane"]["prev"] = (seq + n - 1).into();
    envelope["lane"]["seq"] = (seq + n).into();
    envelope
}

fn lines(envelopes: &[Value]) -> Vec<u8> {
    envelopes.iter().map(Value::to_string).collect::<Vec<_>>().join("\n").into_bytes()
}

async fn codes(pair: &Pair, count: usize) -> Vec<String> {
    pair.dead(count).await.iter().map(|letter| letter["code"].as_str().unwrap().to_owned()).collect()
}

/// A pair of realms, and the envelope of the one message between them so far.
async fn pair_that_has_met() -> (Pair, Value) {
    let pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let first = pair.envelope().await;
    (pair, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_that_wait_together_share_an_entry_and_arrive_in_order() {
    let pair = pair().await;
    assert_eq!(pair.one.admin(AdminRequest::Pause { paused: true }).await, AdminReply::Done);
    let texts: Vec<String> = (0..300).map(|n| format!("m{n}")).collect();
    for text in &texts {
        pair.send(text).await;
    }
    assert_eq!(pair.one.admin(AdminRequest::Pause { paused: false }).await, AdminReply::Done);
    assert_eq!(pair.received(300).await, texts);
    let inbox = Filter::new("realm.realm2.inbox").unwrap();
    let page = pair.broker.read(&inbox, ReadFrom::After(Seq::ZERO), ReadLimit::entries(500)).await.unwrap();
    assert!(page.entries.len() < 100, "{} entries for 300 envelopes", page.entries.len());
    for entry in &page.entries {
        assert!(entry.body.len() <= BUNDLE_BYTES_MAX);
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_put_aside_alone() {
    let (pair, first) = pair_that_has_met().await;
    let (two, three) = (after(&first, 1, "two"), after(&first, 3, "three"));
    let mut foreign = after(&first, 2, "forged");
    foreign["from"] = "messi@realm3".into();
    pair.post(lines(&[two, foreign, three])).await;
    assert_eq!(pair.received(2).await, ["two", "three"]);
    assert_eq!(codes(&pair, 1).await, ["foreign-sender"]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_proves_no_line_that_names_another_realm() {
    let (pair, first) = pair_that_has_met().await;
    let (mut of_another, mut for_another) = (after(&first, 2, "x"), after(&first, 2, "x"));
    of_another["origin"] = "realm9".into();
    for_another["dest"] = "realm9".into();
    let good = [after(&first, 1, "two"), after(&first, 2, "three")];
    pair.post(lines(&[good[0].clone(), of_another, for_another, Value::Null, good[1].clone()])).await;
    assert_eq!(pair.received(2).await, ["two", "three"]);
    assert_eq!(codes(&pair, 3).await, ["wrong-origin", "wrong-realm", "malformed"]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_altered_byte_of_a_bundle_puts_all_of_it_aside_once() {
    let (pair, first) = pair_that_has_met().await;
    let bytes = lines(&[after(&first, 1, "two"), after(&first, 2, "three")]);
    let altered = String::from_utf8(bytes.clone()).unwrap().replace("three", "thrce").into_bytes();
    pair.post_with(pair.key("realm1").headers(&bytes), altered).await;
    assert_eq!(codes(&pair, 1).await, ["bad-signature"]);
    pair.post(bytes).await;
    assert_eq!(pair.received(2).await, ["two", "three"]);
    assert_eq!(pair.dead(1).await.len(), 1);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_beyond_the_limits_is_put_aside_as_a_whole() {
    let (pair, first) = pair_that_has_met().await;
    let many: Vec<Value> = (1..=BUNDLE_ENVELOPES_MAX as u64 + 1).map(|n| after(&first, n, "x")).collect();
    pair.post(lines(&many)).await;
    let long = "x".repeat(BUNDLE_BYTES_MAX);
    pair.post(lines(&[after(&first, 1, &long), after(&first, 2, "x")])).await;
    assert_eq!(codes(&pair, 2).await, ["malformed", "malformed"]);
    // Alone it may be longer than that, and the same places in the lane are still free.
    pair.post(lines(&[after(&first, 1, &long)])).await;
    assert_eq!(pair.received(1).await, [long]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_again_and_a_bundle_that_overlaps_deliver_nothing_twice() {
    let (pair, first) = pair_that_has_met().await;
    let envelopes: Vec<Value> = (1..=3).map(|n| after(&first, n, &format!("m{n}"))).collect();
    for _ in 0..20 {
        pair.post(lines(&envelopes)).await;
        pair.post(lines(&envelopes[1..])).await;
    }
    let more: Vec<Value> = envelopes[2..].iter().cloned().chain([after(&first, 4, "m4")]).collect();
    pair.post(lines(&more)).await;
    assert_eq!(pair.received(4).await, ["m1", "m2", "m3", "m4"]);
    let left = pair.two.realm_inbox(&user("lineker"), &realm("realm1")).await.unwrap().unwrap();
    assert!(left.messages.is_empty());
    pair.stop().await;
}
