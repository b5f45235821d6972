//! What `chat` knows of the login: who, with which token, talking to whom.
//!
//! Owns: how replies change it. Must not know connections or terminals.

use antar_proto::MessageId;
use antar_proto::command::Verb;
use serde::Deserialize;

use crate::calls::Token;
use crate::chat::ChatOptions;
use crate::chat::input::{Context, Prepared, Target};
use crate::chat::render::Identity;
use crate::reply::Reply;

/// The login and the conversation.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// What lines are understood with; the token and the user stand here.
    pub(crate) context: Context,
    /// The server's realm, once known.
    pub(crate) realm: Option<String>,
    /// New messages are pushed.
    pub(crate) watching: bool,
}

/// What a reply changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that concerns the connection.
    None,
    /// A session has begun. The one before, if there was one, is still alive.
    LoggedIn {
        /// Its token, if it was being watched.
        watched_before: Option<Token>,
    },
    /// The session is over.
    LoggedOut,
}

impl Session {
    /// Nobody is logged in yet.
    pub(crate) fn new(options: &ChatOptions, tag_sends: bool) -> Self {
        let context = Context {
            user: options.user.clone(),
            password: options.password.clone(),
            tag_sends,
            ..Context::default()
        };
        Self { context, realm: None, watching: false }
    }

    /// `user@realm`, as messages name this user.
    pub(crate) fn me(&self) -> Option<String> {
        self.context.token.as_ref()?;
        Some(format!("{}@{}", self.context.user.as_ref()?, self.realm.as_ref()?))
    }

    /// `messi@realm1> `, with a conversation `messi@realm1 -> henderson> `, and `antar> ` before login.
    pub(crate) fn prompt(&self) -> String {
        let me = match (&self.context.token, &self.context.user) {
            (Some(_), Some(user)) => self.me().unwrap_or_else(|| user.clone()),
            _ => "antar".into(),
        };
        match self.context.target.as_ref().map(Target::as_str) {
            Some(target) => format!("{me} -> {target}> "),
            None => format!("{me}> "),
        }
    }

    /// Learns from the reply to a request.
    pub(crate) fn absorb(&mut self, prepared: &Prepared, reply: &Reply) -> Change {
        if !reply.is_ok() {
            let dead = reply.refusal().is_some_and(|refusal| refusal.code == "not-authorized");
            // A token that the server does not know will not come back to life. `auth` never answers this code.
            return if dead && prepared.verb.is_some() && self.end() {
                Change::LoggedOut
            } else {
                Change::None
            };
        }
        match prepared.verb {
            Some(Verb::Auth | Verb::Register) => self.log_in(prepared, reply),
            Some(Verb::Logout) => {
                self.end();
                Change::LoggedOut
            }
            Some(verb @ (Verb::Watch | Verb::Unwatch)) => {
                self.watching = verb == Verb::Watch;
                Change::None
            }
            Some(Verb::WhoAmI) => {
                if let Ok(Identity { user, realm, .. }) = reply.read::<Identity>() {
                    (self.context.user, self.realm) = (Some(user), Some(realm));
                }
                Change::None
            }
            Some(
                Verb::Send
                | Verb::SendGroup
                | Verb::SendPrivateRealm
                | Verb::SendGroupRealm
                | Verb::SendFile
                | Verb::SendGroupFile,
            ) => {
                #[derive(Deserialize)]
                struct Id {
                    message_id: MessageId,
                }
                if let Ok(Id { message_id }) = reply.read() {
                    self.context.last_sent = Some(message_id);
                }
                Change::None
            }
            _ => Change::None,
        }
    }

    fn log_in(&mut self, prepared: &Prepared, reply: &Reply) -> Change {
        #[derive(Deserialize)]
        struct Opened {
            tokenid: Token,
        }
        let Ok(Opened { tokenid }) = reply.read() else { return Change::None };
        let before = self.context.token.replace(tokenid);
        if let Some(user) = prepared.about.first() {
            self.context.user = Some(user.clone());
        }
        let watched_before = if std::mem::take(&mut self.watching) { before } else { None };
        Change::LoggedIn { watched_before }
    }

    /// Forgets the token. Whether there was one.
    pub(crate) fn end(&mut self) -> bool {
        self.watching = false;
        self.context.token.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::input::{Input, understand};
    use crate::reply::Frame;

    fn step(session: &mut Session, typed: &str, json: &str) -> Change {
        let Ok(Input::Request(prepared)) = understand(typed, &session.context) else { panic!("{typed}") };
        let Frame::Reply(reply) = Frame::parse(json.as_bytes()).unwrap() else { panic!("{json}") };
        session.absorb(&prepared, &reply)
    }

    const OK: &str = r#"{"status":"OK"}"#;

    #[test]
    fn a_session_begins_with_auth_and_ends_with_logout() {
        let mut session = Session::new(&ChatOptions::default(), false);
        assert_eq!(session.prompt(), "antar> ");
        let first = step(&mut session, "auth messi x", r#"{"status":"OK","tokenid":"one"}"#);
        assert_eq!(first, Change::LoggedIn { watched_before: None });
        assert_eq!(session.prompt(), "messi> ");
        step(&mut session, "whoami", r#"{"status":"OK","user":"messi","realm":"realm1"}"#);
        assert_eq!(
            (session.prompt().as_str(), session.me().as_deref()),
            ("messi@realm1> ", Some("messi@realm1"))
        );
        step(&mut session, "watch", OK);
        let second = step(&mut session, "auth lineker x", r#"{"status":"OK","tokenid":"two"}"#);
        assert_eq!(second, Change::LoggedIn { watched_before: Some(Token::new("one")) });
        assert_eq!(step(&mut session, "logout", OK), Change::LoggedOut);
        assert_eq!((session.context.token, session.watching), (None, false));
    }

    #[test]
    fn a_dead_token_is_forgotten_and_a_wrong_password_changes_nothing() {
        let mut session = Session::new(&ChatOptions::default(), false);
        step(&mut session, "auth messi x", r#"{"status":"OK","tokenid":"one"}"#);
        let wrong =
            step(&mut session, "auth messi y", r#"{"status":"ERROR","code":"bad-password","message":""}"#);
        assert_eq!((wrong, session.context.token.is_some()), (Change::None, true));
        let dead = step(&mut session, "inbox", r#"{"status":"ERROR","code":"not-authorized","message":""}"#);
        assert_eq!((dead, session.context.token), (Change::LoggedOut, None));
    }

    #[test]
    fn a_send_is_remembered_for_status() {
        let mut session = Session::new(&ChatOptions::default(), false);
        session.context.token = Some(Token::new("T"));
        let id = MessageId::fresh();
        step(&mut session, "send a hi", &format!(r#"{{"status":"OK","message_id":"{id}"}}"#));
        assert_eq!(session.context.last_sent, Some(id));
    }
}
