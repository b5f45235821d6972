//! `antar realm backup` and `antar realm restore`, from either broker to either broker.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use super::nats::files::{get, line, noise, parts};
use super::nats::walks::{ReportClient, walk_of_the_newer_report};
use crate::harness::sender::{Fate, Sender};
use crate::harness::{
    Broker, Builder, Chat, Nats, Output, PATIENCE, Server, Wire, antar, antar_with_input, eventually, ok,
    text, texts,
};

/// Where two realms are, or will be: a directory, and what keeps their log.
struct Place {
    dir: TempDir,
    nats: Option<Nats>,
}

impl Place {
    fn of(broker: Broker) -> Self {
        let nats = (broker == Broker::Nats).then(Nats::start);
        Self { dir: TempDir::new().expect("a temporary directory"), nats }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        let file = || format!("sqlite:{}", self.path("antar.db").display());
        self.nats.as_ref().map_or_else(file, Nats::url)
    }

    /// The key file that a demo has there.
    fn key_file(&self, realm: &str) -> PathBuf {
        let folder = if self.nats.is_some() { "antar-demo" } else { "" };
        self.path(folder).join(format!("{realm}.nk"))
    }

    /// `antar demo` on it.
    fn start(&self) -> Server {
        Builder::demo_at(&self.url()).dir(self.dir.path()).start()
    }

    /// Runs `antar realm …` on it.
    fn realm(&self, realm: &str, args: &[&str]) -> Output {
        let key_file = self.key_file(realm);
        let key_file = key_file.to_str().expect("a temporary path is UTF-8");
        let args = ["realm"].iter().chain(args).copied().chain(["--broker"]).map(str::to_owned);
        antar_with_input(args.chain([self.url()]), &[("ANTAR__REALM__KEY_FILE", key_file)], "")
    }

    /// Backs a realm up, with its key: the file, and what was said.
    fn backup(&self, realm: &str) -> (String, Value) {
        let file =
            self.path(&format!("{realm}.backup")).to_str().expect("a temporary path is UTF-8").to_owned();
        let said = self.realm(realm, &["backup", realm, &file, "--with-key", "--json"]).exits(0);
        (file, said.json_lines().remove(0))
    }

    fn restore(&self, realm: &str, file: &str) -> Value {
        self.realm(realm, &["restore", file, "--json"]).exits(0).json_lines().remove(0)
    }
}

/// Waits until both realms of a place have nothing on its way to the other.
fn settled(chats: &mut [&mut Chat]) {
    for chat in chats {
        eventually("nothing is on its way", || {
            let realms = ok(chat.cmd("connectedrealm"));
            (realms["realms"][0]["queued"] == 0).then_some(())
        });
    }
}

fn status(chat: &mut Chat, id: &Value) -> Value {
    ok(chat.cmd(&format!("status {}", id.as_str().expect("an id"))))["state"].clone()
}

