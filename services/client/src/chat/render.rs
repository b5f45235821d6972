//! Replies and events in words for people.
//!
//! Owns: what each reply looks like. Must not know where it is written. All that came from the server is escaped here.

use antar_proto::command::Verb;
use antar_proto::reply::{Event, Message, Online, State, StatusEvent};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::calls::{Inbox, Messages, Search, Sent};
use crate::chat::help;
use crate::chat::input::Prepared;
use crate::chat::style::Style;
use crate::error::Refusal;
use crate::reply::Reply;
use antar_proto::escape::escape;

/// Shows a reply: one or more lines, without the last line's end.
///
/// A reply without the fields that its command should have is shown field by field, as one to an unknown command is.
pub(crate) fn reply(prepared: &Prepared, reply: &Reply, me: Option<&str>, style: &Style) -> String {
    if let Some(refused) = reply.refusal() {
        return refusal(&refused, style);
    }
    let now = Timestamp::now();
    let shown = prepared.verb.and_then(|verb| known(verb, prepared, reply, &View { me, style, now }));
    shown.unwrap_or_else(|| fields(reply, style))
}

/// `error: MESSAGE (CODE) — detail`.
pub(crate) fn refusal(refusal: &Refusal, style: &Style) -> String {
    error(&refusal.to_string(), style)
}

/// `error: …`, for what went wrong on this side too.
pub(crate) fn error(text: &str, style: &Style) -> String {
    style.red(&format!("error: {}", escape(text)))
}

/// Who looks, how and when.
struct View<'a> {
    me: Option<&'a str>,
    style: &'a Style,
    now: Timestamp,
}

/// The reply to a command that this version knows; `None` if its fields are not there.
fn known(verb: Verb, prepared: &Prepared, reply: &Reply, view: &View<'_>) -> Option<String> {
    let about = |at: usize| escape(prepared.about.get(at).map_or("", String::as_str)).into_owned();
    match verb {
        Verb::Auth | Verb::Register => Some(format!("logged in as {}", about(0))),
        Verb::Logout => Some("logged out".into()),
        Verb::Passwd => Some("the password is changed; other sessions have ended".into()),
        Verb::Ping => Some("pong".into()),
        Verb::Watch => Some("new messages are shown as they come in".into()),
        Verb::Unwatch => Some("new messages wait in inbox and getrealminbox".into()),
        Verb::AddRealm => Some(format!("realm {} added", about(0))),
        Verb::Send | Verb::SendGroup => sent(reply, &about(0), view.style),
        Verb::SendPrivateRealm => sent(reply, &format!("{} in realm {}", about(1), about(0)), view.style),
        Verb::SendGroupRealm => sent(reply, &format!("group {} in realm {}", about(1), about(0)), view.style),
        Verb::Inbox => inbox(reply, view),
        Verb::GetRealmInbox => {
            let nothing = format!("no unread messages exchanged with {}", about(0));
            messages(reply, &nothing, |_| "there are more: the same command shows them".into(), view)
        }
        Verb::History => {
            let more = |first: &Message| format!("there is more: the same command with before={}", first.id);
            messages(reply, "nothing was said", more, view)
        }
        Verb::Search => search(reply, view),
        Verb::Block => Some(format!("{} is blocked", about(0))),
        Verb::Unblock => Some(format!("{} is no longer blocked", about(0))),
        Verb::List => list(reply),
        Verb::GetPresence => presence(reply, &about(0)),
        Verb::WhoAmI => whoami(reply),
        Verb::Users => rows(reply, "users", "nobody", view.style),
        Verb::ConnectedRealm => rows(reply, "realms", "no realms: addrealm REALM HOST PORT", view.style),
        // The server's own list has the token in it, which people do not type.
        Verb::Help => Some(help::text(prepared.about.first().map(String::as_str))),
        Verb::SendFile
        | Verb::SendGroupFile
        | Verb::SendFileRealm
        | Verb::SendGroupFileRealm
        | Verb::GetFile => None,
        Verb::Files => rows(reply, "files", "no files", view.style),
        Verb::Groups => rows(reply, "groups", "no groups: addgroup GROUP, or joingroup GROUP", view.style),
        Verb::Status
        | Verb::Capabilities
        | Verb::Blocks
        | Verb::AddGroup
        | Verb::JoinGroup
        | Verb::LeaveGroup
        | Verb::Members
        | Verb::InviteGroup
        | Verb::KickGroup
        | Verb::Topic => None,
    }
}

