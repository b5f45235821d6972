//! Keeps passwords out of the history and out of conversations.
//!
//! Owns: which typed lines hold a secret. Must not know how lines are edited or sent.

use antar_proto::command::{self, Verb};

use crate::chat::input::split_word;

/// The commands that take a password, and what other programs call them.
const SECRET_COMMANDS: [(&str, &str); 6] = [
    ("auth", "auth"),
    ("login", "auth"),
    ("signin", "auth"),
    ("register", "register"),
    ("passwd", "passwd"),
    ("password", "passwd"),
];

/// What of a typed line may be kept in the history: all of it, `auth USER` without its password, or nothing.
///
/// A line that only looks like a command with a password (`auht messi …`, `/raw @1 passwd …`) is not kept either.
pub(crate) fn storable(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (first, rest) = split_word(line);
    if command::lookup(first).is_some_and(|spec| spec.verb == Verb::Auth) {
        let (user, _) = split_word(rest);
        return line.get(..line.len() - rest.len() + user.len());
    }
    let mut words = line.split_whitespace().map(|word| word.trim_start_matches(['/', '>'])).peekable();
    words.next_if(|word| word.eq_ignore_ascii_case("raw"));
    words.next_if(|word| word.starts_with('@'));
    let command = words.find(|word| !word.is_empty()).unwrap_or_default();
    if looks_secret(command).is_some() { None } else { Some(line) }
}

/// The command with a password that `word` is, or that it was probably meant to be.
pub(crate) fn looks_secret(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let near = |name: &str| strsim::damerau_levenshtein(&word, name) <= 1 + usize::from(name.len() > 5);
    SECRET_COMMANDS.into_iter().find(|(name, _)| near(name)).map(|(_, command)| command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_kept() {
        for (line, kept) in [
            ("auth messi surabaya", Some("auth messi")),
            ("  AUTH   messi   surabaya ", Some("AUTH   messi")),
            ("auth messi", Some("auth messi")),
            ("auth", Some("auth")),
            ("auth surabaya surabaya", Some("auth surabaya")),
            ("register xavi rahasia Spanyol Xavi", None),
            ("passwd old new", None),
            ("@7 auth messi surabaya", None),
            ("@7 passwd old new", None),
            ("/raw auth messi surabaya", None),
            ("/raw @7 passwd $TOKEN old new", None),
            ("/auth messi surabaya", None),
            ("> auth messi surabaya", None),
            (">auth messi surabaya", None),
            ("auht messi surabaya", None),
            ("aut messi surabaya", None),
            ("pasword old new", None),
            ("login messi surabaya", None),
            ("regster xavi rahasia Spanyol Xavi", None),
            ("send henderson halo", Some("send henderson halo")),
            ("> halo", Some("> halo")),
            ("/to henderson", Some("/to henderson")),
            ("   ", None),
        ] {
            assert_eq!(storable(line), kept, "{line:?}");
        }
    }
}
