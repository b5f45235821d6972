//! Talking to people and scripts: lines on stdout, remarks on stderr.
//!
//! A reader that has gone away (`antar … | head`) is no reason to panic, which `println!` would do.

use std::io::Write as _;

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::{Exit, Outcome};

/// `--format`: for people, or JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Writes `text` and a line end to stdout, at once.
pub(crate) fn line(text: impl AsRef<str>) -> Outcome {
    let mut out = std::io::stdout().lock();
    let done = out.write_all(format!("{}\n", text.as_ref()).as_bytes()).and_then(|()| out.flush());
    match done {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            std::process::exit(Exit::Failed as i32)
        }
        done => Ok(done?),
    }
}

/// Writes `value` as one JSON object on a line of stdout.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    line(serde_json::to_string(value)?)
}

/// Writes a remark to stderr. That it cannot be read by anybody is not worth an error.
pub(crate) fn remark(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// Rows as columns of text, the first row as a heading.
pub(crate) fn table(rows: &[Vec<String>]) -> Outcome {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| {
        rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A text that can do nothing to a terminal, whoever has written it.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_controls_a_terminal_is_shown_and_not_done() {
        assert_eq!(super::harmless("halo\u{1b}[2J\r\u{9b}31m é"), "halo\\u{1b}[2J\\r\\u{9b}31m é");
    }
}
