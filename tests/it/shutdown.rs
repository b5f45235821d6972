//! SIGTERM: stop accepting, answer what is in flight, tell watchers, exit 0 in time.

use std::time::{Duration, Instant};

use super::BROKER;
use crate::harness::{Chat, Conn, eventually, ok, texts};

/// How long a server may take to end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

#[test]
fn an_idle_server_with_many_connections_ends_at_once() {
    let mut server = BROKER.demo();
    let crowd: Vec<_> = (0..30).map(|_| Chat::login(&server, "realm1", "messi")).collect();
    let silent: Vec<_> = (0..30).map(|_| server.connect("realm2")).collect();
    let mut half = server.connect("realm1");
    half.send_raw("auth messi");
    let started = Instant::now();
    server.sigterm();
    assert!(started.elapsed() < SHUTDOWN_MAX, "it took {:?}", started.elapsed());
    drop((crowd, silent));
    half.expect_end();
}

#[test]
fn watchers_are_told_of_the_shutdown() {
    let mut server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut lineker = Chat::login(&server, "realm2", "lineker");
    let mut idle = Chat::login(&server, "realm1", "henderson");
    ok(messi.cmd("watch"));
    ok(lineker.cmd("watch"));
    server.sigterm();
    for watcher in [&mut messi, &mut lineker] {
        watcher.event("shutdown");
        watcher.expect_end();
    }
    idle.expect_end();
}

#[test]
fn what_is_in_flight_is_answered_and_what_was_stored_was_answered() {
    let mut server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let henderson = Chat::login(&server, "realm1", "henderson");
    let lines: String = (0..3000).map(|n| messi.line(&format!("@{n} send henderson {n}")) + "\r\n").collect();
    let mut writer = messi.writer();
    // The server may stop reading in the middle: then the rest cannot be written, which is right.
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, lines.as_bytes()));
    let mut answered = 0;
    for _ in 0..100 {
        assert_eq!(ok(messi.reply())["id"], answered.to_string());
        answered += 1;
    }
    server.send_sigterm();
    while let Some(reply) = messi.reply_or_end() {
        if reply["event"].is_string() {
            continue;
        }
        assert_eq!(ok(reply)["id"], answered.to_string());
        answered += 1;
    }
    assert_eq!(server.wait_exit().code(), Some(0));
    drop(sending.join());
    server.kill9();
    server.start();
    let read = henderson.again(&server, "realm1").inbox();
    assert_eq!(texts(&read), (0..answered).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn nobody_is_let_in_during_or_after_a_shutdown() {
    let mut server = BROKER.demo();
    let addr = server.addr("realm1");
    server.sigterm();
    eventually("the port is closed", || Conn::try_open(addr).is_err().then_some(()));
}

#[test]
fn sigint_ends_it_in_good_order_too() {
    let mut server = BROKER.demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    ok(messi.cmd("watch"));
    server.signal("INT");
    messi.event("shutdown");
    assert_eq!(server.wait_exit().code(), Some(0));
}

#[test]
fn a_reader_that_never_reads_does_not_hold_up_the_shutdown() {
    let mut server = BROKER.demo();
    let mut bad = Chat::login(&server, "realm1", "messi");
    let mut writer = bad.writer();
    writer.set_write_timeout(Some(Duration::from_millis(300))).expect("a positive timeout");
    // Until its replies fill the buffers on the way and the server no longer reads.
    while std::io::Write::write_all(&mut writer, "help\r\n".repeat(500).as_bytes()).is_ok() {}
    let started = Instant::now();
    server.sigterm();
    assert!(started.elapsed() < SHUTDOWN_MAX, "it took {:?}", started.elapsed());
    bad.expect_end();
}
