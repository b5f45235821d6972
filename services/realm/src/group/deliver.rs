//! What other realms send that has to do with groups: to those that live here, what their members say and want; of those that
//! live there, what was said and how they are.

use antar_broker::{Append, AppendError, Appended, ENTRY_BODY_BYTES_MAX, EntryId, Seq, Subject};
use antar_proto::envelope::{Content, Envelope, GroupWish, Outcome};
use antar_proto::reply::State as Reached;
use antar_proto::{Address, ErrorCode, GroupAddress, GroupName, MessageId, RealmId, UserName};

use super::{Group, GroupError};
use crate::arrival::{Arrival, Line};
use crate::dead::Dead;
use crate::delivery::{Batch, Delivery, DeliveryError};
use crate::hop::log_hop;
use crate::places::group_key;
use crate::recall::{Place, headers};
use crate::receipt::refused;
use crate::recent::{Print, Seen};
use crate::reign::Reign;

/// Largest message to a group: each realm that it is sent on to adds some fields.
const SAID_BYTES_MAX: usize = ENTRY_BODY_BYTES_MAX - 4096;

/// What goes into the log of a group.
pub(crate) struct Arriving {
    line: Line,
    place: Place,
    subject: Subject,
    /// What the sender's realm is told; nothing of what its home says of a group.
    outcome: Option<Outcome>,
}

/// An envelope about a group, as it came.
pub(crate) struct IncomingOfGroup {
    pub(crate) id: MessageId,
    pub(crate) print: Option<Print>,
    pub(crate) content: Content,
}

impl From<GroupError> for DeliveryError {
    fn from(error: GroupError) -> Self {
        Self::Kv(antar_broker::KvError::Unavailable(error.to_string()))
    }
}

/// What a sender is told of a post that is in its group, and of a request that was carried out.
fn done(id: MessageId, sender: UserName) -> Outcome {
    Outcome { id, sender, users: Vec::new(), state: Reached::Delivered, reason: None, group: false }
}

impl Delivery {
    /// Starts the delivery of an envelope about a group.
    pub(crate) async fn of_group(
        &self,
        reign: &Reign,
        arrival: Arrival<'_>,
        incoming: IncomingOfGroup,
        batch: &mut Batch,
    ) -> Result<Result<(), Dead>, DeliveryError> {
        let IncomingOfGroup { id, print, content } = incoming;
        let origin = &arrival.origin;
        let peer = self.shared.peers.copy.get(origin.as_str());
        let is_quarantined = peer.is_some_and(|peer| self.shared.is_quarantined(&peer));
        match content {
            Content::GroupPost { from, .. } | Content::GroupRequest { from, .. } if from.realm != *origin => {
                Ok(Err(Dead::ForeignSender { from, origin: origin.clone() }))
            }
            // Nothing of this is held: what a group was told long ago is of no use.
            Content::GroupPost { from, .. } | Content::GroupRequest { from, .. } if is_quarantined => {
                let outcome = refused(id, from.user, Dead::QUARANTINED, false);
                batch.tell(origin, Some(arrival.place), arrival.line.inbox_seq(), outcome);
                Ok(Ok(()))
            }
            _ if is_quarantined => Ok(Ok(())),
            Content::GroupPost { from, to_group, .. } => {
                self.post(reign, arrival, id, print, from, to_group, batch).await
            }
            Content::GroupRequest { from, group, wish } => {
                self.request(arrival, id, from, group, wish, batch).await
            }
            Content::GroupMessage { to_group, .. } => self.said(reign, arrival, print, to_group, batch).await,
            Content::GroupState { ref group, .. } => {
                let group = GroupAddress { group: group.clone(), realm: Some(origin.clone()) };
                match Group::told(content, self.shared.places.realm()) {
                    Some(said) => Ok(Ok(self.shared.take_state(&group, said).await?)),
                    None => Ok(Err(Dead::Refused("a group has at most 1000 members".into()))),
                }
            }
            _ => Ok(Err(Dead::Kind)),
        }
    }

    /// A member's message to a group that lives here.
    #[expect(clippy::too_many_arguments, reason = "the parts of one envelope")]
    async fn post(
        &self,
        reign: &Reign,
        arrival: Arrival<'_>,
        id: MessageId,
        print: Option<Print>,
        from: Address,
        group: GroupName,
        batch: &mut Batch,
    ) -> Result<Result<(), Dead>, DeliveryError> {
        let Arrival { origin, place, line } = arrival;
        let address = GroupAddress { group, realm: None };
        if batch.caught_up.insert(address.clone()) {
            self.shared.groups.copy.catch_up(&group_key(&address)).await?;
        }
        let refusal = match self.shared.groups.get(&address) {
            None => Some(ErrorCode::NoSuchGroup),
            Some(group) if !group.members.contains_key(&from) => Some(ErrorCode::NotAMember),
            Some(_) => None,
        };
        if let Some(code) = refusal {
            let outcome = refused(id, from.user, code.as_str(), false);
            batch.tell(&origin, Some(place), line.inbox_seq(), outcome);
            return Ok(Ok(()));
        }
        let subject = self.shared.places.group(&address);
        let is_done = reign.lane(&origin).is_some_and(|lane| lane.recalled.has(&subject, place, None));
        let seen = print.filter(|_| !is_done).map_or(Seen::New, |print| reign.see(&origin, print));
        if seen == Seen::Other {
            return Ok(Err(Dead::IdReused));
        }
        let delivered = done(id, from.user.clone());
        if is_done || seen == Seen::Same {
            batch.tell(&origin, Some(place), line.inbox_seq(), delivered);
            return Ok(Ok(()));
        }
        let own = self.shared.places.realm();
        let Ok(mut envelope) = Envelope::from_bytes(&line.body) else { return Ok(Err(Dead::Kind)) };
        if let Content::GroupPost { from, name, to_group, text } = envelope.content {
            envelope.content = Content::GroupMessage { from, name, to_group, text, file: None };
        }
        (envelope.origin, envelope.dest, envelope.lane) = (own.clone(), own.clone(), None);
        let entry_id = EntryId::new(format!("{}/{from}/#{address}", id.0.simple()))
            .expect("a UUID and names are printable and short");
        let body = envelope.to_bytes();
        if body.len() > SAID_BYTES_MAX {
            return Ok(Err(Dead::Refused("it is too large to be sent on".into())));
        }
        let arriving = Arriving { line: line.clone(), place, subject, outcome: Some(delivered) };
        self.put(reign, &origin, arriving, entry_id, body, batch);
        Ok(Ok(()))
    }

