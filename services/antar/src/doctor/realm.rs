//! One realm: whether it is there and served, its lanes, its dead letters, and its peers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use antar_broker::{Flaw, ReadError, Timestamp, clock_offset_us, clock_severity, clock_words};
use antar_proto::RealmId;
use antar_realm::Realm;
use antar_realm::admin::{self, AdminReply, AdminRequest};
use antar_realm::checkup::{self, Card, PeerFacts};
use antar_realm::snapshot::Snapshot;
use antar_realm::status::{DeadStatus, EdgeStatus, LaneStatus, status};
use tokio::task::JoinSet;

use super::ask::{Asker, NoAnswer};
use super::report::Report;
use super::{Patient, broker, keys, kinds};

/// How long an edge, or a peer, may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// What waits longer than this in a lane does not only wait for its turn.
const WAITS_MAX_S: u64 = 60;
/// Most peers that are asked for their cards at a time.
const ASKED_MAX: usize = 32;

/// Looks at all of a realm. Errors: the broker does not answer.
pub(super) async fn check(patient: &Patient<'_>, report: &mut Report) -> Result<(), ReadError> {
    let (realm, name) = (Some(&patient.realm), patient.realm.as_str());
    let unavailable = |error: String| ReadError::Unavailable(error);
    let exists = Realm::exists(patient.broker, &patient.realm).await;
    if !exists.map_err(|error| unavailable(error.to_string()))? {
        report.say(realm, &kinds::REALM_MISSING, name, format!("there is no realm {name} in the broker"));
        return Ok(());
    }
    broker::check(patient, report).await?;
    if let Err(error) = check_kept(patient, report).await {
        report.say(realm, &kinds::REALM_UNREAD, name, format!("realm {name} cannot be read: {error}"));
    }
    Ok(())
}

/// What is read from the realm's own streams and buckets, some of which may be lost.
async fn check_kept(patient: &Patient<'_>, report: &mut Report) -> Result<(), ReadError> {
    let (realm, name) = (Some(&patient.realm), patient.realm.as_str());
    let unavailable = |error: antar_broker::KvError| ReadError::Unavailable(error.to_string());
    let snapshot = Snapshot::new(patient.realm.clone());
    if snapshot.restoring(patient.broker).await.map_err(unavailable)?.is_some() {
        let what = "it is being restored from a backup, or that was broken off";
        report.say(realm, &kinds::REALM_RESTORING, name, what);
        return Ok(());
    }
    let kept = checkup::public_key(patient.broker, &patient.realm).await.map_err(unavailable)?;
    keys::check_file(patient, kept.as_deref(), report);
    let edge_key = edge_key(patient, report).await;
    if let Some(key) = &edge_key {
        keys::check_edge(patient, kept.as_deref(), key, report);
    }
    let status = status(patient.broker, &patient.realm).await?;
    if status.paused {
        report.say(realm, &kinds::REALM_PAUSED, name, "its traffic with other realms is stopped");
    }
    check_edges(patient, &status.edges, report);
    let peers = checkup::peers(patient.broker, &patient.realm).await?;
    let cards = cards(&patient.asker, &peers).await;
    for peer in &peers {
        let lane = status.lanes.iter().find(|lane| lane.peer == peer.realm);
        let waiting = lane.and_then(|lane| lane.waiting.as_ref());
        // Where nobody serves the file there is nobody to ask, which is told of this realm already.
        let is_asked = edge_key.is_some() || matches!(*patient.asker, Asker::Nats(_));
        if let Some(card) = cards.get(&peer.realm).filter(|_| is_asked) {
            check_card(patient, peer, card.as_ref(), report).await?;
            check_reach(patient, peer, card.is_some(), report).await;
        }
        keys::check_trust(patient, peer, waiting, kept.as_deref(), report).await.map_err(unavailable)?;
        if let Some(lane) = lane.filter(|_| !status.paused && !peer.blocked) {
            check_lane(patient, lane, report);
        }
    }
    check_letters(patient, &status.dead_letters, report);
    Ok(())
}

/// The key that an edge says to sign with, if there is one.
async fn edge_key(patient: &Patient<'_>, report: &mut Report) -> Option<String> {
    let (realm, name) = (Some(&patient.realm), patient.realm.as_str());
    let request = serde_json::to_vec(&AdminRequest::Show).expect("a request has nothing in it that can fail");
    let answer = patient.asker.ask(&admin::subject(&patient.realm), request.into(), ANSWER_MAX).await;
    let why = match answer.map(|answer| serde_json::from_slice(&answer)) {
        Ok(Ok(AdminReply::Realm { key, .. })) => return Some(key),
        Err(NoAnswer::Nobody) => {
            report.say(realm, &kinds::REALM_UNSERVED, name, format!("nobody serves realm {name}"));
            return None;
        }
        Err(NoAnswer::Silent(why)) => why,
        Ok(Ok(AdminReply::Unavailable { message } | AdminReply::Refused { message, .. })) => message,
        Ok(Ok(_) | Err(_)) => "it answers something else than was asked: it is of another version".into(),
    };
    let what = format!("an edge of realm {name} does not say how it is: {why}");
    report.say(realm, &kinds::REALM_UNREAD, name, what);
    None
}

