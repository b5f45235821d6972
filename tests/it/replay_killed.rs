//! `antar replay --export` and `--import` under kill -9: nothing is left half, and what is repeated is there once.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::BROKER;
use super::replay::{entries, replay};
use crate::harness::{Chat, Server, antar_with_input, eventually, ok, text, texts};

/// How many messages there are, and letters in each: some megabytes.
const MESSAGES: usize = 600;
const LETTERS: usize = 8_000;
/// How often an export is killed until one was in its middle; the first is, where nothing else runs.
const KILLS_MAX: usize = 50;
/// An import that takes fifty times as long as it took to send what is imported: time enough to be killed in its middle.
const SLOWLY: [&str; 2] = ["--speed", "0.02"];

/// A realm in which henderson has written much to messi.
fn talked() -> Server {
    let server = BROKER.demo();
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let words = "a".repeat(LETTERS);
    for round in 0..MESSAGES / 20 {
        for n in 0..20 {
            henderson.start(&format!("send messi {:04} {words}", round * 20 + n));
        }
        for _ in 0..20 {
            ok(henderson.reply());
        }
    }
    server
}

/// Starts `antar replay …` for an operator of this server.
fn start(server: &Server, env: &[(&str, &str)], args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_antar"))
        .arg("replay")
        .args(server.operator())
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// Kills it; whether it had not ended by itself.
fn kill9(mut child: Child) -> bool {
    let was_running = child.try_wait().expect("it is ours").is_none();
    let _ = child.kill();
    let ended = child.wait().expect("it is ours");
    was_running && !ended.success()
}

/// The draft of an export.
fn drafts(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(dir).expect("it is there").flatten().map(|file| file.path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "partial")).collect()
}

#[test]
fn an_export_that_is_killed_leaves_no_file_of_its_name_and_its_draft_is_refused() {
    let server = talked();
    let dir = server.dir().join("exports");
    fs::create_dir(&dir).expect("a directory of ours");
    let file = dir.join("export.jsonl");
    let name = file.to_str().expect("a temporary path is UTF-8");
    let args = ["--realm", "realm1", "--export", name];
    let mut was_in_its_middle = false;
    for _ in 0..KILLS_MAX {
        let mut child = start(&server, &[], &args);
        eventually("it has written something, or has ended", || {
            let has_begun =
                drafts(&dir).iter().any(|draft| draft.metadata().is_ok_and(|about| about.len() > 0));
            (has_begun || child.try_wait().expect("it is ours").is_some()).then_some(())
        });
        let was_running = kill9(child);
        let left = drafts(&dir);
        // Either it was renamed before, and then it is whole, or there is no file of this name.
        assert!(!file.exists() || left.is_empty(), "{left:?}");
        was_in_its_middle = was_running && !file.exists() && left.len() == 1;
        if was_in_its_middle {
            break;
        }
        fs::remove_file(&file).expect("it was whole");
    }
    assert!(was_in_its_middle, "it was never killed in its middle");
    let draft = drafts(&dir).remove(0);
    let draft = draft.to_str().expect("a temporary path is UTF-8");
    let refused = replay(&server, &["--import", draft, "--into", "realm2"]).exits(1);
    assert!(refused.stderr.contains("ends at byte"), "{refused:?}");
    assert!(entries(&server, "realm2", &["--kind", "mail"]).is_empty(), "nothing was taken");
    // The same command again makes the file.
    replay(&server, &args).exits(0);
    let done = replay(&server, &["--import", name, "--into", "realm2", "--format", "json"]).exits(0);
    assert_eq!(done.json_lines()[0]["copied"], 2 * MESSAGES, "the message, and its sender's copy");
}

/// How many copies a realm has.
fn copies(server: &Server) -> usize {
    entries(server, "sandbox", &["--kind", "mail", "--no-text"]).len()
}

#[test]
fn an_import_that_is_killed_and_repeated_is_complete_and_has_each_message_once() {
    let server = talked();
    let file = server.dir().join("export.jsonl");
    let file = file.to_str().expect("a temporary path is UTF-8");
    replay(&server, &["--realm", "realm1", "--export", file]).exits(0);
    let mut sandbox = BROKER.serve_as("sandbox").start();
    let key = sandbox.dir().join("sandbox.nk");
    let env = [("ANTAR__REALM__KEY_FILE", key.to_str().expect("a temporary path is UTF-8"))];
    let import = ["--import", file, "--into", "sandbox", "--format", "json"];
    // Once while the realm is served, and once while the command itself is the realm.
    for is_served in [true, false] {
        if !is_served {
            sandbox.sigterm();
        }
        let before = copies(&sandbox);
        let child = start(&sandbox, &env, &[&import[..], &SLOWLY].concat());
        eventually("something was copied", || (copies(&sandbox) > before).then_some(()));
        assert!(kill9(child), "it was in the middle");
        assert!(copies(&sandbox) < 2 * MESSAGES);
    }
    sandbox.start();
    let there = copies(&sandbox);
    let again = |expected: usize| -> Value {
        let operator = sandbox.operator();
        let args = ["replay"].iter().chain(&import).copied().chain(operator.iter().map(String::as_str));
        let done = antar_with_input(args, &env, "").exits(0).json_lines().remove(0);
        assert_eq!(done["copied"], expected, "{done}");
        done
    };
    let done = again(2 * MESSAGES - there);
    assert_eq!(done["known"], there, "{done}");
    again(0);
    let mut messi = Chat::login(&sandbox, "sandbox", "messi");
    let got = messi.inbox();
    let numbers: Vec<&str> = texts(&got).into_iter().map(|words| &words[..4]).collect();
    let expected: Vec<String> = (0..MESSAGES).map(|n| format!("{n:04}")).collect();
    assert_eq!(numbers, expected, "once and in order");
    assert_eq!(text(&got[0], "from"), "henderson@sandbox");
}
