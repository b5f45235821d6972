//! What the tests with NATS stand on does what they take for granted.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Nats, PATIENCE, Proxy, Way, Wire, eventually};

/// Long enough for a round trip on one machine, short enough to wait for nothing.
const SHORT: Duration = Duration::from_millis(150);

fn make_stream(wire: &mut Wire, replicas: usize) {
    let config = format!(
        r#"{{"name":"S","subjects":["s.>"],"storage":"file","retention":"limits","num_replicas":{replicas}}}"#
    );
    let answer = wire.request_with("$JS.API.STREAM.CREATE.S", &[], config.as_bytes(), PATIENCE);
    let said = answer.expect("the line holds").expect("an answer").text();
    assert!(!said.contains("\"error\""), "{said}");
}

/// Stores a message and returns its sequence.
fn store(wire: &mut Wire, text: &str) -> Option<u64> {
    let said = wire.request("s.x", text).ok()??.text();
    let digits = said.split_once("\"seq\":")?.1;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[test]
fn a_killed_server_comes_back_on_its_port_with_its_streams() {
    let mut nats = Nats::options().sync_always().start();
    let (url, mut wire) = (nats.url(), nats.wire());
    make_stream(&mut wire, 1);
    assert_eq!(store(&mut wire, "satu"), Some(1));
    nats.restart();
    assert_eq!(nats.url(), url);
    assert!(wire.flush().is_err(), "the old connection is dead");
    assert_eq!(store(&mut nats.wire(), "dua"), Some(2));
}

#[test]
fn a_stopped_server_is_silent_and_goes_on() {
    let nats = Nats::start();
    let mut wire = nats.wire();
    make_stream(&mut wire, 1);
    nats.stop();
    let answer = wire.request_with("s.x", &[], b"satu", SHORT).expect("the socket is open");
    assert_eq!(answer, None);
    nats.cont();
    wire.flush().expect("it goes on");
    assert_eq!(store(&mut wire, "dua"), Some(2), "what was sent meanwhile has arrived");
}

#[test]
fn users_see_what_their_account_lets_them() {
    let config =
        "accounts { A { users: [{user: a, password: pa}] }, B { users: [{user: b, password: pb}] } }";
    let nats = Nats::options().config(config).start();
    let (mut a, mut b) = (nats.wire_as("a", "pa"), nats.wire_as("b", "pb"));
    b.subscribe(">").expect("the line holds");
    b.flush().expect("the line holds");
    a.publish("x", "rahasia").expect("the line holds");
    a.flush().expect("the line holds");
    assert_eq!(b.next(SHORT).expect("the line holds"), None);
    assert!(Wire::connect(nats.addr()).is_err() && Wire::connect_as(nats.addr(), "a", "pb").is_err());
}

#[test]
fn a_cluster_of_three_stores_while_one_of_them_is_dead() {
    let mut cluster = Cluster::start(3);
    make_stream(&mut cluster.server(0).wire(), 3);
    cluster.wait_healthy();
    cluster.server_mut(0).kill();
    let mut wire = cluster.server(1).wire();
    eventually("two of three store", || store(&mut wire, "masih"));
    cluster.server_mut(0).start_again();
    cluster.wait_healthy();
}

/// A server that sends everything back.
fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it listens");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &client, &mut &client));
        }
    });
    addr
}

fn through(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.addr()).expect("the proxy listens")
}

fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("the socket is open");
}

/// What comes back in `patience`; empty when it is closed.
fn heard(stream: &mut TcpStream, patience: Duration) -> Option<String> {
    stream.set_read_timeout(Some(patience)).expect("a positive timeout");
    let mut bytes = [0; 64];
    stream.read(&mut bytes).ok().map(|n| String::from_utf8_lossy(&bytes[..n]).into_owned())
}

#[test]
fn a_cut_proxy_is_silent_each_way_and_delivers_when_it_is_whole() {
    let proxy = Proxy::start(echo());
    let mut stream = through(&proxy);
    for (way, text) in [(Way::Up, "satu"), (Way::Down, "dua"), (Way::Both, "tiga")] {
        say(&mut stream, "dulu");
        assert_eq!(heard(&mut stream, PATIENCE).as_deref(), Some("dulu"));
        proxy.cut(way);
        say(&mut stream, text);
        assert_eq!(heard(&mut stream, SHORT), None, "{way:?} is cut");
        proxy.heal();
        assert_eq!(heard(&mut stream, PATIENCE).as_deref(), Some(text));
    }
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn a_slow_proxy_takes_its_time_each_way() {
    let proxy = Proxy::start(echo());
    let mut stream = through(&proxy);
    proxy.delay(Way::Both, SHORT);
    let start = Instant::now();
    say(&mut stream, "pelan");
    assert_eq!(heard(&mut stream, PATIENCE).as_deref(), Some("pelan"));
    assert!(start.elapsed() >= 2 * SHORT, "{:?}", start.elapsed());
}

#[test]
fn a_reset_ends_connections_and_a_refusing_proxy_takes_none() {
    let proxy = Proxy::start(echo());
    let mut stream = through(&proxy);
    say(&mut stream, "dulu");
    assert_eq!(heard(&mut stream, PATIENCE).as_deref(), Some("dulu"));
    let ended = |stream: &mut TcpStream| heard(stream, PATIENCE).is_none_or(|text| text.is_empty());
    proxy.reset();
    assert!(ended(&mut stream));
    proxy.refuse();
    assert!(ended(&mut through(&proxy)));
    proxy.heal();
    let mut stream = through(&proxy);
    say(&mut stream, "lagi");
    assert_eq!(heard(&mut stream, PATIENCE).as_deref(), Some("lagi"));
}
