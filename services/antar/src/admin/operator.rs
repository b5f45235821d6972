//! Reaches a realm's operator interface: in the process that serves it, or here if nobody does.

use std::time::Duration;

use antar_broker::sqlite::{self, ControlError};
use antar_broker::{OpenError, RequestError, SharedBroker};
use antar_proto::RealmId;
use antar_realm::admin::{self, AdminReply, AdminRequest};
use antar_realm::{Realm, RealmConfig};
use anyhow::Context as _;

use super::unexpected;
use crate::config::BrokerConfig;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::server::open_failure;

/// How long a realm may take for one request: an import of 100 accounts is 100 hashes of 20 ms, beside logins.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long an edge may take to say that it is there.
const PING_MAX: Duration = Duration::from_secs(5);

/// Which realm on which broker.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The realm, with the settings that its own process has if both read the same configuration.
    pub(crate) realm: RealmConfig,
    /// The broker.
    pub(crate) broker: BrokerConfig,
}

/// A connection to the operator interface of one realm.
pub(crate) enum Operator {
    /// Another process holds the database, and answers for the realm.
    Holder {
        /// The realm and the database.
        target: Box<Target>,
        /// Why it was not opened here, for the case that nobody answers.
        refusal: String,
    },
    /// An edge of the realm answers, over the broker.
    Edge(SharedBroker, RealmId),
    /// Nobody does: the realm runs here for as long as this lives.
    Here(SharedBroker, Realm),
}

impl Operator {
    /// Reaches the realm. `may_make` lets it make a database and a realm that are not there yet.
    pub(crate) async fn reach(target: Target, may_make: bool) -> Outcome<Self> {
        let file = target.broker.sqlite_path();
        if !may_make && file.as_ref().is_some_and(|path| !path.exists()) {
            let message =
                format!("{} is not there; say which database by --broker, --config or --data", target.broker);
            return Err(Failure::new(Exit::Unreachable, message));
        }
        match antar_broker::open(&target.broker.settings()).await {
            // Most likely the realm's own process has the file, and is then asked.
            Err(OpenError::Unreachable(refusal)) if file.is_some() => {
                Ok(Self::Holder { target: Box::new(target), refusal })
            }
            Err(error) => Err(open_failure(&error)),
            Ok(broker) => {
                let reached = reach_on(&broker, &target, may_make).await;
                if reached.is_err() {
                    broker.close().await;
                }
                reached
            }
        }
    }

    /// Makes one request; a refusal is an error.
    pub(crate) async fn ask(&self, request: AdminRequest) -> Outcome<AdminReply> {
        let reply = match self {
            Self::Here(_, realm) => realm.admin(request).await,
            Self::Holder { target, refusal } => ask_holder(target, refusal, &request).await?,
            Self::Edge(broker, id) => {
                let answer = ask_edge(broker, id, &request, ANSWER_MAX).await?;
                answer.map_err(|error| Failure::new(Exit::Unreachable, format!("realm {id}: {error}")))?
            }
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
        match self {
            Self::Holder { .. } => {}
            Self::Edge(broker, _) => broker.close().await,
            Self::Here(broker, realm) => {
                realm.stop().await;
                broker.close().await;
            }
        }
    }
}

/// Reaches the realm on a broker that is open: at an edge that serves it, or here. Starting a realm makes it, and a name
/// that was typed wrong shall not.
async fn reach_on(broker: &SharedBroker, target: &Target, may_make: bool) -> Outcome<Operator> {
    let id = &target.realm.id;
    match ask_edge(broker, id, &AdminRequest::Ping, PING_MAX).await? {
        Ok(_) => return Ok(Operator::Edge(broker.clone(), id.clone())),
        Err(RequestError::NoResponder) => {}
        Err(error) => return Err(Failure::new(Exit::Unreachable, format!("realm {id}: {error}"))),
    }
    if !may_make && !Realm::exists(broker, id).await.map_err(|error| open_failure(&error))? {
        return Err(Failure::new(Exit::Failed, format!("there is no realm {id} in {}", target.broker)));
    }
    let realm = Realm::start(broker.clone(), target.realm.clone()).await;
    let realm = realm.context("the realm cannot be opened").or_exit(Exit::Failed)?;
    Ok(Operator::Here(broker.clone(), realm))
}

/// Asks an edge of the realm over the broker.
async fn ask_edge(
    broker: &SharedBroker,
    realm: &RealmId,
    request: &AdminRequest,
    timeout: Duration,
) -> Outcome<Result<AdminReply, RequestError>> {
    let body = serde_json::to_vec(request)?;
    match broker.request(&admin::subject(realm), body.into(), timeout).await {
        Ok(answer) => Ok(Ok(understand(&answer)?)),
        Err(error) => Ok(Err(error)),
    }
}

/// Asks the process that has the database open.
async fn ask_holder(target: &Target, refusal: &str, request: &AdminRequest) -> Outcome<AdminReply> {
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
    understand(&answer)
}

fn understand(answer: &[u8]) -> Outcome<AdminReply> {
    Ok(serde_json::from_slice(answer).context("the realm's answer is not of this version")?)
}
