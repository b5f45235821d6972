//! One sender and those who receive what it sends: the engine of all scenarios with messages.
//!
//! Owns: what is on its way, and what became of it. All of a flow lives on one thread; its state is in a `RefCell` that
//! is never borrowed across an await.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::Interest;
use tokio::net::tcp::OwnedWriteHalf;

use super::frames::{FrameReader, Kind, kind};
use super::marker::{Arrival, Marker, MarkerFinder, Sequence, Template};

/// Most bytes that wait for a server that does not read. Beyond, messages of an open loop are not sent but counted.
const BACKLOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a poller that found nothing waits before it asks again.
const POLL_PAUSE: Duration = Duration::from_millis(1);

/// Nanoseconds since the start of the bench, the same for all its threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    pub(crate) fn now_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// What came out, of all flows of one thread.
#[derive(Debug)]
pub(crate) struct Tally {
    /// From when until when deliveries count for the rate and the latency, in ns of the clock.
    pub(crate) measured: std::ops::Range<u64>,
    /// Deliveries in that time.
    pub(crate) delivered: u64,
    /// Their latencies, in ns.
    pub(crate) latency: Histogram<u64>,
    /// Deliveries at any time.
    pub(crate) delivered_total: u64,
    /// Sends that were answered OK.
    pub(crate) acknowledged: u64,
    /// Came a second time.
    pub(crate) duplicated: u64,
    /// Came after a later one.
    pub(crate) out_of_order: u64,
    /// Was answered OK and never came; known at the end.
    pub(crate) lost: u64,
    /// Error replies by code, and what else went wrong.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Tally {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("the bounds are valid");
        Self {
            measured: 0..0,
            delivered: 0,
            latency,
            delivered_total: 0,
            acknowledged: 0,
            duplicated: 0,
            out_of_order: 0,
            lost: 0,
            errors: BTreeMap::new(),
        }
    }

    /// Counts one thing that went wrong.
    pub(crate) fn error(&mut self, what: &str) {
        *self.errors.entry(what.to_owned()).or_default() += 1;
    }

    /// Adds what another thread saw.
    pub(crate) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.delivered_total += other.delivered_total;
        self.acknowledged += other.acknowledged;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.lost += other.lost;
        self.latency += &other.latency;
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
    }
}

/// What all flows of a thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The clock.
    pub(crate) clock: Clock,
    /// Messages on their way at once; `None` for an open loop.
    pub(crate) window: Option<usize>,
    /// Finds the messages of this run.
    pub(crate) finder: MarkerFinder,
    /// Whether new messages are sent.
    pub(crate) running: Cell<bool>,
    /// What came out.
    pub(crate) tally: RefCell<Tally>,
}

/// A sender and what it has sent.
#[derive(Debug)]
pub(crate) struct Flow {
    shared: Rc<Shared>,
    writer: OwnedWriteHalf,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    template: Template,
    /// Bytes that the socket did not take yet.
    backlog: Vec<u8>,
    sent: u64,
    /// Replies so far. They come in order: the n-th is for the n-th message.
    replied: u64,
    refused: HashSet<u64>,
    /// For each message from number `base` on: how many receivers lack it.
    open: VecDeque<u32>,
    base: u64,
    in_flight: usize,
    sequences: Vec<Sequence>,
    broken: bool,
}

impl Flow {
    /// One from `writer`'s connection to `receivers` receivers.
    pub(crate) fn new(
        shared: Rc<Shared>,
        writer: OwnedWriteHalf,
        template: Template,
        receivers: usize,
    ) -> Rc<Self> {
        let state = State {
            template,
            backlog: Vec::new(),
            sent: 0,
            replied: 0,
            refused: HashSet::new(),
            open: VecDeque::new(),
            base: 0,
            in_flight: 0,
            sequences: (0..receivers).map(|_| Sequence::default()).collect(),
            broken: false,
        };
        Rc::new(Self { shared, writer, state: RefCell::new(state) })
    }

    /// Whether nothing is on its way and every send has its reply.
    pub(crate) fn is_done(&self) -> bool {
        let state = self.state.borrow();
        state.broken || (state.in_flight == 0 && state.replied == state.sent)
    }

    /// Whether a connection of it is gone.
    pub(crate) fn is_broken(&self) -> bool {
        self.state.borrow().broken
    }

    /// Closed loop: sends as many messages as the window has room for.
    pub(crate) fn fill_window(&self) {
        let Some(window) = self.shared.window else { return };
        let mut state = self.state.borrow_mut();
        if self.shared.running.get() && !state.broken && state.in_flight < window {
            let due_ns = self.shared.clock.now_ns();
            while state.in_flight < window {
                state.push(due_ns);
            }
        }
        state.flush(&self.writer);
    }

    /// Open loop: sends one message that was due at `due_ns`.
    pub(crate) fn send_due(&self, due_ns: u64) {
        let mut state = self.state.borrow_mut();
        if state.broken {
            return;
        }
        if state.backlog.len() > BACKLOG_BYTES_MAX {
            self.shared.tally.borrow_mut().error("not sent: the server does not read");
            return;
        }
        state.push(due_ns);
        state.flush(&self.writer);
    }

