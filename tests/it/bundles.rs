//! Messages that came in together with others, in one entry of the inbox: `antar replay` and `antar trace` find each.

use serde_json::Value;

use super::BROKER;
use super::replay::{entries, replay};
use crate::harness::{Chat, Server, antar, ok, text, texts};

/// How many messages messi sends; henderson sends one more, in their middle.
const MESSAGES: usize = 6;

/// realm2 is paused, and messages for lineker there wait in the lane: their ids, henderson's last.
fn waiting(server: &Server) -> (Chat, Vec<String>) {
    let mut messi = Chat::login(server, "realm1", "messi");
    let mut henderson = Chat::login(server, "realm1", "henderson");
    let lineker = Chat::login(server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    server.operate(&["realm", "pause", "realm2"]);
    let send = |chat: &mut Chat, words: &str| {
        let sent = ok(chat.cmd(&format!("sendprivaterealm realm2 lineker {words}")));
        text(&sent, "message_id").to_owned()
    };
    let mut ids = Vec::new();
    let mut one = String::new();
    for n in 0..MESSAGES {
        if n == MESSAGES / 2 {
            one = send(&mut henderson, "dari henderson");
        }
        ids.push(send(&mut messi, &format!("pesan {n}")));
    }
    ids.push(one);
    (lineker, ids)
}

/// What a field says in each, in order.
fn each<'a>(entries: &'a [Value], field: &str) -> Vec<&'a str> {
    entries.iter().map(|entry| entry[field].as_str().unwrap_or("")).collect()
}

/// The sequences of the entries that have more than one line.
fn bundles(entries: &[Value]) -> Vec<&Value> {
    entries.iter().filter(|entry| entry["line"].as_u64() > Some(0)).map(|entry| &entry["seq"]).collect()
}

#[test]
fn each_envelope_of_a_bundle_is_shown_found_and_traced() {
    let server = BROKER.demo();
    let (mut lineker, ids) = waiting(&server);
    server.operate(&["realm", "resume", "realm2"]);
    let got = lineker.realm_inbox_of("realm1", MESSAGES + 1);
    assert_eq!(texts(&got)[MESSAGES / 2], "dari henderson");
    let of = |args: &[&str]| entries(&server, "realm2", &[&["--kind", "inbox"], args].concat());
    let all = of(&[]);
    assert!(!bundles(&all).is_empty(), "several came in together: {all:?}");
    let mut expected = ids.clone();
    let last = expected.pop().expect("there are some");
    expected.insert(MESSAGES / 2, last.clone());
    let messages: Vec<Value> = all.iter().filter(|entry| entry["type"] == "message").cloned().collect();
    assert_eq!(each(&messages, "id"), expected, "in their order");

    assert_eq!(each(&of(&["--user", "henderson@realm1"]), "id"), [&*last]);
    assert_eq!(each(&of(&["--user", "lineker"]), "id"), expected);
    assert_eq!(each(&of(&["--grep", "pesan 4"]), "id"), [&*ids[4]]);
    assert_eq!(of(&["--peer", "realm1"]), all);
    assert!(of(&["--peer", "realm9"]).is_empty());
    assert_eq!(of(&["--limit", "3"]), all[..3]);
    let said = replay(&server, &["--realm", "realm2", "--kind", "inbox"]).exits(0).stdout;
    assert!(said.contains("messi@realm1 > lineker@realm2") && said.contains("pesan 5"), "{said}");
    let operator = server.operator();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(each(&of(&["--id", id]), "id"), [id], "message {n}");
        let args = ["trace", id, "--format", "json"].into_iter().chain(operator.iter().map(String::as_str));
        let trace: Value = antar(args).exits(0).json_lines().remove(0);
        let hops = trace["hops"].as_array().expect("hops");
        let stored = hops.iter().find(|hop| hop["stage"] == "stored").expect("it came in");
        let entry = messages.iter().find(|entry| entry["id"] == id.as_str()).expect("it is shown");
        assert_eq!((&stored["seq"], text(stored, "realm")), (&entry["seq"], "realm2"), "{trace}");
    }
    // An export has the entry as it stands, once.
    let file = server.dir().join("export.jsonl");
    let file = file.to_str().expect("a temporary path is UTF-8");
    replay(&server, &["--realm", "realm2", "--kind", "inbox", "--id", &last, "--export", file]).exits(0);
    let lines = std::fs::read_to_string(file).expect("it was written");
    assert_eq!(lines.lines().count(), 3, "a head, one entry, an end: {lines}");
}

#[test]
fn each_envelope_of_a_bundle_that_was_put_aside_is_found_with_the_reason() {
    let server = BROKER.demo();
    let (_lineker, ids) = waiting(&server);
    server.operate(&["realm", "block", "realm2", "realm1"]);
    server.operate(&["realm", "resume", "realm2"]);
    let mut messi = Chat::login(&server, "realm1", "messi");
    crate::harness::eventually("the last one has come back", || {
        let state = ok(messi.cmd(&format!("status {}", ids[MESSAGES - 1])))["state"].clone();
        (state == "failed").then_some(())
    });
    let of = |args: &[&str]| entries(&server, "realm2", &[&["--kind", "dead"], args].concat());
    let all = of(&[]);
    assert!(!bundles(&all).is_empty(), "{all:?}");
    assert!(all.iter().all(|entry| entry["code"] == "realm-blocked"), "{all:?}");
    assert_eq!(all.len(), MESSAGES + 1);
    for id in &ids {
        assert_eq!(each(&of(&["--id", id]), "id"), [id]);
    }
    assert_eq!(each(&of(&["--user", "henderson@realm1"]), "id"), [&*ids[MESSAGES]]);
    assert_eq!(of(&["--peer", "realm1"]).len(), MESSAGES + 1);
}
