//! Publishing into streams: many messages in flight, in order, each acknowledged or told to be unknown.
//!
//! The connection is one of its own and is never mended: when it is lost, a new one is made, everything that was not
//! acknowledged is published again on it, in the old order and under the old ids, and only then does anything new follow.
//! So what was published behind a message that got lost cannot be stored before it. (The library's own reconnecting drops
//! what it had written and sends what had queued up behind.)

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Client, Event};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ack::answer;
use super::bundle::Following;
use super::options::{ANSWERS_MAX, Options};
use crate::{AppendError, Appended, OpenError, Subject};

/// How long an acknowledgement may take before the message is told to be unknown; an edge answers within 5 s.
const ACK_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a message waits for room before it is refused; it was not sent then.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3);
/// For how long after the connection was lost messages wait for a new one. Later they are refused at once: of many that a
/// client sends one after the other, each would have to wait.
const LINK_TIMEOUT: Duration = Duration::from_secs(2);
/// What may be in flight: one permit for a message, and one for each of these bytes of it.
const PERMIT_BYTES: usize = 8 * 1024;
const PERMITS: usize = 8 * 1024;
/// A connection on which nothing was acknowledged for so long, while something is in flight, is given up: well before any
/// message is told to be unknown, so that all of them are published again in their order.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Nothing is published again later than this after the first time. The server must still know its id, also if this process
/// stood still meanwhile; see [`crate::IDEMPOTENCE_WINDOW`].
pub(super) const REPEAT_MAX: Duration = Duration::from_secs(60);
/// How often messages in flight are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long closing waits for what is in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between attempts to connect.
const CONNECT_DELAY: Duration = Duration::from_millis(100);

/// Pause before a message is published again that met one like it on its way through the cluster.
const BUSY_DELAY: Duration = Duration::from_millis(5);
const BUSY_TRIES: u32 = 400;

/// What became of a message.
pub(super) type Answer = Result<Appended, AppendError>;
pub(super) type Receiver = oneshot::Receiver<Answer>;
/// Held for everything that is on its way or waits for it.
pub(super) type Room = OwnedSemaphorePermit;

/// Waits for an answer.
pub(super) async fn answer_of(receiver: Receiver) -> Answer {
    receiver.await.unwrap_or_else(|_| Err(AppendError::Unknown("the broker went away".into())))
}

/// An answer that is there already.
pub(super) fn answered(answer: Answer) -> Receiver {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(answer);
    receiver
}

/// A message to be stored.
#[derive(Clone)]
pub(super) struct Publish {
    pub(super) subject: async_nats::Subject,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Told in [`AppendError::Full`].
    pub(super) place: Option<Subject>,
    /// A stream is known to keep the subject: that nobody answers is then a passing trouble.
    pub(super) is_kept: bool,
    /// Its order among others does not matter: it may be published again later when nobody answers.
    pub(super) may_wait: bool,
    /// What is to be published when this is acknowledged, and to answer for both.
    pub(super) following: Option<Box<Following>>,
}

/// Publishes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    inbox: String,
    room: Arc<Semaphore>,
    flights: Mutex<Flights>,
    link: RwLock<Option<Link>>,
    is_up: watch::Sender<bool>,
    /// When the connection was lost.
    down_since: Mutex<Instant>,
    tasks: TaskTracker,
    generation: AtomicU64,
    closed: CancellationToken,
}

/// One connection.
#[derive(Clone)]
struct Link {
    client: Client,
    /// Acknowledgements of this connection come to subjects below it.
    inbox: Arc<str>,
    dead: CancellationToken,
}

/// Messages in flight, by number.
struct Flights {
    /// The number of the first.
    base: u64,
    queue: VecDeque<Option<Flight>>,
    answered: Instant,
}

struct Flight {
    message: Publish,
    done: oneshot::Sender<Answer>,
    since: Instant,
    /// When it was published first.
    first: Instant,
    /// It was published on a connection before, and may be stored.
    is_repeated: bool,
    /// How often it was found busy.
    tries: u32,
    room: Option<Room>,
}

