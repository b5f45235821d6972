//! What the full screen shows and what is to be done: keys, events and replies in, requests out.
//!
//! Owns: the meaning of keys and lines, and what waits to be sent. Must not know the terminal, nor how a request travels:
//! everything here is tested without both.
//!
//! A message waits in the outbox until it is answered, over as many connections as it takes, always under the same id: so it
//! is kept, and not doubled. One request is on its way at a time, which keeps the order.

use std::collections::VecDeque;

use antar_proto::command::{COMMANDS, Verb};
use antar_proto::reply::Event;
use antar_proto::{ErrorCode, MessageId};
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::calls::Messages;
use crate::chat::help::{self, LOCAL};
use crate::chat::input::{Input, Prepared, Target, split_word, understand};
use crate::chat::link::News;
use crate::chat::render;
use crate::chat::session::Session;
use crate::chat::style::Style;
use crate::chat::transfer::Transfer;
use crate::chat::tui::editor::Editor;
use crate::chat::tui::talk::{Entry, Mark, Talks};
use crate::error::RequestError;
use crate::reply::Reply;

/// Requests that may wait; more are refused until some are answered.
const OUTBOX_MAX: usize = 256;
/// How often a send is tried that the server cannot answer for now.
const TRIES_MAX: u8 = 3;
/// Entries that a page is moved by.
const PAGE_ENTRIES: usize = 10;

/// What only the full screen does: how it is typed, and what it does.
const KEYS: &[(&str, &str)] = &[
    ("Enter", "says the line in the open conversation"),
    ("/to USER[@REALM]", "opens a conversation"),
    ("/search WORDS", "what was said with all these words, of what is loaded; Esc goes back"),
    ("/COMMAND …", "any command of the server, without the token: /history, /users, /addrealm …"),
    ("Tab", "completes a command or a name, the last seen first; again for the next one"),
    ("Alt-1 … Alt-9", "opens a conversation by its number; Alt-Up and Alt-Down the one beside it"),
    ("Alt-A", "opens the next one with something unread"),
    ("PageUp, PageDown", "shows what was said before"),
    ("Up, Down", "calls back lines that were typed"),
    ("Ctrl-C", "clears the line; on an empty one it leaves, as /quit and Ctrl-D do"),
];

/// What fills the place of the conversation.
#[derive(Debug)]
pub(crate) enum Pane {
    /// The conversation.
    Talk,
    /// A text, and how many of its lines lie above what is shown.
    Text { title: String, lines: Vec<String>, scroll: usize },
    /// What was found, with the name of its conversation.
    Found { words: String, entries: Vec<(String, Entry)> },
}

/// A request that waits, or is on its way.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) prepared: Prepared,
    /// The message, for a send.
    pub(super) id: Option<MessageId>,
    /// The conversation that it was typed in; `None` for what nobody typed.
    pub(super) at: Option<usize>,
    pub(super) tries: u8,
    /// A part of the file that is on its way.
    pub(super) is_file: bool,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Go {
    On,
    /// The person leaves.
    Leave,
    /// The session is over.
    SessionEnded,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) session: Session,
    pub(crate) talks: Talks,
    pub(crate) editor: Editor,
    pub(crate) pane: Pane,
    pub(crate) outbox: VecDeque<Waiting>,
    /// Why there is no connection, if there is none.
    pub(crate) lost: Option<String>,
    watch: bool,
    /// A file on its way, and the conversation that it was begun in. Its next request is in the outbox.
    pub(super) transfer: Option<(Transfer, usize)>,
}

impl State {
    /// Of somebody who has logged in.
    pub(crate) fn new(session: Session, watch: bool) -> Self {
        let me = session.me().unwrap_or_default();
        let mut state = Self {
            session,
            talks: Talks::new(me),
            editor: Editor::default(),
            pane: Pane::Talk,
            outbox: VecDeque::new(),
            lost: None,
            watch,
            transfer: None,
        };
        state.talks.note(0, "/help shows what can be typed. /to USER begins a conversation.");
        state.quietly("history limit=200");
        state.quietly("users");
        if watch {
            state.quietly("watch");
        }
        state
    }

    /// Something that nobody typed.
    fn quietly(&mut self, command: &str) {
        if let Ok(Input::Request(prepared)) = understand(command, &self.session.context) {
            self.outbox.push_back(Waiting { prepared, id: None, at: None, tries: 0, is_file: false });
        }
    }

