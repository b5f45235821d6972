//! `antar doctor` on a file: its modes, how it is opened, and damage.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use serde_json::Value;

use crate::harness::{Builder, Server, antar, text};

/// `id: what` of each finding that is not about the machine.
fn found(server: &Server, url: &str) -> Vec<(String, String)> {
    let output = antar(["doctor", "--format", "json", "--broker", url]);
    let report: Value = output.json_lines().remove(0);
    let findings = report["findings"].as_array().expect("a list").iter();
    let findings = findings.map(|finding| (text(finding, "id").to_owned(), text(finding, "what").to_owned()));
    let is_ours = |(id, _): &(String, String)| {
        !["sqlite.space", "sqlite.network", "realm.unserved"].contains(&id.as_str())
    };
    let found: Vec<_> = findings.filter(is_ours).collect();
    let dir = server.dir().display().to_string();
    assert!(found.iter().all(|(_, what)| what.contains(&dir)), "{found:?}");
    found
}

fn ids(found: &[(String, String)]) -> Vec<&str> {
    found.iter().map(|(id, _)| id.as_str()).collect()
}

#[test]
fn files_that_others_may_read_are_found() {
    let server = Builder::serve().start();
    let url = format!("sqlite:{}", server.dir().join("antar.db").display());
    assert_eq!(found(&server, &url), []);
    let chmod = |name: &str, mode| {
        fs::set_permissions(server.dir().join(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    chmod("antar.db", 0o640);
    chmod("antar.db-wal", 0o604);
    let wide = found(&server, &url);
    assert_eq!(ids(&wide), ["sqlite.mode", "sqlite.mode"]);
    assert!(
        wide[0].1.contains("antar.db has mode 640") && wide[1].1.contains("-wal has mode 604"),
        "{wide:?}"
    );
}

#[test]
fn a_file_that_is_opened_so_that_a_power_cut_loses_messages_is_found() {
    let server = Builder::serve().start();
    let url = format!("sqlite:{}?synchronous=normal", server.dir().join("antar.db").display());
    assert_eq!(ids(&found(&server, &url)), ["sqlite.synchronous"]);
}

#[test]
fn a_file_that_somebody_has_put_into_another_mode_is_found() {
    let mut server = Builder::serve().start();
    server.sigterm();
    let path = server.dir().join("antar.db");
    let url = format!("sqlite:{}", path.display());
    assert_eq!(found(&server, &url), []);
    let conn = rusqlite::Connection::open(&path).expect("nobody serves it");
    let change = conn.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0));
    assert_eq!(change.expect("nobody serves it"), "delete");
    drop(conn);
    assert_eq!(ids(&found(&server, &url)), ["sqlite.journal"]);
    // The next start sets it right.
    server.start();
    assert_eq!(found(&server, &url), []);
}

#[test]
fn a_damaged_file_is_found_and_not_touched() {
    let mut server = Builder::serve().start();
    server.sigterm();
    let path = server.dir().join("antar.db");
    let url = format!("sqlite:{}", path.display());
    assert_eq!(found(&server, &url), []);
    let file = fs::OpenOptions::new().write(true).open(&path).expect("it is ours");
    let pages = file.metadata().expect("it is there").len() / 4096;
    // The root of some table or index, in the middle of the file.
    for page in pages / 2..pages {
        file.write_all_at(&[0x55; 4096], page * 4096).expect("it is ours");
    }
    let before = fs::read(&path).expect("it is there");
    let damaged = found(&server, &url);
    assert_eq!(ids(&damaged)[0], "sqlite.damaged", "{damaged:?}");
    assert_eq!(fs::read(&path).expect("it is there"), before);
}
