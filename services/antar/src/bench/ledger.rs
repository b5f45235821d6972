//! Writes down what was answered OK, while servers are killed, and checks later that all of it is there: once, in order.
//!
//! The file has one line for each OK, `ID SEQ`, written before the next message is sent on its behalf. The sender goes on
//! after a lost connection: it sends what has no reply yet again, with the same ids, before anything new.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use antar_proto::MessageId;
use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use super::accounts::{self, Session, user};
use super::figures::report;
use super::frames::{FrameReader, Kind, kind};
use super::marker::{Marker, RunId, Template};
use super::talk::Talk;
use super::{BenchArgs, ReadBack, runtime};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// How long is waited before a lost server is tried again, or one that was not available.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How long the last replies may take.
const LAST_REPLIES: Duration = Duration::from_secs(10);
/// Messages in one page of `history`.
const PAGE: usize = 200;

#[derive(Debug, Serialize)]
struct Recorded {
    acknowledged: u64,
    /// Sent again after a lost connection, and found to be stored already.
    duplicates_answered: u64,
    unanswered: usize,
    reconnects: u32,
    errors: HashMap<String, u64>,
}

#[derive(Debug, Default, Serialize, PartialEq, Eq)]
struct Checked {
    acknowledged: usize,
    found: usize,
    lost: usize,
    duplicated: usize,
    reordered: usize,
    /// In the mailbox without an OK: stored, but the reply was cut off. No fault.
    unacknowledged: usize,
}

/// A sender that survives its server.
struct Sender<'a> {
    args: &'a BenchArgs,
    session: Session,
    template: Template,
    /// Without a reply, in the order they were sent.
    unanswered: VecDeque<(MessageId, u64)>,
    next: u64,
    ledger: File,
    figures: Recorded,
}

/// Sends for `--seconds` (or `--messages`) from `bench-0` to `bench-1` and writes the ledger.
pub(crate) fn record(args: &BenchArgs, path: &Path) -> Outcome {
    runtime()?.block_on(async {
        let mut sessions = accounts::log_in(args.server, 2, &args.password).await?;
        let session = sessions.swap_remove(0);
        let prefix = format!("send {} {} ", session.token, user(1));
        let mut sender = Sender {
            args,
            template: Template::new(&prefix, RunId::fresh(), args.size as usize),
            session,
            unanswered: VecDeque::new(),
            next: 0,
            ledger: File::create(path).with_context(|| path.display().to_string())?,
            figures: Recorded {
                acknowledged: 0,
                duplicates_answered: 0,
                unanswered: 0,
                reconnects: 0,
                errors: HashMap::new(),
            },
        };
        let end = Instant::now() + Duration::from_secs(u64::from(args.seconds));
        sender.run(end).await?;
        sender.ledger.sync_all()?;
        sender.figures.unanswered = sender.unanswered.len();
        report(args, &sender.figures)
    })
}

