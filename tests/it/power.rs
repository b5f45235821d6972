//! A power cut: what was not flushed to the disk is gone. An ext4 image on a loop device is shut down without flushing
//! its journal (`EXT4_IOC_SHUTDOWN`), the server is killed, the image is mounted again, and the ledger is compared.
//!
//! The control run, with `synchronous=normal`, must lose something, or the test would prove nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::harness::{Builder, Chat, Disk, OneFrame, PATIENCE, eventually, ok, texts};

/// Most cuts of the control run before it gives up: each of them loses something nearly always.
const CONTROL_CUTS_MAX: usize = 10;
/// Size of the disk.
const DISK_MIB: u64 = 96;

/// Cuts the power after `oks_wanted` sends were answered OK. Returns how many were answered before the cut and how many
/// of those are lost; that the rest is in order and there once is asserted here.
///
/// What is answered after the cut does not count: nobody would have seen it. (A sync that had begun before it may come
/// back with success, since ext4 does not look again at whether the journal was shut down meanwhile.)
fn cut(broker_options: &str, oks_wanted: usize) -> Option<(usize, usize)> {
    let mut disk = Disk::new(DISK_MIB)?;
    let broker = format!("sqlite:{}/antar.db{broker_options}", disk.mount_point().display());
    let mut server = Builder::serve_with(&broker).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let token = Chat::login(&server, "realm1", "henderson").token;
    let oks = Arc::new(Mutex::new(Vec::new()));
    let (ledger, stop) = (Arc::clone(&oks), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let sender = std::thread::spawn(move || {
        let (mut sent, mut answered) = (0, 0);
        while !stopped.load(Ordering::Relaxed) {
            while sent < answered + 8 {
                let line = messi.line(&format!("send henderson {sent}"));
                if messi.try_send_raw(format!("{line}\r\n")).is_err() {
                    return;
                }
                sent += 1;
            }
            // After the cut a server may refuse, go silent or end.
            match messi.next_frame(PATIENCE) {
                OneFrame::Frame(frame) if frame.windows(4).any(|w| w == b"\"OK\"") => {
                    ledger.lock().expect("no holder panics").push(answered);
                    answered += 1;
                }
                OneFrame::Frame(_) => answered += 1,
                OneFrame::Closed | OneFrame::Silence => return,
            }
        }
    });
    let switch = disk.switch();
    let count = || oks.lock().expect("no holder panics").len();
    eventually("enough sends are answered", || (count() >= oks_wanted).then_some(()));
    let answered = count();
    switch.cut_power();
    server.kill9();
    stop.store(true, Ordering::Relaxed);
    sender.join().expect("the sender does not panic");
    disk.unmount();
    disk.mount().expect("the disk can be mounted again");
    server.start();
    // With lazy syncs the session, even the account, may be gone too.
    let mut conn = server.connect("realm1");
    let token = match conn.ask(&format!("whoami {token}"))["status"] == "OK" {
        true => token,
        false => ok(conn.ask("auth henderson surabaya"))["tokenid"].as_str().expect("a token").to_owned(),
    };
    let mut read = Vec::new();
    loop {
        let page = ok(conn.ask(&format!("inbox {token}")));
        read.extend(page["messages"]["messi"].as_array().cloned().unwrap_or_default());
        if page["more"] != true {
            break;
        }
    }
    server.assert_serves();
    server.kill9();
    disk.unmount();
    let read: Vec<u64> = texts(&read).iter().map(|text| text.parse().expect("a number")).collect();
    assert!(read.is_sorted_by(|a, b| a < b), "out of order or twice");
    let oks = oks.lock().expect("no holder panics");
    let lost = oks[..answered].iter().filter(|n| read.binary_search(n).is_err()).count();
    Some((answered, lost))
}

#[test]
fn twenty_power_cuts_lose_nothing_that_was_answered_ok() {
    for n in 0..20 {
        let Some((answered, lost)) = cut("", 500) else { return };
        assert_eq!(lost, 0, "cut {n}: {lost} of {answered} messages that were answered OK are lost");
    }
}

#[test]
fn a_power_cut_under_lazy_syncs_loses_messages_so_the_test_can_tell() {
    for _ in 0..CONTROL_CUTS_MAX {
        let Some((_, lost)) = cut("?synchronous=normal", 200) else { return };
        if lost > 0 {
            return;
        }
    }
    panic!("{CONTROL_CUTS_MAX} power cuts without syncs lost nothing: the cut does not cut");
}
