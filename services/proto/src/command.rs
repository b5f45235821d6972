//! The commands: one table of what there is, and what each of them carries.

use serde::{Deserialize, Serialize};

use crate::file::Upload;
use crate::names::{Address, GroupAddress, GroupName, MessageId, RealmId, UserName};

/// Most receivers that one send may name.
pub const RECEIVERS_MAX: usize = 1024;
/// Most entries that one `history` returns.
pub const HISTORY_LIMIT_MAX: usize = 200;
/// What `history` returns if not told how many.
pub const HISTORY_LIMIT_DEFAULT: usize = 50;

/// Most entries that one `search` returns.
pub const SEARCH_LIMIT_MAX: usize = 100;
/// What `search` returns if not told how many.
pub const SEARCH_LIMIT_DEFAULT: usize = 20;
/// Most words of one `search`.
pub const SEARCH_WORDS_MAX: usize = 8;

/// A command, whatever name it was called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described in COMMANDS")]
pub enum Verb {
    Auth,
    Send,
    SendGroup,
    List,
    Inbox,
    Logout,
    AddRealm,
    SendPrivateRealm,
    SendGroupRealm,
    GetRealmInbox,
    AddGroup,
    JoinGroup,
    LeaveGroup,
    Groups,
    Members,
    InviteGroup,
    KickGroup,
    Topic,
    Register,
    Passwd,
    WhoAmI,
    Users,
    GetPresence,
    Watch,
    Unwatch,
    History,
    Search,
    Block,
    Unblock,
    Blocks,
    Status,
    ConnectedRealm,
    SendFile,
    SendGroupFile,
    SendFileRealm,
    SendGroupFileRealm,
    GetFile,
    Files,
    Ping,
    Help,
    Capabilities,
}

/// Most arguments of any command.
pub(crate) const ARGS_MAX: usize = 5;

/// What the table says of a command.
#[derive(Debug)]
pub struct CommandSpec {
    /// Which it is.
    pub verb: Verb,
    /// Its names, the usual one first. Lower case; a request may use any case.
    pub names: &'static [&'static str],
    /// Its arguments, for people.
    pub usage: &'static str,
    /// Fewer are a `bad-request`.
    pub args_min: usize,
    /// More are a `bad-request`; the last one takes the rest of the line if [`Self::text`] is set.
    pub args_max: usize,
    /// The last argument is TEXT: it keeps its spaces.
    pub text: bool,
    /// Its first argument is a session token.
    pub session: bool,
    /// What it does, in one line.
    pub summary: &'static str,
}

macro_rules! commands {
    ($($verb:ident [$($name:literal)+] $usage:literal $min:literal..=$max:literal text=$text:literal session=$session:literal $summary:literal;)*) => {
        /// Every command there is.
        pub const COMMANDS: &[CommandSpec] = &[$(CommandSpec {
            verb: Verb::$verb,
            names: &[$($name),+],
            usage: $usage,
            args_min: $min,
            args_max: $max,
            text: $text,
            session: $session,
            summary: $summary,
        }),*];
    };
}

