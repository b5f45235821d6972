//! Standard input that is no terminal, line by line.
//!
//! Owns: the thread that reads it. Must not know what a line means.

use std::io::{self, Read};

use antar_proto::line::{LINE_BYTES_MAX, LineSplitter, Step};
use tokio::sync::mpsc;

/// Bytes that one read takes at most.
const READ_BYTES: usize = 16 * 1024;
/// Lines that may wait to be carried out; more stay with whoever writes them.
const LINES_MAX: usize = 16;

/// The lines of `input`, up to the longest that the protocol knows; a longer one is an error, and so is one that is not UTF-8.
///
/// Read by a thread of its own, which nobody waits for: a read of standard input cannot be called off, and a script that
/// failed must end although its input has not.
pub(crate) fn lines(input: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<String>> {
    let (lines, receiver) = mpsc::channel(LINES_MAX);
    let reader = std::thread::Builder::new().name("stdin".into());
    let failed = lines.clone();
    if let Err(error) = reader.spawn(move || read(input, &lines)) {
        // The channel is new, so there is room.
        let _ = failed.try_send(Err(error));
    }
    receiver
}

fn read(mut input: impl Read, lines: &mpsc::Sender<io::Result<String>>) {
    let mut splitter = LineSplitter::new(LINE_BYTES_MAX);
    let mut piece = vec![0; READ_BYTES];
    loop {
        let (count, end) = match input.read(&mut piece) {
            Ok(0) => (0, true),
            Ok(count) => (count, false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let _ = lines.blocking_send(Err(error));
                return;
            }
        };
        // The last line may lack its end.
        let mut rest = if end { &b"\n"[..] } else { &piece[..count] };
        while let Some(step) = splitter.next(&mut rest) {
            let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
            let line = match step {
                Step::Line(line) => {
                    String::from_utf8(line.into_owned()).map_err(|_| invalid("a command is not UTF-8"))
                }
                Step::TooLong => Err(invalid("a command is longer than 64 KiB")),
            };
            // Nobody listens any more: a command has failed.
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
        if end {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: impl Into<Vec<u8>>) -> Vec<String> {
        let mut lines = lines(io::Cursor::new(input.into()));
        let mut seen = Vec::new();
        while let Some(line) = lines.recv().await {
            seen.push(line.unwrap_or_else(|error| format!("! {error}")));
        }
        seen
    }

    #[tokio::test]
    async fn the_last_line_needs_no_end() {
        assert_eq!(all("auth a b\r\n\ninbox").await, ["auth a b", "", "inbox"]);
        assert_eq!(all("inbox\n").await, ["inbox", ""]);
    }

    #[tokio::test]
    async fn a_line_beyond_the_limit_is_an_error_and_not_a_shorter_line() {
        let long = format!("send a {}\nlist\n", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(all(long).await, ["! a command is longer than 64 KiB", "list", ""]);
        assert_eq!(all(b"\xff\n".to_vec()).await, ["! a command is not UTF-8", ""]);
    }
}
