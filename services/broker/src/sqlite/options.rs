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
        Self { path: path.into(), synchronous: Synchronous::Full, pages_max: None }
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
