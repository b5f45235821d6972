//! Two realms on one broker that have added each other, for tests of the way between them.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::path::PathBuf;
use std::time::Duration;

use antar_broker::{
    Append, Entry, EntryId, Filter, Headers, ReadFrom, ReadLimit, Seq, Settings, SharedBroker, Subject,
};
use antar_proto::command::Receiver;
use antar_proto::reply::Event;
use antar_proto::{MessageId, RealmId, UserName};
use antar_realm::key::RealmKey;
use antar_realm::{Realm, RealmConfig, Send};

/// Long enough for two busy cores; nothing waits for it unless something is wrong.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Pair {
    pub(crate) one: Realm,
    pub(crate) two: Realm,
    pub(crate) broker: SharedBroker,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

pub(crate) fn realm(id: &str) -> RealmId {
    id.parse().unwrap()
}

pub(crate) async fn start_realm(broker: &SharedBroker, id: &str, key_file: PathBuf) -> Realm {
    let key_file = Some(key_file);
    let config = RealmConfig { demo_accounts: true, key_file, ..RealmConfig::new(realm(id)) };
    Realm::start(broker.clone(), config).await.unwrap()
}

pub(crate) async fn pair() -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let broker = antar_broker::open(&Settings::new(format!("sqlite:{}", dir.path().join("a.db").display())))
        .await
        .unwrap();
    let one = start_realm(&broker, "realm1", dir.path().join("realm1.nk")).await;
    let two = start_realm(&broker, "realm2", dir.path().join("realm2.nk")).await;
    one.add_realm(&user("messi"), &realm("realm2"), "172.16.16.102", 4002).await.unwrap();
    Pair { one, two, broker, dir }
}

impl Pair {
    pub(crate) async fn send(&self, text: &str) -> MessageId {
        let id = MessageId::fresh();
        let to = Receiver::User(user("lineker"));
        let sending =
            self.one.send(&user("messi"), Send::RealmOne(&realm("realm2"), &to), text, id).await.unwrap();
        sending.await.unwrap();
        id
    }

    /// What lineker gets on realm2, until there are `count`.
    pub(crate) async fn received(&self, count: usize) -> Vec<String> {
        let mut feed = self.two.watch(&user("lineker")).await.unwrap();
        let mut texts = Vec::new();
        while texts.len() < count {
            let step = tokio::time::timeout(SOON, feed.next()).await.expect("messages come").unwrap();
            for event in step.events.into_iter().map(antar_realm::Pushed::into_event) {
                if let Event::Message { message, .. } = event {
                    texts.push(message.msg);
                }
            }
            self.two.mark_seen(step.marks);
        }
        texts
    }

    /// Where a realm's key is.
    pub(crate) fn key_file(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.nk"))
    }

    /// A realm's key, as only its edges have it.
    pub(crate) fn key(&self, id: &str) -> RealmKey {
        RealmKey::from_seed(std::fs::read_to_string(self.key_file(id)).unwrap().trim()).unwrap()
    }

    /// The first envelope in realm2's inbox, as JSON.
    pub(crate) async fn envelope(&self) -> serde_json::Value {
        let inbox = Filter::new("realm.realm2.inbox").unwrap();
        let page = self.broker.read(&inbox, ReadFrom::After(Seq::ZERO), ReadLimit::entries(1)).await;
        serde_json::from_slice(&page.unwrap().entries[0].body).unwrap()
    }

    /// Puts bytes into realm2's inbox as realm1's lane would.
    pub(crate) async fn post(&self, bytes: Vec<u8>) {
        self.post_with(self.key("realm1").headers(&bytes), bytes).await;
    }

    /// Puts any bytes with any headers there, as anybody could.
    pub(crate) async fn post_with(&self, headers: Headers, bytes: Vec<u8>) {
        let subject = Subject::new("realm.realm2.inbox").unwrap();
        let append = Append { headers, ..Append::new(subject, EntryId::unique(), bytes) };
        self.broker.append(append).await.unwrap().await.unwrap();
    }

    /// What realm2 has put aside, once there are `count`: the headers of each as JSON.
    pub(crate) async fn dead(&self, count: usize) -> Vec<serde_json::Value> {
        let known = |entry: &Entry| {
            let header = |name: &str| entry.headers.iter().find(|(known, _)| known == name);
            let text = |name| header(name).map(|(_, value)| value.clone());
            serde_json::json!({
                "code": text("Antar-Dead-Code"),
                "reason": text("Antar-Dead-Reason"),
                "lines": text("Antar-Dead-Lines"),
                "letter": entry.seq.0,
            })
        };
        let mut tail = self.broker.tail(&Filter::new("realm.realm2.dead").unwrap(), Seq::ZERO).await.unwrap();
        let mut letters = Vec::new();
        while letters.len() < count {
            let batch = tokio::time::timeout(SOON, tail.next_batch(ReadLimit::entries(100))).await;
            let entries = batch.expect("dead letters come").unwrap();
            letters.extend(entries.iter().map(|entry| known(entry)));
        }
        letters
    }

    pub(crate) async fn stop(self) {
        self.one.stop().await;
        self.two.stop().await;
        self.broker.close().await;
    }
}