commands! {
    Auth ["auth"] "USER PASSWORD" 2..=2 text=false session=false "logs in; the reply has the session token";
    Register ["register"] "USER PASSWORD COUNTRY NAME... [invite=CODE]" 4..=4 text=true session=false "makes an account and logs in";
    Send ["send" "sendprivate"] "TOKEN USER[@REALM] TEXT" 3..=3 text=true session=true "sends to one user";
    SendGroup ["sendgroup"] "TOKEN USER,USER,...|#GROUP TEXT" 3..=3 text=true session=true "sends to several users, or to a group";
    Inbox ["inbox" "getinbox"] "TOKEN" 1..=1 text=false session=true "unread messages from this realm; marks them read";
    List ["list"] "TOKEN" 1..=1 text=false session=true "users with a live session";
    Logout ["logout"] "TOKEN" 1..=1 text=false session=true "ends the session";
    AddRealm ["addrealm"] "[TOKEN] REALM HOST PORT" 3..=4 text=false session=false "adds another realm, so that both can send to each other";
    SendPrivateRealm ["sendprivaterealm"] "TOKEN REALM USER TEXT" 4..=4 text=true session=true "sends to a user of another realm";
    SendGroupRealm ["sendgrouprealm"] "TOKEN REALM USER,USER,... TEXT" 4..=4 text=true session=true "sends to users of another realm and of this one";
    GetRealmInbox ["getrealminbox"] "TOKEN REALM" 2..=2 text=false session=true "unread messages exchanged with a realm; marks them read";
    ConnectedRealm ["connectedrealm"] "TOKEN" 1..=1 text=false session=true "the realms added, each with its state and queue";
    SendFile ["sendfile"] "TOKEN USER NAME BASE64 [part=K/N size=BYTES id=ID] [sha256=HEX]" 4..=4 text=true session=true "sends a file to one user, whole or in parts";
    SendGroupFile ["sendgroupfile"] "TOKEN USER,USER,...|#GROUP NAME BASE64 [part=K/N size=BYTES id=ID] [sha256=HEX]" 4..=4 text=true session=true "sends a file to several users, or to a group";
    SendFileRealm ["sendfilerealm"] "TOKEN REALM USER NAME BASE64 [part=K/N size=BYTES id=ID] [sha256=HEX]" 5..=5 text=true session=true "sends a file to one user of another realm";
    SendGroupFileRealm ["sendgroupfilerealm"] "TOKEN REALM USER,USER,... NAME BASE64 [part=K/N size=BYTES id=ID] [sha256=HEX]" 5..=5 text=true session=true "sends a file to users of another realm and of this one";
    GetFile ["getfile"] "TOKEN ID [part=K]" 2..=3 text=false session=true "a file that you were sent, or have sent, or one part of it";
    Files ["files"] "TOKEN" 1..=1 text=false session=true "the files that you were sent, or have sent, newest first";
    AddGroup ["addgroup"] "TOKEN GROUP [open|invite]" 2..=3 text=false session=true "makes a group that you own";
    JoinGroup ["joingroup"] "TOKEN GROUP" 2..=2 text=false session=true "joins a group that is open, or that you were invited to";
    LeaveGroup ["leavegroup"] "TOKEN GROUP" 2..=2 text=false session=true "leaves a group, or declines its invitation";
    Groups ["groups"] "TOKEN" 1..=1 text=false session=true "your groups and invitations";
    Members ["members"] "TOKEN GROUP" 2..=2 text=false session=true "who is in a group of yours";
    InviteGroup ["invitegroup"] "TOKEN GROUP USER" 3..=3 text=false session=true "invites a user to a group";
    KickGroup ["kickgroup"] "TOKEN GROUP USER" 3..=3 text=false session=true "removes a user from a group that you own";
    Topic ["topic"] "TOKEN GROUP [TEXT]" 2..=3 text=true session=true "shows a group's topic, or sets it";
    Watch ["watch"] "TOKEN" 1..=1 text=false session=true "pushes new messages on this connection, the unread ones first";
    Unwatch ["unwatch"] "TOKEN" 1..=1 text=false session=true "ends watch";
    History ["history"] "TOKEN [USER|@REALM|USER@REALM|#GROUP] [before=ID] [limit=N]" 1..=4 text=false session=true "what was said, newest last, read or not";
    Search ["search"] "TOKEN [#GROUP] WORDS [before=PLACE] [limit=N]" 2..=2 text=true session=true "messages that have all these words, newest first";
    Status ["status"] "TOKEN ID" 2..=2 text=false session=true "where a message that you sent is";
    Block ["block"] "TOKEN USER[@REALM]" 2..=2 text=false session=true "refuses messages from a user, as if you did not exist";
    Unblock ["unblock"] "TOKEN USER[@REALM]" 2..=2 text=false session=true "ends block";
    Blocks ["blocks"] "TOKEN" 1..=1 text=false session=true "whom you have blocked";
    WhoAmI ["whoami"] "TOKEN" 1..=1 text=false session=true "whose session this is";
    Users ["users"] "TOKEN [PREFIX]" 1..=2 text=false session=true "accounts of this realm";
    GetPresence ["getpresence"] "TOKEN USER" 2..=2 text=false session=true "whether a user has a live session";
    Passwd ["passwd"] "TOKEN OLD NEW" 3..=3 text=false session=true "changes the password; ends the user's other sessions";
    Ping ["ping"] "" 0..=0 text=false session=false "answers";
    Help ["help"] "[COMMAND]" 0..=1 text=false session=false "the commands, or one of them";
    Capabilities ["capabilities"] "" 0..=0 text=false session=false "version, limits and features of this server";
}

