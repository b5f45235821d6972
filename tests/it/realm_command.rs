//! `antar realm init`, `list`, `trust`, `block` and `unblock`, and the key that a realm signs with.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Builder, Chat, Nats, Output, Server, antar, eventually, ok, refused, text, texts};

/// Runs `antar realm WHAT realm1 … --data DIR`.
fn realm(server: &Server, what: &str, args: &[&str]) -> Output {
    let data = server.data();
    antar(["realm", what, "realm1"].iter().chain(args).chain(&["--data", &data]))
}

/// How realm1 sees realm2.
fn listed(server: &Server) -> Value {
    realm(server, "list", &["--json"]).exits(0).json_lines().remove(0)
}

/// messi of realm1, who has added realm2, and lineker of realm2.
fn people(server: &Server) -> [Chat; 2] {
    let mut messi = Chat::login(server, "realm1", "messi");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    [messi, Chat::login(server, "realm2", "lineker")]
}

/// A public key that is nobody's here: that of a realm on another broker.
fn a_strangers_key(server: &Server) -> String {
    let broker = format!("sqlite:{}", server.dir().join("stranger.db").display());
    let made = antar(["realm", "init", "realm2", "--broker", &broker, "--json"]).exits(0).json_lines();
    text(&made[0], "key").to_owned()
}

#[test]
fn a_realm_is_made_once_and_then_served_by_an_edge_that_may_make_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = format!("sqlite:{}", dir.path().join("antar.db").display());
    let serve = || Builder::serve().dir(dir.path()).env("BROKER__PROVISION", "false");
    let (code, said) = serve().start_refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("antar realm init"), "{said}");
    let init = |args: &[&str]| {
        antar(["realm", "init", "realm1", "--broker", &broker, "--json"].iter().chain(args)).exits(0)
    };
    let first = init(&[]).json_lines().remove(0);
    assert_eq!((text(&first, "id"), &first["key_made"]), ("realm1", &Value::Bool(true)));
    assert!(first["made"].as_array().is_some_and(|made| made.len() >= 3), "{first}");
    let file = Path::new(text(&first, "key_file"));
    assert_eq!(file, dir.path().join("realm1.nk"));
    assert_eq!(fs::metadata(file).expect("it was made").permissions().mode() & 0o777, 0o600);
    for args in [&[][..], &["--add-missing"]] {
        let again = init(args).json_lines().remove(0);
        assert_eq!((&again["key_made"], &again["made"]), (&Value::Bool(false), &serde_json::json!([])));
        assert_eq!(again["key"], first["key"]);
    }
    let said = antar(["realm", "init", "realm1", "--broker", &broker]).exits(0).stdout;
    assert!(said.contains(text(&first, "key")), "{said}");
    let server = serve().start();
    server.assert_serves();
    let seed = fs::read_to_string(file).expect("readable");
    assert!(seed.starts_with("SU") && !server.log().contains(seed.trim()), "the seed stands in the log");
}

#[test]
fn an_edge_without_the_realms_key_or_with_one_that_others_can_read_does_not_start() {
    let mut server = Server::demo();
    let [mut messi, _] = people(&server);
    ok(messi.cmd("sendprivaterealm realm2 lineker halo"));
    server.sigterm();
    let (dir, key) = (server.dir().to_owned(), server.dir().join("data/realm1.nk"));
    let start = || Builder::demo().dir(&dir).start_refused();
    fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("it is ours");
    let (code, said) = start();
    assert!(code == Some(1) && said.contains("chmod 600"), "{code:?} {said}");
    let away = dir.join("away.nk");
    fs::rename(&key, &away).expect("it is there");
    let (code, said) = start();
    assert!(code == Some(1) && said.contains("copy it from an edge"), "{code:?} {said}");
    assert!(!key.exists(), "a key was invented");
    fs::copy(dir.join("data/realm2.nk"), &key).expect("it is there");
    let (code, said) = start();
    assert!(code == Some(1) && said.contains("copy the file from an edge"), "{code:?} {said}");
    fs::rename(&away, &key).expect("it is there");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("it is ours");
    server.start();
    server.assert_serves();
}

