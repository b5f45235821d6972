//! `antar realm quarantine …`: realms that nobody here has added, and what is held of them.
//!
//! Must not know how that is kept: what is held are dead letters with a code of their own.

use std::collections::BTreeMap;

use antar_realm::admin::{AdminReply, AdminRequest, LettersWanted, PeerInfo};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::dead::{drop_one, letters, redrive};
use super::operator::{Operator, Target};
use super::unexpected;
use super::user::with;
use crate::exit::{Exit, Failure, Outcome};
use crate::say;

/// The code of a letter that is held.
const CODE: &str = "quarantined";

/// `antar realm quarantine …`.
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List the realms that are in quarantine, each with how much of it is held.
    List {
        /// The realm's id.
        id: String,
        /// One JSON object for each.
        #[arg(long)]
        json: bool,
    },
    /// Let a realm out: what is held is delivered, and what comes from now on.
    Release(Peer),
    /// Give up what is held of a realm, which stays in quarantine. `antar realm block` refuses what comes from now on.
    Drop(Peer),
}

/// Which realm.
#[derive(Debug, Args)]
pub(crate) struct Peer {
    /// The realm's id.
    id: String,
    /// The other realm's.
    peer: String,
    /// Who does it, for the event; USER@HOST if not given.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl QuarantineCommand {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::List { id, .. } | Self::Release(Peer { id, .. }) | Self::Drop(Peer { id, .. }) => id,
        }
    }
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    peer: &'a PeerInfo,
    held: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<&'a str>,
}

/// Runs one command; `by` is who does it unless said otherwise.
pub(super) async fn run(command: QuarantineCommand, target: Target, by: String) -> Outcome {
    with(target, false, async move |operator| match command {
        QuarantineCommand::List { json, .. } => list(operator, json).await,
        QuarantineCommand::Release(Peer { peer, by: named, .. }) => {
            release(operator, &peer, named.unwrap_or(by)).await
        }
        QuarantineCommand::Drop(Peer { peer, by: named, .. }) => {
            let by = named.unwrap_or(by);
            let held = held_of(operator, &peer).await?;
            for letter in &held {
                drop_one(operator, *letter, by.clone()).await?;
            }
            say::line(format!("{peer}: {} letters were given up; it stays in quarantine", held.len()))
        }
    })
    .await
}

async fn list(operator: &Operator, json: bool) -> Outcome {
    let reply = operator.ask(AdminRequest::Show).await?;
    let AdminReply::Realm { peers, .. } = &reply else { return Err(unexpected(&reply)) };
    let mut held: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let wanted = LettersWanted { limit: usize::MAX, code: Some(CODE.into()), ..LettersWanted::default() };
    letters(operator, wanted, |letter| {
        // Newest first, so the last one is the oldest.
        let of = held.entry(letter.origin.unwrap_or_default()).or_default();
        *of = (of.0 + letter.lines.map_or(1, |lines| lines.len()), letter.time);
        Ok(())
    })
    .await?;
    let quarantined = peers.iter().filter(|peer| peer.quarantined || held.contains_key(&peer.realm));
    let listed: Vec<_> = quarantined
        .map(|peer| match held.get(&peer.realm) {
            Some((count, oldest)) => Listed { peer, held: *count, oldest: Some(oldest) },
            None => Listed { peer, held: 0, oldest: None },
        })
        .collect();
    if json {
        return listed.iter().try_for_each(say::json);
    }
    if listed.is_empty() {
        say::remark("no realm is in quarantine");
        return Ok(());
    }
    let mut rows = vec![["realm", "held", "oldest", "key"].map(String::from).to_vec()];
    rows.extend(listed.iter().map(|Listed { peer, held, oldest }| {
        let key = peer.key.clone().unwrap_or_default();
        vec![peer.realm.clone(), held.to_string(), oldest.unwrap_or_default().to_owned(), key]
    }));
    say::table(&rows)
}

/// The letters that are held of a realm, oldest first.
async fn held_of(operator: &Operator, peer: &str) -> Outcome<Vec<u64>> {
    let (code, origin) = (Some(CODE.into()), Some(peer.to_owned()));
    let wanted =
        LettersWanted { oldest_first: true, limit: usize::MAX, code, origin, ..LettersWanted::default() };
    let mut held = Vec::new();
    letters(operator, wanted, |letter| {
        held.push(letter.letter);
        Ok(())
    })
    .await?;
    Ok(held)
}

/// Delivers what is held, lets the realm out, and delivers what was held meanwhile.
async fn release(operator: &Operator, peer: &str, by: String) -> Outcome {
    let (mut delivered, mut refused) = (0, 0);
    for is_out in [false, true] {
        for letter in held_of(operator, peer).await? {
            match redrive(operator, letter, by.clone()).await {
                Ok(_) => delivered += 1,
                // It was refused in the first round and was told then.
                Err(failure) if failure.exit == Exit::Rejected && is_out => {}
                Err(failure) if failure.exit == Exit::Rejected => {
                    refused += 1;
                    say::remark(format!("letter {letter}: {}", failure.error));
                }
                Err(failure) => return Err(failure),
            }
        }
        if !is_out {
            let admit = AdminRequest::RealmAdmit { realm: peer.to_owned(), by: by.clone() };
            operator.tell(admit).await?;
        }
    }
    say::line(format!("{peer} is out of quarantine; {delivered} letters were delivered"))?;
    match refused {
        0 => Ok(()),
        refused => Err(Failure::new(
            Exit::Rejected,
            format!("{refused} letters were refused, and are kept: antar dead list --reason {CODE}"),
        )),
    }
}
