//! Restorings that are broken off, and what a peer makes of a restored lane when its broker has forgotten all ids.

#![expect(clippy::unwrap_used, reason = "a test that meets an error is over")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use antar_broker::fault::{Faults, Faulty};
use antar_broker::{Append, EntryId, Filter, ReadFrom, ReadLimit, Seq, Settings, SharedBroker, Subject};
use antar_proto::command::Receiver;
use antar_proto::{MessageId, RealmId, UserName};
use antar_realm::admin::{AdminReply, AdminRequest};
use antar_realm::snapshot::Snapshot;
use antar_realm::{Realm, RealmConfig, Send};
use antar_replay::backup::{self, Contents, Options, Restoration, RestoreError};

/// Long enough for two busy cores.
const SOON: Duration = Duration::from_secs(20);
/// A stream's limit that no test reaches.
const ROOMY: u64 = 100_000;

fn realm(id: &str) -> RealmId {
    id.parse().unwrap()
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

async fn broker(dir: &Path, name: &str) -> (SharedBroker, Arc<Faults>) {
    let url = format!("sqlite:{}", dir.join(name).display());
    Faulty::wrap(antar_broker::open(&Settings::new(url)).await.unwrap())
}

async fn start(broker: &SharedBroker, dir: &Path, id: &str) -> Realm {
    let key_file = Some(dir.join(format!("{id}.nk")));
    let config = RealmConfig { demo_accounts: true, key_file, ..RealmConfig::new(realm(id)) };
    Realm::start(broker.clone(), config).await.unwrap()
}

async fn take(broker: &SharedBroker, dir: &Path, id: &str) -> (PathBuf, Contents) {
    let path = dir.join(format!("{id}.backup"));
    backup::take(broker, &Snapshot::new(realm(id)), &path, None, "0").await.unwrap();
    let contents = backup::check(&path).unwrap();
    (path, contents)
}

async fn restore(
    broker: &SharedBroker,
    (path, contents): &(PathBuf, Contents),
) -> Result<Restoration, RestoreError> {
    backup::restore(broker, path, contents, Options { mailbox_entries_max: ROOMY, new_key: false }).await
}

/// messi has sent this many messages to henderson.
async fn said(realm: &Realm, count: usize) {
    let to = Receiver::User(user("henderson"));
    for n in 0..count {
        let what = Send::One(&to);
        realm.send(&user("messi"), what, &n.to_string(), MessageId::fresh()).await.unwrap().await.unwrap();
    }
}

async fn unread(realm: &Realm) -> Vec<String> {
    let unread = realm.inbox(&user("henderson")).await.unwrap();
    unread.messages.into_iter().map(|message| message.message.msg).collect()
}

#[tokio::test]
async fn a_restoring_that_was_broken_off_leaves_a_realm_that_does_not_start_and_goes_on_later() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = broker(dir.path(), "a.db").await;
    let one = start(&source, dir.path(), "realm1").await;
    said(&one, 300).await;
    one.stop().await;
    let file = take(&source, dir.path(), "realm1").await;
    // After so many appends nothing is answered any more, as if the process had been killed there.
    for appends in [1, 7, 250, 299] {
        let (target, faults) = broker(dir.path(), &format!("to-{appends}.db")).await;
        faults.stall_after(appends);
        let waits = async { tokio::time::timeout(SOON, faults.held(1)).await };
        tokio::select! {
            _ = restore(&target, &file) => panic!("{appends}: it was not broken off"),
            held = waits => held.expect("it comes so far"),
        }
        faults.stall(false);
        let config = RealmConfig::new(realm("realm1"));
        let refused =
            Realm::start(target.clone(), config).await.err().expect("it does not start").to_string();
        assert!(refused.contains("antar realm restore"), "{refused}");
        let (other, contents) = take_of_another(dir.path()).await;
        let error = restore(&target, &(other, contents)).await.unwrap_err();
        assert!(matches!(error, RestoreError::Refused(_)), "another file: {error}");
        let done = restore(&target, &file).await.unwrap();
        assert!(done.went_on, "{done:?}");
        let one = start(&target, dir.path(), "realm1").await;
        assert_eq!(unread(&one).await, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
        one.stop().await;
        target.close().await;
    }
}

/// A backup of another realm of the same id.
async fn take_of_another(dir: &Path) -> (PathBuf, Contents) {
    let other = tempfile::tempdir_in(dir).unwrap().keep();
    let (source, _) = broker(&other, "other.db").await;
    start(&source, &other, "realm1").await.stop().await;
    let taken = take(&source, &other, "realm1").await;
    source.close().await;
    taken
}

#[tokio::test]
async fn something_that_is_not_in_the_file_is_found_when_it_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = broker(dir.path(), "a.db").await;
    let one = start(&source, dir.path(), "realm1").await;
    said(&one, 3).await;
    one.stop().await;
    let file = take(&source, dir.path(), "realm1").await;
    let (target, faults) = broker(dir.path(), "b.db").await;
    faults.stall_after(1);
    tokio::select! {
        _ = restore(&target, &file) => panic!("it was not broken off"),
        () = faults.held(1) => faults.stall(false),
    }
    let stranger = Subject::new("realm.realm1.mail.henderson.local").unwrap();
    let append = Append::new(stranger, EntryId::unique(), "{}");
    target.append(append).await.unwrap().await.unwrap();
    let error = restore(&target, &file).await.unwrap_err();
    assert!(matches!(error, RestoreError::Differs(_)), "{error}");
    assert!(Realm::start(target.clone(), RealmConfig::new(realm("realm1"))).await.is_err());
}

