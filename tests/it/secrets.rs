//! No password, no token and no text of a message ever stands in a log.

use super::BROKER;
use crate::harness::{Chat, ok, refused, text};

const TEXT: &str = "kenari-teks-4711";
const SECRET: &str = "kenari-sandi-4711";
const WRONG: &str = "kenari-salah-4711";

#[test]
fn passwords_tokens_and_texts_never_stand_in_the_log() {
    for level in ["info", "trace"] {
        let mut server = BROKER.demo_builder().env("LOG__LEVEL", level).start();
        let mut conn = server.connect("realm1");
        let reply = ok(conn.ask(&format!("register xavi {SECRET} Spanyol Xavi")));
        let token = text(&reply, "tokenid").to_owned();
        refused(conn.ask(&format!("auth xavi {WRONG}")), "bad-password");
        let mut messi = Chat::login(&server, "realm1", "messi");
        ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
        ok(messi.cmd(&format!("send xavi {TEXT}")));
        ok(messi.cmd(&format!("sendgrouprealm realm2 lineker,pele {TEXT}")));
        refused(messi.cmd(&format!("send pele {TEXT}")), "no-such-user");
        messi.cmd(&format!("sned xavi {TEXT}"));
        messi.ask(&format!("send {TEXT}"));
        messi.cmd(&format!("send xavi {TEXT}\0"));
        ok(conn.ask(&format!("inbox {token}")));
        ok(conn.ask(&format!("passwd {token} {SECRET} {SECRET}2")));
        let mut lineker = Chat::login(&server, "realm2", "lineker");
        lineker.realm_inbox_of("realm1", 1);
        messi.realm_inbox_of("realm2", 1);
        let tokens = [token, messi.token.clone(), lineker.token.clone()];
        ok(messi.cmd("logout"));
        server.sigterm();
        let log = server.log();
        for secret in [TEXT, SECRET, WRONG].into_iter().chain(tokens.iter().map(String::as_str)) {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "a secret stands in the log at level {level}");
        }
    }
}

#[test]
fn a_name_that_does_not_exist_is_not_logged_since_people_type_passwords_there() {
    let mut server = BROKER.demo();
    refused(server.connect("realm1").ask(&format!("auth {WRONG} x")), "no-such-account");
    server.sigterm();
    assert!(!server.log().contains(WRONG), "what may be a password stands in the log");
}

#[test]
fn passwords_and_tokens_are_not_in_the_database_either() {
    let mut server = BROKER.serve().start();
    let mut conn = server.connect("realm1");
    let reply = ok(conn.ask(&format!("register xavi {SECRET} Spanyol Xavi")));
    let token = text(&reply, "tokenid").to_owned();
    ok(conn.ask(&format!("whoami {token}")));
    server.sigterm();
    for entry in std::fs::read_dir(server.dir()).expect("the directory is there").flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        for secret in [SECRET, &token] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret in clear", entry.path().display());
        }
    }
}
