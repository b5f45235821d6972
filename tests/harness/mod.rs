//! What the tests of the whole program stand on: servers as child processes, raw connections, and waiting for things
//! to happen.
//!
//! Owns: starting, killing and reading the program. Must not know: its insides. Everything here goes through the
//! command line, the command port, files and signals, as it would for anybody else.

mod broker;
mod browser;
mod chat;
mod conn;
mod disk;
mod federation;
mod http;
mod nats;
mod proxy;
mod script;
pub(crate) mod sender;
mod server;
pub(crate) mod tenants;
mod terminal;
mod tls;
mod transcript;

pub(crate) use broker::Broker;
pub(crate) use browser::{Browser, Driver};
pub(crate) use chat::Chat;
pub(crate) use conn::{Conn, OneFrame};
pub(crate) use disk::Disk;
pub(crate) use federation::{Federation, Realms};
pub(crate) use http::{HttpAnswer, http_get, http_request, try_http_get};
pub(crate) use nats::cluster::Cluster;
pub(crate) use nats::wire::Wire;
pub(crate) use nats::{Nats, free_port, nats_server, wait, wire};
pub(crate) use proxy::{Proxy, Way};
pub(crate) use script::{Output, antar, antar_with_input};
pub(crate) use server::{Builder, Server};
pub(crate) use tenants::Tenants;
pub(crate) use terminal::Terminal;
pub(crate) use tls::{Certificate, Tunnel, connect as connect_over_tls};
pub(crate) use transcript::Transcript;
pub(crate) use wait::{PATIENCE, eventually, eventually_in, holds_for};

use serde_json::Value;

/// The password of the demo accounts.
pub(crate) const PASSWORD: &str = "surabaya";

/// Says why a test is skipped; but under CI every test has to run.
#[track_caller]
pub(crate) fn skip(reason: &str) {
    #[expect(clippy::disallowed_methods, reason = "a skipped test is a failure where it has to run")]
    let in_ci = std::env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false");
    assert!(!in_ci, "this test has to run here, and cannot: {reason}");
    eprintln!("skipped: {reason}");
}

/// Says that the reply is OK and returns it.
#[track_caller]
pub(crate) fn ok(reply: Value) -> Value {
    assert_eq!(reply["status"], "OK", "{reply}");
    reply
}

/// Says that the reply is an error with this code, in the wording that belongs to it, and returns it.
#[track_caller]
pub(crate) fn refused(reply: Value, code: &str) -> Value {
    assert_eq!(reply["status"], "ERROR", "{reply}");
    assert_eq!(reply["code"], code, "{reply}");
    let known = antar_proto::ErrorCode::from_wire(code).expect("a code of the protocol");
    if reply["message"] != antar_proto::error::LOGOUT_NOT_AUTHORIZED {
        assert_eq!(reply["message"], known.message(), "{reply}");
    }
    reply
}

/// A string in a reply.
#[track_caller]
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field:?} in {value}"))
}

/// The `msg` of each message of a list.
pub(crate) fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| text(message, "msg")).collect()
}
