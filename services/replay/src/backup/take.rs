//! Takes a backup of a realm, be it served or not.
//!
//! Owns: the order in which a realm's parts are looked at. Positions come first and what they are positions in later, so
//! that every position in the file has its entries there; causes come after what they lead to, so that nothing in the file
//! lacks its cause. `proto-docs/backup.md` goes through all pairs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use antar_broker::{
    ENTRY_BODY_BYTES_MAX, Entry, KvEntry, KvError, OpenError, ReadError, SUBJECTS_MAX, Seq, SharedBroker,
    StreamSpec,
};
use antar_proto::RealmId;
use antar_realm::snapshot::{
    ACCOUNTS, CURSORS, DELIVERED, FILE_PARTS, FILES, KEY_SETTING, PEERS, SETTINGS, STREAMS, Snapshot,
};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::check::check;
use super::frame::{FileError, Writer};
use super::record::{Body, End, EntryRecord, FORMAT, Header, KeyRecord, QueueRecord, Record, VERSION};
use super::source::{self, Source};

/// Most bytes of an entry's headers, so that a restored one has room for what it is told of its past.
const HEADERS_BYTES_MAX: usize = 3 * 1024;
/// The order in which it is decided how much of each stream is taken. A message to another realm is put into the outbox
/// first and then into its sender's box; an envelope that came in is there before what delivery makes of it.
const CUT_ORDER: [&str; 3] = ["MAIL", "LOG", "INBOX"];

/// A backup that was taken.
#[derive(Debug)]
pub struct Backup {
    /// What the file says of itself.
    pub header: Header,
    /// How much is in it.
    pub end: End,
    /// Its size.
    pub bytes: u64,
    /// The checksum of the whole.
    pub digest: String,
}

/// A realm's private key.
pub struct Seed {
    /// As it stands in the key file.
    pub text: Zeroizing<String>,
    /// Its public part.
    pub key: String,
}

/// Why there is no backup. What was written of it is removed; a file of the same name is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// There is no such realm.
    #[error("there is no realm {0} here")]
    NoRealm(RealmId),
    /// It is not whole.
    #[error("realm {0} is being restored itself: when that is complete, it can be backed up")]
    Restoring(RealmId),
    /// The private key that was to be put into the file is another realm's.
    #[error("the key file holds the key {ours}, but the realm's is {kept}")]
    OtherKey {
        /// The public part of the one in the key file.
        ours: String,
        /// The realm's.
        kept: String,
    },
    /// The broker does not say what is there.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The broker does not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Likewise.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The file cannot be written.
    #[error("{}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// What was written is not what is read back.
    #[error("read back, it is not what was written: {0}")]
    NotAsWritten(String),
}

impl From<FileError> for TakeError {
    fn from(error: FileError) -> Self {
        Self::NotAsWritten(error.to_string())
    }
}

/// Takes a backup of a realm into the file `path`, replacing one that is there once it is complete and was read back. With a
/// `seed` the file holds the realm's private key. `antar` is the version of the program.
pub async fn take(
    broker: &SharedBroker,
    snapshot: &Snapshot,
    path: &Path,
    seed: Option<Seed>,
    antar: &str,
) -> Result<Backup, TakeError> {
    let fail = |why: io::Error| TakeError::File { path: path.to_owned(), why };
    let name = path.file_name().ok_or_else(|| fail(io::ErrorKind::InvalidFilename.into()))?;
    let draft = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), uuid::Uuid::new_v4().simple()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(fail)?;
    // However this ends, nothing half-written stays.
    let draft = Draft(draft);
    let mut taking = Taking { broker, snapshot, writer: Writer::new(file), end: End::default(), fail: &fail };
    let header = taking.all(seed, antar).await?;
    let Taking { writer, end, .. } = taking;
    let bytes = writer.finish().map_err(fail)?;
    let contents = check(&draft.0)?;
    if contents.end != end || contents.header != header {
        return Err(TakeError::NotAsWritten("the counts are others".into()));
    }
    fs::rename(&draft.0, path).map_err(fail)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
    Ok(Backup { header, end, bytes, digest: contents.digest })
}

/// A file that goes away unless it was renamed.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

struct Taking<'a> {
    broker: &'a SharedBroker,
    snapshot: &'a Snapshot,
    writer: Writer,
    end: End,
    fail: &'a (dyn Fn(io::Error) -> TakeError + Sync),
}

/// What has to be known of a realm before its streams are read.
struct Cut {
    time: jiff::Timestamp,
    streams: [StreamSpec; 3],
    upto: BTreeMap<String, u64>,
    buckets: Vec<(String, Vec<KvEntry>)>,
    /// Keys and records.
    files: Vec<(String, Bytes)>,
    queues: Vec<QueueRecord>,
}

