//! What was typed, understood: from a line of the user to a request line or to something that `chat` does itself.
//!
//! Owns: the form in which people give commands (the reports' form, without the token), conversations, `/` commands.
//! Must not know connections or terminals: everything here is a function of its arguments.

use antar_proto::command::{self, CommandSpec, Receiver, Verb};
use antar_proto::{ErrorCode, MessageId, Tag};

use crate::calls::Token;
use crate::chat::secret::looks_secret;
use crate::chat::transfer::Job;

/// What the meaning of a line depends on.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// Of the session, once logged in.
    pub(crate) token: Option<Token>,
    /// For `auth` without a name: who is, was or shall be logged in.
    pub(crate) user: Option<String>,
    /// For `auth` without a password.
    pub(crate) password: Option<String>,
    /// Whom plain text goes to.
    pub(crate) target: Option<Target>,
    /// For `status` without an id.
    pub(crate) last_sent: Option<MessageId>,
    /// Give every send a tag that makes it safe to send again.
    pub(crate) tag_sends: bool,
}

/// The other side of a conversation, as `/to` takes it: `henderson`, `lineker@realm2`, `a,b` or `#group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target(String);

impl Target {
    fn parse(text: &str) -> Option<Self> {
        let known = |name: &str| match name.contains('@') {
            true => name.parse().map(Receiver::Qualified),
            false => name.parse().map(Receiver::User),
        };
        let good = match text.strip_prefix('#') {
            Some(group) => known(group).is_ok(),
            None => text.split(',').all(|name| known(name).is_ok()),
        };
        good.then(|| Self(text.to_owned()))
    }

    /// As it was typed.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// It is one user.
    pub(crate) fn is_one(&self) -> bool {
        !self.0.contains([',', '#'])
    }

    fn verb(&self) -> Verb {
        if self.is_one() { Verb::Send } else { Verb::SendGroup }
    }
}

/// A line, understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Nothing to do.
    Empty,
    /// `/help [COMMAND]`.
    Help(Option<String>),
    /// `/quit`.
    Quit,
    /// `/to TARGET`, and `/to` alone.
    To(Option<Target>),
    /// `/wait [SECONDS]`.
    Wait(Option<u64>),
    /// `/file` and `/get`.
    File(Job),
    /// Something for the server.
    Request(Prepared),
}

/// A request, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// The request line; may hold a token or a password.
    pub(crate) line: String,
    /// `None` for `/raw`, whatever it holds.
    pub(crate) verb: Option<Verb>,
    /// The first arguments as they were typed, without the token: what the answer is about.
    pub(crate) about: Vec<String>,
    /// Sending it twice is the same as sending it once.
    pub(crate) repeatable: bool,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("verb", &self.verb).finish_non_exhaustive()
    }
}

/// A line that cannot be carried out; nothing was sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InputError {
    /// It cannot be a command. Says what would be one.
    #[error("{0}")]
    Usage(String),
    /// It needs a session.
    #[error("{0} needs a login: auth USER PASSWORD")]
    NotLoggedIn(&'static str),
    /// `auth` without a password, when there is none to fall back to.
    #[error("no password for {user}: auth {user} PASSWORD")]
    NeedsPassword {
        /// Who wants to log in.
        user: String,
    },
}

/// Arguments kept of a request to word the answer; texts are not among them.
const ABOUT_WORDS: usize = 2;