/// The name card of each peer, with the times between which it came; none for one that does not answer.
async fn cards(asker: &Arc<Asker>, peers: &[PeerFacts]) -> HashMap<RealmId, Option<Answered>> {
    let (mut asked, mut cards) = (JoinSet::new(), HashMap::new());
    for peer in peers {
        if asked.len() >= ASKED_MAX {
            cards.extend(asked.join_next().await.and_then(Result::ok));
        }
        let (asker, peer) = (asker.clone(), peer.realm.clone());
        asked.spawn(async move {
            let began = Timestamp::now();
            let answer = asker.ask(&checkup::card_subject(&peer), checkup::card_request(), ANSWER_MAX).await;
            let card = answer.ok().and_then(|answer| checkup::card(&peer, &answer));
            let answered = card.map(|card| Answered { card, began, ended: Timestamp::now() });
            (peer, answered)
        });
    }
    while let Some(done) = asked.join_next().await {
        cards.extend(done.ok());
    }
    cards
}

struct Answered {
    card: Card,
    began: Timestamp,
    ended: Timestamp,
}

async fn check_card(
    patient: &Patient<'_>,
    peer: &PeerFacts,
    answered: Option<&Answered>,
    report: &mut Report,
) -> Result<(), ReadError> {
    let (realm, name) = (Some(&patient.realm), peer.realm.as_str());
    let card = answered.map(|answered| &answered.card);
    keys::check_peer(patient, peer, card, report);
    if peer.blocked {
        report.say(
            realm,
            &kinds::PEER_BLOCKED,
            &format!("{} {name}", patient.realm),
            format!("{name} is blocked"),
        );
        return Ok(());
    }
    let offset = match answered {
        Some(Answered { card: Card { now: Some(now), .. }, began, ended }) => {
            clock_offset_us(*began, *now, *ended)
        }
        // Envelopes that were sent after they came in say at least that much.
        _ => {
            let ahead = checkup::sent_after_stored_us(patient.broker, &patient.realm, &peer.realm).await?;
            i64::try_from(ahead).unwrap_or(i64::MAX)
        }
    };
    if let Some(severity) = clock_severity(offset) {
        let what = format!("the clock of {name} is {} this one's", clock_words(offset));
        report.add(realm, Flaw::new(&kinds::CLOCK_PEER, name, what).with(severity));
    }
    match card {
        None => report.say(realm, &kinds::PEER_SILENT, name, format!("{name} does not answer")),
        Some(card) => {
            if card.paused {
                report.say(realm, &kinds::PEER_PAUSED, name, format!("{name} is paused"));
            }
            let own = env!("CARGO_PKG_VERSION");
            if card.version != own {
                let what = format!("{name} is of version {}, this is {own}", card.version);
                report.say(realm, &kinds::PEER_VERSION, name, what);
            }
        }
    }
    Ok(())
}

/// Whether a realm with an account of its own can be operated from here: whoever reaches its subject of operators is one.
async fn check_reach(patient: &Patient<'_>, peer: &PeerFacts, is_served: bool, report: &mut Report) {
    // In a file, or in one account, that is so and has been told.
    if !is_served || patient.beside.contains(&peer.realm) || !matches!(*patient.asker, Asker::Nats(_)) {
        return;
    }
    let ping = serde_json::to_vec(&AdminRequest::Ping).expect("a request has nothing in it that can fail");
    if patient.asker.ask(&admin::subject(&peer.realm), ping.into(), ANSWER_MAX).await.is_ok() {
        let name = peer.realm.as_str();
        let what = format!(
            "{name} answers these credentials as its operators, although it has an account of its own"
        );
        report.say(Some(&patient.realm), &kinds::PEER_OPERATED, name, what);
    }
}

/// The edges that have said something of late.
fn check_edges(patient: &Patient<'_>, edges: &[EdgeStatus], report: &mut Report) {
    let (realm, name) = (Some(&patient.realm), patient.realm.as_str());
    let mut versions: Vec<&str> =
        edges.iter().filter(|edge| edge.alive).map(|edge| edge.record.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        let what = format!("its edges are of the versions {}", versions.join(", "));
        report.say(realm, &kinds::EDGES_VERSIONS, name, what);
    }
    let now = Timestamp::now();
    for EdgeStatus { record, alive, age_s } in edges {
        let edge = format!("edge {} on {}", record.edge, record.host);
        if !alive {
            report.say(realm, &kinds::EDGES_GONE, name, format!("{edge} has said nothing for {age_s} s"));
        }
        // What it said came before it was read: a clock that is behind cannot be told from an edge that is gone.
        let ahead = i64::try_from(record.at.saturating_sub(now.0)).unwrap_or(i64::MAX);
        if let Some(severity) = clock_severity(ahead) {
            let what = format!("the clock of {edge} is {} this one's", clock_words(ahead));
            report.add(realm, Flaw::new(&kinds::CLOCK_EDGE, name, what).with(severity));
        }
    }
}

fn check_lane(patient: &Patient<'_>, lane: &LaneStatus, report: &mut Report) {
    let oldest_s = lane.oldest_s.unwrap_or_default();
    let is_stuck = lane.queued > 0 && (lane.waiting.is_some() || oldest_s > WAITS_MAX_S);
    if is_stuck {
        let name = lane.peer.as_str();
        let why = lane.waiting.as_ref().map_or_else(String::new, |waiting| format!(": {}", waiting.error));
        let what = format!("{} wait in the lane to {name}, the oldest for {oldest_s} s{why}", lane.queued);
        report.say(Some(&patient.realm), &kinds::LANE_STUCK, name, what);
    }
}

fn check_letters(patient: &Patient<'_>, dead: &DeadStatus, report: &mut Report) {
    if dead.open == 0 {
        return;
    }
    let counts: Vec<String> = dead.by_code.iter().map(|(code, count)| format!("{count} {code}")).collect();
    let more = if dead.at_least { ", and older ones" } else { "" };
    let what = format!("dead letters that nothing was done about: {}{more}", counts.join(", "));
    report.say(Some(&patient.realm), &kinds::DEAD_OPEN, patient.realm.as_str(), what);
}
