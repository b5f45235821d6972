//! A client that writes down what became of each of its messages, whatever happens to edges and broker.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{Conn, OneFrame, eventually, wait};

/// Messages that wait for their answers at the same time.
const WINDOW: usize = 8;
/// No edge may be silent for longer, whatever happens: it answers `unavailable` within 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// Every so many messages is not sent again when it was not answered OK.
const GIVEN_UP_EVERY: usize = 3;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// OK at the first try.
    Stored,
    /// OK after it had been sent again with the same id.
    Settled,
    /// `unavailable`, with `"stored": false`, and not sent again.
    NotStored,
    /// `unavailable`, with `"stored": "unknown"`, or no answer at all; and not sent again.
    Unknown,
}

/// One message of a sender.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Which of the sender's receivers.
    pub(crate) to: usize,
    /// Its text, which no other message has.
    pub(crate) text: String,
    /// Its id, under which it is sent again.
    id: Uuid,
    /// What became of it.
    pub(crate) fate: Fate,
}

/// What others may see of a sender at work.
#[derive(Default)]
struct Progress {
    over: AtomicBool,
    stored: AtomicUsize,
    unavailable: AtomicUsize,
    lost_connections: AtomicUsize,
}

/// Where the edges listen at the moment; an edge that was started again is somewhere else.
pub(crate) type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// A sender at work in a thread of its own.
pub(crate) struct Sender {
    progress: Arc<Progress>,
    thread: JoinHandle<Vec<Sent>>,
}

impl Sender {
    /// Sends on behalf of `token` with each of `commands` in turn (`send henderson`), through the first of `edges` that
    /// takes connections. What is not answered OK is sent again with the same id, but for some that are given up.
    pub(crate) fn start(name: &str, token: &str, commands: &[&str], edges: &Addresses) -> Self {
        let progress = Arc::new(Progress::default());
        let work = Work {
            name: name.to_owned(),
            token: token.to_owned(),
            commands: commands.iter().map(|command| (*command).to_owned()).collect(),
            edges: Arc::clone(edges),
            edge: 0,
            progress: Arc::clone(&progress),
            sent: Vec::new(),
            again: VecDeque::new(),
            tried: Vec::new(),
        };
        Self { progress, thread: std::thread::spawn(move || work.run()) }
    }

    /// How many messages were answered OK so far.
    pub(crate) fn stored(&self) -> usize {
        self.progress.stored.load(Ordering::Relaxed)
    }

    /// How many times it heard `unavailable`.
    pub(crate) fn unavailable(&self) -> usize {
        self.progress.unavailable.load(Ordering::Relaxed)
    }

    /// Waits until so many more messages were answered OK.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: usize) {
        let enough = self.stored() + more;
        eventually("messages are stored again", || {
            assert!(!self.thread.is_finished(), "the sender has given up");
            (self.stored() >= enough).then_some(())
        });
    }

    /// Waits until it hears that the broker does not answer, once more than before.
    #[track_caller]
    pub(crate) fn hears_unavailable(&self) {
        let before = self.unavailable();
        eventually("a sender hears that the broker is away", || {
            assert!(!self.thread.is_finished(), "the sender has given up");
            (self.unavailable() > before).then_some(())
        });
    }

    /// Ends it when all that it has sent is settled or given up, and returns its book.
    #[track_caller]
    pub(crate) fn finish(self) -> Vec<Sent> {
        self.progress.over.store(true, Ordering::Relaxed);
        eventually("the sender has settled everything", || self.thread.is_finished().then_some(()));
        self.thread.join().expect("the sender does not panic")
    }
}

struct Work {
    name: String,
    token: String,
    commands: Vec<String>,
    edges: Addresses,
    edge: usize,
    progress: Arc<Progress>,
    /// All messages, by their number.
    sent: Vec<Sent>,
    /// To be sent again, by number.
    again: VecDeque<usize>,
    /// How often each was sent.
    tried: Vec<usize>,
}

impl Work {
    fn run(mut self) -> Vec<Sent> {
        while !self.is_done() {
            let addresses = self.edges.lock().expect("no holder panics").clone();
            match Conn::try_open(addresses[self.edge % addresses.len()]) {
                Ok(conn) => self.converse(conn),
                Err(_) => wait::a_moment(),
            }
            self.edge += 1;
        }
        self.sent
    }

    fn is_done(&self) -> bool {
        self.progress.over.load(Ordering::Relaxed) && self.again.is_empty()
    }

