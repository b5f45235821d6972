//! The file: its lock, its tables, its connections, and what its errors mean.
//!
//! Architecture invariant: nothing here changes a file that is not known to be Antar's and of this version.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::options::{Options, Synchronous};
use crate::OpenError;

/// Held for reading by who reads a file as one that does not change, and for writing while one is opened to be served.
pub(super) static STILL: RwLock<()> = RwLock::new(());

/// "Antr": tells our files from those of other programs.
const APPLICATION_ID: i64 = 0x416e_7472;
/// The version of [`SCHEMA`].
const SCHEMA_VERSION: i64 = 1;
/// A file up to this size is checked as a whole when it is opened; that takes some milliseconds.
const CHECKED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How long to wait for a lock that another holds: one that is just being closed, or looked at, is free soon.
const LOCK_WAIT: Duration = Duration::from_millis(400);
/// The write-ahead log is cut to this size when it starts over.
const WAL_KEPT_BYTES: i64 = 64 * 1024 * 1024;

/// `entry` is the log: one row for each append, whatever the number of its subjects. Its row id is the sequence on
/// its first subject, the following sequences are those on the others. A row without a body was trimmed and stays for
/// its id, until ids that old may be forgotten.
///
/// `run` leads from a subject to its sequences, many in one row; `cum` counts all that the subject ever had up to
/// `last`. It is written in bulk, later than `entry`: `indexed_upto` in `meta` tells how far.
///
/// `subject.trimmed` is a watermark: what is at or below it is gone, `gone` counts it.
const SCHEMA: &str = "
    CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE stream(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, filters TEXT NOT NULL,
                        entries_per_subject_max INTEGER);
    CREATE TABLE subject(id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, name TEXT NOT NULL,
                         trimmed INTEGER NOT NULL DEFAULT 0, gone INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE entry(seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, stream INTEGER NOT NULL, id NOT NULL,
                       subjects NOT NULL, headers BLOB, body BLOB);
    CREATE UNIQUE INDEX entry_id ON entry(stream, id);
    CREATE INDEX entry_trimmed ON entry(time) WHERE body IS NULL;
    CREATE TABLE run(subject INTEGER NOT NULL, last INTEGER NOT NULL, first INTEGER NOT NULL, cum INTEGER NOT NULL,
                     seqs BLOB, PRIMARY KEY(subject, last)) WITHOUT ROWID;
    CREATE TABLE queue(name TEXT PRIMARY KEY, subject TEXT NOT NULL, acked INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE kv(bucket TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, expires INTEGER,
                    value BLOB NOT NULL, PRIMARY KEY(bucket, key)) WITHOUT ROWID;
    CREATE INDEX kv_expires ON kv(expires) WHERE expires IS NOT NULL;
    INSERT INTO meta VALUES ('indexed_upto', 0), ('next_seq', 1), ('kv_revision', 0);
";

/// What an error of SQLite means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No room on the disk.
    Full,
    /// The disk failed; whether something was written is not known.
    Io,
    /// The file is damaged.
    Damaged,
    /// Something else.
    Other,
}

pub(super) fn fault(error: &rusqlite::Error) -> Fault {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Fault::Full,
        Some(ErrorCode::SystemIoFailure) => Fault::Io,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Fault::Damaged,
        _ => Fault::Other,
    }
}

/// `PATH` with `suffix` behind it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the directory of `path` if it is missing, and takes the lock beside it. Held until the file is dropped.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let unreachable = |error: std::io::Error| OpenError::Unreachable(format!("{}: {error}", path.display()));
    make_directories(path).map_err(unreachable)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(beside(path, ".lock"))
        .map_err(unreachable)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Unreachable(format!(
                    "{} is in use by another process: stop that one first, or give this one another file",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unreachable(error)),
        }
    }
}

/// Makes the directories above `path` that are missing, for their owner only and durably: a power cut must not take
/// the whole directory of a file whose commits were promised.
fn make_directories(path: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|directory| !directory.as_os_str().is_empty() && !directory.exists())
        .collect();
    for directory in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let above =
            directory.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above)?.sync_all()?;
    }
    Ok(())
}

