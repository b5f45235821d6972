//! `antar status` and `connectedrealm`: how realms are, and why a lane waits.

use serde_json::Value;

use super::BROKER;
use crate::harness::{Chat, Output, Server, antar, eventually, ok, text};

fn run(server: &Server, args: &[&str]) -> Output {
    let operator = server.operator();
    antar(["status"].iter().chain(args).copied().chain(operator.iter().map(String::as_str)))
}

fn status(server: &Server, realm: &str) -> Value {
    run(server, &["--realm", realm, "--format", "json"]).exits(0).json_lines().remove(0)
}

#[test]
fn a_healthy_realm_shows_its_edge_its_lane_and_what_it_takes() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    let id = text(&ok(messi.cmd("sendprivaterealm realm2 lineker rahasia")), "message_id").to_owned();
    eventually("it is delivered", || {
        (ok(messi.cmd(&format!("status {id}")))["state"] == "delivered").then_some(())
    });
    ok(messi.cmd("watch"));
    let seen = eventually("its connection is told", || {
        let seen = status(&server, "realm1");
        (seen["edges"][0]["watches"] == 1 && seen["lanes"][0]["queued"] == 0).then_some(seen)
    });
    let edge = &seen["edges"][0];
    assert_eq!(seen["edges"].as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!((&edge["alive"], &edge["connections"]), (&true.into(), &1.into()), "{seen}");
    assert!(text(edge, "edge").len() == 8 && text(edge, "version").starts_with(char::is_numeric), "{seen}");
    let lane = &seen["lanes"][0];
    assert_eq!((text(lane, "peer"), text(lane, "state")), ("realm2", "up"), "{seen}");
    assert!(lane.get("error").is_none() && lane.get("since").is_none(), "{seen}");
    assert_eq!(seen["dead_letters"]["open"], 0, "{seen}");
    let streams = seen["storage"]["streams"].as_array().expect("streams");
    assert_eq!(streams.len(), 3, "{seen}");
    assert!(streams.iter().any(|stream| stream["entries"].as_u64() > Some(0)), "{seen}");
    assert!(seen["storage"]["stored_bytes"].as_u64() > Some(0), "{seen}");
    let all = run(&server, &[]).exits(0).stdout;
    assert!(all.contains("realm1  running") && all.contains("realm2  running"), "{all}");
    assert!(!all.contains("rahasia") && !all.contains('\u{1b}'), "{all}");
}

#[test]
fn a_lane_that_waits_says_why_and_since_when_and_no_longer_once_it_goes_on() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    server.operate(&["realm", "pause", "realm2"]);
    for n in 0..3 {
        ok(messi.cmd(&format!("sendprivaterealm realm2 lineker {n}")));
    }
    let lane = eventually("the lane waits", || {
        let lane = status(&server, "realm1")["lanes"][0].clone();
        (lane["state"] == "waiting").then_some(lane)
    });
    assert_eq!(text(&lane, "error"), "the realm is paused");
    assert!(lane["queued"].as_u64() > Some(0) && lane["oldest_s"].is_u64(), "{lane}");
    let shown = ok(messi.cmd("connectedrealm"))["realms"][0].clone();
    assert_eq!((text(&shown, "state"), text(&shown, "last_error")), ("waiting", "the realm is paused"));
    assert_eq!(text(&shown, "since"), text(&lane, "since"));
    let said = run(&server, &["--realm", "realm1"]).exits(0).stdout;
    assert!(said.contains("waiting") && said.contains("the realm is paused"), "{said}");
    let other = run(&server, &["--realm", "realm2"]).exits(0).stdout;
    assert!(other.contains("paused") && other.contains("antar realm resume realm2"), "{other}");
    server.operate(&["realm", "resume", "realm2"]);
    eventually("the lane goes on", || {
        let lane = status(&server, "realm1")["lanes"][0].clone();
        (lane["state"] == "up" && lane["queued"] == 0 && lane.get("error").is_none()).then_some(())
    });
}

#[test]
fn a_realm_that_nobody_serves_says_so_and_what_waits_in_it() {
    let mut server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    server.operate(&["realm", "pause", "realm2"]);
    ok(messi.cmd("sendprivaterealm realm2 lineker halo"));
    let edge = text(&status(&server, "realm1")["edges"][0], "edge").to_owned();
    server.kill9();
    let gone = eventually("the edge is gone", || {
        let seen = status(&server, "realm1");
        (seen["edges"][0]["alive"] == false).then_some(seen)
    });
    assert_eq!(text(&gone["edges"][0], "edge"), edge);
    let lane = &gone["lanes"][0];
    assert_eq!((text(lane, "state"), &lane["queued"]), ("waiting", &1.into()), "{gone}");
    assert!(text(lane, "error").contains("no edge"), "{gone}");
    let said = run(&server, &["--realm", "realm1"]).exits(0).stdout;
    assert!(said.contains("no edge serves it") && said.contains("gone for"), "{said}");
    // It comes back under another number; the old one is forgotten later.
    server.start();
    let back = eventually("another edge is there", || {
        let seen = status(&server, "realm1");
        (seen["edges"][0]["alive"] == true).then_some(seen)
    });
    assert_ne!(text(&back["edges"][0], "edge"), edge);
    assert_eq!(text(&back["edges"][1], "edge"), edge);
}

#[test]
fn an_edge_that_ends_as_it_should_leaves_no_trace() {
    let mut server = BROKER.demo();
    eventually("it is there", || (status(&server, "realm1")["edges"][0]["alive"] == true).then_some(()));
    server.sigterm();
    assert_eq!(status(&server, "realm1")["edges"], serde_json::json!([]));
}

#[test]
fn a_realm_that_is_not_there_is_an_error_that_names_those_that_are() {
    let server = BROKER.demo();
    let refused = run(&server, &["--realm", "realm9"]).exits(1);
    assert!(
        refused.stderr.contains("realm9") && refused.stderr.contains("realm1, realm2"),
        "{}",
        refused.stderr
    );
}