fn sent(reply: &Reply, to: &str, style: &Style) -> Option<String> {
    let sent: Sent = reply.read().ok()?;
    let mut line = format!("message sent to {to} {}", style.dim(&format!("({})", sent.message_id)));
    if sent.duplicate {
        line += "; it had been stored before";
    }
    for (names, why) in [(&sent.unknown, "no such user"), (&sent.full, "their mailbox is full")] {
        if !names.is_empty() {
            line += &style.red(&format!("\nnot sent to {}: {why}", escape(&names.join(", "))));
        }
    }
    Some(line)
}

fn inbox(reply: &Reply, view: &View<'_>) -> Option<String> {
    let inbox: Inbox = reply.read().ok()?;
    let mut lines = Vec::new();
    for (sender, messages) in &inbox.messages {
        let name = messages.first().map_or("", |message| message.msg_from.as_str());
        lines.push(format!("{} ({}):", view.style.bold(&escape(sender)), escape(name)));
        lines.extend(messages.iter().map(|message| {
            format!("  {} {}", view.style.clock(&message.ts, view.now), escape(&message.msg))
        }));
    }
    if lines.is_empty() {
        lines.push("no unread messages from this realm".into());
    }
    if inbox.more {
        lines.push("there are more: inbox again".into());
    }
    Some(lines.join("\n"))
}

/// `more` words that the reply is not all there is, from its first message.
fn messages(
    reply: &Reply,
    nothing: &str,
    more: impl Fn(&Message) -> String,
    view: &View<'_>,
) -> Option<String> {
    let page: Messages = reply.read().ok()?;
    let mut lines: Vec<_> = page.messages.iter().map(|message| message_line(message, view)).collect();
    if lines.is_empty() {
        lines.push(nothing.into());
    }
    lines.extend(page.messages.first().filter(|_| page.more).map(more));
    Some(lines.join("\n"))
}

/// The oldest first, as all else is shown.
fn search(reply: &Reply, view: &View<'_>) -> Option<String> {
    let Search { messages, next } = reply.read().ok()?;
    let mut lines: Vec<_> = messages.iter().rev().map(|found| message_line(&found.message, view)).collect();
    if lines.is_empty() {
        lines.push("nothing found".into());
    }
    lines.extend(next.map(|next| {
        format!("not everything was looked at: the same command with before={} goes on", escape(&next))
    }));
    Some(lines.join("\n"))
}

/// `[14:03] lineker@realm2 -> you: text`.
fn message_line(message: &Message, view: &View<'_>) -> String {
    let clock = view.style.clock(&message.ts, view.now);
    if message.kind.as_deref() == Some("notice") {
        return format!("{clock} notice from {}: {}", escape(&message.from), escape(&message.msg));
    }
    let person = |address: &str| match view.me {
        Some(me) if me == address => "you".to_owned(),
        _ => escape(address).into_owned(),
    };
    let from = view.style.bold(&person(&message.from));
    format!("{clock} {from} -> {}: {}", person(&message.to), escape(&message.msg))
}

fn list(reply: &Reply) -> Option<String> {
    #[derive(Deserialize)]
    struct List {
        messages: String,
    }
    let list: List = reply.read().ok()?;
    let names: Vec<_> = list.messages.split(',').filter(|name| !name.is_empty()).collect();
    Some(format!("active users: {}", escape(&names.join(", "))))
}

fn presence(reply: &Reply, user: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Presence {
        online: bool,
    }
    let Presence { online } = reply.read().ok()?;
    Some(format!("{user} is {}", if online { "logged in" } else { "not logged in" }))
}

/// The reply to `whoami`.
#[derive(Debug, Deserialize)]
pub(crate) struct Identity {
    /// Name to log in with.
    pub(crate) user: String,
    /// Of the server.
    pub(crate) realm: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    country: String,
}

