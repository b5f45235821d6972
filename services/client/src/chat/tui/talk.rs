//! Conversations: what was said in each, what of it is unread, and how far own messages have come.
//!
//! Owns: their entries and their bounds. Must not know keys, the screen or the connection.

use std::collections::VecDeque;

use antar_proto::MessageId;
use antar_proto::escape::escape;
use antar_proto::reply::{Message, State as Reached};
use jiff::Timestamp;

use crate::chat::input::Target;

/// Entries kept of a conversation; older ones stay with the server (`history`).
const ENTRIES_MAX: usize = 2_000;
/// Conversations; what comes from further people is shown in the first one.
const CONVERSATIONS_MAX: usize = 1_000;
/// What the first one is called: there the program itself speaks.
pub(crate) const HOUSE: &str = "antar";

/// How far a message of one's own has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// On its way to the server, or waiting for the connection.
    Waiting,
    /// The server answered OK: it is stored.
    Stored,
    /// In the receiver's mailbox.
    Delivered,
    /// The receiver has read it.
    Read,
    /// It will not arrive, and why.
    Failed(String),
}

impl Mark {
    fn rank(&self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Stored => 1,
            Self::Delivered => 2,
            Self::Read => 3,
            Self::Failed(_) => 4,
        }
    }
}

/// One thing that was said. All texts are harmless for a terminal.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: Option<MessageId>,
    pub(crate) ts: Timestamp,
    /// Empty for a word from the program itself.
    pub(crate) from: String,
    pub(crate) text: String,
    /// Of one's own messages.
    pub(crate) mark: Option<Mark>,
}

/// What was said with somebody.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// As it is shown: `henderson`, `lineker@realm2`.
    pub(crate) name: String,
    /// Whom lines go to; the program's own has nobody.
    pub(crate) target: Option<Target>,
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) unread: usize,
    /// The first entry that was unread when the conversation was opened.
    pub(crate) marker: Option<usize>,
    /// How many entries lie below what is shown.
    pub(crate) scroll: usize,
    /// What was being typed when it was left.
    pub(crate) draft: String,
}

impl Conversation {
    fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        if self.scroll > 0 {
            // What is being read stays where it is.
            self.scroll += 1;
        }
        if self.entries.len() > ENTRIES_MAX {
            self.entries.pop_front();
            self.marker = self.marker.and_then(|at| at.checked_sub(1));
        }
        self.scroll = self.scroll.min(self.entries.len().saturating_sub(1));
    }

    fn has(&self, id: MessageId) -> bool {
        self.entries.iter().rev().any(|entry| entry.id == Some(id))
    }
}

/// All conversations, in the order in which they began; the first one is the program's own.
#[derive(Debug)]
pub(crate) struct Talks {
    pub(crate) all: Vec<Conversation>,
    pub(crate) current: usize,
    /// `user@realm` of whoever is logged in.
    pub(crate) me: String,
    /// Names, the last seen first.
    recent: Vec<String>,
}

impl Talks {
    pub(crate) fn new(me: String) -> Self {
        let house = Conversation { name: HOUSE.into(), ..Conversation::default() };
        Self { all: vec![house], current: 0, me, recent: Vec::new() }
    }

    pub(crate) fn current(&self) -> &Conversation {
        &self.all[self.current]
    }

    pub(crate) fn current_mut(&mut self) -> &mut Conversation {
        &mut self.all[self.current]
    }

    /// An address without the realm if it is one's own realm.
    pub(crate) fn short(&self, address: &str) -> String {
        let realm = self.me.split_once('@').map_or("", |(_, realm)| realm);
        let name = address.strip_suffix(realm).and_then(|rest| rest.strip_suffix('@')).unwrap_or(address);
        escape(name).into_owned()
    }

    /// Where a conversation of this name is; it is begun if there is none, in the first one if there are too many.
    pub(crate) fn find_or_begin(&mut self, name: &str, target: Option<Target>) -> usize {
        if let Some(at) = self.all.iter().position(|talk| talk.name == name) {
            return at;
        }
        if self.all.len() >= CONVERSATIONS_MAX {
            return 0;
        }
        self.all.push(Conversation { name: name.to_owned(), target, ..Conversation::default() });
        self.all.len() - 1
    }

    /// A name was seen: it is the first to be offered.
    pub(crate) fn saw(&mut self, name: &str) {
        if name.is_empty() || name.starts_with('@') {
            return;
        }
        self.recent.retain(|known| known != name);
        self.recent.insert(0, name.to_owned());
        self.recent.truncate(CONVERSATIONS_MAX);
    }

    /// A name that may be offered after those that were seen.
    pub(crate) fn knows(&mut self, name: &str) {
        if self.recent.len() < CONVERSATIONS_MAX && !self.recent.iter().any(|known| known == name) {
            self.recent.push(name.to_owned());
        }
    }

