//! `antar trace`: where a message is, and what is missing.

use serde_json::Value;

use super::BROKER;
use crate::harness::{Chat, Output, Server, antar, eventually, ok, text, texts};

/// Runs `antar trace ID …` for an operator of this server.
fn run(server: &Server, id: &str, args: &[&str]) -> Output {
    let operator = server.operator();
    antar(["trace", id].iter().chain(args).copied().chain(operator.iter().map(String::as_str)))
}

fn trace(server: &Server, id: &str) -> Value {
    run(server, id, &["--format", "json"]).exits(0).json_lines().remove(0)
}

/// The stages of a trace with their realms, in order.
fn stages(trace: &Value) -> Vec<String> {
    let hops = trace["hops"].as_array().expect("hops");
    hops.iter().map(|hop| format!("{} {}", text(hop, "stage"), text(hop, "realm"))).collect()
}

fn hop<'a>(trace: &'a Value, stage: &str, realm: &str) -> &'a Value {
    let hops = trace["hops"].as_array().expect("hops");
    let found = hops.iter().find(|hop| hop["stage"] == stage && hop["realm"] == realm);
    found.unwrap_or_else(|| panic!("no {stage} at {realm} in {trace}"))
}

fn missing(trace: &Value) -> Vec<String> {
    let all = trace["missing"].as_array().expect("a list");
    all.iter().map(|missing| format!("{}: {}", text(missing, "stage"), text(missing, "why"))).collect()
}

fn people(server: &Server) -> [Chat; 2] {
    let mut messi = Chat::login(server, "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    [messi, Chat::login(server, "realm2", "lineker")]
}

fn send(chat: &mut Chat, command: &str) -> String {
    text(&ok(chat.cmd(command)), "message_id").to_owned()
}

#[track_caller]
fn reaches(chat: &mut Chat, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), || {
        (ok(chat.cmd(&format!("status {id}")))["state"] == state).then_some(())
    });
}

#[test]
fn a_message_within_a_realm_is_accepted_delivered_and_read() {
    let server = BROKER.demo();
    let [mut messi, _] = people(&server);
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let id = send(&mut messi, "send henderson rahasia");
    let unread = trace(&server, &id);
    assert_eq!(stages(&unread), ["accepted realm1", "delivered realm1"]);
    assert_eq!(missing(&unread), ["read: henderson has not read it"]);
    assert_eq!(
        (text(&unread, "from"), &unread["to"]),
        ("messi@realm1", &serde_json::json!(["henderson@realm1"]))
    );
    assert_eq!(texts(&henderson.inbox()), ["rahasia"]);
    henderson.settle();
    let read = trace(&server, &id.replace('-', ""));
    assert_eq!(stages(&read), ["accepted realm1", "delivered realm1", "read realm1"]);
    assert!(missing(&read).is_empty(), "{read}");
    assert!(!read.to_string().contains("rahasia"), "no text");
}

#[test]
fn every_hop_between_realms_is_shown_with_its_place_and_time() {
    let server = BROKER.demo();
    let [mut messi, mut lineker] = people(&server);
    let mut first = String::new();
    for n in 0..5 {
        let id = send(&mut messi, &format!("sendprivaterealm realm2 lineker {n}"));
        first = if n == 0 { id } else { first };
    }
    lineker.realm_inbox_of("realm1", 5);
    lineker.settle();
    reaches(&mut messi, &first, "read");
    let trace = trace(&server, &first);
    for (stage, realm) in [
        ("accepted", "realm1"),
        ("lane", "realm1"),
        ("stored", "realm2"),
        ("delivered", "realm2"),
        ("receipt", "realm2"),
        ("receipt", "realm1"),
        ("read", "realm1"),
        ("read", "realm2"),
    ] {
        assert!(hop(&trace, stage, realm)["seq"].as_u64().is_some_and(|seq| seq > 0), "{trace}");
    }
    assert!(missing(&trace).is_empty(), "{trace}");
    let carried = text(&trace, "traceparent");
    let span =
        carried.strip_prefix(&format!("00-{}-", first.replace('-', ""))).expect("the id is the trace's");
    assert_eq!(text(hop(&trace, "accepted", "realm1"), "edge"), &span[..8], "{trace}");
    let log = server.log();
    assert!(log.contains(&format!("edge=\"{}\"", &span[..8])) || log.contains(&span[..8]), "{log}");
    let times: Vec<&str> =
        trace["hops"].as_array().expect("hops").iter().filter_map(|hop| hop["time"].as_str()).collect();
    assert!(times.is_sorted() && times.len() >= 7, "{times:?}");
    let said = run(&server, &first, &[]).exits(0).stdout;
    assert!(said.contains("from messi@realm1 to lineker@realm2") && said.contains("delivered"), "{said}");
    // One realm alone knows its part.
    let part =
        run(&server, &first, &["--realm", "realm2", "--format", "json"]).exits(0).json_lines().remove(0);
    assert!(stages(&part).contains(&"delivered realm2".to_owned()), "{part}");
    assert!(missing(&part).iter().any(|why| why.contains("realm1 cannot be read")), "{part}");
}

