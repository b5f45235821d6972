//! Reaches a realm's operator interface: in the process that serves it, or here if nobody does.

use std::time::Duration;

use antar_broker::sqlite::{self, ControlError};
use antar_broker::{OpenError, ReadError, SharedBroker, Subject};
use antar_proto::RealmId;
use antar_realm::admin::{self, AdminReply, AdminRequest};
use antar_realm::{Realm, RealmConfig};
use anyhow::Context as _;

use super::unexpected;
use crate::config::BrokerUrl;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::server::open_failure;

/// How long a realm may take for one request: an import of 100 accounts is 100 hashes of 20 ms, beside logins.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Which realm on which broker.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The realm, with the settings that its own process has if both read the same configuration.
    pub(crate) realm: RealmConfig,
    /// The broker.
    pub(crate) broker: BrokerUrl,
}

/// A connection to the operator interface of one realm.
pub(crate) enum Operator {
    /// Another process holds the database, and answers for the realm.
    Served {
        /// The realm and the database.
        target: Target,
        /// Why it was not opened here, for the case that nobody answers.
        refusal: String,
    },
    /// Nobody does: the realm runs here for as long as this lives.
    Here(SharedBroker, Realm),
}

impl Operator {
    /// Reaches the realm. `may_make` lets it make a database and a realm that are not there yet.
    pub(crate) async fn reach(target: Target, may_make: bool) -> Outcome<Self> {
        if !may_make && target.broker.sqlite_path().is_some_and(|path| !path.exists()) {
            let message =
                format!("{} is not there; say which database by --broker, --config or --data", target.broker);
            return Err(Failure::new(Exit::Unreachable, message));
        }
        match antar_broker::open(&target.broker.url).await {
            // Most likely the realm's own process has it, which is then asked.
            Err(OpenError::Unreachable(refusal)) => Ok(Self::Served { target, refusal }),
            Err(error) => Err(open_failure(&error)),
            Ok(broker) => {
                if !may_make && !is_there(&broker, &target.realm.id).await {
                    broker.close().await;
                    let message = format!("there is no realm {} in {}", target.realm.id, target.broker);
                    return Err(Failure::new(Exit::Failed, message));
                }
                let realm = Realm::start(broker.clone(), target.realm).await;
                let realm = realm.context("the realm cannot be opened").or_exit(Exit::Failed)?;
                Ok(Self::Here(broker, realm))
            }
        }
    }

    /// Makes one request; a refusal is an error.
    pub(crate) async fn ask(&self, request: AdminRequest) -> Outcome<AdminReply> {
        let reply = match self {
            Self::Here(_, realm) => realm.admin(request).await,
            Self::Served { target, refusal } => ask_served(target, refusal, &request).await?,
        };
        match reply {
            AdminReply::Refused { .. } | AdminReply::Unavailable { .. } => Err(unexpected(&reply)),
            reply => Ok(reply),
        }
    }

    /// Makes one request that has nothing to answer.
    pub(crate) async fn tell(&self, request: AdminRequest) -> Outcome {
        match self.ask(request).await? {
            AdminReply::Done => Ok(()),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Ends what was started for the requests.
    pub(crate) async fn leave(self) {
        if let Self::Here(broker, realm) = self {
            realm.stop().await;
            broker.close().await;
        }
    }
}

/// Whether the realm was ever started on this broker. Starting one makes it, and a name that was typed wrong shall not.
async fn is_there(broker: &SharedBroker, realm: &RealmId) -> bool {
    let events = Subject::new(format!("realm.{realm}.event")).expect("a realm id is one token of a subject");
    !matches!(broker.last(&events).await, Err(ReadError::NoStream(_)))
}

/// Asks the process that has the database open.
async fn ask_served(target: &Target, refusal: &str, request: &AdminRequest) -> Outcome<AdminReply> {
    let (subject, body) = (admin::subject(&target.realm.id), serde_json::to_vec(request)?);
    let answer = sqlite::control_request(&target.broker.url, &subject, body.into(), ANSWER_MAX).await;
    let answer = answer.map_err(|error| {
        let message = match &error {
            ControlError::NotRunning(_) => refusal.to_owned(),
            ControlError::NoResponder => {
                format!("the process that serves {} does not serve {}", target.broker, target.realm.id)
            }
            ControlError::Timeout | ControlError::Failed(_) => error.to_string(),
        };
        Failure::new(Exit::Unreachable, message)
    })?;
    Ok(serde_json::from_slice(&answer).context("the realm's answer is not of this version")?)
}
