//! The terminal: a line editor on a thread of its own, and a printer that writes above the line being typed.
//!
//! Owns: the two threads, the history file. Must not know commands or connections.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::DefaultHistory;
use rustyline::{
    ColorMode, CompletionType, Config, Context, Editor, ExternalPrinter, Helper, validate::Validator,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::chat::complete::{Names, hint};
use crate::chat::secret::storable;
use crate::chat::style::Style;

/// Lines kept in the history file.
const HISTORY_LINES_MAX: usize = 1_000;
/// Lines that may wait for the printer.
const PRINTS_MAX: usize = 64;

/// What the person did.
#[derive(Debug)]
pub(crate) enum Typed {
    /// A line, or a password.
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// What to ask next.
enum Ask {
    Line(String),
    Password(String),
}

/// Handle of both threads.
pub(crate) struct Terminal {
    asks: std_mpsc::SyncSender<Ask>,
    typed: mpsc::Receiver<Typed>,
    threads: Vec<JoinHandle<()>>,
}

/// Writes above the line that is being typed.
pub(crate) struct Printer {
    prints: Option<mpsc::Sender<String>>,
    backlog: VecDeque<String>,
}

impl Printer {
    /// Puts something behind what waits to be shown.
    pub(crate) fn push(&mut self, text: String) {
        self.backlog.push_back(text);
    }

    /// How much waits.
    pub(crate) fn len(&self) -> usize {
        self.backlog.len()
    }

    /// Shows the first of what waits, or waits itself if there is nothing. Cancel-safe: what is shown leaves the backlog
    /// only when there is room for it.
    pub(crate) async fn print_next(&mut self) {
        if self.backlog.is_empty() {
            return std::future::pending().await;
        }
        let permit = match &self.prints {
            Some(prints) => prints.reserve().await.ok(),
            None => None,
        };
        let Some(text) = self.backlog.pop_front() else { return };
        match permit {
            Some(permit) => permit.send(text + "\n"),
            // A terminal that cannot do it gets the text in the midst of the line.
            None => write_line(&text),
        }
    }

    /// Shows all that waits, now that nobody is typing.
    pub(crate) fn flush(&mut self) {
        self.backlog.drain(..).for_each(|text| write_line(&text));
    }
}

/// Writes to standard output. Errors are not reported: there is nowhere to.
pub(crate) fn write_line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

impl Terminal {
    /// Takes over the terminal. Must be called on a runtime.
    pub(crate) fn open(
        history: Option<PathBuf>,
        names: Names,
        style: Style,
        colour: bool,
    ) -> Result<(Self, Printer), ReadlineError> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES_MAX)?
            .completion_type(CompletionType::List)
            .color_mode(if colour { ColorMode::Enabled } else { ColorMode::Disabled })
            .build();
        let mut editor: Editor<Assistant, DefaultHistory> = Editor::with_config(config)?;
        editor.set_helper(Some(Assistant { names, style, runtime: Handle::current() }));
        // Terminals without cursor movement, and outputs that are none, are written to directly.
        let printer = editor.create_external_printer().ok();
        let mut threads = Vec::new();
        let prints = match printer {
            Some(mut printer) => {
                let (prints, mut waiting) = mpsc::channel::<String>(PRINTS_MAX);
                threads.push(thread::Builder::new().name("printer".into()).spawn(move || {
                    while let Some(text) = waiting.blocking_recv() {
                        if printer.print(text).is_err() {
                            return;
                        }
                    }
                })?);
                Some(prints)
            }
            None => None,
        };
        // One question at a time, and one answer to each.
        let (asks, asked) = std_mpsc::sync_channel(1);
        let (answers, typed) = mpsc::channel(1);
        threads.push(thread::Builder::new().name("editor".into()).spawn(move || {
            load_history(&mut editor, history.as_deref());
            while let Ok(ask) = asked.recv() {
                if answers.blocking_send(answer(&mut editor, ask, history.as_deref())).is_err() {
                    return;
                }
            }
        })?);
        Ok((Self { asks, typed, threads }, Printer { prints, backlog: VecDeque::new() }))
    }

    /// Shows the prompt and lets the person type. The line comes from [`Terminal::typed`]; ask again only then.
    pub(crate) fn ask(&self, prompt: String) {
        // The editor has answered what it was asked before, so there is room; if it is gone, `typed` says so.
        let _ = self.asks.try_send(Ask::Line(prompt));
    }

    /// Like [`Terminal::ask`], for a password: nothing is shown or kept.
    pub(crate) fn ask_password(&self, prompt: String) {
        let _ = self.asks.try_send(Ask::Password(prompt));
    }

    /// What the person did. Cancel-safe: it receives from a channel.
    pub(crate) async fn typed(&mut self) -> Typed {
        self.typed.recv().await.unwrap_or(Typed::End)
    }

    /// Gives the terminal back. Call it when the person is not being asked.
    pub(crate) async fn close(self, printer: Printer) {
        let Self { asks, typed, threads } = self;
        drop((asks, typed, printer));
        // The editor ends since nobody asks; with it goes what the printer writes to.
        let join =
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        drop(join.await);
    }
}

fn load_history(editor: &mut Editor<Assistant, DefaultHistory>, file: Option<&Path>) {
    let Some(file) = file else { return };
    // A first run has no history, and a history that cannot be read is worth no complaint.
    let _ = editor.load_history(file);
    if let Some(folder) = file.parent() {
        let _ = fs::create_dir_all(folder);
    }
}

fn answer(editor: &mut Editor<Assistant, DefaultHistory>, ask: Ask, history: Option<&Path>) -> Typed {
    let prompt = match ask {
        Ask::Password(prompt) => return rpassword::prompt_password(prompt).map_or(Typed::End, Typed::Line),
        Ask::Line(prompt) => prompt,
    };
    match editor.readline(&prompt) {
        Ok(line) => {
            if let Some(kept) = storable(&line) {
                // Not keeping a line is no reason to stop talking.
                let _ = editor.add_history_entry(kept);
                if let Some(file) = history {
                    let _ = editor.append_history(file);
                }
            }
            Typed::Line(line)
        }
        Err(ReadlineError::Interrupted) => Typed::Interrupted,
        Err(_) => Typed::End,
    }
}

/// What the editor knows while a line is typed.
struct Assistant {
    names: Names,
    style: Style,
    runtime: Handle,
}

impl Helper for Assistant {}
impl Validator for Assistant {}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.names.complete(&line[..pos], Some(&self.runtime)))
    }
}

/// Shown behind the cursor; the right arrow does not type it, since it is a description.
struct UsageHint(String);

impl Hint for UsageHint {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Assistant {
    type Hint = UsageHint;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<UsageHint> {
        if pos < line.len() { None } else { hint(line).map(UsageHint) }
    }
}

impl Highlighter for Assistant {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(self.style.green(prompt))
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(self.style.dim(hint))
    }
}