#[test]
fn a_message_that_waits_in_a_lane_says_behind_how_many_and_why() {
    let server = BROKER.demo();
    let [mut messi, mut lineker] = people(&server);
    server.operate(&["realm", "pause", "realm2"]);
    let ids: Vec<String> =
        (0..4).map(|n| send(&mut messi, &format!("sendprivaterealm realm2 lineker {n}"))).collect();
    let waits = trace(&server, &ids[3]);
    assert_eq!(stages(&waits), ["accepted realm1"]);
    assert_eq!(
        missing(&waits),
        ["lane: it waits in the lane realm1 → realm2: 3 ahead of it; realm2 is paused"]
    );
    server.operate(&["realm", "resume", "realm2"]);
    lineker.realm_inbox_of("realm1", 4);
    assert!(stages(&trace(&server, &ids[3])).contains(&"delivered realm2".to_owned()));
}

#[test]
fn a_message_to_nobody_has_failed_with_the_reason() {
    let server = BROKER.demo();
    let [mut messi, _] = people(&server);
    let id = send(&mut messi, "sendprivaterealm realm2 pele halo");
    reaches(&mut messi, &id, "failed");
    let trace = trace(&server, &id);
    assert_eq!(text(hop(&trace, "failed", "realm2"), "reason"), "no-such-user");
    assert_eq!(text(hop(&trace, "receipt", "realm1"), "state"), "failed");
    assert!(!stages(&trace).contains(&"delivered realm2".to_owned()), "{trace}");
    assert!(missing(&trace).is_empty(), "{trace}");
}

#[test]
fn a_dead_letter_is_found_explained_and_seen_to_be_redriven() {
    let server = BROKER.demo();
    let [mut messi, mut lineker] = people(&server);
    server.operate(&["realm", "block", "realm2", "realm1"]);
    let id = send(&mut messi, "sendprivaterealm realm2 lineker halo");
    reaches(&mut messi, &id, "failed");
    let seen = trace(&server, &id);
    let dead = hop(&seen, "dead", "realm2");
    assert!(text(dead, "reason").starts_with("realm-blocked: "), "{seen}");
    assert_eq!(text(dead, "state"), "open");
    server.operate(&["realm", "unblock", "realm2", "realm1"]);
    let letter = dead["letter"].to_string();
    server.operate(&["dead", "redrive", &letter, "--realm", "realm2"]);
    lineker.realm_inbox_of("realm1", 1);
    let seen = trace(&server, &id);
    assert_eq!(text(hop(&seen, "dead", "realm2"), "state"), "redriven");
    assert_eq!(hop(&seen, "delivered", "realm2")["letter"], dead["letter"]);
}

