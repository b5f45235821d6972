//! Asking the server: JetStream's API and direct reads of messages, each with a timeout of our own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, Event, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::message::{LAST, PENDING, SEQUENCE, Stored};
use super::options::{ANSWERS_MAX, LIVE_MESSAGES_MAX, Options};
use crate::{OpenError, ReadError};

/// Error codes for a stream that cannot be made as it was asked for; the server gives them as its own failures.
const BAD_CONFIGURATION: [u64; 2] = [10052, 10065];
/// How long one answer may take; an edge answers its client within 5 s.
pub(super) const API_TIMEOUT: Duration = Duration::from_secs(4);
/// How often a direct read is asked for within that time.
const GET_TRIES: u32 = 2;
/// Most messages of one answer to a direct read: a batch of delivery is read in one round trip.
pub(super) const BATCH_MAX: usize = 2_560;
/// A connection on which nothing was answered for so long is made anew, at most this often.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// Two connections, which the library mends: one for questions and answers, one for what is live, where a slow reader
/// loses messages. Whoever follows something hears of both troubles by [`Api::troubles`]. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    live: Client,
    inbox: String,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Message>>>,
    troubles: watch::Sender<Troubles>,
    answered: Mutex<Instant>,
    closed: CancellationToken,
}

/// What has happened to the live connection since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Troubles {
    /// It was lost and made anew.
    pub(super) mended: u64,
    /// A subscription was too slow and lost messages.
    pub(super) dropped: u64,
}

/// A question to the direct read API (ADR-31).
#[derive(Debug, Default, Serialize)]
pub(super) struct Get<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_bytes: Option<usize>,
}

/// Messages, and how many match behind them.
#[derive(Default)]
pub(super) struct Got {
    pub(super) messages: Vec<Stored>,
    pub(super) pending: u64,
}

/// Why the server did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// Not in time, or not connected.
    #[error("{0}")]
    Unavailable(String),
    /// Nobody there serves JetStream.
    #[error("JetStream does not answer: is it enabled for this account?")]
    Nobody,
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It refuses: error code and words.
    #[error("{1} (NATS, {0})")]
    Refused(u64, String),
}

impl Api {
    /// Connects, and serves answers on a task of `tasks` until `closed`.
    pub(super) async fn start(
        options: &Options,
        inbox: String,
        tasks: &TaskTracker,
        closed: CancellationToken,
    ) -> Result<Self, OpenError> {
        let troubles = watch::Sender::new(Troubles::default());
        let on_event = troubles.clone();
        let live = options.connection(
            "live",
            &format!("{inbox}.l"),
            LIVE_MESSAGES_MAX,
            &Arc::default(),
            move |event| match event {
                Event::Connected => on_event.send_modify(|troubles| troubles.mended += 1),
                Event::SlowConsumer(_) => on_event.send_modify(|troubles| troubles.dropped += 1),
                _ => {}
            },
        )?;
        let unreachable = |error: &dyn std::fmt::Display| options.unreachable(error);
        let live = live.connect(options.servers()).await.map_err(|error| unreachable(&error))?;
        let connection =
            options.connection("reader", &format!("{inbox}.q"), ANSWERS_MAX, &Arc::default(), |_| {})?;
        let client = connection.connect(options.servers()).await.map_err(|error| unreachable(&error))?;
        let inbox = format!("{inbox}.r");
        let answers = client.subscribe(format!("{inbox}.*")).await.map_err(|error| unreachable(&error))?;
        let inner = Arc::new(Inner {
            client,
            live,
            inbox,
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            troubles,
            answered: Mutex::new(Instant::now()),
            closed,
        });
        tasks.spawn(inner.clone().hand_out(answers));
        Ok(Self { inner })
    }

    pub(super) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// For subscriptions.
    pub(super) fn live(&self) -> &Client {
        &self.inner.live
    }

