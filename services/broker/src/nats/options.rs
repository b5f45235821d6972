//! How a NATS server is reached: URLs, credentials, and what a connection is told about itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Auth, AuthError, ConnectOptions, Event, ServerAddr};
use nkeys::KeyPair;

use crate::{OpenError, Settings};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is given up after three of these: 15 s instead of the library's 180 s.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Messages that wait in one subscription to what is live; what comes beyond is dropped and found as a gap.
/// Few, for each may be a bundle, and whoever is slow holds them all.
pub(super) const LIVE_MESSAGES_MAX: usize = 128;
/// Answers that wait in the one subscription to all of them: more than are asked for at once.
pub(super) const ANSWERS_MAX: usize = 256 * 1024;
/// Commands that wait to be written.
const COMMANDS_MAX: usize = 2048;
/// Longest pause between attempts to connect.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
/// Most replicas of a stream (JetStream's own limit).
const REPLICAS_MAX: usize = 5;

/// What is needed to connect, checked.
#[derive(Clone)]
pub(super) struct Options {
    servers: Vec<ServerAddr>,
    login: Arc<Login>,
    pub(super) replicas: usize,
    authority: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    pub(super) events: Arc<Events>,
}

/// What became of all connections, counted.
#[derive(Debug, Default)]
pub(super) struct Events {
    connected: AtomicU64,
    disconnected: AtomicU64,
    slow_consumer: AtomicU64,
    refused: AtomicU64,
}

impl Events {
    fn count(&self, event: &Event) {
        let counter = match event {
            Event::Connected => &self.connected,
            Event::Disconnected => &self.disconnected,
            Event::SlowConsumer(_) => &self.slow_consumer,
            Event::ServerError(_) => &self.refused,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Each with its name.
    pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("connected", &self.connected),
            ("disconnected", &self.disconnected),
            ("slow-consumer", &self.slow_consumer),
            ("refused", &self.refused),
        ];
        all.map(|(name, count)| (name, count.load(Ordering::Relaxed))).to_vec()
    }
}

/// What a connection says to be let in.
enum Login {
    /// What the first URL with a user says: a user and a password, or a token, or nothing.
    Url { user: Option<String>, password: Option<String> },
    /// A signature, and the JWT of a `.creds` file if there is one; else the key speaks for itself.
    Key { key: Box<KeyPair>, jwt: Option<String> },
}

impl Login {
    fn auth(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        match self {
            Self::Url { user, password: Some(password) } => {
                (auth.username, auth.password) = (user.clone(), Some(password.clone()));
            }
            Self::Url { user, password: None } => auth.token = user.clone(),
            Self::Key { key, jwt } => {
                auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
                match jwt {
                    Some(jwt) => auth.jwt = Some(jwt.clone()),
                    None => auth.nkey = Some(key.public_key()),
                }
            }
        }
        Ok(auth)
    }
}

/// Whether `url` is for this broker.
pub(crate) fn is_nats(url: &str) -> bool {
    url.starts_with("nats://") || url.starts_with("tls://")
}

/// The servers that `url` names.
pub(crate) fn servers(url: &str) -> Result<Vec<ServerAddr>, OpenError> {
    let one = |text: &str| {
        let text = text.trim();
        let full = if is_nats(text) { text.to_owned() } else { format!("nats://{text}") };
        // Not the text itself: it may hold a password.
        full.parse()
            .map_err(|_| OpenError::Invalid("a server is written nats://HOST:PORT or tls://HOST:PORT".into()))
    };
    url.split(',').map(one).collect()
}

impl Options {
    pub(super) async fn of(settings: &Settings) -> Result<Self, OpenError> {
        if !(1..=REPLICAS_MAX).contains(&settings.replicas) {
            return Err(OpenError::Invalid(format!("replicas go from 1 to {REPLICAS_MAX}")));
        }
        let servers = servers(&settings.url)?;
        let login = match &settings.credentials {
            None => {
                let named = servers.iter().find(|server| server.username().is_some());
                let text = |part: Option<&str>| part.map(str::to_owned);
                Login::Url {
                    user: text(named.and_then(ServerAddr::username)),
                    password: text(named.and_then(ServerAddr::password)),
                }
            }
            Some(path) => credentials(path).await?,
        };
        let Settings { replicas, authority, certificate, .. } = settings.clone();
        let needed = authority.iter().chain(certificate.iter().flat_map(|(file, key)| [file, key]));
        for file in needed {
            // A file that is not there would show as a server that cannot be reached.
            tokio::fs::metadata(file)
                .await
                .map_err(|error| OpenError::Invalid(format!("cannot read {}: {error}", file.display())))?;
        }
        Ok(Self { servers, login: Arc::new(login), replicas, authority, certificate, events: Arc::default() })
    }

