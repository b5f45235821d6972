//! `antar bench`: what it measures is real, and it finds what it is there to find.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Builder, Federation, Server, antar};

/// Runs a scenario for a moment and returns its figures.
#[track_caller]
fn bench(args: &[&str]) -> Value {
    let output = antar([&["bench"], args, &["--json"]].concat()).exits(0);
    output.json_lines()[0]["figures"].clone()
}

fn addresses(edges: &[Server], realm: &str) -> String {
    edges.iter().map(|edge| edge.addr(realm).to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn pairs_talk_through_several_edges_and_between_realms() {
    let federation = Federation::start();
    let here = [federation.edge("realm1"), federation.edge("realm1")];
    let there = [federation.edge("realm2"), federation.edge("realm2")];
    let (here, there) = (addresses(&here, "realm1"), addresses(&there, "realm2"));
    let short = ["--pairs", "4", "--seconds", "1", "--warmup", "0", "--server", &here];
    let figures = bench(&[&["send"][..], &short].concat());
    assert!(figures["delivered"].as_u64() > Some(0), "{figures}");
    assert_eq!((&figures["lost"], &figures["duplicated"]), (&Value::from(0), &Value::from(0)));
    let figures = bench(&[&["realm", "--server2", &there][..], &short].concat());
    assert!(figures["acknowledged"].as_u64() > Some(0), "{figures}");
    assert_eq!((&figures["lost"], &figures["out_of_order"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn a_ledger_holds_every_ok_and_a_line_too_many_is_a_loss() {
    let server = Builder::serve().start();
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("oks");
    let (path, addr) = (path.to_str().expect("UTF-8"), server.addr("realm1").to_string());
    let figures = bench(&["ledger", "--ledger", path, "--messages", "300", "--server", &addr]);
    assert_eq!(figures["acknowledged"], 300);
    let by = ["--check", path, "--by", "history", "--server", &addr];
    let checked = bench(&[&["ledger"][..], &by].concat());
    assert_eq!((&checked["acknowledged"], &checked["lost"]), (&Value::from(300), &Value::from(0)));
    let mut forged = fs::read_to_string(path).expect("it was written");
    forged.push_str("01a20080-d978-7572-9e88-9b7e805f1a4b 300\n");
    fs::write(path, forged).expect("writable");
    let output = antar([&["bench", "ledger", "--json"][..], &by].concat()).exits(1);
    assert_eq!(output.json_lines()[0]["figures"]["lost"], 1);
}

#[test]
fn a_ledger_of_minutes_says_what_it_needs() {
    let output = antar(["bench", "ledger", "--minutes", "1", "--nats-server", "/nowhere/nats-server"]);
    assert!(output.exits(1).stderr.contains("/nowhere/nats-server"));
    antar(["bench", "ledger"]).exits(2);
}
