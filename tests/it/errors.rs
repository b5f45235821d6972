//! The tables of errors: each code with its exact message, and that a session goes on after each.

use super::BROKER;
use crate::harness::{Chat, ok, refused};

const NO_TOKEN: &str = "9e3b6f1c-0000-4000-8000-000000000000";

#[test]
fn every_command_with_a_session_refuses_a_dead_token() {
    let server = BROKER.demo();
    let mut conn = server.connect("realm1");
    for spec in antar_proto::command::COMMANDS.iter().filter(|spec| spec.session) {
        let args =
            ["messi", "x1", "x2", "x3"].iter().take(spec.args_min - 1).copied().collect::<Vec<_>>().join(" ");
        for name in spec.names {
            let reply = refused(conn.ask(&format!("{name} {NO_TOKEN} {args}")), "not-authorized");
            if *name == "logout" {
                assert_eq!(reply["message"], "WARNING! ERROR silahkan login terlebih dahulu");
            } else {
                assert_eq!(reply["message"], "Session Tidak Ditemukan", "{name}");
            }
        }
    }
    refused(conn.ask(&format!("addrealm {NO_TOKEN} realm2 127.0.0.1 4002")), "not-authorized");
    refused(conn.ask("addrealm realm2 127.0.0.1 4002"), "not-authorized");
}

#[test]
fn every_command_refuses_too_few_and_too_many_arguments() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for spec in antar_proto::command::COMMANDS {
        for name in spec.names {
            if spec.args_min > 0 {
                let words = vec!["x"; spec.args_min - 1].join(" ");
                refused(messi.ask(format!("{name} {words}").trim_end()), "bad-request");
            }
            if !spec.text {
                let words = vec!["x"; spec.args_max + 1].join(" ");
                refused(messi.ask(&format!("{name} {words}")), "bad-request");
            }
        }
    }
    ok(messi.cmd("whoami"));
}

#[test]
fn unknown_receivers_and_realms_are_told_apart() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for command in ["send pele hai", "sendprivate pele hai", "sendgroup pele,zidane hai", "getpresence pele"]
    {
        refused(messi.cmd(command), "no-such-user");
    }
    for command in [
        "sendprivaterealm realm2 lineker hai",
        "sendgrouprealm realm2 lineker hai",
        "sendprivaterealm nirgends lineker hai",
        "getrealminbox nirgends",
        "send lineker@nirgends hai",
    ] {
        refused(messi.cmd(command), "no-such-realm");
    }
    refused(messi.cmd("sendgroup #tim hai"), "no-such-group");
    refused(messi.cmd("status 0192d4d5-0000-7000-8000-000000000000"), "no-such-message");
    refused(messi.cmd("status bukan-id"), "no-such-message");
}

#[test]
fn a_realm_added_twice_is_told_so() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    refused(messi.ask("addrealm realm2 127.0.0.1 4002"), "realm-exists");
    refused(messi.cmd("addrealm realm2 elsewhere 1"), "realm-exists");
    ok(messi.cmd("sendprivaterealm realm2 lineker masih jalan"));
}

#[test]
fn a_port_must_be_a_port() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    for port in ["0", "65536", "-1", "x", "4002x", ""] {
        let reply = messi.cmd(&format!("addrealm realm2 127.0.0.1 {port}"));
        assert_eq!(reply["status"], "ERROR", "{port}: {reply}");
    }
    refused(messi.cmd("sendprivaterealm realm2 lineker hai"), "no-such-realm");
}

#[test]
fn uniform_errors_do_not_tell_which_accounts_exist() {
    let server = BROKER.serve().env("AUTH__UNIFORM_ERRORS", "true").start();
    let mut conn = server.connect("realm1");
    let unknown = refused(conn.ask("auth pele surabaya"), "bad-credentials");
    let wrong = refused(conn.ask("auth messi jakarta"), "bad-credentials");
    assert_eq!(unknown, wrong);
    ok(conn.ask("auth messi surabaya"));
}