impl Taking<'_> {
    async fn all(&mut self, seed: Option<Seed>, antar: &str) -> Result<Header, TakeError> {
        let cut = self.cut().await?;
        let key = cut.public_key();
        if let Some(seed) = seed.as_ref().filter(|seed| key.as_ref().is_some_and(|key| *key != seed.key)) {
            return Err(TakeError::OtherKey { ours: seed.key.clone(), kept: key.unwrap_or_default() });
        }
        let header = Header {
            format: FORMAT.into(),
            version: VERSION,
            realm: self.snapshot.realm().to_string(),
            key,
            has_seed: seed.is_some(),
            antar: antar.into(),
            time: cut.time.to_string(),
            streams: cut.upto.clone(),
        };
        self.write(Record::Header(header.clone()))?;
        if let Some(seed) = seed {
            self.write(Record::Seed(seed.text.to_string()))?;
        }
        let mut accounts = HashSet::new();
        for (bucket, entries) in cut.buckets {
            for KvEntry { key, value, .. } in entries {
                if self.snapshot.is_mark(&bucket, &key) {
                    continue;
                }
                if bucket == ACCOUNTS {
                    accounts.insert(key.clone());
                }
                self.key(&bucket, key, &value)?;
            }
        }
        for (key, record) in cut.files {
            self.file(key, &record).await?;
        }
        for queue in cut.queues {
            self.write(Record::Queue(queue))?;
        }
        for (name, spec) in STREAMS.iter().zip(&cut.streams) {
            let upto = Seq(cut.upto.get(*name).copied().unwrap_or(0));
            self.stream(name, spec, upto, &accounts).await?;
        }
        let end = self.end.clone();
        self.write(Record::End(end))?;
        Ok(header)
    }

    /// Looks at everything whose moment matters.
    async fn cut(&self) -> Result<Cut, TakeError> {
        let (broker, snapshot) = (self.broker, self.snapshot);
        let streams = snapshot.streams(0);
        if !broker.missing(&streams, &[]).await?.is_empty() {
            return Err(TakeError::NoRealm(snapshot.realm().clone()));
        }
        if snapshot.restoring(broker).await?.is_some() {
            return Err(TakeError::Restoring(snapshot.realm().clone()));
        }
        let time = jiff::Timestamp::now();
        let queues = self.queues().await?;
        // After the queues: what is acknowledged there was kept here before.
        let delivered = self.delivered().await?;
        let cursors = self.kept_in(CURSORS).await?;
        let files: HashMap<String, Bytes> =
            snapshot.files(broker).await?.into_iter().map(|entry| (entry.key, entry.value)).collect();
        let mut upto = BTreeMap::new();
        for name in CUT_ORDER {
            let at = STREAMS.iter().position(|known| *known == name).expect("the same three names");
            upto.insert(name.to_owned(), source::last(broker, &streams[at]).await?.0);
        }
        // Last, so that whoever has mail in the streams has an account, and each outbox its peer.
        let mut buckets = vec![(DELIVERED.to_owned(), delivered), (CURSORS.to_owned(), cursors)];
        for (name, _) in snapshot.buckets() {
            if name != DELIVERED && name != CURSORS {
                let kept = self.kept_in(&name).await?;
                buckets.push((name, kept));
            }
        }
        for (_, entries) in &mut buckets {
            entries.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let between = |KvEntry { key, value, .. }: KvEntry| {
            let record = snapshot.file_between(files.get(&key).map(|value| &value[..]), &value);
            (key, record)
        };
        let mut files: Vec<_> = snapshot.files(broker).await?.into_iter().map(between).collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Cut { time, streams, upto, buckets, files, queues })
    }

    /// Writes a file, its parts first; each is read by itself.
    async fn file(&mut self, key: String, record: &Bytes) -> Result<(), TakeError> {
        let Some(parts) = self.snapshot.parts_of(record) else {
            self.end.left_out += 1;
            return Ok(());
        };
        let bucket = self.snapshot.bucket(FILE_PARTS).expect("a bucket of every realm");
        let mut is_whole = true;
        for key in parts.keys {
            match self.broker.kv_get(&bucket, &key).await? {
                Some(entry) => self.key(FILE_PARTS, key, &entry.value)?,
                None => is_whole = false,
            }
        }
        if parts.are_needed && !is_whole {
            // It was removed meanwhile.
            self.end.left_out += 1;
            return Ok(());
        }
        self.key(FILES, key, record)
    }

    fn key(&mut self, bucket: &str, key: String, value: &[u8]) -> Result<(), TakeError> {
        let expires = self.snapshot.expires(bucket, value);
        self.write(Record::Key(KeyRecord { bucket: bucket.into(), key, value: Body::of(value), expires }))
    }

    async fn kept_in(&self, bucket: &str) -> Result<Vec<KvEntry>, TakeError> {
        let bucket = self.snapshot.bucket(bucket).expect("a bucket of every realm");
        Ok(self.snapshot.kept_in(self.broker, &bucket).await?)
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, TakeError> {
        let peers = self.kept_in(PEERS).await?;
        let peers: Vec<RealmId> = peers.iter().filter_map(|peer| peer.key.parse().ok()).collect();
        let mut queues = Vec::new();
        for subject in self.snapshot.queue_subjects(&peers) {
            let Some(name) = self.snapshot.queue_over(&subject) else { continue };
            if let Some(state) = self.broker.queue_state(&name).await? {
                queues.push(QueueRecord { subject: subject.as_str().to_owned(), acked: state.acked.0 });
            }
        }
        Ok(queues)
    }

    /// How far each peer's lane was delivered. Each is asked for by itself: a watch may lag behind the queues.
    async fn delivered(&self) -> Result<Vec<KvEntry>, TakeError> {
        let bucket = self.snapshot.bucket(DELIVERED).expect("a bucket of every realm");
        let mut kept: HashMap<String, KvEntry> = HashMap::new();
        for key in self.kept_in(DELIVERED).await?.into_iter().chain(self.kept_in(PEERS).await?) {
            if let Some(entry) = self.broker.kv_get(&bucket, &key.key).await? {
                kept.insert(key.key, entry);
            }
        }
        Ok(kept.into_values().collect())
    }

    /// Writes the entries of a stream; those of one append together.
    async fn stream(
        &mut self,
        name: &str,
        spec: &StreamSpec,
        upto: Seq,
        accounts: &HashSet<String>,
    ) -> Result<(), TakeError> {
        let mut source = Source::new(self.broker, spec, upto);
        let mut together: Option<(EntryRecord, Bytes)> = None;
        while let Some(entry) = source.next().await? {
            if self.snapshot.is_fence(&entry.subject) {
                continue;
            }
            let is_gone = self.snapshot.owner(&entry.subject).is_some_and(|user| !accounts.contains(user));
            if is_gone || !can_be_kept(&entry) {
                self.end.left_out += 1;
                continue;
            }
            match &mut together {
                Some((record, body)) if record.is_of_append(&entry, body) => {
                    record.at.push((entry.subject.as_str().to_owned(), entry.seq.0));
                }
                _ => {
                    let next = (EntryRecord::of(name, &entry), entry.body.clone());
                    if let Some((record, _)) = together.replace(next) {
                        self.write(Record::Entry(record))?;
                    }
                }
            }
        }
        match together {
            Some((record, _)) => self.write(Record::Entry(record)),
            None => Ok(()),
        }
    }

    fn write(&mut self, record: Record) -> Result<(), TakeError> {
        self.end.count(&record);
        self.writer.write(&record).map_err(self.fail)
    }
}

