//! Entries for people: time, kind, sequence, place, who to whom, what. One line each, in columns that stay where they are.

use antar_broker::Entry;
use antar_proto::escape::escape;
use antar_realm::traffic::{Kind, Spot};

use crate::facts::{Facts, What};
use crate::show::Show;
use crate::time::Clock;

/// Widths of the columns; what is longer moves the rest of its line.
const SEQ_WIDTH: usize = 9;
const PLACE_WIDTH: usize = 20;
const PEOPLE_WIDTH: usize = 36;

const DIM: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";

fn colour_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Inbox => "\u{1b}[36m",
        Kind::Mail => "\u{1b}[32m",
        Kind::Outbox => "\u{1b}[34m",
        Kind::Group => "\u{1b}[35m",
        Kind::Event => "\u{1b}[33m",
        Kind::Dead => "\u{1b}[31m",
    }
}

/// Adds an entry.
#[expect(clippy::too_many_arguments, reason = "what a line is made of")]
pub(crate) fn write(
    show: &Show,
    colour: bool,
    realm: &str,
    clock: &mut Clock,
    entry: &Entry,
    spot: &Spot<'_>,
    facts: &Facts<'_>,
    out: &mut Vec<u8>,
) {
    let paint = |code: &str, out: &mut Vec<u8>| {
        if colour {
            out.extend_from_slice(code.as_bytes());
        }
    };
    paint(DIM, out);
    clock.write(entry.time, out);
    paint(PLAIN, out);
    out.push(b' ');
    paint(colour_of(spot.kind), out);
    out.extend_from_slice(format!("{:<6}", spot.kind.as_str()).as_bytes());
    paint(PLAIN, out);
    let place = [spot.user, spot.beside].into_iter().flatten().collect::<Vec<_>>().join(".");
    let people = people(realm, facts);
    let columns = format!(" {:>SEQ_WIDTH$} {place:<PLACE_WIDTH$} {people:<PEOPLE_WIDTH$}", entry.seq.0);
    let words = words(show, entry, facts);
    // Nothing stands behind the last column.
    let columns = if words.is_empty() { columns.trim_end() } else { &columns };
    out.extend_from_slice(columns.as_bytes());
    if !words.is_empty() {
        out.push(b' ');
        out.extend_from_slice(words.as_bytes());
    }
}

fn people(realm: &str, facts: &Facts<'_>) -> String {
    let dest = if facts.dest.is_empty() { realm } else { &facts.dest };
    let from = match (&*facts.from, &*facts.user) {
        ("", "") => return String::new(),
        ("", user) => format!("{user}@{realm}"),
        (from, _) => from.to_owned(),
    };
    let to: Vec<String> = facts.to.iter().map(|name| format!("{name}@{dest}")).collect();
    let people = if to.is_empty() { from } else { format!("{from} > {}", to.join(",")) };
    escape(&people).into_owned()
}

fn words(show: &Show, entry: &Entry, facts: &Facts<'_>) -> String {
    let mut words = Vec::new();
    if let Some(replayed) = facts.replayed {
        words.push(format!("[replayed from {replayed}]"));
    }
    if !facts.code.is_empty() || !facts.reason.is_empty() {
        words.push(format!("[{}: {}]", facts.code, facts.reason));
    }
    match (&facts.text, facts.detail) {
        (Some(text), _) if show.text => words.push(text.clone().into_owned()),
        (None, Some(detail)) => words.push(detail_of(facts, detail).to_owned()),
        (None, None) if facts.what == What::Unknown && facts.code.is_empty() => {
            let bytes = if facts.line.is_some() { facts.body.len() } else { entry.body.len() };
            words.push(format!("({bytes} bytes that cannot be read)"));
        }
        _ => {}
    }
    if show.headers {
        words.push(format!("id={}", entry.id.as_str()));
        words.extend(entry.headers.iter().map(|(name, value)| format!("{name}={value}")));
    }
    escape(&words.join(" ")).into_owned()
}

/// Of a receipt only what it says: the rest of it stands in the columns before.
fn detail_of<'a>(facts: &Facts<'_>, detail: &'a str) -> &'a str {
    const RESULTS: &str = "\"results\":";
    match detail.split_once(RESULTS) {
        Some((_, results)) if facts.what == What::Receipt => results.strip_suffix('}').unwrap_or(results),
        _ => detail,
    }
}
