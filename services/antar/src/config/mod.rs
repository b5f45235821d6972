//! Configuration: flags over environment over file over defaults, checked as a whole before anything is opened.
//!
//! Owns: the keys, their sources and the validated [`Config`]. [`Config::validate`] is the one place where text becomes
//! a setting.

pub(crate) mod environment;
pub(crate) mod keys;
mod layer;
mod print;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use antar_broker::sqlite;
use antar_edge::EdgeConfig;
use antar_proto::RealmId;
use antar_realm::{Provision, Rate, RateLimits, RealmConfig, Registration};
use tracing_subscriber::filter::Targets;

pub(crate) use environment::Environment;
pub(crate) use layer::Flag;
use layer::{Layer, Setting};
pub(crate) use print::print;

/// Everything a process is told, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The realm.
    pub(crate) realm: RealmConfig,
    /// Limits of the edge.
    pub(crate) edge: EdgeConfig,
    /// Where clients connect.
    pub(crate) command: SocketAddr,
    /// Where clients connect over TLS, if anywhere.
    pub(crate) tls: Option<SocketAddr>,
    /// Where health is answered, if anywhere.
    pub(crate) http: Option<SocketAddr>,
    /// What is shown to clients that speak TLS.
    pub(crate) certificate: Option<CertificateFiles>,
    /// What keeps the log.
    pub(crate) broker: BrokerConfig,
    /// How logs are written.
    pub(crate) log: LogConfig,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    /// The certificate and its chain.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// How logs are written.
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    /// In which form.
    pub(crate) format: LogFormat,
    /// What is logged.
    pub(crate) level: Targets,
    /// Where traces go, if anywhere: the URL that they are posted to.
    #[cfg_attr(not(any(feature = "otel", test)), expect(dead_code, reason = "it is always none then"))]
    pub(crate) traces: Option<String>,
}

/// The form of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which broker, how to reach it, and whether somebody chose it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BrokerConfig {
    /// As `antar_broker::open` takes it; may hold a password.
    pub(crate) url: String,
    /// It is the table's default: nobody set it.
    pub(crate) is_default: bool,
    /// NATS: what proves to the server who we are, if the URL does not.
    pub(crate) credentials: Option<PathBuf>,
    /// NATS: how many servers keep what is stored.
    pub(crate) replicas: usize,
    /// NATS: which authority signed the servers' certificates.
    pub(crate) authority: Option<PathBuf>,
    /// NATS: what proves to the server who we are in TLS.
    pub(crate) certificate: Option<CertificateFiles>,
}

impl BrokerConfig {
    /// As the broker takes it.
    pub(crate) fn settings(&self) -> antar_broker::Settings {
        let Self { url, credentials, replicas, authority, certificate, .. } = self.clone();
        let certificate = certificate.map(|files| (files.certificate, files.key));
        antar_broker::Settings { url, credentials, replicas, authority, certificate }
    }

    /// Where a realm's key is if nobody says otherwise: beside the database, or in the working directory.
    pub(crate) fn key_file(&self, realm: &RealmId) -> PathBuf {
        let path = self.sqlite_path().unwrap_or_default();
        path.with_file_name(format!("{realm}.nk"))
    }

    /// The file of `sqlite:PATH`.
    pub(crate) fn sqlite_path(&self) -> Option<PathBuf> {
        sqlite::Options::parse(&self.url).ok().map(|options| options.path)
    }
}

/// Without the password, if there is one.
impl fmt::Display for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print::redacted(&self.url))
    }
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a configuration comes from, the weakest first; the table's defaults lie below all of them.
#[derive(Default)]
pub(crate) struct Sources<'a> {
    /// What this command takes for granted unless somebody says otherwise.
    pub(crate) presets: Vec<Flag>,
    /// `--config`.
    pub(crate) file: Option<&'a Path>,
    /// The environment.
    pub(crate) environment: Option<&'a Environment>,
    /// The command line.
    pub(crate) flags: Vec<Flag>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not valid")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// The settings in force, as text.
#[derive(Debug)]
pub(crate) struct Raw {
    merged: config::Config,
    layers: Vec<Layer>,
    problems: Vec<String>,
}

