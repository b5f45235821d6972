//! Typed calls: one for each command that a program is likely to use, on top of [`Client::request`].
//!
//! Owns: the lines of these commands and the shapes of their replies. Must not know how they are shown.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use antar_proto::reply::{Found, Message};
use antar_proto::{MessageId, RealmId};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::{CallError, RequestError};
use crate::reply::Reply;

/// A session token. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Takes a token that was kept from an earlier connection.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The token as text: a secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A send that was stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sent {
    /// The message's id.
    pub message_id: MessageId,
    /// Receivers that do not exist and got no copy.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// Receivers whose mailbox is full and that got no copy.
    #[serde(default)]
    pub full: Vec<String>,
    /// It had been stored before, under the same id.
    #[serde(default)]
    pub duplicate: bool,
}

/// Unread messages from the own realm.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Inbox {
    /// By the sender's user name, oldest first.
    pub messages: BTreeMap<String, Vec<Message>>,
    /// There are more: the next call returns them.
    #[serde(default)]
    pub more: bool,
}

/// Unread messages exchanged with a realm, or a page of history.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Messages {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// There are more.
    #[serde(default)]
    pub more: bool,
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Search {
    /// Newest first.
    pub messages: Vec<Found>,
    /// Where to go on, for what is older; nothing if that was all.
    #[serde(default)]
    pub next: Option<String>,
}

/// The reply to `auth` and `register`.
#[derive(Deserialize)]
struct Opened {
    tokenid: Token,
}

/// A reply of which only the OK counts.
#[derive(Deserialize)]
struct Empty {}

impl Client {
    /// Logs in.
    pub async fn auth(&self, user: &str, password: &str) -> Result<Token, CallError> {
        let opened: Opened = self.call("auth", &[&user, &password], None).await?;
        Ok(opened.tokenid)
    }

    /// Makes an account, if the realm lets it, and logs in.
    pub async fn register(
        &self,
        user: &str,
        password: &str,
        country: &str,
        name: &str,
    ) -> Result<Token, CallError> {
        let opened: Opened = self.call("register", &[&user, &password, &country], Some(name)).await?;
        Ok(opened.tokenid)
    }

    /// Sends to one user, `henderson` or `lineker@realm2`. OK means stored.
    pub async fn send(&self, token: &Token, to: &str, text: &str) -> Result<Sent, CallError> {
        self.call("send", &[&token.0, &to], Some(text)).await
    }

    /// Sends to several users. The names that do not exist are in [`Sent::unknown`].
    pub async fn send_group(&self, token: &Token, to: &[&str], text: &str) -> Result<Sent, CallError> {
        self.call("sendgroup", &[&token.0, &to.join(",")], Some(text)).await
    }

    /// Sends to a user of another realm.
    pub async fn send_private_realm(
        &self,
        token: &Token,
        realm: &RealmId,
        to: &str,
        text: &str,
    ) -> Result<Sent, CallError> {
        self.call("sendprivaterealm", &[&token.0, realm, &to], Some(text)).await
    }

    /// Sends to a group that spans this realm and another one.
    pub async fn send_group_realm(
        &self,
        token: &Token,
        realm: &RealmId,
        to: &[&str],
        text: &str,
    ) -> Result<Sent, CallError> {
        self.call("sendgrouprealm", &[&token.0, realm, &to.join(",")], Some(text)).await
    }

    /// Takes unread messages of the own realm and marks them read.
    pub async fn inbox(&self, token: &Token) -> Result<Inbox, CallError> {
        self.call("inbox", &[&token.0], None).await
    }

    /// Takes unread messages exchanged with a realm and marks them read.
    pub async fn realm_inbox(&self, token: &Token, realm: &RealmId) -> Result<Messages, CallError> {
        self.call("getrealminbox", &[&token.0, realm], None).await
    }

