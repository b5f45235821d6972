//! `antar dead …`: what could not be delivered, and what an operator does with it.

use antar_realm::admin::{AdminReply, AdminRequest, LetterInfo, LettersWanted};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use data_encoding::BASE64;
use serde::Serialize;
use serde_json::json;

use super::operator::Operator;
use super::user::with;
use super::{target, unexpected};
use crate::cli::OperatorArgs;
use crate::config::Environment;
use crate::exit::{Exit, Failure, Outcome};
use crate::say;

/// Letters that are asked for at a time.
const PAGE: usize = 200;

/// `antar dead`.
#[derive(Debug, Args)]
#[command(after_help = "\
What comes from another realm and cannot be delivered is kept as it came, with the reason: a dead letter. Redriving delivers
one after all. Your word stands in for its place in the lane, never for the proof: the signature has to be one by the key that
is trusted now, so after `antar realm trust` what came under a new key can be redriven. To redrive twice is safe.

Examples:
  antar dead list --realm realm2
  antar dead show --realm realm2 4711
  antar dead redrive --realm realm2 --reason key-changed
  antar dead drop --realm realm2 4711 4712

Exit code 5 if the realm refused something.")]
pub(crate) struct DeadArgs {
    /// The realm (realm.id).
    #[arg(long, global = true, value_name = "ID")]
    realm: Option<String>,
    /// Which broker.
    #[command(flatten)]
    operator: OperatorArgs,
    /// What to do.
    #[command(subcommand)]
    command: DeadCommand,
}

/// `antar dead …`.
#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List dead letters, the newest first.
    List {
        /// So many at the most.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// The oldest first.
        #[arg(long)]
        oldest_first: bool,
        /// Only those with this code, for instance key-changed.
        #[arg(long, value_name = "CODE")]
        reason: Option<String>,
        /// Only those that come from this realm, or say so.
        #[arg(long, value_name = "REALM")]
        origin: Option<String>,
        /// Those too that were redriven or dropped.
        #[arg(long)]
        all_states: bool,
        /// One JSON object a letter.
        #[arg(long)]
        json: bool,
    },
    /// Show one: what is known of it, and the bytes as they came.
    Show {
        /// Which.
        letter: u64,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Deliver them after all, the oldest first, and tell the realm that they came from.
    Redrive(Which),
    /// Give them up. They are kept for as long as others, but listed with --all-states only.
    Drop(Which),
}

/// Which letters are meant, and who means them.
#[derive(Debug, Args)]
struct Which {
    /// These.
    #[arg(value_name = "LETTER", required_unless_present_any = ["all", "reason"])]
    letters: Vec<u64>,
    /// All that are listed.
    #[arg(long, conflicts_with = "letters")]
    all: bool,
    /// All with this code.
    #[arg(long, value_name = "CODE", conflicts_with = "letters")]
    reason: Option<String>,
    /// Who does it, for the event; USER@HOST if not given.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// One JSON object a letter.
    #[arg(long)]
    json: bool,
}

/// Runs `antar dead …`.
pub(crate) async fn run(args: DeadArgs, environment: &Environment) -> Outcome {
    let target = target(&args.operator, args.realm.as_deref(), environment)?;
    let by = environment.operator();
    with(target, false, async move |operator| match args.command {
        DeadCommand::List { limit, oldest_first, reason, origin, all_states, json } => {
            let wanted = LettersWanted { after: None, oldest_first, limit, code: reason, origin, all_states };
            list(operator, wanted, json).await
        }
        DeadCommand::Show { letter, json } => show(operator, letter, json).await,
        DeadCommand::Redrive(which) => each(operator, which, by, redrive).await,
        DeadCommand::Drop(which) => each(operator, which, by, drop_one).await,
    })
    .await
}

/// All letters that are wanted, at most `wanted.limit`, whatever a realm gives at a time.
pub(super) async fn letters(
    operator: &Operator,
    mut wanted: LettersWanted,
    mut take: impl FnMut(LetterInfo) -> Outcome,
) -> Outcome {
    let mut left = wanted.limit;
    while left > 0 {
        let page = LettersWanted { limit: left.min(PAGE), ..wanted.clone() };
        let (letters, next) = match operator.ask(AdminRequest::DeadList(page)).await? {
            AdminReply::Letters { letters, next } => (letters, next),
            reply => return Err(unexpected(&reply)),
        };
        left = left.saturating_sub(letters.len());
        letters.into_iter().try_for_each(&mut take)?;
        match next {
            Some(next) => wanted.after = Some(next),
            None => break,
        }
    }
    Ok(())
}

async fn list(operator: &Operator, wanted: LettersWanted, json: bool) -> Outcome {
    if json {
        return letters(operator, wanted, |letter| say::json(&letter)).await;
    }
    let mut rows = vec![["letter", "time", "origin", "code", "state", "reason"].map(String::from).to_vec()];
    letters(operator, wanted, |letter| {
        let origin = match (&letter.origin, letter.proven) {
            (Some(origin), true) => origin.clone(),
            (Some(claimed), false) => format!("{claimed}?"),
            (None, _) => "?".into(),
        };
        // Another realm can put what it likes into the reason.
        let (state, reason) = (state(&letter), say::harmless(&letter.reason));
        let code = say::harmless(&letter.code);
        rows.push(vec![letter.letter.to_string(), letter.time, origin, code, state, reason]);
        Ok(())
    })
    .await?;
    if rows.len() == 1 {
        say::remark("no dead letters");
        return Ok(());
    }
    say::table(&rows)
}

