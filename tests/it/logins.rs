//! Passwords cost time and memory: many logins at once, and those who guess. Whatever the broker is, it is not asked.

use std::time::Duration;

use crate::harness::{Chat, Conn, OneFrame, PASSWORD, Server, ok, refused};

#[test]
fn two_hundred_logins_at_once_are_answered_while_others_chat() {
    let server = Server::demo();
    let mut messi = Chat::login(&server, "realm1", "messi");
    let mut crowd: Vec<_> = (0..50).map(|_| server.connect("realm1")).collect();
    for conn in &mut crowd {
        conn.send_raw("auth henderson surabaya\r\n".repeat(4));
    }
    // Sends of somebody who is in already do not queue behind the hashing.
    for n in 0..200 {
        ok(messi.cmd(&format!("send messi sementara itu {n}")));
    }
    assert_eq!(messi.inbox().len(), 200);
    for conn in &mut crowd {
        for _ in 0..4 {
            let reply = conn.reply();
            if reply["status"] != "OK" {
                refused(reply, "slow-down");
            }
        }
    }
}

#[test]
fn hashing_for_many_logins_has_a_bound_on_memory() {
    let server = Server::demo();
    let mut crowd: Vec<_> = (0..60).map(|_| server.connect("realm1")).collect();
    for conn in &mut crowd {
        conn.send("auth henderson surabaya");
    }
    for conn in &mut crowd {
        conn.reply();
    }
    let peak = server.memory_kib("VmHWM");
    // One hash takes 19 MiB: sixty at once would take more than a gigabyte.
    assert!(peak < 400 * 1024, "{peak} KiB at the peak");
}

#[test]
fn guessing_is_slowed_down_and_a_right_login_from_another_address_is_not() {
    let server = Server::demo();
    let mut guesser = server.connect("realm1");
    for n in 0..10 {
        refused(guesser.ask(&format!("auth messi tebakan{n}")), "bad-password");
    }
    // The next try waits, even a right one. Other accounts and other addresses are not held up meanwhile. (All of
    // 127.0.0.0/8 is this machine.)
    guesser.send("auth messi surabaya");
    ok(server.connect("realm1").ask("auth henderson surabaya"));
    let mut elsewhere =
        Conn::open_from("127.0.0.9", server.addr("realm1")).expect("another loopback address");
    ok(elsewhere.ask("auth messi surabaya"));
    assert!(
        matches!(guesser.next_frame(Duration::from_millis(1)), OneFrame::Silence),
        "the guesser was not slowed down"
    );
    ok(guesser.reply());
}

#[test]
fn a_password_of_a_megabyte_is_refused_before_it_is_hashed() {
    let server = Server::demo();
    let mut conn = server.connect("realm1");
    refused(conn.ask(&format!("auth messi {}", "x".repeat(1 << 20))), "line-too-long");
    refused(conn.ask(&format!("auth messi {}", "x".repeat(10_000))), "bad-password");
    refused(conn.ask(&format!("register xavi {} Spanyol Xavi", "x".repeat(10_000))), "weak-password");
    let mut messi = Chat::login(&server, "realm1", "messi");
    refused(messi.cmd(&format!("passwd {PASSWORD} {}", "x".repeat(60_000))), "weak-password");
    refused(messi.cmd(&format!("passwd {} barubaru1", "x".repeat(60_000))), "bad-password");
    ok(conn.ask("auth messi surabaya"));
}
