//! What each command does, except sends. A handler asks the realm and writes one reply; it never touches the socket.

use std::time::Duration;

use antar_broker::{KvError, ReadError};
use antar_proto::command::{COMMANDS, Command, CommandSpec, Receiver, Verb, With, lookup};
use antar_proto::error::LOGOUT_NOT_AUTHORIZED;
use antar_proto::json::write_frame;
use antar_proto::reply::{Empty, Failure, Message, Ok as OkReply, State};
use antar_proto::{ErrorCode, MessageId, RealmId, Tag, UserName};
use antar_realm::{
    AddRealmError, Feed, LoginError, ReadMark, SearchResult, SessionKey, Unread, UnreadMessage,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::connection::Connection;
use crate::files::Request;

/// Most accounts in one reply to `users`.
const USERS_MAX: usize = 500;

/// How long a command may take in which a password is hashed; every other one has the time of an acknowledgement.
const HASH_TIME: Duration = Duration::from_secs(30);

/// How long a part of a file may take: with the last one the whole is read once more.
pub(crate) const FILE_TIME: Duration = Duration::from_secs(60);

/// What a command leaves behind for the connection to do.
#[derive(Default)]
pub(crate) struct Executed {
    /// To be marked read once the reply is written.
    pub(crate) marks: Vec<ReadMark>,
    pub(crate) feed: FeedChange,
    /// Token, key and user of a session that was opened or used.
    pub(crate) login: Option<(Box<str>, SessionKey, UserName)>,
}

/// What becomes of what `watch` pushes.
#[derive(Default)]
pub(crate) enum FeedChange {
    #[default]
    Keep,
    Start(Box<Feed>),
    Stop,
}

/// Why a command is answered ERROR.
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    message: Option<&'static str>,
    pub(crate) detail: String,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, detail: String::new() }
    }
}

impl Refusal {
    pub(crate) fn detailed(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, message: None, detail: detail.into() }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        tracing::warn!(%error, "a command could not be carried out");
        ErrorCode::Unavailable.into()
    }
}

impl From<KvError> for Refusal {
    fn from(error: KvError) -> Self {
        tracing::warn!(%error, "a command could not be carried out");
        ErrorCode::Unavailable.into()
    }
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        if let LoginError::Unavailable(_) = &error {
            tracing::warn!(%error, "a command could not be carried out");
        }
        let code = error.code();
        let detail = match &error {
            LoginError::RegistrationClosed(_) | LoginError::Account(_) => error.to_string(),
            _ => String::new(),
        };
        Self { code, message: None, detail }
    }
}

impl From<AddRealmError> for Refusal {
    fn from(error: AddRealmError) -> Self {
        match error {
            AddRealmError::NoSuchRealm => ErrorCode::NoSuchRealm.into(),
            AddRealmError::Exists => ErrorCode::RealmExists.into(),
            AddRealmError::Blocked(why) => Self::detailed(ErrorCode::RealmBlocked, why),
            AddRealmError::KeyChanged(why) => Self::detailed(ErrorCode::KeyChanged, why),
            AddRealmError::Refused(why) => Self::detailed(ErrorCode::BadRequest, why),
            AddRealmError::Unavailable(error) => {
                tracing::warn!(error, "a realm could not be added");
                ErrorCode::Unavailable.into()
            }
        }
    }
}

/// Fields of a reply that says OK.
pub(crate) fn fields(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|_| Value::Object(Map::new()))
}

pub(crate) type Handled = Result<Value, Refusal>;

