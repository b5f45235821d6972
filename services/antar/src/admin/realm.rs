//! `antar realm …`.

use antar_realm::admin::{AdminReply, AdminRequest, PeerInfo};
use antar_realm::{Made, Provision, Realm, Rotated};
use serde::Serialize;

use super::operator::{Operator, Target};
use super::unexpected;
use super::user::with;
use crate::cli::RealmCommand;
use crate::exit::Outcome;
use crate::say;
use crate::server::{open_failure, start_failure};

impl RealmCommand {
    /// The realm that is meant, if it is one.
    pub(crate) fn id(&self) -> Option<&str> {
        match self {
            Self::Pause { id }
            | Self::Resume { id }
            | Self::Show { id, .. }
            | Self::Init { id, .. }
            | Self::RotateKey { id, .. }
            | Self::List { id, .. }
            | Self::Trust { id, .. }
            | Self::Block { id, .. }
            | Self::Unblock { id, .. } => Some(id),
            Self::Quarantine { command } => Some(command.id()),
            Self::Backup(args) => Some(&args.id),
            Self::Restore(_) | Self::NatsConfig(_) => None,
        }
    }
}

/// Runs one command.
pub(crate) async fn run(command: RealmCommand, target: Target, by: String) -> Outcome {
    let (request, done) = match command {
        RealmCommand::Init { add_missing, json, .. } => return init(target, add_missing, json).await,
        RealmCommand::RotateKey { json, .. } => return rotate_key(target, json).await,
        RealmCommand::Show { json, .. } => {
            return with(target, false, async move |operator| show(operator, json).await).await;
        }
        RealmCommand::List { id, json } => {
            return with(target, false, async move |operator| list(operator, &id, json).await).await;
        }
        RealmCommand::Trust { peer, key, .. } => {
            return with(target, false, async move |operator| trust(operator, peer, key).await).await;
        }
        RealmCommand::Block { id, peer } => {
            let done = format!("{id} exchanges nothing with {peer} until it is unblocked");
            (AdminRequest::RealmBlock { realm: peer, blocked: true }, done)
        }
        RealmCommand::Unblock { id, peer } => {
            let done = format!("{id} exchanges messages with {peer}");
            (AdminRequest::RealmBlock { realm: peer, blocked: false }, done)
        }
        RealmCommand::Quarantine { command } => return super::quarantine::run(command, target, by).await,
        RealmCommand::Pause { id } => {
            let done = format!("{id} exchanges nothing with other realms until it is resumed");
            (AdminRequest::Pause { paused: true }, done)
        }
        RealmCommand::Resume { id } => {
            (AdminRequest::Pause { paused: false }, format!("{id} exchanges messages with other realms"))
        }
        RealmCommand::Backup(args) => return super::backup::take(&args, target).await,
        RealmCommand::Restore(args) => return super::backup::restore(&args, target).await,
        RealmCommand::NatsConfig(args) => return super::nats_config::run(&args),
    };
    with(target, false, async move |operator| operator.tell(request).await).await?;
    say::line(done)
}

/// Makes a realm, or says that it is there.
async fn init(target: Target, add_missing: bool, json: bool) -> Outcome {
    let Target { mut realm, broker } = target;
    realm.provision = if add_missing { Provision::Missing } else { Provision::IfNew };
    let (id, path) = (realm.id.clone(), realm.key_file.clone().unwrap_or_default());
    let opened = antar_broker::open(&broker.settings()).await.map_err(|error| open_failure(&error))?;
    let made = Realm::init(&opened, &realm).await.map_err(|error| start_failure(&id, error));
    opened.close().await;
    let Made { names, key, is_key_new } = made?;
    if json {
        let key_made = is_key_new;
        return say::json(&Initialised {
            id: id.as_str(),
            made: &names,
            key: &key,
            key_file: &path,
            key_made,
        });
    }
    match names.len() {
        0 => say::line(format!("{id}: all its streams and buckets are in {broker}"))?,
        _ => say::line(format!("{id}: made {} in {broker}", names.join(", ")))?,
    }
    let what = if is_key_new { "its key was made" } else { "its key is there" };
    say::line(format!("{id}: {what}: {key}, private part in {}", path.display()))
}

