//! A full disk: nothing is answered OK that was not stored, nothing that was stored is lost, and afterwards it goes on.

use std::fs::File;
use std::io::Write;

use uuid::Uuid;

use crate::harness::{Builder, Chat, Disk, ok, texts};

/// Sends into the full disk before the test gives up waiting for an error.
const SENDS_MAX: usize = 2000;

#[test]
fn a_full_disk_is_unavailable_and_what_was_refused_can_be_sent_again() {
    let Some(disk) = Disk::new(24) else { return };
    let broker = format!("sqlite:{}/antar.db", disk.mount_point().display());
    let mut server = Builder::serve_with(&broker).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut henderson = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("send henderson sebelum penuh"));

    let ballast = disk.mount_point().join("ballast");
    let mut file = File::create(&ballast).expect("there is room for its name");
    while file.write_all(&[0; 64 * 1024]).is_ok() {}
    while file.write_all(&[0; 512]).is_ok() {}
    drop(file);

    let filler = "x".repeat(3000);
    let (mut stored, mut refused) = (Vec::new(), Vec::new());
    for n in 0..SENDS_MAX {
        let tag = Uuid::now_v7().simple().to_string();
        let line = format!("@{tag} send henderson {n} {filler}");
        let reply = messi.cmd(&line);
        if reply["status"] == "OK" {
            stored.push(n);
        } else {
            assert_eq!(reply["code"], "unavailable", "{reply}");
            assert!(reply["stored"] == false || reply["stored"] == "unknown", "{reply}");
            refused.push((n, line));
        }
        if refused.len() == 5 {
            break;
        }
    }
    assert_eq!(refused.len(), 5, "the disk was not full after {} sends", stored.len());
    // Whoever only asks is still answered.
    ok(messi.cmd("whoami"));
    assert!(!ok(messi.cmd("history limit=1"))["messages"].as_array().expect("a list").is_empty());

    std::fs::remove_file(&ballast).expect("it can be removed");
    for (n, line) in &refused {
        ok(messi.cmd(line));
        stored.push(*n);
    }
    let numbers = |read: &[serde_json::Value]| -> Vec<usize> {
        let first = |text: &&str| text.split(' ').next().expect("split yields one at least").to_owned();
        texts(read)[1..].iter().map(|text| first(text).parse().expect("a number")).collect()
    };
    let read = henderson.inbox();
    assert_eq!(texts(&read)[0], "sebelum penuh");
    let mut numbers = numbers(&read);
    numbers.sort_unstable();
    stored.sort_unstable();
    assert_eq!(numbers, stored, "each message once");
    server.crash();
    server.assert_serves();
    server.kill9();
}