impl Flights {
    fn push(&mut self, flight: Flight) -> u64 {
        self.queue.push_back(Some(flight));
        self.base + self.queue.len() as u64 - 1
    }

    fn take(&mut self, number: u64) -> Option<Flight> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        let flight = self.queue.get_mut(at)?.take();
        while self.queue.front().is_some_and(Option::is_none) {
            self.queue.pop_front();
            self.base += 1;
        }
        flight
    }

    /// Those that have waited for too long: from the front, for they stand in the order of their time.
    fn expired(&mut self, now: Instant) -> Vec<Flight> {
        let mut expired = Vec::new();
        while let Some(first) = self.queue.front_mut() {
            if first.as_ref().is_some_and(|flight| now - flight.since < ACK_TIMEOUT) {
                break;
            }
            expired.extend(first.take());
            self.queue.pop_front();
            self.base += 1;
        }
        expired
    }
}

impl Publisher {
    /// Connects, and keeps connected on tasks of `tasks` until `closed`.
    pub(super) async fn start(
        options: Options,
        inbox: String,
        tasks: &TaskTracker,
        closed: CancellationToken,
    ) -> Result<Self, OpenError> {
        let flights = Flights { base: 1, queue: VecDeque::new(), answered: Instant::now() };
        let inner = Arc::new(Inner {
            options,
            inbox,
            room: Arc::new(Semaphore::new(PERMITS)),
            flights: Mutex::new(flights),
            link: RwLock::new(None),
            is_up: watch::Sender::new(false),
            down_since: Mutex::new(Instant::now()),
            tasks: tasks.clone(),
            generation: AtomicU64::new(0),
            closed,
        });
        let link = inner.clone().connect().await?;
        *inner.link.write().await = Some(link.clone());
        inner.is_up.send_replace(true);
        tasks.spawn(inner.clone().keep_connected(link));
        tasks.spawn(inner.clone().look_after());
        Ok(Self { inner })
    }

    /// Publishes one message; its place in the order is certain when this returns.
    pub(super) async fn publish(&self, message: Publish) -> Result<Receiver, AppendError> {
        let room = self.room(message.body.len()).await?;
        self.publish_within(message, Some(room)).await
    }

    /// Takes room for so many bytes, or waits for it.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room, AppendError> {
        let permits = (1 + bytes / PERMIT_BYTES) as u32;
        match self.inner.room.clone().try_acquire_many_owned(permits) {
            Ok(room) => Ok(room),
            Err(_) => self.wait_for_room(permits).await,
        }
    }

    /// As [`Self::publish`], with room taken before; `None` if that is held by whoever waits for the answer.
    pub(super) async fn publish_within(
        &self,
        message: Publish,
        room: Option<Room>,
    ) -> Result<Receiver, AppendError> {
        let (done, answer) = oneshot::channel();
        let link = self.inner.linked().await;
        let link = link.ok_or_else(|| AppendError::NotStored("there is no connection to NATS".into()))?;
        let connection = link.as_ref().expect("a link that was waited for is there");
        let (subject, headers) = (message.subject.clone(), message.headers.clone());
        let body = message.body.clone();
        let flight = {
            let now = Instant::now();
            Flight { message, done, since: now, first: now, is_repeated: false, tries: 0, room }
        };
        let number = self.inner.flights().push(flight);
        connection.publish(number, subject, headers, body).await;
        Ok(answer)
    }

    async fn wait_for_room(&self, permits: u32) -> Result<Room, AppendError> {
        let room = self.inner.room.clone().acquire_many_owned(permits);
        match timeout(ROOM_TIMEOUT, room).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(AppendError::NotStored("the broker was closed".into())),
            Err(_) => Err(AppendError::NotStored("too much is on its way to NATS".into())),
        }
    }

    /// Refuses what is new and waits for what is in flight or waits for that, for a while.
    pub(super) async fn close(&self) {
        self.inner.room.close();
        let ended = async {
            while self.inner.room.available_permits() < PERMITS {
                sleep(Duration::from_millis(2)).await;
            }
        };
        if timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::warn!("some messages were not acknowledged before the broker was closed");
        }
    }
}