/// Understands one line.
pub(crate) fn understand(line: &str, context: &Context) -> Result<Input, InputError> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Input::Empty);
    }
    if line.contains(['\n', '\r', '\0']) {
        return Err(InputError::Usage("a command is one line: it cannot hold line breaks".into()));
    }
    if let Some(text) = line.strip_prefix('>') {
        return to_target(text, context);
    }
    if let Some(local) = line.strip_prefix('/') {
        return slash(local, context);
    }
    let (tag, rest) = match line.strip_prefix('@') {
        Some(tagged) => {
            let (word, rest) = split_word(tagged);
            let tag = Tag::new(word);
            (
                Some(tag.ok_or_else(|| {
                    InputError::Usage("a tag is @ and 1 to 32 of A-Z a-z 0-9 . _ -".into())
                })?),
                rest,
            )
        }
        None => (None, line),
    };
    let (name, rest) = split_word(rest);
    match command::lookup(name) {
        Some(spec) => request(spec, name, rest, tag, context).map(Input::Request),
        None if tag.is_none() && matches!(line, "quit" | "exit") => Ok(Input::Quit),
        None if tag.is_none() && context.target.is_some() => match looks_secret(name) {
            // A misspelt login must not become a message with a password in it.
            Some(meant) => {
                Err(InputError::Usage(format!("did you mean {meant}? Begin with > to send it as text")))
            }
            None => to_target(line, context),
        },
        None => Err(unknown(name)),
    }
}

/// Plain text, for the other side of the conversation.
fn to_target(text: &str, context: &Context) -> Result<Input, InputError> {
    let Some(target) = &context.target else {
        return Err(InputError::Usage("nobody to say that to: /to USER first, or send USER TEXT".into()));
    };
    let spec = target.verb().spec();
    let rest = format!("{} {}", target.0, text.trim());
    request(spec, spec.names[0], &rest, None, context).map(Input::Request)
}

/// What `chat` does itself.
fn slash(line: &str, context: &Context) -> Result<Input, InputError> {
    let (name, rest) = split_word(line);
    let usage = |text: &str| InputError::Usage(text.into());
    match (name, rest) {
        ("help" | "h" | "?", "") => Ok(Input::Help(None)),
        ("help" | "h" | "?", command) => Ok(Input::Help(Some(command.trim_start_matches('/').to_owned()))),
        ("quit" | "exit" | "q", _) => Ok(Input::Quit),
        ("to", "") => Ok(Input::To(None)),
        ("to", target) => Target::parse(target)
            .map(|target| Input::To(Some(target)))
            .ok_or_else(|| usage("/to USER, /to USER@REALM, /to USER,USER or /to #GROUP")),
        ("wait", "") => Ok(Input::Wait(None)),
        ("wait", seconds) => {
            seconds.parse().map(|seconds| Input::Wait(Some(seconds))).map_err(|_| usage("/wait [SECONDS]"))
        }
        ("file", rest) => file(rest, context).map(Input::File),
        ("get", rest) => get(rest, context).map(Input::File),
        ("raw", "") => Err(usage("/raw LINE, in which $TOKEN stands for the session token")),
        ("raw", line) => raw(line, context).map(Input::Request),
        // `/send henderson halo`: a habit from other chats.
        (name, _) if command::lookup(name).is_some() => understand(line, context),
        (name, _) => Err(InputError::Usage(format!("there is no /{name}: see /help"))),
    }
}

/// `/file PATH`, to the other side of the conversation, and `/file TARGET PATH`. What has a dot, a slash or a capital letter in it
/// is no name of a user.
fn file(rest: &str, context: &Context) -> Result<Job, InputError> {
    if context.token.is_none() {
        return Err(InputError::NotLoggedIn("/file"));
    }
    let (first, path) = split_word(rest);
    let (to, path) = match (Target::parse(first), &context.target) {
        (Some(to), _) if !path.is_empty() => (to, path),
        (_, Some(to)) if !rest.is_empty() => (to.clone(), rest),
        _ => return Err(InputError::Usage("/file USER PATH, or in a conversation /file PATH".into())),
    };
    Ok(Job::Send { to, path: path.into() })
}

/// `/get ID [PATH]`.
fn get(rest: &str, context: &Context) -> Result<Job, InputError> {
    if context.token.is_none() {
        return Err(InputError::NotLoggedIn("/get"));
    }
    let (id, path) = split_word(rest);
    let id = id.parse().map_err(|_| InputError::Usage("/get ID [PATH]: files lists the ids".into()))?;
    Ok(Job::Get { id, path: (!path.is_empty()).then(|| path.into()) })
}

