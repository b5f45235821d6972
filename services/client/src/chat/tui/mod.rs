//! The full screen: conversations at the side, what was said, and a line to type.
//!
//! Owns: the login before it, and the order of keys, news and answers. Must not know what they mean (`state.rs`), nor how it
//! looks (`view.rs`).

mod editor;
mod file;
mod screen;
mod state;
mod talk;
mod view;

use std::io::{self, BufRead, Write};

use crossterm::event::{Event as Typed, EventStream};
use futures_util::StreamExt as _;
use tokio::task::JoinSet;

use crate::chat::input::{Input, Prepared, understand};
use crate::chat::link::Link;
use crate::chat::session::Session;
use crate::chat::tui::screen::Screen;
use crate::chat::tui::state::{Go, State};
use crate::chat::tui::view::Look;
use crate::chat::{ChatOptions, ChatOutcome};
use crate::error::RequestError;
use crate::reply::Reply;

/// Keys and news that are taken before the screen is drawn again.
const BATCH_MAX: usize = 64;

/// Talks until the person leaves.
pub(super) async fn run(options: &ChatOptions, colour: bool) -> ChatOutcome {
    let (mut link, session) = match log_in(options).await {
        Ok(logged_in) => logged_in,
        Err((outcome, why)) => return complain(outcome, &why),
    };
    link.keep(session.context.token.clone());
    let mut state = State::new(session, options.watch);
    let look = Look::new(colour, options.server.clone());
    let outcome = match Screen::open() {
        Ok(mut screen) => talk(&mut state, &mut link, &mut screen, &look).await,
        Err(error) => Err(error),
    };
    let told = match outcome {
        Ok(Go::SessionEnded) => complain(ChatOutcome::NotAuthorised, "the session has ended: log in again"),
        Ok(_) => ChatOutcome::Done,
        Err(error) => complain(ChatOutcome::Failed, &format!("the terminal: {error}")),
    };
    match state.unsent() {
        0 => told,
        count => complain(told, &format!("{count} messages had no answer yet")),
    }
}

fn complain(outcome: ChatOutcome, why: &str) -> ChatOutcome {
    let _ = writeln!(io::stderr().lock(), "{}", antar_proto::escape::escape(why));
    outcome
}

async fn talk(state: &mut State, link: &mut Link, screen: &mut Screen, look: &Look) -> io::Result<Go> {
    let mut keys = EventStream::new();
    let mut work: JoinSet<Result<Reply, RequestError>> = JoinSet::new();
    loop {
        if work.is_empty()
            && let (Some(next), Some(client)) = (state.outbox.front(), link.client())
            && !client.is_closed()
        {
            let (client, line) = (client.clone(), next.prepared.line.clone());
            work.spawn(async move { client.request(&line).await });
        }
        screen.0.draw(|frame| view::draw(state, frame, look))?;
        let mut go = step(state, link, &mut keys, &mut work).await?;
        // What is there already is taken before the screen is drawn again.
        for _ in 0..BATCH_MAX {
            if go != Go::On {
                break;
            }
            let more = tokio::select! {
                biased;
                more = step(state, link, &mut keys, &mut work) => Some(more),
                () = std::future::ready(()) => None,
            };
            match more {
                Some(more) => go = more?,
                None => break,
            }
        }
        if go != Go::On {
            return Ok(go);
        }
    }
}

/// The next thing that happens. Cancel-safe, as are all three that it waits for.
async fn step(
    state: &mut State,
    link: &mut Link,
    keys: &mut EventStream,
    work: &mut JoinSet<Result<Reply, RequestError>>,
) -> io::Result<Go> {
    tokio::select! {
        // Keys first: a flood of messages must not hold up the person.
        biased;
        typed = keys.next() => match typed {
            Some(Ok(Typed::Key(key))) => Ok(state.key(key)),
            Some(Ok(Typed::Paste(text))) => {
                state.paste(&text);
                Ok(Go::On)
            }
            // Another size: it is drawn again.
            Some(Ok(_)) => Ok(Go::On),
            Some(Err(error)) => Err(error),
            None => Ok(Go::Leave),
        },
        Some(answered) = work.join_next() => match answered {
            Ok(answer) => {
                if matches!(answer, Err(RequestError::Timeout(_))) {
                    // Whatever is wrong there, this connection does not help.
                    link.give_up();
                    state.lost = Some("the server does not answer".into());
                }
                Ok(state.answered(answer))
            }
            // The task neither panics nor is aborted; if it did end, the request is sent again.
            Err(_) => Ok(Go::On),
        },
        news = link.next() => Ok(state.news(&news)),
    }
}

/// Connects and logs in; asks for what is not known.
async fn log_in(options: &ChatOptions) -> Result<(Link, Session), (ChatOutcome, String)> {
    let link = Link::connect(&options.server, &options.client).await;
    let link = link.map_err(|error| (ChatOutcome::from(&error), error.to_string()))?;
    let mut session = Session::new(options, true);
    let nobody = || (ChatOutcome::Usage, "nobody to log in: --user USER".to_owned());
    let user = match &options.user {
        Some(user) => user.clone(),
        None => asked("user: ").ok_or_else(nobody)?,
    };
    if session.context.password.is_none() {
        let prompt = format!("password of {}: ", antar_proto::escape::escape(&user));
        let password = tokio::task::spawn_blocking(move || rpassword::prompt_password(prompt).ok()).await;
        session.context.password = password.ok().flatten();
    }
    for command in [format!("auth {user}"), "whoami".to_owned()] {
        let prepared: Prepared = match understand(&command, &session.context) {
            Ok(Input::Request(prepared)) => prepared,
            Ok(_) => return Err(nobody()),
            Err(error) => return Err((ChatOutcome::Usage, error.to_string())),
        };
        let client =
            link.client().ok_or_else(|| (ChatOutcome::Unreachable, "the connection is gone".to_owned()))?;
        let reply = client.request(&prepared.line).await;
        let reply = reply.map_err(|error| (ChatOutcome::from(&error), error.to_string()))?;
        if let Some(refusal) = reply.refusal() {
            return Err((ChatOutcome::of_code(refusal.known()), refusal.to_string()));
        }
        let _ = session.absorb(&prepared, &reply);
    }
    // It is not needed any more.
    session.context.password = None;
    Ok((link, session))
}

fn asked(prompt: &str) -> Option<String> {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{prompt}").and_then(|()| out.flush());
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).ok()?;
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
