//! From what was read to what is done: lines, their limits, and which of them have to wait.

use std::borrow::Cow;
use std::time::Duration;

use antar_proto::line::Step as LineStep;
use antar_proto::parse::{Request, claimed_token, parse};
use antar_proto::reply::{Failure, Stored};
use antar_proto::{ErrorCode, MessageId, Tag};
use antar_realm::{SendId, TooMuch};
use tokio::time::Instant;

use antar_realm::Counted;

use super::{Connection, GUEST_LINE_BYTES_MAX, Login, Over, Watching};
use crate::commands::{Executed, FeedChange};
use crate::outbox::{Outgoing, SendSlot, write_outcome};

/// How much more than its line a name in a list of receivers takes while its send waits.
const RECEIVER_BYTES: usize = 64;
/// After so many empty lines in a row a connection has to rest for so long: they get no reply that would slow it.
const EMPTY_LINES_MAX: u32 = 1_000;
const EMPTY_LINES_REST: Duration = Duration::from_millis(10);

impl Connection {
    /// Carries out lines until there are none, or one has to wait.
    pub(super) async fn take_lines(&mut self) -> Result<(), Over> {
        if let Some(line) = self.held.take()
            && !self.line(Cow::Owned(line)).await?
        {
            return Ok(());
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while !rest.is_empty() {
            if self.out.len() >= self.out_bytes_high()
                || !self.replies.has_room(self.edge.config.pipeline_max)
            {
                break;
            }
            // A client that never stops sending gives way to others now and then.
            tokio::task::coop::consume_budget().await;
            if self.place.is_guest() {
                self.welcome_long_line(rest).await;
            }
            let step = self.lines.next(&mut rest);
            if step.is_some() {
                self.line_since = None;
            }
            match step {
                Some(LineStep::Line(line)) => {
                    if !self.line(line).await? {
                        break;
                    }
                }
                Some(LineStep::TooLong) => self.too_long(),
                None => break,
            }
        }
        self.input.extend_from_slice(rest);
        self.line_since = match (self.lines.is_partial() || self.stream.is_partial(), self.line_since) {
            (true, since) => since.or_else(|| Some(Instant::now())),
            (false, _) => None,
        };
        Ok(())
    }

    /// A line of a connection that has shown no token yet may be long if it begins with a live one.
    async fn welcome_long_line(&mut self, rest: &[u8]) {
        let (length, head) = self.lines.line_so_far(rest);
        if length > GUEST_LINE_BYTES_MAX
            && let Some(token) = claimed_token(&head)
            && self.session(token).is_none()
            && let Err(error) = self.session_elsewhere(token).await
        {
            tracing::warn!(%error, "a token could not be looked up");
        }
    }

    fn too_long(&mut self) {
        let detail = if self.place.is_guest() {
            format!("before login a line has at most {GUEST_LINE_BYTES_MAX} bytes; the rest was skipped")
        } else {
            format!("a line has at most {} bytes; the rest was skipped", self.edge.config.line_bytes_max)
        };
        self.edge.counts.command(None, Some(ErrorCode::LineTooLong));
        self.replies.push(&Failure::new(None, ErrorCode::LineTooLong).detail(&detail));
    }

    /// Carries out one line; `false` if it has to wait (and is kept).
    async fn line(&mut self, line: Cow<'_, [u8]>) -> Result<bool, Over> {
        let Request { tag, verb, command } = match parse(&line) {
            Ok(Some(request)) => request,
            Ok(None) => {
                self.empty_lines += 1;
                if self.empty_lines.is_multiple_of(EMPTY_LINES_MAX) {
                    tokio::time::sleep(EMPTY_LINES_REST).await;
                }
                return Ok(true);
            }
            Err(error) => {
                self.edge.counts.command(None, Some(error.code));
                self.replies.push(&Failure::new(error.tag, error.code).detail(&error.detail));
                return Ok(true);
            }
        };
        self.empty_lines = 0;
        if let Some(what) = Outgoing::of(&command) {
            let bytes = line.len() + what.receivers() * RECEIVER_BYTES;
            self.send(tag, what, bytes).await;
            return Ok(true);
        }
        if !self.replies.is_empty() {
            self.held = Some(line.into_owned());
            return Ok(false);
        }
        // Boxed, so that the largest command does not set the size of every idle connection.
        let Executed { marks, feed, login } = Box::pin(self.execute(tag, verb, command)).await;
        if let Some((token, key, user)) = login {
            self.logged_in(Login { token, key, user });
        }
        match feed {
            FeedChange::Keep => {}
            FeedChange::Stop => self.watching = None,
            FeedChange::Start(feed) => {
                let counted = Counted::new(self.edge.realm.activity().clone(), |activity| &activity.watches);
                let watching =
                    |login: &Login| Watching { feed: *feed, key: login.key.clone(), _counted: counted };
                self.watching = self.login.as_ref().map(watching);
            }
        }
        if !marks.is_empty() {
            // What could not be written stays unread.
            self.flush().await?;
            self.edge.realm.mark_read(marks).await;
        }
        Ok(true)
    }

    async fn send(&mut self, tag: Option<Tag<'_>>, outgoing: Outgoing<'_>, bytes: usize) {
        let chosen = tag.and_then(|tag| tag.message_id());
        let send_id = chosen.map_or_else(|| SendId::Assigned(MessageId::assigned()), SendId::Chosen);
        let id = send_id.message();
        let since = Instant::now();
        let deadline = since + self.edge.config.ack_time;
        let user = match self.session(outgoing.token) {
            Some(user) => user,
            None => match self.session_elsewhere(outgoing.token).await {
                Ok(Some(user)) => user,
                Ok(None) => {
                    self.edge.counts.send_failed(ErrorCode::NotAuthorized);
                    return self.replies.push(&Failure::new(tag, ErrorCode::NotAuthorized));
                }
                Err(error) => {
                    tracing::warn!(%error, "a token could not be looked up");
                    self.edge.counts.send_failed(ErrorCode::Unavailable);
                    let failure = Failure::new(tag, ErrorCode::Unavailable);
                    return self.replies.push(&failure.stored(Stored::NO, Some(id)));
                }
            },
        };
        let message = outgoing.message;
        if let Err(TooMuch { of, wait }) =
            self.edge.realm.take_share(&user, Some(self.address), outgoing.text.len())
        {
            let detail = format!("this {of} has sent as much as it may in a minute; nothing was stored");
            let failure = Failure::new(tag, ErrorCode::RateLimited).detail(&detail);
            return self.replies.push(&failure.retry_after_s(wait.as_secs() + 1));
        }
        let queued = tokio::time::timeout_at(
            deadline,
            self.edge.realm.send(&user, outgoing.what, outgoing.text, send_id),
        );
        let result = match queued.await {
            Ok(result) => result,
            Err(_) => Err(antar_realm::SendError::Unknown("the broker takes nothing".into())),
        };
        match result {
            Ok(sending) => self.replies.push_sending(SendSlot {
                sending,
                tag: tag.map(|tag| tag.as_str().into()),
                id,
                message,
                since,
                deadline,
                bytes,
            }),
            Err(error) => {
                let mut reply = Vec::new();
                write_outcome(&mut reply, tag, id, message, Err(error), &self.edge.counts);
                self.replies.push_ready(reply);
            }
        }
    }
}
