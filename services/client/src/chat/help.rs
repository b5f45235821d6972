//! `/help`: what can be typed.
//!
//! Owns: the words of the help, from the table of commands. Must not know how it is shown.

use antar_proto::command::{COMMANDS, CommandSpec, lookup};

use crate::chat::input::usage;

/// What `chat` does itself: how it is typed, and what it does.
pub(crate) const LOCAL: &[(&str, &str)] = &[
    ("/help [COMMAND]", "this list, or one command"),
    (
        "/to USER[@REALM]",
        "starts a conversation: lines that are no commands go there. Also USER,USER or #GROUP",
    ),
    ("/to", "ends the conversation"),
    ("> TEXT", "says TEXT in the conversation, even if it begins like a command"),
    ("/file [USER] PATH", "sends a file, in a conversation without USER"),
    ("/get ID [PATH]", "saves a file that you were sent, over nothing that is there; files lists them"),
    ("/wait [SECONDS]", "in scripts: shows what watch pushes, for that long or until the connection ends"),
    ("/raw LINE", "sends LINE as it is; $TOKEN in it becomes the session token"),
    ("/quit", "leaves; Ctrl-D does too"),
];

/// The whole list, or one command.
pub(crate) fn text(about: Option<&str>) -> String {
    let Some(name) = about else { return all() };
    if let Some(spec) = lookup(name) {
        return one(spec);
    }
    let local: Vec<_> = LOCAL
        .iter()
        .filter(|(usage, _)| usage.trim_start_matches('/').split(' ').next() == Some(name))
        .map(|(usage, summary)| format!("{usage}\n  {summary}"))
        .collect();
    if local.is_empty() { format!("there is no command {name}: see /help") } else { local.join("\n") }
}

fn all() -> String {
    let commands = COMMANDS.iter().map(|spec| (usage(spec), spec.summary));
    let local = LOCAL.iter().map(|(usage, summary)| ((*usage).to_owned(), *summary));
    let rows: Vec<_> = commands.chain(local).collect();
    let width = rows.iter().map(|(usage, _)| usage.len()).filter(|&len| len <= WIDTH_MAX).max().unwrap_or(0);
    let mut lines: Vec<_> = rows
        .iter()
        .map(|(usage, summary)| match usage.len() > width {
            true => format!("{usage}\n{:width$}  {summary}", ""),
            false => format!("{usage:width$}  {summary}"),
        })
        .collect();
    lines.push(NOTES.into());
    lines.join("\n")
}

/// Longest usage that has its summary on the same line.
const WIDTH_MAX: usize = 38;

const NOTES: &str = "\
The session token is filled in. auth USER asks for the password and does not show it; passwords are never kept in
the history. status alone asks for the last message sent. When the connection breaks, chat connects again by
itself, with the same session; a message that was on its way is sent again under the same id, so it arrives once.";

fn one(spec: &CommandSpec) -> String {
    let mut lines = vec![usage(spec), format!("  {}", spec.summary)];
    if spec.names.len() > 1 {
        lines.push(format!("  also called {}", spec.names[1..].join(", ")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_the_list_without_its_token() {
        let list = text(None);
        for spec in COMMANDS {
            assert!(list.contains(spec.names[0]) && list.contains(spec.summary), "{:?}", spec.verb);
        }
        assert!(!list.contains(" TOKEN") && !list.contains("[TOKEN]"));
        assert!(list.lines().all(|line| line.len() <= 130), "{list}");
    }

    #[test]
    fn one_command_is_explained_by_any_of_its_names() {
        let expected = "send USER[@REALM] TEXT\n  sends to one user\n  also called sendprivate";
        assert_eq!(text(Some("sendprivate")), expected);
        assert!(text(Some("to")).contains("/to USER"));
        assert_eq!(text(Some("nothing")), "there is no command nothing: see /help");
    }
}
