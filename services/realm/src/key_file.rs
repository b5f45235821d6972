//! Where a realm's key is kept: the seed in a file that only its owner may read, the public part in the realm's
//! settings, so that all edges of the realm are found to have the same.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use antar_broker::{Expect, KvError, Revision, SharedBroker};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{PublicKey, RealmKey};
use crate::places::Places;

/// The setting with the realm's public key.
const KEY: &str = "key";
/// Longest key file, in bytes: a seed with space around it.
const FILE_BYTES_MAX: usize = 256;

/// Why a realm has no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written, or is no key file.
    #[error("{}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else than its owner may read it.
    #[error(
        "{path} has mode {mode:03o}: it holds the realm's private key, which nobody else may read; chmod 600 {path}",
        path = .path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The realm has a key and this edge does not.
    #[error(
        "this realm's key is {kept}, and {} is not there: copy it from an edge of the realm that has it",
        .path.display()
    )]
    NotHere {
        /// Where it would be.
        path: PathBuf,
        /// The realm's public key.
        kept: PublicKey,
    },
    /// The realm has another key than this edge.
    #[error(
        "{} holds the key {ours}, but this realm's is {kept}: copy the file from an edge of the realm that has it",
        .path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Its public key.
        ours: PublicKey,
        /// The realm's.
        kept: PublicKey,
    },
    /// There is none, and this process may not make it.
    #[error("{} is not there: `antar realm init` makes the realm's key", .0.display())]
    None(PathBuf),
    /// The broker does not answer.
    #[error("{0}")]
    Kv(#[from] KvError),
}

/// What the realm's settings say of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub(crate) public: PublicKey,
}

/// The realm's key, made if the realm has none yet and `may_make`; whether it was made.
///
/// Without a path it is one that lives as long as this process, and the realm no longer than that.
pub(crate) async fn settle(
    broker: &SharedBroker,
    places: &Places,
    path: Option<&Path>,
    may_make: bool,
) -> Result<(RealmKey, bool), KeyError> {
    let memory = PathBuf::from("(memory)");
    let shown = path.map_or(&*memory, |path| path).to_owned();
    let kept = kept(broker, places).await?;
    let found = path.map(read).transpose()?.flatten();
    let (ours, made) = match (&kept, found) {
        (_, Some(ours)) => (ours, false),
        (Some(kept), None) => return Err(KeyError::NotHere { path: shown, kept: kept.public.clone() }),
        (None, None) if !may_make => return Err(KeyError::None(shown)),
        (None, None) => match path {
            Some(path) => make(path)?,
            None => (RealmKey::fresh().0, true),
        },
    };
    let record = KeyRecord { public: ours.public().clone() };
    let kept = match kept {
        Some(kept) => kept,
        None => {
            let value = Bytes::from(serde_json::to_vec(&record).expect("a key is text"));
            match broker.kv_put(&places.bucket("settings"), KEY, value, Expect::Absent, None).await {
                Ok(_) => record.clone(),
                // Another edge was first.
                Err(KvError::Conflict) => self::kept(broker, places).await?.unwrap_or(record.clone()),
                Err(error) => return Err(error.into()),
            }
        }
    };
    if kept == record {
        return Ok((ours, made));
    }
    let kept = kept.public;
    match path {
        // Nobody has seen the one that was just made.
        Some(path) if made && std::fs::remove_file(path).is_ok() => {
            Err(KeyError::NotHere { path: shown, kept })
        }
        _ => Err(KeyError::Other { path: shown, ours: record.public, kept }),
    }
}

/// The realm's public key, as its settings have it.
pub(crate) async fn public_key_of(broker: &SharedBroker, places: &Places) -> Result<Option<String>, KvError> {
    let Some(entry) = broker.kv_get(&places.bucket("settings"), KEY).await? else { return Ok(None) };
    let record: Result<KeyRecord, _> = serde_json::from_slice(&entry.value);
    record
        .map(|record| Some(record.public.to_string()))
        .map_err(|error| KvError::Refused(format!("the realm's key is not readable: {error}")))
}