/// What is said before, while and after a backup is taken of realms that are busy.
fn a_busy_realm_comes_back_whole(from: Broker, to: Broker) {
    let (source, target) = (Place::of(from), Place::of(to));
    let server = source.start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let mut xavi = Chat::register(&server, "realm1", "xavi");
    // Each member has read another part of the group.
    ok(messi.cmd("addgroup tim invite"));
    for (chat, member) in [(&mut henderson, "henderson"), (&mut xavi, "xavi")] {
        ok(messi.cmd(&format!("invitegroup tim {member}")));
        ok(chat.cmd("joingroup tim"));
    }
    ok(messi.cmd("sendgroup #tim grup 0"));
    assert_eq!(texts(&henderson.inbox_of(1)), ["grup 0"]);
    let mut gone = Chat::login(&server, "realm1", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    let read: Vec<Value> =
        (0..3).map(|n| ok(messi.cmd(&format!("send henderson dibaca {n}")))["message_id"].clone()).collect();
    assert_eq!(henderson.inbox_of(3).len(), 3);
    henderson.settle();
    ok(messi.cmd("sendgroup #tim grup 1"));
    assert_eq!(texts(&xavi.inbox_of(2)), ["grup 0", "grup 1"]);
    xavi.settle();
    ok(messi.cmd("sendgroup #tim grup 2"));
    let unread: Vec<Value> = (0..3)
        .map(|n| ok(messi.cmd(&format!("sendgroup henderson,xavi belum {n}")))["message_id"].clone())
        .collect();
    ok(gone.cmd("logout"));
    source.realm("realm2", &["pause", "realm2"]).exits(0);
    let waits = ok(messi.cmd("sendgrouprealm realm2 lineker,henderson menunggu"))["message_id"].clone();
    let edges = Arc::new(Mutex::new(vec![server.addr("realm1")]));
    let sender = Sender::start("muat", &xavi.token, &["send messi", "sendgroup messi,xavi"], &edges);
    sender.goes_on(200);
    let stored = sender.stored();
    let (one, said) = source.backup("realm1");
    let (two, _) = source.backup("realm2");
    assert_eq!(fs::metadata(&one).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert!(said["entries"]["MAIL"].as_u64().is_some_and(|n| n >= 200), "{said}");
    let book = sender.finish();
    drop(server);

    for (realm, file) in [("realm1", &one), ("realm2", &two)] {
        let said = target.restore(realm, file);
        assert_eq!((text(&said, "id"), &said["went_on"]), (realm, &Value::Bool(false)));
    }
    let server = target.start();
    let (mut messi, mut henderson) = (messi.again(&server, "realm1"), henderson.again(&server, "realm1"));
    assert_eq!(gone.again(&server, "realm1").cmd("inbox")["code"], "not-authorized");
    assert_eq!(texts(&henderson.inbox_of(5)), ["belum 0", "belum 1", "belum 2", "grup 1", "grup 2"]);
    let of_xavi = xavi.again(&server, "realm1").inbox();
    let of_group: Vec<&str> = texts(&of_xavi).into_iter().filter(|text| text.starts_with("grup")).collect();
    assert_eq!(of_group, ["grup 2"]);
    assert_eq!(texts(&henderson.realm_inbox_of("realm2", 1)), ["menunggu"]);
    let kept = messi.inbox();
    let kept = texts(&kept);
    let wanted: Vec<&str> = book.iter().map(|sent| sent.text.as_str()).take(kept.len()).collect();
    assert!(book[..stored].iter().all(|sent| sent.fate == Fate::Stored));
    assert!(kept.len() >= stored, "{} of {stored} that were answered OK before are there", kept.len());
    assert_eq!(kept, wanted, "they are there once, in their order");
    henderson.settle();
    assert!(read.iter().chain(&unread).all(|id| {
        let state = status(&mut messi, id);
        state == "read" || state == "delivered"
    }));
    assert_eq!(status(&mut messi, &read[0]), "read");
    let history = ok(henderson.cmd("history messi"));
    let said: Vec<Value> = history["messages"].as_array().expect("a list").clone();
    let wanted = ["dibaca 0", "dibaca 1", "dibaca 2", "belum 0", "belum 1", "belum 2"];
    assert_eq!(texts(&said), wanted);

    let state = status(&mut messi, &waits);
    assert!(state == "accepted" || state == "stored", "realm2 is paused, as it was: {state}");
    target.realm("realm2", &["resume", "realm2"]).exits(0);
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["menunggu"]);
    eventually("the receipts come", || (status(&mut messi, &waits) == "delivered").then_some(()));
    ok(messi.cmd("send henderson sesudahnya"));
    assert_eq!(texts(&henderson.inbox_of(1)), ["sesudahnya"]);
}

#[test]
fn a_busy_realm_comes_back_whole_on_sqlite() {
    a_busy_realm_comes_back_whole(Broker::Sqlite, Broker::Sqlite);
}

#[test]
fn a_busy_realm_comes_back_whole_on_nats() {
    a_busy_realm_comes_back_whole(Broker::Nats, Broker::Nats);
}

#[test]
fn a_busy_realm_moves_from_sqlite_to_nats() {
    a_busy_realm_comes_back_whole(Broker::Sqlite, Broker::Nats);
}

#[test]
fn a_busy_realm_moves_from_nats_to_sqlite() {
    a_busy_realm_comes_back_whole(Broker::Nats, Broker::Sqlite);
}

/// realm1 is older than realm2 when both are restored: what went on between the two backups is known to realm2 alone.
fn what_a_peer_has_is_not_delivered_again(broker: Broker) {
    let (source, target) = (Place::of(broker), Place::of(broker));
    let server = source.start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    ok(messi.cmd("sendprivaterealm realm2 lineker satu"));
    ok(lineker.cmd("sendprivaterealm realm1 messi satu"));
    assert_eq!(texts(&messi.realm_inbox_of("realm2", 1)), ["satu"]);
    settled(&mut [&mut messi, &mut lineker]);
    source.realm("realm2", &["pause", "realm2"]).exits(0);
    ok(messi.cmd("sendprivaterealm realm2 lineker dua"));
    ok(messi.cmd("sendprivaterealm realm2 lineker tiga"));
    let (one, _) = source.backup("realm1");
    source.realm("realm2", &["resume", "realm2"]).exits(0);
    ok(messi.cmd("sendprivaterealm realm2 lineker hilang di sini"));
    ok(lineker.cmd("sendprivaterealm realm1 messi hilang di sana"));
    assert_eq!(texts(&messi.realm_inbox_of("realm2", 1)), ["hilang di sana"]);
    settled(&mut [&mut messi, &mut lineker]);
    let (two, _) = source.backup("realm2");
    drop(server);
    target.restore("realm1", &one);
    target.restore("realm2", &two);
    let server = target.start();
    let (mut messi, mut lineker) = (messi.again(&server, "realm1"), lineker.again(&server, "realm2"));
    ok(messi.cmd("sendprivaterealm realm2 lineker lima"));
    ok(lineker.cmd("sendprivaterealm realm1 messi dua"));
    ok(lineker.cmd("sendprivaterealm realm1 messi tiga"));
    let read = lineker.realm_inbox_of("realm1", 5);
    assert_eq!(texts(&read), ["satu", "dua", "tiga", "hilang di sini", "lima"]);
    assert_eq!(texts(&messi.realm_inbox_of("realm2", 2)), ["dua", "tiga"]);
    settled(&mut [&mut messi, &mut lineker]);
    assert!(lineker.realm_inbox("realm1").is_empty() && messi.realm_inbox("realm2").is_empty());
    assert!(!server.log().contains("was put aside"), "nothing is a gap");
}

#[test]
fn what_a_peer_has_is_not_delivered_again_on_sqlite() {
    what_a_peer_has_is_not_delivered_again(Broker::Sqlite);
}

#[test]
fn what_a_peer_has_is_not_delivered_again_on_nats() {
    what_a_peer_has_is_not_delivered_again(Broker::Nats);
}

#[test]
fn the_walk_of_the_newer_report_comes_out_on_restored_realms() {
    for (from, to) in [(Broker::Sqlite, Broker::Nats), (Broker::Nats, Broker::Sqlite)] {
        let (source, target) = (Place::of(from), Place::of(to));
        let server = source.start();
        let files = ["realm1", "realm2"].map(|realm| (realm, source.backup(realm).0));
        drop(server);
        for (realm, file) in &files {
            target.restore(realm, file);
        }
        let server = target.start();
        walk_of_the_newer_report([
            ReportClient::auth(&server, "realm1", "messi"),
            ReportClient::auth(&server, "realm2", "lineker"),
            ReportClient::auth(&server, "realm1", "henderson"),
        ]);
    }
}

#[test]
fn a_damaged_backup_is_refused_with_the_place_and_nothing_is_written() {
    let (source, target) = (Place::of(Broker::Sqlite), Place::of(Broker::Sqlite));
    let server = source.start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("send henderson halo"));
    let (file, _) = source.backup("realm1");
    drop(server);
    let whole = fs::read(&file).expect("it is there");
    let bad = target.path("bad.backup");
    let refused = |bytes: &[u8]| {
        fs::write(&bad, bytes).expect("writable");
        let output = target.realm("realm1", &["restore", bad.to_str().expect("UTF-8")]).exits(1);
        assert!(!target.path("antar.db").exists(), "something was written: {output:?}");
        output.stderr
    };
    for at in (8..whole.len()).step_by(whole.len() / 40) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let said = refused(&bytes);
        assert!(said.contains("damaged at byte ") || said.contains("is no backup"), "{at}: {said}");
    }
    for length in [whole.len() - 1, whole.len() / 2, whole.len() / 3] {
        let said = refused(&whole[..length]);
        assert!(
            said.contains("damaged at byte ") && said.contains("nothing was restored"),
            "{length}: {said}"
        );
    }
    assert!(refused(b"SQLite format 3\0").contains("is no backup"));
    target.restore("realm1", &file);
}