    /// Whoever follows a subject looks after each of these whether it missed anything.
    pub(super) fn troubles(&self) -> watch::Receiver<Troubles> {
        self.inner.troubles.subscribe()
    }

    /// Asks JetStream's API: `subject` without `$JS.API.`.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        #[derive(serde::Deserialize)]
        struct Failed {
            error: Option<Failure>,
        }
        #[derive(serde::Deserialize)]
        struct Failure {
            #[serde(default)]
            code: u64,
            #[serde(default)]
            err_code: u64,
            #[serde(default)]
            description: String,
        }
        let body = serde_json::to_vec(body).map_err(|error| ApiError::Refused(0, error.to_string()))?;
        let asked = self.inner.client.request(format!("$JS.API.{subject}"), body.into());
        let answer = match timeout(API_TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => return Err(ApiError::Nobody),
            Ok(Err(error)) => return Err(ApiError::Unavailable(error.to_string())),
            Err(_) => return Err(self.silent()),
        };
        self.inner.note_answer();
        let failed: Failed = serde_json::from_slice(&answer.payload)
            .map_err(|error| ApiError::Unavailable(format!("an answer makes no sense: {error}")))?;
        match failed.error {
            Some(failure) if failure.code == 404 => Err(ApiError::NotFound(failure.description)),
            Some(failure) if failure.code >= 500 && !BAD_CONFIGURATION.contains(&failure.err_code) => {
                Err(ApiError::Unavailable(format!("{} (NATS, {})", failure.description, failure.err_code)))
            }
            Some(failure) => Err(ApiError::Refused(failure.err_code, failure.description)),
            None => serde_json::from_slice(&answer.payload)
                .map_err(|error| ApiError::Unavailable(format!("an answer makes no sense: {error}"))),
        }
    }

    /// Reads messages of a stream directly. Nothing found is no error.
    pub(super) async fn get(&self, stream: &str, get: &Get<'_>) -> Result<Got, ReadError> {
        self.get_by(&self.inner.client, stream, get).await
    }

    /// As [`Self::get`], by the connection of subscriptions: behind those that were made before.
    pub(super) async fn get_behind_live(&self, stream: &str, get: &Get<'_>) -> Result<Got, ReadError> {
        self.get_by(&self.inner.live, stream, get).await
    }

    async fn get_by(&self, client: &Client, stream: &str, get: &Get<'_>) -> Result<Got, ReadError> {
        // Any replica may be asked: one that has just died takes the question with it.
        for _ in 0..GET_TRIES {
            if let Some(got) = self.get_once(client, stream, get).await? {
                return Ok(got);
            }
        }
        Err(ReadError::Unavailable(self.silent().to_string()))
    }

    /// `None` if no answer came in time.
    async fn get_once(&self, client: &Client, stream: &str, get: &Get<'_>) -> Result<Option<Got>, ReadError> {
        let single = get.batch.is_none();
        let (sender, mut answers) = mpsc::channel(get.batch.unwrap_or(1) + 2);
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.inner.waiting().insert(number, sender);
        let _ends = Ends(&self.inner, number);
        let unavailable = |error: String| ReadError::Unavailable(error);
        let body = serde_json::to_vec(get).map_err(|error| unavailable(error.to_string()))?;
        let asked = async {
            let reply = format!("{}.{number}", self.inner.inbox);
            let subject = format!("$JS.API.DIRECT.GET.{stream}");
            let sent = client.publish_with_reply(subject, reply, body.into()).await;
            sent.map_err(|error| unavailable(error.to_string()))?;
            let mut got = Got::default();
            let mut previous = 0;
            while let Some(message) = answers.recv().await {
                let pending = pending(&message);
                // Each part of a batch names the one before: when the connection is lost and mended meanwhile, some of
                // them may have gone to nobody.
                if !single && number_in(&message, LAST).is_some_and(|last| last != previous) {
                    return Err(unavailable("an answer from NATS came in part".into()));
                }
                previous = number_in(&message, SEQUENCE).unwrap_or(previous);
                match message.status {
                    None => {}
                    Some(StatusCode::NO_RESPONDERS) => {
                        return Err(unavailable(format!("nobody answers for stream {stream}")));
                    }
                    // 404: nothing there; 204: the end of the batch.
                    Some(status) if matches!(status.as_u16(), 404 | 204) => {
                        got.pending = pending.unwrap_or(0);
                        return Ok(got);
                    }
                    Some(status) => {
                        return Err(unavailable(format!("stream {stream} answers {status}")));
                    }
                }
                got.pending = pending.unwrap_or(got.pending);
                got.messages.extend(Stored::of(message));
                if single {
                    return Ok(got);
                }
            }
            Err(ReadError::Closed)
        };
        // Cancel-safe: the question is forgotten with this future.
        let got = tokio::select! {
            got = timeout(API_TIMEOUT / GET_TRIES, asked) => got,
            () = self.inner.closed.cancelled() => return Err(ReadError::Closed),
        };
        match got {
            Ok(got) => {
                self.inner.note_answer();
                got.map(Some)
            }
            Err(_) => Ok(None),
        }
    }

    /// Nothing came in time. If nothing at all did, the connection may be one that only looks alive.
    fn silent(&self) -> ApiError {
        let mut answered = self.inner.answered.lock().expect("no holder of this lock panics");
        if answered.elapsed() >= SILENCE_MAX {
            *answered = Instant::now();
            let client = self.inner.client.clone();
            // Its only wait is for room in the queue of commands, which ends with the connection.
            tokio::spawn(async move { drop(timeout(API_TIMEOUT, client.force_reconnect()).await) });
        }
        ApiError::Unavailable("no answer from NATS in time".into())
    }

    /// Asks whoever serves a subject.
    pub(super) async fn request(
        &self,
        subject: String,
        body: Bytes,
        wait: Duration,
    ) -> Result<Message, crate::RequestError> {
        use crate::RequestError;
        let asked = self.inner.client.request(subject, body);
        // Cancel-safe: nobody waits for the answer any more.
        let answer = tokio::select! {
            answer = timeout(wait, asked) => answer,
            () = self.inner.closed.cancelled() => {
                return Err(RequestError::Unavailable("the broker was closed".into()));
            }
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                Err(RequestError::NoResponder)
            }
            Ok(Err(error)) => Err(RequestError::Unavailable(error.to_string())),
            Err(_) if self.inner.client.connection_state() == async_nats::connection::State::Connected => {
                Err(RequestError::Timeout)
            }
            Err(_) => Err(RequestError::Unavailable("there is no connection to NATS".into())),
        }
    }
}

fn pending(message: &Message) -> Option<u64> {
    number_in(message, PENDING)
}

fn number_in(message: &Message, header: &'static str) -> Option<u64> {
    let headers = message.headers.as_ref()?;
    headers.get_last(async_nats::HeaderName::from_static(header))?.as_str().parse().ok()
}

/// Takes a question back when nobody waits for its answer any more.
struct Ends<'a>(&'a Inner, u64);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.waiting().remove(&self.1);
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Message>>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }

    fn note_answer(&self) {
        *self.answered.lock().expect("no holder of this lock panics") = Instant::now();
    }

    /// Gives each answer to who waits for it.
    async fn hand_out(self: Arc<Self>, mut answers: async_nats::Subscriber) {
        loop {
            // Cancel-safe: at the end nobody waits.
            let message = tokio::select! {
                message = answers.next() => message,
                () = self.closed.cancelled() => None,
            };
            let Some(message) = message else { return };
            let number = message.subject.as_str().rsplit('.').next().and_then(|number| number.parse().ok());
            let Some(number) = number else { continue };
            let waiting = self.waiting();
            if let Some(sender) = waiting.get(&number) {
                // Too many would be an answer of another question: its own fit.
                let _ = sender.try_send(message);
            }
        }
    }
}
