//! How the process ends: exit codes, and the errors that carry one.
//!
//! Owns: the numbers that scripts rely on. They never change.

use std::fmt;
use std::process::ExitCode;

/// Why the process ends without having done what was asked. 0 is "done".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something failed here, and trying again alone will not help.
    Failed = 1,
    /// The command line or the configuration makes no sense.
    Usage = 2,
    /// Nobody answers, or somebody else holds what is needed: try again later.
    Unreachable = 3,
    /// The other side wants a login that it did not get.
    NotAuthorised = 4,
    /// The other side understood, and refused.
    Rejected = 5,
}

/// An error and the exit code that goes with it.
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// What is said to the user.
    pub(crate) error: anyhow::Error,
}

/// What a subcommand returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// One with a message.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, error: anyhow::anyhow!("{message}") }
    }

    /// Tells the user on stderr and gives the code for `main`.
    #[expect(clippy::print_stderr, reason = "the last word to the person who typed the command")]
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("antar: {:#}", self.error);
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}: {:#}", self.exit as u8, self.error)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failed, error: error.into() }
    }
}

/// Gives an error another exit code than [`Exit::Failed`].
pub(crate) trait OrExit<T> {
    /// The same, with `exit`.
    fn or_exit(self, exit: Exit) -> Outcome<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Outcome<T> {
        self.map_err(|error| Failure { exit, error: error.into() })
    }
}
