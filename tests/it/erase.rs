//! `antar user remove --erase`: nothing of a person is left in the realm but what is others', and to repeat it is safe.

use std::process::{Command, Stdio};

use super::BROKER;
use super::replay::replay;
use crate::harness::{Chat, Output, PASSWORD, Server, antar, eventually, ok, refused, text, texts};

fn erase(server: &Server, user: &str) -> Output {
    let operator = server.operator();
    let args = ["user", "remove", user, "--erase", "--by", "jaga malam", "--json", "--realm", "realm1"];
    antar(args.into_iter().chain(operator.iter().map(String::as_str)))
}

/// The lines of realm1's log that have a text in them.
fn kept(server: &Server, what: &str) -> Vec<String> {
    let log = replay(server, &["--realm", "realm1", "--format", "json"]).exits(0).stdout;
    assert!(log.lines().count() > 1, "there is a log: {log}");
    log.lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
}

/// A user who has written, been written to, read, blocked and been blocked.
fn somebody(server: &Server) -> (Chat, Chat) {
    let mut messi = Chat::login(server, "realm1", "messi");
    let mut xavi = Chat::register(server, "realm1", "xavi");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    ok(xavi.cmd("send messi dari xavi"));
    ok(xavi.cmd("send xavi catatan rahasia"));
    ok(messi.cmd("send xavi untuk xavi"));
    xavi.inbox();
    let sent = ok(xavi.cmd("send lineker@realm2 ke sana"));
    eventually("it was delivered", || {
        let status = ok(xavi.cmd(&format!("status {}", text(&sent, "message_id"))));
        (status["state"] == "delivered").then_some(())
    });
    ok(messi.cmd("block xavi"));
    (messi, xavi)
}

#[test]
fn nothing_is_left_of_a_person_but_what_is_others() {
    let server = BROKER.demo();
    let (mut messi, xavi) = somebody(&server);
    assert!(!kept(&server, "catatan rahasia").is_empty());
    let erased = erase(&server, "xavi").exits(0).json_lines().remove(0);
    assert_eq!((text(&erased, "user"), &erased["known"] == true), ("xavi", true));
    assert!(erased["entries"].as_u64().is_some_and(|entries| entries >= 5), "{erased}");
    assert_eq!(erased["kept_by"].to_string(), r#"["realm2"]"#);
    refused(xavi.again(&server, "realm1").cmd("whoami"), "not-authorized");
    refused(messi.cmd("send xavi halo"), "no-such-user");
    assert!(ok(messi.cmd("blocks"))["blocks"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(texts(&messi.inbox()), ["dari xavi"], "what others received is theirs");
    let lines = kept(&server, "catatan rahasia");
    assert!(lines.is_empty(), "{lines:?}");
    // Who gets the name next finds nothing of who had it before.
    let mut namesake = Chat::register(&server, "realm1", "xavi");
    assert!(namesake.inbox().is_empty());
    assert!(ok(namesake.cmd("history"))["messages"].as_array().is_some_and(Vec::is_empty));
    assert!(namesake.realm_inbox("realm2").is_empty());
    ok(messi.cmd("send xavi selamat datang"));
    assert_eq!(texts(&namesake.inbox()), ["selamat datang"]);
}

#[test]
fn to_erase_again_completes_it_and_is_no_mistake() {
    let mut server = BROKER.demo();
    let (_messi, _xavi) = somebody(&server);
    // Wherever in it the program is killed, the same command again completes it.
    let operator = server.operator();
    let args = ["user", "remove", "xavi", "--erase", "--realm", "realm1"];
    let mut broken_off = Command::new(env!("CARGO_BIN_EXE_antar"))
        .args(args.into_iter().chain(operator.iter().map(String::as_str)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be started");
    server.crash();
    broken_off.wait().expect("it ends");
    for _ in 0..2 {
        erase(&server, "xavi").exits(0);
    }
    let again = erase(&server, "xavi").exits(0).json_lines().remove(0);
    assert_eq!((&again["known"] == false, again["entries"].as_u64()), (true, Some(0)), "{again}");
    refused(server.connect("realm1").ask(&format!("auth xavi {PASSWORD}")), "no-such-account");
    let mut namesake = Chat::register(&server, "realm1", "xavi");
    assert!(ok(namesake.cmd("history"))["messages"].as_array().is_some_and(Vec::is_empty));
}
