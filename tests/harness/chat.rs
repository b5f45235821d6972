//! A user who has logged in, on a connection of its own.

use std::ops::{Deref, DerefMut};

use serde_json::Value;

use super::{Conn, PASSWORD, Server, eventually, ok, text, texts};

/// A connection with the token of its login. What is asked through it has the token filled in, as the reports'
/// clients do.
pub(crate) struct Chat {
    conn: Conn,
    /// The session's token.
    pub(crate) token: String,
}

impl Deref for Chat {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Chat {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

impl Chat {
    /// Logs in a demo account.
    #[track_caller]
    pub(crate) fn login(server: &Server, realm: &str, user: &str) -> Self {
        Self::login_with(server, realm, user, PASSWORD)
    }

    /// Logs in.
    #[track_caller]
    pub(crate) fn login_with(server: &Server, realm: &str, user: &str, password: &str) -> Self {
        let mut conn = server.connect(realm);
        let reply = ok(conn.ask(&format!("auth {user} {password}")));
        Self { token: text(&reply, "tokenid").to_owned(), conn }
    }

    /// A session that there is already, on a connection.
    pub(crate) fn resumed(conn: Conn, token: &str) -> Self {
        Self { conn, token: token.to_owned() }
    }

    /// Goes on with the session on another connection.
    pub(crate) fn move_to(&mut self, conn: Conn) {
        self.conn = conn;
    }

    /// Makes an account and logs in.
    #[track_caller]
    pub(crate) fn register(server: &Server, realm: &str, user: &str) -> Self {
        let mut conn = server.connect(realm);
        let reply = ok(conn.ask(&format!("register {user} {PASSWORD} Indonesia Si {user}")));
        Self { token: text(&reply, "tokenid").to_owned(), conn }
    }

    /// The same session on a new connection, for instance after a restart.
    #[track_caller]
    pub(crate) fn again(&self, server: &Server, realm: &str) -> Self {
        Self { conn: server.connect(realm), token: self.token.clone() }
    }

    /// The line with the token put after the command (and after a tag).
    pub(crate) fn line(&self, command: &str) -> String {
        let (tag, rest) = match command.split_once(' ') {
            Some((tag, rest)) if tag.starts_with('@') => (format!("{tag} "), rest),
            _ => (String::new(), command),
        };
        let (verb, args) = rest.split_once(' ').unwrap_or((rest, ""));
        format!("{tag}{verb} {} {args}", self.token)
    }

    /// Sends a command without waiting for its reply.
    #[track_caller]
    pub(crate) fn start(&mut self, command: &str) {
        let line = self.line(command);
        self.conn.send(&line);
    }

    /// Asks a command, with the token filled in.
    #[track_caller]
    pub(crate) fn cmd(&mut self, command: &str) -> Value {
        let line = self.line(command);
        self.conn.ask(&line)
    }

    /// Everything unread in the inbox, in order; senders are mixed only if there are several.
    #[track_caller]
    pub(crate) fn inbox(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let reply = ok(self.cmd("inbox"));
            let senders = reply["messages"].as_object().unwrap_or_else(|| panic!("not by sender: {reply}"));
            all.extend(
                senders.values().flat_map(|list| list.as_array().expect("a list of messages").clone()),
            );
            if reply["more"] != true {
                return all;
            }
        }
    }

    /// Waits until what this connection has read counts as read for others too: a cursor moves after its reply was
    /// written, and the next command of the connection waits for that.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        self.start("whoami");
        while self.conn.reply()["status"] != "OK" {}
    }

    /// Everything unread in a realm inbox, in order.
    #[track_caller]
    pub(crate) fn realm_inbox(&mut self, realm: &str) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let reply = ok(self.cmd(&format!("getrealminbox {realm}")));
            all.extend(reply["messages"].as_array().unwrap_or_else(|| panic!("not a list: {reply}")).clone());
            if reply["more"] != true {
                return all;
            }
        }
    }

    /// Reads a realm inbox until it has given `count` messages. Fails when it gives more.
    #[track_caller]
    pub(crate) fn realm_inbox_of(&mut self, realm: &str, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        eventually(&format!("{count} messages in the realm inbox for {realm}"), || {
            all.extend(self.realm_inbox(realm));
            (all.len() >= count).then_some(())
        });
        assert_eq!(all.len(), count, "{all:?}");
        all
    }

    /// Reads the inbox until it has given `count` messages. Fails when it gives more.
    #[track_caller]
    pub(crate) fn inbox_of(&mut self, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        eventually(&format!("{count} messages in the inbox"), || {
            all.extend(self.inbox());
            (all.len() >= count).then_some(())
        });
        assert_eq!(all.len(), count, "{all:?}");
        all
    }

    /// Everything that was said in a conversation, page by page, oldest first.
    #[track_caller]
    pub(crate) fn history(&mut self, with: &str) -> Vec<String> {
        let (mut all, mut before) = (Vec::new(), String::new());
        loop {
            let reply = ok(self.cmd(&format!("history {with} limit=200 {before}")));
            let page = reply["messages"].as_array().expect("a list").clone();
            let Some(first) = page.first() else { return all };
            before = format!("before={}", text(first, "id"));
            let page: Vec<String> = texts(&page).into_iter().map(str::to_owned).collect();
            all = [page, all].concat();
        }
    }

    /// The next event; what else comes is a mistake.
    #[track_caller]
    pub(crate) fn event(&mut self, kind: &str) -> Value {
        let event = self.conn.reply();
        assert_eq!(event["event"], kind, "{event}");
        event
    }

    /// The next event of this kind, others left out.
    #[track_caller]
    pub(crate) fn event_among(&mut self, kind: &str) -> Value {
        loop {
            let event = self.conn.reply();
            if event["event"] == kind {
                return event;
            }
            assert!(event["event"].is_string(), "a reply where an event was expected: {event}");
        }
    }
}
