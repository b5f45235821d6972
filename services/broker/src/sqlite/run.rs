//! Runs: many appends of which none is stored behind one that is not.

use tokio::sync::oneshot;

use super::SqliteBroker;
use super::op::Op;
use crate::{Append, AppendError, Appended, PendingAppend};

/// Appends of one transaction, and bytes of their bodies: others wait for it.
const RUN_APPENDS_MAX: usize = 1_024;
const RUN_BYTES_MAX: usize = 8 * 1024 * 1024;

impl SqliteBroker {
    /// See [`crate::Broker::append_run`].
    pub(super) async fn store_run(&self, run: Vec<Append>) -> Vec<Result<Appended, AppendError>> {
        let (mut answers, mut run) = (Vec::with_capacity(run.len()), run.into_iter().peekable());
        let mut failed: Option<AppendError> = None;
        while run.peek().is_some() {
            let (mut part, mut bytes) = (Vec::new(), 0);
            while let Some(append) = run.next_if(|next| {
                part.is_empty() || (part.len() < RUN_APPENDS_MAX && bytes + next.body.len() <= RUN_BYTES_MAX)
            }) {
                bytes += append.body.len();
                part.push(append);
            }
            let stored = match &failed {
                Some(error) => vec![Err(error.clone().of_what_follows()); part.len()],
                None => self.append_part(part, bytes).await,
            };
            failed = failed.or_else(|| {
                stored.iter().find_map(|answer| answer.as_ref().err().filter(|e| e.ends_a_run()).cloned())
            });
            answers.extend(stored);
        }
        answers
    }

    /// Appends in one transaction, so all of them or none.
    async fn append_part(&self, part: Vec<Append>, bytes: usize) -> Vec<Result<Appended, AppendError>> {
        let checks: Vec<Result<(), AppendError>> = part.iter().map(Append::check).collect();
        let good = part.into_iter().zip(&checks).filter(|(_, check)| check.is_ok());
        let appends: Vec<Append> = good.map(|(append, _)| append).collect();
        let (done, waiting): (Vec<_>, Vec<_>) = appends.iter().map(|_| oneshot::channel()).unzip();
        let queued = async {
            let room = self.shared.room(bytes).await?;
            self.shared.queue(Op::Run { appends, done, room }).await
        };
        let queued = queued.await.map_err(|error| AppendError::NotStored(error.to_string()));
        let (mut waiting, mut answers) = (waiting.into_iter(), Vec::with_capacity(checks.len()));
        for check in checks {
            answers.push(match (check, &queued) {
                (Err(refused), _) => Err(refused),
                (Ok(()), Err(error)) => Err(error.clone()),
                (Ok(()), Ok(())) => {
                    let answer = waiting.next().expect("each that is good has one");
                    PendingAppend::from_oneshot(answer).await
                }
            });
        }
        answers
    }
}