/// Gives a realm another key.
async fn rotate_key(target: Target, json: bool) -> Outcome {
    let Target { realm, broker } = target;
    let (id, path) = (realm.id, realm.key_file.unwrap_or_default());
    let opened = antar_broker::open(&broker.settings()).await.map_err(|error| open_failure(&error))?;
    let rotated = Realm::rotate_key(&opened, &id, &path).await;
    opened.close().await;
    let Rotated { before, now, old_file } = rotated.map_err(|error| start_failure(&id, error.into()))?;
    if json {
        return say::json(&RotatedKey {
            id: id.as_str(),
            before: &before,
            key: &now,
            key_file: &path,
            old_file: &old_file,
        });
    }
    say::line(format!("{id}: its key is {now}, private part in {}", path.display()))?;
    say::line(format!("{id}: it was {before}, kept in {}", old_file.display()))?;
    say::line(
        "copy the file to every edge and restart them; then each peer: antar realm trust PEER ".to_owned()
            + id.as_str()
            + " --key "
            + &now,
    )
}

#[derive(Debug, Serialize)]
struct RotatedKey<'a> {
    id: &'a str,
    before: &'a str,
    key: &'a str,
    key_file: &'a std::path::Path,
    old_file: &'a std::path::Path,
}

#[derive(Debug, Serialize)]
struct Initialised<'a> {
    id: &'a str,
    made: &'a [String],
    key: &'a str,
    key_file: &'a std::path::Path,
    key_made: bool,
}

/// Whether the key of a peer is believed.
fn standing(peer: &PeerInfo) -> &'static str {
    match (peer.blocked, &peer.key, &peer.offered) {
        (true, ..) => "blocked",
        (false, _, Some(_)) => "changed",
        (false, Some(_), None) => "pinned",
        (false, None, None) => "unknown",
    }
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    peer: &'a PeerInfo,
    standing: &'static str,
}

async fn list(operator: &Operator, id: &str, json: bool) -> Outcome {
    let reply = operator.ask(AdminRequest::Show).await?;
    let AdminReply::Realm { peers, .. } = &reply else { return Err(unexpected(&reply)) };
    if json {
        return peers.iter().try_for_each(|peer| say::json(&Listed { peer, standing: standing(peer) }));
    }
    let mut rows = vec![["realm", "state", "key", ""].map(String::from).to_vec()];
    rows.extend(peers.iter().map(|peer| {
        let key = peer.key.clone().unwrap_or_default();
        vec![peer.realm.clone(), peer.state.clone(), standing(peer).into(), key]
    }));
    say::table(&rows)?;
    for peer in peers {
        if let (Some(was), Some(now)) = (&peer.key, &peer.offered) {
            let peer = &peer.realm;
            say::line(format!(
                "{peer}: its key has changed: was {was}, now {now}; if its operators say so: antar realm trust {id} {peer} --key {now}"
            ))?;
        }
    }
    Ok(())
}

async fn trust(operator: &Operator, peer: String, key: Option<String>) -> Outcome {
    match operator.ask(AdminRequest::RealmTrust { realm: peer.clone(), key }).await? {
        AdminReply::Trusted { key } => say::line(format!("{peer} is trusted with the key {key}")),
        reply => Err(unexpected(&reply)),
    }
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    paused: bool,
    key: &'a str,
    accounts: usize,
    peers: &'a [PeerInfo],
}

async fn show(operator: &Operator, json: bool) -> Outcome {
    let reply = operator.ask(AdminRequest::Show).await?;
    let AdminReply::Realm { id, name, paused, key, accounts, peers } = &reply else {
        return Err(unexpected(&reply));
    };
    if json {
        return say::json(&Shown { id, name, paused: *paused, key, accounts: *accounts, peers });
    }
    let state = if *paused { "paused" } else { "running" };
    say::line(format!("{id} ({name}): {state}, {accounts} accounts, {} other realms", peers.len()))?;
    say::line(format!("key {key}"))?;
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
