//! Reading the file from outside: by a process that does not serve it, while another does or nobody does.
//!
//! Takes no lock that anybody has to wait for, makes no file, writes nothing. Every look is a short transaction on a
//! thread for blocking work; one reader has one at a time. Whoever follows is woken by a task that looks whether the file
//! has changed.
//!
//! * `session` — opening the file for one look.
//! * `picture` — what is remembered between looks, and how a question is answered from the tables.
//! * `follow` — tails and watches.

mod follow;
mod picture;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::follow::Mark;
use self::picture::Picture;
use super::options::{Options, Synchronous};
use super::read::{Look, Question};
use crate::reading::Reading;
use crate::{
    Bucket, Filter, Flaw, KvEntry, KvError, KvWatch, OpenError, Page, QueueName, QueueState, ReadError,
    ReadFrom, ReadLimit, Seq, StreamSpec, Subject, Tail, Usage,
};

/// How long a look may take, waiting for those before it included.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module. Tails and watches end with it.
pub(crate) struct OutsideReader(Arc<Outside>);

struct Outside {
    path: PathBuf,
    /// As whoever serves the file is told.
    synchronous: Synchronous,
    picture: Arc<tokio::sync::Mutex<Picture>>,
    /// The newest that the task of followers has seen.
    mark: watch::Sender<Mark>,
    is_watching: AtomicBool,
    closed: CancellationToken,
}

impl Drop for OutsideReader {
    fn drop(&mut self) {
        self.0.closed.cancel();
    }
}

impl OutsideReader {
    /// Looks whether the file is there and is Antar's.
    pub(crate) async fn open(options: Options) -> Result<Self, OpenError> {
        let Options { path, synchronous, .. } = options;
        let (closed, mark) = (CancellationToken::new(), watch::Sender::new(Mark::default()));
        let outside = Outside {
            path,
            synchronous,
            picture: Arc::default(),
            mark,
            is_watching: AtomicBool::new(false),
            closed,
        };
        let outside = Self(Arc::new(outside));
        outside.0.look(|_, _| Ok(())).await?;
        Ok(outside)
    }
}

