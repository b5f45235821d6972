//! One bad client costs others nothing: caps, timeouts, slow readers, file descriptors. Limits are made small here, so
//! that they are reached at once.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use crate::harness::{Builder, Chat, Conn, OneFrame, PATIENCE, eventually, holds_for, http_get, ok};

#[test]
fn a_line_that_does_not_end_in_time_closes_its_connection_only() {
    let server = Builder::serve().limit("line_seconds", 1).start();
    let mut slow = Chat::login(&server, "realm1", "messi");
    let mut other = Chat::login(&server, "realm1", "henderson");
    let line = slow.line("send messi lambat");
    slow.send_raw(&line);
    let told = slow.reply_or_end();
    if let Some(reply) = told {
        assert_eq!(reply["status"], "ERROR", "{reply}");
        slow.expect_end();
    }
    ok(other.cmd("whoami"));
    let mut again = slow.again(&server, "realm1");
    assert!(again.inbox().is_empty(), "half a line was executed");
}

#[test]
fn a_line_that_drips_in_does_not_win_time_with_every_byte() {
    let server = Builder::serve().limit("line_seconds", 1).start();
    let mut slow = Chat::login(&server, "realm1", "messi");
    let mut ended = false;
    slow.send_raw("x");
    eventually("the dripping connection is closed", || {
        ended = ended
            || slow.try_send_raw("x").is_err()
            || matches!(slow.next_frame(Duration::from_millis(1)), OneFrame::Closed);
        ended.then_some(())
    });
    server.assert_serves();
}

#[test]
fn the_connection_idle_longest_makes_room_when_an_address_has_too_many_without_a_login() {
    let server = Builder::serve().limit("unauthenticated_per_address", 4).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut early: Vec<Conn> = (0..4).map(|_| server.connect("realm1")).collect();
    for conn in &mut early {
        assert!(conn.answers());
    }
    // The first one speaks again, a moment later that no clock can miss, so the second has been idle longest.
    assert!(holds_for(Duration::from_millis(20), || true));
    assert!(early[0].answers());
    let mut late = server.connect("realm1");
    assert!(late.answers());
    early[1].expect_end();
    for at in [0, 2, 3] {
        assert!(early[at].answers(), "connection {at} was closed");
    }
    ok(messi.cmd("whoami"));
    // Who has logged in does not count.
    let users: Vec<_> = (0..8).map(|_| Chat::login(&server, "realm1", "henderson")).collect();
    for mut user in users {
        ok(user.cmd("whoami"));
    }
}

#[test]
fn a_thousand_connections_without_a_login_are_capped() {
    let server = Builder::serve().start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let before = server.open_files();
    let crowd: Vec<_> = (0..1000).filter_map(|_| Conn::try_open(server.addr("realm1")).ok()).collect();
    eventually("all but 64 are closed", || (server.open_files() <= before + 64 + 8).then_some(()));
    ok(messi.cmd("send messi masih bisa"));
    drop(crowd);
    server.assert_serves();
}

#[test]
fn a_connection_that_never_logs_in_is_closed() {
    let server = Builder::serve().limit("unauthenticated_seconds", 1).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut silent = server.connect("realm1");
    silent.expect_end();
    // Talking is not logging in.
    let mut talker = server.connect("realm1");
    eventually("the talker is closed", || (!talker.answers()).then_some(()));
    ok(messi.cmd("whoami"));
}

#[test]
fn a_reader_that_never_reads_is_closed_while_others_go_on() {
    let server = Builder::serve().limit("write_stall_seconds", 1).start();
    let mut good = Chat::login(&server, "realm1", "henderson");
    let bad = Chat::login(&server, "realm1", "messi");
    let before = server.memory_kib("VmRSS");
    let mut writer = bad.writer();
    let flood = std::thread::spawn(move || {
        let lines = "help\r\n".repeat(1000);
        loop {
            match writer.write_all(lines.as_bytes()) {
                Ok(()) => {}
                // The server stopped reading, and within the deadline it also closes.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
                Err(_) => return true,
            }
        }
    });
    let mut closed = None;
    eventually("the reader that never reads is closed", || {
        ok(good.cmd("send henderson sementara itu"));
        if closed.is_none() && flood.is_finished() {
            closed = Some(());
        }
        closed
    });
    assert!(
        flood.join().expect("the writer does not panic"),
        "only its own deadline ended it, after {PATIENCE:?}"
    );
    let after = server.memory_kib("VmRSS");
    assert!(after < before + 16 * 1024, "{before} KiB before, {after} KiB after");
    drop(bad);
    server.assert_serves();
}

