//! `antar doctor`: a healthy installation has nothing wrong with it, and what is wrong with another one is found.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::BROKER;
use crate::harness::{
    Broker, Chat, Output, Server, antar, antar_with_input, eventually, free_port, ok, text,
};

/// Runs `antar doctor …` for an operator of this server.
fn doctor(server: &Server, key_file: Option<&Path>, args: &[&str]) -> Output {
    let operator = server.operator();
    let args = ["doctor"].iter().chain(args).copied().chain(operator.iter().map(String::as_str));
    let key_file = key_file.map(|path| path.to_str().expect("a temporary path is UTF-8"));
    let env: Vec<(&str, &str)> = key_file.map(|path| ("ANTAR__REALM__KEY_FILE", path)).into_iter().collect();
    antar_with_input(args, &env, "")
}

/// What is found, and the exit code that belongs to it.
fn examine(server: &Server, key_file: Option<&Path>, args: &[&str]) -> Value {
    let output = doctor(server, key_file, &[&["--format", "json"], args].concat());
    let report = output.json_lines().remove(0);
    let is_healthy = report["errors"] == 0 && report["warnings"] == 0;
    output.exits(i32::from(!is_healthy));
    report
}

/// `severity id realm` of each finding, but for those that are the machine's or the harness's.
fn found(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("a list");
    let is_ours = |finding: &&Value| {
        !["sqlite.space", "sqlite.network", "broker.sync-unknown", "account.shared", "permissions.wide"]
            .contains(&text(finding, "id"))
    };
    let line = |finding: &Value| {
        let realm = finding["realm"].as_str().unwrap_or("-");
        format!("{} {} {realm}", text(finding, "severity"), text(finding, "id"))
    };
    let mut found: Vec<String> = findings.iter().filter(is_ours).map(line).collect();
    found.sort();
    found
}

/// What is said of one finding.
fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().find(|finding| finding["id"] == id).unwrap_or_else(|| panic!("no {id} in {report}"))
}

/// Where the key of a realm of the demo is.
fn key_of(server: &Server, realm: &str) -> PathBuf {
    let folder = match BROKER {
        Broker::Sqlite => "data",
        Broker::Nats => "antar-demo",
    };
    server.dir().join(folder).join(format!("{realm}.nk"))
}

