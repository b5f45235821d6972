//! `/metrics`: what is exported, on both brokers, and that rules, board and document say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use promql_parser::parser::{Expr, VectorSelector, parse};

use super::BROKER;
use crate::harness::{Chat, Server, eventually, http_get, ok, refused};

/// What an edge exports, by name with its labels as they stand.
fn scrape(server: &Server, realm: &str) -> BTreeMap<String, f64> {
    let answer = http_get(server.http(realm).expect("it has an address"), "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("openmetrics-text"), "{head}");
    assert!(body.contains("# EOF"), "{body}");
    let samples = body.lines().filter(|line| line.starts_with("antar_"));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// The names of metrics, without labels.
fn names(samples: &BTreeMap<String, f64>) -> BTreeSet<String> {
    samples.keys().map(|name| name.split('{').next().expect("a name").to_owned()).collect()
}

fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let fits = |sample: &&String| {
        sample.split('{').next() == Some(name) && labels.iter().all(|label| sample.contains(label))
    };
    samples.keys().filter(fits).map(|sample| samples[sample]).sum()
}

fn demo() -> Server {
    BROKER.demo_builder().env("LISTEN__HTTP", "127.0.0.1:0").start()
}

/// A demo in which something of each kind has happened.
fn busy() -> (Server, [Chat; 2]) {
    let server = demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    refused(server.connect("realm1").ask("auth messi falsch"), "bad-password");
    refused(server.connect("realm1").ask("nonsense"), "unknown-command");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    ok(messi.cmd("send henderson rahasia"));
    refused(messi.cmd("send nobody halo"), "no-such-user");
    ok(messi.cmd("sendprivaterealm realm2 lineker halo"));
    lineker.realm_inbox_of("realm1", 1);
    ok(lineker.cmd("watch"));
    (server, [messi, lineker])
}

#[test]
fn what_happens_is_counted_and_nobody_is_named() {
    let (server, _chats) = busy();
    let seen = eventually("the envelope is counted", || {
        let seen = scrape(&server, "realm1");
        (sum(&seen, "antar_lane_envelopes_total", &["peer=\"realm2\""]) >= 1.0).then_some(seen)
    });
    assert_eq!(sum(&seen, "antar_sends_ok_total", &[]), 2.0, "{seen:?}");
    assert_eq!(sum(&seen, "antar_sends_failed_total", &["code=\"no-such-user\""]), 1.0, "{seen:?}");
    assert_eq!(sum(&seen, "antar_send_seconds_count", &[]), 2.0, "{seen:?}");
    assert_eq!(sum(&seen, "antar_commands_total", &["command=\"auth\"", "code=\"ok\""]), 1.0, "{seen:?}");
    assert_eq!(sum(&seen, "antar_commands_total", &["command=\"auth\"", "code=\"bad-password\""]), 1.0);
    assert_eq!(sum(&seen, "antar_commands_total", &["command=\"none\"", "code=\"unknown-command\""]), 1.0);
    assert_eq!(sum(&seen, "antar_lane_state", &["peer=\"realm2\"", "state=\"up\""]), 1.0);
    assert_eq!(sum(&seen, "antar_edges", &["state=\"alive\""]), 1.0);
    assert_eq!(sum(&seen, "antar_ready", &["realm=\"realm1\""]), 1.0);
    assert!(sum(&seen, "antar_read_bytes_total", &[]) > 0.0 && sum(&seen, "antar_storage_bytes", &[]) > 0.0);
    let there = eventually("the message is counted", || {
        let there = scrape(&server, "realm2");
        (sum(&there, "antar_delivered_messages_total", &["peer=\"realm1\""]) == 1.0).then_some(there)
    });
    assert_eq!(sum(&there, "antar_watches_open", &[]), 1.0, "{there:?}");
    let all = format!("{seen:?}{there:?}");
    for private in ["messi", "henderson", "lineker", "rahasia", "nobody"] {
        assert!(!all.contains(private), "{private} is in {all}");
    }
}

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn file(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).expect("the file is there")
}

/// The expressions of the alert rules, with their names.
fn rules() -> Vec<(String, String)> {
    let text = file("deploy/prometheus/antar.rules.yml");
    let alerts = text.split("- alert: ").skip(1);
    let rules: Vec<_> = alerts
        .map(|alert| {
            let name = alert.lines().next().expect("a name").to_owned();
            let expr =
                alert.lines().find_map(|line| line.trim().strip_prefix("expr: ")).expect("an expression");
            (name, serde_json::from_str(expr).expect("it is quoted as JSON would"))
        })
        .collect();
    assert!(rules.len() >= 10);
    rules
}