#[test]
fn nothing_is_exchanged_with_a_blocked_realm_until_it_is_let_in_again() {
    let server = Server::demo();
    let [mut messi, mut lineker] = people(&server);
    assert_eq!(listed(&server)["standing"], "pinned");
    let said = realm(&server, "block", &["realm2"]).exits(0).stdout;
    assert!(said.contains("realm2"), "{said}");
    assert_eq!(listed(&server)["standing"], "blocked");
    for send in ["sendprivaterealm realm2 lineker", "sendgrouprealm realm2 lineker", "send lineker@realm2"] {
        refused(messi.cmd(&format!("{send} halo")), "realm-blocked");
    }
    refused(messi.ask("addrealm realm2 127.0.0.1 4002"), "realm-blocked");
    let id = ok(lineker.cmd("sendprivaterealm realm1 messi jangan"))["message_id"].clone();
    let notice = lineker.realm_inbox_of("realm1", 1).remove(0);
    assert_eq!((&notice["about"], text(&notice, "msg")), (&id, "Realm Diblokir"));
    realm(&server, "unblock", &["realm2"]).exits(0);
    ok(lineker.cmd("sendprivaterealm realm1 messi sudah boleh"));
    assert_eq!(texts(&messi.realm_inbox_of("realm2", 1)), ["sudah boleh"]);
    ok(messi.cmd("sendprivaterealm realm2 lineker ya"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["ya"]);
}

#[test]
fn a_realm_with_another_key_than_the_trusted_one_is_shown_and_waits() {
    let mut server = Server::demo();
    let [mut messi, mut lineker] = people(&server);
    let right = text(&listed(&server), "key").to_owned();
    let shown = antar(["realm", "show", "realm2", "--json", "--data", &server.data()]).exits(0).json_lines();
    assert_eq!(shown[0]["key"], right.as_str(), "it is the key that realm2 says it has");
    let stranger = &*a_strangers_key(&server);
    realm(&server, "trust", &["realm2", "--key", stranger]).exits(0);
    ok(messi.cmd("sendprivaterealm realm2 lineker menunggu"));
    let changed = eventually("realm2 is seen to have another key", || {
        Some(listed(&server)).filter(|peer| peer["standing"] == "changed")
    });
    assert_eq!((text(&changed, "key"), text(&changed, "offered")), (stranger, right.as_str()));
    let said = realm(&server, "list", &[]).exits(0).stdout;
    assert!(said.contains(&format!("was {stranger}, now {right}")), "{said}");
    let reply = refused(messi.ask("addrealm realm2 127.0.0.1 4002"), "key-changed");
    assert!(text(&reply, "detail").contains(&right), "{reply}");
    // A restart changes nothing about it, nor does a realm that is not served.
    server.sigterm();
    assert_eq!(listed(&server)["standing"], "changed");
    realm(&server, "trust", &["realm2", "--key", &right]).exits(0);
    server.start();
    let mut lineker = {
        lineker = lineker.again(&server, "realm2");
        lineker
    };
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["menunggu"]);
    assert_eq!(listed(&server)["standing"], "pinned");
}