    /// Messages that have all of these words, newest first; with the [`Search::next`] of a reply what is older. A reply with
    /// nothing in it is not the end as long as it says where to go on.
    pub async fn search(&self, token: &Token, words: &str, next: Option<&str>) -> Result<Search, CallError> {
        let text = match next {
            Some(place) => format!("{words} before={place}"),
            None => words.to_owned(),
        };
        self.call("search", &[&token.0], Some(&text)).await
    }

    /// Users with a live session.
    pub async fn list(&self, token: &Token) -> Result<Vec<String>, CallError> {
        #[derive(Deserialize)]
        struct List {
            messages: String,
        }
        let list: List = self.call("list", &[&token.0], None).await?;
        Ok(list.messages.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// Adds another realm. `host` and `port` are for people to see.
    pub async fn add_realm(
        &self,
        token: &Token,
        realm: &RealmId,
        host: &str,
        port: u16,
    ) -> Result<(), CallError> {
        let Empty {} = self.call("addrealm", &[&token.0, realm, &host, &port], None).await?;
        Ok(())
    }

    /// Has new messages pushed on this connection: take them from [`crate::Events`].
    pub async fn watch(&self, token: &Token) -> Result<(), CallError> {
        let Empty {} = self.call("watch", &[&token.0], None).await?;
        Ok(())
    }

    /// Ends [`Client::watch`].
    pub async fn unwatch(&self, token: &Token) -> Result<(), CallError> {
        let Empty {} = self.call("unwatch", &[&token.0], None).await?;
        Ok(())
    }

    /// Ends the session; the token is dead.
    pub async fn logout(&self, token: &Token) -> Result<(), CallError> {
        let Empty {} = self.call("logout", &[&token.0], None).await?;
        Ok(())
    }

    /// Asks for any answer.
    pub async fn ping(&self) -> Result<(), CallError> {
        let Empty {} = self.call("ping", &[], None).await?;
        Ok(())
    }

    /// Sends a command with a fresh tag: a UUID of version 7, so that for a send it is the message's id, and the reply
    /// provably belongs to it.
    async fn call<T: DeserializeOwned>(
        &self,
        command: &'static str,
        words: &[&(dyn Display + Sync)],
        text: Option<&str>,
    ) -> Result<T, CallError> {
        let line = line(command, words, text)?;
        let reply = self.request(&line).await?;
        read(command, &reply)
    }
}

/// The request line of a command. A word that is empty or holds a space would shift those after it.
fn line(command: &str, words: &[&(dyn Display + Sync)], text: Option<&str>) -> Result<String, RequestError> {
    let mut line = format!("@{} {command}", MessageId::fresh().0.simple());
    for word in words {
        let word = word.to_string();
        if word.is_empty() || word.contains(' ') {
            return Err(RequestError::BadLine("an argument is one word"));
        }
        line.push(' ');
        line.push_str(&word);
    }
    if let Some(text) = text {
        if text.trim_matches(' ').is_empty() {
            return Err(RequestError::BadLine("the text is empty"));
        }
        line.push(' ');
        line.push_str(text);
    }
    Ok(line)
}

fn read<T: DeserializeOwned>(command: &'static str, reply: &Reply) -> Result<T, CallError> {
    match reply.refusal() {
        Some(refusal) => Err(CallError::Refused(Box::new(refusal))),
        None => reply.read().map_err(|error| CallError::Unexpected { command, reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_can_never_become_two() {
        for bad in ["", "a b", " "] {
            assert!(line("auth", &[&bad, &"pw"], None).is_err(), "{bad:?}");
        }
        assert!(line("send", &[&"T", &"messi"], Some("  ")).is_err());
    }

    #[test]
    fn a_call_carries_a_tag_that_is_a_message_id() {
        let line = line("send", &[&"T", &"messi"], Some("halo  bang")).unwrap();
        let request = antar_proto::parse::parse(line.as_bytes()).unwrap().unwrap();
        assert!(request.tag.unwrap().message_id().is_some());
        assert!(line.ends_with(" send T messi halo  bang"));
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        assert!(!format!("{:?}", Token::new("secret")).contains("secret"));
    }
}
