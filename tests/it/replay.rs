//! `antar replay`: what it shows, on both brokers, of realms that are served and that are not.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::BROKER;
use crate::harness::{Broker, Chat, Output, Server, antar, eventually, ok, text};

/// Runs `antar replay` on this server.
#[track_caller]
pub(crate) fn replay(server: &Server, args: &[&str]) -> Output {
    let operator = server.operator();
    antar(["replay"].iter().copied().chain(operator.iter().map(String::as_str)).chain(args.iter().copied()))
}

/// Entries of a realm as objects.
#[track_caller]
pub(crate) fn entries(server: &Server, realm: &str, args: &[&str]) -> Vec<Value> {
    let args = [&["--realm", realm, "--format", "json"], args].concat();
    replay(server, &args).exits(0).json_lines()
}

/// What a field says in each of these, without repetition.
fn all<'a>(entries: &'a [Value], field: &str) -> Vec<&'a str> {
    let mut found: Vec<&str> = entries.iter().map(|entry| entry[field].as_str().unwrap_or("")).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// A demo in which messi of realm1 has written to both realms, and everything has come to rest.
fn talked() -> (Server, [String; 3]) {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    let mut send = |line: &str| text(&ok(messi.cmd(line)), "message_id").to_owned();
    let local = send("send henderson halo bang hen");
    let remote = send("sendprivaterealm realm2 lineker halo realm sebelah");
    let nobody = send("sendprivaterealm realm2 pele halo pele");
    eventually("the news is there", || {
        let news = entries(&server, "realm1", &["--kind", "mail"]);
        let is_notice = |entry: &&Value| entry["type"] == "notice";
        let is_delivered = |entry: &&Value| entry["detail"]["state"] == "delivered";
        (news.iter().find(is_notice).is_some() && news.iter().find(is_delivered).is_some()).then_some(())
    });
    (server, [local, remote, nobody])
}

