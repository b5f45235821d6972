//! One request over HTTP.

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
