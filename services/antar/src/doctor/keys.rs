//! The realm's key file, the key of whoever serves it, and the keys of its peers.

use antar_broker::KvError;
use antar_realm::checkup::{self, Card, PeerFacts};
use antar_realm::{KeyError, Waiting, snapshot};

use super::Patient;
use super::kinds;
use super::report::Report;

/// Looks at the key file, and whether it is the realm's. `kept` is the key that the realm has.
pub(super) fn check_file(patient: &Patient<'_>, kept: Option<&str>, report: &mut Report) {
    let (realm, path) = (Some(&patient.realm), &patient.key_file);
    let name = path.display().to_string();
    match snapshot::read_seed(path) {
        // A realm without a key gets one with its first edge.
        Ok(None) if kept.is_none() => {}
        Ok(None) if patient.is_key_file_a_guess => {
            report.say(realm, &kinds::KEYS_ELSEWHERE, &name, format!("{name} is not there"));
        }
        Ok(None) => {
            let what = format!("{name} is not there; the realm's key is {}", kept.unwrap_or_default());
            report.say(realm, &kinds::KEYS_FILE, &name, what);
        }
        Ok(Some((_, key))) => {
            let key = key.to_string();
            if let Some(kept) = kept.filter(|kept| *kept != key) {
                let what = format!("{name} holds the key {key}, the realm's is {kept}");
                report.say(realm, &kinds::KEYS_OTHER, &name, what);
            }
        }
        Err(KeyError::Exposed { mode, .. }) => {
            report.say(realm, &kinds::KEYS_MODE, &name, format!("{name} has mode {mode:03o}"));
        }
        Err(error) => report.say(realm, &kinds::KEYS_FILE, &name, error.to_string()),
    }
}

/// Whether the edge that has answered signs with the realm's key.
pub(super) fn check_edge(patient: &Patient<'_>, kept: Option<&str>, edge: &str, report: &mut Report) {
    if let Some(kept) = kept.filter(|kept| !edge.is_empty() && *kept != edge) {
        let what = format!("an edge signs with {edge}, the realm's key is {kept}");
        report.say(Some(&patient.realm), &kinds::KEYS_STALE_EDGE, patient.realm.as_str(), what);
    }
}

/// Whether a peer's key is the one that is believed.
pub(super) fn check_peer(patient: &Patient<'_>, peer: &PeerFacts, card: Option<&Card>, report: &mut Report) {
    let Some(pinned) = &peer.key else { return };
    let shown = card.and_then(|card| card.key.as_ref()).or(peer.offered.as_ref());
    let Some(now) = shown.filter(|now| *now != pinned) else { return };
    let what = format!("the key of {} was {pinned}, its name card has {now}", peer.realm);
    let name = format!("{} {} --key {now}", patient.realm, peer.realm);
    report.say(Some(&patient.realm), &kinds::KEYS_PEER_CHANGED, &name, what);
}

/// Whether a peer believes this realm's key, as far as can be seen: by its own log, if that is in the same broker, and by
/// what a lane was told.
pub(super) async fn check_trust(
    patient: &Patient<'_>,
    peer: &PeerFacts,
    waiting: Option<&Waiting>,
    kept: Option<&str>,
    report: &mut Report,
) -> Result<(), KvError> {
    let Some(ours) = kept else { return Ok(()) };
    let mut believed = None;
    if patient.beside.contains(&peer.realm) {
        let theirs = checkup::peers(patient.broker, &peer.realm).await;
        let theirs = theirs.map_err(|error| KvError::Unavailable(error.to_string()))?;
        believed = theirs.into_iter().find(|known| known.realm == patient.realm).and_then(|known| known.key);
    }
    let is_other = believed.as_ref().is_some_and(|believed| believed != ours);
    if is_other || waiting.is_some_and(checkup::is_key_refused) {
        let knows = believed.map_or_else(|| "another key".into(), |key| format!("the key {key}"));
        let what = format!("{} knows {knows} of {}, whose key is {ours}", peer.realm, patient.realm);
        let name = format!("{} {} --key {ours}", peer.realm, patient.realm);
        report.say(Some(&patient.realm), &kinds::KEYS_NOT_TRUSTED, &name, what);
    }
    Ok(())
}