impl Outside {
    /// Looks at the file on another thread.
    async fn look<T: Send + 'static>(
        &self,
        mut look: impl FnMut(&mut Picture, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, OpenError> {
        let looked = async {
            let mut picture = self.picture.clone().lock_owned().await;
            let path = self.path.clone();
            let looked = tokio::task::spawn_blocking(move || {
                session::look(&path, |conn, stamp| {
                    picture.refresh(conn, stamp)?;
                    look(&mut picture, conn)
                })
            });
            looked.await.map_err(|error| OpenError::Unreachable(error.to_string()))?
        };
        // Cancel-safe: the thread ends by itself, and what it knows by then is right.
        tokio::select! {
            looked = tokio::time::timeout(LOOK_TIMEOUT, looked) => looked
                .unwrap_or_else(|_| Err(OpenError::Unreachable("reading the file took too long".into()))),
            () = self.closed.cancelled() => Err(OpenError::Unreachable("the broker was closed".into())),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnMut(&mut Picture, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        if self.closed.is_cancelled() {
            return Err(ReadError::Closed);
        }
        self.look(look).await.map_err(|error| {
            if self.closed.is_cancelled() {
                ReadError::Closed
            } else {
                ReadError::Unavailable(error.to_string())
            }
        })
    }

    /// One job of a read: a scan may be interrupted.
    async fn answer(&self, filter: &Filter, progress: Progress) -> Result<Look, ReadError> {
        let asked = filter.clone();
        let found = self.read(move |picture, conn| {
            let Some(stream) = picture.stream_of(&asked) else { return Ok(None) };
            let question = Question {
                taken: progress.taken,
                taken_bytes: progress.bytes,
                ..Question::new(&asked, stream, progress.from, progress.limit)
            };
            picture.answer(conn, &question).map(Some)
        });
        found.await?.ok_or_else(|| ReadError::NoStream(filter.clone()))
    }
}

/// How far a read has got.
#[derive(Clone, Copy)]
struct Progress {
    from: ReadFrom,
    limit: ReadLimit,
    taken: usize,
    bytes: usize,
}

#[async_trait]
impl Reading for OutsideReader {
    async fn missing(&self, streams: &[StreamSpec], _buckets: &[Bucket]) -> Result<Vec<String>, OpenError> {
        let there = self.0.look(|picture, _| Ok(picture.stream_names())).await?;
        Ok(streams.iter().map(|spec| spec.name.clone()).filter(|name| !there.contains(name)).collect())
    }

    async fn stream_names(&self) -> Result<Vec<String>, ReadError> {
        self.0.read(|picture, _| Ok(picture.stream_names())).await
    }

    async fn examine(&self, streams: &[StreamSpec], _buckets: &[Bucket]) -> Result<Vec<Flaw>, ReadError> {
        let (path, streams) = (self.0.path.clone(), streams.to_vec());
        let synchronous = self.0.synchronous;
        let looked = self.0.read(move |_, conn| {
            let mut found = super::examine::of_files(&path, synchronous);
            found.extend(super::examine::of_content(conn, &path, &streams)?);
            Ok(found)
        });
        looked.await
    }

    async fn read(&self, filter: &Filter, from: ReadFrom, limit: ReadLimit) -> Result<Page, ReadError> {
        let mut progress = Progress { from, limit, taken: 0, bytes: 0 };
        let mut entries = Vec::new();
        loop {
            let mut look = self.0.answer(filter, progress).await?;
            progress.bytes += look.page.entries.iter().map(|entry| entry.body.len()).sum::<usize>();
            entries.append(&mut look.page.entries);
            if !look.interrupted {
                return Ok(Page { entries, more: look.page.more });
            }
            progress.taken = entries.len();
            progress.from = match progress.from {
                ReadFrom::After(_) | ReadFrom::Since(_) => ReadFrom::After(Seq(look.examined)),
                ReadFrom::Before(_) | ReadFrom::End => ReadFrom::Before(Seq(look.examined)),
            };
        }
    }

    async fn last(&self, subject: &Subject) -> Result<Seq, ReadError> {
        let asked = subject.clone();
        let last = self.0.read(move |picture, conn| picture.last(conn, &asked)).await?;
        last.ok_or_else(|| ReadError::NoStream(Filter::from(subject)))
    }

    async fn count(&self, subject: &Subject) -> Result<u64, ReadError> {
        let asked = subject.clone();
        let count = self.0.read(move |picture, conn| picture.count_after(conn, asked.as_str(), 0)).await?;
        count.ok_or_else(|| ReadError::NoStream(Filter::from(subject)))
    }

    async fn tail(&self, filter: &Filter, after: Seq) -> Result<Tail, ReadError> {
        let asked = filter.clone();
        let known = self.0.read(move |picture, _| Ok(picture.stream_of(&asked).is_some())).await?;
        if !known {
            return Err(ReadError::NoStream(filter.clone()));
        }
        follow::watch_file(&self.0);
        Ok(Tail::new(follow::OutsideTail::new(self.0.clone(), filter.clone(), after)))
    }

    async fn queue_state(&self, name: &QueueName) -> Result<Option<QueueState>, ReadError> {
        let asked = name.clone();
        let found = self.0.read(move |picture, conn| {
            let Some((subject, acked)) = super::queue::stored(conn, &asked)? else { return Ok(None) };
            let waiting = picture.count_after(conn, &subject, acked.0)?.unwrap_or(0);
            Ok(Some((subject, acked, waiting)))
        });
        let Some((subject, acked, waiting)) = found.await? else { return Ok(None) };
        let filter = Filter::new(&subject).map_err(|error| ReadError::Unavailable(error.to_string()))?;
        let page = self.read(&filter, ReadFrom::After(acked), ReadLimit::entries(1)).await?;
        Ok(Some(QueueState { acked, waiting, oldest: page.entries.first().map(|entry| entry.time) }))
    }

    async fn kv_get(&self, bucket: &Bucket, key: &str) -> Result<Option<KvEntry>, KvError> {
        crate::kv::check(key, &[])?;
        let (bucket, key) = (bucket.clone(), key.to_owned());
        let found = self.0.look(move |_, conn| super::kv::find(conn, &bucket, &key)).await;
        found.map_err(|error| KvError::Unavailable(error.to_string()))
    }

    async fn kv_watch(&self, bucket: &Bucket) -> Result<KvWatch, KvError> {
        follow::watch_file(&self.0);
        let mut watch = follow::OutsideWatch::new(self.0.clone(), bucket.clone());
        watch.refresh().await?;
        Ok(KvWatch::new(watch))
    }

    async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ReadError> {
        let (path, wanted) = (self.0.path.clone(), streams.to_vec());
        let looked = self.0.read(move |picture, conn| {
            let counted = picture.usage(conn, &wanted)?;
            Ok(super::usage::of_file(&path, counted))
        });
        looked.await
    }

    async fn close(&self) {
        self.0.closed.cancel();
    }
}

impl Outside {
    /// Whether it was not so before: the caller then starts what there is to be one of.
    fn begins_to_watch(&self) -> bool {
        !self.is_watching.swap(true, Ordering::AcqRel)
    }
}
