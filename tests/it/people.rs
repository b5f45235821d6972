//! Who is there: `list`, `users`, `getpresence`, `whoami`, and what a server says of itself.

use serde_json::Value;

use super::BROKER;
use crate::harness::{Chat, eventually, ok, refused, text};

fn listed(chat: &mut Chat) -> Vec<String> {
    let reply = ok(chat.cmd("list"));
    let names = text(&reply, "messages");
    assert!(names.is_empty() || names.ends_with(','), "{names}");
    let mut names: Vec<_> = names.split_terminator(',').map(str::to_owned).collect();
    names.sort_unstable();
    names
}

#[test]
fn list_names_each_user_with_a_live_session_once() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    assert_eq!(listed(&mut messi), ["messi"]);
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let _again = Chat::login(&server, "realm1", "messi");
    Chat::login(&server, "realm2", "lineker");
    assert_eq!(listed(&mut messi), ["henderson", "messi"]);
    ok(henderson.cmd("logout"));
    assert_eq!(listed(&mut messi), ["messi"]);
}

#[test]
fn a_session_lives_on_without_its_connection() {
    let server = BROKER.demo();
    let henderson = Chat::login(&server, "realm1", "henderson");
    let mut messi = Chat::login(&server, "realm1", "messi");
    drop(henderson);
    assert_eq!(listed(&mut messi), ["henderson", "messi"]);
}

#[test]
fn whoami_says_whose_session_it_is() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm2", "messi");
    let me = ok(messi.cmd("whoami"));
    assert_eq!((text(&me, "user"), text(&me, "realm")), ("messi", "realm2"));
    assert_eq!((text(&me, "name"), text(&me, "country")), ("Lionel Messi", "Argentina"));
}

#[test]
fn users_lists_accounts_by_prefix() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    Chat::register(&server, "realm1", "henry");
    let named = |reply: &Value| -> Vec<String> {
        let users = reply["users"].as_array().unwrap_or_else(|| panic!("not a list: {reply}"));
        users.iter().map(|user| text(user, "user").to_owned()).collect()
    };
    assert_eq!(named(&ok(messi.cmd("users"))), ["henderson", "henry", "lineker", "messi"]);
    assert_eq!(named(&ok(messi.cmd("users hen"))), ["henderson", "henry"]);
    assert!(named(&ok(messi.cmd("users zzz"))).is_empty());
    let all = ok(messi.cmd("users messi"));
    assert_eq!(text(&all["users"][0], "name"), "Lionel Messi");
}

#[test]
fn getpresence_follows_logins_and_logouts() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let online = |messi: &mut Chat| ok(messi.cmd("getpresence henderson"))["online"].clone();
    assert_eq!(online(&mut messi), false);
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    eventually("henderson is seen", || (online(&mut messi) == true).then_some(()));
    ok(henderson.cmd("logout"));
    eventually("henderson is gone", || (online(&mut messi) == false).then_some(()));
    refused(messi.cmd("getpresence pele"), "no-such-user");
}

#[test]
fn ping_help_and_capabilities_need_no_login() {
    let server = BROKER.demo();
    let mut conn = server.connect("realm1");
    ok(conn.ask("ping"));
    let help = ok(conn.ask("help")).to_string();
    for spec in antar_proto::command::COMMANDS {
        for name in spec.names {
            assert!(help.contains(name), "help does not know {name}");
            let one = ok(conn.ask(&format!("help {name}"))).to_string();
            assert!(one.contains(spec.summary), "help {name}: {one}");
        }
    }
    refused(conn.ask("help nothing"), "unknown-command");
    let capabilities = ok(conn.ask("capabilities")).to_string();
    assert!(capabilities.contains("65536"), "the longest line is told: {capabilities}");
    assert!(capabilities.contains("realm1"), "the realm is told: {capabilities}");
}

#[test]
fn connectedrealm_lists_the_realms_added_with_their_state() {
    let server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    assert_eq!(ok(messi.cmd("connectedrealm"))["realms"], serde_json::json!([]));
    ok(messi.cmd("addrealm realm2 172.16.16.102 4002"));
    let realms = ok(messi.cmd("connectedrealm"));
    let peer = &realms["realms"][0];
    assert_eq!((text(peer, "realm"), text(peer, "host")), ("realm2", "172.16.16.102"));
    assert_eq!((&peer["port"], &peer["queued"]), (&4002.into(), &0.into()));
    assert_eq!(text(peer, "state"), "up");
}