#[test]
fn the_same_range_always_gives_the_same_lines() {
    let (mut server, [local, remote, _]) = talked();
    let shown = |server: &Server, format: &str| {
        replay(server, &["--realm", "realm1", "--format", format, "--headers"]).exits(0).stdout
    };
    let (json, for_people) = (shown(&server, "json"), shown(&server, "text"));
    assert_eq!(shown(&server, "json"), json);
    server.sigterm();
    assert_eq!((shown(&server, "json"), shown(&server, "text")), (json.clone(), for_people.clone()));

    let all_entries: Vec<Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(all(&all_entries, "kind"), ["event", "inbox", "mail", "outbox"]);
    assert_eq!(all(&all_entries, "realm"), ["realm1"]);
    assert!(!json.contains("_lane") && !json.contains("_delivery"), "{json}");
    let times: Vec<&str> = all_entries.iter().map(|entry| text(entry, "time")).collect();
    assert!(times.is_sorted(), "{times:?}");
    let message = all_entries.iter().find(|entry| entry["subject"] == "realm.realm1.mail.henderson.local");
    let message = message.expect("it is there");
    assert_eq!(message["id"], local.as_str());
    assert_eq!((text(message, "from"), text(message, "text")), ("messi@realm1", "halo bang hen"));
    assert_eq!(message["to"], serde_json::json!(["henderson@realm1"]));
    assert!(message["seq"].is_u64() && message["headers"].is_object(), "{message}");
    let sent = all_entries.iter().find(|entry| entry["subject"] == "realm.realm1.outbox.realm2");
    let sent = sent.expect("it is there");
    assert_eq!((text(sent, "id"), &sent["to"]), (&*remote, &serde_json::json!(["lineker@realm2"])));
    assert_eq!(for_people.lines().count(), json.lines().count());
    assert!(!for_people.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn every_option_chooses_what_it_says() {
    let (server, [local, remote, nobody]) = talked();
    let of = |args: &[&str]| entries(&server, "realm1", args);
    let everything = of(&[]);
    assert_eq!(all(&of(&["--kind", "outbox,event"]), "kind"), ["event", "outbox"]);
    assert!(of(&["--kind", "dead"]).is_empty());

    let about: Vec<String> = of(&["--id", &remote]).iter().map(ToString::to_string).collect();
    assert!(about.len() >= 5 && about.iter().all(|line| line.contains(&remote)), "{about:?}");
    let told: usize = everything.iter().filter(|entry| entry.to_string().contains(&remote)).count();
    assert_eq!(about.len(), told, "also receipts and news that speak of it");

    assert_eq!(all(&of(&["--grep", "sebelah"]), "id"), [&*remote]);
    assert_eq!(all(&of(&["--user", "henderson"]), "id"), [&*local]);
    assert_eq!(all(&of(&["--user", "lineker@realm2", "--kind", "mail,outbox"]), "id"), [&*remote]);
    assert!(of(&["--user", "lineker"]).is_empty(), "lineker of realm1 has got nothing");
    let receipts = of(&["--user", "pele@realm2", "--kind", "inbox"]);
    assert!(receipts.len() == 1 && receipts[0].to_string().contains(&nobody), "{receipts:?}");
    let peer = of(&["--peer", "realm2"]);
    assert!(!peer.is_empty() && peer.iter().all(|entry| entry["id"] != local.as_str()), "{peer:?}");
    assert_eq!(of(&["--limit", "2"]), everything[..2]);

    let silent = replay(&server, &["--realm", "realm1", "--no-text"]).exits(0).stdout;
    assert!(!silent.contains("halo bang hen"), "{silent}");
    assert!(of(&["--no-text"]).iter().all(|entry| entry.get("text").is_none()));
    assert_eq!(of(&["--speed", "1000"]), everything);
}

#[test]
fn a_range_has_the_ends_that_were_named() {
    let (server, _) = talked();
    let of = |args: &[&str]| entries(&server, "realm1", args);
    let everything = of(&[]);
    let (first, last) = (&everything[2], &everything[6]);
    let range = of(&["--from", text(first, "time"), "--to", text(last, "time")]);
    let within = |entry: &&Value| (text(first, "time")..=text(last, "time")).contains(&text(entry, "time"));
    assert_eq!(range, everything.iter().filter(within).cloned().collect::<Vec<_>>());
    assert_eq!(of(&["--from", "-1h"]), everything);
    assert!(of(&["--to", "-1h"]).is_empty() && of(&["--from", "2100-01-01"]).is_empty());

    // Sequences: of one stream they say the same on every broker.
    let mail = of(&["--kind", "mail"]);
    let seq = |entry: &Value| entry["seq"].to_string();
    let some = of(&["--kind", "mail", "--from", &seq(&mail[1]), "--to", &seq(&mail[3])]);
    assert_eq!(some, mail[1..=3]);
    // And an entry that is named is where the others begin, too.
    let from = format!("mail:{}", mail[1]["seq"]);
    let behind = of(&["--from", &from]);
    assert!(behind.contains(&mail[1]) && !behind.contains(&mail[0]), "{behind:?}");
    assert!(behind.iter().all(|entry| text(entry, "time") >= text(&mail[1], "time")), "{behind:?}");
    let plain = replay(&server, &["--realm", "realm1", "--from", &seq(&mail[1])]);
    match BROKER {
        Broker::Sqlite => assert!(plain.exits(0).stdout.contains("halo"), "one sequence serves all"),
        Broker::Nats => {
            let refused = plain.exits(2);
            assert!(refused.stderr.contains("mail:") && refused.stderr.contains("--kind"), "{refused:?}");
        }
    }
}

/// `antar replay --follow`, and what it has shown.
struct Following {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Following {
    fn start(server: &Server, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_antar"))
            .args(["replay", "--follow", "--format", "json"])
            .args(server.operator())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("it was piped"));
        Self { child, lines }
    }

    /// The next entry with this text.
    fn wait_for(&mut self, wanted: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).expect("readable") > 0, "it ended before {wanted:?}");
            let entry: Value = serde_json::from_str(&line).expect("JSON");
            if entry["text"] == wanted {
                return entry;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_followed_is_shown_as_it_is_stored() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("send henderson nol"));
    let mut following =
        Following::start(&server, &["--realm", "realm1", "--kind", "mail", "--user", "henderson"]);
    assert_eq!(following.wait_for("nol")["subject"], "realm.realm1.mail.henderson.local");
    for word in ["satu", "dua", "tiga"] {
        ok(messi.cmd(&format!("send henderson {word}")));
        following.wait_for(word);
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (server, _) = talked();
    let mut child = Command::new(env!("CARGO_BIN_EXE_antar"))
        .args(["replay", "--realm", "realm1"])
        .args(server.operator())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn what_cannot_be_read_says_why_by_its_exit_code() {
    let server = BROKER.demo();
    let one = |args: &[&str], code: i32, words: &str| {
        let output = replay(&server, args).exits(code);
        assert!(output.stderr.contains(words), "{output:?}");
    };
    one(&[], 2, "realm1, realm2");
    one(&["--realm", "realm9"], 1, "no realm realm9");
    one(&["--realm", "realm1", "--from", "yesterday"], 2, "KIND:SEQ");
    one(&["--realm", "realm1", "--kind", "post"], 2, "outbox");
    one(&["--realm", "realm1", "--user", "a@b@c"], 2, "NAME@REALM");
    one(&["--realm", "realm1", "--speed", "0"], 2, "above 0");
    one(&["--realm", "realm1", "--follow", "--to", "-1m"], 2, "--follow");
    one(&["--import", "x.jsonl"], 2, "--into");
    let gone = match BROKER {
        Broker::Sqlite => "sqlite:not-there.db",
        Broker::Nats => "nats://127.0.0.1:1",
    };
    antar(["replay", "--realm", "realm1", "--broker", gone]).exits(3);
    assert!(!std::path::Path::new("not-there.db").exists());
}
