//! The file that everything is in: one process at a time, never one that is damaged or newer.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::TempDir;

use crate::harness::{Builder, Chat, Server, ok};

/// Exit code for "not now, try again".
const UNREACHABLE: Option<i32> = Some(3);

fn kept_database(dir: &Path) -> std::path::PathBuf {
    let mut server = Builder::serve().dir(dir).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("send messi simpan ini"));
    server.sigterm();
    let path = server.database();
    assert!(path.exists());
    path
}

/// All files beside the database that begin with its name, with their bytes.
fn bytes_of(path: &Path) -> Vec<(String, Vec<u8>)> {
    let name = path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
    let entries = fs::read_dir(path.parent().expect("a folder")).expect("the folder is there");
    let mut files: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            entry.file_name().to_string_lossy().starts_with(&name)
                && entry.file_type().is_ok_and(|t| t.is_file())
        })
        // A lock or shared-memory file holds nothing that was said.
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with("-shm"))
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.len() > 0))
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("readable"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_second_process_on_the_same_database_is_refused_and_the_first_goes_on() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Builder::serve().dir(dir.path()).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("send messi satu"));
    let (code, said) = Builder::serve().dir(dir.path()).start_refused();
    assert_eq!(code, UNREACHABLE, "{said}");
    assert!(said.contains("antar.db"), "it says which file: {said}");
    ok(messi.cmd("send messi dua"));
    assert_eq!(messi.inbox().len(), 2);
}

#[test]
fn a_second_demo_on_the_same_data_is_refused() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Builder::demo().dir(dir.path()).start();
    let (code, said) = Builder::demo().dir(dir.path()).start_refused();
    assert_eq!(code, UNREACHABLE, "{said}");
    server.assert_serves();
}

/// Damages a database that was closed in good order, and says that it is refused and left as it is.
fn refused_after(damage: impl FnOnce(&mut fs::File, u64)) {
    let dir = TempDir::new().expect("a temporary directory");
    let path = kept_database(dir.path());
    let mut file = fs::OpenOptions::new().write(true).open(&path).expect("writable");
    let bytes = file.metadata().expect("it has a size").len();
    damage(&mut file, bytes);
    drop(file);
    let before = bytes_of(&path);
    let (code, said) = Builder::serve().dir(dir.path()).start_refused();
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {said}");
    assert!(said.contains("antar.db"), "it says which file: {said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(bytes_of(&path), before, "the file was changed");
}

#[test]
fn a_database_with_a_damaged_beginning_is_refused_and_left_as_it_is() {
    refused_after(|file, _| file.write_all(&[0x55; 4096]).expect("it can be damaged"));
}

#[test]
fn a_database_with_damaged_pages_is_refused_and_left_as_it_is() {
    refused_after(|file, bytes| {
        file.seek(SeekFrom::Start(4096)).expect("it can seek");
        let rest = usize::try_from(bytes - 4096).expect("it is small");
        file.write_all(&vec![0x55; rest]).expect("it can be damaged");
    });
}

#[test]
fn a_database_that_was_cut_short_is_refused_and_left_as_it_is() {
    refused_after(|file, bytes| file.set_len(bytes / 2 / 4096 * 4096).expect("it can be cut"));
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("antar.db");
    fs::write(&path, "bukan basis data\n".repeat(100)).expect("writable");
    let before = bytes_of(&path);
    let (code, said) = Builder::serve().dir(dir.path()).start_refused();
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert_eq!(bytes_of(&path), before, "the file was changed");
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().expect("a temporary directory");
    let path = kept_database(dir.path());
    let set = rusqlite::Connection::open(&path).expect("a database");
    let version: i64 = set.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("it has one");
    assert!(version > 0, "its version is not written down");
    set.pragma_update(None, "user_version", version + 1).expect("it can be changed");
    drop(set);
    let before = bytes_of(&path);
    let (code, said) = Builder::serve().dir(dir.path()).start_refused();
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(said.contains("version"), "it says why: {said}");
    assert_eq!(bytes_of(&path), before, "the file was changed");
}

#[test]
fn a_folder_that_does_not_exist_or_cannot_be_made_is_a_clear_error() {
    let (code, said) = Builder::serve_with("sqlite:/proc/nothing/antar.db").start_refused();
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(said.contains("/proc/nothing"), "it says which: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_stopped_server_leaves_a_database_that_starts_again() {
    let mut server = Server::demo();
    for round in 0..3 {
        let mut messi = Chat::login(&server, "realm1", "messi");
        ok(messi.cmd(&format!("send messi {round}")));
        assert_eq!(messi.inbox().len(), 1);
        server.restart();
    }
}
