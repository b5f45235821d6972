//! What the Tab key offers, and the usage shown behind the cursor.
//!
//! Owns: the names seen so far, and which kind of argument stands where. Must not know how lines are sent, except that
//! it may ask the server for user names, for a short time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use antar_proto::command::{COMMANDS, lookup};
use antar_proto::{RealmId, UserName};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::calls::Token;
use crate::chat::help::LOCAL;
use crate::chat::input::usage;
use crate::client::Client;

/// Most names of a kind that are remembered; later ones are not.
const NAMES_MAX: usize = 10_000;
/// How long the Tab key may wait for the server.
const FETCH_TIMEOUT: Duration = Duration::from_millis(400);

/// Names that can be completed. A handle: clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    users: BTreeSet<String>,
    realms: BTreeSet<String>,
    /// Where more can be asked for.
    source: Option<(Client, Token)>,
}

/// The names in one reply, wherever they stand in it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) users: Vec<String>,
    pub(crate) realms: Vec<String>,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing can panic while it is held, and names would still be names.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers names. What is not a name, or comes from another realm, is left out.
    pub(crate) fn learn(&self, seen: Seen) {
        let mut known = self.lock();
        for user in seen.users.into_iter().filter(|user| user.parse::<UserName>().is_ok()) {
            if known.users.len() < NAMES_MAX {
                known.users.insert(user);
            }
        }
        for realm in seen.realms.into_iter().filter(|realm| realm.parse::<RealmId>().is_ok()) {
            if known.realms.len() < NAMES_MAX {
                known.realms.insert(realm);
            }
        }
    }

    /// Whom to ask for user names from now on.
    pub(crate) fn ask(&self, source: Option<(Client, Token)>) {
        self.lock().source = source;
    }

    /// Asks for the users that begin with `prefix`. Blocks for up to [`FETCH_TIMEOUT`]; must not be called by a task.
    fn fetch(&self, prefix: &str, runtime: &Handle) {
        let source = self.lock().source.clone();
        let Some((client, token)) = source else { return };
        if !prefix.is_empty() && prefix.parse::<UserName>().is_err() {
            return;
        }
        let line = format!("users {} {prefix}", token.as_str());
        // Not knowing more names is no reason to say anything.
        if let Ok(Ok(reply)) = runtime.block_on(async { timeout(FETCH_TIMEOUT, client.request(&line)).await })
        {
            self.learn(Seen::in_json(&reply.json()));
        }
    }

    /// Where the word under the cursor begins, and what it could become.
    pub(crate) fn complete(&self, line: &str, runtime: Option<&Handle>) -> (usize, Vec<String>) {
        let (kind, start) = kind_at(line);
        let word = &line[start..];
        if let (Kind::User, Some(runtime)) = (kind, runtime) {
            self.fetch(word, runtime);
        }
        let known = self.lock();
        let names: Vec<&str> = match kind {
            Kind::Command => commands().collect(),
            Kind::Slash => LOCAL.iter().filter_map(|(usage, _)| usage.split(' ').next()).collect(),
            Kind::User => known.users.iter().map(String::as_str).collect(),
            Kind::Realm => known.realms.iter().map(String::as_str).collect(),
            Kind::Other => Vec::new(),
        };
        let begin_so = names.into_iter().filter(|name| name.starts_with(word));
        let mut found: Vec<_> = begin_so.map(str::to_owned).collect();
        found.dedup();
        // The only one is a whole word, unless more names or a realm may follow it.
        if let ([only], Kind::Command | Kind::Slash | Kind::Realm) = (found.as_mut_slice(), kind) {
            only.push(' ');
        }
        (start, found)
    }
}

fn commands() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().flat_map(|spec| spec.names.iter().copied())
}

/// What kind of word stands at the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Command,
    Slash,
    User,
    Realm,
    Other,
}

/// The kind of the last word of `line`, and where the part to complete begins: after the last comma of a list, and
/// after the `@` of a qualified name.
fn kind_at(line: &str) -> (Kind, usize) {
    let start = line.rfind(' ').map_or(0, |at| at + 1);
    let mut before: Vec<&str> = line[..start].split_whitespace().collect();
    if before.first().is_some_and(|word| word.starts_with('@')) {
        before.remove(0);
    }
    let Some((command, args)) = before.split_first() else {
        return match line[start..].chars().next() {
            Some('/') => (Kind::Slash, start),
            Some('@' | '>') => (Kind::Other, start),
            _ => (Kind::Command, start),
        };
    };
    let what = match *command {
        "/to" => "USER".to_owned(),
        "/help" => "COMMAND".to_owned(),
        _ => match lookup(command.trim_start_matches('/')) {
            Some(spec) => usage(spec).split(' ').nth(args.len() + 1).unwrap_or_default().to_owned(),
            None => return (Kind::Other, start),
        },
    };
    // New accounts have new names, and what other commands call a user can be known.
    if matches!(*command, "register") {
        return (Kind::Other, start);
    }
    let word = &line[start..];
    let list_start = start + word.rfind(',').map_or(0, |at| at + 1);
    match what.as_str() {
        what if what.contains("USER") || what.contains("PREFIX") => match line[list_start..].find('@') {
            Some(at) => (Kind::Realm, list_start + at + 1),
            None => (Kind::User, list_start),
        },
        what if what.contains("REALM") => (Kind::Realm, start),
        what if what.contains("COMMAND") => (Kind::Command, start),
        _ => (Kind::Other, start),
    }
}

