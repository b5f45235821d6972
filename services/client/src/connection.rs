//! The two tasks of a connection: one writes requests, one reads frames.
//!
//! Owns: the order of requests and replies, the bound of both, why a connection ended. Must not know what a command
//! means. Two tasks and not one, since a server may stop reading until we have read its replies.

use std::sync::{Arc, OnceLock};

use antar_proto::frame::FrameBuffer;
use antar_proto::json::FRAME_END;
use antar_proto::reply::Event;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Closed, Violation};
use crate::reply::{Frame, Reply};

/// Bytes that one read takes at most.
const READ_BYTES: usize = 16 * 1024;

/// A request on its way to the writer.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// With its end.
    pub(crate) line: Vec<u8>,
    pub(crate) waiter: Waiter,
}

/// Who waits for the next reply. Dropped unanswered when the connection ends.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// The reply must have it as its `id`.
    pub(crate) tag: Option<String>,
    pub(crate) reply: oneshot::Sender<Reply>,
}

impl Waiter {
    /// Whether `reply` can be the answer: an error may lack the tag, since a line that was too long or not UTF-8 was
    /// never searched for one.
    fn fits(&self, reply: &Reply) -> bool {
        match (&self.tag, reply.tag()) {
            (None, _) => true,
            (Some(tag), Some(shown)) => tag == shown,
            (Some(_), None) => !reply.is_ok(),
        }
    }
}

/// Why the connection ended; set once, by whichever task saw it first.
pub(crate) type EndCell = Arc<OnceLock<Closed>>;

/// Writes requests in the order in which they came, as many as there are with one system call. Each takes its place
/// among the waiters before its bytes go out, so a reply always finds it.
pub(crate) async fn write_requests<W: AsyncWrite + Unpin>(
    socket: W,
    mut requests: mpsc::Receiver<Outgoing>,
    waiters: mpsc::Sender<Waiter>,
    end: EndCell,
) {
    let mut socket = BufWriter::new(socket);
    let written = async {
        loop {
            let Outgoing { line, waiter } = match requests.try_recv() {
                Ok(outgoing) => outgoing,
                Err(TryRecvError::Disconnected) => return socket.shutdown().await,
                Err(TryRecvError::Empty) => {
                    socket.flush().await?;
                    match requests.recv().await {
                        Some(outgoing) => outgoing,
                        None => return socket.shutdown().await,
                    }
                }
            };
            if let Err(TrySendError::Full(waiter)) | Err(TrySendError::Closed(waiter)) =
                waiters.try_send(waiter)
            {
                // Replies to what stands in the buffer are what makes room.
                socket.flush().await?;
                if waiters.send(waiter).await.is_err() {
                    return Ok(());
                }
            }
            socket.write_all(&line).await?;
        }
    };
    if let Err(error) = written.await {
        end.get_or_init(|| Closed::Broken(error.kind()));
    }
}

/// Reads frames until the connection ends; replies go to their waiters, events into their channel.
pub(crate) async fn read_frames<R: AsyncRead + Unpin>(
    mut socket: R,
    mut waiters: mpsc::Receiver<Waiter>,
    events: mpsc::Sender<Event>,
    end: EndCell,
) {
    let closed = read_until_closed(&mut socket, &mut waiters, &events).await;
    // Set before the waiters are dropped, so that whoever was waiting finds the reason.
    end.get_or_init(|| closed);
}

async fn read_until_closed<R: AsyncRead + Unpin>(
    socket: &mut R,
    waiters: &mut mpsc::Receiver<Waiter>,
    events: &mpsc::Sender<Event>,
) -> Closed {
    let mut buffer = FrameBuffer::default();
    let mut unframed_bytes = 0;
    let mut piece = vec![0; READ_BYTES];
    loop {
        let count = match socket.read(&mut piece).await {
            Ok(0) if unframed_bytes > 0 => return Closed::MidFrame,
            Ok(0) => return Closed::Ended,
            Ok(count) => count,
            Err(error) => return Closed::Broken(error.kind()),
        };
        if buffer.push(&piece[..count]).is_err() {
            return Closed::Violation(Violation::FrameTooLong);
        }
        unframed_bytes += count;
        while let Some(frame) = buffer.next_frame() {
            unframed_bytes -= frame.len() + FRAME_END.len();
            match Frame::parse(frame) {
                Ok(Frame::Reply(reply)) => {
                    if let Err(violation) = answer(waiters, reply) {
                        return Closed::Violation(violation);
                    }
                }
                // Nobody to take events is fine; nobody *reading* them stops this task, and in time the server.
                Ok(Frame::Event(Some(event))) => drop(events.send(event).await),
                Ok(Frame::Event(None)) => {}
                Err(violation) => return Closed::Violation(violation),
            }
        }
    }
}

/// Gives `reply` to the oldest request that waits.
fn answer(waiters: &mut mpsc::Receiver<Waiter>, reply: Reply) -> Result<(), Violation> {
    let waiter = waiters.try_recv().map_err(|_| Violation::Unasked)?;
    if !waiter.fits(&reply) {
        return Err(Violation::WrongTag);
    }
    // Whoever asked may have given up by now.
    drop(waiter.reply.send(reply));
    Ok(())
}
