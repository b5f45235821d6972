//! One connection: bytes to lines, lines to commands, replies and events to bytes. Owns its buffers and its bounds.
//!
//! Nothing is allocated for a connection that is idle: what was read is used up at once, and what was written is given
//! back. Sends are answered as the broker acknowledges them, many at a time and in order; every other command waits
//! for the sends before it, so that a connection sees what it did.

mod lines;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use antar_broker::{KvError, ReadError};
use antar_proto::json::{frame_of, write_frame};
use antar_proto::line::LineSplitter;
use antar_proto::reply::{Event, Failure};
use antar_proto::{ErrorCode, UserName};
use antar_realm::{Counted, Feed, Pushed, SessionKey, Step};
use tokio::time::{Instant, Sleep};

use crate::counts::Refused;
use crate::guests::{Kick, Place};
use crate::listener::Edge;
use crate::outbox::Replies;
use crate::transport::Transport;

/// Longest line of a connection that has not logged in, unless it begins with a live token (P8: at most 16 KiB before
/// login).
const GUEST_LINE_BYTES_MAX: usize = 12 * 1024;
/// Size of the buffer that all connections of a thread read into.
const READ_BYTES: usize = 64 * 1024;
/// How often a connection that watches looks whether its session has ended, if nothing else makes it look: a logout is
/// effective everywhere within a second. Before anything is pushed it looks in any case.
const FEED_CHECK: Duration = Duration::from_millis(900);
/// How long a token may be looked for that this edge does not know.
const SESSION_TIME: Duration = Duration::from_secs(2);
/// Beyond so many bytes not yet written, nothing more is read or pushed.
const OUT_BYTES_HIGH: usize = 256 * 1024;
/// The same for a connection that has not logged in; one reply may be larger.
const GUEST_OUT_BYTES_HIGH: usize = 4 * 1024;
thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The session that a connection has shown last.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    token: Box<str>,
    pub(crate) key: SessionKey,
    pub(crate) user: UserName,
}

/// What a connection watches.
struct Watching {
    feed: Feed,
    /// The session that it does so for.
    key: SessionKey,
    _counted: Counted,
}

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) edge: Arc<Edge>,
    pub(crate) address: IpAddr,
    pub(crate) login: Option<Login>,
    stream: Transport,
    place: Place,
    since: Instant,
    lines: LineSplitter,
    line_since: Option<Instant>,
    empty_lines: u32,
    /// Read and not yet looked at; empty unless something has to be waited for.
    input: Vec<u8>,
    /// A line that waits for the sends before it.
    held: Option<Vec<u8>>,
    replies: Replies,
    out: Vec<u8>,
    /// When something was last written, while there is something to write.
    out_since: Option<Instant>,
    /// What `watch` pushes, and for which session.
    watching: Option<Watching>,
    _counted: Counted,
    /// When it was last seen that this session is live.
    feed_since: Instant,
    /// Set once no more is read: the client has ended its side, or the edge shuts down.
    ending: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What a connection woke up for.
#[derive(Default)]
struct Woken {
    kick: Option<Kick>,
    step: Option<Result<Step, ReadError>>,
    readable: bool,
}

