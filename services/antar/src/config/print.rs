//! `config print`: the settings in force, as TOML that could be a configuration file, without secrets.

use std::fmt::Write as _;

use super::Raw;
use super::keys::{self, KEYS};

/// All keys with their values, where each value comes from, and what each does.
pub(crate) fn print(raw: &Raw) -> String {
    let mut out = String::from("# The configuration in force.\n");
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.name.split_once('.').unwrap_or_default();
        if of != section {
            section = of;
            let _ = writeln!(out, "\n[{section}]");
        }
        let _ = writeln!(out, "# {} Takes {}.", key.doc, key.kind.accepts());
        match raw.setting(key.name) {
            Some(setting) => {
                let value = if key.secret { redacted(&setting.value) } else { setting.value.clone() };
                if setting.origin != "default" {
                    let _ = writeln!(out, "# Set by {}.", setting.origin);
                }
                let _ = writeln!(out, "{name} = {}", key.kind.toml(&value));
            }
            None => {
                let _ = writeln!(out, "# Not set, and it must be; {} sets it too.", keys::variable(key.name));
                let _ = writeln!(out, "# {name} =");
            }
        }
    }
    out
}

/// A URL without its user and password.
pub(crate) fn redacted(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://***{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}