impl Connection {
    /// Carries out a command and writes its reply.
    pub(crate) async fn execute(
        &mut self,
        tag: Option<Tag<'_>>,
        verb: Verb,
        command: Command<'_>,
    ) -> Executed {
        let mut executed = Executed::default();
        let is_logout = matches!(command, Command::Logout { .. });
        let mut reply = Vec::new();
        // A password takes as long as it takes to be hashed, when many log in at once.
        let hashes =
            matches!(command, Command::Auth { .. } | Command::Register { .. } | Command::Passwd { .. });
        let time = match &command {
            Command::SendFile { .. } => FILE_TIME,
            _ if hashes => HASH_TIME,
            _ => self.edge.config.ack_time,
        };
        let handled = match tokio::time::timeout(time, self.handle(tag, command, &mut executed)).await {
            Ok(handled) => handled,
            Err(_) => {
                tracing::warn!("a command could not be carried out in time");
                executed = Executed::default();
                Err(ErrorCode::Unavailable.into())
            }
        };
        self.edge.counts.command(Some(verb), handled.as_ref().err().map(|refusal| refusal.code));
        match handled {
            Ok(body) => write_frame(&mut reply, &OkReply::new(tag, body)),
            Err(mut refusal) => {
                if is_logout && refusal.code == ErrorCode::NotAuthorized {
                    refusal.message = Some(LOGOUT_NOT_AUTHORIZED);
                }
                let failure = Failure::new(tag, refusal.code).detail(&refusal.detail);
                write_frame(&mut reply, &failure.message(refusal.message.unwrap_or(refusal.code.message())));
            }
        }
        self.say(&reply);
        executed
    }

    async fn handle(
        &mut self,
        tag: Option<Tag<'_>>,
        command: Command<'_>,
        executed: &mut Executed,
    ) -> Handled {
        match command {
            Command::Auth { user, password } => {
                let token = self.edge.realm.login(user, password, self.address).await?;
                Ok(self.opened(token, executed))
            }
            Command::Register { user, password, country, name, invite } => {
                let token = self.edge.realm.register(user, password, country, name, invite).await?;
                Ok(self.opened(token, executed))
            }
            Command::AddRealm { token, realm, host, port } => self.add_realm(token, realm, host, port).await,
            Command::Ping => Ok(json!({"message": "pong"})),
            Command::Help { command } => help(command),
            Command::Capabilities => Ok(self.capabilities()),
            Command::Logout { token } => self.logout(token, executed).await,
            Command::Passwd { token, old, new } => self.passwd(token, old, new).await,
            Command::List { token } => {
                self.user(token).await?;
                let online = self.edge.realm.online();
                let names: String = online.iter().map(|(user, _)| format!("{user},")).collect();
                Ok(json!({"messages": names}))
            }
            Command::Inbox { token } => {
                let user = self.user(token).await?;
                let unread = self.edge.realm.inbox(&user).await?;
                Ok(inbox(unread, executed))
            }
            Command::GetRealmInbox { token, realm } => {
                let user = self.user(token).await?;
                let realm = realm.ok_or(ErrorCode::NoSuchRealm)?;
                let unread =
                    self.edge.realm.realm_inbox(&user, &realm).await?.ok_or(ErrorCode::NoSuchRealm)?;
                Ok(realm_inbox(unread, executed))
            }
            Command::Watch { token } => {
                let user = self.user(token).await?;
                executed.feed = FeedChange::Start(Box::new(self.edge.realm.watch(&user).await?));
                Ok(json!({"watching": true}))
            }
            Command::Unwatch { token } => {
                self.user(token).await?;
                executed.feed = FeedChange::Stop;
                Ok(json!({"watching": false}))
            }
            Command::History { token, with, before, limit } => {
                let user = self.user(token).await?;
                if let With::Group(group) = &with {
                    self.edge.realm.may_read_group(&user, group).await?;
                }
                let history = self.edge.realm.history(&user, &with, before, limit).await?;
                let history = history.ok_or(ErrorCode::NoSuchMessage)?;
                Ok(with_more(json!({"messages": history.messages}), history.more))
            }
            Command::Search { token, group, words, before, limit } => {
                let user = self.user(token).await?;
                if let Some(group) = &group {
                    self.edge.realm.may_read_group(&user, group).await?;
                }
                let result = self.edge.realm.search(&user, group.as_ref(), &words, before, limit).await?;
                let SearchResult { found, next } = result.ok_or(ErrorCode::NoSuchMessage)?;
                let more = next.is_some();
                Ok(with_more(
                    with(json!({"messages": found}), "next", next.map(|next| next.to_string())),
                    more,
                ))
            }
            Command::Block { token, whom, blocked } => self.block(token, whom, blocked).await,
            Command::Blocks { token } => self.blocks(token).await,
            Command::Status { token, id } => self.status(token, id).await,
            Command::ConnectedRealm { token } => {
                self.user(token).await?;
                Ok(json!({"realms": self.edge.realm.peers().await?}))
            }
            Command::SendFile { token, to, name, base64, upload } => {
                self.send_file(token, Request { tag, to: &to, name, base64, upload }).await
            }
            Command::GetFile { token, id, part } => self.get_file(token, id, part).await,
            Command::Files { token } => self.list_files(token).await,
            Command::WhoAmI { token } => self.who_am_i(token).await,
            Command::Users { token, prefix } => {
                self.user(token).await?;
                let (users, more) = self.edge.realm.users(prefix, USERS_MAX);
                let users: Vec<_> =
                    users.into_iter().map(|(user, name)| json!({"user": user, "name": name})).collect();
                Ok(with_more(json!({"users": users}), more))
            }
            Command::GetPresence { token, user } => self.presence(token, &user).await,
            Command::AddGroup { token, group, policy } => self.add_group(token, group, policy).await,
            Command::JoinGroup { token, group } => self.join_group(token, group).await,
            Command::LeaveGroup { token, group } => self.leave_group(token, group).await,
            Command::Groups { token } => self.groups(token).await,
            Command::Members { token, group } => self.members(token, group).await,
            Command::InviteGroup { token, group, user } => self.invite_to_group(token, group, user).await,
            Command::KickGroup { token, group, user } => self.kick_from_group(token, group, user).await,
            Command::Topic { token, group, text } => self.topic(token, group, text).await,
            // Sends to a realm that cannot be, and to named groups; all other sends never come here.
            Command::SendPrivateRealm { token, .. } | Command::SendGroupRealm { token, .. } => {
                self.user(token).await?;
                Err(ErrorCode::NoSuchRealm.into())
            }
            Command::SendNamedGroup { token, .. } => {
                self.user(token).await?;
                Err(ErrorCode::NoSuchGroup.into())
            }
            Command::Send { token, .. } | Command::SendGroup { token, .. } => {
                self.user(token).await?;
                Err(ErrorCode::NoSuchUser.into())
            }
        }
    }