    /// Reads the replies to what was sent until the connection is gone.
    pub(crate) async fn read_replies(self: Rc<Self>, mut reader: FrameReader) {
        loop {
            // Both are cancel-safe: readiness is kept by the runtime, bytes by the reader.
            let waiting = !self.state.borrow().backlog.is_empty();
            let read = tokio::select! {
                read = reader.read(|frame| self.replied(frame)) => read,
                ready = self.writer.ready(Interest::WRITABLE), if waiting => ready.map(drop),
            };
            if let Err(error) = read {
                return self.broken(&error);
            }
            self.fill_window();
            self.state.borrow_mut().flush(&self.writer);
        }
    }

    fn replied(&self, frame: &[u8]) {
        let kind = kind(frame);
        if kind == Kind::Event {
            return;
        }
        let mut state = self.state.borrow_mut();
        let seq = state.replied;
        state.replied += 1;
        let mut tally = self.shared.tally.borrow_mut();
        if kind == Kind::Ok {
            tally.acknowledged += 1;
        } else {
            tally.error(&code(frame));
            state.refused.insert(seq);
            state.close(seq);
        }
    }

    /// Takes what is pushed to the receiver `number` until its connection is gone.
    pub(crate) async fn receive_pushed(self: Rc<Self>, number: usize, mut reader: FrameReader) {
        loop {
            let mut markers = Vec::new();
            let read = reader.read(|frame| markers.extend(self.shared.finder.find(frame))).await;
            self.delivered(number, &markers);
            if let Err(error) = read {
                return self.broken(&error);
            }
        }
    }

    /// Asks for what the receiver `number` has got, with `request`, again and again.
    pub(crate) async fn receive_polled(
        self: Rc<Self>,
        number: usize,
        mut reader: FrameReader,
        writer: OwnedWriteHalf,
        request: String,
    ) {
        let asked: io::Result<()> = async {
            loop {
                write_all(&writer, request.as_bytes()).await?;
                let (mut markers, mut answered) = (Vec::new(), false);
                while !answered {
                    let each = |frame: &[u8]| {
                        answered |= kind(frame) != Kind::Event;
                        markers.extend(self.shared.finder.find(frame));
                    };
                    reader.read(each).await?;
                }
                self.delivered(number, &markers);
                if markers.is_empty() {
                    tokio::time::sleep(POLL_PAUSE).await;
                }
            }
        }
        .await;
        if let Err(error) = asked {
            self.broken(&error);
        }
    }

    /// Notes messages that have come to the receiver `number`, and sends new ones for them.
    fn delivered(&self, number: usize, markers: &[Marker]) {
        if markers.is_empty() {
            return;
        }
        let now = self.shared.clock.now_ns();
        {
            let mut state = self.state.borrow_mut();
            let mut tally = self.shared.tally.borrow_mut();
            let (counts, sent) = (tally.measured.contains(&now), state.sent);
            for marker in markers.iter().filter(|marker| marker.seq < sent) {
                match state.sequences[number].arrived(marker.seq) {
                    Arrival::InOrder => {}
                    Arrival::OutOfOrder => tally.out_of_order += 1,
                    Arrival::Duplicate => {
                        tally.duplicated += 1;
                        continue;
                    }
                }
                tally.delivered_total += 1;
                if counts {
                    tally.delivered += 1;
                    tally.latency.saturating_record(now.saturating_sub(marker.due_ns).max(1));
                }
                state.close_one(marker.seq);
            }
        }
        self.fill_window();
    }

    fn broken(&self, error: &io::Error) {
        self.state.borrow_mut().broken = true;
        self.shared.tally.borrow_mut().error(&format!("connection lost: {error}"));
    }

    /// Counts what was answered OK and never came.
    pub(crate) fn count_lost(&self) {
        let state = self.state.borrow();
        let lost: u64 =
            state.sequences.iter().map(|sequence| sequence.lost(state.replied, &state.refused)).sum();
        self.shared.tally.borrow_mut().lost += lost;
    }
}

impl State {
    fn push(&mut self, due_ns: u64) {
        self.template.write(&mut self.backlog, Marker { seq: self.sent, due_ns });
        self.sent += 1;
        self.in_flight += 1;
        self.open.push_back(self.sequences.len() as u32);
    }

    /// Gives the socket what it takes now. An error shows when the connection is read.
    fn flush(&mut self, writer: &OwnedWriteHalf) {
        let mut written = 0;
        while written < self.backlog.len() {
            match writer.try_write(&self.backlog[written..]) {
                Ok(0) | Err(_) => break,
                Ok(count) => written += count,
            }
        }
        self.backlog.drain(..written);
    }

    /// One receiver more has the message `seq`.
    fn close_one(&mut self, seq: u64) {
        let Some(open) = seq.checked_sub(self.base).and_then(|at| self.open.get_mut(at as usize)) else {
            return;
        };
        if *open > 0 {
            *open -= 1;
            if *open == 0 {
                self.in_flight -= 1;
                self.drop_closed();
            }
        }
    }

    /// Nobody will get the message `seq`.
    fn close(&mut self, seq: u64) {
        let Some(open) = seq.checked_sub(self.base).and_then(|at| self.open.get_mut(at as usize)) else {
            return;
        };
        if std::mem::take(open) > 0 {
            self.in_flight -= 1;
            self.drop_closed();
        }
    }

    fn drop_closed(&mut self) {
        while self.open.front() == Some(&0) {
            self.open.pop_front();
            self.base += 1;
        }
    }
}

/// The `code` of an error reply.
fn code(frame: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(frame).unwrap_or_default();
    value["code"].as_str().unwrap_or("a reply without a code").to_owned()
}

async fn write_all(writer: &OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        writer.writable().await?;
        match writer.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
