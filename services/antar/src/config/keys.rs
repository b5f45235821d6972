//! The table of configuration keys. It drives the check for unknown keys, `config print`, `config keys` and the
//! documentation; nothing else lists them.

use std::fmt::Write as _;

/// A key and everything there is to say about it.
#[derive(Debug)]
pub(crate) struct Key {
    /// `section.key`.
    pub(crate) name: &'static str,
    /// What it takes.
    pub(crate) kind: Kind,
    /// Its value if nobody sets it; `None` if somebody has to.
    pub(crate) default: Option<&'static str>,
    /// May hold a password: never shown, and `<key>_file` names a file to read it from.
    pub(crate) secret: bool,
    /// The flag of `antar serve` that sets it, if there is one.
    pub(crate) flag: Option<&'static str>,
    /// What it does.
    pub(crate) doc: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Int {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Text; the words say which.
    Text(&'static str),
}

impl Kind {
    /// What is accepted, for an error message and for the documentation.
    pub(crate) fn accepts(self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Int { min, max } => format!("a whole number from {min} to {max}"),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Text(what) => what.into(),
        }
    }

    /// `value` as it stands in a TOML file.
    pub(crate) fn toml(self, value: &str) -> String {
        match self {
            Self::Bool | Self::Int { .. } => value.to_owned(),
            Self::Choice(_) | Self::Text(_) => toml::Value::from(value).to_string(),
        }
    }
}

const ADDRESS: Kind =
    Kind::Text("an IP address and a port, such as 127.0.0.1:4001 or [::1]:4001; port 0 takes a free one");
const FILE: Kind = Kind::Text("the path of a file, or nothing");
const YEAR_DAYS: u64 = 366;
const A_MINUTE: Kind = Kind::Int { min: 0, max: u32::MAX as u64 };

impl Key {
    const fn new(name: &'static str, kind: Kind, default: Option<&'static str>, doc: &'static str) -> Self {
        Self { name, kind, default, secret: false, flag: None, doc }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    const fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }
}

/// Every key there is, section by section.
pub(crate) const KEYS: &[Key] = &[
    Key::new(
        "realm.id",
        Kind::Text("1 to 32 of a-z, 0-9, _ and -, beginning with a letter or a digit"),
        None,
        "The realm's id. It stands in every address (messi@realm1) and never changes.",
    )
    .flag("--realm"),
    Key::new(
        "realm.name",
        Kind::Text("1 to 100 characters; empty for the realm's id"),
        Some(""),
        "The realm's name, for people.",
    ),
    Key::new(
        "realm.key_file",
        Kind::Text("the path of a file; empty for ID.nk beside the database, or in the working directory"),
        Some(""),
        "The realm's private key, which signs what it sends to other realms. All edges of a realm have the same; \
         nobody else may read it (mode 0600). Made at the first start, or by `antar realm init`.",
    ),
    Key::new(
        "realm.demo_accounts",
        Kind::Bool,
        Some("false"),
        "Makes the accounts messi, henderson and lineker with the password surabaya. Never on a realm that \
         others can reach.",
    ),
    Key::new(
        "auth.registration",
        Kind::Choice(&["open", "invite", "closed"]),
        Some("closed"),
        "Who may make an account with `register`: everybody, whoever has a code of `antar user invite`, or \
         nobody.",
    ),
    Key::new(
        "auth.uniform_errors",
        Kind::Bool,
        Some("false"),
        "Answers an unknown user and a wrong password alike (bad-credentials), so that nobody can find out \
         who has an account.",
    ),
    Key::new(
        "auth.session_days",
        Kind::Int { min: 1, max: 10 * YEAR_DAYS },
        Some("30"),
        "How long a session lives after its login.",
    ),
    Key::new(
        "auth.password_bytes_min",
        Kind::Int { min: 1, max: 128 },
        Some("8"),
        "The shortest new password.",
    ),
    Key::new(
        "listen.command",
        ADDRESS,
        Some("127.0.0.1:4001"),
        "Where clients connect in plain text. Beyond this machine only with listen.allow_plaintext; listen.tls is for that.",
    )
    .flag("--listen"),
    Key::new(
        "listen.allow_plaintext",
        Kind::Bool,
        Some("false"),
        "Lets listen.command, and listen.http without a certificate, be reached from other machines, where passwords and messages cross the network readable: behind a \
         tunnel, or on a network that you trust.",
    ),
    Key::new(
        "listen.tls",
        Kind::Text("an IP address and a port, such as 0.0.0.0:4443; empty or off for none"),
        Some(""),
        "Where clients connect over TLS. Needs tls.certificate_file and tls.key_file.",
    ),
    Key::new(
        "listen.http",
        Kind::Text("an IP address and a port, such as 127.0.0.1:8080; empty or off for none"),
        Some(""),
        "Where the page (/), health (/healthz, /readyz), metrics (/metrics, for Prometheus), WebSocket (/ws), files (/files) and hooks of bots (/hook/) are answered \
         over HTTP. With tls.certificate_file it is HTTPS, and plain HTTP is taken from this machine only; without, beyond this \
         machine only with listen.allow_plaintext.",
    )
    .flag("--http"),
    Key::new(
        "tls.certificate_file",
        FILE,
        Some(""),
        "The certificate that is shown to clients, with its chain (PEM). Read again on SIGHUP, and within seconds when it \
         has changed; what cannot be used is logged, and the one before is shown on.",
    ),
    Key::new("tls.key_file", FILE, Some(""), "The private key of the certificate (PEM)."),
    Key::new(
        "broker.url",
        Kind::Text("sqlite:PATH, nats://HOST:PORT or tls://HOST:PORT"),
        Some("sqlite:antar.db"),
        "What keeps the log. sqlite:PATH is one file for one process, made at the first start; the default \
         lies in the working directory. nats:// is NATS JetStream, for several edges and machines, and tls:// the same over \
         TLS: USER:PASSWORD@ may stand before the host, and more servers of the cluster behind commas.",
    )
    .secret()
    .flag("--broker"),
    Key::new(
        "broker.ca_file",
        FILE,
        Some(""),
        "NATS: certificates (PEM) of the authority that signed those of the servers, if the system does not know it. With it \
         nats:// is TLS too.",
    ),
    Key::new(
        "broker.certificate_file",
        FILE,
        Some(""),
        "NATS: a certificate (PEM) that proves to the server who this edge is; with broker.certificate_key_file.",
    ),
    Key::new("broker.certificate_key_file", FILE, Some(""), "NATS: the private key of that certificate (PEM)."),
    Key::new(
        "broker.credentials_file",
        FILE,
        Some(""),
        "NATS: credentials (.creds), or the seed of an nkey, that prove to the server who this edge is.",
    ),
    Key::new(
        "broker.replicas",
        Kind::Int { min: 1, max: 5 },
        Some("1"),
        "NATS: how many servers of the cluster keep each stream that is made. What is there keeps what it has.",
    ),
    Key::new(
        "broker.provision",
        Kind::Bool,
        Some("true"),
        "Makes the realm's streams and buckets if it has none yet. With false, only `antar realm init` does.",
    ),
    Key::new(
        "limits.line_bytes_max",
        Kind::Int { min: 1024, max: 16 * 1024 * 1024 },
        Some("65536"),
        "The longest request line. A longer one is skipped and answered with line-too-long.",
    ),
    Key::new(
        "limits.unauthenticated_per_address",
        Kind::Int { min: 1, max: 1_000_000 },
        Some("64"),
        "Connections of one address that have not logged in; the one idle longest goes first.",
    ),
    Key::new(
        "limits.unauthenticated_seconds",
        Kind::Int { min: 1, max: 86_400 },
        Some("600"),
        "How long a connection may stay without a login.",
    ),
    Key::new(
        "limits.line_seconds",
        Kind::Int { min: 1, max: 3600 },
        Some("60"),
        "How long a line may take from its first byte to its end.",
    ),
    Key::new(
        "limits.write_stall_seconds",
        Kind::Int { min: 1, max: 3600 },
        Some("30"),
        "How long a client may leave what it is sent unread before it is disconnected.",
    ),
    Key::new(
        "limits.pipeline_max",
        Kind::Int { min: 1, max: 100_000 },
        Some("1024"),
        "Requests of one connection that are worked on at once; then its next line waits.",
    ),
    Key::new(
        "limits.mailbox_entries_max",
        Kind::Int { min: 1, max: 100_000_000 },
        Some("100000"),
        "Messages in one box of a mailbox. Full of unread ones, it refuses more with mailbox-full. Can be raised later, not lowered.",
    ),
    Key::new(
        "limits.file_bytes_max",
        Kind::Int { min: 1, max: 16 * 1024 * 1024 * 1024 },
        Some("104857600"),
        "The largest file. A larger one is refused before its bytes are taken.",
    ),
    Key::new(
        "limits.user_file_bytes_max",
        Kind::Int { min: 1, max: 1 << 50 },
        Some("1073741824"),
        "Bytes of the files that one user has sent, as long as they are kept. Beyond them a file is refused with file-quota.",
    ),
    Key::new(
        "limits.peer_file_bytes_max",
        Kind::Int { min: 1, max: 1 << 50 },
        Some("10737418240"),
        "Bytes of the files that users of one other realm have sent here, as long as they are kept. Beyond them a file fails with file-quota, before its bytes are taken.",
    ),
    Key::new(
        "limits.connections_max",
        Kind::Int { min: 1, max: 10_000_000 },
        Some("65536"),
        "Connections to this edge; further ones are closed at once.",
    ),
    Key::new("limits.user_messages_per_minute", A_MINUTE, Some("0"), "Messages that one user may send in a minute: more is answered with rate-limited. 0 for no limit. Each edge counts for itself."),
    Key::new("limits.user_bytes_per_minute", A_MINUTE, Some("0"), "Bytes of text that one user may send in a minute: more is answered with rate-limited. 0 for no limit. Each edge counts for itself."),
    Key::new("limits.address_messages_per_minute", A_MINUTE, Some("0"), "Messages that may come from one address in a minute, likewise."),
    Key::new("limits.address_bytes_per_minute", A_MINUTE, Some("0"), "Bytes of text that may come from one address in a minute, likewise."),
    Key::new("limits.peer_messages_per_minute", A_MINUTE, Some("0"), "Messages that the lane to one other realm carries in a minute: the rest waits in it. 0 for no limit."),
    Key::new("limits.peer_bytes_per_minute", A_MINUTE, Some("0"), "Bytes of envelopes that the lane to one other realm carries in a minute: the rest waits in it. 0 for no limit."),
    Key::new(
        "federation.quarantine",
        Kind::Bool,
        Some("false"),
        "Holds what comes from realms that have added this one and that nobody here has added, until an operator lets them in \
         or a user adds them: `antar realm quarantine`.",
    ),
    Key::new(
        "retention.days",
        Kind::Int { min: 1, max: 100 * YEAR_DAYS },
        Some("30"),
        "How long messages that were read are kept. Unread ones are kept until they are read.",
    ),
    Key::new(
        "log.format",
        Kind::Choice(&["auto", "text", "json"]),
        Some("auto"),
        "How logs are written on stderr; auto is text on a terminal and JSON otherwise.",
    ),
    Key::new(
        "log.level",
        Kind::Text("error, warn, info, debug or trace, also for parts: info,antar_edge=debug"),
        Some("info"),
        "What is logged.",
    ),
    Key::new(
        "log.otlp_endpoint",
        Kind::Text("http://HOST:PORT, or nothing"),
        Some(""),
        "Where traces are exported to: a collector that takes OTLP over HTTP (POST /v1/traces). Only of a program that was built \
         with the feature otel. The collector's absence holds nothing up: what does not fit into the queue is dropped.",
    ),
];

/// Whether keys begin with `name` and a dot.
pub(crate) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(section, _)| section == name))
}

