//! Entries as lines on standard output.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use antar_realm::traffic::Spot;
use antar_replay::facts::Facts;
use antar_replay::show::{Format, Show, Writer};

use super::ReplayArgs;
use super::progress::Progress;
use super::source::Source;
use crate::config::Environment;
use crate::exit::Outcome;
use crate::say;

/// Lines are kept back up to so many bytes while the next one is there already.
const BUFFER_BYTES: usize = 256 * 1024;

/// Lines on their way out.
struct Out {
    buffer: Vec<u8>,
}

impl Out {
    /// Writes what was kept back. Whether anybody still reads.
    fn flush(&mut self) -> Outcome<bool> {
        if self.buffer.is_empty() {
            return Ok(true);
        }
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(&self.buffer).and_then(|()| stdout.flush());
        self.buffer.clear();
        match written {
            // `antar replay | head` has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => Ok(written.map(|()| true)?),
        }
    }
}

/// Shows what is wanted.
pub(super) async fn run(args: &ReplayArgs, environment: &Environment) -> Outcome {
    let is_terminal = std::io::stdout().is_terminal();
    let format = match args.format {
        say::Format::Json => Format::Json,
        say::Format::Text => Format::Text { colour: is_terminal && !environment.has("NO_COLOR") },
    };
    let mut source = Source::open(args, environment).await?;
    let show = Show { format, text: !args.no_text, headers: args.headers };
    let mut writer = Writer::new(&source.reading.realm, show);
    let mut progress = Progress::of_entries(is_terminal || args.follow);
    let mut out = Out { buffer: Vec::with_capacity(2 * BUFFER_BYTES) };
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        if (!source.is_ready() || out.buffer.len() >= BUFFER_BYTES) && !out.flush()? {
            return Ok(());
        }
        let Some(entry) = source.next().await? else { break };
        progress.step();
        let Some(spot) = Spot::of(&entry.subject) else { continue };
        for facts in Facts::all(&entry, &spot) {
            if left == 0 || !source.selection.is_wanted(&spot, &facts) {
                continue;
            }
            if let Some(due) = source.due(&entry) {
                if !out.flush()? {
                    return Ok(());
                }
                tokio::time::sleep_until(due).await;
            }
            writer.write(&entry, &spot, &facts, &mut out.buffer);
            left -= 1;
        }
    }
    drop(progress);
    out.flush()?;
    source.close().await;
    Ok(())
}
