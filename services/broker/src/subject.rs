//! Subjects and the filters that match them. Owns their syntax; knows nothing of what a subject stands for.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The name an entry is kept under: tokens of `[A-Za-z0-9_-]+` joined by dots, for instance `realm.a.mail.messi.local`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

/// Matches subjects: a subject itself, or one with `*` for any one token and, at the end, `>` for one or more.
///
/// The syntax is that of NATS.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Filter(Arc<str>);

/// The text is not a subject (or not a filter).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subject: tokens of letters, digits, _ and - joined by dots are")]
pub struct BadSubject(pub String);

fn token_is_plain(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl Subject {
    /// Checks and takes a subject.
    pub fn new(text: impl AsRef<str>) -> Result<Self, BadSubject> {
        let text = text.as_ref();
        if text.len() <= 255 && text.split('.').all(token_is_plain) {
            Ok(Self(text.into()))
        } else {
            Err(BadSubject(text.into()))
        }
    }

    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl Filter {
    /// Checks and takes a filter.
    pub fn new(text: impl AsRef<str>) -> Result<Self, BadSubject> {
        let text = text.as_ref();
        let last = text.split('.').count().saturating_sub(1);
        let good = text
            .split('.')
            .enumerate()
            .all(|(at, token)| token == "*" || (token == ">" && at == last) || token_is_plain(token));
        if good && text.len() <= 255 { Ok(Self(text.into())) } else { Err(BadSubject(text.into())) }
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one subject only.
    pub fn is_exact(&self) -> bool {
        !self.0.split('.').any(|token| token == "*" || token == ">")
    }

    /// The part before the first wildcard, with its last dot; the whole subject if there is none.
    pub fn literal_prefix(&self) -> &str {
        match self.0.find(['*', '>']) {
            Some(at) => &self.0[..at],
            None => &self.0,
        }
    }

    /// Whether `subject` is one of those it stands for.
    pub fn matches(&self, subject: &str) -> bool {
        let mut tokens = subject.split('.');
        for pattern in self.0.split('.') {
            match (pattern, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (literal, Some(token)) if literal == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }
}

/// So that maps of subjects can be asked with text; hash and order are those of the text.
impl Borrow<str> for Subject {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Filter {
    /// Whether there can be a subject that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut mine, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return true,
                (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
                _ => return false,
            }
        }
    }
}

impl From<&Subject> for Filter {
    fn from(subject: &Subject) -> Self {
        Self(subject.0.clone())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({})", self.0)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_nats_does() {
        let check = |filter: &str, subject: &str, expected: bool| {
            assert_eq!(Filter::new(filter).unwrap().matches(subject), expected, "{filter} on {subject}");
        };
        check("a.b", "a.b", true);
        check("a.b", "a.b.c", false);
        check("a.*", "a.b", true);
        check("a.*", "a", false);
        check("a.*.c", "a.b.c", true);
        check("a.>", "a", false);
        check("a.>", "a.b.c", true);
        check(">", "a", true);
    }

    #[test]
    fn a_subject_has_no_wildcards_and_no_empty_tokens() {
        for bad in ["", ".", "a.", ".a", "a..b", "a.*", "a.>", "a b", "a/b", "a\n", "é"] {
            assert!(Subject::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a.>.b", "a*", "a..b"] {
            assert!(Filter::new(bad).is_err(), "{bad:?}");
        }
    }
}