impl Sender<'_> {
    async fn run(&mut self, end: Instant) -> Outcome {
        loop {
            match self.converse(end).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.exit != Exit::Unreachable => return Err(failure),
                Err(_) if Instant::now() > end + LAST_REPLIES => return Ok(()),
                Err(_) => {
                    self.figures.reconnects += 1;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Everything over one connection; `Unreachable` if it is lost.
    async fn converse(&mut self, end: Instant) -> Outcome {
        let mut talk = Talk::connect(self.args.server).await?;
        talk.ask_ok(&format!("whoami {}", self.session.token)).await?;
        let (mut reader, writer) = talk.into_parts();
        let mut out = Vec::new();
        for at in 0..self.unanswered.len() {
            let (id, seq) = self.unanswered[at];
            self.write(&mut out, id, seq);
        }
        loop {
            let more = Instant::now() < end && (self.args.messages == 0 || self.next < self.args.messages);
            while more && self.unanswered.len() < self.args.window as usize && !self.is_complete() {
                let id = MessageId::fresh();
                self.unanswered.push_back((id, self.next));
                self.write(&mut out, id, self.next);
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
        self.args.messages != 0 && self.next >= self.args.messages
    }

    fn write(&mut self, out: &mut Vec<u8>, id: MessageId, seq: u64) {
        out.extend_from_slice(format!("@{} ", id.0.simple()).as_bytes());
        self.template.write(out, Marker { seq, due_ns: 0 });
    }

    /// Sends what there is to send and takes the replies that come.
    async fn exchange(
        &mut self,
        reader: &mut FrameReader,
        writer: &tokio::net::tcp::OwnedWriteHalf,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let mut frames: Vec<Vec<u8>> = Vec::new();
        // Both are cancel-safe: readiness is kept by the runtime, bytes by the reader.
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
            () = tokio::time::sleep(LAST_REPLIES) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        let mut again = Vec::new();
        for frame in frames.iter().filter(|frame| kind(frame) != Kind::Event) {
            again.extend(self.answered(frame)?);
        }
        if !again.is_empty() {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        for (id, seq) in again {
            self.unanswered.push_back((id, seq));
            self.write(out, id, seq);
        }
        io.or_exit(Exit::Unreachable)
    }

    /// Notes one reply; returns the message if it has to be sent again.
    fn answered(&mut self, frame: &[u8]) -> Outcome<Option<(MessageId, u64)>> {
        let reply: Value = serde_json::from_slice(frame)?;
        let Some((id, seq)) = self.unanswered.pop_front() else {
            return Err(Failure::new(Exit::Failed, "a reply to nothing"));
        };
        if kind(frame) == Kind::Ok {
            if reply["message_id"] != id.to_string().as_str() {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("the reply to {id} is about {}", reply["message_id"]),
                ));
            }
            writeln!(self.ledger, "{id} {seq}")?;
            self.figures.acknowledged += 1;
            self.figures.duplicates_answered += u64::from(reply["duplicate"] == true);
            return Ok(None);
        }
        let code = reply["code"].as_str().unwrap_or_default();
        *self.figures.errors.entry(code.to_owned()).or_default() += 1;
        // Unavailable: it may or may not be stored, and the same id settles it.
        Ok((code == "unavailable").then_some((id, seq)))
    }
}

/// Reads back what `bench-1` got from `bench-0` and compares it with the ledger.
pub(crate) fn check(args: &BenchArgs, path: &Path) -> Outcome {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let ledger = parse(&text).with_context(|| path.display().to_string()).or_exit(Exit::Usage)?;
    let found = runtime()?.block_on(read_back(args))?;
    let checked = compare(&ledger, &found);
    report(args, &checked)?;
    match checked.lost + checked.duplicated + checked.reordered {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "what was answered OK is not all there, once and in order")),
    }
}

/// The ids of a ledger, in the order of their OKs.
fn parse(text: &str) -> anyhow::Result<Vec<MessageId>> {
    let entry = |(number, line): (usize, &str)| {
        let id = line
            .split_once(' ')
            .filter(|(_, seq)| seq.parse::<u64>().is_ok())
            .and_then(|(id, _)| id.parse().ok());
        id.with_context(|| format!("line {}: not ID SEQ", number + 1))
    };
    text.lines().enumerate().map(entry).collect()
}

/// The ids of everything in the mailbox, oldest first.
async fn read_back(args: &BenchArgs) -> Outcome<Vec<MessageId>> {
    let sessions = accounts::log_in(args.server, 2, &args.password).await?;
    let mut talk = Talk::connect(args.server).await?;
    let (token, from) = (&sessions[1].token, user(0));
    let mut found = Vec::new();
    if args.by == ReadBack::Inbox {
        loop {
            let reply = talk.ask_ok(&format!("inbox {token}")).await?;
            found.extend(ids(&reply["messages"][&from])?);
            if reply["more"] != true {
                return Ok(found);
            }
        }
    }
    let mut before = String::new();
    loop {
        let reply = talk.ask_ok(&format!("history {token} {from} limit={PAGE}{before}")).await?;
        let page = ids(&reply["messages"])?;
        let Some(oldest) = page.first() else {
            if reply["more"] == true {
                return Err(Failure::new(
                    Exit::Failed,
                    "history does not reach its beginning; try --by inbox",
                ));
            }
            break;
        };
        before = format!(" before={oldest}");
        found.splice(0..0, page);
    }
    Ok(found)
}

fn ids(messages: &Value) -> Outcome<Vec<MessageId>> {
    let id = |message: &Value| message["id"].as_str().and_then(|id| id.parse().ok());
    let ids =
        messages.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(id).collect::<Option<_>>();
    ids.ok_or_else(|| Failure::new(Exit::Failed, "a message without an id: is this an Antar server?"))
}

/// `ledger` in the order of its OKs against `found` in the order it was stored.
fn compare(ledger: &[MessageId], found: &[MessageId]) -> Checked {
    let mut places: HashMap<MessageId, Vec<usize>> = HashMap::new();
    for (place, id) in found.iter().enumerate() {
        places.entry(*id).or_default().push(place);
    }
    let mut checked = Checked { acknowledged: ledger.len(), found: found.len(), ..Checked::default() };
    let mut last = None;
    for id in ledger {
        let Some(places) = places.remove(id) else {
            checked.lost += 1;
            continue;
        };
        checked.duplicated += places.len() - 1;
        checked.reordered += usize::from(last.is_some_and(|last| places[0] < last));
        last = Some(places[0]);
    }
    checked.unacknowledged = places.len();
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(numbers: &[u128]) -> Vec<MessageId> {
        numbers.iter().map(|&number| MessageId(uuid::Uuid::from_u128(number))).collect()
    }

    #[test]
    fn loss_duplicates_and_disorder_are_found() {
        let check = |ledger: &[u128], found: &[u128]| {
            let checked = compare(&names(ledger), &names(found));
            (checked.lost, checked.duplicated, checked.reordered, checked.unacknowledged)
        };
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3]), (0, 0, 0, 0));
        assert_eq!(check(&[1, 3], &[0, 1, 2, 3]), (0, 0, 0, 2), "stored without an OK is no fault");
        assert_eq!(check(&[1, 2, 3], &[1, 3]), (1, 0, 0, 0));
        assert_eq!(check(&[1, 2], &[1, 2, 1]), (0, 1, 0, 0));
        assert_eq!(check(&[1, 2, 3], &[1, 3, 2]), (0, 0, 1, 0));
    }

    #[test]
    fn a_ledger_keeps_the_order_of_its_oks() {
        let [a, b] = [MessageId::fresh(), MessageId::fresh()];
        assert_eq!(parse(&format!("{b} 1\n{a} 0\n")).unwrap(), [b, a]);
        assert!(parse("x 1").is_err() && parse("").unwrap().is_empty());
    }
}
