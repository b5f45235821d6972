//! One look at the file by somebody who does not serve it: how it is opened so that nothing is written.
//!
//! While there is a write-ahead log, SQLite reads through it, as a reader beside the one who serves the file (or served it,
//! and was killed). Otherwise everything is in the file itself, which is read as one that does not change: SQLite then makes
//! none of the files beside it. Whether it has changed all the same, because somebody began to serve it meanwhile, is looked
//! at afterwards, and what was read then counts for nothing.
//!
//! Such a reading takes no locks, and whoever closes a file in which the same process holds locks loses them (POSIX). So no
//! broker of this process opens a file while one is going on ([`STILL`]), and behind that there is a log.
//!
//! A session lasts for a fraction of a second: while one is open, a checkpoint cannot copy all of the log, and the last one
//! who serves the file cannot tidy up.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::OpenError;
use crate::sqlite::schema::{STILL, beside, check_kind, explain};

/// How often a session is tried, and the pause in between: whoever starts or ends is in the way for some milliseconds.
const TRIES: u32 = 5;
const TRY_DELAY: Duration = Duration::from_millis(20);
/// How long SQLite waits for a lock: a log that was left by a killed process is looked through under one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory for pages; a log is read from one end to the other, once.
const CACHE_KIB: i64 = 4 * 1024;

/// What a change of the file or of its write-ahead log changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Which file it is.
    pub(super) file: (u64, u64),
    /// Its size and when it and its entry were changed, in nanoseconds.
    content: (u64, i128, i128),
    /// The size of the write-ahead log, if there is one, and when it was changed.
    log: Option<(u64, i128)>,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let file = std::fs::metadata(path)?;
        let log = match std::fs::metadata(beside(path, "-wal")) {
            Ok(log) => Some((log.len(), nanos(log.mtime(), log.mtime_nsec()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let changed = (nanos(file.mtime(), file.mtime_nsec()), nanos(file.ctime(), file.ctime_nsec()));
        Ok(Self { file: (file.dev(), file.ino()), content: (file.len(), changed.0, changed.1), log })
    }

    /// When the file or its log was last written, in nanoseconds since 1970.
    pub(super) fn written(&self) -> i128 {
        self.content.1.max(self.log.map_or(0, |(_, changed)| changed))
    }
}

/// Runs `look` in a transaction of its own; it is run again when the file changed under it.
pub(super) fn look<T>(
    path: &Path,
    mut look: impl FnMut(&Connection, &Stamp) -> rusqlite::Result<T>,
) -> Result<T, OpenError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let guard = STILL.read().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(path).map_err(|error| unreachable(path, &error))?;
        let guard = stamp.log.is_none().then_some(guard);
        let looked = look_once(path, &stamp, &mut look);
        drop(guard);
        let is_sound = stamp.log.is_some() || Stamp::of(path).is_ok_and(|now| now == stamp);
        match looked {
            Ok(found) if is_sound => return Ok(found),
            Err(error @ (OpenError::Invalid(_) | OpenError::Newer(_))) if is_sound => return Err(error),
            Err(error) if tries >= TRIES => return Err(error),
            Ok(_) if tries >= TRIES => {
                let why = format!("{} is being changed by somebody who just began or ended", path.display());
                return Err(OpenError::Unreachable(why));
            }
            _ => std::thread::sleep(TRY_DELAY),
        }
    }
}

fn look_once<T>(
    path: &Path,
    stamp: &Stamp,
    look: &mut impl FnMut(&Connection, &Stamp) -> rusqlite::Result<T>,
) -> Result<T, OpenError> {
    let explain = |error: rusqlite::Error| explain(path, &error);
    if stamp.content.0 == 0 {
        return Err(OpenError::Unreachable(format!(
            "{} is empty: no realm was started on it",
            path.display()
        )));
    }
    let conn = connect(path, stamp.log.is_none()).map_err(explain)?;
    let tx = conn.unchecked_transaction().map_err(explain)?;
    let number = |pragma: &str| tx.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) =
        (number("application_id").map_err(explain)?, number("user_version").map_err(explain)?);
    check_kind(path, application, version)?;
    look(&tx, stamp).map_err(explain)
}

fn connect(path: &Path, is_still: bool) -> rusqlite::Result<Connection> {
    let mut uri = OsString::from(if path.is_absolute() { "file://" } else { "file:" }).into_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => uri.extend(format!("%{byte:02x}").bytes()),
            _ => uri.push(*byte),
        }
    }
    uri.extend_from_slice(if is_still { b"?immutable=1" } else { b"?mode=ro" });
    // No connection is shared by threads, so SQLite needs no mutex of its own.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(OsString::from_vec(uri), flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(conn)
}

fn unreachable(path: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Unreachable(match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{} is not there: is the path right, and was a realm started on it?", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    })
}