    pub(super) fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    /// The error for servers none of which answers. It names them, and never a password.
    pub(super) fn unreachable(&self, error: impl std::fmt::Display) -> OpenError {
        let servers = self.servers.iter().map(|server| format!("{}:{}", server.host(), server.port()));
        let servers = servers.collect::<Vec<_>>().join(", ");
        OpenError::Unreachable(format!("NATS cannot be reached at {servers}: {error}"))
    }

    /// Options of one connection; `on_event` hears what becomes of it. Once `is_over` it logs in nowhere any more.
    pub(super) fn connection(
        &self,
        role: &str,
        inbox: &str,
        messages_max: usize,
        is_over: &Arc<AtomicBool>,
        on_event: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<ConnectOptions, OpenError> {
        let (role_for_log, events) = (role.to_owned(), self.events.clone());
        let (login, is_over) = (self.login.clone(), is_over.clone());
        let log_in = move |nonce: Vec<u8>| {
            let auth = match is_over.load(Ordering::Acquire) {
                true => Err(AuthError::new("this connection is not made again")),
                false => login.auth(&nonce),
            };
            std::future::ready(auth)
        };
        let mut options = ConnectOptions::with_auth_callback(log_in);
        if let Some(authority) = &self.authority {
            options = options.add_root_certificates(authority.clone());
        }
        if let Some((certificate, key)) = &self.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        // Whoever names an authority means to speak to nobody else: a `nats://` beside it must not fall back to plain text.
        let is_tls = self.authority.is_some() || self.servers.iter().any(ServerAddr::tls_required);
        Ok(options
            .require_tls(is_tls)
            .name(format!("antar {role}"))
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(messages_max)
            .client_capacity(COMMANDS_MAX)
            .custom_inbox_prefix(inbox)
            // Our own stand around every call: the library's does not hold while it is not connected.
            .request_timeout(None)
            .skip_subject_validation(true)
            .reconnect_delay_callback(|attempts| {
                let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
                Duration::from_millis(2)
                    .saturating_mul(2u32.saturating_pow(exponent))
                    .min(RECONNECT_DELAY_MAX)
            })
            .event_callback(move |event| {
                log(&role_for_log, &event);
                events.count(&event);
                on_event(&event);
                std::future::ready(())
            }))
    }
}

fn log(role: &str, event: &Event) {
    match event {
        Event::Connected => tracing::debug!(role, "connected to NATS"),
        Event::Disconnected => tracing::warn!(role, "the connection to NATS is lost"),
        Event::SlowConsumer(_) => {
            tracing::warn!(role, "a subscription was too slow, what it missed is read from the stream")
        }
        Event::ServerError(error) => tracing::error!(role, %error, "NATS refuses something"),
        Event::ClientError(error) => tracing::debug!(role, %error, "NATS cannot be reached yet"),
        Event::LameDuckMode => tracing::info!(role, "the NATS server is about to stop"),
        Event::Draining | Event::Closed => tracing::debug!(role, "the connection to NATS ends"),
    }
}

async fn credentials(path: &Path) -> Result<Login, OpenError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| OpenError::Invalid(format!("cannot read {}: {error}", path.display())))?;
    let jwt = text.lines().skip_while(|line| !line.contains("BEGIN NATS USER JWT")).nth(1);
    let jwt = jwt.map(|line| line.trim().to_owned());
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    let seed = seed.ok_or_else(|| {
        OpenError::Invalid(format!(
            "{} holds neither credentials nor the seed of a user's nkey (SU…)",
            path.display()
        ))
    })?;
    let key = KeyPair::from_seed(seed).map_err(|error| {
        OpenError::Invalid(format!("the credentials in {} cannot be used: {error}", path.display()))
    })?;
    Ok(Login::Key { key: Box::new(key), jwt })
}