    /// Sends on one connection until it is lost, or until all is done.
    fn converse(&mut self, mut conn: Conn) {
        while !self.is_done() {
            let window = self.next_window();
            let lines: String = window.iter().map(|&number| self.line(number)).collect();
            let mut lost = conn.try_send_raw(lines).is_err();
            let mut refused = false;
            for number in window {
                let reply = if lost { None } else { self.reply(&mut conn, number) };
                lost |= reply.is_none();
                refused |= !self.note(number, reply);
            }
            if lost {
                self.progress.lost_connections.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if refused {
                wait::a_moment();
            }
        }
    }

    /// What was not settled goes first, in its order.
    fn next_window(&mut self) -> Vec<usize> {
        let mut window: Vec<usize> = self.again.drain(..).collect();
        while window.len() < WINDOW && !self.progress.over.load(Ordering::Relaxed) {
            let number = self.sent.len();
            let (to, text) = (number % self.commands.len(), format!("{}-{number}", self.name));
            self.sent.push(Sent { to, text, id: Uuid::now_v7(), fate: Fate::Unknown });
            self.tried.push(0);
            window.push(number);
        }
        for &number in &window {
            self.tried[number] += 1;
        }
        window
    }

    fn line(&self, number: usize) -> String {
        let Sent { to, text, id, .. } = &self.sent[number];
        let command = &self.commands[*to];
        let (verb, rest) = command.split_once(' ').expect("a command has a receiver");
        format!("@{} {verb} {} {rest} {text}\r\n", id.simple(), self.token)
    }

    /// The reply to a message; `None` when the connection is gone.
    fn reply(&self, conn: &mut Conn, number: usize) -> Option<Value> {
        loop {
            match conn.next_frame(SILENCE_MAX) {
                OneFrame::Closed => return None,
                OneFrame::Silence => panic!("{}: an edge was silent for {SILENCE_MAX:?}", self.name),
                OneFrame::Frame(frame) => {
                    let reply: Value = serde_json::from_slice(&frame).expect("a frame is JSON");
                    if reply["event"].is_string() {
                        continue;
                    }
                    let id = self.sent[number].id.simple().to_string();
                    assert_eq!(reply["id"], id, "replies keep their order");
                    return Some(reply);
                }
            }
        }
    }

    /// Writes down what was answered; false when it was not OK.
    fn note(&mut self, number: usize, reply: Option<Value>) -> bool {
        let fate = match &reply {
            Some(reply) if reply["status"] == "OK" => {
                self.progress.stored.fetch_add(1, Ordering::Relaxed);
                let first = self.tried[number] == 1;
                self.sent[number].fate = if first { Fate::Stored } else { Fate::Settled };
                return true;
            }
            Some(reply) => {
                assert_eq!(reply["code"], "unavailable", "{}: {reply}", self.name);
                self.progress.unavailable.fetch_add(1, Ordering::Relaxed);
                match &reply["stored"] {
                    Value::Bool(false) => Fate::NotStored,
                    Value::String(unknown) if unknown == "unknown" => Fate::Unknown,
                    _ => panic!("{}: it does not say whether it was stored: {reply}", self.name),
                }
            }
            None => Fate::Unknown,
        };
        self.sent[number].fate = fate;
        if !number.is_multiple_of(GIVEN_UP_EVERY) {
            self.again.push_back(number);
        }
        false
    }
}

/// Compares what one receiver has read with the book of a sender: every OK once, those of the first try in order, what
/// was not stored not at all, and nothing that was never sent.
#[track_caller]
pub(crate) fn reconcile(name: &str, book: &[Sent], to: usize, read: &[String]) {
    let own: Vec<&String> = read.iter().filter(|text| text.starts_with(&format!("{name}-"))).collect();
    let mut wrong = Vec::new();
    let mut last = None;
    let mut places = std::collections::HashMap::new();
    for (place, text) in own.iter().enumerate() {
        if let Some(first) = places.insert(text.as_str(), place) {
            wrong.push(format!("{text} is there twice, at {first} and {place}"));
        }
    }
    for Sent { text, fate, .. } in book.iter().filter(|sent| sent.to == to) {
        match (fate, places.remove(text.as_str())) {
            (Fate::Stored | Fate::Settled, None) => wrong.push(format!("{text} is lost ({fate:?})")),
            (Fate::NotStored, Some(_)) => wrong.push(format!("{text} is there and was said not to be")),
            (Fate::Stored, Some(place)) => {
                if last.is_some_and(|last| place < last) {
                    wrong.push(format!("{text} came before one that was answered OK earlier"));
                }
                last = Some(place);
            }
            _ => {}
        }
    }
    wrong.extend(places.keys().map(|text| format!("{text} was never sent there")));
    let count = wrong.len();
    wrong.truncate(20);
    let first = wrong.join("\n  ");
    assert_eq!(count, 0, "of {} messages of {name}, {} were read:\n  {first}", book.len(), own.len());
}
