//! An edge that says what the test wants.

use antar_proto::json::FRAME_END;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A listener on a free port of this machine.
pub(crate) struct FakeServer(TcpListener);

impl FakeServer {
    pub(crate) async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn addr(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// The server's side of the next connection.
    pub(crate) async fn accept(&self) -> Peer<TcpStream> {
        Peer::new(self.0.accept().await.unwrap().0)
    }
}

/// The server's side of a connection.
pub(crate) struct Peer<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self(BufReader::new(socket))
    }

    /// The next request line without its end; `None` when the client has gone.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).await.unwrap_or(0);
        (count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next request, without its tag, and the tag.
    pub(crate) async fn request(&mut self) -> (String, String) {
        let line = self.line().await.unwrap();
        match line.strip_prefix('@') {
            Some(tagged) => {
                let (tag, rest) = tagged.split_once(' ').unwrap();
                (rest.to_owned(), tag.to_owned())
            }
            None => (line, String::new()),
        }
    }

    /// Writes one frame.
    pub(crate) async fn frame(&mut self, json: &str) {
        self.raw(json.as_bytes()).await;
        self.raw(FRAME_END).await;
    }

    /// Writes bytes. The client may have gone.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
        let _ = self.0.flush().await;
    }
}

/// An OK with a tag and other fields, which begin with a comma.
pub(crate) fn ok(tag: &str, fields: &str) -> String {
    format!(r#"{{"status":"OK"{fields},"id":"{tag}"}}"#)
}
