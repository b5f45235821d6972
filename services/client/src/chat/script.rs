//! The scripted mode: commands one after another on one connection, until the first that fails.
//!
//! Owns: what scripts can rely on: order, output, and the outcome. Must not know terminals. There is no reconnecting
//! here: a script gets exit code 3 and decides itself. What it wants to repeat safely it tags with a UUID v7.

use std::io::{self, Write};
use std::time::Duration;

use antar_proto::reply::Event;
use tokio::sync::mpsc;

use crate::chat::input::{Input, InputError, Prepared, understand};
use crate::chat::session::Session;
use crate::chat::style::Style;
use crate::chat::transfer::{Job, Transfer};
use crate::chat::{ChatOptions, ChatOutcome, help, render};
use crate::client::{Client, Events};
use crate::error::RequestError;
use crate::reply::Reply;

/// Where commands come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The command line.
    Given(std::vec::IntoIter<String>),
    /// Standard input, line by line.
    Stream(mpsc::Receiver<io::Result<String>>),
}

impl Source {
    async fn next(&mut self) -> Option<io::Result<String>> {
        match self {
            Self::Given(commands) => commands.next().map(Ok),
            Self::Stream(lines) => lines.recv().await,
        }
    }
}

/// Asks a person for a password; `None` if there is nobody to ask.
pub(crate) type AskPassword<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// Where things are written. A write that fails ends the script: whoever reads it is gone.
pub(crate) struct Output<'a> {
    /// Replies.
    pub(crate) out: &'a mut (dyn Write + Send),
    /// What went wrong.
    pub(crate) err: &'a mut (dyn Write + Send),
}

/// How a step ends the script early.
struct Stop(ChatOutcome);

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self(ChatOutcome::Failed)
    }
}

struct Script<'a> {
    client: Client,
    events: Option<Events>,
    session: Session,
    style: Style,
    json: bool,
    verbose: bool,
    output: Output<'a>,
    ask_password: AskPassword<'a>,
}

/// Runs the commands of `source`.
pub(crate) async fn run<'a>(
    options: &ChatOptions,
    mut source: Source,
    style: Style,
    output: Output<'a>,
    ask_password: AskPassword<'a>,
) -> ChatOutcome {
    let (client, events) = match Client::connect(&options.server, &options.client).await {
        Ok(connected) => connected,
        Err(error) => {
            // Nowhere left to tell it if this fails too; the outcome says it.
            let _ = writeln!(output.err, "{}", render::error(&error.to_string(), &style));
            return ChatOutcome::from(&error);
        }
    };
    let session = Session::new(options, false);
    let (json, verbose) = (options.json, options.verbose);
    let mut script =
        Script { client, events: Some(events), session, style, json, verbose, output, ask_password };
    let outcome = match script.run(&mut source).await {
        Ok(()) => ChatOutcome::Done,
        Err(Stop(outcome)) => outcome,
    };
    // Output may be a buffer; what was answered is to be seen even when a later command failed.
    match script.output.out.flush() {
        Err(_) if outcome == ChatOutcome::Done => ChatOutcome::Failed,
        _ => outcome,
    }
}

