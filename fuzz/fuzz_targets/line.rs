//! Bytes from a client: the line splitter and the parser. The first byte says in what pieces the rest arrives; how it is
//! cut must make no difference, nothing may panic, and no line may be longer than the limit.

#![no_main]

use antar_proto::command::{Command, Receiver};
use antar_proto::line::{LineSplitter, Step};
use antar_proto::parse::{claimed_token, parse};
use libfuzzer_sys::fuzz_target;

/// Small, so that inputs of a few hundred bytes reach it.
const LINE_BYTES_MAX: usize = 200;

/// The lines that come out; `None` stands for one that was too long.
fn lines(bytes: &[u8], piece: usize) -> Vec<Option<Vec<u8>>> {
    let mut splitter = LineSplitter::new(LINE_BYTES_MAX);
    let mut seen = Vec::new();
    for mut input in bytes.chunks(piece) {
        while let Some(step) = splitter.next(&mut input) {
            seen.push(match step {
                Step::Line(line) => Some(line.into_owned()),
                Step::TooLong => None,
            });
        }
    }
    seen
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = lines(bytes, bytes.len().max(1));
    assert_eq!(lines(bytes, usize::from(cut).max(1)), whole, "how bytes are cut makes a difference");
    for line in whole.iter().flatten() {
        assert!(line.len() <= LINE_BYTES_MAX);
        assert!(!line.contains(&b'\n'));
        match parse(line) {
            Ok(Some(request)) => {
                understood(&request.command);
                if let Command::Send { token, .. } = request.command {
                    assert_eq!(claimed_token(line), Some(token), "a long line shows its token early");
                }
            }
            Ok(None) => assert!(line.iter().all(|&b| b == b' '), "only an empty line gets no reply"),
            Err(error) => assert!(!error.detail.is_empty(), "an error says why"),
        }
    }
});

/// What a request may never carry, whatever bytes it came from.
fn understood(command: &Command<'_>) {
    match command {
        Command::Send { to, text, .. } => {
            assert_eq!(text.trim_matches(' '), *text);
            assert!(!text.is_empty() && !text.contains(['\0', '\r', '\n']));
            name(to);
        }
        Command::SendGroup { to, .. } | Command::SendGroupRealm { to, .. } => {
            assert!(!to.is_empty());
            to.iter().for_each(name);
        }
        _ => {}
    }
}

/// A name can become part of a subject or a path: it has none of their special characters.
fn name(receiver: &Receiver) {
    let (Receiver::User(_) | Receiver::Qualified(_)) = receiver else { return };
    let text = receiver.to_string();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '@');
    assert!(text.chars().all(plain), "{text:?} is no name");
}
