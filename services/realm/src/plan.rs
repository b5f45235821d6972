//! Who gets a message: from receivers as they were written to appends.

use std::collections::HashSet;

use antar_broker::{Append, EntryId, KvError, Subject};
use antar_proto::command::Receiver;
use antar_proto::{Address, RealmId, UserName};

use crate::mail::{Sender, message_bytes};
use crate::send::{Said, Send, SendError, SendId};
use crate::shared::Shared;

/// Most unknown users, and as many realms, of one message that are looked for in the broker.
const LOOKUPS_MAX: usize = 16;

/// Who gets what, after names were resolved.
#[derive(Default)]
pub(crate) struct Plan {
    /// Users of this realm, box `local`.
    local: Vec<UserName>,
    /// For each other realm: users there, and users here who get a copy filed under it.
    remote: Vec<(RealmId, Vec<UserName>, Vec<UserName>)>,
    /// Names that nobody has.
    pub(crate) unknown: Vec<String>,
    /// Sent with `sendgrouprealm`.
    group: bool,
}

impl Plan {
    fn remote(&mut self, realm: &RealmId) -> &mut (RealmId, Vec<UserName>, Vec<UserName>) {
        let at = self.remote.iter().position(|(known, ..)| known == realm).unwrap_or_else(|| {
            self.remote.push((realm.clone(), Vec::new(), Vec::new()));
            self.remote.len() - 1
        });
        &mut self.remote[at]
    }

    /// Who gets it, here and elsewhere.
    pub(crate) fn receivers(self) -> (Vec<UserName>, Vec<Address>) {
        let (mut here, mut elsewhere) = (self.local, Vec::new());
        for (realm, there, copies) in self.remote {
            here.extend(copies);
            elsewhere.extend(there.into_iter().map(|user| Address { user, realm: realm.clone() }));
        }
        (here, elsewhere)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty()
    }
}

impl Shared {
    /// Whether the copies have caught up with what `what` names and they do not know: an account or a peer that was
    /// added on another edge a moment ago. Looks at the first few only.
    pub(crate) async fn look_up(&self, what: Send<'_>) -> Result<(), KvError> {
        let (realm, receivers) = match what {
            Send::One(receiver) => (None, std::slice::from_ref(receiver)),
            Send::Group(receivers) => (None, receivers),
            Send::RealmOne(realm, receiver) => (Some(realm), std::slice::from_ref(receiver)),
            Send::RealmGroup(realm, receivers) => (Some(realm), receivers),
            Send::Named(_) => return Ok(()),
        };
        let own = self.places.realm();
        let mut peers: HashSet<&RealmId> = realm.into_iter().collect();
        let mut users: HashSet<&UserName> = HashSet::new();
        for receiver in receivers {
            match receiver {
                Receiver::User(user) => drop(users.insert(user)),
                Receiver::Qualified(address) if address.realm == *own => drop(users.insert(&address.user)),
                Receiver::Qualified(address) => drop(peers.insert(&address.realm)),
                Receiver::Nobody(_) => {}
            }
        }
        let peers = peers.into_iter().filter(|peer| *peer != own && !self.peers.is_known(peer));
        let peers = peers
            .take(LOOKUPS_MAX)
            .map(|peer| async { self.peers.copy.fresh(peer.as_str()).await.map(drop) });
        futures_util::future::try_join_all(peers).await?;
        let users = users.into_iter().filter(|user| self.accounts.get(user).is_none());
        let users = users
            .take(LOOKUPS_MAX)
            .map(|user| async { self.accounts.copy.fresh(user.as_str()).await.map(drop) });
        futures_util::future::try_join_all(users).await.map(drop)
    }

    pub(crate) fn plan(&self, from: &UserName, what: Send<'_>) -> Result<Plan, SendError> {
        let mut plan = Plan::default();
        match what {
            Send::One(receiver) => {
                if let Receiver::Qualified(address) = receiver
                    && address.realm != *self.places.realm()
                {
                    self.check_peer(&address.realm)?;
                }
                self.plan_here(&mut plan, from, std::slice::from_ref(receiver));
            }
            Send::Group(receivers) => self.plan_here(&mut plan, from, receivers),
            Send::RealmOne(realm, receiver) if realm == self.places.realm() => {
                self.plan_here(&mut plan, from, std::slice::from_ref(receiver));
            }
            Send::RealmGroup(realm, receivers) if realm == self.places.realm() => {
                self.plan_here(&mut plan, from, receivers)
            }
            Send::RealmOne(realm, receiver) => {
                self.check_peer(realm)?;
                match receiver {
                    Receiver::User(user) => plan.remote(realm).1.push(user.clone()),
                    Receiver::Qualified(address) if address.realm == *realm => {
                        plan.remote(realm).1.push(address.user.clone());
                    }
                    other => plan.unknown.push(other.to_string()),
                }
            }
            // A group is no list of receivers: see `group::post`.
            Send::Named(_) => return Err(SendError::NoSuchGroup),
            Send::RealmGroup(realm, receivers) => {
                self.check_peer(realm)?;
                self.plan_group(&mut plan, from, realm, receivers);
            }
        }
        Ok(plan)
    }

