//! The way of a message, put together from what stands in the logs of the realms that it went through.

use std::collections::BTreeMap;
use std::sync::Arc;

use antar_broker::{Entry, ReadError, Seq};
use antar_proto::envelope::{Content, Envelope, Outcome};
use antar_proto::names::BOX_LOCAL;
use antar_proto::reply::State;
use antar_proto::{Address, GroupAddress, MessageId, RealmId, UserName};
use serde::Deserialize;

use super::look::{Look, whose};
use super::said::Said;
use super::{Hop, Missing, Stage, Trace};
use crate::admin::LetterState;
use crate::clock::rfc3339;
use crate::hop::edge_of;
use crate::letters::Mark;
use crate::mailbox::status_event;
use crate::peer::Peer;
use crate::places::{BOX_SENT, DEAD, Source};
use crate::redrive::LETTER_HEADER;
use crate::shared::{PAUSED, Setting};

/// Receivers of a message whose boxes are looked into one by one, if what was found at first does not tell.
const BOXES_MAX: usize = 64;
/// The bucket in which edges say what hinders the lanes that they work.
const EDGES: &str = "edges";

/// The part of a message that is for one realm.
pub(super) struct Part {
    pub(super) origin: RealmId,
    pub(super) dest: RealmId,
    pub(super) from: UserName,
    pub(super) to: Vec<UserName>,
    pub(super) is_group: bool,
    pub(super) traceparent: Option<String>,
}

pub(super) struct Way<'a> {
    looks: &'a [Look],
    id: MessageId,
    /// What was found at first.
    found: &'a [Arc<Entry>],
    pub(super) hops: Vec<Hop>,
    pub(super) missing: Vec<Missing>,
}

/// Puts together the way of the message in these entries; `None` if it is in none of them.
pub(super) async fn of(
    looks: &[Look],
    id: MessageId,
    found: Vec<Arc<Entry>>,
) -> Result<Option<Trace>, ReadError> {
    let Some(look) = looks.first() else { return Ok(None) };
    let mut parts: BTreeMap<(RealmId, RealmId), Part> = BTreeMap::new();
    for envelope in found.iter().filter_map(|entry| look.envelope_in(&entry.body)) {
        let Content::Message { from, to, group, .. } = envelope.content else { continue };
        let Envelope { origin, dest, traceparent, .. } = envelope;
        let key = (origin.clone(), dest.clone());
        let part = Part { origin, dest, from: from.user, to, is_group: group, traceparent };
        parts.entry(key).or_insert(part);
    }
    let mut way = Way { looks, id, found: &found, hops: Vec::new(), missing: Vec::new() };
    let Some(first) = parts.values().next() else {
        let envelopes = found.iter().filter_map(|entry| look.envelope_in(&entry.body));
        // A post carries the context that the message has from then on.
        let Some(said) = envelopes.filter_map(Said::of).max_by_key(|said| said.traceparent.is_some()) else {
            return Ok(None);
        };
        way.said(&said).await?;
        let Said { group, from, traceparent } = said;
        return Ok(Some(way.trace(traceparent, from, Vec::new(), Some(group))));
    };
    let from = Address { user: first.from.clone(), realm: first.origin.clone() };
    let of = |part: &Part| {
        part.to.iter().map(|user| Address { user: user.clone(), realm: part.dest.clone() }).collect()
    };
    let to: Vec<Address> = parts.values().flat_map(|part| -> Vec<Address> { of(part) }).collect();
    let traceparent = parts.values().find_map(|part| part.traceparent.clone());
    for part in parts.values() {
        match part.origin == part.dest {
            true => way.within(part).await?,
            false => way.between(part).await?,
        }
    }
    Ok(Some(way.trace(traceparent, from, to, None)))
}

impl<'a> Way<'a> {
    /// All that was found, in its order.
    fn trace(
        self,
        traceparent: Option<String>,
        from: Address,
        to: Vec<Address>,
        group: Option<GroupAddress>,
    ) -> Trace {
        let Self { id, mut hops, missing, .. } = self;
        hops.sort_by_key(|hop| (hop.at.is_none(), hop.at, hop.stage));
        let mut before = None;
        for hop in &mut hops {
            hop.after_us = hop.at.zip(before).map(|(at, before)| at.saturating_sub(before));
            before = hop.at.or(before);
        }
        Trace { id, traceparent, from, to, group, hops, missing }
    }

