//! The interactive mode: a person, a terminal, and a connection that comes back.
//!
//! Owns: the order of what happens on the screen, and what is sent again after a reconnection. Must not know how lines
//! are edited or replies worded.
//!
//! A send that had no answer when its connection broke is sent once more, under the same tag: a UUID of version 7, by
//! which the realm recognises it. Other commands are not repeated; the person is told.

use std::io::Write;
use std::time::Duration;

use antar_proto::reply::Event;
use tokio::time::{Instant, timeout_at};

use crate::calls::Token;
use crate::chat::complete::{Names, Seen};
use crate::chat::input::{Input, InputError, Prepared, understand};
use crate::chat::link::{Link, News};
use crate::chat::session::{Change, Session};
use crate::chat::style::Style;
use crate::chat::terminal::{Printer, Terminal, Typed, write_line};
use crate::chat::{ChatOptions, ChatOutcome, help, render};
use crate::error::RequestError;
use crate::reply::Reply;

/// How long a command waits for a connection that is being restored.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that may wait to be shown; more stay with the server.
const BACKLOG_MAX: usize = 1_024;

/// Why a command was not carried out, as far as is known.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("not connected; still trying. Nothing was sent")]
    NotConnected,
    #[error("{0}. It may have been carried out: look before you repeat it")]
    Unanswered(RequestError),
    #[error("{0}")]
    NotSent(RequestError),
}

struct Interactive {
    link: Link,
    session: Session,
    terminal: Terminal,
    printer: Printer,
    names: Names,
    style: Style,
    json: bool,
    verbose: bool,
    auto_watch: bool,
    /// The person is being asked for a line: what is shown must go above it.
    prompting: bool,
    /// The connection is new and the session was being watched.
    watch_due: bool,
}

/// Talks until the person leaves.
pub(crate) async fn run(options: &ChatOptions, style: Style, colour: bool) -> ChatOutcome {
    let names = Names::default();
    let link = match Link::connect(&options.server, &options.client).await {
        Ok(link) => link,
        Err(error) => {
            complain(&render::error(&error.to_string(), &style));
            return ChatOutcome::from(&error);
        }
    };
    let opened = Terminal::open(options.history_file.clone(), names.clone(), style.clone(), colour);
    let (terminal, printer) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            complain(&render::error(&error.to_string(), &style));
            return ChatOutcome::Failed;
        }
    };
    let mut chat = Interactive {
        link,
        session: Session::new(options, true),
        terminal,
        printer,
        names,
        style,
        json: options.json,
        verbose: options.verbose,
        auto_watch: options.watch,
        prompting: false,
        watch_due: false,
    };
    chat.show(&format!("connected to {}: auth USER to log in, /help for the rest", options.server));
    if options.user.is_some() {
        chat.line("auth").await;
    }
    chat.talk().await;
    let Interactive { terminal, printer, .. } = chat;
    terminal.close(printer).await;
    ChatOutcome::Done
}

impl Interactive {
    async fn talk(&mut self) {
        loop {
            match self.read_line().await {
                Typed::Line(line) => {
                    if !self.line(&line).await {
                        return;
                    }
                }
                Typed::Interrupted => self.show(&self.style.dim("/quit or Ctrl-D leaves")),
                Typed::End => return,
            }
        }
    }

    /// Lets the person type a line, and shows above it what happens meanwhile.
    async fn read_line(&mut self) -> Typed {
        self.terminal.ask(self.session.prompt());
        self.prompting = true;
        let typed = loop {
            // All three are cancel-safe, as each says.
            tokio::select! {
                typed = self.terminal.typed() => break typed,
                news = self.link.next(), if self.printer.len() < BACKLOG_MAX => {
                    self.note(&news);
                    self.settle().await;
                }
                () = self.printer.print_next() => {}
            }
        };
        self.prompting = false;
        self.printer.flush();
        typed
    }

    /// Carries out a line. Whether to go on.
    async fn line(&mut self, line: &str) -> bool {
        let mut understood = understand(line, &self.session.context);
        if let Err(InputError::NeedsPassword { user }) = &understood {
            self.terminal.ask_password(format!("password of {}: ", crate::chat::escape::escape(user)));
            let Typed::Line(password) = self.terminal.typed().await else { return true };
            // Only for this line: another user has another password.
            self.session.context.password = Some(password);
            understood = understand(line, &self.session.context);
            self.session.context.password = None;
        }
        match understood {
            Ok(Input::Empty) => {}
            Ok(Input::Quit) => return false,
            Ok(Input::Help(about)) => self.show(&help::text(about.as_deref())),
            Ok(Input::To(target)) => self.session.context.target = target,
            Ok(Input::Wait(_)) => self.show("messages are shown as they come in; /wait is for scripts"),
            Ok(Input::Request(prepared)) => self.command(&prepared).await,
            Err(error) => self.show(&render::error(&error.to_string(), &self.style)),
        }
        true
    }

    async fn command(&mut self, prepared: &Prepared) {
        match self.execute(prepared).await {
            Ok(reply) => {
                self.names.learn(Seen::in_json(&reply.json()));
                let change = self.session.absorb(prepared, &reply);
                let text = match self.json {
                    true => reply.as_str().to_owned(),
                    false => render::reply(prepared, &reply, self.session.me().as_deref(), &self.style),
                };
                self.show(&text);
                self.follow(change).await;
            }
            Err(failure) => self.show(&render::error(&failure.to_string(), &self.style)),
        }
        self.settle().await;
    }