impl Link {
    /// Queues one message for writing. One that a dying connection does not take is published again on the next.
    async fn publish(&self, number: u64, subject: async_nats::Subject, headers: HeaderMap, body: Bytes) {
        let reply = format!("{}.{number}", self.inbox);
        let publish = self.client.publish_with_reply_and_headers(subject, reply, headers, body);
        // Either way the message is among those in flight.
        tokio::select! {
            published = publish => if let Err(error) = published {
                tracing::debug!(%error, "a message was not written");
            },
            () = self.dead.cancelled() => {}
        }
    }
}

impl Inner {
    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().expect("no holder of this lock panics")
    }

    /// Waits for a connection that takes new messages; `None` when there was none for too long, or the broker is closed.
    async fn linked(&self) -> Option<tokio::sync::RwLockReadGuard<'_, Option<Link>>> {
        loop {
            let link = self.link.read().await;
            if link.is_some() {
                return Some(link);
            }
            drop(link);
            let mut is_up = self.is_up.subscribe();
            let until = *self.down_since.lock().expect("no holder of this lock panics") + LINK_TIMEOUT;
            // Cancel-safe: each only waits.
            tokio::select! {
                _ = is_up.wait_for(|up| *up) => {}
                () = tokio::time::sleep_until(until) => return None,
                () = self.closed.cancelled() => return None,
            }
        }
    }

    async fn connect(self: Arc<Self>) -> Result<Link, OpenError> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let inbox: Arc<str> = format!("{}.a{generation}", self.inbox).into();
        let dead = CancellationToken::new();
        let on_event = dead.clone();
        // Of a client that mended its connection by itself what had queued up in it would be stored, at any later time.
        let is_over = Arc::new(AtomicBool::new(false));
        let options = self.options.connection("publisher", &inbox, ANSWERS_MAX, &is_over, move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                on_event.cancel();
            }
        })?;
        let unreachable = |error: &dyn std::fmt::Display| self.options.unreachable(error);
        let servers = self.options.servers();
        // Each server gets one try; a client that was connected once gets no further than that.
        let options = options.max_reconnects(servers.len()).reconnect_delay_callback(|_| Duration::ZERO);
        let client = options.connect(servers).await.map_err(|error| unreachable(&error))?;
        is_over.store(true, Ordering::Release);
        let acks = client.subscribe(format!("{inbox}.*")).await.map_err(|error| unreachable(&error))?;
        self.tasks.spawn(self.clone().take_acks(acks, inbox.len() + 1, dead.clone()));
        Ok(Link { client, inbox, dead })
    }

    async fn take_acks(
        self: Arc<Self>,
        mut acks: async_nats::Subscriber,
        prefix: usize,
        dead: CancellationToken,
    ) {
        loop {
            // Cancel-safe: a message that is not taken is lost with its connection, and its sender publishes again.
            let message = tokio::select! {
                message = acks.next() => message,
                () = dead.cancelled() => None,
                () = self.closed.cancelled() => None,
            };
            let Some(message) = message else { return };
            let number = message.subject.as_str().get(prefix..).and_then(|number| number.parse().ok());
            let flight = {
                let mut flights = self.flights();
                flights.answered = Instant::now();
                number.and_then(|number| flights.take(number))
            };
            if let Some(mut flight) = flight {
                let answer = match answer(&message, &flight.message) {
                    // What is refused now may have been stored the first time, and be what it conflicts with.
                    Some(Err(error)) if flight.is_repeated => Err(AppendError::Unknown(format!(
                        "the connection to NATS was lost, and then: {error}"
                    ))),
                    Some(answer) => answer,
                    None if flight.tries < BUSY_TRIES && flight.first.elapsed() < REPEAT_MAX => {
                        self.tasks.spawn(self.clone().publish_again(flight));
                        continue;
                    }
                    // Somebody else may have stored the same.
                    None => Err(AppendError::Unknown("the stream is busy, or has no leader".into())),
                };
                match (answer, flight.message.following.take()) {
                    (Ok(appended), Some(following)) => following.go(appended, flight.done, flight.room),
                    (answer, _) => drop(flight.done.send(answer)),
                }
            }
        }
    }

    /// Publishes a message once more after a pause.
    async fn publish_again(self: Arc<Self>, flight: Flight) {
        sleep(BUSY_DELAY).await;
        let Some(link) = self.linked().await else {
            let _ = flight.done.send(Err(AppendError::Unknown("there is no connection to NATS".into())));
            return;
        };
        let (subject, headers) = (flight.message.subject.clone(), flight.message.headers.clone());
        let body = flight.message.body.clone();
        // Its time begins anew among those in flight, which stand in the order of their time.
        let number = self.flights().push(Flight { since: Instant::now(), tries: flight.tries + 1, ..flight });
        link.as_ref()
            .expect("a link that was waited for is there")
            .publish(number, subject, headers, body)
            .await;
    }

    /// Makes a new connection whenever the one there is gets lost.
    async fn keep_connected(self: Arc<Self>, mut link: Link) {
        loop {
            // Cancel-safe: both only wait.
            tokio::select! {
                () = link.dead.cancelled() => {}
                () = self.closed.cancelled() => return,
            }
            // Whoever is publishing on it sees that it is dead and lets go.
            *self.link.write().await = None;
            *self.down_since.lock().expect("no holder of this lock panics") = Instant::now();
            self.is_up.send_replace(false);
            link = loop {
                match self.clone().connect().await {
                    Ok(link) => break link,
                    Err(error) => tracing::debug!(%error, "NATS cannot be reached yet"),
                }
                if timeout(CONNECT_DELAY, self.closed.cancelled()).await.is_ok() {
                    return;
                }
            };
            let mut place = self.link.write().await;
            let again: Vec<_> = {
                let mut flights = self.flights();
                let base = flights.base;
                let there = flights.queue.iter_mut().enumerate();
                let numbered = there.filter_map(|(at, flight)| Some((base + at as u64, flight.as_mut()?)));
                // The others are told to be unknown in a moment.
                let numbered = numbered.filter(|(_, flight)| flight.first.elapsed() < REPEAT_MAX);
                let parts = numbered.map(|(number, Flight { message, is_repeated, .. })| {
                    *is_repeated = true;
                    (number, message.subject.clone(), message.headers.clone(), message.body.clone())
                });
                parts.collect()
            };
            tracing::info!(again = again.len(), "connected to NATS anew");
            for (number, subject, headers, body) in again {
                link.publish(number, subject, headers, body).await;
            }
            *place = Some(link.clone());
            drop(place);
            self.is_up.send_replace(true);
        }
    }

    /// Tells those whose acknowledgement does not come, and gives up a connection on which none comes.
    async fn look_after(self: Arc<Self>) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Cancel-safe: both only wait.
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.closed.cancelled() => return,
            }
            let now = Instant::now();
            let (expired, silent) = {
                let mut flights = self.flights();
                let waits_long = |flight: &Flight| now - flight.since > SILENCE_MAX;
                let is_silent = now - flights.answered > SILENCE_MAX
                    && flights.queue.front().is_some_and(|first| first.as_ref().is_some_and(waits_long));
                if is_silent {
                    flights.answered = now;
                }
                (flights.expired(now), is_silent)
            };
            if silent {
                tracing::warn!("NATS acknowledges nothing, connecting anew");
                if let Some(link) = &*self.link.read().await {
                    link.dead.cancel();
                }
            }
            for flight in expired {
                let _ = flight
                    .done
                    .send(Err(AppendError::Unknown("no acknowledgement from NATS in time".into())));
            }
        }
    }
}
