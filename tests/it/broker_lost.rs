//! An edge that loses its broker says so, in time and truthfully, keeps its clients, and goes on by itself.

use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use crate::harness::{Chat, Federation, Proxy, Server, Way, eventually, ok, refused, texts};

/// Within which an edge answers `unavailable` (issue), and what a busy machine may add.
const ANSWER_MAX: Duration = Duration::from_secs(5 + 1);

/// One edge of realm1 behind a line that can be cut.
struct Field {
    federation: Federation,
    link: Proxy,
    edge: Server,
}

impl Field {
    fn start() -> Self {
        let federation = Federation::start();
        let link = federation.link();
        let edge = federation.edge_behind(&link, "realm1");
        Self { federation, link, edge }
    }
}

/// Asks, and says that the answer is `unavailable` and came in time.
#[track_caller]
fn unavailable(chat: &mut Chat, command: &str) -> Value {
    let asked = Instant::now();
    let reply = refused(chat.cmd(command), "unavailable");
    assert!(asked.elapsed() < ANSWER_MAX, "{command}: it took {:?}", asked.elapsed());
    reply
}

/// What `happens` to the broker, until it is `undone`.
#[track_caller]
fn an_outage(happens: impl FnOnce(&mut Field), undone: impl FnOnce(&mut Field)) {
    let mut field = Field::start();
    let mut messi = Chat::login(&field.edge, "realm1", "messi");
    let mut henderson = Chat::login(&field.edge, "realm1", "henderson");
    let mut watching = henderson.again(&field.edge, "realm1");
    ok(watching.cmd("watch"));
    ok(messi.cmd("send henderson sebelum"));
    assert_eq!(watching.event("message")["msg"], "sebelum");
    henderson.settle();

    happens(&mut field);
    // The first ones were on their way when it happened; the last ones are sent by an edge that knows.
    let ids = [(); 4].map(|()| Uuid::now_v7().simple().to_string());
    let mut said = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let reply = unavailable(&mut messi, &format!("@{id} send henderson {n}"));
        said.push(reply["stored"].clone());
    }
    for stored in &said {
        assert!(*stored == false || *stored == "unknown", "{stored}");
    }
    let asked = Instant::now();
    ok(messi.ask("ping"));
    assert!(asked.elapsed() < ANSWER_MAX, "it took {:?}", asked.elapsed());
    let asked = Instant::now();
    let login = field.edge.connect("realm1").ask("auth lineker surabaya");
    assert_eq!(login["code"], "unavailable", "a session that nobody stores is none: {login}");
    assert!(asked.elapsed() < ANSWER_MAX, "it took {:?}", asked.elapsed());

    undone(&mut field);
    let id = Uuid::now_v7().simple();
    eventually("sends are stored again", || {
        let reply = messi.cmd(&format!("@{id} send henderson sesudah"));
        (reply["status"] == "OK").then_some(())
    });
    // What was said to be unknown is settled by the same id; what was said not to be stored is not there.
    for (n, stored) in said.iter().enumerate().filter(|(_, stored)| **stored == "unknown") {
        let reply = ok(messi.cmd(&format!("@{} send henderson {n}", ids[n])));
        assert_eq!(reply["id"], ids[n], "{stored}: {reply}");
    }
    ok(messi.cmd("send henderson tamat"));
    let mut got = Vec::new();
    while got.last().is_none_or(|last| *last != "tamat") {
        got.push(watching.event("message")["msg"].as_str().expect("a text").to_owned());
    }
    for (n, stored) in said.iter().enumerate() {
        let times = got.iter().filter(|text| **text == n.to_string()).count();
        let expected = usize::from(*stored == "unknown");
        assert_eq!(times, expected, "message {n}, of which was said: stored {stored}; got {got:?}");
    }
    henderson.settle();
    assert!(texts(&henderson.inbox()).is_empty(), "all was pushed and nothing comes twice");
}

#[test]
fn a_stopped_broker_is_unavailable_in_time_and_its_edge_goes_on_by_itself() {
    an_outage(|field| field.federation.nats.stop(), |field| field.federation.nats.cont());
}

#[test]
fn a_silent_partition_is_unavailable_in_time_and_its_edge_goes_on_by_itself() {
    an_outage(|field| field.link.cut(Way::Both), |field| field.link.heal());
}

#[test]
fn a_link_that_only_sends_is_unavailable_in_time_and_its_edge_goes_on_by_itself() {
    an_outage(|field| field.link.cut(Way::Down), |field| field.link.heal());
}

#[test]
fn a_killed_broker_is_unavailable_in_time_and_its_edge_goes_on_by_itself() {
    an_outage(|field| field.federation.nats.kill(), |field| field.federation.nats.start_again());
}

#[test]
fn an_edge_that_finds_no_broker_at_its_start_says_so() {
    let mut federation = Federation::start();
    federation.nats.kill();
    let (code, said) = federation.realms.edge("realm1", &federation.nats.url()).start_refused();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&federation.nats.addr().port().to_string()), "it says which: {said}");
}
