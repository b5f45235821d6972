//! From a line to a [`Request`].

use crate::command::{
    ARGS_MAX, Before, Command, CommandSpec, FileTo, GroupPolicy, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX,
    Receiver, SEARCH_LIMIT_DEFAULT, SEARCH_LIMIT_MAX, SEARCH_WORDS_MAX, Verb, With, lookup,
};
use crate::error::ErrorCode;
use crate::file;
use crate::names::Tag;

/// One line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Repeated in the reply.
    pub tag: Option<Tag<'a>>,
    /// Which command it is.
    pub verb: Verb,
    /// What is to be done.
    pub command: Command<'a>,
}

/// One line that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestError<'a> {
    /// Repeated in the reply, if it could be read.
    pub tag: Option<Tag<'a>>,
    /// `unknown-command` or `bad-request`.
    pub code: ErrorCode,
    /// What is wrong and what to do, in English.
    pub detail: String,
}

/// Understands one line, without its end. `Ok(None)` is an empty line, which gets no reply.
pub fn parse(line: &[u8]) -> Result<Option<Request<'_>>, RequestError<'_>> {
    let bad = |tag, detail: &str| RequestError { tag, code: ErrorCode::BadRequest, detail: detail.into() };
    let line = std::str::from_utf8(line).map_err(|_| bad(None, "the line is not UTF-8"))?;
    if line.bytes().any(|b| b == 0 || b == b'\r') {
        return Err(bad(None, "NUL and CR may not stand inside a line"));
    }
    let mut rest = line.trim_matches(' ');
    if rest.is_empty() {
        return Ok(None);
    }
    let mut tag = None;
    if let Some(tagged) = rest.strip_prefix('@') {
        let (word, after) = split_word(tagged);
        tag = Some(Tag::new(word).ok_or_else(|| bad(None, "a tag is @ and 1 to 32 of A-Z a-z 0-9 . _ -"))?);
        rest = after;
    }
    let (name, rest) = split_word(rest);
    let Some(spec) = lookup(name) else {
        let detail =
            if name.is_empty() { "there is no command after the tag" } else { "no such command: try help" };
        return Err(RequestError { tag, code: ErrorCode::UnknownCommand, detail: detail.into() });
    };
    let args = Args::split(spec, rest).map_err(|detail| RequestError {
        tag,
        code: ErrorCode::BadRequest,
        detail,
    })?;
    let command = build(spec.verb, &args).map_err(|detail| RequestError {
        tag,
        code: ErrorCode::BadRequest,
        detail: detail.into(),
    })?;
    Ok(Some(Request { tag, verb: spec.verb, command }))
}

/// The token that a line begins to show, of which only the beginning has been read.
pub fn claimed_token(head: &[u8]) -> Option<&str> {
    let end = head.iter().rposition(|&b| b == b' ')?;
    let mut rest = std::str::from_utf8(&head[..end]).ok()?.trim_start_matches(' ');
    if rest.starts_with('@') {
        rest = split_word(rest).1;
    }
    let (name, rest) = split_word(rest);
    let (token, _) = split_word(rest);
    lookup(name).filter(|spec| spec.session && !token.is_empty()).map(|_| token)
}

/// Splits off the first word; runs of spaces count as one.
fn split_word(text: &str) -> (&str, &str) {
    match text.split_once(' ') {
        Some((word, rest)) => (word, rest.trim_start_matches(' ')),
        None => (text, ""),
    }
}

/// The arguments of a command, counted against its row.
struct Args<'a> {
    words: [&'a str; ARGS_MAX],
    count: usize,
}

impl<'a> Args<'a> {
    fn split(spec: &CommandSpec, mut rest: &'a str) -> Result<Self, String> {
        let mut args = Self { words: [""; ARGS_MAX], count: 0 };
        while !rest.is_empty() && args.count < spec.args_max {
            let last = args.count + 1 == spec.args_max;
            let (word, after) = if last && spec.text { (rest, "") } else { split_word(rest) };
            args.words[args.count] = word;
            args.count += 1;
            rest = after;
        }
        if args.count < spec.args_min || !rest.is_empty() {
            let what = if rest.is_empty() { "too few" } else { "too many" };
            return Err(format!("{what} arguments: {} {}", spec.names[0], spec.usage).trim_end().into());
        }
        Ok(args)
    }