    pub(super) fn look(&self, realm: &RealmId) -> Option<&'a Look> {
        self.looks.iter().find(|look| look.realm() == realm)
    }

    pub(super) fn misses(&mut self, stage: Stage, realm: &RealmId, why: String) {
        self.missing.push(Missing { stage, realm: realm.clone(), why });
    }

    /// What was found at first in a realm's log.
    fn found_in(&self, look: &Look) -> Vec<Arc<Entry>> {
        let is_there = |entry: &&Arc<Entry>| entry.subject.tokens().nth(1) == Some(look.realm().as_str());
        self.found.iter().filter(is_there).cloned().collect()
    }

    /// The sender's own copy of what went to one realm.
    async fn copy_of_sender(&self, look: &Look, part: &Part) -> Result<Option<Arc<Entry>>, ReadError> {
        let is_it =
            |entry: &Entry| look.envelope_in(&entry.body).is_some_and(|envelope| envelope.dest == part.dest);
        let is_sent = |entry: &&Arc<Entry>| whose(entry).is_some_and(|(_, mailbox)| mailbox == BOX_SENT);
        match self.found_in(look).iter().filter(is_sent).find(|entry| is_it(entry)) {
            Some(entry) => Ok(Some(entry.clone())),
            None => look.one(&look.places.mail_sent(&part.from), is_it).await,
        }
    }

    /// A message that stays in its realm.
    async fn within(&mut self, part: &Part) -> Result<(), ReadError> {
        let Some(look) = self.look(&part.origin) else { return Ok(()) };
        let copy = self.copy_of_sender(look, part).await?;
        // A broker may store the copies of a message one after the other.
        let all = self.found_in(look).into_iter().chain(copy);
        let accepted = all.min_by_key(|entry| (entry.time, entry.seq));
        if let Some(entry) = accepted {
            self.hops.push(hop(Stage::Accepted, look, &entry));
        }
        self.delivered(look, part, &part.to, BOX_LOCAL).await.map(drop)
    }

    /// Who of these has it in a box of this name, and who has read it. Who has not is returned.
    async fn delivered(
        &mut self,
        look: &Look,
        part: &Part,
        to: &[UserName],
        mailbox: &str,
    ) -> Result<Vec<UserName>, ReadError> {
        let (found, mut without) = (self.found_in(look), Vec::new());
        for user in to.iter().take(BOXES_MAX) {
            let Some(entry) = look.in_box(user, mailbox, &found).await? else {
                without.push(user.clone());
                continue;
            };
            let letter = entry.headers.iter().find(|(name, _)| name == LETTER_HEADER);
            let letter = letter.and_then(|(_, seq)| seq.parse().ok());
            let (users, peer) = (vec![user.clone()], other(look, part));
            self.hops.push(Hop { users: users.clone(), letter, ..hop(Stage::Delivered, look, &entry) });
            if look.cursor(user, mailbox).await? >= entry.seq {
                let read = Hop { users, peer, at: None, time: None, ..hop(Stage::Read, look, &entry) };
                self.hops.push(read);
            } else {
                self.misses(Stage::Read, look.realm(), format!("{user} has not read it"));
            }
        }
        if to.len() > BOXES_MAX {
            let why = format!("{} more receivers were not looked for", to.len() - BOXES_MAX);
            self.misses(Stage::Delivered, look.realm(), why);
        }
        if part.origin == part.dest {
            for user in &without {
                let why =
                    format!("it is not in the mailbox of {user}: that was full, or it was read and trimmed");
                self.misses(Stage::Delivered, look.realm(), why);
            }
        }
        Ok(without)
    }

    /// A message from one realm to another.
    pub(super) async fn between(&mut self, part: &Part) -> Result<(), ReadError> {
        let carried = match self.look(&part.origin) {
            Some(look) => self.at_origin(look, part).await?,
            None => {
                let why = format!("the log of {} cannot be read from here", part.origin);
                self.misses(Stage::Accepted, &part.origin, why);
                true
            }
        };
        match self.look(&part.dest) {
            Some(look) => self.at_dest(look, part, carried).await?,
            None if carried => {
                let why = format!("the log of {} cannot be read from here", part.dest);
                self.misses(Stage::Stored, &part.dest, why);
            }
            None => {}
        }
        self.settle_failures(part);
        Ok(())
    }

    /// What its own realm knows; whether the lane has carried it.
    async fn at_origin(&mut self, look: &Look, part: &Part) -> Result<bool, ReadError> {
        let outbox = look.places.outbox(&part.dest);
        let sent = look.one(&outbox, |entry| look.envelope_in(&entry.body).is_some()).await?;
        let edge = part.traceparent.as_deref().and_then(edge_of).map(str::to_owned);
        let peer = Some(part.dest.clone());
        let accepted = match &sent {
            Some(entry) => Some(entry.clone()),
            None => self.copy_of_sender(look, part).await?,
        };
        if let Some(entry) = &accepted {
            self.hops.push(Hop { edge, peer: peer.clone(), ..hop(Stage::Accepted, look, entry) });
        }
        if part.is_group {
            // Who has the same name here got a copy here.
            self.delivered(look, part, &part.to, part.dest.as_str()).await?;
        }
        let is_carried = self.news(look, part).await?;
        if let Some(entry) = sent.filter(|_| !is_carried)
            && let Some(why) = self.why_it_waits(look, part, entry.seq).await?
        {
            self.misses(Stage::Lane, &part.origin, why);
            return Ok(false);
        }
        Ok(true)
    }

    /// Why what stands in an outbox was not carried yet; `None` if it was.
    pub(super) async fn why_it_waits(
        &self,
        look: &Look,
        part: &Part,
        seq: Seq,
    ) -> Result<Option<String>, ReadError> {
        let (queue, outbox) = (look.places.lane_queue(&part.dest), look.places.outbox(&part.dest));
        let Some(ahead) = look.ahead(&queue, &outbox, seq).await? else { return Ok(None) };
        let why = self.why_lane_waits(look, &part.dest).await?;
        Ok(Some(format!("it waits in the lane {} → {}: {ahead} ahead of it{why}", part.origin, part.dest)))
    }

    /// Where it came in.
    pub(super) async fn came_in(
        &mut self,
        look: &Look,
        part: &Part,
    ) -> Result<Option<(Source, Arc<Entry>)>, ReadError> {
        for source in [look.places.source(None), look.places.source(Some(&part.origin))] {
            let came = look.one(&source.inbox, |entry| look.envelope_in(&entry.body).is_some());
            if let Some(entry) = came.await? {
                self.hops.push(Hop { peer: Some(part.origin.clone()), ..hop(Stage::Stored, look, &entry) });
                return Ok(Some((source, entry)));
            }
        }
        Ok(None)
    }

    /// What its sender was told; whether it was told that the other realm has stored it.
    async fn news(&mut self, look: &Look, part: &Part) -> Result<bool, ReadError> {
        let told = look.places.mail_status(&part.from);
        let entries = look.all(&told, |entry| look.is_in(&entry.body)).await?;
        let mut is_carried = false;
        for entry in &entries {
            let concerns = |event: &antar_proto::reply::StatusEvent| {
                event.realm == part.dest && event.ids.contains(&self.id)
            };
            let Some(event) = status_event(entry).filter(concerns) else { continue };
            is_carried = true;
            let stage = match event.state {
                State::Accepted | State::Stored => Stage::Lane,
                State::Read => Stage::Read,
                State::Delivered | State::Failed => Stage::Receipt,
            };
            let state = (stage == Stage::Receipt).then(|| name(event.state));
            let (peer, reason, users) = (Some(part.dest.clone()), event.reason, event.users);
            self.hops.push(Hop { peer, state, reason, users, ..hop(stage, look, entry) });
        }
        Ok(is_carried)
    }

    /// Why a lane does not get on, as far as it is written down.
    async fn why_lane_waits(&self, look: &Look, peer: &RealmId) -> Result<String, ReadError> {
        /// What an edge says of itself.
        #[derive(Deserialize)]
        struct EdgeRecord {
            #[serde(default)]
            lanes: Vec<LaneRecord>,
        }
        #[derive(Deserialize)]
        struct LaneRecord {
            peer: RealmId,
            reason: String,
        }
        if is_paused(look).await? {
            return Ok(format!("; {} is paused", look.realm()));
        }
        if let Some(there) = self.look(peer)
            && is_paused(there).await?
        {
            return Ok(format!("; {peer} is paused"));
        }
        let kept: Option<Peer> = look.value("peers", peer.as_str()).await?;
        if let Some(change) = kept.and_then(|kept| kept.key_change()) {
            return Ok(format!("; {peer}: {change}"));
        }
        let edges: Vec<EdgeRecord> = look.values(EDGES).await;
        let mut lanes = edges.into_iter().flat_map(|edge| edge.lanes);
        let trouble = lanes.find(|lane| lane.peer == *peer);
        Ok(trouble.map_or_else(String::new, |lane| format!("; last error: {}", lane.reason)))
    }

    /// What the other realm knows.
    async fn at_dest(&mut self, look: &Look, part: &Part, carried: bool) -> Result<(), ReadError> {
        let stored = self.came_in(look, part).await?;
        let peer = Some(part.origin.clone());
        let without = self.delivered(look, part, &part.to, part.origin.as_str()).await?;
        let is_delivered = without.len() < part.to.len();
        let mut is_dead = false;
        for letter in look.letters().await? {
            is_dead = true;
            let seq = letter.entry.seq.0;
            let mark: Option<Mark> = look.value(DEAD, &letter.key()).await?;
            let state = mark.map_or(LetterState::Open, |mark| mark.state).as_str().to_owned();
            let reason = Some(format!("{}: {}", letter.code, letter.reason));
            let told = Hop {
                peer: peer.clone(),
                state: Some(state),
                reason,
                letter: Some(seq),
                ..hop(Stage::Dead, look, &letter.entry)
            };
            self.hops.push(told);
        }
        let answered = self.receipts(look, part).await?;
        if is_delivered || is_dead || answered || !carried {
            return Ok(());
        }
        self.is_not_delivered(look, part, stored).await
    }

    /// Why what was carried to a realm, and stands in its inbox as `stored` says, is not where it should be.
    pub(super) async fn is_not_delivered(
        &mut self,
        look: &Look,
        part: &Part,
        stored: Option<(Source, Arc<Entry>)>,
    ) -> Result<(), ReadError> {
        let Some((source, entry)) = stored else {
            let why = format!("it is not in the inbox of {}: it may have been trimmed", part.dest);
            self.misses(Stage::Stored, look.realm(), why);
            return Ok(());
        };
        let why = match look.ahead(&source.queue, &source.inbox, entry.seq).await? {
            Some(ahead) => {
                let paused = if is_paused(look).await? { "; it is paused" } else { "" };
                format!("it waits in the inbox of {}: {ahead} ahead of it{paused}", part.dest)
            }
            None => {
                format!("{} has dealt with it, and nothing tells how: it may have been trimmed", part.dest)
            }
        };
        self.misses(Stage::Delivered, look.realm(), why);
        Ok(())
    }

    /// The receipts that its realm was sent; whether there are any.
    async fn receipts(&mut self, look: &Look, part: &Part) -> Result<bool, ReadError> {
        let outbox = look.places.outbox(&part.origin);
        let entries = look.all(&outbox, |entry| look.is_in(&entry.body)).await?;
        let (mut any, mut waiting) = (false, None);
        for entry in &entries {
            let Ok(Envelope { content: Content::Receipt { results }, .. }) =
                Envelope::from_bytes(&entry.body)
            else {
                continue;
            };
            for Outcome { state, reason, users, .. } in results.into_iter().filter(|o| o.id == self.id) {
                any = true;
                waiting = waiting.or(Some(entry.seq));
                let stage = if state == State::Failed { Stage::Failed } else { Stage::Receipt };
                let (peer, state) = (Some(part.origin.clone()), Some(name(state)));
                self.hops.push(Hop { peer, state, reason, users, ..hop(stage, look, entry) });
            }
        }
        if let Some(seq) = waiting {
            self.receipt_waits(look, part, seq).await?;
        }
        Ok(any)
    }

    async fn receipt_waits(&mut self, look: &Look, part: &Part, seq: Seq) -> Result<(), ReadError> {
        let (queue, outbox) = (look.places.lane_queue(&part.origin), look.places.outbox(&part.origin));
        if let Some(ahead) = look.ahead(&queue, &outbox, seq).await? {
            let why = self.why_lane_waits(look, &part.origin).await?;
            let lane = format!(
                "its receipt waits in the lane {} → {}: {ahead} ahead of it{why}",
                part.dest, part.origin
            );
            self.misses(Stage::Receipt, &part.origin, lane);
        }
        Ok(())
    }

    /// A failure is one where it was decided; if that log cannot be read, where it was told.
    fn settle_failures(&mut self, part: &Part) {
        let is_known = self.hops.iter().any(|hop| hop.stage == Stage::Failed && hop.realm == part.dest);
        for hop in self
            .hops
            .iter_mut()
            .filter(|hop| hop.realm == part.origin && hop.peer.as_ref() == Some(&part.dest))
        {
            if !is_known && hop.stage == Stage::Receipt && hop.state.as_deref() == Some("failed") {
                hop.stage = Stage::Failed;
            }
        }
    }
}

/// The other realm, seen from one.
fn other(look: &Look, part: &Part) -> Option<RealmId> {
    let other = if *look.realm() == part.origin { &part.dest } else { &part.origin };
    (part.origin != part.dest).then(|| other.clone())
}

async fn is_paused(look: &Look) -> Result<bool, ReadError> {
    let paused: Option<Setting> = look.value("settings", PAUSED).await?;
    Ok(matches!(paused, Some(Setting::Flag(true))))
}

fn name(state: State) -> String {
    match state {
        State::Accepted => "accepted",
        State::Stored => "stored",
        State::Delivered => "delivered",
        State::Read => "read",
        State::Failed => "failed",
    }
    .into()
}

/// What an entry tells of itself.
pub(super) fn hop(stage: Stage, look: &Look, entry: &Entry) -> Hop {
    Hop {
        stage,
        realm: look.realm().clone(),
        seq: entry.seq.0,
        time: Some(rfc3339(entry.time)),
        after_us: None,
        edge: None,
        subject: entry.subject.to_string(),
        peer: None,
        users: Vec::new(),
        state: None,
        reason: None,
        letter: None,
        at: Some(entry.time.0),
    }
}
