//! One layer of configuration: where settings come from, before they are merged.
//!
//! Owns: reading a file, the environment and flags into the same form, with unknown keys, wrong types and `*_file`
//! settled. Must not know: what a value means.

use std::path::Path;

use config::{ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use super::environment::Environment;
use super::keys::{self, Key, Kind};

/// A key that was set, by whom, to what.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// The key of the table.
    pub(crate) key: &'static Key,
    /// Who set it: `default`, a file, a variable, a flag.
    pub(crate) origin: String,
    /// The value as text; numbers and booleans too, so that all layers compare.
    pub(crate) value: String,
}

/// The settings of one source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer(pub(crate) Vec<Setting>);

/// A flag of the command line that sets a key: the key, the flag as typed, the value.
#[derive(Debug)]
pub(crate) struct Flag(pub(crate) &'static str, pub(crate) &'static str, pub(crate) String);

impl Layer {
    /// The defaults of the table.
    pub(crate) fn defaults() -> Self {
        let setting = |key: &'static Key| {
            Some(Setting { key, origin: "default".into(), value: key.default?.to_owned() })
        };
        Self(keys::KEYS.iter().filter_map(setting).collect())
    }

    /// What flags of the command line set.
    pub(crate) fn flags(flags: Vec<Flag>) -> Self {
        let setting = |Flag(name, origin, value): Flag| {
            let key = keys::find(name).expect("flags name keys of the table");
            Setting { key, origin: origin.to_owned(), value }
        };
        Self(flags.into_iter().map(setting).collect())
    }

    /// A TOML file. What is wrong with its entries is added to `problems`; a file that cannot be read is an error.
    pub(crate) fn file(path: &Path, problems: &mut Vec<String>) -> Result<Self, String> {
        let origin = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{origin}: {error}"))?;
        let table = File::from_str(&text, FileFormat::Toml).collect();
        let table = table.map_err(|error| format!("{origin}: not TOML: {}", error.to_string().trim_end()))?;
        let mut entries = Vec::new();
        flatten(String::new(), table, &mut entries);
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let mut layer = Self::default();
        for (name, value) in entries {
            layer.add(&name, &format!("{name} in {origin}"), Given::Typed(&value.kind), problems);
        }
        Ok(layer)
    }

    /// The variables that begin with `ANTAR__`.
    pub(crate) fn environment(environment: &Environment, problems: &mut Vec<String>) -> Self {
        let mut layer = Self::default();
        for (variable, name, value) in environment.settings() {
            match value {
                Some(value) => layer.add(&name, variable, Given::Text(value), problems),
                None => problems.push(format!("{variable}: its value is not UTF-8")),
            }
        }
        layer
    }

    /// Takes one entry, or says what is wrong with it.
    fn add(&mut self, name: &str, origin: &str, given: Given<'_>, problems: &mut Vec<String>) {
        let in_file = name.strip_suffix("_file").and_then(keys::find).filter(|key| key.secret);
        let Some(key) = keys::find(name).or(in_file) else {
            problems.push(unknown(name, origin));
            return;
        };
        let kind = if in_file.is_some() { Kind::Text("the name of a file") } else { key.kind };
        let Some(mut value) = given.text(kind) else {
            let shown = if key.secret { "this".into() } else { given.shown() };
            problems.push(format!("{origin}: {shown} is not {}", kind.accepts()));
            return;
        };
        if in_file.is_some() {
            match std::fs::read_to_string(&value) {
                Ok(text) => value = text.trim_end_matches(['\r', '\n']).to_owned(),
                Err(error) => {
                    problems.push(format!("{origin}: {value}: {error}"));
                    return;
                }
            }
        }
        if let Some(other) = self.0.iter().find(|setting| setting.key.name == key.name) {
            problems
                .push(format!("{origin}: {} is set by {} already; take one away", key.name, other.origin));
            return;
        }
        self.0.push(Setting { key, origin: origin.to_owned(), value });
    }
}

/// A layer is a source of the `config` crate, which puts one over the other.
impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let entry = |setting: &Setting| {
            (setting.key.name.to_owned(), Value::new(Some(&setting.origin), setting.value.as_str()))
        };
        Ok(self.0.iter().map(entry).collect())
    }
}

fn unknown(name: &str, origin: &str) -> String {
    let nearest = keys::nearest(name);
    match origin == keys::variable(name) {
        true => format!("{origin}: there is no key {name}; did you mean {}?", keys::variable(nearest)),
        false => format!("{origin}: there is no such key; did you mean {nearest}?"),
    }
}

/// A value as its source has it.
enum Given<'a> {
    /// From TOML, with a type.
    Typed(&'a ValueKind),
    /// From the environment, where all is text.
    Text(&'a str),
}

impl Given<'_> {
    /// The value as text, if its type is one that `kind` takes.
    fn text(&self, kind: Kind) -> Option<String> {
        match (self, kind) {
            (Self::Text(text), _) => Some((*text).to_owned()),
            (Self::Typed(ValueKind::Boolean(value)), Kind::Bool) => Some(value.to_string()),
            (Self::Typed(ValueKind::I64(value)), Kind::Int { .. }) => Some(value.to_string()),
            (Self::Typed(ValueKind::U64(value)), Kind::Int { .. }) => Some(value.to_string()),
            (Self::Typed(ValueKind::String(value)), Kind::Text(_) | Kind::Choice(_)) => Some(value.clone()),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Typed(ValueKind::String(text)) => format!("{text:?}"),
            Self::Typed(other) => other.to_string(),
        }
    }
}

/// Tables to dotted names.
fn flatten(prefix: String, table: Map<String, Value>, entries: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(table) if !table.is_empty() => flatten(name, table, entries),
            // `[section]` with nothing in it sets nothing.
            ValueKind::Table(_) if keys::is_section(&name) => {}
            _ => entries.push((name, value)),
        }
    }
}