fn people(server: &Server) -> [Chat; 2] {
    let mut messi = Chat::login(server, "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    [messi, Chat::login(server, "realm2", "lineker")]
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_realm_that_is_served_has_nothing_wrong_with_it() {
    let mut server = BROKER.serve().start();
    let key = server.dir().join("realm1.nk");
    let report = examine(&server, Some(&key), &["--realm", "realm1"]);
    assert_eq!(found(&report), nothing(), "{report}");
    assert_eq!((&report["errors"], &report["warnings"]), (&Value::from(0), &Value::from(0)), "{report}");
    assert_eq!(report["realms"], serde_json::json!(["realm1"]));
    let said = doctor(&server, Some(&key), &[]).exits(0).stdout;
    assert!(said.contains("realm1: 0 errors, 0 warnings, "), "{said}");
    // And when it is not served, that is noted.
    server.sigterm();
    let report = examine(&server, Some(&key), &[]);
    assert_eq!(found(&report), ["note realm.unserved realm1"], "{report}");
}

#[test]
fn two_realms_that_talk_have_nothing_wrong_with_them() {
    let server = BROKER.demo();
    let [mut messi, mut lineker] = people(&server);
    ok(messi.cmd("sendprivaterealm realm2 lineker rahasia"));
    lineker.realm_inbox_of("realm1", 1);
    let before = replay(&server);
    for realm in ["realm1", "realm2"] {
        let report = examine(&server, Some(&key_of(&server, realm)), &["--realm", realm]);
        assert_eq!(found(&report), nothing(), "{report}");
        assert_eq!(report["errors"], 0, "{report}");
        assert!(!report.to_string().contains("rahasia"), "no text");
    }
    assert_eq!(replay(&server), before, "the logs are as they were");
}

/// The log of realm1, entry by entry.
fn replay(server: &Server) -> String {
    server.operate(&["replay", "--realm", "realm1", "--format", "json"]).stdout
}

#[test]
fn a_key_file_that_others_may_read_that_is_another_or_is_gone_is_found() {
    let server = BROKER.serve().start();
    let key = server.dir().join("realm1.nk");
    let look = || found(&examine(&server, Some(&key), &[]));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let report = examine(&server, Some(&key), &[]);
    assert_eq!(found(&report), ["error keys.mode realm1"]);
    let wide = finding(&report, "keys.mode");
    assert!(text(wide, "what").contains("mode 644"), "{wide}");
    assert!(text(wide, "do").contains(&format!("chmod 600 {}", key.display())), "{wide}");
    assert!(text(wide, "means").contains("sign as this realm"), "{wide}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    assert_eq!(look(), nothing());
    let seed = fs::read(&key).expect("it is there");
    fs::write(&key, "no key").expect("it is ours");
    assert_eq!(look(), ["error keys.file realm1"]);
    let stranger = nkeys::KeyPair::new_user();
    fs::write(&key, stranger.seed().expect("a new key has a seed")).expect("it is ours");
    let report = examine(&server, Some(&key), &[]);
    assert_eq!(found(&report), ["error keys.other realm1"]);
    assert!(text(finding(&report, "keys.other"), "what").contains(&stranger.public_key()), "{report}");
    fs::remove_file(&key).expect("it is ours");
    assert_eq!(look(), ["error keys.file realm1"]);
    fs::write(&key, seed).expect("it is ours");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    assert_eq!(look(), nothing());
}

#[test]
fn a_realm_whose_key_was_changed_is_found_on_both_sides() {
    let mut server = BROKER.demo();
    drop(people(&server));
    server.sigterm();
    let key = key_of(&server, "realm2");
    let operator = server.operator();
    let rotate = ["realm", "rotate-key", "realm2", "--json"];
    let rotate = rotate.into_iter().chain(operator.iter().map(String::as_str));
    let env = [("ANTAR__REALM__KEY_FILE", key.to_str().expect("a temporary path is UTF-8"))];
    let rotated = antar_with_input(rotate, &env, "").exits(0).json_lines().remove(0);
    server.start();
    let report = examine(&server, Some(&key_of(&server, "realm1")), &["--realm", "realm1"]);
    assert_eq!(found(&report), ["error keys.peer-changed realm1"], "{report}");
    let changed = finding(&report, "keys.peer-changed");
    let advice = format!("antar realm trust realm1 realm2 --key {}", text(&rotated, "key"));
    assert!(text(changed, "do").contains(&advice), "{changed}");
    let report = examine(&server, Some(&key), &["--realm", "realm2"]);
    assert_eq!(found(&report), ["error keys.not-trusted realm2"], "{report}");
    let advice = format!("antar realm trust realm1 realm2 --key {}", text(&rotated, "key"));
    assert!(text(finding(&report, "keys.not-trusted"), "do").contains(&advice), "{report}");
    // What it says to do helps.
    server.operate(&["realm", "trust", "realm1", "realm2", "--key", text(&rotated, "key")]);
    for realm in ["realm1", "realm2"] {
        eventually("both are well again", || {
            let report = examine(&server, Some(&key_of(&server, realm)), &["--realm", realm]);
            found(&report).is_empty().then_some(())
        });
    }
}

#[test]
fn a_lane_that_waits_for_a_realm_that_is_paused_is_found_with_the_reason() {
    let server = BROKER.demo();
    let [mut messi, _lineker] = people(&server);
    server.operate(&["realm", "pause", "realm2"]);
    ok(messi.cmd("sendprivaterealm realm2 lineker halo"));
    let report = eventually("the lane says why it waits", || {
        let report = examine(&server, Some(&key_of(&server, "realm1")), &["--realm", "realm1"]);
        (found(&report).len() == 2).then_some(report)
    });
    assert_eq!(found(&report), ["note peer.paused realm1", "warning lane.stuck realm1"]);
    let stuck = text(finding(&report, "lane.stuck"), "what");
    assert!(stuck.starts_with("1 wait in the lane to realm2") && stuck.contains("paused"), "{stuck}");
    let report = examine(&server, Some(&key_of(&server, "realm2")), &["--realm", "realm2"]);
    assert_eq!(found(&report), ["warning realm.paused realm2"]);
}

#[test]
fn dead_letters_and_blocked_realms_are_found_until_something_is_done_about_them() {
    let server = BROKER.demo();
    let [mut messi, _lineker] = people(&server);
    server.operate(&["realm", "block", "realm2", "realm1"]);
    ok(messi.cmd("sendprivaterealm realm2 lineker halo"));
    let look = || examine(&server, Some(&key_of(&server, "realm2")), &["--realm", "realm2"]);
    let report = eventually("it is put aside", || {
        let report = look();
        (report["warnings"].as_u64() > Some(0) && found(&report).len() == 2).then_some(report)
    });
    assert_eq!(found(&report), ["note peer.blocked realm2", "warning dead.open realm2"]);
    assert!(text(finding(&report, "dead.open"), "what").contains("1 realm-blocked"), "{report}");
    server.operate(&["dead", "drop", "--all", "--realm", "realm2"]);
    server.operate(&["realm", "unblock", "realm2", "realm1"]);
    eventually("nothing is left", || found(&look()).is_empty().then_some(()));
}

#[test]
fn what_is_not_there_is_a_finding_and_what_cannot_be_reached_an_exit_code() {
    let server = BROKER.serve().start();
    let report = examine(&server, None, &["--realm", "realm9"]);
    assert_eq!(found(&report), ["error realm.missing realm9"]);
    let nowhere = match BROKER {
        Broker::Sqlite => format!("sqlite:{}", server.dir().join("none.db").display()),
        Broker::Nats => format!("nats://127.0.0.1:{}", free_port()),
    };
    let output = antar(["doctor", "--format", "json", "--broker", &nowhere]).exits(3);
    let report = output.json_lines().remove(0);
    assert_eq!(found(&report), ["error broker.unreachable -"]);
    let operator = server.operator();
    let args = ["doctor", "--format", "json"].into_iter().chain(operator.iter().map(String::as_str));
    let invalid = antar_with_input(args, &[("ANTAR__RETENTION__DAYS", "0")], "").exits(1);
    assert_eq!(found(&invalid.json_lines().remove(0)), ["error config.invalid -"]);
}

#[test]
fn a_dangerous_configuration_is_found_in_the_file() {
    let server = BROKER.serve().start();
    let file = server.dir().join("antar.toml");
    let [flag, value] = server.operator();
    assert_eq!(flag, "--broker");
    let text = format!(
        "[realm]\nid = \"realm1\"\nkey_file = {:?}\ndemo_accounts = true\n[listen]\ncommand = \"0.0.0.0:4001\"\n\
         allow_plaintext = true\nhttp = \"0.0.0.0:8080\"\n[auth]\nregistration = \"open\"\n[retention]\ndays = 1\n[broker]\nurl = {value:?}\n",
        server.dir().join("realm1.nk"),
    );
    fs::write(&file, text).expect("a file in the server's directory");
    let file = file.to_str().expect("a temporary path is UTF-8");
    let output = antar(["doctor", "--format", "json", "--config", file]).exits(1);
    assert_eq!(
        found(&output.json_lines().remove(0)),
        [
            "error config.demo-accounts -",
            "note config.uniform-errors -",
            "warning config.http -",
            "warning config.plain-command -",
            "warning config.registration -",
            "warning config.retention -",
        ]
    );
}
