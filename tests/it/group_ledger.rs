//! The ledger of a group with members in two realms: whatever happens to edges, links and broker, every OK is read once by every
//! member, and all of them see one order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::harness::sender::{Addresses, Fate, Sender, Sent, reconcile};
use crate::harness::{Chat, Federation, Proxy, Server, Way, eventually, ok, text};

/// How many messages of each sender have to be stored between two faults.
const BETWEEN_FAULTS: usize = 40;
/// What a watch pushes, in its order, until it has pushed `last` of everybody.
fn watch_all(chat: &mut Chat, last: &[String]) -> Vec<String> {
    ok(chat.cmd("watch"));
    let mut read: Vec<String> = Vec::new();
    let mut left: BTreeSet<&String> = last.iter().collect();
    while !left.is_empty() {
        let said = text(&chat.event_among("message"), "msg").to_owned();
        left.remove(&said);
        read.push(said);
    }
    read
}

fn addresses(edges: &[Server], realm: &str) -> Addresses {
    Arc::new(Mutex::new(edges.iter().map(|edge| edge.addr(realm)).collect()))
}

/// Kills an edge, starts it again and tells its senders where it is.
fn crash(edges: &mut [Server], realm: &str, number: usize, known: &Addresses, senders: &[&Sender]) {
    edges[number].kill9();
    senders.iter().for_each(|sender| sender.goes_on(BETWEEN_FAULTS));
    edges[number].start();
    known.lock().expect("no holder panics")[number] = edges[number].addr(realm);
    senders.iter().for_each(|sender| sender.goes_on(BETWEEN_FAULTS));
}

#[test]
fn every_ok_to_a_group_of_two_realms_is_read_once_and_in_one_order_over_kills_stops_and_cuts() {
    let mut federation = Federation::start();
    let near = [federation.link(), federation.link()];
    let far = [federation.link(), federation.link()];
    let mut here = near.each_ref().map(|link| federation.edge_behind(link, "realm1"));
    let mut there = far.each_ref().map(|link| federation.edge_behind(link, "realm2"));
    let known = [addresses(&here, "realm1"), addresses(&there, "realm2")];
    let mut messi = Chat::login(&here[0], "realm1", "messi");
    let mut reader = Chat::login(&here[1], "realm1", "henderson");
    let mut lineker = Chat::login(&there[0], "realm2", "lineker");
    let mut far_reader = Chat::login(&there[1], "realm2", "henderson");
    ok(lineker.cmd("addrealm realm1 127.0.0.1 4001"));
    ok(messi.cmd("addgroup tim"));
    ok(reader.cmd("joingroup tim"));
    ok(lineker.cmd("joingroup #tim@realm1"));
    eventually("the other edge knows the realm, too", || {
        (far_reader.cmd("joingroup #tim@realm1")["status"] == "OK").then_some(())
    });
    let senders = [
        Sender::start("messi", &messi.token, &["sendgroup #tim"], &known[0]),
        Sender::start("lineker", &lineker.token, &["sendgroup #tim@realm1"], &known[1]),
    ];
    let [one, two] = &senders;
    let both = [one, two];
    let go_on = || both.iter().for_each(|sender| sender.goes_on(BETWEEN_FAULTS));
    go_on();

    for number in 0..2 {
        crash(&mut here, "realm1", number, &known[0], &both);
        crash(&mut there, "realm2", number, &known[1], &both);
    }
    federation.nats.restart();
    go_on();
    federation.nats.stop();
    both.iter().for_each(|sender| sender.hears_unavailable());
    federation.nats.cont();
    go_on();
    for way in [Way::Both, Way::Up] {
        near.iter().for_each(|link| link.cut(way));
        one.hears_unavailable();
        near.iter().for_each(Proxy::heal);
        go_on();
    }
    there.iter_mut().for_each(Server::kill9);
    one.goes_on(BETWEEN_FAULTS);
    there.iter_mut().for_each(Server::start);
    for (number, edge) in there.iter().enumerate() {
        known[1].lock().expect("no holder panics")[number] = edge.addr("realm2");
    }
    go_on();

    let [one, two] = senders;
    let books = [one.finish(), two.finish()];
    let last = |book: &Vec<Sent>| {
        let stored = |sent: &&Sent| matches!(sent.fate, Fate::Stored | Fate::Settled);
        book.iter().rfind(stored).expect("some were stored").text.clone()
    };
    let last = books.each_ref().map(last);
    let mut reader = reader.again(&here[1], "realm1");
    let mut far_reader = far_reader.again(&there[1], "realm2");
    let read = [watch_all(&mut reader, &last), watch_all(&mut far_reader, &last)];
    for read in &read {
        reconcile("messi", &books[0], 0, read);
        reconcile("lineker", &books[1], 0, read);
    }
    assert!(read[0] == read[1], "all see one order");
}