    fn optional(&self, at: usize) -> Option<&'a str> {
        (at < self.count).then(|| self.words[at])
    }
}

fn build<'a>(verb: Verb, args: &Args<'a>) -> Result<Command<'a>, &'static str> {
    let [a, b, c, d, e] = args.words;
    Ok(match verb {
        Verb::Auth => Command::Auth { user: a, password: b },
        Verb::Register => {
            let (name, invite) = match d.rsplit_once(' ') {
                Some((name, last)) if last.starts_with("invite=") => {
                    (name.trim_end(), last.strip_prefix("invite="))
                }
                _ => (d, None),
            };
            Command::Register { user: a, password: b, country: c, name, invite }
        }
        Verb::Send => Command::Send { token: a, to: Receiver::parse(b), text: c },
        Verb::SendGroup => match b.strip_prefix('#') {
            Some(group) => Command::SendNamedGroup { token: a, group: group.parse().ok(), text: c },
            None => Command::SendGroup { token: a, to: Receiver::list(b)?, text: c },
        },
        Verb::Inbox => Command::Inbox { token: a },
        Verb::List => Command::List { token: a },
        Verb::Logout => Command::Logout { token: a },
        Verb::AddRealm => {
            let (token, realm, host, port) =
                if args.count == 4 { (Some(a), b, c, d) } else { (None, a, b, c) };
            let port =
                port.parse().ok().filter(|&port| port > 0).ok_or("PORT is a number from 1 to 65535")?;
            Command::AddRealm { token, realm: realm.parse().ok(), host, port }
        }
        Verb::SendPrivateRealm => {
            Command::SendPrivateRealm { token: a, realm: b.parse().ok(), to: Receiver::parse(c), text: d }
        }
        Verb::SendGroupRealm => {
            Command::SendGroupRealm { token: a, realm: b.parse().ok(), to: Receiver::list(c)?, text: d }
        }
        Verb::GetRealmInbox => Command::GetRealmInbox { token: a, realm: b.parse().ok() },
        Verb::ConnectedRealm => Command::ConnectedRealm { token: a },
        Verb::SendFile => send_file(a, FileTo::Users(vec![Receiver::parse(b)]), c, d)?,
        Verb::SendGroupFile => send_file(a, FileTo::several(b)?, c, d)?,
        Verb::SendFileRealm => send_file(a, FileTo::RealmUser(b.parse().ok(), Receiver::parse(c)), d, e)?,
        Verb::SendGroupFileRealm => {
            send_file(a, FileTo::RealmUsers(b.parse().ok(), Receiver::list(c)?), d, e)?
        }
        Verb::GetFile => {
            let part = args.optional(2).map_or(Ok(1), file::part_asked_for)?;
            Command::GetFile { token: a, id: b.parse().ok(), part }
        }
        Verb::Files => Command::Files { token: a },
        Verb::AddGroup => {
            let policy = match args.optional(2) {
                None | Some("open") => GroupPolicy::Open,
                Some("invite") => GroupPolicy::Invite,
                Some(_) => return Err("a group is open or invite"),
            };
            let group = b.strip_prefix('#').unwrap_or(b).parse().ok();
            Command::AddGroup { token: a, group, policy }
        }
        Verb::JoinGroup => Command::JoinGroup { token: a, group: b.parse().ok() },
        Verb::LeaveGroup => Command::LeaveGroup { token: a, group: b.parse().ok() },
        Verb::Groups => Command::Groups { token: a },
        Verb::Members => Command::Members { token: a, group: b.parse().ok() },
        Verb::InviteGroup => {
            Command::InviteGroup { token: a, group: b.parse().ok(), user: Receiver::parse(c) }
        }
        Verb::KickGroup => Command::KickGroup { token: a, group: b.parse().ok(), user: Receiver::parse(c) },
        Verb::Topic => Command::Topic { token: a, group: b.parse().ok(), text: args.optional(2) },
        Verb::Watch => Command::Watch { token: a },
        Verb::Unwatch => Command::Unwatch { token: a },
        Verb::History => history(args)?,
        Verb::Search => search(a, b)?,
        Verb::Block => Command::Block { token: a, whom: Receiver::parse(b), blocked: true },
        Verb::Unblock => Command::Block { token: a, whom: Receiver::parse(b), blocked: false },
        Verb::Blocks => Command::Blocks { token: a },
        Verb::Status => Command::Status { token: a, id: b.parse().ok() },
        Verb::WhoAmI => Command::WhoAmI { token: a },
        Verb::Users => Command::Users { token: a, prefix: b },
        Verb::GetPresence => Command::GetPresence { token: a, user: Receiver::parse(b) },
        Verb::Passwd => Command::Passwd { token: a, old: b, new: c },
        Verb::Ping => Command::Ping,
        Verb::Help => Command::Help { command: args.optional(0) },
        Verb::Capabilities => Command::Capabilities,
    })
}

