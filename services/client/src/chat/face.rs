//! What a person sees of the connection: events, losses, and what they mean for the login.
//!
//! Owns: the order of what is shown, above the line being typed or below the last one. Must not know how a connection is
//! made, or how a line is understood.

use antar_proto::reply::Event;

use crate::chat::complete::{Names, Seen};
use crate::chat::exchange::Audience;
use crate::chat::link::{Link, News};
use crate::chat::render;
use crate::chat::session::Session;
use crate::chat::style::Style;
use crate::chat::terminal::{Printer, write_line};

/// Messages that may wait to be shown while a line is typed; more stay with the server.
const BACKLOG_MAX: usize = 1_024;

/// The screen, and what is known of the login.
pub(crate) struct Face {
    pub(crate) session: Session,
    pub(crate) printer: Printer,
    pub(crate) names: Names,
    pub(crate) style: Style,
    /// Show replies as received.
    pub(crate) json: bool,
    /// Show every step of a delivery.
    pub(crate) verbose: bool,
    /// The person is being asked for a line: what is shown must go above it.
    pub(crate) prompting: bool,
    /// The connection is new and the session was being watched.
    pub(crate) watch_due: bool,
}

impl Audience for Face {
    fn ready(&self) -> bool {
        !self.prompting || self.printer.len() < BACKLOG_MAX
    }

    fn note(&mut self, link: &mut Link, news: &News) {
        match news {
            News::Event(event) => self.event(link, event),
            News::Lost(reason) => {
                self.names.ask(None);
                self.show(&self.style.red(&format!("{reason}; connecting again")));
            }
            News::Restored { session_ended } => {
                let ended = *session_ended && self.session.end();
                self.watch_due = self.session.watching;
                self.renew(link);
                let text =
                    if ended { "connected again; the session has ended: auth" } else { "connected again" };
                self.show(&self.style.dim(text));
            }
        }
    }

    fn tell(&mut self, text: &str) {
        self.show(&self.style.dim(text));
    }
}

impl Face {
    fn event(&mut self, link: &mut Link, event: &Event) {
        if *event == Event::LoggedOut {
            if !self.session.end() {
                // The person logged out and was told so.
                return;
            }
            self.renew(link);
        }
        if let Event::Message { message, .. } = event {
            self.names.learn(Seen::in_json(&serde_json::json!({ "from": message.from })));
        }
        let me = self.session.me();
        if let Some(text) = render::event(event, me.as_deref(), self.verbose, &self.style) {
            self.show(&text);
        }
    }

    /// Tells link and names of the session as it is now.
    pub(crate) fn renew(&mut self, link: &mut Link) {
        let token = self.session.context.token.clone();
        self.names.ask(link.client().cloned().zip(token.clone()));
        link.keep(token);
    }

    /// Shows lines: above the line that is being typed, if one is.
    pub(crate) fn show(&mut self, text: &str) {
        if self.prompting {
            self.printer.push(text.to_owned());
        } else {
            write_line(text);
        }
    }
}