#[test]
fn a_rotated_key_is_trusted_and_what_waited_arrives() {
    let mut server = Server::demo();
    let [mut messi, mut lineker] = people(&server);
    let first = text(&listed(&server), "key").to_owned();
    let rotate =
        |server: &Server| antar(["realm", "rotate-key", "realm2", "--json", "--data", &server.data()]);
    let said = rotate(&server).exits(3).stderr;
    assert!(said.contains("in use"), "a realm in this file is served: {said}");
    server.sigterm();
    let rotated = rotate(&server).exits(0).json_lines().remove(0);
    assert_eq!(text(&rotated, "before"), first);
    let now = text(&rotated, "key").to_owned();
    let file = |name: &str| server.dir().join("data").join(name);
    for name in ["realm2.nk", "realm2.nk.old"] {
        let mode = fs::metadata(file(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // One that was broken off after the realm had the new key is completed.
    fs::rename(file("realm2.nk"), file("realm2.nk.new")).expect("it is there");
    fs::copy(file("realm2.nk.old"), file("realm2.nk")).expect("it is there");
    assert_eq!(text(&rotate(&server).exits(0).json_lines().remove(0), "key"), now);
    server.start();
    (messi, lineker) = (messi.again(&server, "realm1"), lineker.again(&server, "realm2"));
    ok(lineker.cmd("sendprivaterealm realm1 messi menunggu"));
    let changed = eventually("realm2 is seen to have another key", || {
        Some(listed(&server)).filter(|peer| peer["standing"] == "changed")
    });
    assert_eq!((text(&changed, "key"), text(&changed, "offered")), (&*first, &*now));
    realm(&server, "trust", &["realm2", "--key", &now]).exits(0);
    assert_eq!(texts(&messi.realm_inbox_of("realm2", 1)), ["menunggu"]);
}

#[test]
fn keys_and_realms_that_are_none_are_refused() {
    let server = Server::demo();
    people(&server);
    let lower = a_strangers_key(&server).to_lowercase();
    for key in ["U", "", lower.as_str(), "SUAKYRHVIOREXV7EUZTBHUHL7NUMHPMAS7QMDU3GTIUWEI5LDNOXD43IZY"] {
        let output = realm(&server, "trust", &["realm2", &format!("--key={key}")]).exits(5);
        assert!(output.stderr.contains("no public key"), "{output:?}");
    }
    for what in ["trust", "block", "unblock"] {
        let output = realm(&server, what, &["realm9"]).exits(5);
        assert!(output.stderr.contains("no-such-realm"), "{output:?}");
    }
    assert_eq!(listed(&server)["standing"], "pinned");
}

#[test]
fn on_nats_an_edge_that_serves_the_realm_answers_operators_and_a_second_edge_needs_the_key() {
    let (nats, dir) = (Nats::start(), tempfile::tempdir().expect("a temporary directory"));
    let (url, key) = (nats.url(), dir.path().join("realm1.nk"));
    let key = key.to_str().expect("a temporary path is UTF-8");
    let config = dir.path().join("antar.toml");
    fs::write(&config, format!("[realm]\nkey_file = {key:?}\n")).expect("writable");
    let config = config.to_str().expect("a temporary path is UTF-8");
    let realm =
        |args: &[&str]| antar(["realm"].iter().chain(args).chain(&["--broker", &url, "--config", config]));
    let said = realm(&["show", "realm1"]).exits(1).stderr;
    assert!(said.contains("there is no realm realm1"), "{said}");
    let first = realm(&["init", "realm1", "--json"]).exits(0).json_lines().remove(0);
    assert!(first["made"].as_array().is_some_and(|made| made.len() >= 10), "{first}");
    // Nobody serves it: it is shown all the same.
    let shown = realm(&["show", "realm1", "--json"]).exits(0).json_lines().remove(0);
    assert_eq!(shown["key"], first["key"]);
    let edge =
        |key: &str| Builder::serve_with(&url).env("BROKER__PROVISION", "false").env("REALM__KEY_FILE", key);
    let server = edge(key).start();
    realm(&["pause", "realm1"]).exits(0);
    let shown = realm(&["show", "realm1", "--json"]).exits(0).json_lines().remove(0);
    assert_eq!((&shown["paused"], &shown["accounts"]), (&Value::Bool(true), &Value::from(3)));
    assert!(
        server.log().contains("an operator stopped or resumed traffic"),
        "the edge did it: {}",
        server.log()
    );
    let absent = dir.path().join("absent.nk");
    let (code, said) = edge(absent.to_str().expect("a temporary path is UTF-8")).start_refused();
    assert!(code == Some(1) && said.contains("copy it from an edge"), "{code:?} {said}");
    assert!(!absent.exists(), "a key was invented");
}