fn send_file<'a>(
    token: &'a str,
    to: FileTo,
    name: &'a str,
    rest: &'a str,
) -> Result<Command<'a>, &'static str> {
    let (base64, options) = split_word(rest);
    Ok(Command::SendFile { token, to, name, base64, upload: file::upload(options)? })
}

fn history<'a>(args: &Args<'a>) -> Result<Command<'a>, &'static str> {
    let (mut with, mut before, mut limit) = (With::All, None, HISTORY_LIMIT_DEFAULT);
    for word in &args.words[1..args.count] {
        if let Some(id) = word.strip_prefix("before=") {
            before = Some(id.parse().map_err(|_| "before= takes the id of a message")?);
        } else if let Some(number) = word.strip_prefix("limit=") {
            limit = number
                .parse()
                .ok()
                .filter(|n| (1..=HISTORY_LIMIT_MAX).contains(n))
                .ok_or("limit= takes 1 to 200")?;
        } else {
            with = match word.strip_prefix('@') {
                None if word.starts_with('#') => With::Group(word.parse().map_err(|_| "that is not #GROUP")?),
                Some(realm) => With::Realm(realm.parse().map_err(|_| "that is not the id of a realm")?),
                None if word.contains('@') => {
                    With::Remote(word.parse().map_err(|_| "that is not USER@REALM")?)
                }
                None => With::User(word.parse().map_err(|_| "that is not the name of a user")?),
            };
        }
    }
    Ok(Command::History { token: args.words[0], with, before, limit })
}

