//! Connecting, and what a server has to be.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{self, ApiError};
use super::options::Options;
use super::publish::Publisher;
use super::read::Reader;
use super::streams::Streams;
use super::{NatsBroker, OwnedNatsBroker, bundle};
use crate::{OpenError, Settings};

/// Oldest servers without a known weakness that matters here: of this line and of later ones.
const SERVER_MIN: (u64, u64, u64) = (2, 12, 7);
/// The line between them never was released without it.
const SERVER_SKIPPED: (u64, u64) = (2, 13);
/// Least payload that a server has to take: an entry's body with its headers.
const PAYLOAD_MIN: usize = 1024 * 1024;
/// For how long opening asks again when NATS does not answer, and the pause in between: elections take some seconds.
const START_PATIENCE: Duration = Duration::from_secs(15);
const START_DELAY: Duration = Duration::from_millis(250);

impl OwnedNatsBroker {
    /// Connects, and refuses a server that is too old, too small or without JetStream.
    pub(crate) async fn open(settings: &Settings) -> Result<Self, OpenError> {
        Self::open_with(settings, true).await
    }

    /// Connects likewise; nothing that is not there is made.
    pub(crate) async fn open_for_reading(settings: &Settings) -> Result<Self, OpenError> {
        Self::open_with(settings, false).await
    }

    async fn open_with(settings: &Settings, may_make: bool) -> Result<Self, OpenError> {
        let options = Options::of(settings).await?;
        let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
        let guard = closed.clone().drop_guard();
        let inbox = format!("_INBOX.antar{}", crate::EntryId::unique().as_str());
        let api = api::Api::start(&options, inbox.clone(), &tasks, closed.clone()).await?;
        check_server(&api.client().server_info())?;
        patiently(|| async {
            let account = api.ask::<serde_json::Value>("INFO", &serde_json::json!({})).await;
            account.map(drop).map_err(|error| match error {
                ApiError::Unavailable(why) => OpenError::Unreachable(why),
                other => OpenError::Invalid(other.to_string()),
            })
        })
        .await?;
        let publisher =
            Publisher::start(options.clone(), format!("{inbox}.p"), &tasks, closed.clone()).await?;
        let streams = Streams::new(api.clone(), options.replicas, may_make);
        guard.disarm();
        Ok(Self(NatsBroker {
            options,
            bundler: bundle::Bundler::new(publisher.clone(), tasks.clone()),
            publisher,
            reader: Reader { api, streams },
            queues: Arc::default(),
            turns: Arc::default(),
            is_shut: Arc::default(),
            closed,
            tasks,
        }))
    }
}

/// Tries what opening asks for until it is there or refused: a cluster may be electing a leader.
pub(super) async fn patiently<F: Future<Output = Result<(), OpenError>>>(
    ask: impl Fn() -> F,
) -> Result<(), OpenError> {
    let began = tokio::time::Instant::now();
    loop {
        match ask().await {
            Err(OpenError::Unreachable(why)) if began.elapsed() < START_PATIENCE => {
                tracing::info!(why, "waiting for NATS");
                tokio::time::sleep(START_DELAY).await;
            }
            other => return other,
        }
    }
}

pub(super) fn check_server(info: &async_nats::ServerInfo) -> Result<(), OpenError> {
    let mut numbers = info.version.split(['.', '-']).map(|number| number.parse::<u64>().ok());
    let mut next = || numbers.next().flatten().unwrap_or(0);
    let version = (next(), next(), next());
    if version < SERVER_MIN || (version.0, version.1) == SERVER_SKIPPED {
        let (major, minor, patch) = SERVER_MIN;
        return Err(OpenError::Newer(format!(
            "the NATS server is version {}: older ones than {major}.{minor}.{patch} (and 2.13) have known weaknesses, \
             please update it",
            info.version
        )));
    }
    if info.max_payload < PAYLOAD_MIN {
        return Err(OpenError::Invalid(format!(
            "the NATS server takes messages of {} bytes only: set max_payload to {PAYLOAD_MIN} or more",
            info.max_payload
        )));
    }
    Ok(())
}