    /// What was said in a group of the other realm. Nobody here is in one that is not known.
    async fn said(
        &self,
        reign: &Reign,
        arrival: Arrival<'_>,
        print: Option<Print>,
        group: GroupName,
        batch: &mut Batch,
    ) -> Result<Result<(), Dead>, DeliveryError> {
        let Arrival { origin, place, line } = arrival;
        let address = GroupAddress { group, realm: Some(origin.clone()) };
        let own = self.shared.places.realm();
        if batch.caught_up.insert(address.clone()) {
            self.shared.groups.copy.catch_up(&group_key(&address)).await?;
        }
        if self.shared.groups.get(&address).is_none_or(|group| !group.has_members_in(own)) {
            return Ok(Ok(()));
        }
        let subject = self.shared.places.group(&address);
        if reign.lane(&origin).is_some_and(|lane| lane.recalled.has(&subject, place, None)) {
            return Ok(Ok(()));
        }
        match print.map_or(Seen::New, |print| reign.see(&origin, print)) {
            Seen::New => {}
            Seen::Same => return Ok(Ok(())),
            Seen::Other => return Ok(Err(Dead::IdReused)),
        }
        let arriving = Arriving { line: line.clone(), place, subject, outcome: None };
        self.put(reign, &origin, arriving, EntryId::unique(), line.body.to_vec(), batch);
        Ok(Ok(()))
    }

    fn put(
        &self,
        reign: &Reign,
        origin: &RealmId,
        arriving: Arriving,
        id: EntryId,
        body: Vec<u8>,
        batch: &mut Batch,
    ) {
        let append = Append {
            headers: headers(origin, arriving.place, None, arriving.line.inbox_seq()),
            expect_last: Some(reign.log(origin).clone()),
            is_fresh: true,
            ..Append::new(arriving.subject.clone(), id, body)
        };
        batch.said.entry(origin.clone()).or_default().push((append, arriving));
    }

    /// What somebody wants of a group that lives here.
    async fn request(
        &self,
        arrival: Arrival<'_>,
        id: MessageId,
        from: Address,
        group: GroupName,
        wish: GroupWish,
        batch: &mut Batch,
    ) -> Result<Result<(), Dead>, DeliveryError> {
        let Arrival { origin, place, line } = arrival;
        let outcome = match self.shared.carry_out(&from, &group, &wish, Some(place)).await {
            Ok(_) => done(id, from.user),
            Err(error @ GroupError::Unavailable(_)) => return Err(error.into()),
            // The group may have ended with this very request, the first time.
            Err(GroupError::NoSuchGroup) if wish == GroupWish::Leave => done(id, from.user),
            Err(error) => refused(id, from.user, error.code().as_str(), false),
        };
        batch.tell(&origin, Some(place), line.inbox_seq(), outcome);
        Ok(Ok(()))
    }

    /// Puts what there is into the logs of groups, of each realm in its order, and notes the receipts.
    pub(crate) async fn store_said(&self, batch: &mut Batch) -> Result<(), DeliveryError> {
        for (origin, said) in std::mem::take(&mut batch.said) {
            let (appends, arriving): (Vec<Append>, Vec<Arriving>) = said.into_iter().unzip();
            let answers = self.shared.broker.append_run(appends).await;
            for (answer, arriving) in answers.into_iter().zip(arriving) {
                self.finish_said(&origin, answer, arriving, batch).await?;
            }
        }
        Ok(())
    }

    async fn finish_said(
        &self,
        origin: &RealmId,
        answer: Result<Appended, AppendError>,
        arriving: Arriving,
        batch: &mut Batch,
    ) -> Result<(), DeliveryError> {
        let Arriving { line, place, subject, outcome } = arriving;
        let stored = match answer {
            Ok(appended) => appended.seq,
            Err(AppendError::Full(_)) if self.shared.make_room(&subject).await => {
                return Err(AppendError::NotStored("a group was full, room was made".into()).into());
            }
            Err(AppendError::Full(_)) => Seq::ZERO,
            Err(AppendError::Refused(why)) => {
                self.bury(&line, &Dead::Refused(why), Some(place), batch);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let is_full = stored == Seq::ZERO;
        match outcome {
            Some(outcome) if is_full => {
                let reason = Some(ErrorCode::MailboxFull.as_str().into());
                let outcome = Outcome { state: Reached::Failed, reason, ..outcome };
                batch.tell(origin, Some(place), line.inbox_seq(), outcome);
            }
            Some(outcome) => {
                log_hop(self.shared.places.realm(), "delivered", stored, &line.body);
                self.shared.counts.delivered(origin, 1);
                batch.tell(origin, Some(place), line.inbox_seq(), outcome);
            }
            None if is_full => {
                let dead = Dead::Refused("the group is full of what its members here have not read".into());
                self.bury(&line, &dead, Some(place), batch);
            }
            None => log_hop(self.shared.places.realm(), "delivered", stored, &line.body),
        }
        Ok(())
    }
}