    fn target(&self, name: &str) -> Option<Target> {
        match understand(&format!("/to {name}"), &self.session.context) {
            Ok(Input::To(target)) => target,
            _ => None,
        }
    }

    pub(super) fn note(&mut self, text: &str) {
        self.talks.note(self.talks.current, text);
    }

    /// A key was pressed.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Go {
        if key.kind == KeyEventKind::Release {
            return Go::On;
        }
        let (alt, control) =
            (key.modifiers.contains(KeyModifiers::ALT), key.modifiers.contains(KeyModifiers::CONTROL));
        match key.code {
            KeyCode::Char(digit @ '1'..='9') if alt => self.open(usize::from(digit as u8 - b'1')),
            KeyCode::Char('a' | 'A') if alt => {
                if let Some(at) = self.talks.next_unread() {
                    self.open(at);
                }
            }
            KeyCode::Up if alt => self.open(self.talks.current.saturating_sub(1)),
            KeyCode::Down if alt => self.open(self.talks.current + 1),
            KeyCode::Char(c) if control => return self.control(c),
            KeyCode::Char(c) if !alt => self.editor.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Enter => return self.enter(),
            KeyCode::Tab => self.complete(),
            KeyCode::Backspace => self.editor.backspace(),
            KeyCode::Delete => self.editor.delete(),
            KeyCode::Left => self.editor.left(),
            KeyCode::Right => self.editor.right(),
            KeyCode::Home => self.editor.home(),
            KeyCode::End => self.editor.end(),
            KeyCode::Up => self.editor.older(),
            KeyCode::Down => self.editor.newer(),
            KeyCode::PageUp => self.page(true),
            KeyCode::PageDown => self.page(false),
            KeyCode::Esc => self.pane = Pane::Talk,
            _ => {}
        }
        Go::On
    }

    fn control(&mut self, c: char) -> Go {
        match c {
            'c' if !self.editor.text().is_empty() => drop(self.editor.swap(String::new())),
            'd' if !self.editor.text().is_empty() => self.editor.delete(),
            'c' | 'd' => return Go::Leave,
            'a' => self.editor.home(),
            'e' => self.editor.end(),
            'u' => self.editor.cut_start(),
            'k' => self.editor.cut_end(),
            'w' => self.editor.cut_word(),
            _ => {}
        }
        Go::On
    }

    /// Something was pasted.
    pub(crate) fn paste(&mut self, text: &str) {
        self.editor.insert(text);
    }

    fn page(&mut self, back: bool) {
        match &mut self.pane {
            Pane::Text { lines, scroll, .. } => {
                let most = lines.len().saturating_sub(1);
                *scroll = if back {
                    scroll.saturating_sub(PAGE_ENTRIES)
                } else {
                    (*scroll + PAGE_ENTRIES).min(most)
                };
            }
            Pane::Talk | Pane::Found { .. } => self.talks.scroll(back, PAGE_ENTRIES),
        }
    }

    /// Opens a conversation; the line that was begun in the other one stays there.
    fn open(&mut self, at: usize) {
        self.pane = Pane::Talk;
        if at >= self.talks.all.len() {
            return;
        }
        let draft = std::mem::take(&mut self.talks.all[at].draft);
        if at == self.talks.current {
            self.talks.all[at].draft = draft;
            return;
        }
        let left = self.editor.swap(draft);
        self.talks.current_mut().draft = left;
        self.talks.open(at);
    }

    fn complete(&mut self) {
        let talks = &self.talks;
        self.editor.complete(|head, start| {
            let word = &head[start..];
            if start == 0 && word.starts_with('/') {
                let known = COMMANDS.iter().map(|spec| format!("/{}", spec.names[0]));
                let local = LOCAL.iter().filter_map(|(usage, _)| usage.split(' ').next()).map(str::to_owned);
                let own = KEYS.iter().filter_map(|(usage, _)| usage.split(' ').next()).map(str::to_owned);
                let mut names: Vec<_> = own.chain(local).chain(known).collect();
                names.retain(|name| name.starts_with(word) && name.len() > 1 && *name != "/COMMAND");
                names.sort();
                names.dedup();
                return names;
            }
            // Behind a command an empty word may become any name; in the midst of a text it is only a space.
            if word.is_empty() && !head.starts_with('/') {
                Vec::new()
            } else {
                talks.names(word).cloned().collect()
            }
        });
    }

    fn enter(&mut self) -> Go {
        let line = self.editor.take();
        let line = line.trim();
        if line.is_empty() {
            return Go::On;
        }
        self.pane = Pane::Talk;
        let Some(command) = line.strip_prefix('/') else {
            self.say(line);
            return Go::On;
        };
        let (name, rest) = split_word(command);
        match name {
            "search" if rest.is_empty() => self.note("/search WORDS"),
            "search" => {
                let entries = self.talks.search(rest);
                self.pane = Pane::Found { words: rest.to_owned(), entries };
            }
            // A password would stand on the screen, and another user has other conversations.
            "auth" | "register" | "passwd" | "raw" => {
                self.note(&format!("/{name} is for the line mode: antar chat without --tui"));
            }
            _ => return self.command(line),
        }
        Go::On
    }

    /// Says a line in the open conversation.
    fn say(&mut self, text: &str) {
        let at = self.talks.current;
        let Some(target) = self.talks.current().target.clone() else {
            self.note("nobody to say that to: /to USER first, or Alt-1 … Alt-9");
            drop(self.editor.swap(text.to_owned()));
            return;
        };
        self.session.context.target = Some(target);
        let understood = understand(&format!("> {text}"), &self.session.context);
        self.session.context.target = None;
        match understood {
            Ok(Input::Request(prepared)) if self.outbox.len() < OUTBOX_MAX => {
                let request = antar_proto::parse::parse(prepared.line.as_bytes()).ok().flatten();
                let id = request.and_then(|request| request.tag?.message_id());
                if let Some(id) = id {
                    self.talks.say(at, id, text);
                }
                self.outbox.push_back(Waiting { prepared, id, at: Some(at), tries: 0, is_file: false });
            }
            Ok(_) => {
                self.note("too much waits to be sent; the line was kept");
                drop(self.editor.swap(text.to_owned()));
            }
            Err(error) => self.note(&format!("error: {error}")),
        }
    }

    fn command(&mut self, line: &str) -> Go {
        // A file goes to the open conversation.
        self.session.context.target = self.talks.current().target.clone();
        let understood = understand(line, &self.session.context);
        self.session.context.target = None;
        match understood {
            Ok(Input::Quit) => return Go::Leave,
            Ok(Input::Help(about)) => self.help(about.as_deref()),
            Ok(Input::To(Some(target))) => {
                let name = self.talks.short(target.as_str());
                let at = self.talks.find_or_begin(&name, Some(target));
                self.open(at);
            }
            Ok(Input::To(None)) => self.open(0),
            Ok(Input::Wait(_)) => self.note("messages are shown as they come in"),
            Ok(Input::Empty) => {}
            Ok(Input::File(job)) => self.begin_file(&job),
            Ok(Input::Request(prepared)) if self.outbox.len() < OUTBOX_MAX => {
                let at = Some(self.talks.current);
                self.outbox.push_back(Waiting { prepared, id: None, at, tries: 0, is_file: false });
            }
            Ok(Input::Request(_)) => self.note("too much waits to be sent"),
            Err(error) => self.note(&format!("error: {error}")),
        }
        Go::On
    }

    fn help(&mut self, about: Option<&str>) {
        let mut lines = Vec::new();
        if about.is_none() {
            let width = KEYS.iter().map(|(keys, _)| keys.chars().count()).max().unwrap_or(0);
            lines.extend(KEYS.iter().map(|(keys, what)| format!("{keys:width$}  {what}")));
            lines.push(String::new());
        }
        lines.extend(help::text(about).lines().map(str::to_owned));
        self.pane = Pane::Text { title: "help: PageDown, PageUp, Esc".into(), lines, scroll: 0 };
    }

    /// Something happened to the connection, or on it.
    pub(crate) fn news(&mut self, news: &News) -> Go {
        match news {
            News::Event(event) => return self.event(event),
            News::Lost(reason) => self.lost = Some(reason.clone()),
            News::Restored { session_ended: true } => return Go::SessionEnded,
            News::Restored { session_ended: false } => {
                self.lost = None;
                if self.watch {
                    self.quietly("watch");
                }
            }
        }
        Go::On
    }

    fn event(&mut self, event: &Event) -> Go {
        match event {
            Event::Message { message, .. } => {
                let target = self.target(&self.talks.other(message));
                self.talks.message(message, true, target);
            }
            Event::Status(status) => {
                self.talks.status(&status.ids, status.state, status.reason.as_deref());
            }
            Event::Presence { .. } | Event::Shutdown => {}
            Event::LoggedOut => return Go::SessionEnded,
        }
        Go::On
    }

    /// The request in front was answered, or its connection broke. What is to be sent again stays in front.
    pub(crate) fn answered(&mut self, answer: Result<Reply, RequestError>) -> Go {
        let Some(mut waiting) = self.outbox.pop_front() else { return Go::On };
        let reply = match answer {
            Ok(reply) => reply,
            Err(error @ RequestError::BadLine(_)) => {
                self.failed(&waiting, &error.to_string());
                return Go::On;
            }
            // It will be sent again when there is a connection; what nobody typed is asked for then anyway.
            Err(_) if waiting.prepared.repeatable || waiting.at.is_none() => {
                if waiting.prepared.verb != Some(Verb::Watch) {
                    self.outbox.push_front(waiting);
                }
                return Go::On;
            }
            Err(error) => {
                self.failed(
                    &waiting,
                    &format!("{error}. It may have been carried out: look before you repeat it"),
                );
                return Go::On;
            }
        };
        let refusal = reply.refusal();
        if waiting.id.is_some()
            && refusal.as_ref().and_then(|refusal| refusal.known()) == Some(ErrorCode::Unavailable)
        {
            waiting.tries += 1;
            if waiting.tries < TRIES_MAX {
                self.outbox.push_front(waiting);
                return Go::On;
            }
        }
        let _ = self.session.absorb(&waiting.prepared, &reply);
        if refusal.is_none() && waiting.prepared.verb == Some(Verb::Logout) {
            return Go::Leave;
        }
        if self.session.context.token.is_none() {
            self.outbox.push_front(waiting);
            return Go::SessionEnded;
        }
        if waiting.is_file {
            self.file_answered(&reply);
            return Go::On;
        }
        match (&refusal, waiting.id) {
            (Some(refusal), _) => self.failed(&waiting, &refusal.to_string()),
            (None, Some(id)) => self.sent(&waiting, id, &reply),
            (None, None) => self.shown(&waiting, &reply),
        }
        Go::On
    }

    /// How many messages have no answer yet.
    pub(crate) fn unsent(&self) -> usize {
        self.outbox.iter().filter(|waiting| waiting.id.is_some()).count()
    }

    fn failed(&mut self, waiting: &Waiting, why: &str) {
        if waiting.is_file {
            self.transfer = None;
        }
        match (waiting.id, waiting.at) {
            (Some(id), _) => {
                self.talks.reached(id, &Mark::Failed(antar_proto::escape::escape(why).into_owned()))
            }
            (None, Some(at)) => self.talks.note(at, &format!("error: {why}")),
            (None, None) => self.talks.note(0, &format!("error: {why}")),
        }
    }

    fn sent(&mut self, waiting: &Waiting, id: MessageId, reply: &Reply) {
        self.talks.reached(id, &Mark::Stored);
        if let (Ok(sent), Some(at)) = (reply.read::<crate::calls::Sent>(), waiting.at) {
            for (names, why) in [(sent.unknown, "no such user"), (sent.full, "their mailbox is full")] {
                if !names.is_empty() {
                    self.talks.note(at, &format!("not sent to {}: {why}", names.join(", ")));
                }
            }
        }
    }

    fn shown(&mut self, waiting: &Waiting, reply: &Reply) {
        match (waiting.at, waiting.prepared.verb) {
            (Some(at), _) => {
                let text = render::reply(&waiting.prepared, reply, Some(&self.talks.me), &Style::new(false));
                self.talks.note(at, &text);
            }
            (None, Some(Verb::History)) => {
                let Ok(history) = reply.read::<Messages>() else { return };
                for message in &history.messages {
                    let target = self.target(&self.talks.other(message));
                    self.talks.message(message, false, target);
                }
            }
            (None, _) => {
                for user in crate::chat::complete::Seen::in_json(&reply.json()).users {
                    self.talks.knows(&user);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(crate) mod tests;