fn whoami(reply: &Reply) -> Option<String> {
    let me: Identity = reply.read().ok()?;
    let mut line = format!("{}@{}", me.user, me.realm);
    let known: Vec<_> = [me.name, me.country].into_iter().filter(|text| !text.is_empty()).collect();
    if !known.is_empty() {
        line += &format!(" ({})", known.join(", "));
    }
    Some(escape(&line).into_owned())
}

fn rows(reply: &Reply, field: &str, nothing: &str, style: &Style) -> Option<String> {
    let json = reply.json();
    let rows = json.get(field)?.as_array()?;
    let mut shown = if rows.is_empty() { nothing.to_owned() } else { table(rows, style)? };
    if json.get("more") == Some(&Value::Bool(true)) {
        shown += "\nthere are more";
    }
    Some(shown)
}

/// A list of objects, one a row. The columns are those of the first row, as the server ordered them, and then others.
fn table(rows: &[Value], style: &Style) -> Option<String> {
    let mut header: Vec<String> = Vec::new();
    for row in rows {
        let new = row.as_object()?.keys().filter(|key| !header.contains(key)).cloned().collect::<Vec<_>>();
        header.extend(new);
    }
    let cells =
        |row: &Value| header.iter().map(|key| row.get(key).map_or_else(String::new, scalar)).collect();
    Some(style.table(&header, &rows.iter().map(cells).collect::<Vec<_>>()))
}

/// Each field on its own, for replies of which only the form is known.
fn fields(reply: &Reply, style: &Style) -> String {
    let all: Map<String, Value> = reply.read().unwrap_or_default();
    let told = all.iter().filter(|(key, _)| !matches!(key.as_str(), "status" | "id"));
    let lines: Vec<_> = told
        .map(|(key, value)| {
            let key = escape(key);
            match value {
                Value::Array(rows) if !rows.is_empty() && rows.iter().all(Value::is_object) => {
                    format!("{key}:\n{}", table(rows, style).unwrap_or_default())
                }
                Value::Object(map) => {
                    let inner = map
                        .iter()
                        .map(|(key, value)| format!("\n  {}: {}", escape(key), escape(&scalar(value))));
                    format!("{key}:{}", inner.collect::<String>())
                }
                value => format!("{key}: {}", escape(&scalar(value))),
            }
        })
        .collect();
    if lines.is_empty() { "OK".into() } else { lines.join("\n") }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(scalar).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Shows what was pushed; `None` for what is not worth a line: steps of a delivery that goes well, unless `verbose`.
pub(crate) fn event(event: &Event, me: Option<&str>, verbose: bool, style: &Style) -> Option<String> {
    match event {
        Event::Message { message, .. } => {
            Some(message_line(message, &View { me, style, now: Timestamp::now() }))
        }
        Event::Status(status) => status_line(status, verbose, style),
        Event::Presence { user, state } => {
            let state = if *state == Online::Online { "online" } else { "offline" };
            verbose.then(|| style.dim(&format!("{user} is {state}")))
        }
        Event::Shutdown => Some(style.dim("the server is shutting down")),
        Event::LoggedOut => Some(style.dim("the session has ended: log in again with auth")),
    }
}

fn status_line(status: &StatusEvent, verbose: bool, style: &Style) -> Option<String> {
    let users: Vec<_> = status.users.iter().map(|user| format!("{user}@{}", status.realm)).collect();
    let whom = if users.is_empty() { status.realm.to_string() } else { users.join(", ") };
    let ids = status.ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let reason = status.reason.as_deref().map_or_else(String::new, |reason| format!(": {}", escape(reason)));
    match status.state {
        State::Failed => Some(style.red(&format!("not delivered to {whom}{reason} ({ids})"))),
        State::Delivered if verbose => Some(style.dim(&format!("delivered to {whom} ({ids})"))),
        State::Read if verbose => Some(style.dim(&format!("read by {whom} ({ids})"))),
        State::Accepted | State::Stored | State::Delivered | State::Read => None,
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
