//! The process's environment, read once and nowhere else.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::exit::{Exit, Failure, Outcome};

/// Names the password for the commands that take one from the environment.
pub(crate) const PASSWORD_VARIABLE: &str = "ANTAR_PASSWORD";
/// What the variables of configuration keys begin with.
pub(crate) const PREFIX: &str = "ANTAR__";

/// The variables of the process.
/// Not `Debug`: passwords stand in it.
#[derive(Default)]
pub(crate) struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        Self(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect(),
        )
    }

    /// One for a test.
    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect())
    }

    /// The password that was passed by the environment, if one was.
    pub(crate) fn password(&self) -> Outcome<Option<String>> {
        let Some(value) = self.0.get(PASSWORD_VARIABLE) else { return Ok(None) };
        let text = value
            .to_str()
            .ok_or_else(|| Failure::new(Exit::Usage, format!("{PASSWORD_VARIABLE} is not UTF-8")))?;
        Ok(Some(text.to_owned()))
    }

    /// Who types the command, as far as it can be told: USER@HOST.
    pub(crate) fn operator(&self) -> String {
        let of = |name| self.0.get(name).and_then(|value| value.to_str()).filter(|user| !user.is_empty());
        let user = ["USER", "LOGNAME"].into_iter().find_map(of).unwrap_or("unknown");
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let kept = format!("{user}@{host}");
        kept.chars().filter(|c| !c.is_control()).take(64).collect()
    }

    /// Whether the variable `name` is set to anything.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_empty())
    }

    /// The configuration keys that are set: the variable, the key, the value (`None` if it is not UTF-8).
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, String, Option<&str>)> {
        self.0.iter().filter_map(|(variable, value)| {
            let key = variable.strip_prefix(PREFIX)?.replace("__", ".").to_lowercase();
            Some((variable.as_str(), key, value.to_str()))
        })
    }
}