impl Raw {
    /// Reads all sources. What is wrong is kept for [`Config::validate`].
    pub(crate) fn read(sources: Sources<'_>) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let file = sources.file.map(|path| Layer::file(path, &mut problems)).transpose();
        let layers = vec![
            Layer::defaults(),
            Layer::flags(sources.presets),
            file.map_err(|problem| Problems(vec![problem]))?.unwrap_or_default(),
            sources.environment.map(|vars| Layer::environment(vars, &mut problems)).unwrap_or_default(),
            Layer::flags(sources.flags),
        ];
        let builder = layers
            .iter()
            .cloned()
            .fold(config::Config::builder(), |builder, layer| builder.add_source(layer));
        let merged = builder.build().map_err(|error| Problems(vec![error.to_string()]))?;
        Ok(Self { merged, layers, problems })
    }

    /// Who set `key`, if anybody.
    fn setting(&self, key: &str) -> Option<&Setting> {
        let of = |layer: &Layer| layer.0.iter().position(|setting| setting.key.name == key);
        self.layers.iter().rev().find_map(|layer| of(layer).map(|at| &layer.0[at]))
    }

    /// The value of `key` by `parse`, which returns `None` for what it does not take.
    fn take<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let known = keys::find(key).expect("validate takes keys of the table");
        let Ok(text) = self.merged.get_string(key) else {
            let (flag, variable) = (known.flag.unwrap_or("a file"), keys::variable(key));
            let accepts = known.kind.accepts();
            self.problems.push(format!("{key} is not set: use {flag} or {variable}; it takes {accepts}"));
            return None;
        };
        let parsed = parse(&text);
        if parsed.is_none() {
            let origin = self.setting(key).map_or("default", |setting| &setting.origin);
            let shown = if known.secret { "what is there".into() } else { format!("{text:?}") };
            self.problems.push(format!("{origin}: {shown} is not {}", known.kind.accepts()));
        }
        parsed
    }

    /// The path of a file, or nothing.
    fn file(&mut self, key: &str) -> Option<Option<PathBuf>> {
        self.take(key, |text| Some((!text.is_empty()).then(|| PathBuf::from(text))))
    }

    /// A certificate and its key: both or none.
    fn certificate(&mut self, certificate: &str, key: &str) -> Option<Option<CertificateFiles>> {
        match (self.file(certificate)?, self.file(key)?) {
            (Some(certificate), Some(key)) => Some(Some(CertificateFiles { certificate, key })),
            (None, None) => Some(None),
            (given, _) => {
                let (set, missing) = if given.is_some() { (certificate, key) } else { (key, certificate) };
                self.problems.push(format!("{set} is set, and {missing} is not: both are needed"));
                None
            }
        }
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.take(key, |text| text.parse().ok())
    }

    fn number(&mut self, key: &str) -> Option<u64> {
        let bounds = match keys::find(key).map(|key| key.kind) {
            Some(keys::Kind::Int { min, max }) => min..=max,
            _ => {
                unreachable!("validate takes numbers of keys that are numbers: every load runs through here")
            }
        };
        self.take(key, |text| text.parse().ok().filter(|number| bounds.contains(number)))
    }

    fn size(&mut self, key: &str) -> Option<usize> {
        self.number(key).and_then(|number| usize::try_from(number).ok())
    }

    fn duration(&mut self, key: &str, unit: Duration) -> Option<Duration> {
        self.number(key).map(|number| unit * u32::try_from(number).unwrap_or(u32::MAX))
    }
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Config {
    /// Reads and checks.
    pub(crate) fn load(sources: Sources<'_>) -> Result<Self, Problems> {
        Self::validate(&mut Raw::read(sources)?)
    }

    /// Text to settings: all of them, or everything that is wrong.
    pub(crate) fn validate(raw: &mut Raw) -> Result<Self, Problems> {
        let config = Self::build(raw);
        match config {
            Some(config) if raw.problems.is_empty() => Ok(config),
            _ => Err(Problems(std::mem::take(&mut raw.problems))),
        }
    }

    /// Takes every key before it gives up, so that all problems are told at once.
    fn build(raw: &mut Raw) -> Option<Self> {
        let realm = realm(raw);
        let key_file = raw.file("realm.key_file");
        let edge = edge(raw);
        let listen = listen(raw);
        let url = raw.take("broker.url", |text| antar_broker::check_url(text).ok().map(|()| text.to_owned()));
        let credentials = raw.file("broker.credentials_file");
        let authority = raw.file("broker.ca_file");
        let client_certificate = raw.certificate("broker.certificate_file", "broker.certificate_key_file");
        let replicas = raw.size("broker.replicas");
        let is_default = raw.setting("broker.url").is_none_or(|setting| setting.origin == "default");
        let format = raw.take("log.format", |text| match text {
            "auto" => Some(LogFormat::Auto),
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        let level = raw.take("log.level", |text| text.parse().ok().filter(|_| !text.trim().is_empty()));
        let traces = traces(raw);
        let (mut realm, key_file) = (realm?, key_file?);
        let broker = BrokerConfig {
            url: url?,
            is_default,
            credentials: credentials?,
            replicas: replicas?,
            authority: authority?,
            certificate: client_certificate?,
        };
        let listen = listen?;
        realm.key_file = Some(key_file.unwrap_or_else(|| broker.key_file(&realm.id)));
        Some(Self {
            realm,
            edge: EdgeConfig { origins: listen.origins, ..edge? },
            command: listen.command,
            tls: listen.tls,
            http: listen.http,
            certificate: listen.certificate,
            broker,
            log: LogConfig { format: format?, level: level?, traces: traces? },
        })
    }
}

/// Where clients connect, and what is shown to them.
struct Listen {
    command: SocketAddr,
    tls: Option<SocketAddr>,
    http: Option<SocketAddr>,
    origins: Vec<String>,
    certificate: Option<CertificateFiles>,
}

/// The keys that say where to listen. Plain text beyond this machine has to be asked for.
fn listen(raw: &mut Raw) -> Option<Listen> {
    fn optional(text: &str) -> Option<Option<SocketAddr>> {
        match text {
            "" | "off" => Some(None),
            address => address.parse().ok().map(Some),
        }
    }
    let command = raw.take("listen.command", |text| text.parse::<SocketAddr>().ok());
    let allow_plaintext = raw.flag("listen.allow_plaintext");
    let tls = raw.take("listen.tls", optional);
    let http = raw.take("listen.http", optional);
    let origins = raw.take("listen.origins", origins);
    let certificate = raw.certificate("tls.certificate_file", "tls.key_file");
    let plain_http = http.flatten().filter(|_| matches!(certificate, Some(None)));
    let plain = [
        ("listen.command", command, "Use listen.tls with a certificate"),
        ("listen.http", plain_http, "Set tls.certificate_file and tls.key_file"),
    ];
    for (key, address, remedy) in plain {
        if let (Some(address), Some(false)) = (address, allow_plaintext)
            && !address.ip().is_loopback()
        {
            raw.problems.push(format!(
                "{key} is {address}, which other machines reach, and it is plain text: passwords would cross the network readable. \
                 {remedy}; or, behind a tunnel or on a network that you trust, say so by listen.allow_plaintext = true ({})",
                keys::variable("listen.allow_plaintext")
            ));
        }
    }
    if let (Some(Some(tls)), Some(None)) = (tls, &certificate) {
        raw.problems.push(format!(
            "listen.tls is {tls}, and there is no certificate to show: set tls.certificate_file and tls.key_file"
        ));
    }
    Some(Listen { command: command?, tls: tls?, http: http?, origins: origins?, certificate: certificate? })
}

/// Origins (RFC 6454, 6.2) with commas between them: a scheme, a host, and no path.
fn origins(text: &str) -> Option<Vec<String>> {
    let all = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    let checked = all.map(|one| {
        let place = one.strip_prefix("https://").or_else(|| one.strip_prefix("http://"))?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
        (!place.is_empty() && place.bytes().all(is_plain)).then(|| one.to_ascii_lowercase())
    });
    checked.collect()
}

/// Where traces are posted, if anywhere. A program that cannot do it says so, rather than nothing.
fn traces(raw: &mut Raw) -> Option<Option<String>> {
    let key = "log.otlp_endpoint";
    let endpoint = raw.take(key, |text| {
        if text.is_empty() {
            return Some(None);
        }
        let place = text.strip_prefix("http://")?.trim_end_matches('/');
        let is_place = !place.is_empty() && place.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        is_place.then(|| Some(format!("http://{place}/v1/traces")))
    })?;
    if endpoint.is_some() && !cfg!(feature = "otel") {
        raw.problems.push(format!(
            "{key} is set, and this program was built without otel: build it with `--features otel`, or unset it"
        ));
    }
    Some(endpoint)
}

/// The keys that make a [`RealmConfig`].
fn realm(raw: &mut Raw) -> Option<RealmConfig> {
    let id = raw.take("realm.id", |text| text.parse::<RealmId>().ok());
    let plain = |text: &str| text.chars().count() <= 100 && !text.chars().any(char::is_control);
    let name = raw.take("realm.name", |text| plain(text).then(|| text.trim().to_owned()));
    let demo_accounts = raw.flag("realm.demo_accounts");
    let registration = raw.take("auth.registration", |text| match text {
        "open" => Some(Registration::Open),
        "invite" => Some(Registration::Invite),
        "closed" => Some(Registration::Closed),
        _ => None,
    });
    let uniform_errors = raw.flag("auth.uniform_errors");
    let session_ttl = raw.duration("auth.session_days", DAY);
    let password_bytes_min = raw.size("auth.password_bytes_min");
    let mailbox_entries_max = raw.number("limits.mailbox_entries_max");
    let file_bytes_max = raw.number("limits.file_bytes_max");
    let user_file_bytes_max = raw.number("limits.user_file_bytes_max");
    let peer_file_bytes_max = raw.number("limits.peer_file_bytes_max");
    let rates = RateLimits {
        user: rate(raw, ["limits.user_messages_per_minute", "limits.user_bytes_per_minute"]),
        address: rate(raw, ["limits.address_messages_per_minute", "limits.address_bytes_per_minute"]),
        lane: rate(raw, ["limits.peer_messages_per_minute", "limits.peer_bytes_per_minute"]),
    };
    let quarantine = raw.flag("federation.quarantine");
    let retention = raw.duration("retention.days", DAY);
    let provision = raw.flag("broker.provision").map(|make| match make {
        true => Provision::IfNew,
        false => Provision::Never,
    });
    let id = id?;
    let name = name?;
    Some(RealmConfig {
        name: if name.is_empty() { id.to_string() } else { name },
        id,
        demo_accounts: demo_accounts?,
        registration: registration?,
        uniform_errors: uniform_errors?,
        session_ttl: session_ttl?,
        password_bytes_min: password_bytes_min?,
        mailbox_entries_max: mailbox_entries_max?,
        file_bytes_max: file_bytes_max?,
        user_file_bytes_max: user_file_bytes_max?,
        peer_file_bytes_max: peer_file_bytes_max?,
        retention: retention?,
        quarantine: quarantine?,
        rates,
        key_file: None,
        provision: provision?,
    })
}

/// Messages and bytes a minute; no limit for what is no number, which is told by then.
fn rate(raw: &mut Raw, [messages, bytes]: [&'static str; 2]) -> Rate {
    let number =
        |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default();
    Rate { messages: number(raw.number(messages)), bytes: number(raw.number(bytes)) }
}

/// The keys that make an [`EdgeConfig`].
fn edge(raw: &mut Raw) -> Option<EdgeConfig> {
    let line_bytes_max = raw.size("limits.line_bytes_max");
    let line_time = raw.duration("limits.line_seconds", SECOND);
    let guests_per_address_max = raw.size("limits.unauthenticated_per_address");
    let guest_time = raw.duration("limits.unauthenticated_seconds", SECOND);
    let write_stall = raw.duration("limits.write_stall_seconds", SECOND);
    let pipeline_max = raw.size("limits.pipeline_max");
    let connections_max = raw.size("limits.connections_max");
    Some(EdgeConfig {
        line_bytes_max: line_bytes_max?,
        line_time: line_time?,
        guests_per_address_max: guests_per_address_max?,
        guest_time: guest_time?,
        write_stall: write_stall?,
        pipeline_max: pipeline_max?,
        connections_max: connections_max?,
        ..EdgeConfig::default()
    })
}

#[cfg(test)]
mod tests;
