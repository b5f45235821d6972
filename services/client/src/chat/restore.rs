//! Gives the terminal back when the process is told to end.
//!
//! Owns: the state in which the terminal was found, and the signals. Must not know what is shown meanwhile.

use std::future::Future;
use std::io::{self, Write};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use crate::chat::ChatOutcome;

/// Ends what the line editor asks a terminal for: pastes in brackets.
const PASTES_AS_TYPED: &[u8] = b"\x1b[?2004l\r\n";

/// Talks until that ends or the process is told to. Whoever is told to end leaves in good order.
pub(super) async fn or_told_to_end(talk: impl Future<Output = ChatOutcome>) -> ChatOutcome {
    let found = tcgetattr(io::stdin()).ok();
    let told = async {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
        let (Ok(mut terminate), Ok(mut hangup)) = signals else { return std::future::pending().await };
        // Both are cancel-safe.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let outcome = {
        let mut talk = std::pin::pin!(talk);
        // Dropped at the end of this block: what it did to the terminal is undone before the rest is.
        tokio::select! {
            outcome = &mut talk => Some(outcome),
            () = told => None,
        }
    };
    outcome.unwrap_or_else(|| {
        give_back(found.as_ref());
        ChatOutcome::Done
    })
}

/// Another thread may be in the midst of reading a key: it changes nothing any more before the process has ended.
fn give_back(found: Option<&Termios>) {
    let Some(found) = found else { return };
    // A terminal that is gone needs nothing.
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, found);
    let mut out = io::stdout().lock();
    let _ = out.write_all(PASTES_AS_TYPED).and_then(|()| out.flush());
}
