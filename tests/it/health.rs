//! Health over HTTP, for whoever watches over the process.

use std::net::TcpStream;

use crate::harness::{Builder, PATIENCE, antar, antar_with_input, http_get};

#[test]
fn health_is_answered_where_it_was_asked_for_and_nowhere_else() {
    let server = Builder::serve().env("LISTEN__HTTP", "127.0.0.1:0").start();
    let addr = server.http("realm1").expect("the first line names its address");
    for path in ["/healthz", "/readyz"] {
        let answer = http_get(addr, path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    assert!(http_get(addr, "/nothing").starts_with("HTTP/1.1 404"));
    assert_eq!(Builder::serve().start().http("realm1"), None, "off unless asked for");
}

#[test]
fn health_ends_with_the_server() {
    let mut server = Builder::serve().env("LISTEN__HTTP", "127.0.0.1:0").start();
    let addr = server.http("realm1").expect("the first line names its address");
    // A connection that was left open does not hold up the end.
    let open = TcpStream::connect_timeout(&addr, PATIENCE).expect("it listens");
    server.sigterm();
    drop(open);
}

#[test]
fn healthcheck_tells_a_ready_server_from_none() {
    let mut server = Builder::serve().env("LISTEN__HTTP", "127.0.0.1:0").start();
    let addr = server.http("realm1").expect("the first line names its address").to_string();
    assert_eq!(antar(["healthcheck", "--http", &addr]).exits(0).stdout, "ready\n");
    // In a container the check has the environment that the server has.
    let environment = [("ANTAR__REALM__ID", "realm1"), ("ANTAR__LISTEN__HTTP", addr.as_str())];
    antar_with_input(["healthcheck"], &environment, "").exits(0);
    server.sigterm();
    let output = antar(["healthcheck", "--http", &addr]).exits(3);
    assert!(output.stderr.contains(&addr), "it says whom it asked: {output:?}");
    antar(["healthcheck"]).exits(2);
}