async fn kept(broker: &SharedBroker, places: &Places) -> Result<Option<KeyRecord>, KeyError> {
    Ok(kept_at(broker, places).await?.map(|(record, _)| record))
}

async fn kept_at(broker: &SharedBroker, places: &Places) -> Result<Option<(KeyRecord, Revision)>, KeyError> {
    let Some(entry) = broker.kv_get(&places.bucket("settings"), KEY).await? else { return Ok(None) };
    let record = serde_json::from_slice(&entry.value);
    record
        .map(|record| Some((record, entry.revision)))
        .map_err(|error| KvError::Refused(format!("the realm's key is not readable: {error}")).into())
}

/// A realm's key before and after it was replaced.
#[derive(Debug)]
pub struct Rotated {
    /// The public key before.
    pub before: String,
    /// The public key now.
    pub now: String,
    /// Where the old private part is kept.
    pub old_file: PathBuf,
}

/// Replaces the realm's key, whose file is at `path`. The new one is on disk before the realm has it, so a rotation that
/// was broken off is completed by the next one.
pub(crate) async fn rotate(broker: &SharedBroker, places: &Places, path: &Path) -> Result<Rotated, KeyError> {
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let (draft, old_file) = (beside(".new"), beside(".old"));
    let Some((kept, revision)) = kept_at(broker, places).await? else {
        return Err(KeyError::None(path.to_owned()));
    };
    let Some(ours) = read(path)? else {
        return Err(KeyError::NotHere { path: path.to_owned(), kept: kept.public });
    };
    let new = match read(&draft)? {
        Some(new) => new,
        None if kept.public != *ours.public() => {
            let ours = ours.public().clone();
            return Err(KeyError::Other { path: path.to_owned(), ours, kept: kept.public });
        }
        None => make(&draft)?.0,
    };
    if kept.public != *new.public() {
        let record = KeyRecord { public: new.public().clone() };
        let value = Bytes::from(serde_json::to_vec(&record).expect("a key is text"));
        broker.kv_put(&places.bucket("settings"), KEY, value, Expect::Revision(revision), None).await?;
    }
    std::fs::rename(path, &old_file).map_err(|error| failed(path, error))?;
    std::fs::rename(&draft, path).map_err(|error| failed(&draft, error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, error))?;
    Ok(Rotated { before: ours.public().to_string(), now: new.public().to_string(), old_file })
}

fn failed(path: &Path, why: impl ToString) -> KeyError {
    KeyError::File { path: path.to_owned(), why: why.to_string() }
}

/// Reads a key file; `None` if there is none.
fn read(path: &Path) -> Result<Option<RealmKey>, KeyError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, error)),
    };
    let about = file.metadata().map_err(|error| failed(path, error))?;
    let mode = about.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    if !about.is_file() || about.len() > FILE_BYTES_MAX as u64 {
        return Err(failed(path, "it is no key file"));
    }
    // With room from the beginning, so that growing leaves no copy of it behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * FILE_BYTES_MAX));
    file.read_to_string(&mut text).map_err(|error| failed(path, error))?;
    RealmKey::from_seed(text.trim()).map(Some).map_err(|error| failed(path, error))
}

/// Makes a key and its file. If somebody else makes one there at the same time, one of the two is there, whole, and
/// both have that one.
fn make(path: &Path) -> Result<(RealmKey, bool), KeyError> {
    let fail = |error: std::io::Error| failed(path, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    }
    let (key, seed) = RealmKey::fresh();
    let mut name = path.file_name().ok_or_else(|| failed(path, "it is no file name"))?.to_owned();
    name.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    let draft = folder.join(name);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
            file.write_all(seed.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
    // A link, unlike a renaming, replaces nothing that is there.
    let linked = written.and_then(|()| std::fs::hard_link(&draft, path));
    let _ = std::fs::remove_file(&draft);
    match linked {
        Ok(()) => {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)?;
            Ok((key, true))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            read(path)?.map(|key| (key, false)).ok_or_else(|| failed(path, "it comes and goes"))
        }
        Err(error) => Err(fail(error)),
    }
}