fn raw(line: &str, context: &Context) -> Result<Prepared, InputError> {
    let line = match &context.token {
        Some(token) => line.replace("$TOKEN", token.as_str()),
        None if line.contains("$TOKEN") => return Err(InputError::NotLoggedIn("$TOKEN")),
        None => line.to_owned(),
    };
    Ok(Prepared { line, verb: None, about: Vec::new(), repeatable: false })
}

/// Fills in what the user left out, and checks the line before it is sent.
fn request(
    spec: &'static CommandSpec,
    name: &str,
    rest: &str,
    tag: Option<Tag<'_>>,
    context: &Context,
) -> Result<Prepared, InputError> {
    // `addrealm` may be typed with a token, as programs send it; then it is not what the answer is about.
    let given = rest.split_whitespace().count();
    let has_token = spec.verb == Verb::AddRealm && given >= spec.args_max;
    if spec.verb == Verb::AddRealm && given < spec.args_min {
        // With the token in front it would have enough words, and the token would be taken for a realm.
        return Err(InputError::Usage(format!("too few arguments: {}", usage(spec))));
    }
    let about = rest.split_whitespace().skip(usize::from(has_token)).take(ABOUT_WORDS);
    let mut about: Vec<String> = about.map(str::to_owned).collect();
    let mut words = vec![name.to_owned()];
    let needs_token = spec.session || (spec.verb == Verb::AddRealm && !has_token);
    if needs_token {
        let token = context.token.as_ref().ok_or(InputError::NotLoggedIn(spec.names[0]))?;
        words.push(token.as_str().to_owned());
    }
    words.push(match spec.verb {
        Verb::Auth => {
            let credentials = credentials(rest, context)?;
            about = vec![split_word(&credentials).0.to_owned()];
            credentials
        }
        Verb::Status if rest.is_empty() => {
            let id = context
                .last_sent
                .ok_or_else(|| InputError::Usage("status ID: nothing was sent yet".into()))?;
            id.to_string()
        }
        _ => rest.to_owned(),
    });
    let is_send =
        matches!(spec.verb, Verb::Send | Verb::SendGroup | Verb::SendPrivateRealm | Verb::SendGroupRealm);
    let mut repeatable = is_send && tag.is_some_and(|tag| tag.message_id().is_some());
    match tag {
        Some(tag) => words.insert(0, format!("@{}", tag.as_str())),
        None if is_send && context.tag_sends => {
            words.insert(0, format!("@{}", MessageId::fresh().0.simple()));
            repeatable = true;
        }
        None => {}
    }
    let line = words.join(" ").trim_end().to_owned();
    match antar_proto::parse::parse(line.as_bytes()) {
        Ok(_) => Ok(Prepared { line, verb: Some(spec.verb), about, repeatable }),
        Err(error) => {
            debug_assert_eq!(error.code, ErrorCode::BadRequest);
            // The detail repeats the usage with the token, which people do not type.
            let detail = error.detail.replace("[TOKEN] ", "").replace("TOKEN", "").replace("  ", " ");
            Err(InputError::Usage(detail.trim_end().to_owned()))
        }
    }
}

/// `auth`, `auth USER` and `auth USER PASSWORD`.
fn credentials(rest: &str, context: &Context) -> Result<String, InputError> {
    let (user, password) = split_word(rest);
    let user = match (user, &context.user) {
        ("", Some(user)) => user.as_str(),
        ("", None) => return Err(InputError::Usage(usage(Verb::Auth.spec()))),
        (user, _) => user,
    };
    let password = match (password, &context.password) {
        ("", Some(password)) => password.as_str(),
        ("", None) => return Err(InputError::NeedsPassword { user: user.into() }),
        (password, _) => password,
    };
    if password.is_empty() || password.trim().contains(char::is_whitespace) {
        return Err(InputError::Usage("a password is one word: spaces would end it".into()));
    }
    Ok(format!("{user} {password}"))
}

