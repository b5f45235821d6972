//! `antar replay --export`, `--import` and `--into`: what a file keeps, and what comes of it in another realm.

use std::path::PathBuf;

use serde_json::Value;

use super::BROKER;
use super::replay::{entries, replay};
use crate::harness::{Chat, Server, antar, antar_with_input, eventually, ok, text, texts};

/// realm1 and realm2 with some talk in and between them; messi of realm1 has read nothing.
fn talked() -> Server {
    let server = BROKER.demo();
    let [mut messi, mut henderson] = ["messi", "henderson"].map(|user| Chat::login(&server, "realm1", user));
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    eventually("realm2 knows realm1", || {
        (lineker.cmd("sendprivaterealm realm1 messi dari sebelah")["status"] == "OK").then_some(())
    });
    for n in 0..5 {
        ok(henderson.cmd(&format!("send messi halo {n}")));
    }
    ok(messi.cmd("sendgroup henderson,lineker semua"));
    Chat::register(&server, "realm1", "xavi");
    ok(messi.cmd("send xavi untuk xavi"));
    eventually("it has come", || {
        let got = entries(&server, "realm1", &["--grep", "dari sebelah", "--kind", "mail"]);
        (!got.is_empty()).then_some(())
    });
    server
}

fn path(server: &Server, name: &str) -> String {
    server.dir().join(name).to_str().expect("a temporary path is UTF-8").to_owned()
}

/// Exports realm1.
fn export(server: &Server) -> String {
    let file = path(server, "export.jsonl");
    let said = replay(server, &["--realm", "realm1", "--export", &file]).exits(0);
    assert!(said.stdout.is_empty() && said.stderr.contains("entries of realm realm1"), "{said:?}");
    file
}

fn into(server: &Server, realm: &str, args: &[&str]) -> Value {
    let args = [args, &["--into", realm, "--format", "json"]].concat();
    replay(server, &args).exits(0).json_lines().remove(0)
}

/// What was sent between the realms, or is on its way.
fn between(server: &Server) -> Vec<Value> {
    let of = |realm: &str| entries(server, realm, &["--kind", "inbox,outbox"]);
    [of("realm1"), of("realm2")].concat()
}

#[test]
fn the_users_of_a_sandbox_read_what_was_exported() {
    let server = talked();
    let file = export(&server);
    assert_eq!(std::fs::read(&file).expect("readable"), {
        let again = export(&server);
        std::fs::read(again).expect("readable")
    });
    let mut sandbox = BROKER.serve_as("sandbox").start();
    let done = into(&sandbox, "sandbox", &["--import", &file]);
    assert!(done["copied"].as_u64() > Some(10), "{done}");
    assert_eq!(done["unknown_users"], serde_json::json!({ "xavi": 1 }));

    let mut messi = Chat::login(&sandbox, "sandbox", "messi");
    let inbox = ok(messi.cmd("inbox"))["messages"].clone();
    let of = |sender: &str| inbox[sender].as_array().unwrap_or_else(|| panic!("{inbox}")).clone();
    let halo: Vec<String> = (0..5).map(|n| format!("halo {n}")).collect();
    assert_eq!(texts(&of("henderson")), halo, "in their order");
    assert_eq!(text(&of("henderson")[0], "from"), "henderson@sandbox");
    // The sandbox does not know realm2: what came from there stands where it is found.
    assert_eq!(texts(&of("lineker")), ["dari sebelah"]);
    assert_eq!(text(&of("lineker")[0], "from"), "lineker@realm2");
    let said = ok(messi.cmd("history henderson"));
    assert!(said.to_string().contains("halo 0") && said.to_string().contains("semua"), "{said}");
    messi.settle();

    // Again, served and not served: nothing is there twice.
    let again = into(&sandbox, "sandbox", &["--import", &file]);
    assert_eq!((&again["copied"], &again["known"]), (&0.into(), &done["copied"]));
    sandbox.sigterm();
    // Nobody serves the realm: the command is it for a moment, and needs its key.
    let key = path(&sandbox, "sandbox.nk");
    let operator = sandbox.operator();
    let args =
        ["replay", "--format", "json", "--import", &file, "--into", "sandbox", &operator[0], &operator[1]];
    let again =
        antar_with_input(args, &[("ANTAR__REALM__KEY_FILE", &key)], "").exits(0).json_lines().remove(0);
    assert_eq!(again["copied"], 0, "{again}");
    let copies = entries(&sandbox, "sandbox", &["--kind", "mail", "--user", "henderson"]);
    assert!(copies.iter().all(|entry| text(entry, "replayed").starts_with("realm1/")), "{copies:?}");
    assert!(entries(&sandbox, "sandbox", &["--kind", "inbox,outbox,dead"]).is_empty());
}

