//! Requests over HTTP, one on each connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// The whole answer to `GET path`, head and all.
#[track_caller]
pub(crate) fn http_get(addr: SocketAddr, path: &str) -> String {
    try_http_get(addr, path).expect("it listens, answers and closes")
}

/// The same, of a server that may not be there.
pub(crate) fn try_http_get(addr: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What was answered to a request.
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Sends a request that begins with `head`, lines without their ends, and has this body; whether all of it is read or not.
#[track_caller]
pub(crate) fn http_request(addr: SocketAddr, head: &[&str], body: &[u8]) -> HttpAnswer {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a positive timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a positive timeout");
    let head = format!("{}\r\nHost: x\r\nConnection: close\r\n\r\n", head.join("\r\n"));
    stream.write_all(head.as_bytes()).expect("it reads");
    // One that refuses a body may end before it has read all of it.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    HttpAnswer { status, head, body: answer.split_off(end + 4) }
}