fn unknown(name: &str) -> InputError {
    let names = command::COMMANDS.iter().flat_map(|spec| spec.names.iter().copied());
    let lower = name.to_ascii_lowercase();
    let nearest = names.map(|known| (strsim::damerau_levenshtein(&lower, known), known)).min();
    InputError::Usage(match nearest {
        Some((distance, known)) if distance <= 2 && distance < known.len() => {
            format!("no such command: {name}. Did you mean {known}?")
        }
        _ => format!("no such command: {name}. See /help"),
    })
}

/// How a command is typed: without the token, which is filled in.
pub(crate) fn usage(spec: &CommandSpec) -> String {
    let args = spec.usage.trim_start_matches("[TOKEN]").trim_start_matches("TOKEN").trim_start();
    format!("{} {args}", spec.names[0]).trim_end().to_owned()
}

/// Splits off the first word; runs of spaces count as one.
pub(crate) fn split_word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged_in() -> Context {
        Context { token: Some(Token::new("T")), user: Some("messi".into()), ..Context::default() }
    }

    fn line(typed: &str, context: &Context) -> String {
        match understand(typed, context) {
            Ok(Input::Request(prepared)) => prepared.line,
            other => format!("{other:?}"),
        }
    }

    fn problem(typed: &str, context: &Context) -> String {
        understand(typed, context).unwrap_err().to_string()
    }

    #[test]
    fn the_token_is_filled_into_the_commands_of_the_reports() {
        for (typed, sent) in [
            ("auth messi surabaya", "auth messi surabaya"),
            ("send henderson halo", "send T henderson halo"),
            ("sendprivate henderson  halo bang  hen ", "sendprivate T henderson  halo bang  hen"),
            ("sendgroup messi,henderson halo", "sendgroup T messi,henderson halo"),
            ("inbox", "inbox T"),
            ("getinbox", "getinbox T"),
            ("list", "list T"),
            ("logout", "logout T"),
            ("addrealm realm2 172.16.16.102 4002", "addrealm T realm2 172.16.16.102 4002"),
            ("addrealm X realm2 172.16.16.102 4002", "addrealm X realm2 172.16.16.102 4002"),
            ("sendprivaterealm realm1 messi angkara messi", "sendprivaterealm T realm1 messi angkara messi"),
            (
                "sendgrouprealm realm2 henderson,lineker halo",
                "sendgrouprealm T realm2 henderson,lineker halo",
            ),
            ("getrealminbox realm2", "getrealminbox T realm2"),
            ("history @realm2 limit=3", "history T @realm2 limit=3"),
            ("@7 users le", "@7 users T le"),
            ("ping", "ping"),
            ("/send henderson halo", "send T henderson halo"),
            ("/raw sendfile $TOKEN x", "sendfile T x"),
        ] {
            assert_eq!(line(typed, &logged_in()), sent);
        }
    }

    #[test]
    fn every_command_that_needs_a_session_says_so_before_login() {
        for spec in command::COMMANDS.iter().filter(|spec| spec.session) {
            let typed = format!("{} a b c", spec.names[0]);
            let result = understand(&typed, &Context::default());
            assert_eq!(result, Err(InputError::NotLoggedIn(spec.names[0])), "{typed}");
        }
        let added = understand("addrealm realm2 host 4002", &Context::default());
        assert_eq!(added, Err(InputError::NotLoggedIn("addrealm")));
    }

    #[test]
    fn what_cannot_be_a_command_says_how_it_would_be_one() {
        for (typed, said) in [
            ("send henderson", "too few arguments: send USER[@REALM] TEXT"),
            ("list x", "too many arguments: list"),
            ("addrealm realm2 host", "too few arguments: addrealm REALM HOST PORT"),
            ("addrealm realm2 4002", "too few arguments: addrealm REALM HOST PORT"),
            ("addrealm realm2 host x", "PORT is a number from 1 to 65535"),
            ("snd henderson halo", "no such command: snd. Did you mean send?"),
            ("frobnicate", "no such command: frobnicate. See /help"),
            ("send henderson a\nlogout", "a command is one line: it cannot hold line breaks"),
            ("> halo", "nobody to say that to: /to USER first, or send USER TEXT"),
            ("/foo", "there is no /foo: see /help"),
            ("auth messi a b", "a password is one word: spaces would end it"),
            ("@a/b list", "a tag is @ and 1 to 32 of A-Z a-z 0-9 . _ -"),
        ] {
            assert_eq!(problem(typed, &logged_in()), said, "{typed}");
        }
    }

    #[test]
    fn a_login_takes_what_was_not_typed_from_the_options() {
        let mut context = Context::default();
        assert_eq!(problem("auth", &context), "auth USER PASSWORD");
        assert_eq!(
            understand("auth messi", &context),
            Err(InputError::NeedsPassword { user: "messi".into() })
        );
        context.password = Some("surabaya".into());
        assert_eq!(line("auth messi", &context), "auth messi surabaya");
        context.user = Some("lineker".into());
        assert_eq!(line("auth", &context), "auth lineker surabaya");
        assert_eq!(line("auth messi jakarta", &context), "auth messi jakarta");
    }

    #[test]
    fn plain_text_goes_to_the_conversation_and_commands_do_not() {
        let target = |text| Context { target: Target::parse(text), ..logged_in() };
        assert_eq!(line("halo bang", &target("henderson")), "send T henderson halo bang");
        assert_eq!(
            line("> list of things", &target("lineker@realm2")),
            "send T lineker@realm2 list of things"
        );
        assert_eq!(line("halo", &target("a,b")), "sendgroup T a,b halo");
        assert_eq!(line("halo", &target("#tim")), "sendgroup T #tim halo");
        assert_eq!(line("list", &target("henderson")), "list T");
        let said = problem("auht messi surabaya", &target("henderson"));
        assert_eq!(said, "did you mean auth? Begin with > to send it as text");
        for bad in ["", "A", "a b", "a@b@c", "#", "a,,b", "../x"] {
            assert_eq!(Target::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_file_goes_to_whom_it_is_for_or_to_the_conversation() {
        let talking = Context { target: Target::parse("henderson"), ..logged_in() };
        let job = |typed, context| match understand(typed, context) {
            Ok(Input::File(Job::Send { to, path })) => (to.0, path.display().to_string()),
            other => panic!("{other:?}"),
        };
        let pair = |to: &str, path: &str| (to.to_owned(), path.to_owned());
        assert_eq!(job("/file foto.png", &talking), pair("henderson", "foto.png"));
        assert_eq!(job("/file ./foto saya.png", &talking), pair("henderson", "./foto saya.png"));
        assert_eq!(job("/file lineker@realm2 a b.png", &talking), pair("lineker@realm2", "a b.png"));
        assert_eq!(job("/file #tim x", &logged_in()), pair("#tim", "x"));
        assert!(problem("/file foto.png", &logged_in()).contains("/file USER PATH"));
        assert!(problem("/get x", &logged_in()).contains("/get ID"));
        assert!(problem("/file a b", &Context::default()).contains("needs a login"));
    }

    #[test]
    fn a_send_gets_a_tag_that_makes_it_safe_to_repeat() {
        let context = Context { tag_sends: true, ..logged_in() };
        let prepared = |typed: &str, context: &Context| match understand(typed, context) {
            Ok(Input::Request(prepared)) => prepared,
            other => panic!("{other:?}"),
        };
        let sent = prepared("send henderson halo", &context);
        let request = antar_proto::parse::parse(sent.line.as_bytes()).unwrap().unwrap();
        assert!(sent.repeatable && request.tag.unwrap().message_id().is_some());
        assert!(!prepared("@7 send henderson halo", &context).repeatable);
        assert!(!prepared("inbox", &context).repeatable);
        assert!(!prepared("send henderson halo", &logged_in()).repeatable);
    }

    #[test]
    fn status_alone_asks_for_the_last_message() {
        let id = MessageId::fresh();
        assert_eq!(line("status", &Context { last_sent: Some(id), ..logged_in() }), format!("status T {id}"));
        assert_eq!(problem("status", &logged_in()), "status ID: nothing was sent yet");
    }
}
