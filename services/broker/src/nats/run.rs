//! Runs: many appends that are stored in their order, subject by subject, with nothing behind what is not stored.
//!
//! Messages that are in flight together give no such order: a server without a leader for a moment drops the first and
//! stores the second. So what goes to one subject goes in bundles, each of which is stored whole or not at all, and one
//! bundle is acknowledged before the next is published. Subjects do not wait for each other, unless the stream is
//! replicated: then only one message at a time may expect something.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::bundle::{self, BYTES_MAX, ENTRIES_MAX, Part, pack};
use super::message::expect_last;
use super::publish::{Answer, Publish};
use super::{NatsBroker, Turn};
use crate::{Append, AppendError, Appended, Subject};

/// Subjects to which bundles of a run are on their way at the same time.
const SUBJECTS_AT_ONCE: usize = 256;

/// What goes to one subject, in its order: which append, and which of its subjects.
type Places = Vec<(usize, usize)>;

impl NatsBroker {
    /// See [`crate::Broker::append_run`].
    pub(super) async fn store_run(&self, run: &[Append]) -> Vec<Answer> {
        let mut answers: Vec<Vec<(usize, Answer)>> = vec![Vec::new(); run.len()];
        let mut subjects: Vec<(Subject, Places)> = Vec::new();
        let mut known: HashMap<&Subject, usize> = HashMap::new();
        for (number, append) in run.iter().enumerate() {
            if let Err(error) = append.check() {
                answers[number].push((0, Err(error)));
                continue;
            }
            for (at, subject) in append.subjects.iter().enumerate() {
                let place = *known.entry(subject).or_insert_with(|| {
                    subjects.push((subject.clone(), Places::new()));
                    subjects.len() - 1
                });
                subjects[place].1.push((number, at));
            }
        }
        let turn = match self.turn_of(run).await {
            Ok(turn) => turn,
            Err(error) => return run.iter().map(|_| Err(error.clone())).collect(),
        };
        let at_once = if turn.is_some() { 1 } else { SUBJECTS_AT_ONCE };
        let store = |(subject, places)| self.store_on(subject, places, run);
        let mut stored = stream::iter(subjects).map(store).buffer_unordered(at_once);
        while let Some(of_subject) = stored.next().await {
            for ((number, at), answer) in of_subject {
                answers[number].push((at, answer));
            }
        }
        answers.into_iter().map(together).collect()
    }

    /// Checks that one stream keeps the run's subjects and its fence; what to hold if only one at a time may expect
    /// something there.
    async fn turn_of(&self, run: &[Append]) -> Result<Option<Turn>, AppendError> {
        let Some(first) = run.iter().find(|append| append.check().is_ok()) else { return Ok(None) };
        let stream = self.check_streams(first).await?;
        match first.expect_last.as_ref().filter(|_| stream.is_replicated) {
            Some(expected) => self.turn(&expected.subject).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stores what goes to one subject, until something is not stored.
    async fn store_on(
        &self,
        subject: Subject,
        mut places: Places,
        run: &[Append],
    ) -> Vec<((usize, usize), Answer)> {
        let mut done = Vec::with_capacity(places.len());
        while !places.is_empty() {
            let count = chunk_of(&places, run);
            let chunk: Places = places.drain(..count).collect();
            let answer = match self.run_message(&subject, &chunk, run) {
                Ok(message) => {
                    let published = self.bundler.publish(&subject, message.clone()).await;
                    self.bundler.settle(&message, published).await
                }
                Err(error) => Err(error),
            };
            for (at, place) in chunk.into_iter().enumerate() {
                let own = |appended: &Appended| Appended {
                    seq: bundle::seq(bundle::message_of(appended.seq), at, count),
                    duplicate: appended.duplicate && count == 1,
                    full: Vec::new(),
                };
                done.push((place, answer.as_ref().map(own).map_err(AppendError::clone)));
            }
            if let Err(error) = answer
                && error.ends_a_run()
            {
                done.extend(places.drain(..).map(|place| (place, Err(error.clone().of_what_follows()))));
            }
        }
        done
    }

    /// One entry in a message of its own, under its id; or several in a bundle.
    fn run_message(&self, subject: &Subject, chunk: &Places, run: &[Append]) -> Result<Publish, AppendError> {
        if let [(number, at)] = chunk[..] {
            return self.message(&run[number], at, subject);
        }
        let parts: Vec<Part> = chunk.iter().map(|(number, _)| Part::of(&run[*number])).collect();
        let (mut headers, body) = pack(parts.iter(), parts.len());
        if let Some(expected) = &run[chunk[0].0].expect_last {
            expect_last(&mut headers, expected, subject)?;
        }
        Ok(Publish {
            subject: subject.as_str().to_owned().into(),
            headers,
            body,
            place: Some(subject.clone()),
            is_kept: true,
            may_wait: false,
            following: None,
        })
    }
}

/// How many of the first go in one message.
fn chunk_of(places: &Places, run: &[Append]) -> usize {
    let (mut count, mut bytes) = (0, 0);
    for (number, _) in places.iter().take(ENTRIES_MAX) {
        bytes += run[*number].body.len();
        if count > 0 && bytes > BYTES_MAX {
            break;
        }
        count += 1;
    }
    count
}

/// One answer for an append with several subjects.
fn together(mut answers: Vec<(usize, Answer)>) -> Answer {
    answers.sort_by_key(|(at, _)| *at);
    let (mut appended, mut full, mut failed): (Option<Appended>, _, Option<AppendError>) =
        (None, Vec::new(), None);
    for (_, answer) in answers {
        match answer {
            Ok(one) => {
                appended.get_or_insert(Appended { duplicate: false, ..one.clone() }).duplicate |=
                    one.duplicate
            }
            Err(AppendError::Full(subject)) => full.push(subject),
            // Nobody can tell of the whole what nobody can tell of a part.
            Err(error @ AppendError::Unknown(_)) => failed = Some(error),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    match (failed, appended, full.first().cloned()) {
        (None, Some(appended), _) => Ok(Appended { full, ..appended }),
        (None, None, Some(first)) => Err(AppendError::Full(first)),
        (None, None, None) => Err(AppendError::Refused("no subject".into())),
        // Some of them are there: the same append again completes it.
        (Some(error), Some(_), _) => Err(AppendError::Unknown(error.to_string())),
        (Some(error), None, _) => Err(error),
    }
}
