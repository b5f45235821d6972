//! Several edges of a realm: realms of one id on one broker, each with a broker of its own in between that can fail.

#![expect(clippy::unwrap_used, reason = "a test that meets an error is over")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use antar_broker::fault::{Faults, Faulty};
use antar_broker::{Settings, SharedBroker};
use antar_proto::command::Receiver;
use antar_proto::reply::{Event, State};
use antar_proto::{MessageId, RealmId, UserName};
use antar_realm::admin::{AdminReply, AdminRequest};
use antar_realm::{Realm, RealmConfig, Send};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Long enough for two busy cores; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(60);
/// Whoever works is replaced within this.
const TAKEN_OVER: Duration = Duration::from_secs(10);

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

fn realm(id: &str) -> RealmId {
    id.parse().unwrap()
}

/// An edge, and what can be made to fail of its way to the broker.
struct Edge {
    realm: Realm,
    faults: Arc<Faults>,
}

/// Realm 1 with one edge, realm 2 with as many as are started.
struct World {
    broker: SharedBroker,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("a.db").display());
        Self { broker: antar_broker::open(&Settings::new(url)).await.unwrap(), dir }
    }

    async fn edge(&self, id: &str) -> Edge {
        let (broker, faults) = Faulty::wrap(self.broker.clone());
        let key_file = Some(self.dir.path().join(format!("{id}.nk")));
        let config = RealmConfig { demo_accounts: true, key_file, ..RealmConfig::new(realm(id)) };
        Edge { realm: Realm::start(broker, config).await.unwrap(), faults }
    }
}

async fn add_realm2(realm1: &Realm) {
    realm1.add_realm(&user("messi"), &realm("realm2"), "172.16.16.102", 4002).await.unwrap();
}

async fn send(from: &Realm, text: &str) -> MessageId {
    let (id, to) = (MessageId::fresh(), Receiver::User(user("lineker")));
    let sending = from.send(&user("messi"), Send::RealmOne(&realm("realm2"), &to), text, id).await.unwrap();
    sending.await.unwrap();
    id
}

async fn send_all(from: &Realm, texts: &[String]) {
    for text in texts {
        send(from, text).await;
    }
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name} {number}")).collect()
}

