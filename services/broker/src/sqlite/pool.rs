//! Threads that read the file, each with its own connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::options::Options;
use super::schema;
use crate::OpenError;

/// Threads. Reads of fresh entries need none of them.
pub(super) const READERS: usize = 2;
/// Reads that may wait for a thread.
const JOBS_MAX: usize = 256;
/// How long a read may take, waiting included.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// The threads end when this is dropped.
pub(super) struct Pool {
    jobs: mpsc::Sender<Job>,
}

impl Pool {
    pub(super) fn start(options: &Options) -> Result<(Self, Vec<JoinHandle<()>>), OpenError> {
        let (jobs, queue) = mpsc::channel::<Job>(JOBS_MAX);
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for _ in 0..READERS {
            let conn = schema::open_reader(options)?;
            let queue = queue.clone();
            let work = move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    match job {
                        Some(job) => job(&conn),
                        None => return,
                    }
                }
            };
            let thread = std::thread::Builder::new()
                .name("broker-read".into())
                .spawn(work)
                .map_err(|error| OpenError::Unreachable(format!("no thread for reading: {error}")))?;
            threads.push(thread);
        }
        Ok((Self { jobs }, threads))
    }

    /// Runs `job` on one of the threads. An error is for people: the queue was full for too long, or the file failed.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |conn| {
            if !done.is_closed() {
                let _ = done.send(job(conn));
            }
        });
        let run = async {
            self.jobs.send(job).await.map_err(|_| "it was closed".to_owned())?;
            result.await.map_err(|_| "it was closed".to_owned())?.map_err(|error| error.to_string())
        };
        tokio::time::timeout(READ_TIMEOUT, run).await.unwrap_or_else(|_| Err("a read took too long".into()))
    }
}
