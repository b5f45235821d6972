//! The interactive mode: a person, a terminal, and a connection that comes back.
//!
//! Owns: the order of what happens on the screen, and what is sent again after a reconnection. Must not know how lines
//! are edited or replies worded.

use std::io::Write;

use crate::calls::Token;
use crate::chat::complete::{Names, Seen};
use crate::chat::exchange::{Audience, answer, execute};
use crate::chat::face::Face;
use crate::chat::input::{Input, InputError, Prepared, understand};
use crate::chat::link::Link;
use crate::chat::session::{Change, Session};
use crate::chat::style::Style;
use crate::chat::terminal::{Terminal, Typed};
use crate::chat::transfer::{Job, Transfer};
use crate::chat::{ChatOptions, ChatOutcome, help, render};

struct Interactive {
    link: Link,
    terminal: Terminal,
    face: Face,
    auto_watch: bool,
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
    let face = Face {
        session: Session::new(options, true),
        printer,
        names,
        style,
        json: options.json,
        verbose: options.verbose,
        prompting: false,
        watch_due: false,
    };
    let mut chat = Interactive { link, terminal, face, auto_watch: options.watch };
    chat.face.show(&format!("connected to {}: auth USER to log in, /help for the rest", options.server));
    if options.user.is_some() {
        chat.line("auth").await;
    }
    chat.talk().await;
    let Interactive { terminal, face, .. } = chat;
    terminal.close(face.printer).await;
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
                Typed::Interrupted => self.face.show(&self.face.style.dim("/quit or Ctrl-D leaves")),
                Typed::End => return,
            }
        }
    }

    /// Lets the person type a line, and shows above it what happens meanwhile.
    async fn read_line(&mut self) -> Typed {
        self.terminal.ask(self.face.session.prompt());
        self.face.prompting = true;
        let typed = loop {
            // All three are cancel-safe, as each says.
            tokio::select! {
                typed = self.terminal.typed() => break typed,
                news = self.link.next(), if self.face.ready() => {
                    self.face.note(&mut self.link, &news);
                    self.settle().await;
                }
                () = self.face.printer.print_next() => {}
            }
        };
        self.face.prompting = false;
        self.face.printer.flush();
        typed
    }

    /// Carries out a line. Whether to go on.
    async fn line(&mut self, line: &str) -> bool {
        let mut understood = understand(line, &self.face.session.context);
        if let Err(InputError::NeedsPassword { user }) = &understood {
            self.terminal.ask_password(format!("password of {}: ", antar_proto::escape::escape(user)));
            let Typed::Line(password) = self.terminal.typed().await else { return true };
            // Only for this line: another user has another password.
            self.face.session.context.password = Some(password);
            understood = understand(line, &self.face.session.context);
            self.face.session.context.password = None;
        }
        match understood {
            Ok(Input::Empty) => {}
            Ok(Input::Quit) => return false,
            Ok(Input::Help(about)) => self.face.show(&help::text(about.as_deref())),
            Ok(Input::To(target)) => self.face.session.context.target = target,
            Ok(Input::Wait(_)) => self.face.show("messages are shown as they come in; /wait is for scripts"),
            Ok(Input::File(job)) => {
                if let Err(why) = self.transfer(&job).await {
                    self.face.show(&render::error(&why, &self.face.style));
                }
                self.settle().await;
            }
            Ok(Input::Request(prepared)) => self.command(&prepared).await,
            Err(error) => self.face.show(&render::error(&error.to_string(), &self.face.style)),
        }
        true
    }

    async fn command(&mut self, prepared: &Prepared) {
        match execute(&mut self.link, &mut self.face, prepared).await {
            Ok(reply) => {
                self.face.names.learn(Seen::in_json(&reply.json()));
                let change = self.face.session.absorb(prepared, &reply);
                let text = match self.face.json {
                    true => reply.as_str().to_owned(),
                    false => {
                        render::reply(prepared, &reply, self.face.session.me().as_deref(), &self.face.style)
                    }
                };
                self.face.show(&text);
                self.follow(change).await;
            }
            Err(failure) => self.face.show(&render::error(&failure.to_string(), &self.face.style)),
        }
        self.settle().await;
    }

    /// Sends or saves a file. A connection that breaks meanwhile is waited for, as with a message.
    async fn transfer(&mut self, job: &Job) -> Result<(), String> {
        let mut transfer = Transfer::begin(job)?;
        while let Some(token) = self.face.session.context.token.clone() {
            let Some(prepared) = transfer.next(&token)? else {
                self.face.show(&antar_proto::escape::escape(&transfer.done()));
                return Ok(());
            };
            let reply = execute(&mut self.link, &mut self.face, &prepared).await;
            let reply = reply.map_err(|failure| failure.to_string())?;
            let _ = self.face.session.absorb(&prepared, &reply);
            if let Some(refusal) = reply.refusal() {
                return Err(refusal.to_string());
            }
            transfer.take(&reply)?;
        }
        Err("the session has ended".into())
    }

    /// Does what a login or logout needs besides.
    async fn follow(&mut self, change: Change) {
        self.face.renew(&mut self.link);
        let Change::LoggedIn { watched_before } = change else { return };
        self.face.session.realm = None;
        if let Some(old) = watched_before {
            self.quietly("unwatch", Some(&old)).await;
        }
        self.quietly("whoami", None).await;
        if self.auto_watch {
            // Already now, so that it is not forgotten if the connection breaks before the reply.
            self.face.session.watching = true;
            self.quietly("watch", None).await;
        }
        self.quietly("connectedrealm", None).await;
    }

    /// Has new messages pushed on a new connection as they were on the old one.
    async fn settle(&mut self) {
        while std::mem::take(&mut self.face.watch_due) {
            self.quietly("watch", None).await;
        }
    }

    /// Asks for something that the person did not type; only what it changes is seen, and its errors. With another token
    /// than the session's, nothing is.
    async fn quietly(&mut self, command: &str, other: Option<&Token>) {
        let context = &self.face.session.context;
        let Some(token) = other.or(context.token.as_ref()) else { return };
        let Ok(Input::Request(mut prepared)) = understand(command, context) else { return };
        prepared.line = format!("{command} {}", token.as_str());
        let Some(client) = self.link.client().cloned() else { return };
        let answer = answer(&mut self.link, &mut self.face, &client, &prepared.line).await;
        let (Ok(reply), None) = (answer, other) else { return };
        self.face.names.learn(Seen::in_json(&reply.json()));
        let _ = self.face.session.absorb(&prepared, &reply);
        if let Some(refusal) = reply.refusal() {
            self.face.show(&render::refusal(&refusal, &self.face.style));
        }
    }
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