fn state(letter: &LetterInfo) -> String {
    let state = letter.state.as_str();
    letter.by.as_ref().map_or_else(|| state.to_owned(), |by| format!("{state} by {by}"))
}

/// A letter as it is shown; the body as text if it is text, as base64 otherwise.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    info: &'a LetterInfo,
    headers: &'a [(String, String)],
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

async fn show(operator: &Operator, letter: u64, json: bool) -> Outcome {
    let mut bytes = Vec::new();
    let (info, headers) = loop {
        match operator.ask(AdminRequest::DeadShow { letter, offset: bytes.len() }).await? {
            AdminReply::Letter { info, headers, part, more } => {
                let part = BASE64.decode(part.as_bytes()).context("the realm's answer is no base64")?;
                let is_last = !more || part.is_empty();
                bytes.extend(part);
                if is_last {
                    break (info, headers);
                }
            }
            reply => return Err(unexpected(&reply)),
        }
    };
    let (text, base64) = match std::str::from_utf8(&bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(BASE64.encode(&bytes))),
    };
    if json {
        return say::json(&Shown { info: &info, headers: &headers, body: text, body_base64: base64 });
    }
    let origin = info.origin.as_deref().unwrap_or("(it does not say)");
    let proven = if info.proven { "proven" } else { "not proven" };
    let lines = info.lines.as_ref().map_or_else(String::new, |lines| format!(", lines {lines:?} of it"));
    say::line(format!("letter   {letter}, {}", state(&info)))?;
    say::line(format!("time     {}", info.time))?;
    say::line(say::harmless(&format!("reason   {} ({})", info.reason, info.code)))?;
    say::line(format!("origin   {origin}, {proven}"))?;
    say::line(format!("inbox    {}{lines}", info.inbox_seq))?;
    for (at, id) in info.ids.iter().enumerate() {
        say::line(format!("{:<8} {id}", if at == 0 { "ids" } else { "" }))?;
    }
    if let Some(lacks) = &info.lacks {
        say::line(format!("lacks    {lacks}"))?;
    }
    for (name, value) in &headers {
        say::line(format!("{name}: {}", say::harmless(value)))?;
    }
    say::line("")?;
    match (text, base64) {
        (Some(text), _) => text.lines().try_for_each(|line| say::line(say::harmless(line))),
        (None, base64) => say::line(base64.unwrap_or_default()),
    }
}

/// Does the same with each letter. What the realm refuses is told, and the others are gone on with.
async fn each(
    operator: &Operator,
    which: Which,
    by: String,
    act: impl AsyncFn(&Operator, u64, String) -> Outcome<(serde_json::Value, String)>,
) -> Outcome {
    let Which { letters: mut wanted, all: _, reason, by: named, json } = which;
    let by = named.unwrap_or(by);
    if wanted.is_empty() {
        let all = LettersWanted { oldest_first: true, limit: usize::MAX, code: reason, ..Default::default() };
        letters(operator, all, |letter| {
            wanted.push(letter.letter);
            Ok(())
        })
        .await?;
    }
    let (count, mut refused) = (wanted.len(), 0);
    for letter in wanted {
        match act(operator, letter, by.clone()).await {
            Ok((value, _)) if json => say::json(&value)?,
            Ok((_, text)) => say::line(format!("letter {letter}: {text}"))?,
            Err(failure) if failure.exit == Exit::Rejected && count > 1 => {
                refused += 1;
                let why = failure.error.to_string();
                match json {
                    true => say::json(&json!({"letter": letter, "refused": why}))?,
                    false => say::remark(format!("letter {letter}: {why}")),
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    match refused {
        0 if count == 0 => {
            say::remark("no dead letters");
            Ok(())
        }
        0 => Ok(()),
        refused => Err(Failure::new(Exit::Rejected, format!("{refused} of {count} letters were refused"))),
    }
}

pub(super) async fn redrive(
    operator: &Operator,
    letter: u64,
    by: String,
) -> Outcome<(serde_json::Value, String)> {
    match operator.ask(AdminRequest::DeadRedrive { letter, by }).await? {
        AdminReply::Redriven { ids, already } => {
            let when = if already { "delivered before" } else { "delivered" };
            let value = json!({"letter": letter, "state": "redriven", "ids": ids, "already": already});
            Ok((value, format!("{when}: {}", ids.join(", "))))
        }
        reply => Err(unexpected(&reply)),
    }
}

pub(super) async fn drop_one(
    operator: &Operator,
    letter: u64,
    by: String,
) -> Outcome<(serde_json::Value, String)> {
    match operator.ask(AdminRequest::DeadDrop { letter, by }).await? {
        AdminReply::Dropped { already } => {
            let value = json!({"letter": letter, "state": "dropped", "already": already});
            Ok((value, if already { "dropped before".into() } else { "dropped".into() }))
        }
        reply => Err(unexpected(&reply)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    #[test]
    fn letters_are_named_or_chosen_and_never_both() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        for line in [
            "antar dead list --realm realm2 --reason key-changed --limit 5 --json",
            "antar dead redrive --realm realm2 --all --by ops",
            "antar dead drop 17 18 --realm realm2",
            "antar dead drop --reason unsigned",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in ["antar dead redrive", "antar dead drop 17 --all", "antar dead redrive 17 --reason x"] {
            assert!(!parses(line), "{line}");
        }
    }
}
