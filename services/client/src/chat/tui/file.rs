//! A file on its way, between the requests of the full screen: one of them is in the outbox at a time, behind what waits there.
//!
//! Owns: what becomes of a part's reply. Must not know how a file is cut into parts, or saved.

use crate::chat::transfer::{Job, Transfer};
use crate::chat::tui::state::{State, Waiting};
use crate::reply::Reply;

impl State {
    /// Begins to send or save a file; one at a time.
    pub(super) fn begin_file(&mut self, job: &Job) {
        if self.transfer.is_some() {
            return self.note("a file is on its way; one at a time");
        }
        match Transfer::begin(job) {
            Ok(transfer) => {
                self.transfer = Some((transfer, self.talks.current));
                self.next_part();
            }
            Err(why) => self.note(&format!("error: {why}")),
        }
    }

    /// A part was answered: the next one is to be sent.
    pub(super) fn file_answered(&mut self, reply: &Reply) {
        let Some((transfer, at)) = &mut self.transfer else { return };
        let at = *at;
        let taken = match reply.refusal() {
            Some(refusal) => Err(refusal.to_string()),
            None => transfer.take(reply),
        };
        match taken {
            Ok(()) => self.next_part(),
            Err(why) => {
                self.transfer = None;
                self.talks.note(at, &format!("error: {why}"));
            }
        }
    }

    fn next_part(&mut self) {
        let (Some((transfer, at)), Some(token)) = (&mut self.transfer, &self.session.context.token) else {
            return;
        };
        let at = *at;
        let text = match transfer.next(token) {
            Ok(Some(prepared)) => {
                let waiting = Waiting { prepared, id: None, at: Some(at), tries: 0, is_file: true };
                return self.outbox.push_back(waiting);
            }
            Ok(None) => transfer.done(),
            Err(why) => format!("error: {why}"),
        };
        self.transfer = None;
        self.talks.note(at, &text);
    }
}
