//! A sender that survives its servers: it writes down what was answered OK, and goes on at another edge after a lost
//! connection. What has no reply yet is sent again there, under the same id, before anything new.
//!
//! Its ledger has one line for each OK, `ID SEQ`, written before the next message is sent on its behalf; `ID SEQ again` if
//! it had been sent before. (Such a one may have been stored at its first try, so its place is before its OK.)

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use antar_proto::MessageId;
use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use super::frames::{FrameReader, Kind, kind};
use super::marker::{Marker, RunId, Template};
use super::talk::Talk;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// How long is waited before a lost server is tried again, or one that was not available.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long the last replies may take.
const LAST_REPLIES: Duration = Duration::from_secs(20);
/// How often a sender with a rate looks whether something is due.
const TICK: Duration = Duration::from_millis(5);

/// What a sender has seen.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Recorded {
    pub(crate) acknowledged: u64,
    /// Sent again after a lost connection, and found to be stored already.
    pub(crate) duplicates_answered: u64,
    pub(crate) unanswered: usize,
    pub(crate) reconnects: u32,
    pub(crate) errors: HashMap<String, u64>,
}

/// Who sends what, where and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    /// Edges, of which one is used at a time.
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) token: String,
    /// Everything before the text of a line.
    pub(crate) prefix: String,
    pub(crate) size: usize,
    /// Messages that are on their way at once.
    pub(crate) window: usize,
    /// So many a second at the most; as fast as the window lets them, if there is none.
    pub(crate) rate: Option<u32>,
    /// So many in all; 0 for no limit.
    pub(crate) messages: u64,
}

/// A message without a reply.
#[derive(Debug, Clone, Copy)]
struct Unanswered {
    id: MessageId,
    seq: u64,
    /// It was sent before.
    is_again: bool,
}

/// A sender at work.
pub(crate) struct Sender {
    errand: Errand,
    /// Which of the servers.
    at: usize,
    template: Template,
    /// In the order they were sent.
    unanswered: VecDeque<Unanswered>,
    next: u64,
    began: Instant,
    ledger: File,
    figures: Recorded,
}

impl Sender {
    /// One that writes its ledger into a new file.
    pub(crate) fn new(errand: Errand, ledger: &Path) -> Outcome<Self> {
        Ok(Self {
            at: 0,
            template: Template::new(&errand.prefix, RunId::fresh(), errand.size),
            unanswered: VecDeque::new(),
            next: 0,
            began: Instant::now(),
            ledger: File::create(ledger).with_context(|| ledger.display().to_string())?,
            figures: Recorded::default(),
            errand,
        })
    }

    /// Sends until `end`, waits for the last replies, and says what it has seen.
    pub(crate) async fn run(mut self, end: Instant) -> Outcome<Recorded> {
        loop {
            match self.converse(end).await {
                Ok(()) => break,
                Err(failure) if failure.exit != Exit::Unreachable => return Err(failure),
                Err(_) if Instant::now() > end + LAST_REPLIES => break,
                Err(_) => {
                    self.figures.reconnects += 1;
                    self.at = (self.at + 1) % self.errand.servers.len();
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
        self.ledger.sync_all()?;
        self.figures.unanswered = self.unanswered.len();
        Ok(self.figures)
    }

    /// Everything over one connection; `Unreachable` if it is lost.
    async fn converse(&mut self, end: Instant) -> Outcome {
        let mut talk = Talk::connect(self.errand.servers[self.at]).await?;
        talk.ask(&format!("whoami {}", self.errand.token)).await?;
        let (mut reader, writer) = talk.into_parts();
        let mut out = Vec::new();
        for at in 0..self.unanswered.len() {
            self.unanswered[at].is_again = true;
            self.write(&mut out, self.unanswered[at]);
        }
        loop {
            let more = Instant::now() < end && !self.is_complete();
            while more && self.unanswered.len() < self.errand.window && self.is_due() {
                let message = Unanswered { id: MessageId::fresh(), seq: self.next, is_again: false };
                self.unanswered.push_back(message);
                self.write(&mut out, message);
                self.next += 1;
            }
            if self.unanswered.is_empty() && !more {
                return Ok(());
            }
            self.exchange(&mut reader, &writer, &mut out).await?;
            if Instant::now() > end + LAST_REPLIES {
                return Ok(());
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.errand.messages != 0 && self.next >= self.errand.messages
    }

    /// Whether the next message may go.
    fn is_due(&self) -> bool {
        let due = |rate: u32| self.next as f64 <= self.began.elapsed().as_secs_f64() * f64::from(rate);
        !self.is_complete() && self.errand.rate.is_none_or(due)
    }

    fn write(&mut self, out: &mut Vec<u8>, message: Unanswered) {
        out.extend_from_slice(format!("@{} ", message.id.0.simple()).as_bytes());
        self.template.write(out, Marker { seq: message.seq, due_ns: 0 });
    }

    /// Sends what there is to send and takes the replies that come.
    async fn exchange(
        &mut self,
        reader: &mut FrameReader,
        writer: &tokio::net::tcp::OwnedWriteHalf,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let mut frames: Vec<Vec<u8>> = Vec::new();
        let is_paced = self.errand.rate.is_some() && self.unanswered.len() < self.errand.window;
        // All are cancel-safe: readiness is kept by the runtime, bytes by the reader.
        let io = tokio::select! {
            read = reader.read(|frame| frames.push(frame.to_vec())) => read,
            ready = writer.writable(), if !out.is_empty() => ready.and_then(|()| match writer.try_write(out) {
                Ok(written) => {
                    out.drain(..written);
                    Ok(())
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
                Err(error) => Err(error),
            }),
            () = tokio::time::sleep(TICK), if is_paced => Ok(()),
            () = tokio::time::sleep(LAST_REPLIES) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        let mut again = Vec::new();
        for frame in frames.iter().filter(|frame| kind(frame) != Kind::Event) {
            again.extend(self.answered(frame)?);
        }
        if !again.is_empty() {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        for message in again {
            self.unanswered.push_back(message);
            self.write(out, message);
        }
        io.or_exit(Exit::Unreachable)
    }

    /// Notes one reply; returns the message if it has to be sent again.
    fn answered(&mut self, frame: &[u8]) -> Outcome<Option<Unanswered>> {
        let reply: Value = serde_json::from_slice(frame)?;
        let Some(message) = self.unanswered.pop_front() else {
            return Err(Failure::new(Exit::Failed, "a reply to nothing"));
        };
        let Unanswered { id, seq, is_again } = message;
        if kind(frame) == Kind::Ok {
            if reply["message_id"] != id.to_string().as_str() {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("the reply to {id} is about {}", reply["message_id"]),
                ));
            }
            writeln!(self.ledger, "{id} {seq}{}", if is_again { " again" } else { "" })?;
            self.figures.acknowledged += 1;
            self.figures.duplicates_answered += u64::from(reply["duplicate"] == true);
            return Ok(None);
        }
        let code = reply["code"].as_str().unwrap_or_default();
        *self.figures.errors.entry(code.to_owned()).or_default() += 1;
        // Unavailable: it may or may not be stored, and the same id settles it.
        Ok((code == "unavailable").then_some(Unanswered { id, seq, is_again: true }))
    }
}