    /// Whether anything may be sent to another realm.
    pub(crate) fn check_peer(&self, realm: &RealmId) -> Result<(), SendError> {
        match self.peers.copy.get(realm.as_str()) {
            None => Err(SendError::NoSuchRealm),
            Some(peer) if peer.blocked => Err(SendError::RealmBlocked),
            Some(_) => Ok(()),
        }
    }

    /// Receivers of `send` and `sendgroup`: of this realm unless qualified.
    fn plan_here(&self, plan: &mut Plan, from: &UserName, receivers: &[Receiver]) {
        let mut seen = HashSet::with_capacity(receivers.len());
        for receiver in receivers {
            let (user, realm) = match receiver {
                Receiver::User(user) => (user, self.places.realm()),
                Receiver::Qualified(Address { user, realm }) => (user, realm),
                Receiver::Nobody(text) => {
                    plan.unknown.push(text.clone());
                    continue;
                }
            };
            if !seen.insert((user, realm)) {
                continue;
            }
            if realm != self.places.realm() {
                match self.check_peer(realm).is_ok() {
                    true => plan.remote(realm).1.push(user.clone()),
                    false => plan.unknown.push(receiver.to_string()),
                }
            } else if self.takes_from(user, from, realm.as_str()) {
                plan.local.push(user.clone());
            } else {
                plan.unknown.push(receiver.to_string());
            }
        }
    }

    /// Receivers of `sendgrouprealm`: a bare name is the user of that name in the peer, and here too if there is one.
    fn plan_group(&self, plan: &mut Plan, from: &UserName, peer: &RealmId, receivers: &[Receiver]) {
        plan.group = true;
        let own = self.places.realm();
        let mut seen = HashSet::with_capacity(receivers.len());
        for receiver in receivers {
            let (user, realms): (_, &[&RealmId]) = match receiver {
                Receiver::User(user) => (user, &[peer, own]),
                Receiver::Qualified(Address { user, realm }) => (user, &[realm]),
                Receiver::Nobody(text) => {
                    plan.unknown.push(text.clone());
                    continue;
                }
            };
            for &realm in realms {
                if !seen.insert((user, realm)) {
                    continue;
                }
                if realm == own {
                    if self.takes_from(user, from, own.as_str()) {
                        plan.remote(peer).2.push(user.clone());
                    } else if matches!(receiver, Receiver::Qualified(_)) {
                        plan.unknown.push(receiver.to_string());
                    }
                } else if self.check_peer(realm).is_ok() {
                    plan.remote(realm).1.push(user.clone());
                } else {
                    plan.unknown.push(receiver.to_string());
                }
            }
        }
    }

    /// The appends of a plan: outboxes first, each followed by the copies that belong to it.
    pub(crate) fn appends(&self, from: &UserName, plan: Plan, said: Said<'_>, id: SendId) -> Vec<Append> {
        let Said { text, file } = said;
        let (id, is_fresh) = (id.message(), matches!(id, SendId::Assigned(_)));
        let account = self.accounts.get(from);
        let address = Address { user: from.clone(), realm: self.places.realm().clone() };
        let name = account.as_ref().map_or(from.as_str(), |account| account.name.as_str());
        let sender = Sender { address: &address, name };
        let key = id.0.simple();
        let entry_id = |suffix: std::fmt::Arguments<'_>| {
            EntryId::new(format!("{key}/{from}{suffix}")).expect("a UUID and names are printable and short")
        };
        let sent = self.places.mail_sent(from);
        let mut appends = Vec::with_capacity(1 + 2 * plan.remote.len());
        for (realm, there, here) in plan.remote {
            let outbox = (!there.is_empty()).then(|| self.places.outbox(&realm));
            let body = message_bytes(id, &sender, &realm, there, plan.group, text, file);
            if let Some(outbox) = outbox {
                let append = Append::new(outbox, entry_id(format_args!("/{realm}")), body.clone());
                appends.push(Append { is_fresh, ..append });
            }
            let mut copies: Vec<Subject> =
                here.iter().map(|user| self.places.mail_realm(user, &realm)).collect();
            copies.push(sent.clone());
            let id = entry_id(format_args!("/{realm}/copy"));
            appends.push(Append {
                subjects: copies,
                id,
                headers: Vec::new(),
                body,
                expect_last: None,
                copies: 0,
                is_fresh,
            });
        }
        if !plan.local.is_empty() {
            let mut subjects: Vec<Subject> =
                plan.local.iter().map(|user| self.places.mail_local(user)).collect();
            subjects.push(sent);
            let body = message_bytes(id, &sender, self.places.realm(), plan.local, false, text, file);
            let id = entry_id(format_args!(""));
            appends.push(Append {
                subjects,
                id,
                headers: Vec::new(),
                body,
                expect_last: None,
                copies: 1,
                is_fresh,
            });
        }
        appends
    }
}
