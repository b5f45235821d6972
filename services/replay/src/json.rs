//! Entries as JSON, one object a line. `proto-docs/replay.md` describes the fields.

use antar_broker::Entry;
use antar_proto::escape::is_unsafe;
use antar_realm::traffic::Spot;

use crate::facts::{Facts, What};
use crate::show::Show;
use crate::time::Clock;

/// Adds an entry.
pub(crate) fn write(
    show: &Show,
    realm: &str,
    clock: &mut Clock,
    entry: &Entry,
    spot: &Spot<'_>,
    facts: &Facts<'_>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"seq\":");
    number(entry.seq.0, out);
    out.extend_from_slice(b",\"time\":\"");
    clock.write(entry.time, out);
    // Names are plain, and so are subjects.
    out.extend_from_slice(b"\",\"realm\":\"");
    out.extend_from_slice(realm.as_bytes());
    out.extend_from_slice(b"\",\"kind\":\"");
    out.extend_from_slice(spot.kind.as_str().as_bytes());
    out.extend_from_slice(b"\",\"subject\":\"");
    out.extend_from_slice(entry.subject.as_str().as_bytes());
    out.extend_from_slice(b"\",\"id\":");
    string_or_null(&facts.id, out);
    out.extend_from_slice(b",\"from\":");
    match (&*facts.from, &*facts.user) {
        ("", "") => out.extend_from_slice(b"null"),
        ("", user) => address(user, realm, out),
        (from, _) => string(from, out),
    }
    out.extend_from_slice(b",\"to\":[");
    let dest = if facts.dest.is_empty() { realm } else { &facts.dest };
    for (at, name) in facts.to.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        address(name, dest, out);
    }
    out.push(b']');
    if show.text {
        out.extend_from_slice(b",\"text\":");
        match &facts.text {
            Some(text) => string(text, out),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b",\"type\":\"");
    out.extend_from_slice(facts.what.as_str().as_bytes());
    out.push(b'"');
    rest(show, entry, facts, out);
    out.push(b'}');
}

/// What only some entries have.
fn rest(show: &Show, entry: &Entry, facts: &Facts<'_>, out: &mut Vec<u8>) {
    if let Some(detail) = facts.detail {
        out.extend_from_slice(b",\"detail\":");
        let is_plain = |c: char| c != '\n' && c != '\r' && !is_unsafe(c);
        if detail.chars().all(is_plain) {
            out.extend_from_slice(detail.as_bytes());
        } else {
            raw_json(detail, out);
        }
    }
    if facts.what == What::Unknown {
        out.extend_from_slice(b",\"bytes\":");
        let bytes = if facts.line.is_some() { facts.body.len() } else { entry.body.len() };
        number(bytes as u64, out);
    }
    for (name, value) in [("code", &facts.code), ("reason", &facts.reason)] {
        if !value.is_empty() {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            string(value, out);
        }
    }
    if let Some(line) = facts.line {
        out.extend_from_slice(b",\"line\":");
        number(line as u64, out);
    }
    if let Some(replayed) = facts.replayed {
        out.extend_from_slice(b",\"replayed\":");
        string(replayed, out);
    }
    if show.headers {
        out.extend_from_slice(b",\"entry_id\":");
        string(entry.id.as_str(), out);
        out.extend_from_slice(b",\"headers\":{");
        for (at, (name, value)) in entry.headers.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            string(name, out);
            out.push(b':');
            string(value, out);
        }
        out.push(b'}');
    }
}

pub(crate) fn number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn string_or_null(text: &str, out: &mut Vec<u8>) {
    match text {
        "" => out.extend_from_slice(b"null"),
        text => string(text, out),
    }
}

fn address(name: &str, realm: &str, out: &mut Vec<u8>) {
    // Both come from other realms too, which may have written anything.
    string(name, out);
    out.pop();
    out.push(b'@');
    let at = out.len();
    string(realm, out);
    out.remove(at);
}

/// A string that is harmless on a terminal, too.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let needs_none =
            c != '"' && c != '\\' && !(if c.is_ascii() { c.is_ascii_control() } else { is_unsafe(c) });
        if needs_none {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        plain = at + c.len_utf8();
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c => escape(c, out),
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

/// All characters that are escaped have one unit in UTF-16.
fn escape(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
}

/// JSON that somebody else has written, on one line: line ends in it stand between values, where a space does as well.
fn raw_json(json: &str, out: &mut Vec<u8>) {
    let mut bytes = [0; 4];
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(b' '),
            c if is_unsafe(c) => escape(c, out),
            c => out.extend_from_slice(c.encode_utf8(&mut bytes).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        string(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(
            written("a\u{1b}[2J\u{202e}\u{9b}\"\\\n\u{7f}é"),
            r#""a\u001b[2J\u202e\u009b\"\\\n\u007fé""#
        );
    }

    proptest! {
        #[test]
        fn strings_are_read_back_as_they_were(text in any::<String>()) {
            let written = written(&text);
            prop_assert!(!written.chars().any(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }

        #[test]
        fn numbers_are_written_as_they_are(wanted in any::<u64>()) {
            let mut out = Vec::new();
            number(wanted, &mut out);
            prop_assert_eq!(out, wanted.to_string().into_bytes());
        }

        #[test]
        fn addresses_are_strings(name in any::<String>(), realm in any::<String>()) {
            let mut out = Vec::new();
            address(&name, &realm, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), format!("{name}@{realm}"));
        }
    }
}