#[test]
fn a_copy_straight_from_the_log_reaches_nobody_else() {
    let server = talked();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let read = [messi.inbox(), messi.realm_inbox("realm2")].map(|read| read.len());
    assert_eq!(read, [5, 1]);
    messi.settle();
    // That it was read is told to realm2; then all is quiet.
    eventually("the receipt has come", || {
        let news = entries(&server, "realm2", &["--kind", "mail", "--grep", "\"read\""]);
        (!news.is_empty()).then_some(())
    });
    let before = between(&server);
    let done = into(&server, "realm2", &["--realm", "realm1", "--speed", "1000000"]);
    assert!(done["copied"].as_u64() > Some(10), "{done}");

    let mut there = Chat::login(&server, "realm2", "messi");
    let texts_there: Vec<String> =
        there.inbox().iter().map(|message| text(message, "msg").to_owned()).collect();
    assert!(
        texts_there.contains(&"halo 4".to_owned()) && texts_there.contains(&"dari sebelah".to_owned()),
        "{texts_there:?}"
    );
    there.settle();
    let again = into(&server, "realm2", &["--realm", "realm1"]);
    assert_eq!(again["copied"], 0, "{again}");
    ok(there.cmd("logout"));
    assert!(messi.inbox().is_empty() && messi.realm_inbox("realm2").is_empty());
    assert_eq!(between(&server), before, "no envelope, no receipt");
    // And what was copied does not come back as something new.
    let back = into(&server, "realm1", &["--realm", "realm2", "--kind", "mail"]);
    assert!(back["left_out"].as_u64() >= done["copied"].as_u64(), "{back}");
}

#[test]
fn nothing_is_copied_to_the_realm_that_it_came_from() {
    let server = talked();
    let file = export(&server);
    let before = entries(&server, "realm1", &[]);
    for args in [["--import", &file], ["--realm", "realm1"]] {
        let refused = replay(&server, &[&args[..], &["--into", "realm1"]].concat()).exits(5);
        assert!(refused.stderr.contains("came from realm realm1"), "{refused:?}");
    }
    assert_eq!(entries(&server, "realm1", &[]), before);
}

#[test]
fn an_export_that_is_not_as_it_was_written_is_not_taken() {
    let server = talked();
    let file = PathBuf::from(export(&server));
    let whole = std::fs::read(&file).expect("readable");
    let before = entries(&server, "realm2", &["--kind", "mail"]);
    let refuse = |bytes: &[u8], words: &str| {
        std::fs::write(&file, bytes).expect("writable");
        let refused =
            replay(&server, &["--import", file.to_str().expect("UTF-8"), "--into", "realm2"]).exits(1);
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    };
    let third =
        whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).map_or(0, |(at, _)| at + 1);
    let mut flipped = whole.clone();
    flipped[third + 30] ^= 1;
    refuse(&flipped, &format!("damaged at byte {third} (line 4)"));
    refuse(&whole[..third + 7], &format!("ends at byte {}", third + 7));
    refuse(&whole[..third], &format!("ends at byte {third}"));
    let mut longer = whole.clone();
    longer.extend_from_slice(b"\n");
    refuse(&longer, &format!("damaged at byte {}", whole.len()));
    refuse(b"halo\n", "no export of Antar");
    assert_eq!(entries(&server, "realm2", &["--kind", "mail"]), before, "nothing was taken");
    std::fs::write(&file, &whole).expect("writable");
    assert!(
        into(&server, "realm2", &["--import", file.to_str().expect("UTF-8")])["copied"].as_u64() > Some(0)
    );
    antar(["replay", "--import", "not-there.jsonl", "--into", "realm2"]).exits(1);
}
