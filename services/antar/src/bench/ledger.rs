//! The ledger: what was answered OK, written down while servers are killed, and compared later with what is there: all of
//! it, once, in order.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use antar_proto::MessageId;
use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use super::accounts::{self, user};
use super::figures::report;
use super::sender::{Errand, Sender};
use super::talk::Talk;
use super::{BenchArgs, ReadBack, runtime};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};

/// Messages in one page of `history`.
const PAGE: usize = 200;

/// A ledger beside what is there.
#[derive(Debug, Default, Clone, Copy, Serialize, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) acknowledged: usize,
    pub(crate) found: usize,
    pub(crate) lost: usize,
    pub(crate) duplicated: usize,
    pub(crate) reordered: usize,
    /// In the mailbox without an OK: stored, but the reply was cut off. No fault.
    pub(crate) unacknowledged: usize,
}

impl Checked {
    /// Whether a promise was broken.
    pub(crate) fn is_good(&self) -> bool {
        self.lost + self.duplicated + self.reordered == 0
    }
}

/// One line of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) id: MessageId,
    /// It was sent more than once, so its place may be before its OK.
    pub(crate) is_again: bool,
}

/// Sends for `--seconds` (or `--messages`) from `bench-0` to `bench-1` and writes the ledger.
pub(crate) fn record(args: &BenchArgs, path: &Path) -> Outcome {
    runtime()?.block_on(async {
        let sessions = accounts::log_in(args.first_server(), 2, &args.password).await?;
        let token = sessions[0].token.clone();
        let errand = Errand {
            servers: args.server.clone(),
            prefix: format!("send {token} {} ", user(1)),
            token,
            size: args.size as usize,
            window: args.window as usize,
            rate: None,
            messages: args.messages,
        };
        let end = Instant::now() + Duration::from_secs(u64::from(args.seconds));
        report(args, &Sender::new(errand, path)?.run(end).await?)
    })
}

/// Reads back what `bench-1` got from `bench-0` and compares it with the ledger.
pub(crate) fn check(args: &BenchArgs, path: &Path) -> Outcome {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let ledger = parse(&text).with_context(|| path.display().to_string()).or_exit(Exit::Usage)?;
    let found = runtime()?.block_on(read_back(args))?;
    let checked = compare(&ledger, &found);
    report(args, &checked)?;
    match checked.is_good() {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, "what was answered OK is not all there, once and in order")),
    }
}

/// The lines of a ledger, in the order of their OKs.
pub(crate) fn parse(text: &str) -> anyhow::Result<Vec<Line>> {
    let entry = |(number, line): (usize, &str)| {
        let mut words = line.split(' ');
        let id = words.next().and_then(|id| id.parse().ok());
        let seq = words.next().is_some_and(|seq| seq.parse::<u64>().is_ok());
        let is_again = match words.next() {
            None => Some(false),
            again => (again == Some("again") && words.next().is_none()).then_some(true),
        };
        id.filter(|_| seq)
            .zip(is_again)
            .map(|(id, is_again)| Line { id, is_again })
            .with_context(|| format!("line {}: not ID SEQ", number + 1))
    };
    text.lines().enumerate().map(entry).collect()
}

/// The ids of everything in the mailbox, oldest first.
async fn read_back(args: &BenchArgs) -> Outcome<Vec<MessageId>> {
    let sessions = accounts::log_in(args.first_server(), 2, &args.password).await?;
    let mut talk = Talk::connect(args.first_server()).await?;
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

pub(crate) fn ids(messages: &Value) -> Outcome<Vec<MessageId>> {
    let id = |message: &Value| message["id"].as_str().and_then(|id| id.parse().ok());
    let ids =
        messages.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(id).collect::<Option<_>>();
    ids.ok_or_else(|| Failure::new(Exit::Failed, "a message without an id: is this an Antar server?"))
}

/// `ledger` in the order of its OKs against `found` in the order it was stored.
pub(crate) fn compare(ledger: &[Line], found: &[MessageId]) -> Checked {
    let mut places: HashMap<MessageId, Vec<usize>> = HashMap::new();
    for (place, id) in found.iter().enumerate() {
        places.entry(*id).or_default().push(place);
    }
    let mut checked = Checked { acknowledged: ledger.len(), found: found.len(), ..Checked::default() };
    let mut last = None;
    for Line { id, is_again } in ledger {
        let Some(places) = places.remove(id) else {
            checked.lost += 1;
            continue;
        };
        checked.duplicated += places.len() - 1;
        if !is_again {
            checked.reordered += usize::from(last.is_some_and(|last| places[0] < last));
            last = Some(places[0]);
        }
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
            let line = |id| Line { id, is_again: false };
            let ledger: Vec<Line> = names(ledger).into_iter().map(line).collect();
            let checked = compare(&ledger, &names(found));
            (checked.lost, checked.duplicated, checked.reordered, checked.unacknowledged)
        };
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3]), (0, 0, 0, 0));
        assert_eq!(check(&[1, 3], &[0, 1, 2, 3]), (0, 0, 0, 2), "stored without an OK is no fault");
        assert_eq!(check(&[1, 2, 3], &[1, 3]), (1, 0, 0, 0));
        assert_eq!(check(&[1, 2], &[1, 2, 1]), (0, 1, 0, 0));
        assert_eq!(check(&[1, 2, 3], &[1, 3, 2]), (0, 0, 1, 0));
    }

    #[test]
    fn what_was_sent_again_may_stand_before_its_ok() {
        let [a, b, c] = [MessageId::fresh(), MessageId::fresh(), MessageId::fresh()];
        let ledger = parse(&format!("{b} 1\n{a} 0 again\n{c} 2\n")).unwrap();
        assert!(compare(&ledger, &[a, b, c]).is_good());
        assert_eq!(compare(&ledger, &[a, c, b]).reordered, 1);
        assert_eq!(compare(&ledger, &[b, c]).lost, 1);
    }

    #[test]
    fn a_ledger_keeps_the_order_of_its_oks() {
        let [a, b] = [MessageId::fresh(), MessageId::fresh()];
        let ids: Vec<_> = parse(&format!("{b} 1\n{a} 0\n")).unwrap().iter().map(|line| line.id).collect();
        assert_eq!(ids, [b, a]);
        for bad in
            ["x 1".into(), format!("{a}"), format!("{a} x"), format!("{a} 1 more"), format!("{a} 1 again 2")]
        {
            assert!(parse(&bad).is_err(), "{bad}");
        }
        assert!(parse("").unwrap().is_empty());
    }
}