    /// The names that begin so, the last seen first.
    pub(crate) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a String> {
        self.recent.iter().filter(move |name| name.starts_with(prefix))
    }

    /// The other side of a message.
    pub(crate) fn other(&self, message: &Message) -> String {
        self.short(if message.from == self.me { &message.to } else { &message.from })
    }

    /// A message, from `history` or pushed, and whom an answer goes to: nobody, for a notice of a realm.
    pub(crate) fn message(&mut self, message: &Message, pushed: bool, target: Option<Target>) {
        let mine = message.from == self.me;
        let (from, name) = (self.short(&message.from), self.other(message));
        let at = if target.is_some() { self.find_or_begin(&name, target) } else { 0 };
        self.saw(&name);
        let is_current = at == self.current;
        let talk = &mut self.all[at];
        let known = talk.has(message.id);
        if !known {
            let mark = mine.then_some(Mark::Stored);
            let ts = message.ts.parse().unwrap_or_else(|_| Timestamp::now());
            let text = escape(&message.msg).into_owned();
            talk.push(Entry { id: Some(message.id), ts, from, text, mark });
        }
        if pushed && !mine && (!is_current || talk.scroll > 0) {
            // What history showed already is unread all the same: it was pushed for the first time.
            let position = talk.entries.iter().position(|entry| entry.id == Some(message.id));
            if talk.unread == 0 {
                talk.marker = position;
            }
            talk.unread += 1;
        }
    }

    /// A word from the program itself, in the conversation at `at`.
    pub(crate) fn note(&mut self, at: usize, text: &str) {
        for line in text.lines() {
            let text = escape(line).into_owned();
            let entry = Entry { id: None, ts: Timestamp::now(), from: String::new(), text, mark: None };
            self.all[at].push(entry);
        }
    }

    /// A line of one's own that is on its way.
    pub(crate) fn say(&mut self, at: usize, id: MessageId, text: &str) {
        let from = self.short(&self.me.clone());
        let text = escape(text).into_owned();
        let name = self.all[at].name.clone();
        self.saw(&name);
        let talk = &mut self.all[at];
        (talk.marker, talk.scroll, talk.unread) = (None, 0, 0);
        talk.push(Entry { id: Some(id), ts: Timestamp::now(), from, text, mark: Some(Mark::Waiting) });
    }

    /// A message of one's own has come further; it never goes back.
    pub(crate) fn reached(&mut self, id: MessageId, mark: &Mark) {
        let entries = self.all.iter_mut().flat_map(|talk| talk.entries.iter_mut().rev());
        for entry in entries.filter(|entry| entry.id == Some(id)) {
            if entry.mark.as_ref().is_some_and(|known| known.rank() < mark.rank()) {
                entry.mark = Some(mark.clone());
            }
        }
    }

    /// The same, by the words of an event.
    pub(crate) fn status(&mut self, ids: &[MessageId], state: Reached, reason: Option<&str>) {
        let mark = match state {
            Reached::Accepted | Reached::Stored => return,
            Reached::Delivered => Mark::Delivered,
            Reached::Read => Mark::Read,
            Reached::Failed => Mark::Failed(escape(reason.unwrap_or("not delivered")).into_owned()),
        };
        ids.iter().for_each(|id| self.reached(*id, &mark));
    }

    /// Opens a conversation; what was unread there is read.
    pub(crate) fn open(&mut self, at: usize) {
        if at >= self.all.len() || at == self.current {
            return;
        }
        self.current_mut().marker = None;
        self.current = at;
        let talk = self.current_mut();
        (talk.unread, talk.scroll) = (0, 0);
    }

    /// The next conversation with something unread, going round from the current one.
    pub(crate) fn next_unread(&self) -> Option<usize> {
        let count = self.all.len();
        (1..=count).map(|step| (self.current + step) % count).find(|&at| self.all[at].unread > 0)
    }

    /// Moves what is shown by entries: back in time, or forward.
    pub(crate) fn scroll(&mut self, back: bool, by: usize) {
        let talk = self.current_mut();
        let most = talk.entries.len().saturating_sub(1);
        talk.scroll = if back { (talk.scroll + by).min(most) } else { talk.scroll.saturating_sub(by) };
        if talk.scroll == 0 {
            talk.unread = 0;
        }
    }

    /// What all conversations hold of `words`, with their names, the oldest first.
    pub(crate) fn search(&self, words: &str) -> Vec<(String, Entry)> {
        let words: Vec<_> = words.split_whitespace().map(str::to_lowercase).collect();
        let mut found = Vec::new();
        for talk in &self.all {
            for entry in &talk.entries {
                let text = entry.text.to_lowercase();
                if !entry.from.is_empty() && words.iter().all(|word| text.contains(word.as_str())) {
                    found.push((talk.name.clone(), entry.clone()));
                }
            }
        }
        found.sort_by_key(|(_, entry)| entry.ts);
        found
    }
}