impl Verb {
    /// Its row of the table.
    pub fn spec(self) -> &'static CommandSpec {
        COMMANDS.iter().find(|spec| spec.verb == self).expect("every verb has a row: a test holds it")
    }
}

/// The row of the command called `name`, in any case.
pub fn lookup(name: &str) -> Option<&'static CommandSpec> {
    COMMANDS.iter().find(|spec| spec.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// One receiver as the sender wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    /// A user, of whichever realm the command means.
    User(UserName),
    /// A user of one realm: `henderson@realm1`.
    Qualified(Address),
    /// Nothing that could be a user: it is answered like one that does not exist.
    Nobody(String),
}

impl Receiver {
    /// Receivers between commas; an empty place (`messi,,`) is left out. An error says what is wrong.
    pub fn list(text: &str) -> Result<Vec<Self>, &'static str> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let receivers: Vec<_> = names.take(RECEIVERS_MAX + 1).map(Self::parse).collect();
        match receivers.len() {
            0 => Err("no receiver"),
            n if n > RECEIVERS_MAX => Err("more than 1024 receivers"),
            _ => Ok(receivers),
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let parsed = match text.contains('@') {
            true => text.parse().map(Self::Qualified),
            false => text.parse().map(Self::User),
        };
        parsed.unwrap_or_else(|_| Self::Nobody(text.into()))
    }
}

impl std::fmt::Display for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => user.fmt(f),
            Self::Qualified(address) => address.fmt(f),
            Self::Nobody(text) => text.fmt(f),
        }
    }
}

/// Who gets a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileTo {
    /// `sendfile` and `sendgroupfile`: users, of this realm unless qualified.
    Users(Vec<Receiver>),
    /// `sendfilerealm`: one user of that realm.
    RealmUser(Option<RealmId>, Receiver),
    /// `sendgroupfilerealm`: users of that realm and of this one, filed under that realm.
    RealmUsers(Option<RealmId>, Vec<Receiver>),
    /// `sendgroupfile` to a named group.
    Group(Option<GroupAddress>),
}

impl FileTo {
    /// Users between commas, or one `#group`. An error says what is wrong.
    pub fn several(text: &str) -> Result<Self, &'static str> {
        match text.strip_prefix('#') {
            Some(group) => Ok(Self::Group(group.parse().ok())),
            None => Receiver::list(text).map(Self::Users),
        }
    }
}

/// Whose conversation `history` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum With {
    /// Everything.
    All,
    /// A user of this realm.
    User(UserName),
    /// A user of another realm.
    Remote(Address),
    /// Everybody of another realm.
    Realm(RealmId),
    /// A group that the user is a member of.
    Group(GroupAddress),
}

/// Who may join a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupPolicy {
    /// Every user of the realm.
    Open,
    /// Whoever its owner invites.
    Invite,
}

/// Where `search` begins, going back from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// At the newest.
    Newest,
    /// Before this message.
    Message(MessageId),
    /// Where an earlier reply said to go on.
    Place(u64),
}

