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
