//! Accounts and sessions: logging in and out, registering, changing a password.

use super::BROKER;
use crate::harness::{Chat, PASSWORD, ok, refused, text};

#[test]
fn logout_ends_the_session_everywhere_and_no_other() {
    let server = BROKER.demo();
    let mut one = Chat::login(&server, "realm1", "messi");
    let mut same = one.again(&server, "realm1");
    let mut other = Chat::login(&server, "realm1", "messi");
    ok(one.cmd("logout"));
    refused(one.cmd("inbox"), "not-authorized");
    refused(same.cmd("send messi hai"), "not-authorized");
    refused(same.cmd("logout"), "not-authorized");
    ok(other.cmd("inbox"));
    // The connection itself goes on.
    ok(one.ask("auth messi surabaya"));
}

#[test]
fn a_token_is_not_tied_to_the_connection_that_made_it() {
    let server = BROKER.demo();
    let chat = Chat::login(&server, "realm1", "messi");
    let mut elsewhere = chat.again(&server, "realm1");
    drop(chat);
    ok(elsewhere.cmd("send messi dari sambungan lain"));
    assert_eq!(elsewhere.inbox().len(), 1);
}

#[test]
fn a_token_that_is_almost_right_or_of_another_realm_is_nobodys() {
    let server = BROKER.demo();
    let messi = Chat::login(&server, "realm1", "messi");
    let mut conn = server.connect("realm1");
    let mut expected = None;
    let last = messi.token.chars().next_back().expect("not empty");
    let other = if last == '0' { '1' } else { '0' };
    let one_off = format!("{}{other}", &messi.token[..messi.token.len() - 1]);
    let elsewhere = Chat::login(&server, "realm2", "messi").token;
    let upper = messi.token.to_uppercase();
    let long = messi.token.repeat(200);
    for wrong in [one_off.as_str(), &elsewhere, "x", "*", ">", "../../x", &long, &format!("{upper}x")] {
        let reply = refused(conn.ask(&format!("inbox {wrong}")), "not-authorized");
        assert_eq!(*expected.get_or_insert(reply.clone()), reply, "the same error for all: {wrong}");
    }
}

#[test]
fn registration_open_makes_an_account_that_can_chat() {
    let server = BROKER.demo();
    let mut conn = server.connect("realm1");
    let reply = ok(conn.ask("register xavi rahasia123 Spanyol Xavi Hernandez"));
    let token = text(&reply, "tokenid").to_owned();
    ok(conn.ask(&format!("send {token} messi halo dari xavi")));
    let mut messi = Chat::login(&server, "realm1", "messi");
    let read = messi.inbox();
    assert_eq!((text(&read[0], "msg_from"), text(&read[0], "from")), ("Xavi Hernandez", "xavi@realm1"));
    Chat::login_with(&server, "realm1", "xavi", "rahasia123");
    refused(conn.ask("register xavi rahasia456 Spanyol Xavi Lain"), "user-exists");
    refused(conn.ask("register messi rahasia456 Spanyol Bukan Messi"), "user-exists");
    refused(conn.ask("auth xavi rahasia456"), "bad-password");
    refused(server.connect("realm2").ask("auth xavi rahasia123"), "no-such-account");
}

#[test]
fn registration_is_closed_by_default() {
    let server = BROKER.serve().env("AUTH__REGISTRATION", "closed").start();
    let mut conn = server.connect("realm1");
    refused(conn.ask("register xavi rahasia123 Spanyol Xavi"), "registration-closed");
    refused(conn.ask("auth xavi rahasia123"), "no-such-account");
}

#[test]
fn an_invitation_lets_as_many_in_as_it_says() {
    let server = BROKER.serve().env("AUTH__REGISTRATION", "invite").start();
    let mut conn = server.connect("realm1");
    refused(conn.ask("register xavi rahasia123 Spanyol Xavi"), "registration-closed");
    refused(conn.ask("register xavi rahasia123 Spanyol Xavi invite=tebakan"), "registration-closed");
    let made = server.operate(&["user", "invite", "--uses", "2", "--realm", "realm1"]);
    let code = made.stdout.split_whitespace().next_back().expect("the code is shown").to_owned();
    for user in ["xavi", "iniesta"] {
        ok(conn.ask(&format!("register {user} rahasia123 Spanyol Si {user} invite={code}")));
        Chat::login_with(&server, "realm1", user, "rahasia123");
    }
    refused(
        conn.ask(&format!("register pique rahasia123 Spanyol Si Pique invite={code}")),
        "registration-closed",
    );
}

#[test]
fn a_bad_name_or_a_weak_password_makes_no_account() {
    let server = BROKER.demo();
    let mut conn = server.connect("realm1");
    for name in [
        "a.b",
        "*",
        ">",
        "../x",
        "Xavi",
        "-x",
        "x@y",
        "x,y",
        "#x",
        "меssi",
        "me\u{202e}ssi",
        &"x".repeat(256),
    ] {
        refused(conn.ask(&format!("register {name} rahasia123 Spanyol Nama")), "bad-name");
    }
    for password in ["x", "pendek7"] {
        refused(conn.ask(&format!("register xavi {password} Spanyol Nama")), "weak-password");
    }
    refused(conn.ask("auth xavi pendek7"), "no-such-account");
    let mut messi = Chat::login(&server, "realm1", "messi");
    let users = ok(messi.cmd("users"));
    assert!(!users.to_string().contains("xavi"), "{users}");
}

#[test]
fn a_new_password_ends_the_users_other_sessions() {
    let server = BROKER.demo();
    let mut one = Chat::login(&server, "realm1", "messi");
    let mut other = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    refused(one.cmd("passwd salah barubaru1"), "bad-password");
    refused(one.cmd(&format!("passwd {PASSWORD} x")), "weak-password");
    ok(other.cmd("whoami"));
    ok(one.cmd(&format!("passwd {PASSWORD} barubaru1")));
    ok(one.cmd("whoami"));
    refused(other.cmd("whoami"), "not-authorized");
    ok(henderson.cmd("whoami"));
    let mut conn = server.connect("realm1");
    refused(conn.ask("auth messi surabaya"), "bad-password");
    ok(conn.ask("auth messi barubaru1"));
    ok(server.connect("realm2").ask("auth messi surabaya"));
}

#[test]
fn a_session_does_not_end_because_it_is_idle() {
    let server = BROKER.serve().limit("unauthenticated_seconds", 1).limit("line_seconds", 1).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut nobody = server.connect("realm1");
    // Its end tells that the second is over for the session too.
    nobody.expect_end();
    ok(messi.cmd("whoami"));
}
