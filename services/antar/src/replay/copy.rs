//! Mail of one realm, copied to the users of another: from an export, or straight from a log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::path::Path;

use antar_broker::Entry;
use antar_proto::RealmId;
use antar_realm::admin::{AdminReply, AdminRequest};
use antar_replay::copy::{Batcher, Known, Offered};
use antar_replay::file::{FileError, Importer};
use anyhow::Context as _;
use serde::Serialize;

use super::ReplayArgs;
use super::progress::Progress;
use super::source::{Pace, Source, open};
use crate::admin::{Operator, Target, target, unexpected};
use crate::config::Environment;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::say::{self, Format};

/// What is told at the end.
#[derive(Debug, Serialize)]
struct Summary {
    from: RealmId,
    into: RealmId,
    /// Entries that were copied now.
    copied: u64,
    /// Entries that had been copied before.
    known: u64,
    /// Entries that are no mail, or came from that realm in the first place.
    left_out: u64,
    /// Of users that the realm does not have.
    unknown_users: BTreeMap<String, u64>,
    /// For boxes that are full.
    full: BTreeMap<String, u64>,
}

/// Copies on their way.
struct Copies {
    operator: Operator,
    batcher: Batcher,
    summary: Summary,
}

impl Copies {
    /// Reaches the realm that gets them, and finds out what it has.
    async fn begin(target: Target, from: &RealmId, into: &RealmId) -> Outcome<Self> {
        let operator = Operator::reach(target.clone(), false).await?;
        let found = async {
            let broker = open(&target).await?;
            let known = Known::find(&broker, from, into).await.or_exit(Exit::Unreachable);
            broker.close().await;
            known
        };
        let known = match found.await {
            Ok(known) => known,
            Err(failure) => {
                operator.leave().await;
                return Err(failure);
            }
        };
        let summary = Summary {
            from: from.clone(),
            into: into.clone(),
            copied: 0,
            known: 0,
            left_out: 0,
            unknown_users: BTreeMap::new(),
            full: BTreeMap::new(),
        };
        Ok(Self { operator, batcher: Batcher::new(from.clone(), into.clone(), known), summary })
    }

    async fn add(&mut self, entry: &Entry) -> Outcome {
        if self.batcher.is_full(entry.body.len()) {
            self.flush().await?;
        }
        match self.batcher.offer(entry) {
            Offered::Taken => {}
            Offered::Known => self.summary.known += 1,
            Offered::NotMail | Offered::FromThere => self.summary.left_out += 1,
        }
        Ok(())
    }

    async fn flush(&mut self) -> Outcome {
        let entries = self.batcher.take();
        if entries.is_empty() {
            return Ok(());
        }
        let request = AdminRequest::Replay { from: self.summary.from.to_string(), entries };
        match self.operator.ask(request).await? {
            AdminReply::Replayed { appended, known, unknown, full } => {
                self.summary.copied += appended;
                self.summary.known += known;
                for (all, part) in
                    [(&mut self.summary.unknown_users, unknown), (&mut self.summary.full, full)]
                {
                    for (user, count) in part {
                        *all.entry(user).or_default() += count;
                    }
                }
                Ok(())
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// Sends what is left, says what was done, and leaves.
    async fn end(mut self, work: Outcome, format: Format) -> Outcome {
        let done = match work {
            Ok(()) => self.flush().await,
            failed => failed,
        };
        self.operator.leave().await;
        done.map_err(|failure| Failure {
            error: failure.error.context(format!(
                "{} entries were copied before this; the same command again goes on behind them",
                self.summary.copied
            )),
            ..failure
        })?;
        tell(&self.summary, format)
    }
}

fn tell(summary: &Summary, format: Format) -> Outcome {
    let Summary { from, into, copied, known, left_out, unknown_users, full } = summary;
    if format == Format::Json {
        say::json(summary)?;
    } else {
        say::line(format!("{copied} entries of realm {from} copied to realm {into}"))?;
        let counted = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(user, count)| format!("{user} ({count})")).collect::<Vec<_>>().join(", ")
        };
        for (count, what) in [(known, "there before"), (left_out, "left out: no mail, or from that realm")] {
            if *count > 0 {
                say::line(format!("{count} {what}"))?;
            }
        }
        for (counts, what) in
            [(unknown_users, "users that the realm does not have"), (full, "full mailboxes")]
        {
            if !counts.is_empty() {
                say::line(format!("{what}: {}", counted(counts)))?;
            }
        }
    }
    if full.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Rejected, "some mailboxes are full: their users have to read first"))
}

fn check_realms(from: &RealmId, into: &RealmId) -> Outcome {
    if from != into {
        return Ok(());
    }
    let message = format!("this came from realm {from}: copy it to another realm");
    Err(Failure::new(Exit::Rejected, message))
}

/// Copies an export, after the whole file was checked.
pub(super) async fn from_file(
    args: &ReplayArgs,
    path: &Path,
    into: &RealmId,
    environment: &Environment,
) -> Outcome {
    let about = || format!("{}", path.display());
    let mut file = File::open(path).with_context(about)?;
    let size = file.metadata().with_context(about)?.len();
    let from = check(&file, size).with_context(about)?;
    check_realms(&from, into)?;
    file.rewind().with_context(about)?;
    let target = target(&args.operator, Some(into.as_str()), environment)?;
    let mut copies = Copies::begin(target, &from, into).await?;
    let work = copy_file(args, &file, size, &mut copies).await;
    copies.end(work, args.format).await
}

/// Reads a whole export. Which realm it is of.
fn check(file: &File, size: u64) -> Result<RealmId, FileError> {
    let mut progress = Progress::of_bytes(size);
    let mut importer = Importer::begin(BufReader::new(file))?;
    while importer.entry()?.is_some() {
        progress.at(importer.offset());
    }
    Ok(importer.header().realm.clone())
}

async fn copy_file(args: &ReplayArgs, file: &File, size: u64, copies: &mut Copies) -> Outcome {
    let mut progress = Progress::of_bytes(size);
    let mut pace = Pace::new(args.speed);
    let mut importer = Importer::begin(BufReader::new(file))?;
    while let Some(entry) = importer.entry()? {
        progress.at(importer.offset());
        if let Some(due) = pace.wait(entry.time) {
            copies.flush().await?;
            tokio::time::sleep_until(due).await;
        }
        copies.add(&entry).await?;
    }
    Ok(())
}

/// Copies straight from a log.
pub(super) async fn from_log(args: &ReplayArgs, into: &RealmId, environment: &Environment) -> Outcome {
    let mut source = Source::open(args, environment).await?;
    let from = source.reading.realm.clone();
    check_realms(&from, into)?;
    let target = target(&args.operator, Some(into.as_str()), environment)?;
    let mut copies = Copies::begin(target, &from, into).await?;
    let work = copy_log(args, &mut source, &mut copies).await;
    source.close().await;
    copies.end(work, args.format).await
}

async fn copy_log(args: &ReplayArgs, source: &mut Source, copies: &mut Copies) -> Outcome {
    let mut progress = Progress::of_entries(false);
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        if !source.is_ready() {
            copies.flush().await?;
        }
        let Some(entry) = source.next().await? else { break };
        progress.step();
        if !source.is_wanted(&entry) {
            continue;
        }
        if let Some(due) = source.due(&entry) {
            copies.flush().await?;
            tokio::time::sleep_until(due).await;
        }
        copies.add(&entry).await?;
        left -= 1;
    }
    Ok(())
}