/// The arguments that are still to be typed, to be shown behind the cursor.
pub(crate) fn hint(line: &str) -> Option<String> {
    let rest = line.trim_start();
    let rest = match rest.strip_prefix('@') {
        Some(tagged) => tagged.split_once(' ')?.1.trim_start(),
        None => rest,
    };
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let spec = lookup(words.next()?.trim_start_matches('/'))?;
    let whole = usage(spec);
    let missing: Vec<_> = whole.split(' ').skip(1 + words.count()).collect();
    if missing.is_empty() {
        return None;
    }
    let gap = if line.ends_with(' ') { "" } else { " " };
    Some(format!("{gap}{}", missing.join(" ")))
}

impl Seen {
    /// Finds names in any reply or event: the values of the fields that hold them in all of them.
    pub(crate) fn in_json(json: &serde_json::Value) -> Self {
        let mut seen = Self::default();
        seen.gather(json, DEPTH_MAX);
        // `list` has its names in one string.
        if let Some(list) = json.get("messages").and_then(|list| list.as_str()) {
            seen.users.extend(list.split(',').map(str::to_owned));
        }
        seen
    }

    fn gather(&mut self, json: &serde_json::Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        match json {
            serde_json::Value::Array(items) => items.iter().for_each(|item| self.gather(item, depth)),
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    match (key.as_str(), value.as_str()) {
                        ("user", Some(user)) => self.users.push(user.to_owned()),
                        ("realm", Some(realm)) => self.realms.push(realm.to_owned()),
                        ("from" | "to", Some(address)) => {
                            if let Some((user, realm)) = address.split_once('@') {
                                self.users.push(user.to_owned());
                                self.realms.push(realm.to_owned());
                            }
                        }
                        _ => self.gather(value, depth),
                    }
                }
            }
            _ => {}
        }
    }
}

/// How deep names are looked for; replies have them at most three levels deep.
const DEPTH_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let names = Names::default();
        let json = r#"{"messages":"messi,henderson,","users":[{"user":"henry"},{"user":"Bad Name"}],
            "realms":[{"realm":"realm2"},{"realm":"realm3"}],"event":{"from":"lineker@realm2","msg":"hi"}}"#;
        names.learn(Seen::in_json(&serde_json::from_str(json).unwrap()));
        names
    }

    #[test]
    fn each_argument_is_completed_with_its_kind() {
        for (line, expected) in [
            ("getr", &["getrealminbox "][..]),
            ("sendp", &["sendprivate", "sendprivaterealm"]),
            ("send h", &["henderson", "henry"]),
            ("@7 send m", &["messi"]),
            ("send lineker@", &["realm2", "realm3"]),
            ("sendgroup messi,l", &["lineker"]),
            ("sendgrouprealm realm2 messi,hend", &["henderson"]),
            ("getrealminbox realm", &["realm2", "realm3"]),
            ("getpresence B", &[]),
            ("send messi h", &[]),
            ("register h", &[]),
            ("/t", &["/to ", "/to "][..1]),
            ("/to l", &["lineker"]),
            ("/help capa", &["capabilities "]),
            ("help pi", &["ping "]),
            ("> m", &[]),
            ("halo m", &[]),
        ] {
            assert_eq!(names().complete(line, None).1, expected, "{line:?}");
        }
        assert_eq!(names().complete("sendgroup messi,l", None).0, "sendgroup messi,".len());
        assert_eq!(names().complete("send lineker@r", None).0, "send lineker@".len());
    }

    #[test]
    fn the_usage_that_is_left_is_shown() {
        for (line, expected) in [
            ("send", Some(" USER[@REALM] TEXT")),
            ("send ", Some("USER[@REALM] TEXT")),
            ("send henderson", Some(" TEXT")),
            ("send henderson halo", None),
            ("@7 addrealm realm2 ", Some("HOST PORT")),
            ("ping", None),
            ("halo", None),
            ("", None),
        ] {
            assert_eq!(hint(line).as_deref(), expected, "{line:?}");
        }
    }
}