#[test]
fn a_watcher_that_never_reads_is_closed_and_loses_nothing() {
    let builder = Builder::serve().env("LISTEN__HTTP", "127.0.0.1:0");
    let server = builder.limit("write_stall_seconds", 1).start();
    let http = server.http("realm1").expect("it listens");
    let mut sender = Chat::login(&server, "realm1", "messi");
    let mut watcher = Chat::login(&server, "realm1", "henderson");
    watcher.keep_little();
    ok(watcher.cmd("watch"));
    let long = "x".repeat(60_000);
    let mut sent = 0;
    let count = 400;
    for n in 0..count {
        sender.start(&format!("send henderson {n} {long}"));
        if n % 10 == 9 {
            (0..10).for_each(|_| drop(ok(sender.reply())));
            sent += 10;
        }
    }
    assert_eq!(sent, count);
    eventually("the server gives it up", || {
        http_get(http, "/metrics").contains("antar_watches_open{realm=\"realm1\"} 0").then_some(())
    });
    let mut again = watcher.again(&server, "realm1");
    // Only now does it read what was on its way; what was not on its way is still unread.
    let mut seen = Vec::new();
    let number = |message: &serde_json::Value| -> usize {
        let text = message["msg"].as_str().and_then(|t| t.split(' ').next()).expect("a text");
        text.parse().expect("a number")
    };
    eventually("the watcher is closed", || {
        let frame = watcher.next_frame(PATIENCE);
        if let OneFrame::Frame(bytes) = frame {
            seen.push(number(&serde_json::from_slice(&bytes).expect("an event")));
            return None;
        }
        assert!(matches!(frame, OneFrame::Closed), "the connection is still open");
        Some(())
    });
    seen.extend(again.inbox().iter().map(number));
    seen.dedup();
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted, (0..count).collect::<Vec<_>>(), "shown twice is possible, lost is not");
}

#[test]
fn pipelining_beyond_the_limit_waits_and_loses_nothing() {
    let server = Builder::serve().limit("pipeline_max", 4).start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let lines: String = (0..500).map(|n| messi.line(&format!("@{n} send messi {n}")) + "\r\n").collect();
    messi.send_raw(lines);
    for n in 0..500 {
        assert_eq!(ok(messi.reply())["id"], n.to_string());
    }
    assert_eq!(messi.inbox().len(), 500);
}

#[test]
fn running_out_of_file_descriptors_delays_new_connections_and_nothing_else() {
    let server = Builder::serve().start();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let room = server.open_files() + 3;
    set_open_files(server.pid(), room);
    let mut crowd: Vec<_> = (0..20).filter_map(|_| Conn::try_open(server.addr("realm1")).ok()).collect();
    crowd[0].send("ping");
    ok(crowd[0].reply());
    let logged = server.log().len();
    for n in 0..100 {
        ok(messi.cmd(&format!("send messi walau penuh {n}")));
    }
    assert_eq!(messi.inbox().len(), 100);
    let mut last = crowd.pop().expect("twenty were opened");
    last.send("ping");
    assert!(
        matches!(last.next_frame(Duration::from_millis(500)), OneFrame::Silence),
        "there was room after all"
    );
    let grown = server.log().len() - logged;
    assert!(grown < 64 * 1024, "{grown} bytes of log: the accept loop spins");
    crowd.truncate(0);
    ok(last.reply());
    server.assert_serves();
}

fn set_open_files(pid: u32, limit: usize) {
    let done = std::process::Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--nofile={limit}:"))
        .status();
    assert!(done.is_ok_and(|status| status.success()), "prlimit (util-linux) is needed");
}
