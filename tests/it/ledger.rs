//! The ledger: whatever happens to edges, links, realms and broker, every OK arrives once and in order, and every other
//! request is accounted for. `antar bench ledger` is the same for hours.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::sender::{Addresses, Fate, Sender, Sent, reconcile};
use crate::harness::{
    Chat, Cluster, Federation, Proxy, Realms, Server, Way, eventually, eventually_in, ok, texts,
};

/// How many messages of each sender have to be stored between two faults.
const BETWEEN_FAULTS: usize = 60;

/// How long the last messages may take: elections, the leases of those who died, growing pauses, one after the other.
const LAST_MAX: Duration = Duration::from_secs(60);

/// Who sends, in realm1.
const SENDERS: [&str; 2] = ["messi", "henderson"];
/// To whom: one of the own realm, one of realm2.
const COMMANDS: [&str; 2] = ["send lineker", "sendprivaterealm realm2 lineker"];

/// Senders at work, and the edges that they know.
struct Ledger {
    addresses: Addresses,
    senders: Vec<Sender>,
}

impl Ledger {
    /// Lets both users send through either edge of realm1.
    #[track_caller]
    fn open(here: &[Server]) -> Self {
        let addresses: Addresses =
            Arc::new(Mutex::new(here.iter().map(|edge| edge.addr("realm1")).collect()));
        let mut chats = SENDERS.map(|user| Chat::login(&here[0], "realm1", user));
        ok(chats[0].cmd("addrealm realm2 127.0.0.1 4002"));
        eventually("both edges know the realm", || {
            let known = |edge: &Server| {
                ok(chats[0].again(edge, "realm1").cmd("connectedrealm")).to_string().contains("realm2")
            };
            here.iter().all(known).then_some(())
        });
        let sender = |(user, chat): (&&str, &Chat)| Sender::start(user, &chat.token, &COMMANDS, &addresses);
        let senders: Vec<Sender> = SENDERS.iter().zip(&chats).map(sender).collect();
        let ledger = Self { addresses, senders };
        ledger.goes_on();
        ledger
    }

    /// Waits until both senders have gone on for a while.
    #[track_caller]
    fn goes_on(&self) {
        self.senders.iter().for_each(|sender| sender.goes_on(BETWEEN_FAULTS));
    }

    /// Kills an edge of realm1, starts it again and tells the senders where it is.
    #[track_caller]
    fn crash(&self, here: &mut [Server], number: usize) {
        here[number].kill9();
        self.goes_on();
        here[number].start();
        self.addresses.lock().expect("no holder panics")[number] = here[number].addr("realm1");
        self.goes_on();
    }

    /// Ends the sending, reads both mailboxes to their ends and compares.
    #[track_caller]
    fn close(self, here: &Server, there: &Server) {
        let books: Vec<Vec<Sent>> = self.senders.into_iter().map(Sender::finish).collect();
        let mut read = [Vec::new(), Vec::new()];
        let mut receivers = [Chat::login(here, "realm1", "lineker"), Chat::login(there, "realm2", "lineker")];
        let wanted = |to: usize| {
            let of = |book: &Vec<Sent>| {
                let last = |sent: &&Sent| sent.to == to && matches!(sent.fate, Fate::Stored | Fate::Settled);
                book.iter().rfind(last).expect("some were stored").text.clone()
            };
            books.iter().map(of).collect::<Vec<_>>()
        };
        for (to, receiver) in receivers.iter_mut().enumerate() {
            let wanted = wanted(to);
            eventually_in(LAST_MAX, "the last messages arrive", || {
                let messages = if to == 0 { receiver.inbox() } else { receiver.realm_inbox("realm1") };
                read[to].extend(texts(&messages).into_iter().map(str::to_owned));
                wanted.iter().all(|last| read[to].contains(last)).then_some(())
            });
            let more = if to == 0 { receiver.inbox() } else { receiver.realm_inbox("realm1") };
            read[to].extend(texts(&more).into_iter().map(str::to_owned));
        }
        for (user, book) in SENDERS.iter().zip(&books) {
            for (to, read) in read.iter().enumerate() {
                reconcile(user, book, to, read);
            }
        }
        let count = |fate: Fate| books.iter().flatten().filter(|sent| sent.fate == fate).count();
        assert!(count(Fate::Settled) > 0, "no fault hit anybody, so nothing was tested");
    }
}

#[test]
fn every_ok_arrives_once_and_in_order_over_kills_stops_cuts_and_an_absent_realm() {
    let mut federation = Federation::start();
    let links = [federation.link(), federation.link()];
    let mut here = links.each_ref().map(|link| federation.edge_behind(link, "realm1"));
    let far: [Proxy; 2] = [federation.link(), federation.link()];
    let mut there = far.each_ref().map(|link| federation.edge_behind(link, "realm2"));
    let ledger = Ledger::open(&here);

    for (number, far_edge) in there.iter_mut().enumerate() {
        ledger.crash(&mut here, number);
        far_edge.kill9();
        ledger.goes_on();
        far_edge.start();
    }
    federation.nats.restart();
    ledger.goes_on();
    federation.nats.stop();
    ledger.senders.iter().for_each(Sender::hears_unavailable);
    federation.nats.cont();
    ledger.goes_on();
    for way in [Way::Both, Way::Down, Way::Up] {
        links.iter().for_each(|link| link.cut(way));
        ledger.senders[0].hears_unavailable();
        links.iter().for_each(Proxy::heal);
        ledger.goes_on();
    }
    for change in [|link: &Proxy| link.cut(Way::Both), |link: &Proxy| link.cut(Way::Up), Proxy::reset] {
        far.iter().for_each(change);
        ledger.goes_on();
        far.iter().for_each(Proxy::heal);
        ledger.goes_on();
    }
    there.iter_mut().for_each(Server::kill9);
    ledger.goes_on();
    there.iter_mut().for_each(Server::start);
    ledger.goes_on();
    ledger.close(&here[0], &there[1]);
}

#[test]
#[ignore = "a minute of elections, longer beside other work; see proto-docs/known-issues.md"]
fn every_ok_arrives_once_and_in_order_while_the_servers_of_a_cluster_die_in_turn() {
    let mut cluster = Cluster::start(3);
    let realms = Realms::new();
    let edge = |realm| realms.edge(realm, &cluster.url()).env("BROKER__REPLICAS", 3).start();
    let (here, there) = ([edge("realm1"), edge("realm1")], edge("realm2"));
    let ledger = Ledger::open(&here);
    for number in 0..cluster.len() {
        cluster.server_mut(number).kill();
        ledger.goes_on();
        cluster.server_mut(number).start_again();
        cluster.wait_healthy();
    }
    ledger.close(&here[1], &there);
}