/// Why a connection is over.
enum Over {
    /// There is no more to do.
    Done,
    /// The other side is gone, or does not take what it is sent.
    Gone,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Connection {
    pub(crate) fn new(edge: Arc<Edge>, stream: Transport, address: IpAddr, place: Place) -> Self {
        let counted = Counted::new(edge.realm.activity().clone(), |activity| &activity.connections);
        let lines = LineSplitter::new(GUEST_LINE_BYTES_MAX.min(edge.config.line_bytes_max));
        Self {
            edge,
            address,
            login: None,
            stream,
            place,
            since: Instant::now(),
            lines,
            line_since: None,
            empty_lines: 0,
            input: Vec::new(),
            held: None,
            replies: Replies::default(),
            out: Vec::new(),
            out_since: None,
            watching: None,
            _counted: counted,
            feed_since: Instant::now(),
            ending: false,
            timer: None,
        }
    }

    /// Serves it until it ends.
    pub(crate) async fn run(mut self) {
        while self.turn().await.is_ok() {}
    }

    /// Waits for something to happen and deals with it.
    async fn turn(&mut self) -> Result<(), Over> {
        if self.ending && self.replies.is_empty() && self.held.is_none() && self.input.is_empty() {
            self.say_goodbye();
            self.flush().await?;
            return Err(Over::Done);
        }
        let woken = self.wait().await;
        match woken.kick {
            Some(Kick::Shutdown) => self.ending = true,
            Some(Kick::Evicted) => {
                self.edge.counts.refused(Refused::Evicted);
                return Err(Over::Gone);
            }
            None => {}
        }
        if let Some(step) = woken.step {
            self.push(step).await?;
        }
        if woken.readable {
            self.read()?;
        }
        self.take_lines().await?;
        self.check_time().await?;
        self.write()?;
        Ok(())
    }

    fn wants_input(&self) -> bool {
        !self.ending && self.held.is_none() && self.input.is_empty() && self.out.len() < self.out_bytes_high()
    }

    fn out_bytes_high(&self) -> usize {
        if self.place.is_guest() { GUEST_OUT_BYTES_HIGH } else { OUT_BYTES_HIGH }
    }

    /// Whether lines that were read could be looked at now.
    fn can_take_lines(&self) -> bool {
        let waiting = self.held.is_some() || !self.input.is_empty();
        waiting
            && self.out.len() < self.out_bytes_high()
            && (self.held.is_none() || self.replies.is_empty())
            && self.replies.has_room(self.edge.config.pipeline_max)
    }

    /// Waits until there is something to do. Cancel-safe parts only: readiness, acknowledgements (kept in their
    /// slots), the feed's next step.
    async fn wait(&mut self) -> Woken {
        let can_take_lines = self.can_take_lines();
        self.set_timer();
        let (wants_input, wants_events) = (self.wants_input(), self.out.len() < OUT_BYTES_HIGH);
        let Self { edge, stream, place, replies, out, watching, timer, ending, .. } = self;
        let has_output = !out.is_empty();
        let mut step = pin!(async {
            match watching {
                Some(watching) if wants_events => watching.feed.next().await,
                _ => std::future::pending().await,
            }
        });
        std::future::poll_fn(|cx| {
            let mut woken = Woken::default();
            // With lines at hand nothing is waited for, but everything is looked at.
            let mut ready = can_take_lines;
            if let Poll::Ready(kick) = place.handle.poll_kicked(cx)
                && !*ending
            {
                woken.kick = Some(kick);
                ready = true;
            }
            ready |= replies.poll_write(cx, out, &edge.counts).is_ready();
            if let Poll::Ready(got) = step.as_mut().poll(cx) {
                woken.step = Some(got);
                ready = true;
            }
            ready |= has_output && stream.poll_write_ready(cx).is_ready();
            if wants_input && stream.poll_read_ready(cx).is_ready() {
                woken.readable = true;
                ready = true;
            }
            ready |= timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
            if ready { Poll::Ready(woken) } else { Poll::Pending }
        })
        .await
    }

    /// The next moment at which something would be too late.
    fn deadline(&self) -> Option<Instant> {
        let config = &self.edge.config;
        let guest = self.place.is_guest().then(|| self.since + config.guest_time);
        let line = self.line_since.map(|since| since + config.line_time);
        let stall = self.out_since.map(|since| since + config.write_stall);
        let feed = self.watching.as_ref().map(|_| self.feed_since + FEED_CHECK);
        [guest, line, stall, feed, self.replies.deadline(), self.stream.alive_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Keeps one timer that is never late. One that is early costs a turn; resetting it for each send would cost more.
    fn set_timer(&mut self) {
        let Some(deadline) = self.deadline() else {
            if self.timer.as_ref().is_some_and(|timer| timer.is_elapsed()) {
                self.timer = None;
            }
            return;
        };
        match &mut self.timer {
            Some(timer) if !timer.is_elapsed() && timer.deadline() <= deadline => {}
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
        }
    }

    /// Ends what has taken too long.
    async fn check_time(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        self.stream.check_alive(now)?;
        let (write_stall, guest_time) = (self.edge.config.write_stall, self.edge.config.guest_time);
        if self.out_since.is_some_and(|since| since + write_stall <= now) {
            self.edge.counts.refused(Refused::SlowReader);
            tracing::info!(address = %self.address, waiting_bytes = self.out.len(), "a reader takes nothing, its connection is closed");
            return Err(Over::Gone);
        }
        if self.watching.is_some() && self.feed_since + FEED_CHECK <= now {
            self.check_feed();
        }
        if self.place.is_guest() && self.since + guest_time <= now {
            self.edge.counts.refused(Refused::NoLogin);
            return Err(Over::Gone);
        }
        if self.line_since.is_some() && !self.wants_input() {
            // It is the edge that does not read.
            self.line_since = Some(now);
        }
        if self.line_since.is_some_and(|since| since + self.edge.config.line_time <= now) {
            self.edge.counts.refused(Refused::SlowLine);
            let detail = format!("a line has to be whole within {} s", self.edge.config.line_time.as_secs());
            write_frame(&mut self.out, &Failure::new(None, ErrorCode::BadRequest).detail(&detail));
            self.flush().await?;
            return Err(Over::Done);
        }
        Ok(())
    }

    /// Reads what there is.
    fn read(&mut self) -> Result<(), Over> {
        let most = if self.place.is_guest() { GUEST_LINE_BYTES_MAX } else { READ_BYTES };
        let got = SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(&mut scratch[..most]) {
            Ok(count) => {
                self.input.extend_from_slice(&scratch[..count]);
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        })?;
        match got {
            // Half a line that the client will never end is not executed.
            Some(0) => self.ending = true,
            Some(count) => {
                self.edge.counts.read_bytes.inc_by(count as u64);
                self.place.is_active();
            }
            None => {}
        }
        Ok(())
    }

    /// Whose token this is, if it is live; the connection counts as logged in from then on.
    pub(crate) fn session(&mut self, token: &str) -> Option<UserName> {
        if let Some(login) = &self.login
            && *login.token == *token
        {
            return self.edge.realm.is_live(&login.key).then(|| login.user.clone());
        }
        let (key, user) = self.edge.realm.session(token)?;
        self.logged_in(Login { token: token.into(), key, user: user.clone() });
        Some(user)
    }

    /// The same for a token that this edge does not know: another one may have given it out a moment ago.
    pub(crate) async fn session_elsewhere(&mut self, token: &str) -> Result<Option<UserName>, KvError> {
        let found = tokio::time::timeout(SESSION_TIME, self.edge.realm.session_anywhere(token)).await;
        let found = found.unwrap_or_else(|_| Err(KvError::Unavailable("it took too long".into())))?;
        Ok(found.map(|(key, user)| {
            self.logged_in(Login { token: token.into(), key, user: user.clone() });
            user
        }))
    }

    fn logged_in(&mut self, login: Login) {
        self.login = Some(login);
        if self.place.is_guest() {
            self.place.logged_in();
            self.lines.set_line_bytes_max(self.edge.config.line_bytes_max);
        }
    }

    /// Takes a reply that is ready to be written.
    pub(crate) fn say(&mut self, reply: &[u8]) {
        self.out.extend_from_slice(reply);
    }

    /// Whether this connection watches with the session of this key.
    pub(crate) fn watches_for(&self, key: &SessionKey) -> bool {
        self.watching.as_ref().is_some_and(|watching| watching.key == *key)
    }

    /// Ends the feed of a session that has ended.
    fn check_feed(&mut self) {
        self.feed_since = Instant::now();
        if self.watching.as_ref().is_some_and(|watching| !self.edge.realm.is_live(&watching.key)) {
            self.watching = None;
            write_frame(&mut self.out, &Event::LoggedOut);
        }
    }

    /// Pushes a step of the feed.
    async fn push(&mut self, step: Result<Step, ReadError>) -> Result<(), Over> {
        self.check_feed();
        let Some(Watching { feed, .. }) = &self.watching else { return Ok(()) };
        let Step { events, marks } = match step {
            Ok(step) => step,
            Err(error) => {
                tracing::warn!(user = %feed.user(), %error, "a watch ended: its client has to connect again");
                return Err(Over::Gone);
            }
        };
        self.edge.counts.pushed.inc_by(events.len() as u64);
        for event in &events {
            match event {
                Pushed::Event(event) => write_frame(&mut self.out, event),
                Pushed::Shared(event) => self.out.extend_from_slice(event.frame(frame_of)),
            }
        }
        if marks.is_empty() {
            return Ok(());
        }
        // What could not be written stays unread.
        self.write()?;
        if !self.out.is_empty() {
            self.flush().await?;
        }
        self.edge.realm.mark_seen(marks);
        Ok(())
    }

    fn say_goodbye(&mut self) {
        if self.watching.take().is_some()
            && self.place.handle.poll_kicked(&Context::from_waker(std::task::Waker::noop())).is_ready()
        {
            write_frame(&mut self.out, &Event::Shutdown);
        }
    }

    /// Writes as much as the socket takes.
    fn write(&mut self) -> Result<(), Over> {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.try_write(&self.out[written..]) {
                Ok(0) => return Err(Over::Gone),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.edge.counts.written_bytes.inc_by(written as u64);
        if written == self.out.len() {
            // Given back: an idle connection holds no buffer.
            self.out = Vec::new();
            self.out_since = None;
        } else {
            self.out.drain(..written);
            self.out_since = self.out_since.filter(|_| written == 0).or_else(|| Some(Instant::now()));
        }
        Ok(())
    }

    /// Writes everything, as long as the other side takes something now and then.
    async fn flush(&mut self) -> Result<(), Over> {
        loop {
            self.write()?;
            if self.out.is_empty() {
                return Ok(());
            }
            match tokio::time::timeout(self.edge.config.write_stall, self.stream.writable()).await {
                Ok(ready) => ready?,
                Err(_) => return Err(Over::Gone),
            }
        }
    }
}