/// The key of this name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The environment variable that sets the key `name`.
pub(crate) fn variable(name: &str) -> String {
    format!("ANTAR__{}", name.replace('.', "__").to_uppercase())
}

/// The known key that `name` was probably meant to be.
pub(crate) fn nearest(name: &str) -> &'static str {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |key: &Key| {
        let elsewhere = strsim::osa_distance(&last(key.name), &last(name)) + 2;
        strsim::osa_distance(key.name, name).min(elsewhere)
    };
    let of_section =
        KEYS.iter().find(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
    of_section.or_else(|| KEYS.iter().min_by_key(|key| distance(key))).map_or("", |key| key.name)
}

/// The table as Markdown, for people.
pub(crate) fn markdown() -> String {
    let mut out =
        String::from("| key | environment, flag | takes | default | what it does |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let default = match key.default {
            None => "none: must be set".into(),
            Some("") => "empty".into(),
            Some(value) => format!("`{value}`"),
        };
        let variable = variable(key.name);
        let file = if key.secret { format!("<br>`{variable}_FILE`") } else { String::new() };
        let flag = key.flag.map(|flag| format!("<br>`{flag}`")).unwrap_or_default();
        let _ = writeln!(
            out,
            "| `{}` | `{variable}`{file}{flag} | {} | {default} | {} |",
            key.name,
            key.kind.accepts(),
            key.doc
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_once_in_its_section() {
        let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        let mut sections: Vec<_> = names.iter().map(|name| name.split_once('.').unwrap().0).collect();
        sections.dedup();
        let mut unique = sections.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(sections.len(), unique.len(), "a section stands in two places");
        assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1));
    }

    #[test]
    fn a_misspelt_key_finds_the_one_that_was_meant() {
        for (wrong, meant) in [
            ("listen.comand", "listen.command"),
            ("realm.registration", "auth.registration"),
            ("limits.line_byte_max", "limits.line_bytes_max"),
            ("broker.uri", "broker.url"),
            ("loglevel", "log.level"),
            ("realm", "realm.id"),
            ("limit.pipeline_max", "limits.pipeline_max"),
        ] {
            assert_eq!(nearest(wrong), meant, "{wrong}");
        }
    }

    #[test]
    fn the_document_of_the_configuration_is_the_table() {
        let document = include_str!("../../CONFIGURATION.md");
        assert!(document.contains(&markdown()), "put this into CONFIGURATION.md:\n{}", markdown());
    }
}