    /// Whose token this is.
    pub(crate) async fn user(&mut self, token: &str) -> Result<UserName, Refusal> {
        match self.session(token) {
            Some(user) => Ok(user),
            None => self.session_elsewhere(token).await?.ok_or_else(|| ErrorCode::NotAuthorized.into()),
        }
    }

    /// Likewise, with its key.
    async fn key(&mut self, token: &str) -> Result<(SessionKey, UserName), Refusal> {
        match self.edge.realm.session(token) {
            Some(found) => Ok(found),
            None => {
                let found = self.edge.realm.session_anywhere(token).await?;
                found.ok_or_else(|| ErrorCode::NotAuthorized.into())
            }
        }
    }

    fn opened(&self, token: String, executed: &mut Executed) -> Value {
        executed.login = self.edge.realm.session(&token).map(|(key, user)| (token.clone().into(), key, user));
        json!({"tokenid": token})
    }

    async fn add_realm(
        &mut self,
        token: Option<&str>,
        realm: Option<RealmId>,
        host: &str,
        port: u16,
    ) -> Handled {
        let user = match token {
            Some(token) => self.user(token).await?,
            None => {
                let login = self.login.as_ref().filter(|login| self.edge.realm.is_live(&login.key));
                login.map(|login| login.user.clone()).ok_or(ErrorCode::NotAuthorized)?
            }
        };
        let realm = realm.ok_or(ErrorCode::NoSuchRealm)?;
        self.edge.realm.add_realm(&user, &realm, host, port).await?;
        Ok(fields(Empty {}))
    }

    async fn logout(&mut self, token: &str, executed: &mut Executed) -> Handled {
        let (key, user) = self.key(token).await?;
        self.edge.realm.logout(&key, &user).await?;
        if self.watches_for(&key) {
            executed.feed = FeedChange::Stop;
        }
        Ok(json!({"messages": "logout telah berhasil, Terimakasih telah menggunakan Chat :)"}))
    }

    async fn passwd(&mut self, token: &str, old: &str, new: &str) -> Handled {
        let (key, user) = self.key(token).await?;
        self.edge.realm.passwd(&user, &key, old, new, self.address).await?;
        Ok(fields(Empty {}))
    }