#[test]
fn a_realm_of_which_anything_is_there_is_left_alone() {
    for broker in [Broker::Sqlite, Broker::Nats] {
        let place = Place::of(broker);
        let server = place.start();
        let messi = Chat::login(&server, "realm1", "messi");
        let (file, _) = place.backup("realm1");
        let served = place.realm("realm1", &["restore", &file]);
        // A file that another process has cannot be opened; on NATS an edge of the realm answers.
        let served = served.exits(if broker == Broker::Sqlite { 3 } else { 5 });
        assert!(served.stderr.contains("in use") || served.stderr.contains("is being served"), "{served:?}");
        let mut server = server;
        server.sigterm();
        let said = place.realm("realm1", &["restore", &file]).exits(5).stderr;
        assert!(said.contains("left alone"), "{said}");
        server.start();
        assert!(messi.again(&server, "realm1").inbox().is_empty(), "the realm is as it was");
        let other = Place::of(Broker::Sqlite);
        let said = other.realm("realm1", &["restore", &file, "--realm", "realm2"]).exits(5).stderr;
        assert!(said.contains("is a backup of realm1, not of realm2"), "{said}");
    }
}

#[test]
fn a_realm_whose_key_is_lost_gets_another_one() {
    let (source, target) = (Place::of(Broker::Sqlite), Place::of(Broker::Sqlite));
    let server = source.start();
    let file = source.path("realm1.backup").to_str().expect("UTF-8").to_owned();
    let said = source.realm("realm1", &["backup", "realm1", &file]).exits(0).stderr;
    assert!(said.contains("keep a copy of its key file"), "{said}");
    drop(server);
    let said = target.realm("realm1", &["restore", &file]).exits(0).stderr;
    assert!(said.contains("its key U"), "it is said where the key has to be: {said}");
    let (code, said) = Builder::demo_at(&target.url()).dir(target.dir.path()).start_refused();
    assert!(code == Some(1) && said.contains("copy it from an edge"), "{code:?} {said}");
    let target = Place::of(Broker::Sqlite);
    target.realm("realm1", &["restore", &file, "--new-key"]).exits(0);
    target.start().assert_serves();
}