/// Opens the file for writing, after checking it; makes it if it is missing or empty. The lock must be held.
pub(super) fn open_writer(options: &Options) -> Result<Connection, OpenError> {
    let path = &options.path;
    check_header(path)?;
    let explain = |error: rusqlite::Error| explain(path, &error);
    let conn = connect(options, false).map_err(explain)?;
    let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let tables: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(explain)?;
    let (application, version) =
        (number("application_id").map_err(explain)?, number("user_version").map_err(explain)?);
    if tables == 0 && application == 0 && version == 0 {
        create(&conn).map_err(explain)?;
        return Ok(conn);
    }
    check_kind(path, application, version)?;
    check_content(path, &conn)?;
    // Only now, because it writes to a file that was in another mode before.
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(explain)?;
    Ok(conn)
}

/// Whether the file is Antar's and of this version.
pub(super) fn check_kind(path: &Path, application: i64, version: i64) -> Result<(), OpenError> {
    if application != APPLICATION_ID {
        return Err(OpenError::Invalid(format!(
            "{} is a database of another program: give Antar a file of its own",
            path.display()
        )));
    }
    if version > SCHEMA_VERSION {
        return Err(OpenError::Newer(format!(
            "{} was written by a newer version of Antar (format {version}, this one knows {SCHEMA_VERSION}): \
             start that version, or give this one another file",
            path.display()
        )));
    }
    Ok(())
}

/// Opens the file for reading.
pub(super) fn open_reader(options: &Options) -> Result<Connection, OpenError> {
    connect(options, true).map_err(|error| explain(&options.path, &error))
}

/// Opens another connection that may write, for checkpoints or in place of one that failed.
pub(super) fn reopen(options: &Options) -> rusqlite::Result<Connection> {
    connect(options, false)
}

fn connect(options: &Options, reader: bool) -> rusqlite::Result<Connection> {
    // No connection is shared by threads, so SQLite needs no mutex of its own.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&options.path, flags)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.set_prepared_statement_cache_capacity(64);
    let synchronous = match options.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "cache_size", if reader { -4 * 1024 } else { -32 * 1024 })?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "journal_size_limit", WAL_KEPT_BYTES, |_| Ok(()))?;
    if reader {
        conn.pragma_update(None, "query_only", true)?;
    }
    if let Some(pages) = options.pages_max {
        conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    Ok(conn)
}

fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    conn.execute_batch(SCHEMA)?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    conn.execute_batch("COMMIT")
}

/// Looks at the first bytes before SQLite does, and makes a missing file with narrow permissions.
fn check_header(path: &Path) -> Result<(), OpenError> {
    let unreachable = |error: std::io::Error| OpenError::Unreachable(format!("{}: {error}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(unreachable)?;
    let mut header = Vec::new();
    Read::by_ref(&mut file).take(16).read_to_end(&mut header).map_err(unreachable)?;
    if header.is_empty() || header == b"SQLite format 3\0" {
        return Ok(());
    }
    Err(damaged(path, "it does not begin as a SQLite database does"))
}

/// Enough to notice a cut or overwritten file. Only a small one is read as a whole.
fn check_content(path: &Path, conn: &Connection) -> Result<(), OpenError> {
    let explain = |error: rusqlite::Error| explain(path, &error);
    for table in ["meta", "stream", "subject", "entry", "run", "queue", "kv"] {
        let there: bool = conn
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0))
            .map_err(explain)?;
        if !there {
            return Err(damaged(path, &format!("it has no table {table}")));
        }
        // Walks down the first and the last pages of each.
        for order in ["ASC", "DESC"] {
            let sql = format!("SELECT * FROM {table} ORDER BY 1 {order} LIMIT 1");
            conn.prepare(&sql).and_then(|mut all| all.query([])?.next().map(|_| ())).map_err(explain)?;
        }
    }
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    if bytes <= CHECKED_BYTES_MAX {
        let verdict: String =
            conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(explain)?;
        if verdict != "ok" {
            return Err(damaged(path, &verdict));
        }
    }
    Ok(())
}

fn damaged(path: &Path, how: &str) -> OpenError {
    OpenError::Damaged(format!(
        "{} is damaged ({how}); nothing was changed: restore it from a backup, or move it away to start empty",
        path.display()
    ))
}

pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> OpenError {
    match fault(error) {
        Fault::Damaged => damaged(path, &error.to_string()),
        _ => OpenError::Unreachable(format!("{}: {error}", path.display())),
    }
}
