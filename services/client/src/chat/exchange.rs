//! A command of a person, from its line to its answer, over connections that may break.
//!
//! Owns: what is sent again, and what is not. Must not know the terminal.
//!
//! A send that had no answer when its connection broke is sent once more, under the same tag: a UUID of version 7, by
//! which the realm recognises it. Other commands are not repeated; the person is told.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::chat::input::Prepared;
use crate::chat::link::{Link, News};
use crate::client::Client;
use crate::error::RequestError;
use crate::reply::Reply;

/// How long a command waits for a connection that is being restored.
pub(crate) const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a command was not carried out, as far as is known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// There was no connection in time.
    #[error("not connected; still trying. Nothing was sent")]
    NotConnected,
    /// It was sent, and nobody said what became of it.
    #[error("{0}. It may have been carried out: look before you repeat it")]
    Unanswered(RequestError),
    /// It could not be sent on any connection.
    #[error("{0}")]
    NotSent(RequestError),
}

/// Who is told what happens while a command waits.
pub(crate) trait Audience {
    /// Whether more news can be taken; what is not taken stays with the server.
    fn ready(&self) -> bool {
        true
    }
    /// Something happened to the connection, or on it.
    fn note(&mut self, link: &mut Link, news: &News);
    /// The command itself takes a turn.
    fn tell(&mut self, text: &str);
}

/// Sends a request and waits for its reply. A repeatable one is sent once more if its connection broke, or if the server
/// could not tell whether it was stored.
pub(crate) async fn execute(
    link: &mut Link,
    audience: &mut impl Audience,
    prepared: &Prepared,
) -> Result<Reply, Failure> {
    let mut tries_left = if prepared.repeatable { 2 } else { 1 };
    let mut unanswered = Failure::NotConnected;
    loop {
        tries_left -= 1;
        let Some(client) = connected(link, audience).await else { return Err(unanswered) };
        match answer(link, audience, &client, &prepared.line).await {
            Ok(reply) if tries_left > 0 && reply.refusal().is_some_and(|refusal| refusal.may_be_stored()) => {
                audience.tell("nobody can tell whether it was stored; sending it again under the same id");
            }
            Ok(reply) => return Ok(reply),
            Err(error @ RequestError::BadLine(_)) => return Err(Failure::NotSent(error)),
            Err(error @ RequestError::Closed(_)) if tries_left > 0 => {
                audience.tell("no answer; sending it again under the same id");
                unanswered = Failure::Unanswered(error);
            }
            Err(error @ RequestError::Timeout(_)) => {
                // Whatever is wrong there, this connection does not help.
                link.give_up();
                return Err(Failure::Unanswered(error));
            }
            Err(error) => return Err(Failure::Unanswered(error)),
        }
    }
}

/// Waits for the reply on this connection, even if `link` gives it up meanwhile: a server that shuts down still answers
/// what it was asked.
pub(crate) async fn answer(
    link: &mut Link,
    audience: &mut impl Audience,
    client: &Client,
    line: &str,
) -> Result<Reply, RequestError> {
    let mut request = std::pin::pin!(client.request(line));
    loop {
        // Events are taken meanwhile: they would hold up the reply.
        tokio::select! {
            biased;
            answer = &mut request => return answer,
            news = link.next(), if audience.ready() => audience.note(link, &news),
        }
    }
}