impl Cut {
    /// The key that the realm signs with, as its settings say.
    fn public_key(&self) -> Option<String> {
        let (_, settings) = self.buckets.iter().find(|(bucket, _)| bucket == SETTINGS)?;
        let setting = settings.iter().find(|entry| entry.key == KEY_SETTING)?;
        let value: serde_json::Value = serde_json::from_slice(&setting.value).ok()?;
        Some(value.get("public")?.as_str()?.to_owned())
    }
}

impl EntryRecord {
    /// Whether an entry that follows was made by the same append.
    fn is_of_append(&self, entry: &Entry, body: &Bytes) -> bool {
        self.at.len() < SUBJECTS_MAX
            && self.id == entry.id.as_str()
            && self.headers == entry.headers
            && *body == entry.body
            && self.at.iter().all(|(subject, _)| subject != entry.subject.as_str())
    }
}

/// Whether a log takes such an entry. Those that Antar makes are; another program may publish what it likes to an inbox.
fn can_be_kept(entry: &Entry) -> bool {
    let name_is_plain = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !name.starts_with("Nats-")
            && !name.starts_with("KV-")
    };
    let bytes: usize = entry.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    entry.body.len() <= ENTRY_BODY_BYTES_MAX
        && bytes <= HEADERS_BYTES_MAX
        && entry.headers.iter().all(|(name, _)| name_is_plain(name))
}
