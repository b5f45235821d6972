//! `antar replay`: what happened in a realm, shown, kept in a file, or copied to another realm.
//!
//! Owns: the arguments and what they mean together. Reading, formats and choosing are in `antar_replay`; what a realm does
//! with copies is its own.

mod copy;
mod export;
mod progress;
mod show;
mod source;

use std::path::PathBuf;

use antar_broker::Timestamp;
use antar_proto::{MessageId, RealmId};
use antar_realm::traffic::Kind;
use antar_replay::range::Bound;
use clap::{Args, ValueHint};

use crate::cli::OperatorArgs;
use crate::config::Environment;
use crate::exit::Outcome;
use crate::say::Format;

/// `antar replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads a realm's log while the realm is served and while it is not, and changes nothing. The same range always gives the same
lines. SEQ is a sequence: on SQLite one for all entries; on NATS each stream (inbox, mail, and one for all other kinds) has its
own, so write KIND:SEQ there, or read kinds of one stream only.

--export keeps a range in a file, --import FILE --into REALM copies the mail of such a file to another realm, where users of
the same names find it; --into alone copies straight from the log. Copies are marked, nothing is copied twice, and nothing
comes back to the realm that it came from: no receipt, no notice. (docs: proto-docs/replay.md)

Examples:
  antar replay --from -10m --follow                                what happens, from ten minutes ago on
  antar replay --realm kampus --kind dead                          what could not be delivered
  antar replay --user messi --format json | jq .text
  antar replay --id 01a2007d-2b8b-719b-bd95-903f23c13caa           everything about one message
  antar replay --from 2026-11-21T23:00:00Z --to 2026-11-22 --export bug.jsonl
  antar replay --import bug.jsonl --into sandbox
  antar replay --realm kampus --into shadow --follow --speed 10")]
pub(crate) struct ReplayArgs {
    /// Which broker.
    #[command(flatten)]
    operator: OperatorArgs,
    /// The realm; without it that of the configuration, or the only one there.
    #[arg(long, value_name = "ID")]
    realm: Option<RealmId>,
    /// Begin here: SEQ, KIND:SEQ, a time (RFC 3339) or a day, or how long ago (-10m; s, m, h, d, w).
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true, value_parser = bound)]
    from: Option<Bound>,
    /// End here, likewise. What is there belongs to the range.
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true, value_parser = bound, conflicts_with = "follow")]
    to: Option<Bound>,
    /// Only these kinds: inbox, outbox, mail, group, event, dead.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    kind: Vec<Kind>,
    /// Only what a user sent or got, or what is about the user: NAME, or NAME@REALM for one of another realm.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only what was exchanged with this realm.
    #[arg(long, value_name = "REALM")]
    peer: Option<RealmId>,
    /// Only what is, or speaks of, this message.
    #[arg(long, value_name = "UUID")]
    id: Option<MessageId>,
    /// Only what has this in its text, as it is written.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// End after so many entries.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on with what comes.
    #[arg(long)]
    follow: bool,
    /// How fast: 1 is as it happened, 10 ten times as fast, max as fast as it goes.
    #[arg(long, value_name = "FACTOR", default_value = "max", value_parser = speed)]
    speed: Speed,
    /// For people, or one JSON object a line for programs.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Show what stands beside each body, too.
    #[arg(long)]
    headers: bool,
    /// Do not show what users wrote.
    #[arg(long)]
    no_text: bool,
    /// Write the entries into this file instead.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["follow", "into"])]
    export: Option<PathBuf>,
    /// Read this export instead of a log.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "into",
        conflicts_with_all = ["realm", "from", "to", "kind", "follow", "export", "headers", "no_text"])]
    import: Option<PathBuf>,
    /// Copy mail to the users of this realm instead of showing it.
    #[arg(long, value_name = "REALM")]
    into: Option<RealmId>,
}

/// `--speed`: how much faster than it happened; `None` without waiting.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Speed(Option<f64>);

fn speed(text: &str) -> Result<Speed, String> {
    /// Beyond this, waiting is finer than clocks are.
    const SPEED_MAX: f64 = 1e6;
    if text == "max" {
        return Ok(Speed(None));
    }
    let factor = text.parse().ok().filter(|factor| *factor > 0.0 && *factor <= SPEED_MAX);
    factor.map(|factor| Speed(Some(factor))).ok_or_else(|| "it is a number above 0, or max".into())
}

fn bound(text: &str) -> Result<Bound, String> {
    Bound::parse(text, Timestamp::now())
}

/// Runs `antar replay …`.
pub(crate) async fn run(args: ReplayArgs, environment: &Environment) -> Outcome {
    match (&args.export, &args.import, &args.into) {
        (Some(file), _, _) => export::run(&args, file, environment).await,
        (_, Some(file), Some(into)) => copy::from_file(&args, file, into, environment).await,
        (_, _, Some(into)) => copy::from_log(&args, into, environment).await,
        _ => show::run(&args, environment).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_factor_or_the_most() {
        assert_eq!(speed("max"), Ok(Speed(None)));
        assert_eq!(speed("1"), Ok(Speed(Some(1.0))));
        assert_eq!(speed("0.5"), Ok(Speed(Some(0.5))));
        for bad in ["", "0", "-1", "fast", "NaN", "inf", "1e9"] {
            assert!(speed(bad).is_err(), "{bad}");
        }
    }
}
