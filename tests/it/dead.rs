//! `antar dead list`, `show`, `redrive` and `drop`: what could not be delivered, and what becomes of it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::BROKER;
use crate::harness::{Chat, Output, Server, antar, eventually, ok, text, texts};

/// Runs `antar dead … --realm realm2` for an operator of this server.
fn dead(server: &Server, args: &[&str]) -> Output {
    let operator = server.operator();
    let realm = ["--realm", "realm2"];
    antar(["dead"].iter().chain(args).chain(&realm).copied().chain(operator.iter().map(String::as_str)))
}

fn listed(server: &Server, args: &[&str]) -> Vec<Value> {
    dead(server, &[&["list", "--json"], args].concat()).exits(0).json_lines()
}

/// messi of realm1, which has added realm2, and lineker of realm2, who does not get what messi writes: it is put aside.
fn strangers(server: &Server) -> [Chat; 2] {
    let mut messi = Chat::login(server, "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    let lineker = Chat::login(server, "realm2", "lineker");
    server.operate(&["realm", "block", "realm2", "realm1"]);
    [messi, lineker]
}

/// Sends a message that is put aside, and waits until its sender was told.
fn send(messi: &mut Chat, words: &str) -> String {
    let sent = ok(messi.cmd(&format!("sendprivaterealm realm2 lineker {words}")));
    let id = text(&sent, "message_id").to_owned();
    reaches(messi, &id, "failed");
    id
}

#[track_caller]
fn reaches(chat: &mut Chat, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), || {
        (ok(chat.cmd(&format!("status {id}")))["state"] == state).then_some(())
    });
}

#[test]
fn a_dead_letter_is_listed_shown_and_redriven_once_it_may_be_and_its_sender_is_told() {
    let server = BROKER.demo();
    let [mut messi, mut lineker] = strangers(&server);
    let id = send(&mut messi, "terlambat");
    let letter = listed(&server, &[]).remove(0);
    assert_eq!((text(&letter, "code"), text(&letter, "state")), ("realm-blocked", "open"));
    assert_eq!((text(&letter, "origin"), &letter["proven"]), ("realm1", &Value::Bool(true)));
    assert_eq!(letter["ids"], json!([id]));
    let seq = letter["letter"].to_string();
    let said = dead(&server, &["list"]).exits(0).stdout;
    assert!(said.contains("realm-blocked") && said.contains(&seq), "{said}");
    let shown = dead(&server, &["show", &seq, "--json"]).exits(0).json_lines().remove(0);
    let envelope: Value = serde_json::from_str(text(&shown, "body")).expect("the envelope as it came");
    assert_eq!((text(&envelope, "id"), text(&envelope, "text")), (&*id, "terlambat"));
    assert_eq!(shown["headers"].as_array().map(Vec::len), Some(2), "{shown}");
    assert!(dead(&server, &["show", &seq]).exits(0).stdout.contains("terlambat"));

    let said = dead(&server, &["redrive", &seq]).exits(5).stderr;
    assert!(said.contains("realm1 is blocked") && said.contains("realm-blocked"), "{said}");
    server.operate(&["realm", "unblock", "realm2", "realm1"]);
    let done = dead(&server, &["redrive", &seq, "--by", "jaga malam", "--json"]).exits(0).json_lines();
    assert_eq!(
        done[0],
        json!({"letter": letter["letter"], "state": "redriven", "ids": [id], "already": false})
    );
    let again = dead(&server, &["redrive", &seq, "--json"]).exits(0).json_lines();
    assert_eq!(again[0]["already"], true);
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["terlambat"]);
    reaches(&mut messi, &id, "read");
    assert!(listed(&server, &[]).is_empty());
    let all = listed(&server, &["--all-states"]);
    assert_eq!((text(&all[0], "state"), text(&all[0], "by")), ("redriven", "jaga malam"));
    let said = dead(&server, &["list"]).exits(0);
    assert!(said.stdout.is_empty() && said.stderr.contains("no dead letters"), "{said:?}");
    assert!(!server.log().contains("terlambat"), "no text in the log");
}

#[test]
fn letters_are_chosen_dropped_and_redriven_together() {
    let server = BROKER.demo();
    let [mut messi, mut lineker] = strangers(&server);
    for words in ["satu", "dua", "tiga"] {
        send(&mut messi, words);
    }
    let letters = listed(&server, &[]);
    let seq = |at: usize| letters[at]["letter"].to_string();
    assert_eq!(letters.len(), 3);
    assert_eq!(listed(&server, &["--limit", "1"]), letters[..1], "the newest first");
    assert_eq!(listed(&server, &["--limit", "1", "--oldest-first"]), letters[2..]);
    assert_eq!(listed(&server, &["--reason", "unsigned"]), [] as [Value; 0]);
    assert_eq!(listed(&server, &["--origin", "realm1"]), letters);
    assert_eq!(listed(&server, &["--origin", "realm9"]), [] as [Value; 0]);
    let dropped = dead(&server, &["drop", &seq(1), "--json"]).exits(0).json_lines();
    assert_eq!(dropped[0]["state"], "dropped");
    let said = dead(&server, &["redrive", &seq(1)]).exits(5).stderr;
    assert!(said.contains("was dropped"), "{said}");
    let said = dead(&server, &["redrive", "--all"]).exits(5);
    assert!(said.stderr.contains("2 of 2 letters were refused"), "{said:?}");
    server.operate(&["realm", "unblock", "realm2", "realm1"]);
    dead(&server, &["redrive", "--reason", "realm-blocked"]).exits(0);
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 2)), ["satu", "tiga"]);
    assert_eq!(listed(&server, &["--all-states"]).len(), 3);
    dead(&server, &["drop", &seq(0)]).exits(5);
    dead(&server, &["show", "4711"]).exits(5);
    dead(&server, &["redrive"]).exits(2);
}

#[test]
fn a_redrive_that_is_killed_half_way_and_repeated_delivers_each_message_once() {
    let mut server = BROKER.demo();
    let [mut messi, lineker] = strangers(&server);
    let ids: Vec<String> = (0..20).map(|n| send(&mut messi, &n.to_string())).collect();
    server.operate(&["realm", "unblock", "realm2", "realm1"]);
    let mut redrive = Command::new(env!("CARGO_BIN_EXE_antar"))
        .args(
            ["dead", "redrive", "--all", "--realm", "realm2"]
                .iter()
                .copied()
                .map(str::to_owned)
                .chain(server.operator()),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    eventually("some are redriven", || (listed(&server, &[]).len() < 18).then_some(()));
    server.crash();
    // On NATS it would wait for an answer.
    let _ = redrive.kill();
    let _ = redrive.wait();
    dead(&server, &["redrive", "--all"]).exits(0);
    let mut lineker = lineker.again(&server, "realm2");
    let read = lineker.realm_inbox_of("realm1", 20);
    let mut numbers: Vec<u32> = texts(&read).iter().map(|words| words.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert!(lineker.realm_inbox("realm1").is_empty(), "none came twice");
    let mut messi = messi.again(&server, "realm1");
    for id in &ids {
        reaches(&mut messi, id, "read");
    }
}
