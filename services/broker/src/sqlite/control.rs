//! The control socket: how another process reaches the one that holds the file.
//!
//! A Unix socket `PATH.sock` beside the database, for its owner only. It carries requests into the holder's
//! request/reply and nothing else. Frames are a length of four bytes, big endian, and so many bytes. A request is the
//! timeout in milliseconds (4 bytes), the subject's length (2 bytes), the subject, the body; an answer is a status
//! byte and the body.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::options::Options;
use super::rpc::Switchboard;
use super::schema::beside;
use crate::{RequestError, Subject};

/// Longest frame.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may take to send a request, or to take an answer.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an answer that a request may ask for.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// `sun_path` is 108 bytes with its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// After a failed accept, for instance without file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(200);

const DONE: u8 = 0;
const NO_RESPONDER: u8 = 1;
const TIMEOUT: u8 = 2;
const FAILED: u8 = 3;

/// Why a request to the process that holds the file was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No process holds the file: open it yourself.
    #[error("no process has {} open", .0.display())]
    NotRunning(PathBuf),
    /// A process holds the file, but serves no such subject.
    #[error("the process that has the file open does not answer to that")]
    NoResponder,
    /// A process holds the file, and did not answer in time.
    #[error("the process that has the file open did not answer in time")]
    Timeout,
    /// It cannot be reached: no permission, no socket, or a broken connection.
    #[error("{0}")]
    Failed(String),
}

/// The listening side. Stops when dropped; [`Server::stop`] also waits.
pub(super) struct Server {
    path: PathBuf,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Listens beside the database at `path`, whose lock is held. `None`, and a warning in the log, if it cannot.
    pub(super) fn start(path: &Path, switchboard: Arc<Switchboard>) -> Option<Self> {
        let path = beside(path, ".sock");
        let listener = match listen(&path) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no control socket: other processes cannot reach this one");
                return None;
            }
        };
        let server = Self { path, stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let (stop, tasks) = (server.stop.clone(), server.tasks.clone());
        server.tasks.spawn(accept(listener, switchboard, stop, tasks));
        Some(server)
    }

    /// Ends the connections and removes the socket.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        let why = format!("its path has {length} bytes, a socket's can have {SOCKET_PATH_BYTES_MAX}");
        return Err(std::io::Error::new(ErrorKind::InvalidInput, why));
    }
    // Whoever made it is gone, for the lock is ours.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(
    listener: UnixListener,
    switchboard: Arc<Switchboard>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = async {
        loop {
            let Ok(room) = room.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (switchboard, stop) = (switchboard.clone(), stop.clone());
                    tasks.spawn(async move {
                        let _room = room;
                        // An end in the middle is like a client that went away.
                        let _ = stop.run_until_cancelled(serve(stream, &switchboard)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    };
    let _ = stop.run_until_cancelled(connections).await;
}

/// Answers one connection's requests, one after the other, until it ends or breaks the rules.
async fn serve(mut stream: UnixStream, switchboard: &Switchboard) -> std::io::Result<()> {
    loop {
        let frame = tokio::time::timeout(IO_TIMEOUT, read_frame(&mut stream)).await??;
        let Some((timeout, subject, body)) = parse(&frame) else { return Ok(()) };
        let (status, body) = match switchboard.request(&subject, body, timeout).await {
            Ok(body) if body.len() < FRAME_BYTES_MAX => (DONE, body),
            Ok(_) => (FAILED, Bytes::from_static(b"the answer is too long")),
            Err(RequestError::NoResponder) => (NO_RESPONDER, Bytes::new()),
            Err(RequestError::Timeout) => (TIMEOUT, Bytes::new()),
            Err(RequestError::Unavailable(why)) => (FAILED, why.into()),
        };
        tokio::time::timeout(IO_TIMEOUT, write_frame(&mut stream, &[&[status], &body])).await??;
    }
}

fn parse(frame: &Bytes) -> Option<(Duration, Subject, Bytes)> {
    let (timeout_ms, rest) = frame.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (subject, body) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let subject = Subject::new(std::str::from_utf8(subject).ok()?).ok()?;
    let timeout = Duration::from_millis(u32::from_be_bytes(*timeout_ms).into()).min(REQUEST_TIMEOUT_MAX);
    Some((timeout, subject, frame.slice_ref(body)))
}

async fn read_frame(stream: &mut UnixStream) -> std::io::Result<Bytes> {
    let length = stream.read_u32().await? as usize;
    if length > FRAME_BYTES_MAX {
        return Err(std::io::Error::new(ErrorKind::InvalidData, "a frame is too long"));
    }
    // Memory only for what really comes.
    let mut frame = Vec::new();
    let got = (&mut *stream).take(length as u64).read_to_end(&mut frame).await?;
    if got < length { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(frame.into()) }
}

async fn write_frame(stream: &mut UnixStream, parts: &[&[u8]]) -> std::io::Result<()> {
    let frame = parts.concat();
    let length = u32::try_from(frame.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_u32(length).await?;
    stream.write_all(&frame).await
}

/// Sends a request to the process that holds the file of a SQLite broker, and waits for its answer.
///
/// `url_or_path` is `sqlite:PATH` or the path itself. [`ControlError::NotRunning`] means that the file is free.
pub async fn control_request(
    url_or_path: &str,
    subject: &Subject,
    body: Bytes,
    timeout: Duration,
) -> Result<Bytes, ControlError> {
    let path = match Options::parse(url_or_path) {
        Ok(options) => options.path,
        Err(error) if url_or_path.starts_with("sqlite:") => {
            return Err(ControlError::Failed(error.to_string()));
        }
        Err(_) => url_or_path.into(),
    };
    let mut stream = match UnixStream::connect(beside(&path, ".sock")).await {
        Ok(stream) => stream,
        Err(error) if is_held(&path) => {
            let why = format!("a process has {} open, but cannot be reached: {error}", path.display());
            return Err(ControlError::Failed(why));
        }
        Err(_) => return Err(ControlError::NotRunning(path)),
    };
    let failed = |error: std::io::Error| ControlError::Failed(format!("{}: {error}", path.display()));
    let exchange = async {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).to_be_bytes();
        let name = subject.as_str().as_bytes();
        let length = u16::try_from(name.len()).map_err(|_| ErrorKind::InvalidInput)?.to_be_bytes();
        if timeout_ms.len() + length.len() + name.len() + body.len() > FRAME_BYTES_MAX {
            return Err(std::io::Error::new(ErrorKind::InvalidInput, "the request is too long"));
        }
        write_frame(&mut stream, &[&timeout_ms, &length, name, &body]).await?;
        read_frame(&mut stream).await
    };
    // The other side keeps the time too; this is for one that stands still.
    let frame = match tokio::time::timeout(timeout + Duration::from_secs(1), exchange).await {
        Ok(frame) => frame.map_err(failed)?,
        Err(_) => return Err(ControlError::Timeout),
    };
    match frame.split_first() {
        Some((&DONE, answer)) => Ok(frame.slice_ref(answer)),
        Some((&NO_RESPONDER, _)) => Err(ControlError::NoResponder),
        Some((&TIMEOUT, _)) => Err(ControlError::Timeout),
        Some((_, why)) => Err(ControlError::Failed(String::from_utf8_lossy(why).into_owned())),
        None => Err(ControlError::Failed("an empty answer".into())),
    }
}

/// Whether a process holds the lock beside the file at `path`.
fn is_held(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(beside(path, ".lock")) else { return false };
    matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
}