#[test]
fn a_message_that_nobody_knows_ends_with_1_and_what_is_no_id_with_2() {
    let mut server = BROKER.demo();
    let [mut messi, _] = people(&server);
    let id = send(&mut messi, "send henderson halo");
    let unknown = uuid::Uuid::now_v7().to_string();
    let said = run(&server, &unknown, &[]).exits(1).stderr;
    assert!(said.contains(&unknown), "{said}");
    run(&server, &uuid::Uuid::new_v4().to_string(), &[]).exits(1);
    run(&server, "halo", &[]).exits(2);
    // It needs nobody who serves the realm.
    server.sigterm();
    assert_eq!(stages(&trace(&server, &id)), ["accepted realm1", "delivered realm1"]);
}

#[test]
fn each_hop_logs_the_trace_context_when_it_is_asked_to_and_never_what_is_said() {
    let server = BROKER.demo_builder().env("LOG__LEVEL", "debug").start();
    let [mut messi, mut lineker] = people(&server);
    let id = send(&mut messi, "sendprivaterealm realm2 lineker kenari");
    lineker.realm_inbox_of("realm1", 1);
    reaches(&mut messi, &id, "delivered");
    let log = server.log();
    assert!(!log.contains("kenari"), "no text");
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("an envelope went by") && line.contains(&id)).collect();
    let carried = format!("00-{}-", id.replace('-', ""));
    for hop in ["accepted", "carried", "received", "delivered"] {
        let has = |line: &&&str| line.contains(&format!("\"hop\":\"{hop}\"")) && line.contains(&carried);
        assert!(lines.iter().any(|line| has(&line)), "{hop}: {lines:?}");
    }
}

#[test]
fn a_message_to_a_group_is_followed_to_its_home_and_to_each_realm_with_members() {
    let server = BROKER.demo();
    let [mut messi, mut lineker] = people(&server);
    let mut other = Chat::login(&server, "realm2", "henderson");
    ok(messi.cmd("addgroup tim"));
    ok(lineker.cmd("joingroup #tim@realm1"));
    ok(other.cmd("joingroup #tim@realm1"));
    server.operate(&["realm", "pause", "realm2"]);
    let id = send(&mut messi, "sendgroup #tim rahasia");
    // The lane may not have heard of the pause yet: then it waits in the inbox.
    let waits: Value = eventually("it waits", || {
        let trace = trace(&server, &id);
        missing(&trace)
            .iter()
            .any(|why| why.contains("it waits in the lane") || why.contains("in the inbox of"))
            .then_some(trace)
    });
    assert_eq!(stages(&waits)[..2], ["accepted realm1", "lane realm1"]);
    assert!(missing(&waits)[0].ends_with("is paused"), "{waits}");
    assert_eq!((text(&waits, "group"), text(&waits, "from")), ("tim@realm1", "messi@realm1"));
    server.operate(&["realm", "resume", "realm2"]);
    assert_eq!(texts(&lineker.inbox_of(1)), ["rahasia"]);
    lineker.settle();
    let arrived = trace(&server, &id);
    let way = ["accepted realm1", "lane realm1", "stored realm2", "delivered realm2", "read realm2"];
    assert_eq!(stages(&arrived), way);
    assert_eq!(hop(&arrived, "read", "realm2")["users"], serde_json::json!(["lineker"]));
    assert_eq!(missing(&arrived), ["read: henderson has not read it"]);
    assert!(!arrived.to_string().contains("rahasia"), "no text");

    let post = send(&mut lineker, "sendgroup #tim@realm1 jawaban");
    assert_eq!(texts(&other.inbox_of(2)), ["rahasia", "jawaban"]);
    assert_eq!(texts(&messi.inbox_of(1)), ["jawaban"]);
    messi.settle();
    let back = trace(&server, &post);
    let shown = stages(&back);
    let way = [
        "accepted realm2",
        "stored realm1",
        "delivered realm1",
        "lane realm1",
        "stored realm2",
        "delivered realm2",
    ];
    assert!(way.iter().all(|stage| shown.contains(&(*stage).to_owned())), "{back}");
    assert_eq!(hop(&back, "read", "realm1")["users"], serde_json::json!(["messi"]));
    let said = run(&server, &post, &[]).exits(0).stdout;
    assert!(said.contains("from lineker@realm2 to #tim@realm1"), "{said}");
}
