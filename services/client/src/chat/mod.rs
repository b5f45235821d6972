//! `chat`: the client for people and for scripts.
//!
//! Owns: what it can be told ([`ChatOptions`]) and how it can end ([`ChatOutcome`]). Must not know flags, files or the
//! environment: its caller reads them.

mod backoff;
mod complete;
mod exchange;
mod face;
mod help;
mod input;
mod interactive;
mod link;
mod render;
mod restore;
mod script;
mod secret;
mod session;
mod stdin;
mod style;
mod terminal;
mod transfer;
mod tui;

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;

use antar_proto::ErrorCode;

use crate::chat::script::{Output, Source};
use crate::chat::style::Style;
use crate::client::ClientOptions;
use crate::error::{CallError, ConnectError, RequestError};

/// What `chat` is to do.
#[derive(Clone)]
pub struct ChatOptions {
    /// The edge, `HOST:PORT`.
    pub server: String,
    /// Commands to run one after another; empty: from standard input, interactively if it is a terminal.
    pub commands: Vec<String>,
    /// Scripts: print each reply as received, one JSON object a line.
    pub json: bool,
    /// Fill the screen. Needs a terminal.
    pub tui: bool,
    /// Log in as this user first.
    pub user: Option<String>,
    /// The password, where `auth` or [`ChatOptions::user`] come without one. A secret: it is never printed or stored.
    pub password: Option<String>,
    /// Have messages shown as they come in, once logged in. Interactive only; a script asks for it by `watch`.
    pub watch: bool,
    /// Where the lines typed are kept for the next time; lines with passwords never are.
    pub history_file: Option<PathBuf>,
    /// Colours, if standard output is a terminal. The caller turns it off for `NO_COLOR`.
    pub colour: bool,
    /// Show also when messages were delivered and read, not only when they failed.
    pub verbose: bool,
    /// Timeouts and limits of the connection.
    pub client: ClientOptions,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self {
            server: "127.0.0.1:4001".into(),
            commands: Vec::new(),
            json: false,
            tui: false,
            user: None,
            password: None,
            watch: true,
            history_file: None,
            colour: true,
            verbose: false,
            client: ClientOptions::default(),
        }
    }
}

impl std::fmt::Debug for ChatOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Commands hold passwords and texts.
        f.debug_struct("ChatOptions")
            .field("server", &self.server)
            .field("commands", &self.commands.len())
            .field("json", &self.json)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// How `chat` ended. The numbers are the exit codes of every subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ChatOutcome {
    /// All was done; interactively: the user left.
    Done,
    /// Something broke that trying again will not mend.
    Failed,
    /// A command that cannot be one; it was not sent.
    Usage,
    /// The server, its broker or the network does not answer: try again.
    Unreachable,
    /// Not logged in, or the name or password is wrong.
    NotAuthorised,
    /// The server understood, and said no.
    Rejected,
}

impl ChatOutcome {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NotAuthorised => 4,
            Self::Rejected => 5,
        }
    }

    /// The outcome of a command that was answered with `code`; `None` is a code that this version does not know.
    pub fn of_code(code: Option<ErrorCode>) -> Self {
        match code {
            Some(
                ErrorCode::NotAuthorized
                | ErrorCode::BadPassword
                | ErrorCode::NoSuchAccount
                | ErrorCode::BadCredentials,
            ) => Self::NotAuthorised,
            Some(ErrorCode::Unavailable) => Self::Unreachable,
            _ => Self::Rejected,
        }
    }
}

impl From<&ConnectError> for ChatOutcome {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::BadAddress { .. } => Self::Usage,
            // Trying again does not make a certificate good.
            ConnectError::Tls { source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
                Self::Failed
            }
            ConnectError::Tls { .. } => Self::Unreachable,
            ConnectError::Unreachable { .. } | ConnectError::Timeout { .. } => Self::Unreachable,
        }
    }
}

impl From<&RequestError> for ChatOutcome {
    fn from(error: &RequestError) -> Self {
        match error {
            RequestError::BadLine(_) => Self::Usage,
            RequestError::Closed(crate::error::Closed::Violation(_)) => Self::Failed,
            RequestError::Closed(_) | RequestError::Timeout(_) => Self::Unreachable,
        }
    }
}

impl From<&CallError> for ChatOutcome {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Request(error) => error.into(),
            CallError::Refused(refusal) => Self::of_code(refusal.known()),
            CallError::Unexpected { .. } => Self::Failed,
        }
    }
}

/// Runs `chat`: a script if there are commands or standard input is no terminal, else interactively.
///
/// Must run on a tokio runtime with time and network. Prints replies to standard output and, in scripts, what went wrong
/// to standard error. A script ends with its first command that fails. SIGTERM and SIGHUP end an interactive chat; the terminal
/// is given back as it was. Drop nothing of it half-way: when the future is dropped while a person is typing, the terminal
/// stays in raw mode.
pub async fn run(options: ChatOptions) -> ChatOutcome {
    let person = std::io::stdin().is_terminal();
    let colour = options.colour && std::io::stdout().is_terminal();
    if options.commands.is_empty() && person {
        let talk = async {
            match options.tui {
                true => Box::pin(tui::run(&options, colour)).await,
                false => Box::pin(interactive::run(&options, Style::new(colour), colour)).await,
            }
        };
        return restore::or_told_to_end(talk).await;
    }
    if options.tui {
        let _ = writeln!(std::io::stderr(), "the full screen needs a terminal");
        return ChatOutcome::Usage;
    }
    let source = match options.commands.is_empty() {
        true => Source::Stream(stdin::lines(std::io::stdin())),
        false => Source::Given(options.commands.clone().into_iter()),
    };
    let ask = |user: &str| {
        let prompt = format!("password of {}: ", antar_proto::escape::escape(user));
        person.then(|| tokio::task::block_in_place(|| rpassword::prompt_password(prompt).ok())).flatten()
    };
    let output = Output { out: &mut std::io::stdout(), err: &mut std::io::stderr() };
    Box::pin(script::run(&options, source, Style::new(colour), output, &ask)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_exit_code() {
        for code in ErrorCode::ALL {
            let expected = match code.as_str() {
                "not-authorized" | "bad-password" | "no-such-account" | "bad-credentials" => 4,
                "unavailable" => 3,
                _ => 5,
            };
            assert_eq!(ChatOutcome::of_code(Some(code)).exit_code(), expected, "{code:?}");
        }
        assert_eq!(ChatOutcome::of_code(None).exit_code(), 5);
    }

    #[test]
    fn what_may_work_later_is_unreachable_and_a_broken_protocol_is_not() {
        use crate::error::{Closed, Violation};
        let closed = |closed| ChatOutcome::from(&RequestError::Closed(closed)).exit_code();
        assert_eq!(closed(Closed::Ended), 3);
        assert_eq!(closed(Closed::Broken(std::io::ErrorKind::ConnectionReset)), 3);
        assert_eq!(closed(Closed::Violation(Violation::Unasked)), 1);
        assert_eq!(ChatOutcome::from(&RequestError::Timeout(std::time::Duration::ZERO)).exit_code(), 3);
        assert_eq!(ChatOutcome::from(&ConnectError::BadAddress { addr: "x".into() }).exit_code(), 2);
    }
}
