//! Two realms on one broker: the way of a message between them, without sockets.

#![expect(clippy::unwrap_used, reason = "a test that meets an error is over")]

mod pair;

use std::net::{IpAddr, Ipv4Addr};

use antar_broker::{Append, EntryId, Filter, ReadFrom, ReadLimit, Seq, Subject};
use antar_proto::MessageId;
use antar_proto::command::{RECEIVERS_MAX, Receiver};
use antar_proto::reply::{Event, State};
use antar_realm::Send;
use antar_realm::admin::{AdminReply, AdminRequest};
use pair::{SOON, pair, realm, user};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_through_all_its_states() {
    let pair = pair().await;
    let mut feed = pair.one.watch(&user("messi")).await.unwrap();
    let id = pair.send("halo realm sebelah").await;
    assert_eq!(pair.received(1).await, ["halo realm sebelah"]);
    let mut states = Vec::new();
    while states.last() != Some(&State::Read) {
        let step = tokio::time::timeout(SOON, feed.next()).await.expect("news come").unwrap();
        for event in step.events.into_iter().map(antar_realm::Pushed::into_event) {
            if let Event::Status(news) = event {
                assert_eq!(news.ids, [id]);
                states.push(news.state);
            }
        }
    }
    assert_eq!(states, [State::Stored, State::Delivered, State::Read]);
    let status = pair.one.status(&user("messi"), id).await.unwrap().unwrap();
    assert_eq!(status.state, State::Read);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_delays_and_keeps_the_order() {
    let pair = pair().await;
    assert_eq!(pair.two.admin(AdminRequest::Pause { paused: true }).await, AdminReply::Done);
    let texts: Vec<String> = (0..300).map(|n| format!("m{n}")).collect();
    for text in &texts {
        pair.send(text).await;
    }
    assert_eq!(pair.two.admin(AdminRequest::Pause { paused: false }).await, AdminReply::Done);
    assert_eq!(pair.received(300).await, texts);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_comes_back_as_a_notice() {
    let pair = pair().await;
    let to = Receiver::User(user("pele"));
    let id = MessageId::fresh();
    pair.one
        .send(&user("messi"), Send::RealmOne(&realm("realm2"), &to), "halo", id)
        .await
        .unwrap()
        .await
        .unwrap();
    let mut feed = pair.one.watch(&user("messi")).await.unwrap();
    let notice = loop {
        let step = tokio::time::timeout(SOON, feed.next()).await.expect("a notice comes").unwrap();
        let found =
            step.events.into_iter().map(antar_realm::Pushed::into_event).find_map(|event| match event {
                Event::Message { message, .. } => Some(message),
                _ => None,
            });
        if let Some(message) = found {
            break message;
        }
    };
    assert_eq!(notice.about, Some(id));
    assert_eq!(notice.from, "@realm2");
    let status = pair.one.status(&user("messi"), id).await.unwrap().unwrap();
    assert_eq!(status.state, State::Failed);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_can_send_after_one_has_added_the_other() {
    let pair = pair().await;
    let to = Receiver::User(user("messi"));
    let (from, there) = (user("lineker"), realm("realm1"));
    let sending = pair.two.send(&from, Send::RealmOne(&there, &to), "angkara", MessageId::fresh()).await;
    sending.unwrap().await.unwrap();
    let mut feed = pair.one.watch(&user("messi")).await.unwrap();
    let step = tokio::time::timeout(SOON, feed.next()).await.expect("a message comes").unwrap();
    let events: Vec<Event> = step.events.into_iter().map(antar_realm::Pushed::into_event).collect();
    assert!(matches!(&events[..], [Event::Message { mailbox, .. }] if mailbox == "realm2"));
    assert!(pair.two.add_realm(&user("lineker"), &realm("realm1"), "172.16.16.101", 4001).await.is_ok());
    assert!(pair.one.login("messi", "surabaya", HERE).await.is_ok());
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delivered_is_put_aside_and_holds_up_nothing() {
    let pair = pair().await;
    let outbox = Subject::new("realm.realm1.outbox.realm2").unwrap();
    let first = pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    for bad in [
        &b"no envelope"[..],
        b"{}",
        br#"{"v":1,"id":"01a2007d-2b8b-719b-bd95-903f23c13caa","origin":"realm9","dest":"realm2"}"#,
    ] {
        pair.post(bad.to_vec()).await;
    }
    // Through the lane itself, so that each takes a place in it: a sender of another realm, a version to come.
    let entry =
        pair.broker.read(&Filter::from(&outbox), ReadFrom::After(Seq::ZERO), ReadLimit::entries(1)).await;
    let good = String::from_utf8(entry.unwrap().entries[0].body.to_vec()).unwrap();
    let id = |text: &str| text.replace(&first.to_string(), &MessageId::fresh().to_string());
    let foreign = id(&good.replace("messi@realm1", "messi@realm3"));
    pair.broker.append(Append::new(outbox.clone(), EntryId::unique(), foreign)).await.unwrap().await.unwrap();
    pair.send("two").await;
    assert_eq!(pair.received(1).await, ["two"]);
    let codes: Vec<String> =
        pair.dead(4).await.iter().map(|letter| letter["code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(codes, ["malformed", "malformed", "unknown-origin", "foreign-sender"]);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_envelope_again_and_a_gap_deliver_nothing_twice() {
    let pair = pair().await;
    let inbox = Filter::new("realm.realm2.inbox").unwrap();
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let entry = pair.broker.read(&inbox, ReadFrom::After(Seq::ZERO), ReadLimit::entries(1)).await.unwrap();
    let envelope = entry.entries[0].body.to_vec();
    for _ in 0..100 {
        pair.post(envelope.clone()).await;
    }
    let mut ahead: serde_json::Value = serde_json::from_slice(&envelope).unwrap();
    ahead["lane"]["seq"] = 1_000_000.into();
    ahead["lane"]["prev"] = 999_999.into();
    pair.post(serde_json::to_vec(&ahead).unwrap()).await;
    assert_eq!(pair.dead(1).await[0]["code"], "lane-gap");
    pair.send("two").await;
    assert_eq!(pair.received(1).await, ["two"]);
    assert_eq!(
        pair.two.realm_inbox(&user("lineker"), &realm("realm1")).await.unwrap().unwrap().messages.len(),
        0
    );
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_to_come_is_put_aside_answered_and_passed_over() {
    let pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let inbox = Filter::new("realm.realm2.inbox").unwrap();
    let entry = pair.broker.read(&inbox, ReadFrom::After(Seq::ZERO), ReadLimit::entries(1)).await.unwrap();
    let mut newer: serde_json::Value = serde_json::from_slice(&entry.entries[0].body).unwrap();
    let last = newer["lane"]["seq"].as_u64().unwrap();
    let id = MessageId::fresh();
    newer["v"] = 2.into();
    newer["id"] = id.to_string().into();
    newer["lane"]["prev"] = last.into();
    newer["lane"]["seq"] = (last + 1).into();
    pair.post(serde_json::to_vec(&newer).unwrap()).await;
    assert_eq!(pair.dead(1).await[0]["code"], "unknown-version");
    let mut feed = pair.one.watch(&user("messi")).await.unwrap();
    let notice = loop {
        let step = tokio::time::timeout(SOON, feed.next()).await.expect("a notice comes").unwrap();
        let found =
            step.events.into_iter().map(antar_realm::Pushed::into_event).find_map(|event| match event {
                Event::Message { message, .. } if message.about == Some(id) => Some(message),
                _ => None,
            });
        if let Some(message) = found {
            break message;
        }
    };
    assert_eq!(notice.msg, "Pesan Tidak Terkirim (unknown-version)");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_about_very_many_names_hold_up_nothing() {
    let pair = pair().await;
    pair.send("one").await;
    assert_eq!(pair.received(1).await, ["one"]);
    let inbox = Filter::new("realm.realm2.inbox").unwrap();
    let entry = pair.broker.read(&inbox, ReadFrom::After(Seq::ZERO), ReadLimit::entries(1)).await.unwrap();
    let mut envelope: serde_json::Value = serde_json::from_slice(&entry.entries[0].body).unwrap();
    assert_eq!(pair.two.admin(AdminRequest::Pause { paused: true }).await, AdminReply::Done);
    // All of them are there when delivery goes on, so one batch takes as many as it may.
    let nobody: Vec<String> =
        (0..RECEIVERS_MAX).map(|n| format!("nobody-{n:04}-{}", "x".repeat(20))).collect();
    for n in 0..40 {
        let last = envelope["lane"]["seq"].as_u64().unwrap();
        envelope["lane"]["prev"] = last.into();
        envelope["lane"]["seq"] = (last + 1).into();
        envelope["id"] = MessageId::fresh().to_string().into();
        envelope["to"] = if n < 39 { nobody.clone().into() } else { vec!["lineker"].into() };
        pair.post(serde_json::to_vec(&envelope).unwrap()).await;
    }
    assert_eq!(pair.two.admin(AdminRequest::Pause { paused: false }).await, AdminReply::Done);
    assert_eq!(pair.received(1).await, ["one"], "the last of them, to somebody who is there");
    pair.stop().await;
}
