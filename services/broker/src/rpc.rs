//! Requests and replies. Owns their types.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nobody serves this subject.
    #[error("nobody answers there")]
    NoResponder,
    /// Nobody answered in time.
    #[error("no answer in time")]
    Timeout,
    /// The broker does not answer.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
}

/// How a service presents itself to those who look for services.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, `[A-Za-z0-9_-]+`; all instances of it share it.
    pub name: String,
    /// Its version, as semantic versions are written.
    pub version: String,
    /// What it is, for people.
    pub description: String,
}

/// A request to be answered.
#[derive(Debug)]
pub struct Request {
    /// What was sent.
    pub body: Bytes,
    /// Answers it; dropping it lets the other side run into its timeout.
    pub reply: Replier,
}

/// Answers one request, once.
#[derive(Debug)]
pub struct Replier(oneshot::Sender<Bytes>);

impl Replier {
    /// One that sends the answer into `sender`.
    pub fn new(sender: oneshot::Sender<Bytes>) -> Self {
        Self(sender)
    }

    /// Sends the answer. Somebody who no longer waits for it is no error.
    pub fn send(self, body: impl Into<Bytes>) {
        let _ = self.0.send(body.into());
    }
}

/// Requests to one subject. Serving ends when this is dropped.
#[derive(Debug)]
pub struct Requests(mpsc::Receiver<Request>);

impl Requests {
    /// Takes requests from `receiver`, which the implementation feeds.
    pub fn new(receiver: mpsc::Receiver<Request>) -> Self {
        Self(receiver)
    }

    /// Waits for the next request; `None` when the broker is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Request> {
        self.0.recv().await
    }
}