    async fn status(&mut self, token: &str, id: Option<MessageId>) -> Handled {
        let user = self.user(token).await?;
        let id = id.ok_or(ErrorCode::NoSuchMessage)?;
        let status = self.edge.realm.status(&user, id).await?.ok_or(ErrorCode::NoSuchMessage)?;
        let receivers = status.receivers.into_iter().map(|(address, state, reason)| Receipt {
            user: address.to_string(),
            state,
            reason,
        });
        let receivers: Vec<_> = receivers.collect();
        Ok(json!({"message_id": id, "state": status.state, "receivers": receivers}))
    }

    async fn who_am_i(&mut self, token: &str) -> Handled {
        let user = self.user(token).await?;
        let (name, country) = self.edge.realm.profile(&user).ok_or(ErrorCode::NotAuthorized)?;
        let realm = self.edge.realm.id();
        let address = self.edge.realm.address(&user);
        Ok(json!({"user": user, "realm": realm, "address": address, "name": name, "country": country}))
    }

    async fn presence(&mut self, token: &str, user: &Receiver) -> Handled {
        self.user(token).await?;
        let user = match user {
            Receiver::User(user) => user,
            Receiver::Qualified(address) if address.realm == *self.edge.realm.id() => &address.user,
            _ => return Err(ErrorCode::NoSuchUser.into()),
        };
        let sessions = self.edge.realm.presence(user).ok_or(ErrorCode::NoSuchUser)?;
        Ok(json!({"user": user, "online": sessions > 0, "sessions": sessions}))
    }

    fn capabilities(&self) -> Value {
        let config = self.edge.realm.config();
        let commands: Vec<_> = COMMANDS.iter().flat_map(|spec| spec.names).collect();
        json!({
            "server": "antar",
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": 1,
            "realm": config.id,
            "name": config.name,
            "register": config.registration,
            "line_bytes_max": self.edge.config.line_bytes_max,
            "pipeline_max": self.edge.config.pipeline_max,
            "file_bytes_max": config.file_bytes_max,
            "features": ["tags", "message-id-tags", "watch", "status", "history", "search", "block", "files", "groups"],
            "commands": commands,
        })
    }
}

/// What became of a message at one receiver.
#[derive(Serialize)]
struct Receipt {
    user: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Adds a field, if there is a value.
fn with(mut body: Value, name: &str, value: Option<impl Into<Value>>) -> Value {
    if let (Some(value), Value::Object(map)) = (value, &mut body) {
        map.insert(name.into(), value.into());
    }
    body
}

fn with_more(mut body: Value, more: bool) -> Value {
    if let (true, Value::Object(map)) = (more, &mut body) {
        map.insert("more".into(), Value::Bool(true));
    }
    body
}

/// Unread messages by sender, each sender's in order.
fn inbox(unread: Unread, executed: &mut Executed) -> Value {
    let mut senders: Vec<(String, Vec<Message>)> = Vec::new();
    for UnreadMessage { sender, message, .. } in unread.messages {
        match senders.iter_mut().find(|(known, _)| *known == sender) {
            Some((_, messages)) => messages.push(message),
            None => senders.push((sender, vec![message])),
        }
    }
    executed.marks = unread.marks;
    let map: Map<String, Value> =
        senders.into_iter().map(|(sender, messages)| (sender, fields(messages))).collect();
    with_more(json!({"messages": map}), unread.more)
}

fn realm_inbox(unread: Unread, executed: &mut Executed) -> Value {
    executed.marks = unread.marks;
    let messages: Vec<_> = unread.messages.into_iter().map(|unread| unread.message).collect();
    with_more(json!({"messages": messages}), unread.more)
}

fn help(command: Option<&str>) -> Handled {
    let row = |spec: &CommandSpec| json!({"command": spec.names[0], "names": spec.names, "usage": usage(spec), "summary": spec.summary});
    match command {
        None => Ok(json!({"commands": COMMANDS.iter().map(row).collect::<Vec<_>>()})),
        Some(name) => match lookup(name) {
            Some(spec) => Ok(json!({"commands": [row(spec)]})),
            None => Err(Refusal::detailed(ErrorCode::UnknownCommand, "no such command: help lists them")),
        },
    }
}

fn usage(spec: &CommandSpec) -> String {
    format!("{} {}", spec.names[0], spec.usage).trim_end().to_owned()
}