/// The connection; waits up to [`RESTORE_TIMEOUT`] for it to come back.
async fn connected(link: &mut Link, audience: &mut impl Audience) -> Option<Client> {
    let deadline = Instant::now() + RESTORE_TIMEOUT;
    let mut told = false;
    loop {
        match link.client() {
            // It may have ended without anybody having looked yet.
            Some(client) if !client.is_closed() => return Some(client.clone()),
            None if !told => {
                told = true;
                audience.tell("waiting for the connection");
            }
            _ => {}
        }
        let news = timeout_at(deadline, link.next()).await.ok()?;
        audience.note(link, &news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Token;
    use crate::chat::input::{Context, Input, understand};
    use crate::client::ClientOptions;
    use crate::error::Closed;
    use crate::testing::{FakeServer, ok};
    use tokio::join;

    #[derive(Default)]
    struct Told(Vec<String>);

    impl Audience for Told {
        fn note(&mut self, _: &mut Link, news: &News) {
            self.0.push(format!("{news:?}"));
        }
        fn tell(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    fn prepared(typed: &str) -> Prepared {
        let context = Context { token: Some(Token::new("T")), tag_sends: true, ..Context::default() };
        match understand(typed, &context) {
            Ok(Input::Request(prepared)) => prepared,
            other => panic!("{other:?}"),
        }
    }

    async fn connect(server: &FakeServer) -> (Link, crate::testing::Peer<tokio::net::TcpStream>) {
        let (addr, options) = (server.addr(), ClientOptions::default());
        let (link, peer) = join!(Link::connect(&addr, &options), server.accept());
        (link.unwrap(), peer)
    }

    #[tokio::test]
    async fn a_send_without_an_answer_is_sent_once_more_under_the_same_tag() {
        let server = FakeServer::bind().await;
        let (mut link, mut peer) = connect(&server).await;
        let (mut told, send) = (Told::default(), prepared("send henderson halo"));
        let serve = async {
            let first = peer.request().await;
            drop(peer);
            let mut peer = server.accept().await;
            let second = peer.request().await;
            assert_eq!(first, second);
            peer.frame(&ok(&second.1, r#","duplicate":true"#)).await;
            peer
        };
        let (reply, _peer) = join!(execute(&mut link, &mut told, &send), serve);
        assert!(reply.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_second_connection_that_breaks_is_the_end_of_it() {
        let server = FakeServer::bind().await;
        let (mut link, mut peer) = connect(&server).await;
        let (mut told, send) = (Told::default(), prepared("send henderson halo"));
        let serve = async {
            let _ = peer.request().await;
            drop(peer);
            let _ = server.accept().await.request().await;
        };
        let (reply, ()) = join!(execute(&mut link, &mut told, &send), serve);
        assert_eq!(reply.unwrap_err(), Failure::Unanswered(RequestError::Closed(Closed::Ended)));
    }

    #[tokio::test]
    async fn what_is_no_send_is_not_repeated() {
        let server = FakeServer::bind().await;
        let (mut link, mut peer) = connect(&server).await;
        let (mut told, inbox) = (Told::default(), prepared("inbox"));
        let serve = async {
            let _ = peer.request().await;
            drop(peer);
        };
        let (reply, ()) = join!(execute(&mut link, &mut told, &inbox), serve);
        assert_eq!(reply.unwrap_err(), Failure::Unanswered(RequestError::Closed(Closed::Ended)));
    }

    #[tokio::test]
    async fn a_send_of_which_nobody_can_tell_whether_it_was_stored_is_sent_once_more() {
        let server = FakeServer::bind().await;
        let (mut link, mut peer) = connect(&server).await;
        let (mut told, send) = (Told::default(), prepared("send henderson halo"));
        let unknown = r#"{"status":"ERROR","code":"unavailable","message":"M","stored":"unknown"}"#;
        let serve = async {
            for _ in 0..2 {
                let _ = peer.request().await;
                peer.frame(unknown).await;
            }
            peer
        };
        let (reply, _peer) = join!(execute(&mut link, &mut told, &send), serve);
        assert!(reply.unwrap().refusal().unwrap().may_be_stored());
        assert_eq!(told.0.len(), 1, "{:?}", told.0);
    }

    #[tokio::test]
    async fn a_command_waits_for_the_connection_for_a_bounded_time() {
        let server = FakeServer::bind().await;
        let (mut link, peer) = connect(&server).await;
        drop((server, peer));
        let mut told = Told::default();
        while link.client().is_some() {
            let news = link.next().await;
            told.note(&mut link, &news);
        }
        // From here on nothing but time can end the wait: nobody listens any more.
        tokio::time::pause();
        let started = Instant::now();
        let reply = execute(&mut link, &mut told, &prepared("ping")).await;
        assert_eq!(reply.unwrap_err(), Failure::NotConnected);
        // Timers count in milliseconds.
        assert_eq!(started.elapsed().as_secs(), RESTORE_TIMEOUT.as_secs());
        assert_eq!(told.0.last().unwrap(), "waiting for the connection");
    }
}
