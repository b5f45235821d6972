//! Takes copies of another realm's mail: into the mailboxes of users of the same names, as if this realm had been that one.
//!
//! Nothing else comes of it: no envelope, no receipt, no notice. A copy is marked, and reading it is told to nobody.

use std::collections::BTreeMap;

use antar_broker::{Append, AppendError, Entry, EntryId, PendingAppend};
use antar_proto::names::BOX_LOCAL;
use antar_proto::{RealmId, UserName};
use serde_json::{Map, Value};

use crate::admin::{AdminReply, REPLAY_ENTRIES_MAX, ReplayedEntry};
use crate::event::RealmEvent;
use crate::places::BOX_SENT;
use crate::shared::Shared;
use crate::traffic::REPLAYED_HEADER;

/// How often an append is tried whose acknowledgement does not come.
const TRIES: usize = 3;
/// Most users that nobody here has who are looked for in the broker.
const LOOKUPS_MAX: usize = 16;

/// Whether an entry was copied from another realm.
pub(crate) fn is_replayed(entry: &Entry) -> bool {
    entry.headers.iter().any(|(name, _)| name == REPLAYED_HEADER)
}

/// What became of a batch.
#[derive(Default)]
struct Counts {
    appended: u64,
    known: u64,
    unknown: BTreeMap<String, u64>,
    full: BTreeMap<String, u64>,
}

fn refused(message: String) -> AdminReply {
    AdminReply::Refused { code: "bad-request".into(), message }
}

impl Shared {
    /// Appends a batch of copies in their order. Whoever sends it again stores nothing twice.
    pub(crate) async fn replay(
        &self,
        from: &str,
        entries: Vec<ReplayedEntry>,
    ) -> Result<AdminReply, AdminReply> {
        let own = self.places.realm();
        let from: RealmId = from.parse().map_err(|_| refused(format!("{from:?} is no realm's id")))?;
        if from == *own {
            return Err(refused(format!("{own} is the realm that this came from")));
        }
        if entries.len() > REPLAY_ENTRIES_MAX {
            return Err(refused(format!("at most {REPLAY_ENTRIES_MAX} entries at once")));
        }
        self.look_for_users(&entries).await;
        let mut counts = Counts::default();
        let mut pending = Vec::new();
        for entry in entries {
            let user: Option<UserName> = entry.user.parse().ok();
            let Some(user) = user.filter(|user| self.accounts.get(user).is_some()) else {
                *counts.unknown.entry(entry.user).or_default() += 1;
                continue;
            };
            let append = self.copy_of(&from, &user, entry)?;
            pending.push((user, append.clone(), self.broker.append(append).await));
        }
        for (user, append, first) in pending {
            match self.settled(append, first).await {
                Ok(true) => counts.known += 1,
                Ok(false) => counts.appended += 1,
                Err(AppendError::Full(_)) => *counts.full.entry(user.to_string()).or_default() += 1,
                Err(AppendError::Refused(why)) => return Err(refused(why)),
                Err(error) => return Err(AdminReply::Unavailable { message: error.to_string() }),
            }
        }
        let Counts { appended, known, unknown, full } = counts;
        if appended > 0 {
            tracing::info!(realm = %own, %from, appended, "an operator copied mail from another realm");
            self.record(RealmEvent::Replayed { realm: from, entries: appended }).await;
        }
        Ok(AdminReply::Replayed { appended, known, unknown, full })
    }

    /// Waits for an append, and tries it again while it is not known what became of it. Whether it was there before.
    async fn settled(
        &self,
        append: Append,
        first: Result<PendingAppend, AppendError>,
    ) -> Result<bool, AppendError> {
        let mut answer = match first {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        };
        for _ in 1..TRIES {
            if !matches!(answer, Err(AppendError::Unknown(_) | AppendError::NotStored(_))) {
                break;
            }
            answer = match self.broker.append(append.clone()).await {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
        }
        answer.map(|appended| appended.duplicate)
    }

    /// Looks for accounts that were made on another edge a moment ago.
    async fn look_for_users(&self, entries: &[ReplayedEntry]) {
        let users = entries.iter().filter_map(|entry| entry.user.parse::<UserName>().ok());
        let nobody: std::collections::BTreeSet<UserName> =
            users.filter(|user| self.accounts.get(user).is_none()).collect();
        for user in nobody.iter().take(LOOKUPS_MAX) {
            // Who is not found counts as not there, and is told.
            let _ = self.accounts.copy.fresh(user.as_str()).await;
        }
    }

    fn copy_of(&self, from: &RealmId, user: &UserName, entry: ReplayedEntry) -> Result<Append, AdminReply> {
        let ReplayedEntry { seq, id, mailbox, envelope, .. } = entry;
        let id =
            EntryId::new(id).ok_or_else(|| refused(format!("the entry {seq} has no id that can be used")))?;
        let Value::Object(mut envelope) = envelope else {
            return Err(refused(format!("the entry {seq} is no envelope")));
        };
        readdress(&mut envelope, from, self.places.realm());
        let subject = match mailbox.as_str() {
            BOX_LOCAL | BOX_SENT => self.places.mail_box(user, &mailbox),
            // What a realm wrote that nobody here knows would stand in a box that nobody reads.
            other => match other.parse::<RealmId>().ok().filter(|peer| self.peers.is_known(peer)) {
                Some(peer) => self.places.mail_realm(user, &peer),
                None => self.places.mail_local(user),
            },
        };
        let body = serde_json::to_vec(&envelope).expect("what was read as JSON can be written");
        let mut append = Append::new(subject, id, body);
        append.headers = vec![(REPLAYED_HEADER.into(), format!("{from}/{seq}"))];
        Ok(append)
    }
}

/// Puts this realm in the place of the one that an envelope was kept by. It has no place in a lane of ours.
fn readdress(envelope: &mut Map<String, Value>, from: &RealmId, own: &RealmId) {
    envelope.shift_remove("lane");
    for field in ["origin", "dest"] {
        if let Some(Value::String(realm)) = envelope.get_mut(field)
            && realm == from.as_str()
        {
            *realm = own.to_string();
        }
    }
    if let Some(Value::String(sender)) = envelope.get_mut("from")
        && let Some((user, realm)) = sender.split_once('@')
        && realm == from.as_str()
    {
        *sender = format!("{user}@{own}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_realm_itself_is_another_in_a_copy() {
        let check = |before: Value, after: Value| {
            let Value::Object(mut envelope) = before else { panic!("no object") };
            readdress(&mut envelope, &"a".parse().unwrap(), &"b".parse().unwrap());
            assert_eq!(Value::Object(envelope), after);
        };
        check(
            serde_json::json!({"origin": "a", "dest": "a", "from": "messi@a", "text": "a", "x": [1]}),
            serde_json::json!({"origin": "b", "dest": "b", "from": "messi@b", "text": "a", "x": [1]}),
        );
        check(
            serde_json::json!({"origin": "c", "dest": "a", "from": "xavi@c", "lane": {"seq": 1}}),
            serde_json::json!({"origin": "c", "dest": "b", "from": "xavi@c"}),
        );
        check(serde_json::json!({"origin": 1, "from": "a"}), serde_json::json!({"origin": 1, "from": "a"}));
    }
}
