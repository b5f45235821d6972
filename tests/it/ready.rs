//! `/readyz`: a short break of the connection to the broker is nothing, a long one is told with its reason, and so is the end.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::{
    Builder, Chat, Federation, Realms, Way, antar, eventually_in, holds_for, http_get, try_http_get,
};

/// Longer than the program's own grace, and what a busy machine may add.
const LONG: Duration = Duration::from_secs(60);

fn is_ready(addr: SocketAddr) -> bool {
    http_get(addr, "/readyz").starts_with("HTTP/1.1 200")
}

#[test]
fn a_connection_that_is_lost_and_made_again_does_not_flip_it_and_a_long_outage_does_with_its_reason() {
    let federation = Federation::start();
    let link = federation.link();
    let edge = Realms::new().edge("realm1", &link.nats_url()).env("LISTEN__HTTP", "127.0.0.1:0").start();
    let addr = edge.http("realm1").expect("it has an address");
    assert!(is_ready(addr));
    for _ in 0..3 {
        link.reset();
        assert!(holds_for(Duration::from_millis(500), || is_ready(addr)), "it is made again at once");
    }
    link.cut(Way::Both);
    assert!(is_ready(addr), "nothing is known yet");
    let said = eventually_in(LONG, "it is no longer ready", || {
        let said = http_get(addr, "/readyz");
        said.starts_with("HTTP/1.1 503").then_some(said)
    });
    assert!(said.contains("the broker has not answered for"), "{said}");
    assert!(http_get(addr, "/healthz").starts_with("HTTP/1.1 200"), "the process is there");
    let metrics = http_get(addr, "/metrics");
    assert!(metrics.contains("antar_ready{realm=\"realm1\"} 0"), "{metrics}");
    let check = antar(["healthcheck", "--http", &addr.to_string()]).exits(1);
    assert!(format!("{check:?}").contains("has not answered"), "{check:?}");
    link.heal();
    eventually_in(LONG, "it is ready again", || is_ready(addr).then_some(()));
}

#[test]
fn an_edge_that_shuts_down_is_not_ready_while_it_still_serves() {
    let mut edge = Builder::serve().env("LISTEN__HTTP", "127.0.0.1:0").start();
    let addr = edge.http("realm1").expect("it has an address");
    // A client that takes nothing of what it is sent holds up the end for some seconds.
    let messi = Chat::login(&edge, "realm1", "messi");
    let mut writer = messi.writer();
    writer.set_nonblocking(true).expect("a socket");
    while writer.write(b"help\r\nhelp\r\nhelp\r\nhelp\r\n").is_ok() {}
    edge.send_sigterm();
    let said = eventually_in(LONG, "it says that it ends", || match try_http_get(addr, "/readyz") {
        Ok(said) if said.starts_with("HTTP/1.1 503") => Some(said),
        Ok(_) => None,
        Err(error) => panic!("it answers no longer, and never said so: {error}"),
    });
    assert!(said.contains("shutting down"), "{said}");
    edge.wait_exit();
}
