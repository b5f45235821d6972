//! A connection that comes back.
//!
//! Owns: when a connection counts as lost, and connecting again. Must not know what is said on it, except that a token is
//! checked with `whoami` before the new connection is used.

use std::time::Duration;

use antar_proto::reply::Event;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::calls::Token;
use crate::chat::backoff::Backoff;
use crate::client::{Client, ClientOptions, Events};
use crate::error::{CallError, Closed, ConnectError, RequestError};

/// How often a quiet connection is tried with `ping`; a peer that vanished without a word is noticed so.
const PING_EVERY: Duration = Duration::from_secs(30);

/// The connection of an interactive chat. Connecting again never gives up.
#[derive(Debug)]
pub(crate) struct Link {
    server: String,
    options: ClientOptions,
    token: Option<Token>,
    state: State,
}

#[derive(Debug)]
enum State {
    Up {
        client: Client,
        events: Events,
        /// One task, which ends when the connection no longer answers.
        keepalive: JoinSet<()>,
    },
    /// One task, which ends with a connection.
    Down(JoinSet<Connected>),
}

#[derive(Debug)]
struct Connected {
    client: Client,
    events: Events,
    session_ended: bool,
}

/// What happened to the connection, or on it.
#[derive(Debug)]
pub(crate) enum News {
    /// Something was pushed.
    Event(Box<Event>),
    /// The connection is gone, for this reason; connecting again has begun.
    Lost(String),
    /// There is a connection again.
    Restored {
        /// The token was refused: the session ended meanwhile.
        session_ended: bool,
    },
}

impl Link {
    /// Connects for the first time; only this can fail.
    pub(crate) async fn connect(server: &str, options: &ClientOptions) -> Result<Self, ConnectError> {
        let (client, events) = Client::connect(server, options).await?;
        let state = State::up(client, events);
        Ok(Self { server: server.to_owned(), options: options.clone(), token: None, state })
    }

    /// The connection, if there is one.
    pub(crate) fn client(&self) -> Option<&Client> {
        match &self.state {
            State::Up { client, .. } => Some(client),
            State::Down(_) => None,
        }
    }

    /// The session to go on with after a reconnection.
    pub(crate) fn keep(&mut self, token: Option<Token>) {
        self.token = token;
    }

    /// Gives the connection up and begins to connect again.
    pub(crate) fn give_up(&mut self) {
        let mut connecting = JoinSet::new();
        connecting.spawn(connect_again(self.server.clone(), self.options.clone(), self.token.clone()));
        self.state = State::Down(connecting);
    }

    /// The next thing that happens. Cancel-safe: it awaits a channel or the end of a task, and changes its state only after.
    pub(crate) async fn next(&mut self) -> News {
        match &mut self.state {
            State::Up { client, events, keepalive } => {
                let lost = tokio::select! {
                    // Events first: what came before the end of the connection is still to be seen.
                    biased;
                    event = events.next() => match event {
                        Some(Event::Shutdown) => "the server is shutting down".to_owned(),
                        Some(event) => return News::Event(Box::new(event)),
                        None => client.closed().unwrap_or(Closed::Ended).to_string(),
                    },
                    _ = keepalive.join_next() => "the server does not answer".to_owned(),
                };
                self.give_up();
                News::Lost(lost)
            }
            State::Down(connecting) => match connecting.join_next().await {
                Some(Ok(Connected { client, events, session_ended })) => {
                    self.state = State::up(client, events);
                    News::Restored { session_ended }
                }
                // The task cannot panic and nobody aborts it; if it did end, there is only beginning again.
                Some(Err(_)) | None => {
                    self.give_up();
                    News::Lost("connecting was interrupted".into())
                }
            },
        }
    }
}

impl State {
    fn up(client: Client, events: Events) -> Self {
        let mut keepalive = JoinSet::new();
        keepalive.spawn(keep_alive(client.clone()));
        Self::Up { client, events, keepalive }
    }
}

