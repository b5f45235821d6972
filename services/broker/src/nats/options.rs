//! How a NATS server is reached: URLs, credentials, and what a connection is told about itself.

use std::path::Path;
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerAddr};

use crate::{OpenError, Settings};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is given up after three of these: 15 s instead of the library's 180 s.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Messages that wait in one subscription to what is live; what comes beyond is dropped and found as a gap.
pub(super) const LIVE_MESSAGES_MAX: usize = 1024;
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
    auth: Auth,
    pub(super) replicas: usize,
}

#[derive(Clone)]
enum Auth {
    /// In the URL, or none.
    Url,
    /// The text of a `.creds` file.
    Credentials(String),
    /// The seed of an nkey.
    Seed(String),
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
        full.parse().map_err(|_| OpenError::Invalid("a server is written nats://HOST:PORT".into()))
    };
    url.split(',').map(one).collect()
}

impl Options {
    pub(super) async fn of(settings: &Settings) -> Result<Self, OpenError> {
        if !(1..=REPLICAS_MAX).contains(&settings.replicas) {
            return Err(OpenError::Invalid(format!("replicas go from 1 to {REPLICAS_MAX}")));
        }
        let auth = match &settings.credentials {
            None => Auth::Url,
            Some(path) => credentials(path).await?,
        };
        Ok(Self { servers: servers(&settings.url)?, auth, replicas: settings.replicas })
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

    /// Options of one connection; `on_event` hears what becomes of it.
    pub(super) fn connection(
        &self,
        role: &str,
        inbox: &str,
        messages_max: usize,
        on_event: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<ConnectOptions, OpenError> {
        let role_for_log = role.to_owned();
        let options = ConnectOptions::new()
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
                on_event(&event);
                std::future::ready(())
            });
        match &self.auth {
            Auth::Url => Ok(options),
            Auth::Seed(seed) => Ok(options.nkey(seed.clone())),
            Auth::Credentials(text) => options
                .credentials(text)
                .map_err(|error| OpenError::Invalid(format!("the credentials cannot be used: {error}"))),
        }
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

async fn credentials(path: &Path) -> Result<Auth, OpenError> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| OpenError::Invalid(format!("cannot read {}: {error}", path.display())))?;
    if text.contains("BEGIN NATS USER JWT") {
        return Ok(Auth::Credentials(text));
    }
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    let seed = seed.ok_or_else(|| {
        OpenError::Invalid(format!(
            "{} holds neither credentials nor the seed of a user's nkey (SU…)",
            path.display()
        ))
    })?;
    Ok(Auth::Seed(seed.to_owned()))
}