/// A command with its arguments. What is a name has been checked; what is unknown can still be unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the arguments that COMMANDS describes")]
pub enum Command<'a> {
    Auth {
        user: &'a str,
        password: &'a str,
    },
    Register {
        user: &'a str,
        password: &'a str,
        country: &'a str,
        name: &'a str,
        invite: Option<&'a str>,
    },
    Send {
        token: &'a str,
        to: Receiver,
        text: &'a str,
    },
    SendGroup {
        token: &'a str,
        to: Vec<Receiver>,
        text: &'a str,
    },
    /// `sendgroup TOKEN #GROUP TEXT`.
    SendNamedGroup {
        token: &'a str,
        group: Option<GroupAddress>,
        text: &'a str,
    },
    AddGroup {
        token: &'a str,
        group: Option<GroupName>,
        policy: GroupPolicy,
    },
    JoinGroup {
        token: &'a str,
        group: Option<GroupAddress>,
    },
    LeaveGroup {
        token: &'a str,
        group: Option<GroupAddress>,
    },
    Groups {
        token: &'a str,
    },
    Members {
        token: &'a str,
        group: Option<GroupAddress>,
    },
    InviteGroup {
        token: &'a str,
        group: Option<GroupAddress>,
        user: Receiver,
    },
    KickGroup {
        token: &'a str,
        group: Option<GroupAddress>,
        user: Receiver,
    },
    Topic {
        token: &'a str,
        group: Option<GroupAddress>,
        text: Option<&'a str>,
    },
    Inbox {
        token: &'a str,
    },
    List {
        token: &'a str,
    },
    Logout {
        token: &'a str,
    },
    AddRealm {
        token: Option<&'a str>,
        realm: Option<RealmId>,
        host: &'a str,
        port: u16,
    },
    SendPrivateRealm {
        token: &'a str,
        realm: Option<RealmId>,
        to: Receiver,
        text: &'a str,
    },
    SendGroupRealm {
        token: &'a str,
        realm: Option<RealmId>,
        to: Vec<Receiver>,
        text: &'a str,
    },
    GetRealmInbox {
        token: &'a str,
        realm: Option<RealmId>,
    },
    ConnectedRealm {
        token: &'a str,
    },
    /// `sendfile`, `sendgroupfile`, `sendfilerealm` and `sendgroupfilerealm`.
    SendFile {
        token: &'a str,
        to: FileTo,
        name: &'a str,
        base64: &'a str,
        upload: Upload<'a>,
    },
    GetFile {
        token: &'a str,
        id: Option<MessageId>,
        part: u32,
    },
    Files {
        token: &'a str,
    },
    Watch {
        token: &'a str,
    },
    Unwatch {
        token: &'a str,
    },
    History {
        token: &'a str,
        with: With,
        before: Option<MessageId>,
        limit: usize,
    },
    Search {
        token: &'a str,
        /// The group in which is searched; without one, in what was written to the user and by the user.
        group: Option<GroupAddress>,
        words: Vec<&'a str>,
        before: Before,
        limit: usize,
    },
    /// `block`, or `unblock`.
    Block {
        token: &'a str,
        whom: Receiver,
        blocked: bool,
    },
    Blocks {
        token: &'a str,
    },
    Status {
        token: &'a str,
        id: Option<MessageId>,
    },
    WhoAmI {
        token: &'a str,
    },
    Users {
        token: &'a str,
        prefix: &'a str,
    },
    GetPresence {
        token: &'a str,
        user: Receiver,
    },
    Passwd {
        token: &'a str,
        old: &'a str,
        new: &'a str,
    },
    Ping,
    Help {
        command: Option<&'a str>,
    },
    Capabilities,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_verb_and_each_name_once() {
        let mut names: Vec<_> = COMMANDS.iter().flat_map(|spec| spec.names).collect();
        let total = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), total);
        for spec in COMMANDS {
            assert_eq!(spec.verb.spec().names, spec.names, "a verb stands twice");
            assert!(spec.args_min <= spec.args_max && spec.args_max <= ARGS_MAX);
            assert_eq!(spec.session, spec.usage.starts_with("TOKEN"));
            assert!(spec.names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase())));
        }
    }
}
