//! The URL of a SQLite broker. Owns its syntax.

use std::path::PathBuf;

use crate::OpenError;

/// How the broker's file is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The database file.
    pub path: PathBuf,
    /// How commits reach the disk.
    pub synchronous: Synchronous,
    /// Most pages of the file; beyond them the disk counts as full. For tests.
    pub pages_max: Option<u32>,
    pub(super) limits: Limits,
}

/// What is held in memory, and how much is done at a time. The defaults were measured; tests use less of each, to get
/// beyond them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Rows of the log kept in memory, if the file's index has them, and bytes of these rows.
    pub(super) ring_rows_max: usize,
    pub(super) ring_bytes_max: usize,
    /// A round of writing the index begins when so many places wait for it, or rows of so many bytes.
    pub(super) round_places: usize,
    pub(super) round_bytes: usize,
    /// Subjects of a round written with one transaction, beside two for each place that it adds.
    pub(super) slice_subjects: usize,
    /// Sequences in one row of the index.
    pub(super) run_seqs_max: usize,
    /// A filter with more subjects than this is answered by reading the log instead of its subjects' lists.
    pub(super) lists_max: usize,
    /// Rows that one job of such a read looks at before others have their turn.
    pub(super) scanned_rows_max: usize,
    /// Entries trimmed in one transaction, so that nobody waits long behind a trim.
    pub(super) trimmed_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ring_rows_max: 64 * 1024,
            ring_bytes_max: 32 * 1024 * 1024,
            round_places: 32 * 1024,
            round_bytes: 12 * 1024 * 1024,
            slice_subjects: 64,
            run_seqs_max: 4096,
            lists_max: 128,
            scanned_rows_max: 20_000,
            trimmed_max: 512,
        }
    }
}

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// When the disk has it. What an acknowledgement promises needs this.
    Full,
    /// When the operating system has it. **A power cut loses acknowledged entries.** Only for the control run of the
    /// power-cut test, which must lose some, or it proves nothing.
    Normal,
}

impl Options {
    /// The file at `path`, with safe settings.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), synchronous: Synchronous::Full, pages_max: None, limits: Limits::default() }
    }

    /// Holds next to nothing in memory and does everything in the smallest steps: for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn tight(self) -> Self {
        let limits = Limits {
            ring_rows_max: 3,
            ring_bytes_max: 2000,
            round_places: 5,
            round_bytes: 1500,
            slice_subjects: 1,
            run_seqs_max: 3,
            lists_max: 2,
            scanned_rows_max: 4,
            trimmed_max: 2,
        };
        Self { limits, ..self }
    }

    /// Reads `sqlite:PATH[?synchronous=full|normal]`.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let invalid = |what: String| {
            OpenError::Invalid(format!(
                "{what}; a broker's URL is sqlite:PATH or sqlite:PATH?synchronous=full|normal"
            ))
        };
        let Some(rest) = url.strip_prefix("sqlite:") else {
            return Err(invalid(format!("{url:?} has an unknown scheme")));
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if path.is_empty() {
            return Err(invalid(format!("{url:?} names no file")));
        }
        let mut options = Self::new(path);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            options.synchronous = match pair {
                "synchronous=full" => Synchronous::Full,
                "synchronous=normal" => Synchronous::Normal,
                other => return Err(invalid(format!("{other:?} is an unknown setting"))),
            };
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_what_is_unknown_is_refused_with_what_is_accepted() {
        assert_eq!(Options::parse("sqlite:/a/b.db"), Ok(Options::new("/a/b.db")));
        assert_eq!(
            Options::parse("sqlite:b.db?synchronous=normal").map(|o| o.synchronous),
            Ok(Synchronous::Normal)
        );
        for bad in ["", "b.db", "nats://x", "sqlite:", "sqlite:a?x=y", "sqlite:a?synchronous=off"] {
            let error = Options::parse(bad).unwrap_err();
            assert!(error.to_string().contains("sqlite:PATH?synchronous="), "{bad:?}: {error}");
        }
    }
}
