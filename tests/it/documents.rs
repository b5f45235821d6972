//! The protocol's document says what the server does: its examples and its transcripts are run, and nothing is missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use antar_proto::ErrorCode;
use antar_proto::command::COMMANDS;

use super::BROKER;
use crate::harness::Transcript;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto-docs")
}

fn document() -> String {
    fs::read_to_string(folder().join("client-protocol.md")).expect("the document is there")
}

/// Names of the files in `transcripts/`.
fn transcript_files() -> BTreeSet<String> {
    let entries = fs::read_dir(folder().join("transcripts")).expect("there are transcripts");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: BTreeSet<_> = names.filter(|name| name.ends_with(".txt")).collect();
    assert!(!names.is_empty());
    names
}

fn transcript(name: &str) -> Transcript {
    let text = fs::read_to_string(folder().join("transcripts").join(name)).expect("the transcript is there");
    Transcript::parse(name, &text)
}

/// The examples of the document: its fenced blocks of the kind `transcript`.
fn examples() -> Vec<Transcript> {
    let document = document();
    let mut examples = Vec::new();
    for (at, block) in document.split("```transcript\n").enumerate().skip(1) {
        let block = block.split("```").next().expect("split yields one at least");
        examples.push(Transcript::parse(&format!("client-protocol.md, example {at}"), block));
    }
    assert!(!examples.is_empty());
    examples
}

#[test]
fn the_examples_of_the_document_are_what_a_server_says() {
    for example in examples() {
        example.run(&BROKER.demo());
    }
}

#[test]
fn the_transcripts_are_what_a_server_says() {
    for name in transcript_files() {
        transcript(&name).run(&BROKER.demo());
    }
}

#[test]
fn every_transcript_is_referenced() {
    let document = document();
    for name in transcript_files() {
        let link = format!("(transcripts/{name})");
        assert!(document.contains(&link), "the document does not link transcripts/{name}");
    }
    for (at, _) in document.match_indices("(transcripts/") {
        let name =
            document[at + "(transcripts/".len()..].split(')').next().expect("split yields one at least");
        assert!(
            folder().join("transcripts").join(name).exists(),
            "transcripts/{name} is linked and not there"
        );
    }
}

#[test]
fn every_command_is_described_and_has_an_example() {
    // Inside a table a bar is escaped.
    let document = document().replace("\\|", "|");
    let mut shown: BTreeSet<String> = examples().iter().flat_map(Transcript::commands).collect();
    shown.extend(transcript_files().iter().flat_map(|name| transcript(name).commands().collect::<Vec<_>>()));
    for spec in COMMANDS {
        let usage = format!("{} {}", spec.names[0], spec.usage);
        assert!(document.contains(&format!("`{}`", usage.trim_end())), "the usage is not there: `{usage}`");
        for name in spec.names {
            assert!(document.contains(&format!("`{name}")), "{name} is not described");
            assert!(shown.contains(*name), "{name} has no example");
        }
    }
}

#[test]
fn every_error_code_stands_in_the_table_with_its_message() {
    let document = document();
    for code in ErrorCode::ALL {
        let row = format!("| `{}` | `{}` |", code.as_str(), code.message());
        assert!(document.contains(&row), "this row is missing: {row}");
    }
    assert!(document.contains(antar_proto::error::LOGOUT_NOT_AUTHORIZED));
}

#[test]
fn the_limits_in_the_document_are_those_of_the_code() {
    let document = document();
    for limit in [antar_proto::line::LINE_BYTES_MAX, antar_proto::command::RECEIVERS_MAX] {
        let shown = limit.to_string();
        let grouped = format!("{},{:03}", limit / 1000, limit % 1000);
        assert!(document.contains(&shown) || document.contains(&grouped), "{limit} is not there");
    }
    for limit in [antar_proto::command::HISTORY_LIMIT_MAX, antar_proto::names::NAME_BYTES_MAX, 500] {
        assert!(document.contains(&format!(" {limit} ")), "{limit} is not there");
    }
}