#[test]
fn a_realm_that_is_not_there_has_no_backup_and_leaves_no_file() {
    let place = Place::of(Broker::Sqlite);
    let file = place.path("x.backup");
    let backup = |realm: &str| place.realm(realm, &["backup", realm, file.to_str().expect("UTF-8")]);
    let said = backup("realm1").exits(3).stderr;
    assert!(said.contains("antar.db"), "{said}");
    antar(["realm", "init", "realm1", "--broker", &place.url()]).exits(0);
    let said = backup("realm9").exits(1).stderr;
    assert!(said.contains("there is no realm realm9"), "{said}");
    let left = fs::read_dir(place.dir.path()).expect("readable").flatten();
    assert!(left.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().contains("backup")));
}

#[test]
fn a_realm_whose_streams_were_removed_on_nats_is_restored_as_the_runbook_says() {
    let place = Place::of(Broker::Nats);
    let nats = place.nats.as_ref().expect("it is on NATS");
    let mut server = place.start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    ok(messi.cmd("sendprivaterealm realm2 lineker satu"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["satu"]);
    settled(&mut [&mut messi, &mut lineker]);
    let (file, _) = place.backup("realm1");
    ok(messi.cmd("sendprivaterealm realm2 lineker sesudahnya"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["sesudahnya"]);
    settled(&mut [&mut messi, &mut lineker]);
    server.sigterm();
    let mut wire = Wire::connect(nats.addr()).expect("the server answers");
    for bucket in ["accounts", "sessions", "cursors", "peers", "invites", "settings", "lanes"] {
        delete_stream(&mut wire, &format!("KV_REALM_realm1_{bucket}"));
    }
    for stream in ["INBOX", "MAIL", "LOG"] {
        delete_stream(&mut wire, &format!("REALM_realm1_{stream}"));
    }
    let said = place.realm("realm1", &["restore", &file]).exits(5).stderr;
    assert!(said.contains("nats kv del antar_queues KEY`, for DELIVERY_realm1, realm1TOrealm2"), "{said}");
    for key in ["DELIVERY_realm1", "realm1TOrealm2"] {
        let deletion = [("KV-Operation", "DEL")];
        let deleted = wire.request_with(&format!("$KV.antar_queues.{key}"), &deletion, b"", PATIENCE);
        assert!(deleted.expect("the server answers").is_some());
    }
    place.restore("realm1", &file);
    server.start();
    let (mut messi, mut lineker) = (messi.again(&server, "realm1"), lineker.again(&server, "realm2"));
    ok(messi.cmd("sendprivaterealm realm2 lineker dua"));
    ok(lineker.cmd("sendprivaterealm realm1 messi tiga"));
    assert_eq!(texts(&lineker.realm_inbox_of("realm1", 1)), ["dua"]);
    assert_eq!(texts(&messi.realm_inbox_of("realm2", 1)), ["tiga"]);
}

#[track_caller]
fn delete_stream(wire: &mut Wire, name: &str) {
    let answer = wire.request(&format!("$JS.API.STREAM.DELETE.{name}"), String::new());
    let answer = answer.expect("the server answers").expect("JetStream answers").text();
    assert!(answer.contains("\"success\":true"), "{name}: {answer}");
}

/// Files, one that is not whole, and one on its way to another realm.
fn files_come_back(from: Broker, to: Broker) {
    let (source, target) = (Place::of(from), Place::of(to));
    let server = source.start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    ok(messi.ask("addrealm realm2 127.0.0.1 4002"));
    let (bytes, whole, half) = (noise(100_000, 9), Uuid::now_v7(), Uuid::now_v7());
    let parts = parts(&bytes);
    let send = |to, id, number| line(to, "film.bin", id, &parts, bytes.len(), number);
    for number in 1..=parts.len() {
        ok(messi.cmd(&send("henderson", whole, number)));
    }
    ok(messi.cmd(&send("henderson", half, 1)));
    // One that has come from another realm, and one that is still to come there.
    let sent = ok(lineker.cmd(&format!("sendfilerealm realm1 messi x.txt {}", BASE64.encode(b"halo"))));
    let came = text(&sent, "message_id").to_owned();
    assert_eq!(messi.realm_inbox_of("realm2", 1)[0]["file"], sent["file"]);
    settled(&mut [&mut messi, &mut lineker]);
    source.realm("realm2", &["pause", "realm2"]).exits(0);
    let sent = ok(messi.cmd(&format!("sendfile lineker@realm2 y.txt {}", BASE64.encode(b"juga"))));
    let goes = text(&sent, "message_id").to_owned();
    let files = ["realm1", "realm2"].map(|realm| (realm, source.backup(realm).0));
    drop(server);
    for (realm, file) in &files {
        target.restore(realm, file);
    }
    let server = target.start();
    [messi, henderson] = [messi, henderson].map(|chat| chat.again(&server, "realm1"));
    lineker = lineker.again(&server, "realm2");
    assert_eq!(text(&henderson.inbox_of(1)[0]["file"], "id"), whole.to_string());
    assert!(get(&mut henderson, &whole.to_string()) == bytes, "other bytes came out");
    assert_eq!(get(&mut messi, &came), b"halo");
    for number in 2..=parts.len() {
        ok(messi.cmd(&send("henderson", half, number)));
    }
    assert_eq!(text(&henderson.inbox_of(1)[0]["file"], "id"), half.to_string());
    assert!(get(&mut henderson, &half.to_string()) == bytes, "other bytes came out");
    target.realm("realm2", &["resume", "realm2"]).exits(0);
    assert_eq!(lineker.realm_inbox_of("realm1", 1)[0]["file"], sent["file"]);
    assert_eq!(get(&mut lineker, &goes), b"juga");
    assert!(messi.realm_inbox("realm2").is_empty(), "nothing came twice");
}

#[test]
fn files_come_back_on_nats() {
    files_come_back(Broker::Sqlite, Broker::Nats);
}

#[test]
fn files_come_back_on_sqlite() {
    files_come_back(Broker::Nats, Broker::Sqlite);
}