/// The expressions of the board.
fn panels() -> Vec<String> {
    let board: serde_json::Value = serde_json::from_str(&file("deploy/grafana/antar.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect()
}

/// The selectors in an expression, which has to be one.
fn selectors(expr: &str) -> Vec<VectorSelector> {
    fn find(expr: &Expr, found: &mut Vec<VectorSelector>) {
        match expr {
            Expr::Aggregate(of) => find(&of.expr, found),
            Expr::Unary(of) => find(&of.expr, found),
            Expr::Paren(of) => find(&of.expr, found),
            Expr::Subquery(of) => find(&of.expr, found),
            Expr::Binary(of) => {
                find(&of.lhs, found);
                find(&of.rhs, found);
            }
            Expr::Call(of) => of.args.args.iter().for_each(|arg| find(arg, found)),
            Expr::VectorSelector(of) => found.push(of.clone()),
            Expr::MatrixSelector(of) => found.push(of.vs.clone()),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
        }
    }
    // What Grafana fills in.
    let expr = expr.replace("$realm", ".*");
    let mut found = Vec::new();
    find(&parse(&expr).unwrap_or_else(|error| panic!("{expr}: {error}")), &mut found);
    assert!(!found.is_empty(), "{expr}");
    found
}

/// Names that are there only after something rare, or on one broker.
const RARE: [&str; 9] = [
    "antar_connections_refused_total",
    "antar_lane_failures_total",
    "antar_dead_letters_total",
    "antar_lane_waiting",
    "antar_peer_clock_offset_seconds",
    "antar_stream_bytes",
    "antar_storage_limit_bytes",
    "antar_broker_events",
    "antar_sends_failed_total",
];

#[test]
fn rules_board_and_document_name_what_is_exported_and_nothing_else() {
    let (server, _chats) = busy();
    eventually("the message is counted", || {
        (sum(&scrape(&server, "realm2"), "antar_delivered_messages_total", &[]) == 1.0).then_some(())
    });
    let mut exported = names(&scrape(&server, "realm1"));
    exported.append(&mut names(&scrape(&server, "realm2")));
    let histogram = ["antar_send_seconds_bucket", "antar_send_seconds_sum", "antar_send_seconds_count"];
    assert!(histogram.iter().all(|part| exported.contains(*part)));
    let used = rules().into_iter().map(|(_, expr)| expr).chain(panels());
    let used: BTreeSet<String> =
        used.flat_map(|expr| selectors(&expr)).filter_map(|selector| selector.name).collect();
    for name in used.iter().filter(|name| *name != "up") {
        assert!(exported.contains(name) || RARE.contains(&name.as_str()), "{name} is not exported");
    }
    let document = file("proto-docs/metrics.md");
    let documented: BTreeSet<&str> =
        document.split('`').filter(|word| word.starts_with("antar_") && !word.contains(' ')).collect();
    for name in &exported {
        let name = if histogram.contains(&name.as_str()) { "antar_send_seconds" } else { name.as_str() };
        assert!(documented.contains(name), "{name} is not in proto-docs/metrics.md");
    }
    for name in documented.iter().filter(|name| **name != "antar_send_seconds") {
        assert!(exported.contains(*name) || RARE.contains(name), "{name} is in the document only");
    }
}

#[test]
fn a_lane_that_is_stuck_is_alarmed_with_its_reason_and_no_longer_once_it_goes_on() {
    let (server, [mut messi, mut lineker]) = busy();
    server.operate(&["realm", "pause", "realm2"]);
    let (_, alarm) =
        rules().into_iter().find(|(name, _)| name == "AntarLaneStuck").expect("the rule is there");
    let wanted: BTreeSet<String> =
        selectors(&alarm).into_iter().filter_map(|selector| selector.name).collect();
    assert_eq!(
        wanted.iter().map(String::as_str).collect::<Vec<_>>(),
        ["antar_lane_queued", "antar_lane_waiting"]
    );
    let is_alarmed = |seen: &BTreeMap<String, f64>| {
        // What the rule asks for: both above nothing for the same realm and peer.
        wanted.iter().all(|name| sum(seen, name, &["realm=\"realm1\"", "peer=\"realm2\""]) > 0.0)
    };
    let seen = eventually("it is alarmed", || {
        // A lane that has just heard that the other realm takes envelopes believes it for a second.
        ok(messi.cmd("sendprivaterealm realm2 lineker halo"));
        Some(scrape(&server, "realm1")).filter(is_alarmed)
    });
    assert_eq!(sum(&seen, "antar_lane_waiting", &["reason=\"peer-paused\""]), 1.0, "{seen:?}");
    assert_eq!(sum(&seen, "antar_lane_state", &["state=\"waiting\""]), 1.0, "{seen:?}");
    assert!(sum(&seen, "antar_lane_failures_total", &["reason=\"peer-paused\""]) >= 1.0, "{seen:?}");
    server.operate(&["realm", "resume", "realm2"]);
    lineker.event_among("message");
    eventually("it is no longer alarmed", || {
        let seen = scrape(&server, "realm1");
        (!is_alarmed(&seen) && sum(&seen, "antar_lane_state", &["state=\"up\""]) == 1.0).then_some(())
    });
}
