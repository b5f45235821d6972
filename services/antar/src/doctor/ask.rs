//! How whoever serves a realm is asked, without becoming one who does.

use std::time::Duration;

use antar_broker::sqlite::{self, ControlError};
use antar_broker::{RequestError, SharedBroker, Subject};
use bytes::Bytes;

use crate::config::BrokerConfig;

/// A way to those who answer.
pub(super) enum Asker {
    /// The socket of the process that has the file of this URL open.
    Socket(String),
    /// A connection that is used for nothing else.
    Nats(SharedBroker),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nobody serves the file, or the subject.
    Nobody,
    /// Somebody does, and has not answered.
    Silent(String),
}

impl Asker {
    /// Of a broker that can be reached.
    pub(super) async fn of(broker: &BrokerConfig) -> Result<Self, antar_broker::OpenError> {
        match broker.sqlite_path() {
            Some(_) => Ok(Self::Socket(broker.url.clone())),
            None => antar_broker::open(&broker.settings()).await.map(Self::Nats),
        }
    }

    /// Asks whoever serves `subject`.
    pub(super) async fn ask(
        &self,
        subject: &Subject,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, NoAnswer> {
        match self {
            Self::Socket(url) => {
                sqlite::control_request(url, subject, body, timeout).await.map_err(|error| match error {
                    ControlError::NotRunning(_) | ControlError::NoResponder => NoAnswer::Nobody,
                    ControlError::Timeout | ControlError::Failed(_) => NoAnswer::Silent(error.to_string()),
                })
            }
            Self::Nats(broker) => broker.request(subject, body, timeout).await.map_err(|error| match error {
                RequestError::NoResponder => NoAnswer::Nobody,
                error => NoAnswer::Silent(error.to_string()),
            }),
        }
    }

    /// Ends what was opened for it.
    pub(super) async fn close(self) {
        if let Self::Nats(broker) = self {
            broker.close().await;
        }
    }
}