impl Script<'_> {
    async fn run(&mut self, source: &mut Source) -> Result<(), Stop> {
        let mut login = self.session.context.user.is_some();
        while let Some(line) = source.next().await {
            let line = match line {
                Ok(line) => line,
                Err(error) => return self.fail(&error.to_string(), ChatOutcome::Usage),
            };
            // A script that logs in itself means another login than that of the options.
            let first = line.split_whitespace().find(|word| !word.starts_with('@')).unwrap_or_default();
            if std::mem::take(&mut login) && !matches!(&*first.to_ascii_lowercase(), "auth" | "register") {
                self.step("auth", self.json).await?;
            }
            self.step(&line, false).await?;
        }
        // What was pushed is marked read, so it must be shown.
        while let Some(event) = self.events.as_mut().and_then(Events::try_next) {
            self.event(Some(event))?;
        }
        Ok(())
    }

    /// Carries out one line. If `quiet`, only a failure is shown.
    async fn step(&mut self, line: &str, quiet: bool) -> Result<(), Stop> {
        let mut understood = understand(line, &self.session.context);
        if let Err(InputError::NeedsPassword { user }) = &understood
            && let Some(password) = (self.ask_password)(user)
        {
            self.session.context.password = Some(password);
            // Only for this line: another user has another password.
            understood = understand(line, &self.session.context);
            self.session.context.password = None;
        }
        match understood {
            Ok(Input::Empty) => Ok(()),
            Ok(Input::Quit) => Err(Stop(ChatOutcome::Done)),
            Ok(Input::Help(about)) => self.print(&help::text(about.as_deref())),
            Ok(Input::To(target)) => {
                self.session.context.target = target;
                Ok(())
            }
            Ok(Input::Wait(seconds)) => self.wait(seconds).await,
            Ok(Input::File(job)) => self.transfer(&job).await,
            Ok(Input::Request(prepared)) => self.request(&prepared, quiet).await,
            Err(error @ InputError::NotLoggedIn(_)) => {
                self.fail(&error.to_string(), ChatOutcome::NotAuthorised)
            }
            Err(error) => self.fail(&error.to_string(), ChatOutcome::Usage),
        }
    }

    async fn request(&mut self, prepared: &Prepared, quiet: bool) -> Result<(), Stop> {
        let reply = match self.answer(prepared).await? {
            Ok(reply) => reply,
            Err(error) => return self.fail(&error.to_string(), ChatOutcome::from(&error)),
        };
        let _ = self.session.absorb(prepared, &reply);
        let refusal = reply.refusal();
        if refusal.is_some() || !quiet {
            let text = match self.json {
                true => reply.as_str().to_owned(),
                false => render::reply(prepared, &reply, self.session.me().as_deref(), &self.style),
            };
            // An error is a reply like others for a program, and a complaint for a person.
            if refusal.is_some() && !self.json {
                writeln!(self.output.err, "{text}")?
            } else {
                self.print(&text)?
            }
        }
        match refusal {
            Some(refusal) => Err(Stop(ChatOutcome::of_code(refusal.known()))),
            None => Ok(()),
        }
    }

    /// Sends or saves a file.
    async fn transfer(&mut self, job: &Job) -> Result<(), Stop> {
        let mut transfer = match Transfer::begin(job) {
            Ok(transfer) => transfer,
            Err(why) => return self.fail(&why, ChatOutcome::Failed),
        };
        while let Some(token) = self.session.context.token.clone() {
            let prepared = match transfer.next(&token) {
                Ok(Some(prepared)) => prepared,
                Ok(None) if self.json => return self.print(&transfer.done_json().to_string()),
                Ok(None) => return self.print(&antar_proto::escape::escape(&transfer.done())),
                Err(why) => return self.fail(&why, ChatOutcome::Failed),
            };
            let reply = match self.answer(&prepared).await? {
                Ok(reply) => reply,
                Err(error) => return self.fail(&error.to_string(), ChatOutcome::from(&error)),
            };
            let _ = self.session.absorb(&prepared, &reply);
            if let Some(refusal) = reply.refusal() {
                return self.fail(&refusal.to_string(), ChatOutcome::of_code(refusal.known()));
            }
            if let Err(why) = transfer.take(&reply) {
                return self.fail(&why, ChatOutcome::Failed);
            }
        }
        self.fail("the session has ended", ChatOutcome::NotAuthorised)
    }

    /// The reply to a request; meanwhile events are shown, since they would hold up the reply otherwise.
    async fn answer(&mut self, prepared: &Prepared) -> Result<Result<Reply, RequestError>, Stop> {
        let client = self.client.clone();
        let mut request = std::pin::pin!(client.request(&prepared.line));
        loop {
            tokio::select! {
                // The reply to `watch` is to stand before what it pushes.
                biased;
                answer = &mut request => return Ok(answer),
                event = next_event(&mut self.events) => self.event(event)?,
            }
        }
    }

    /// Shows events until the time is over or, without a time, until the connection ends.
    async fn wait(&mut self, seconds: Option<u64>) -> Result<(), Stop> {
        let over = async {
            match seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        let mut over = std::pin::pin!(over);
        while self.events.is_some() {
            self.output.out.flush()?;
            tokio::select! {
                event = next_event(&mut self.events) => self.event(event)?,
                () = &mut over => return Ok(()),
            }
        }
        self.fail("the connection has ended", ChatOutcome::Unreachable)
    }

    fn event(&mut self, event: Option<Event>) -> Result<(), Stop> {
        let Some(event) = event else {
            self.events = None;
            return Ok(());
        };
        if !self.session.watching && !matches!(event, Event::Message { .. }) {
            // A script that asked for no events gets replies only; a message is shown in any case, since it is read now.
            return Ok(());
        }
        if self.json {
            let mut frame = Vec::new();
            antar_proto::json::write_frame(&mut frame, &event);
            return self.print(String::from_utf8_lossy(&frame).trim_end());
        }
        match render::event(&event, self.session.me().as_deref(), self.verbose, &self.style) {
            Some(text) => self.print(&text),
            None => Ok(()),
        }
    }

    fn print(&mut self, text: &str) -> Result<(), Stop> {
        writeln!(self.output.out, "{text}")?;
        Ok(self.output.out.flush()?)
    }

    fn fail(&mut self, text: &str, outcome: ChatOutcome) -> Result<(), Stop> {
        writeln!(self.output.err, "{}", render::error(text, &self.style))?;
        Err(Stop(outcome))
    }
}

/// The next event, `None` when there will be no more; never ready once that was said. Cancel-safe, as
/// [`Events::next`] is.
async fn next_event(events: &mut Option<Events>) -> Option<Event> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