/// What lineker is pushed on realm 2 until `last` comes.
async fn pushed_until(edge: &Realm, last: &str) -> Vec<String> {
    let mut feed = edge.watch(&user("lineker")).await.unwrap();
    let mut texts: Vec<String> = Vec::new();
    while texts.last().is_none_or(|text| text != last) {
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

/// Lets two edges of a paused realm work until one of them stops with a part of its batch in the log: that one, and the
/// other, which goes on.
async fn first_to_stop<'a>(first: &'a Edge, second: &'a Edge) -> (&'a Edge, &'a Edge) {
    pause(&second.realm, false).await;
    let (stopped, other) = tokio::select! {
        () = first.faults.held(1) => (first, second),
        () = second.faults.held(1) => (second, first),
    };
    other.faults.stall_after(u64::MAX);
    (stopped, other)
}

async fn pause(edge: &Realm, paused: bool) {
    assert_eq!(edge.admin(AdminRequest::Pause { paused }).await, AdminReply::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_that_was_broken_off_delivers_once_however_long_ago_it_was() {
    let world = World::new().await;
    let (one, two) = (world.edge("realm1").await, world.edge("realm2").await);
    add_realm2(&one.realm).await;
    send(&one.realm, "before").await;
    assert_eq!(pushed_until(&two.realm, "before").await, ["before"]);
    pause(&two.realm, true).await;
    let texts = numbered("message", 300);
    send_all(&one.realm, &texts).await;
    // Many acknowledgements of the first try are lost, and nobody knows an id any more.
    two.faults.forget_ids(true);
    two.faults.lose_acks(120);
    pause(&two.realm, false).await;
    let mut expected = vec!["before".to_owned()];
    expected.extend(texts);
    assert_eq!(pushed_until(&two.realm, "message 299").await, expected);
    expected.push("last".into());
    send(&one.realm, "last").await;
    assert_eq!(pushed_until(&two.realm, "last").await, expected);
    one.realm.stop().await;
    two.realm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_stops_in_the_middle_of_delivery_is_replaced_and_does_no_harm_when_it_goes_on() {
    let world = World::new().await;
    let (one, first) = (world.edge("realm1").await, world.edge("realm2").await);
    add_realm2(&one.realm).await;
    send(&one.realm, "before").await;
    assert_eq!(pushed_until(&first.realm, "before").await, ["before"]);
    let second = world.edge("realm2").await;
    for edge in [&first, &second] {
        edge.faults.forget_ids(true);
    }
    pause(&second.realm, true).await;
    let texts = numbered("message", 200);
    send_all(&one.realm, &texts).await;
    // Whichever of them delivers stops with a part of its batch in the log.
    first.faults.stall_after(50);
    second.faults.stall_after(50);
    let since = Instant::now();
    let (stopped, other) = first_to_stop(&first, &second).await;
    let mut expected = vec!["before".to_owned()];
    expected.extend(texts);
    assert_eq!(pushed_until(&other.realm, "message 199").await, expected);
    assert!(since.elapsed() < TAKEN_OVER, "it took {:?}", since.elapsed());
    stopped.faults.stall(false);
    // It meets the other's fence with what it still had to do.
    let more = numbered("more", 200);
    send_all(&one.realm, &more).await;
    expected.extend(more);
    assert_eq!(pushed_until(&other.realm, "more 199").await, expected);
    one.realm.stop().await;
    first.realm.stop().await;
    second.realm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_once_however_often_the_work_on_it_is_broken_off() {
    let world = World::new().await;
    let (one, two) = (world.edge("realm1").await, world.edge("realm2").await);
    add_realm2(&one.realm).await;
    let (messi, there, nobody) = (user("messi"), realm("realm2"), Receiver::User(user("pele")));
    let failing = MessageId::fresh();
    let sending = one.realm.send(&messi, Send::RealmOne(&there, &nobody), "halo", failing).await;
    // What both realms do about it is stored, its acknowledgements are lost, and nobody knows an id any more.
    for edge in [&one, &two] {
        edge.faults.forget_ids(true);
        edge.faults.lose_acks(5);
    }
    drop(sending);
    let mut feed = one.realm.watch(&messi).await.unwrap();
    let (mut notices, mut failures, mut last) = (0, 0, None);
    loop {
        let step = tokio::time::timeout(SOON, feed.next()).await.expect("news come").unwrap();
        for event in step.events.into_iter().map(antar_realm::Pushed::into_event) {
            match event {
                Event::Message { message, .. } if message.about == Some(failing) => notices += 1,
                Event::Status(news) if news.ids == [failing] && news.state == State::Failed => failures += 1,
                Event::Status(news) if news.state == State::Delivered => {
                    assert_eq!(last, news.ids.last().copied());
                    assert_eq!((failures, notices), (1, 1));
                    one.realm.stop().await;
                    two.realm.stop().await;
                    return;
                }
                _ => {}
            }
        }
        if notices > 0 && last.is_none() {
            for edge in [&one, &two] {
                edge.faults.lose_acks(0);
                edge.faults.forget_ids(false);
            }
            last = Some(send(&one.realm, "last").await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_goes_on_at_another_edge_when_the_one_that_works_it_stops() {
    let world = World::new().await;
    let (first, two) = (world.edge("realm1").await, world.edge("realm2").await);
    add_realm2(&first.realm).await;
    send(&first.realm, "before").await;
    assert_eq!(pushed_until(&two.realm, "before").await, ["before"]);
    let second = world.edge("realm1").await;
    pause(&first.realm, true).await;
    let texts = numbered("message", 200);
    send_all(&first.realm, &texts).await;
    for edge in [&first, &second] {
        edge.faults.forget_ids(true);
        edge.faults.stall_after(50);
    }
    let since = Instant::now();
    let (stopped, other) = first_to_stop(&first, &second).await;
    let mut expected = vec!["before".to_owned()];
    expected.extend(texts);
    assert_eq!(pushed_until(&two.realm, "message 199").await, expected);
    assert!(since.elapsed() < TAKEN_OVER, "it took {:?}", since.elapsed());
    stopped.faults.stall(false);
    let more = numbered("more", 200);
    other.faults.forget_ids(false);
    send_all(&other.realm, &more).await;
    expected.extend(more);
    assert_eq!(pushed_until(&two.realm, "more 199").await, expected);
    first.realm.stop().await;
    second.realm.stop().await;
    two.realm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_edge_was_told_holds_on_the_other_at_once() {
    let world = World::new().await;
    let (first, second, two) =
        (world.edge("realm1").await, world.edge("realm1").await, world.edge("realm2").await);
    for number in 0..100 {
        let token = first.realm.login("messi", "surabaya", HERE).await.unwrap();
        let (_, name) =
            second.realm.session_anywhere(&token).await.unwrap().expect("any edge takes any token");
        assert_eq!(name, user("messi"));
        let name = format!("new-{number}");
        let account = antar_realm::admin::NewAccount {
            user: name.clone(),
            password: "surabaya".into(),
            name: String::new(),
            country: String::new(),
        };
        if number < 5 {
            assert_eq!(first.realm.admin(AdminRequest::UserAdd(account)).await, AdminReply::Done);
            let to = Receiver::User(user(&name));
            let sending = second.realm.send(&user("messi"), Send::One(&to), "halo", MessageId::fresh()).await;
            sending.expect("an account that was just made").await.unwrap();
            assert!(second.realm.login(&name, "surabaya", HERE).await.is_ok());
        }
    }
    add_realm2(&first.realm).await;
    send(&second.realm, "halo").await;
    assert_eq!(pushed_until(&two.realm, "halo").await, ["halo"]);
    pause(&second.realm, true).await;
    send(&first.realm, "paused").await;
    pause(&first.realm, false).await;
    assert_eq!(pushed_until(&two.realm, "paused").await, ["halo", "paused"]);
    for edge in [first, second, two] {
        edge.realm.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_by_itself_when_the_broker_is_back() {
    let world = World::new().await;
    let (one, two) = (world.edge("realm1").await, world.edge("realm2").await);
    add_realm2(&one.realm).await;
    let texts = numbered("message", 5);
    send_all(&one.realm, &texts).await;
    assert_eq!(pushed_until(&two.realm, "message 4").await, texts);
    let mut feed = two.realm.watch(&user("lineker")).await.unwrap();
    two.faults.refuse(true);
    // Asked once, while the broker refuses everything.
    tokio::select! {
        biased;
        step = feed.next() => panic!("{step:?} while the broker was away"),
        () = std::future::ready(()) => {}
    }
    two.faults.refuse(false);
    let step = tokio::time::timeout(SOON, feed.next()).await.expect("it goes on").unwrap();
    let pushed =
        step.events.into_iter().map(antar_realm::Pushed::into_event).filter_map(|event| match event {
            Event::Message { message, .. } => Some(message.msg),
            _ => None,
        });
    assert_eq!(pushed.collect::<Vec<_>>(), texts);
    one.realm.stop().await;
    two.realm.stop().await;
}
