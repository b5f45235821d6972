//! `antar realm …`.

use antar_realm::admin::{AdminReply, AdminRequest, PeerInfo};
use serde::Serialize;

use super::operator::{Operator, Target};
use super::unexpected;
use super::user::with;
use crate::cli::RealmCommand;
use crate::exit::Outcome;
use crate::say;

impl RealmCommand {
    /// The realm that is meant.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Pause { id } | Self::Resume { id } | Self::Show { id, .. } => id,
        }
    }
}

/// Runs one command.
pub(crate) async fn run(command: RealmCommand, target: Target) -> Outcome {
    let (paused, done) = match command {
        RealmCommand::Show { json, .. } => {
            return with(target, false, async move |operator| show(operator, json).await).await;
        }
        RealmCommand::Pause { id } => {
            (true, format!("{id} exchanges nothing with other realms until it is resumed"))
        }
        RealmCommand::Resume { id } => (false, format!("{id} exchanges messages with other realms")),
    };
    with(target, false, async move |operator| operator.tell(AdminRequest::Pause { paused }).await).await?;
    say::line(done)
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    paused: bool,
    accounts: usize,
    peers: &'a [PeerInfo],
}

async fn show(operator: &Operator, json: bool) -> Outcome {
    let reply = operator.ask(AdminRequest::Show).await?;
    let AdminReply::Realm { id, name, paused, accounts, peers } = &reply else {
        return Err(unexpected(&reply));
    };
    if json {
        return say::json(&Shown { id, name, paused: *paused, accounts: *accounts, peers });
    }
    let state = if *paused { "paused" } else { "running" };
    say::line(format!("{id} ({name}): {state}, {accounts} accounts, {} other realms", peers.len()))?;
    if peers.is_empty() {
        return Ok(());
    }
    let mut rows =
        vec![["realm", "state", "queued", "oldest", "address", "last error"].map(String::from).to_vec()];
    rows.extend(peers.iter().map(|peer| {
        let oldest = peer.oldest_s.map(|seconds| format!("{seconds} s")).unwrap_or_default();
        let address = format!("{}:{}", peer.host, peer.port);
        let error = peer.last_error.clone().unwrap_or_default();
        vec![peer.realm.clone(), peer.state.clone(), peer.queued.to_string(), oldest, address, error]
    }));
    say::table(&rows)
}
