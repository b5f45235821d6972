//! Transcripts: conversations with a server, written down for people and run against a real one.
//!
//! | line | meaning |
//! |---|---|
//! | `# …`, empty | a remark |
//! | `connect 2 realm2` | connection 2 is to realm2; without this, to realm1 |
//! | `C2: …` | the client sends this line on connection 2 (`C:` is the connection without a number) |
//! | `S2: …` | the server's next frame on connection 2 |
//! | `S2~ …` | the same, but the last line is sent again until the answer is this one: something takes a moment |
//! | a line that begins with spaces | goes on with the line before |
//!
//! In what the server says, a text `<token…>` or `<id…>` stands for a UUID that gets this name; the same name later is
//! the same UUID, also in what clients send. `<uuid>`, `<time>` and `<any>` stand for any UUID, any time of RFC 3339 in
//! UTC and anything at all. Objects must have exactly the fields written down.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{Conn, Server, eventually};

/// One line of a transcript.
#[derive(Debug)]
enum Step {
    Connect { name: String, realm: String },
    Client { name: String, line: String },
    Server { name: String, frame: Value, patient: bool },
}

/// A conversation.
pub(crate) struct Transcript {
    title: String,
    steps: Vec<(usize, Step)>,
}

/// What placeholders stand for.
type Bound = HashMap<String, String>;

impl Transcript {
    /// Reads one; `title` is shown when something in it is wrong.
    #[track_caller]
    pub(crate) fn parse(title: &str, text: &str) -> Self {
        let mut lines: Vec<(usize, String)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if let (true, Some(last)) = (line.starts_with(' '), lines.last_mut()) {
                last.1 += line.trim_start();
            } else if !line.is_empty() && !line.starts_with('#') {
                lines.push((number + 1, line.to_owned()));
            }
        }
        let steps = lines.into_iter().map(|(number, line)| {
            let step = step(&line).unwrap_or_else(|why| panic!("{title}:{number}: {why}: {line}"));
            (number, step)
        });
        Self { title: title.to_owned(), steps: steps.collect() }
    }

    /// The commands that its clients send, lower case, without tags.
    pub(crate) fn commands(&self) -> impl Iterator<Item = String> {
        self.steps.iter().filter_map(|(_, step)| match step {
            Step::Client { line, .. } => {
                let mut words = line.split(' ').filter(|word| !word.is_empty());
                words.find(|word| !word.starts_with('@')).map(str::to_lowercase)
            }
            _ => None,
        })
    }

    /// Holds the conversation with a server of two realms.
    #[track_caller]
    pub(crate) fn run(&self, server: &Server) {
        self.run_over(&|realm| server.connect(realm));
    }

    /// Holds the conversation over connections that `connect` makes to a realm.
    #[track_caller]
    pub(crate) fn run_over(&self, connect: &dyn Fn(&str) -> Conn) {
        let mut connections: BTreeMap<String, (Conn, String)> = BTreeMap::new();
        let mut bound = Bound::new();
        for (number, step) in &self.steps {
            let place = format!("{}:{number}", self.title);
            match step {
                Step::Connect { name, realm } => {
                    connections.insert(name.clone(), (connect(realm), String::new()));
                }
                Step::Client { name, line } => {
                    let line = substitute(line, &bound);
                    let connection = connections.entry(name.clone());
                    let (conn, last) = connection.or_insert_with(|| (connect("realm1"), String::new()));
                    conn.send(&line);
                    *last = line;
                }
                Step::Server { name, frame, patient } => {
                    let (conn, last) =
                        connections.get_mut(name).unwrap_or_else(|| panic!("{place}: not connected"));
                    let mut seen = conn.reply();
                    if *patient {
                        eventually(&format!("{place}: {frame}"), || {
                            if compare(frame, &seen, &mut bound.clone()).is_ok() {
                                return Some(());
                            }
                            seen = conn.ask(last);
                            None
                        });
                    }
                    if let Err(why) = compare(frame, &seen, &mut bound) {
                        panic!("{place}: {why}\n  written: {frame}\n  said:    {seen}");
                    }
                }
            }
        }
    }
}

fn step(line: &str) -> Result<Step, String> {
    if let Some(rest) = line.strip_prefix("connect ") {
        let (name, realm) = rest.split_once(' ').ok_or("connect takes a number and a realm")?;
        return Ok(Step::Connect { name: name.into(), realm: realm.into() });
    }
    let (head, rest) = line.split_once([':', '~']).ok_or("neither connect nor C nor S")?;
    let patient = line[head.len()..].starts_with('~');
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    match head.split_at_checked(1) {
        Some(("C", name)) if !patient => Ok(Step::Client { name: name.into(), line: rest.into() }),
        Some(("S", name)) => {
            let frame = serde_json::from_str(rest).map_err(|e| format!("not JSON ({e})"))?;
            Ok(Step::Server { name: name.into(), frame, patient })
        }
        _ => Err("neither connect nor C nor S".into()),
    }
}

fn substitute(line: &str, bound: &Bound) -> String {
    bound.iter().fold(line.to_owned(), |line, (name, value)| line.replace(name, value))
}

/// Whether `seen` is what is `written`, keeping what names stand for.
fn compare(written: &Value, seen: &Value, bound: &mut Bound) -> Result<(), String> {
    match (written, seen) {
        (Value::String(name), _) if name == "<any>" => Ok(()),
        (Value::String(name), Value::String(seen)) if name.starts_with('<') && name.ends_with('>') => {
            placeholder(name, seen, bound)
        }
        (Value::Object(written), Value::Object(seen)) => {
            let fields =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>().join(", ");
            if written.len() != seen.len() || !written.keys().all(|key| seen.contains_key(key)) {
                return Err(format!("the fields are [{}], not [{}]", fields(seen), fields(written)));
            }
            written.iter().try_for_each(|(key, value)| compare(value, &seen[key], bound))
        }
        (Value::Array(written), Value::Array(seen)) if written.len() == seen.len() => {
            written.iter().zip(seen).try_for_each(|(written, seen)| compare(written, seen, bound))
        }
        _ if written == seen => Ok(()),
        _ => Err(format!("{seen} is not {written}")),
    }
}

fn placeholder(name: &str, seen: &str, bound: &mut Bound) -> Result<(), String> {
    let is_uuid = seen.len() == 36 && seen.parse::<uuid::Uuid>().is_ok();
    if name == "<time>" {
        return is_time(seen).then_some(()).ok_or(format!("{seen} is not a time"));
    }
    if !is_uuid {
        return Err(format!("{seen} is not a UUID"));
    }
    if name == "<uuid>" {
        return Ok(());
    }
    if !name.starts_with("<token") && !name.starts_with("<id") {
        return Err(format!("{name} is no placeholder"));
    }
    let known = bound.entry(name.to_owned()).or_insert_with(|| seen.to_owned());
    if known == seen { Ok(()) } else { Err(format!("{name} was {known}, now it is {seen}")) }
}

/// `2026-01-31T09:30:00Z`, also with a fraction.
fn is_time(text: &str) -> bool {
    let shape =
        |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    let Some(text) = text.strip_suffix('Z') else { return false };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    shape(whole) == "0000-00-00T00:00:00" && fraction.bytes().all(|b| b.is_ascii_digit())
}
