//! Requests and replies inside the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::{Replier, Request, RequestError, Requests, Subject};

/// Requests that may wait for one server.
const WAITING_MAX: usize = 256;

#[derive(Debug, Default)]
struct Servers {
    all: Vec<mpsc::Sender<Request>>,
    /// Whose turn it is.
    next: usize,
}

fn closed() -> RequestError {
    RequestError::Unavailable("the broker was closed".into())
}

/// Gives the request to the first that has room, or back.
fn offer(turn: &[mpsc::Sender<Request>], mut request: Request) -> Result<(), Request> {
    for server in turn {
        match server.try_send(request) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                request = back
            }
        }
    }
    Err(request)
}

/// Who serves which subject; `None` when the broker was closed.
#[derive(Debug)]
pub(super) struct Switchboard(Mutex<Option<HashMap<Subject, Servers>>>);

impl Default for Switchboard {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Switchboard {
    fn servers(&self) -> MutexGuard<'_, Option<HashMap<Subject, Servers>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all serving.
    pub(super) fn close(&self) {
        *self.servers() = None;
    }

    pub(super) fn serve(&self, subject: &Subject) -> Result<Requests, RequestError> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut servers = self.servers();
        let Some(map) = servers.as_mut() else { return Err(closed()) };
        map.entry(subject.clone()).or_default().all.push(sender);
        Ok(Requests::new(receiver))
    }

    /// The servers of `subject`, the one whose turn it is first.
    fn turn(&self, subject: &Subject) -> Result<Vec<mpsc::Sender<Request>>, RequestError> {
        let mut map = self.servers();
        let map = map.as_mut().ok_or_else(closed)?;
        let Some(servers) = map.get_mut(subject) else { return Err(RequestError::NoResponder) };
        servers.all.retain(|server| !server.is_closed());
        if servers.all.is_empty() {
            map.remove(subject);
            return Err(RequestError::NoResponder);
        }
        servers.next = (servers.next + 1) % servers.all.len();
        let mut turn = servers.all.clone();
        turn.rotate_left(servers.next);
        Ok(turn)
    }

    pub(super) async fn request(
        &self,
        subject: &Subject,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        let deadline = Instant::now() + timeout;
        let (reply, answer) = oneshot::channel();
        let turn = self.turn(subject)?;
        if let Err(request) = offer(&turn, Request { body, reply: Replier::new(reply) }) {
            // All are busy: the one whose turn it is gets it when it has room.
            match tokio::time::timeout_at(deadline, turn[0].send(request)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(RequestError::NoResponder),
                Err(_) => return Err(RequestError::Timeout),
            }
        }
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) => {
                // Dropped without an answer: over NATS nobody would hear of that either.
                tokio::time::sleep_until(deadline).await;
                Err(RequestError::Timeout)
            }
            Err(_) => Err(RequestError::Timeout),
        }
    }
}
