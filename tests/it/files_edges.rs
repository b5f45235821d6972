//! Files where realms are processes of their own: an outage of either takes time and nothing else, and edges take over from
//! each other.

use data_encoding::BASE64;
use uuid::Uuid;

use crate::harness::{Chat, Conn, Federation, eventually, ok, refused, text};
use crate::nats::files::{get, line, noise, parts};

#[test]
fn an_outage_of_either_realm_delays_a_file() {
    let federation = Federation::start();
    let (one, mut two) = (federation.edge("realm1"), federation.edge("realm2"));
    let mut messi = Chat::login(&one, "realm1", "messi");
    let mut lineker = Chat::login(&two, "realm2", "lineker");
    ok(messi.cmd("addrealm realm2 127.0.0.1 4002"));
    let (bytes, id) = (noise(1_500_000, 8), Uuid::now_v7());
    let parts = parts(&bytes);
    for number in 1..parts.len() {
        ok(messi.cmd(&line("lineker@realm2", "film.bin", id, &parts, bytes.len(), number)));
    }
    // Nobody is there when it is sent.
    two.sigterm();
    ok(messi.cmd(&line("lineker@realm2", "film.bin", id, &parts, bytes.len(), parts.len())));
    eventually("it is stored there", || {
        let state = ok(messi.cmd(&format!("status {id}")))["state"].clone();
        (state == "stored").then_some(())
    });
    // And then the one that has the bytes is gone.
    drop(one);
    two.crash();
    lineker = lineker.again(&two, "realm2");
    refused(lineker.cmd(&format!("getfile {id}")), "no-such-file");
    assert!(lineker.realm_inbox("realm1").is_empty());
    // Its bytes are gone on being asked for, on another edge there, after the first one was killed.
    let other = federation.edge("realm2");
    two.kill9();
    let mut lineker = Chat::login(&other, "realm2", "lineker");
    let one = federation.edge("realm1");
    let read = lineker.realm_inbox_of("realm1", 1);
    assert_eq!(text(&read[0]["file"], "id"), id.to_string());
    assert!(get(&mut lineker, &id.to_string()) == bytes, "other bytes came out");
    let mut messi = Chat::login(&one, "realm1", "messi");
    ok(messi.cmd(&format!("sendfile lineker@realm2 x.bin {}", BASE64.encode(b"halo"))));
    assert_eq!(lineker.realm_inbox_of("realm1", 1).len(), 1, "each came once");
}

#[test]
fn a_quota_holds_for_uploads_that_begin_on_two_edges_at_once() {
    let federation = Federation::start();
    let edge = || {
        let edge = federation.realms.edge("realm1", &federation.nats.url());
        edge.limit("user_file_bytes_max", 60_000).start()
    };
    let edges = [edge(), edge()];
    let data = BASE64.encode(&noise(40_000, 9));
    for round in 0..8 {
        let first = Chat::register(&edges[0], "realm1", &format!("pengguna{round}"));
        let mut chats = [first.again(&edges[0], "realm1"), first.again(&edges[1], "realm1")];
        for chat in &mut chats {
            chat.start(&format!("sendfile messi x.bin {data}"));
        }
        let sent =
            chats.iter_mut().map(|chat| Conn::reply(chat)).filter(|reply| reply["status"] == "OK").count();
        assert!(sent <= 1, "both were taken");
    }
}
