//! What became of messages that delivery put into mailboxes, and what their senders are told of it.

use antar_broker::{AppendError, Appended, EntryId, ReadFrom, ReadLimit, Seq, Subject};
use antar_proto::envelope::{Envelope, Outcome};
use antar_proto::reply::State;
use antar_proto::{ErrorCode, RealmId, UserName};

use crate::arrival::Line;
use crate::dead::Dead;
use crate::delivery::{Batch, Delivery, DeliveryError};
use crate::hop::log_hop;
use crate::recall::Place;

/// A message that goes into mailboxes.
pub(crate) struct Delivered {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) id: EntryId,
    pub(crate) line: Line,
    pub(crate) place: Place,
    pub(crate) outcome: Outcome,
}

impl Delivery {
    /// Notes the receipts of a message that was stored, or was refused.
    pub(crate) async fn finish_message(
        &self,
        origin: &RealmId,
        answer: Result<Appended, AppendError>,
        delivered: Delivered,
        batch: &mut Batch,
    ) -> Result<(), DeliveryError> {
        let Delivered { subjects, id, line, place, mut outcome } = delivered;
        let mut appended = match answer {
            Ok(appended) => appended,
            Err(AppendError::Full(_)) => {
                Appended { seq: Seq::ZERO, duplicate: false, full: subjects.clone() }
            }
            Err(AppendError::Refused(why)) => {
                self.bury(&line, &Dead::Refused(why), Some(place), batch);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if appended.duplicate {
            // The first time told who got nothing; it is found out again.
            for subject in &subjects {
                let kept = self.shared.entry_of(subject, appended.seq, &id).await?;
                if kept.is_none() && self.shared.has_older(subject, appended.seq).await? {
                    appended.full.push(subject.clone());
                }
            }
        }
        let is_full = |user: &UserName| appended.full.contains(&self.shared.places.mail_realm(user, origin));
        let full: Vec<UserName> = outcome.users.extract_if(.., |user| is_full(user)).collect();
        if appended.duplicate && !self.is_same(&subjects[0], appended.seq, &line).await {
            self.bury(&line, &Dead::IdReused, Some(place), batch);
            return Ok(());
        }
        log_hop(self.shared.places.realm(), "delivered", appended.seq, &line.body);
        let inbox = line.inbox_seq();
        if !full.is_empty() {
            let reason = Some(ErrorCode::MailboxFull.as_str().into());
            let outcome = Outcome { users: full, state: State::Failed, reason, ..outcome.clone() };
            batch.tell(origin, Some(place), inbox, outcome);
        }
        if !outcome.users.is_empty() {
            self.shared.counts.delivered(origin, outcome.users.len());
            batch.tell(origin, Some(place), inbox, outcome);
        }
        Ok(())
    }

    /// Whether the entry that a duplicate was taken for came from the same envelope. One that was trimmed counts as
    /// the same: it was read.
    async fn is_same(&self, subject: &Subject, seq: Seq, line: &Line) -> bool {
        let page = self
            .shared
            .broker
            .read(&subject.into(), ReadFrom::After(Seq(seq.0 - 1)), ReadLimit::entries(1))
            .await;
        let Some(kept) =
            page.ok().and_then(|page| page.entries.into_iter().next()).filter(|kept| kept.seq == seq)
        else {
            return true;
        };
        let content = |body: &[u8]| Envelope::from_bytes(body).map(|envelope| envelope.content);
        content(&kept.body) == content(&line.body)
    }
}