    /// Sends a request and waits for its reply, showing what happens meanwhile. A repeatable one is sent once more if its
    /// connection broke, or if the server could not tell whether it was stored.
    async fn execute(&mut self, prepared: &Prepared) -> Result<Reply, Failure> {
        let mut tries_left = if prepared.repeatable { 2 } else { 1 };
        loop {
            tries_left -= 1;
            let client = self.connected().await?;
            let mut request = std::pin::pin!(client.request(&prepared.line));
            let answer = loop {
                tokio::select! {
                    biased;
                    answer = &mut request => break answer,
                    news = self.link.next() => self.note(&news),
                }
            };
            match answer {
                Ok(reply)
                    if tries_left > 0 && reply.refusal().is_some_and(|refusal| refusal.may_be_stored()) => {}
                Ok(reply) => return Ok(reply),
                Err(error @ RequestError::BadLine(_)) => return Err(Failure::NotSent(error)),
                Err(RequestError::Closed(_)) if tries_left > 0 => {
                    self.show(&self.style.dim("no answer; sending it again under the same id"));
                }
                Err(error @ RequestError::Timeout(_)) => {
                    // Whatever is wrong there, this connection does not help.
                    self.link.give_up();
                    return Err(Failure::Unanswered(error));
                }
                Err(error) => return Err(Failure::Unanswered(error)),
            }
        }
    }

    /// The connection; waits a while for it to come back.
    async fn connected(&mut self) -> Result<crate::Client, Failure> {
        let deadline = Instant::now() + RESTORE_TIMEOUT;
        let mut told = false;
        loop {
            match self.link.client() {
                // It may have ended without anybody having looked yet.
                Some(client) if !client.is_closed() => return Ok(client.clone()),
                None if !told => {
                    told = true;
                    self.show(&self.style.dim("waiting for the connection"));
                }
                _ => {}
            }
            let news = timeout_at(deadline, self.link.next()).await.map_err(|_| Failure::NotConnected)?;
            self.note(&news);
            self.settle().await;
        }
    }

    /// Shows what happened.
    fn note(&mut self, news: &News) {
        match news {
            News::Event(event) => self.event(event),
            News::Lost(reason) => {
                self.names.ask(None);
                self.show(&self.style.red(&format!("{reason}; connecting again")));
            }
            News::Restored { session_ended } => {
                let ended = *session_ended && self.session.end();
                self.watch_due = self.session.watching;
                self.renew();
                let text =
                    if ended { "connected again; the session has ended: auth" } else { "connected again" };
                self.show(&self.style.dim(text));
            }
        }
    }

    fn event(&mut self, event: &Event) {
        if *event == Event::LoggedOut {
            if !self.session.end() {
                // The person logged out and was told so.
                return;
            }
            self.renew();
        }
        if let Event::Message { message, .. } = event {
            self.names.learn(Seen::in_json(&serde_json::json!({ "from": message.from })));
        }
        let me = self.session.me();
        if let Some(text) = render::event(event, me.as_deref(), self.verbose, &self.style) {
            self.show(&text);
        }
    }

    /// Does what a login or logout needs besides.
    async fn follow(&mut self, change: Change) {
        self.renew();
        let Change::LoggedIn { watched_before } = change else { return };
        self.session.realm = None;
        if let Some(old) = watched_before {
            self.quietly("unwatch", Some(&old)).await;
        }
        self.quietly("whoami", None).await;
        if self.auto_watch {
            // Already now, so that it is not forgotten if the connection breaks before the reply.
            self.session.watching = true;
            self.quietly("watch", None).await;
        }
        self.quietly("connectedrealm", None).await;
    }

    /// Has new messages pushed on a new connection as they were on the old one.
    async fn settle(&mut self) {
        while std::mem::take(&mut self.watch_due) {
            self.quietly("watch", None).await;
        }
    }

    /// Asks for something that the person did not type; only what it changes is seen, and its errors.
    async fn quietly(&mut self, command: &str, token: Option<&Token>) {
        let context = &self.session.context;
        let Some(token) = token.or(context.token.as_ref()) else { return };
        let Ok(Input::Request(mut prepared)) = understand(command, context) else { return };
        prepared.line = format!("{command} {}", token.as_str());
        let Some(client) = self.link.client().cloned() else { return };
        let mut request = std::pin::pin!(client.request(&prepared.line));
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut request => break answer,
                news = self.link.next(), if self.printer.len() < BACKLOG_MAX => self.note(&news),
            }
        };
        if let Ok(reply) = answer {
            self.names.learn(Seen::in_json(&reply.json()));
            let _ = self.session.absorb(&prepared, &reply);
            if let Some(refusal) = reply.refusal() {
                self.show(&render::refusal(&refusal, &self.style));
            }
        }
    }

    /// Tells link and names of the session as it is now.
    fn renew(&mut self) {
        let token = self.session.context.token.clone();
        self.names.ask(self.link.client().cloned().zip(token.clone()));
        self.link.keep(token);
    }

    /// Shows lines: above the line that is being typed, if one is.
    fn show(&mut self, text: &str) {
        if self.prompting {
            self.printer.push(text.to_owned());
        } else {
            write_line(text);
        }
    }
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