/// Returns when a `ping` is not answered in time. A connection that ends is noticed elsewhere.
async fn keep_alive(client: Client) {
    loop {
        sleep(PING_EVERY).await;
        match client.ping().await {
            Err(CallError::Request(RequestError::Timeout(_))) => return,
            Err(CallError::Request(RequestError::Closed(_))) => std::future::pending().await,
            _ => {}
        }
    }
}

/// Tries until there is a connection on which the session is known to be alive or dead.
async fn connect_again(server: String, options: ClientOptions, token: Option<Token>) -> Connected {
    let mut backoff = Backoff::default();
    loop {
        sleep(backoff.next_pause()).await;
        let Ok((client, events)) = Client::connect(&server, &options).await else { continue };
        let Some(token) = &token else {
            return Connected { client, events, session_ended: false };
        };
        match client.request(&format!("whoami {}", token.as_str())).await {
            Ok(reply) if reply.is_ok() => return Connected { client, events, session_ended: false },
            Ok(reply) if reply.refusal().is_some_and(|refusal| refusal.code == "not-authorized") => {
                return Connected { client, events, session_ended: true };
            }
            // Its broker does not answer yet, or the connection broke again.
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeServer, ok};
    use tokio::join;

    async fn connected(server: &FakeServer) -> (Link, crate::testing::Peer<tokio::net::TcpStream>) {
        let (addr, options) = (server.addr(), ClientOptions::default());
        let (link, peer) = join!(Link::connect(&addr, &options), server.accept());
        (link.unwrap(), peer)
    }

    #[tokio::test]
    async fn a_broken_connection_comes_back_with_its_session() {
        let server = FakeServer::bind().await;
        let (mut link, peer) = connected(&server).await;
        link.keep(Some(Token::new("T")));
        drop(peer);
        assert!(matches!(link.next().await, News::Lost(_)));
        assert!(link.client().is_none());
        let serve = async {
            // The first try finds a server that is not ready.
            drop(server.accept().await);
            let mut peer = server.accept().await;
            assert_eq!(peer.line().await.as_deref(), Some("whoami T"));
            peer.frame(&ok("x", "")).await;
            peer
        };
        let (news, _peer) = join!(link.next(), serve);
        assert!(matches!(news, News::Restored { session_ended: false }), "{news:?}");
        assert!(link.client().is_some_and(|client| !client.is_closed()));
    }

    #[tokio::test]
    async fn a_server_that_shuts_down_is_left_at_once_and_a_dead_token_is_noticed() {
        let server = FakeServer::bind().await;
        let (mut link, mut peer) = connected(&server).await;
        link.keep(Some(Token::new("T")));
        peer.frame(r#"{"event":"shutdown"}"#).await;
        match link.next().await {
            News::Lost(reason) => assert_eq!(reason, "the server is shutting down"),
            other => panic!("{other:?}"),
        }
        assert_eq!(peer.line().await, None, "this side has closed");
        let serve = async {
            let mut peer = server.accept().await;
            let _ = peer.line().await;
            peer.frame(r#"{"status":"ERROR","code":"not-authorized","message":"x"}"#).await;
            peer
        };
        let (news, _peer) = join!(link.next(), serve);
        assert!(matches!(news, News::Restored { session_ended: true }), "{news:?}");
    }

    #[tokio::test]
    async fn without_a_session_there_is_nothing_to_check() {
        let server = FakeServer::bind().await;
        let (mut link, peer) = connected(&server).await;
        drop(peer);
        assert!(matches!(link.next().await, News::Lost(_)));
        let (news, _peer) = join!(link.next(), server.accept());
        assert!(matches!(news, News::Restored { session_ended: false }), "{news:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_vanished_without_a_word_is_noticed() {
        let (ours, _theirs) = tokio::io::duplex(1024);
        let (client, events) = Client::over(ours, &ClientOptions::default());
        let state = State::up(client, events);
        let (server, options) = ("127.0.0.1:1".to_owned(), ClientOptions::default());
        let mut link = Link { server, options, token: None, state };
        let started = tokio::time::Instant::now();
        assert!(matches!(link.next().await, News::Lost(_)));
        assert_eq!(started.elapsed(), PING_EVERY + ClientOptions::default().request_timeout);
    }
}