/// messi sends these numbers to lineker on realm2.
async fn send_abroad(one: &Realm, numbers: std::ops::Range<usize>) {
    let (there, to) = (realm("realm2"), Receiver::User(user("lineker")));
    for n in numbers {
        let what = Send::RealmOne(&there, &to);
        one.send(&user("messi"), what, &n.to_string(), MessageId::fresh()).await.unwrap().await.unwrap();
    }
}

/// All that lineker has got from realm1, once there are `count`.
async fn boxed(broker: &SharedBroker, count: usize) -> Vec<String> {
    let filter = Filter::new("realm.realm2.mail.lineker.realm1").unwrap();
    let mut tail = broker.tail(&filter, Seq::ZERO).await.unwrap();
    let mut texts = Vec::new();
    while texts.len() < count {
        let batch = tokio::time::timeout(SOON, tail.next_batch(ReadLimit::entries(100))).await;
        for entry in batch.expect("messages come").unwrap() {
            let envelope: serde_json::Value = serde_json::from_slice(&entry.body).unwrap();
            texts.push(envelope["text"].as_str().unwrap().to_owned());
        }
    }
    texts
}

async fn pause(realm: &Realm, paused: bool) {
    let reply = realm.admin(AdminRequest::Pause { paused }).await;
    assert!(matches!(reply, AdminReply::Done), "{reply:?}");
}

#[tokio::test]
async fn a_peer_knows_by_its_place_what_it_has_and_needs_no_ids_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = broker(dir.path(), "a.db").await;
    let (one, two) = (start(&source, dir.path(), "realm1").await, start(&source, dir.path(), "realm2").await);
    one.add_realm(&user("messi"), &realm("realm2"), "172.16.16.102", 4002).await.unwrap();
    send_abroad(&one, 0..3).await;
    boxed(&source, 3).await;
    pause(&one, true).await;
    send_abroad(&one, 3..6).await;
    // These have not been carried, as far as this backup knows; realm2's knows better.
    let older = take(&source, dir.path(), "realm1").await;
    pause(&one, false).await;
    boxed(&source, 6).await;
    one.stop().await;
    two.stop().await;
    let newer = take(&source, dir.path(), "realm2").await;
    let (target, faults) = broker(dir.path(), "b.db").await;
    restore(&target, &older).await.unwrap();
    restore(&target, &newer).await.unwrap();
    faults.forget_ids(true);
    let (one, two) = (start(&target, dir.path(), "realm1").await, start(&target, dir.path(), "realm2").await);
    send_abroad(&one, 6..8).await;
    pause(&one, false).await;
    assert_eq!(boxed(&target, 8).await, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    let dead = Filter::new("realm.realm2.dead").unwrap();
    let page = target.read(&dead, ReadFrom::End, ReadLimit::entries(1)).await.unwrap();
    assert!(page.entries.is_empty(), "nothing is put aside");
    one.stop().await;
    two.stop().await;
}