/// WORDS and, behind them, what says where to begin and how much is wanted.
fn search<'a>(token: &'a str, text: &'a str) -> Result<Command<'a>, &'static str> {
    let mut words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    let (mut before, mut limit) = (Before::Newest, SEARCH_LIMIT_DEFAULT);
    while let Some(last) = words.last() {
        if let Some(place) = last.strip_prefix("before=") {
            let id = || place.parse().map(Before::Message);
            before = place
                .parse()
                .map(Before::Place)
                .or_else(|_| id())
                .map_err(|_| "before= takes the `next` of a reply, or the id of a message")?;
        } else if let Some(number) = last.strip_prefix("limit=") {
            let parsed = number.parse().ok().filter(|n| (1..=SEARCH_LIMIT_MAX).contains(n));
            limit = parsed.ok_or("limit= takes 1 to 100")?;
        } else {
            break;
        }
        words.pop();
    }
    let group = match words.first().filter(|word| word.starts_with('#') && word.len() > 1) {
        Some(word) => Some(word.parse().map_err(|_| "that is not #GROUP")?),
        None => None,
    };
    let words: Vec<&str> = words.into_iter().skip(usize::from(group.is_some())).collect();
    match words.len() {
        0 => Err("no word to search for"),
        n if n > SEARCH_WORDS_MAX => Err("more than 8 words"),
        _ => Ok(Command::Search { token, group, words, before, limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::COMMANDS;
    use proptest::prelude::*;

    fn command(line: &str) -> Command<'_> {
        parse(line.as_bytes()).unwrap().unwrap().command
    }

    fn code(line: &[u8]) -> &'static str {
        parse(line).unwrap_err().code.as_str()
    }

    #[test]
    fn the_bytes_of_the_reports_clients_are_understood() {
        let henderson = || Receiver::User("henderson".parse().unwrap());
        let realm2 = || "realm2".parse().ok();
        assert_eq!(command("auth messi surabaya "), Command::Auth { user: "messi", password: "surabaya" });
        let private = Command::Send { token: "T", to: henderson(), text: "halo bang hen" };
        assert_eq!(command("sendprivate T henderson  halo bang hen "), private);
        assert_eq!(command("SEND  T   henderson halo bang hen"), private);
        let to = vec![Receiver::User("messi".parse().unwrap()), henderson()];
        assert_eq!(
            command("sendgroup T messi,henderson  halo  x "),
            Command::SendGroup { token: "T", to, text: "halo  x" }
        );
        let added = |token| Command::AddRealm { token, realm: realm2(), host: "172.16.16.102", port: 4002 };
        assert_eq!(command("addrealm realm2 172.16.16.102 4002 "), added(None));
        assert_eq!(command("addrealm T realm2 172.16.16.102 4002"), added(Some("T")));
        assert_eq!(
            command("sendprivaterealm T realm2 henderson  angkara "),
            Command::SendPrivateRealm { token: "T", realm: realm2(), to: henderson(), text: "angkara" }
        );
        assert_eq!(command("getrealminbox T realm2"), Command::GetRealmInbox { token: "T", realm: realm2() });
    }

    #[test]
    fn what_cannot_be_carried_out_says_why() {
        for (line, expected) in [
            (&b"hello"[..], "unknown-command"),
            (b"@1", "unknown-command"),
            (b"send", "bad-request"),
            (b"send T messi", "bad-request"),
            (b"send T messi   ", "bad-request"),
            (b"list", "bad-request"),
            (b"list T x", "bad-request"),
            (b"addrealm realm2 host 0", "bad-request"),
            (b"addrealm realm2 host 65536", "bad-request"),
            (b"addrealm realm2 host x", "bad-request"),
            (b"sendgroup T , hi", "bad-request"),
            (b"history T limit=0", "bad-request"),
            (b"history T before=x", "bad-request"),
            (b"history T #Tim", "bad-request"),
            (b"addgroup T tim closed", "bad-request"),
            (b"addgroup T", "bad-request"),
            (b"topic T", "bad-request"),
            (b"@a/b ping", "bad-request"),
            (b"send a x\rsend b y", "bad-request"),
            (b"send T messi a\0b", "bad-request"),
            (b"send T messi \xff\xfe", "bad-request"),
            (b"send T messi \xc0\xaf", "bad-request"),
            (b"send T messi \xed\xa0\x80", "bad-request"),
            (b"GET / HTTP/1.1", "unknown-command"),
            (b"\x16\x03\x01\x02", "unknown-command"),
        ] {
            assert_eq!(code(line), expected, "{:?}", String::from_utf8_lossy(line));
        }
        assert_eq!(parse(b"   ").unwrap(), None);
    }

    #[test]
    fn a_group_is_named_with_or_without_its_sign() {
        let group = |text: &str| text.parse().ok();
        assert_eq!(
            command("sendgroup T #tim  halo  tim "),
            Command::SendNamedGroup { token: "T", group: group("tim"), text: "halo  tim" }
        );
        assert_eq!(
            command("sendgroup T #no.name halo"),
            Command::SendNamedGroup { token: "T", group: None, text: "halo" }
        );
        for text in ["joingroup T tim", "joingroup T #tim"] {
            assert_eq!(command(text), Command::JoinGroup { token: "T", group: group("tim") });
        }
        let added = |policy| Command::AddGroup { token: "T", group: "tim".parse().ok(), policy };
        assert_eq!(command("addgroup T #tim"), added(GroupPolicy::Open));
        assert_eq!(command("addgroup T tim invite"), added(GroupPolicy::Invite));
        let topic = |text| Command::Topic { token: "T", group: group("tim"), text };
        assert_eq!(command("topic T tim"), topic(None));
        assert_eq!(command("topic T tim  final  malam ini "), topic(Some("final  malam ini")));
        let Command::History { with, .. } = command("history T #tim@realm1") else {
            panic!("another command")
        };
        assert_eq!(with, With::Group("#tim@realm1".parse().unwrap()));
    }

    #[test]
    fn what_is_searched_for_stands_before_the_options() {
        let search = |words, before, limit| Command::Search { token: "T", group: None, words, before, limit };
        assert_eq!(
            command("search T  gol  bunuh diri"),
            search(vec!["gol", "bunuh", "diri"], Before::Newest, 20)
        );
        let id = "0192d4d5-0000-7000-8000-000000000000";
        assert_eq!(
            command(&format!("search T limit=3 gol limit=7 before={id}")),
            search(vec!["limit=3", "gol"], Before::Message(id.parse().unwrap()), 7)
        );
        assert_eq!(command("search T gol before=17"), search(vec!["gol"], Before::Place(17), 20));
        let group = "tim@realm2".parse().ok();
        let (words, before) = (vec!["gol"], Before::Newest);
        assert_eq!(
            command("search T #tim@realm2 gol"),
            Command::Search { token: "T", group, words, before, limit: 20 }
        );
        assert_eq!(code(b"search T #tim"), "bad-request");
        for bad in
            ["", "limit=3", "x limit=0", "x limit=101", "x before=", "x before=-1", "a b c d e f g h i"]
        {
            assert_eq!(code(format!("search T {bad}").as_bytes()), "bad-request", "{bad}");
        }
    }

    #[test]
    fn a_token_can_be_seen_before_the_line_is_whole() {
        assert_eq!(claimed_token(b"send TOKEN messi hal"), Some("TOKEN"));
        assert_eq!(claimed_token(b" @7  SEND  TOKEN messi hal"), Some("TOKEN"));
        for none in [&b"send TOK"[..], b"auth messi surabaya x", b"xxxxxxxx", b"", b"@7 ", b"ping x "] {
            assert_eq!(claimed_token(none), None);
        }
    }

    #[test]
    fn an_error_keeps_its_tag() {
        assert_eq!(parse(b"@7 send").unwrap_err().tag, Tag::new("7"));
        assert_eq!(parse(b"@7  ping ").unwrap().unwrap().tag, Tag::new("7"));
    }

    #[test]
    fn a_receiver_that_is_no_name_is_nobody() {
        for bad in ["a.b", "*", ">", "../x", "A", "a@b@c", "@b"] {
            let line = format!("send T {bad} hi");
            assert!(matches!(command(&line), Command::Send { to: Receiver::Nobody(_), .. }), "{bad}");
        }
    }

    #[test]
    fn an_invitation_is_the_last_word_of_register() {
        let register = command("register xavi rahasia123 Spanyol Xavi Hernandez invite=abc");
        let expected = Command::Register {
            user: "xavi",
            password: "rahasia123",
            country: "Spanyol",
            name: "Xavi Hernandez",
            invite: Some("abc"),
        };
        assert_eq!(register, expected);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }

        #[test]
        fn words_and_spaces_never_panic(words in proptest::collection::vec("[@#a-z0-9,= ]{0,12}", 0..8), at in 0..COMMANDS.len()) {
            let line = format!("{} {}", COMMANDS[at].names[0], words.join(" "));
            let _ = parse(line.as_bytes());
        }

        #[test]
        fn text_keeps_its_inner_spaces_and_loses_its_outer_ones(text in "[a-z]( {0,4}[a-zé]){0,20}", before in " {1,4}", after in " {0,4}") {
            let line = format!("send T messi{before}{text}{after}");
            match parse(line.as_bytes()).unwrap().unwrap().command {
                Command::Send { text: parsed, .. } => prop_assert_eq!(parsed, text),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
