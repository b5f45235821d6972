//! Looks for what is wrong with the file, what lies beside it, and where they are.
//!
//! Reads only, for some tenths of a second at most: whoever serves the file is not held up.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::options::Synchronous;
use super::schema::beside;
use crate::examine::flaws;
use crate::{Filter, Flaw, Severity, StreamSpec};

/// A file up to this size is read as a whole.
const CHECKED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most of what SQLite says is wrong with a file.
const COMPLAINTS_MAX: u32 = 5;
/// Free space below which it is short, and all but gone.
const SPACE_SHORT_BYTES: u64 = 1024 * 1024 * 1024;
const SPACE_GONE_BYTES: u64 = 64 * 1024 * 1024;
/// What lies beside the file: its write-ahead log, the log's index, the lock, and the socket of operators.
const BESIDE: [&str; 5] = ["", "-wal", "-shm", ".lock", ".sock"];
/// Where a file says how it is written and read (its format, section 1.3.3), and what stands there in WAL mode.
const VERSIONS_AT: usize = 18;
const VERSIONS_WAL: [u8; 2] = [2, 2];
/// File systems over a network, by the numbers that Linux has for them.
const NETWORKS: [(&str, u64); 7] = [
    ("NFS", 0x6969),
    ("SMB", 0xff53_4d42),
    ("SMB", 0xfe53_4d42),
    ("9P", 0x0102_1997),
    ("Ceph", 0x00c3_6400),
    ("AFS", 0x5346_414f),
    ("GFS2", 0x0116_1970),
];

/// What can be seen without opening the file: in a process that serves it, closing it would end SQLite's locks (POSIX).
/// Asks the file system, so not for a thread that must not wait.
pub(super) fn of_files(path: &Path, synchronous: Synchronous) -> Vec<Flaw> {
    let shown = path.display().to_string();
    let mut found = Vec::new();
    if synchronous == Synchronous::Normal {
        let what = format!("{shown} is opened with synchronous=normal");
        found.push(Flaw::new(&flaws::SQLITE_SYNCHRONOUS, &shown, what));
    }
    for part in BESIDE.map(|ending| beside(path, ending)) {
        // Some of them are there only while the file is served.
        let Ok(about) = std::fs::metadata(&part) else { continue };
        let mode = about.mode() & 0o777;
        if mode & 0o077 != 0 {
            let part = part.display().to_string();
            let what = format!("{part} has mode {mode:03o}, others than its owner may use it");
            found.push(Flaw::new(&flaws::SQLITE_MODE, &part, what));
        }
    }
    found.extend(of_disk(path, &shown));
    found
}

/// Whether the file is written through a write-ahead log. One that does not change is read as if it had none, and its
/// first page tells; nobody in this process serves it then.
fn is_in_wal_mode(conn: &Connection, path: &Path) -> rusqlite::Result<bool> {
    if beside(path, "-wal").exists() {
        let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        return Ok(mode == "wal");
    }
    Ok(versions(path).is_none_or(|versions| versions == VERSIONS_WAL))
}

fn versions(path: &Path) -> Option<[u8; 2]> {
    let mut header = [0; VERSIONS_AT + 2];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    Some([header[VERSIONS_AT], header[VERSIONS_AT + 1]])
}

fn of_disk(path: &Path, shown: &str) -> Vec<Flaw> {
    let mut found = Vec::new();
    if let Ok(disk) = rustix::fs::statvfs(path)
        && let Some(severity) = shortage(disk.f_bavail.saturating_mul(disk.f_frsize))
    {
        let mib = disk.f_bavail.saturating_mul(disk.f_frsize) / (1024 * 1024);
        let what = format!("{mib} MiB are free on the disk of {shown}");
        found.push(Flaw::new(&flaws::SQLITE_SPACE, shown, what).with(severity));
    }
    // The type has another width, and sign, on each machine.
    let kind = rustix::fs::statfs(path).ok().map(|system| u64::from(system.f_type as u32));
    if let Some((name, _)) = NETWORKS.iter().find(|(_, number)| Some(*number) == kind) {
        let what = format!("{shown} lies on {name}, a file system over a network");
        found.push(Flaw::new(&flaws::SQLITE_NETWORK, shown, what));
    }
    found
}

fn shortage(free_bytes: u64) -> Option<Severity> {
    match free_bytes {
        0..SPACE_GONE_BYTES => Some(Severity::Error),
        SPACE_GONE_BYTES..SPACE_SHORT_BYTES => Some(Severity::Warning),
        _ => None,
    }
}

/// What the tables say, in a transaction of the caller's.
pub(super) fn of_content(
    conn: &Connection,
    path: &Path,
    streams: &[StreamSpec],
) -> rusqlite::Result<Vec<Flaw>> {
    let mut found = Vec::new();
    for spec in streams {
        found.extend(of_stream(conn, spec)?);
    }
    let shown = path.display().to_string();
    if !is_in_wal_mode(conn, path)? {
        let what = format!("{shown} is not in WAL mode");
        found.push(Flaw::new(&flaws::SQLITE_JOURNAL, &shown, what));
    }
    let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let page_bytes: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let bytes = u64::try_from(pages.saturating_mul(page_bytes)).unwrap_or(u64::MAX);
    if bytes > CHECKED_BYTES_MAX {
        let what = format!("{shown} has {} MiB and was not read as a whole", bytes / (1024 * 1024));
        found.push(Flaw::new(&flaws::SQLITE_UNCHECKED, &shown, what));
        return Ok(found);
    }
    let mut check = conn.prepare(&format!("PRAGMA quick_check({COMPLAINTS_MAX})"))?;
    let complaints = check.query_map([], |row| row.get::<_, String>(0))?;
    let complaints = complaints.collect::<rusqlite::Result<Vec<_>>>()?;
    if complaints != ["ok"] {
        let what = format!("{shown} is damaged: {}", complaints.join("; "));
        found.push(Flaw::new(&flaws::SQLITE_DAMAGED, &shown, what));
    }
    Ok(found)
}

fn of_stream(conn: &Connection, spec: &StreamSpec) -> rusqlite::Result<Option<Flaw>> {
    let name = spec.name.as_str();
    let sql = "SELECT filters, entries_per_subject_max FROM stream WHERE name = ?1";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?));
    let Some((filters, limit)) = conn.query_row(sql, [name], row).optional()? else {
        let what = format!("stream {name} is not there");
        return Ok(Some(Flaw::new(&flaws::STREAM_MISSING, name, what)));
    };
    let sorted = |mut filters: Vec<&str>| {
        filters.sort_unstable();
        filters.join(" ")
    };
    let (is, wants) =
        (sorted(filters.split(' ').collect()), sorted(spec.filters.iter().map(Filter::as_str).collect()));
    if is != wants {
        let what = format!("{name}: its subjects are {is}, not {wants}");
        return Ok(Some(Flaw::new(&flaws::STREAM_SUBJECTS, name, what)));
    }
    let limit = limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(u64::MAX);
    let wanted = spec.entries_per_subject_max.unwrap_or(u64::MAX);
    let flaw = |severity, what| Some(Flaw::new(&flaws::STREAM_PER_SUBJECT, name, what).with(severity));
    Ok(match () {
        () if limit > wanted => {
            let what = format!(
                "{name}: it has promised {limit} entries for each subject; the configuration wants {wanted}"
            );
            flaw(Severity::Error, what)
        }
        () if limit < wanted => {
            let what = format!(
                "{name}: it holds {limit} entries of each subject, the configuration wants {wanted}: it is raised at the next start"
            );
            flaw(Severity::Note, what)
        }
        () => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_short_before_it_is_full() {
        assert_eq!(shortage(0), Some(Severity::Error));
        assert_eq!(shortage(SPACE_GONE_BYTES), Some(Severity::Warning));
        assert_eq!(shortage(SPACE_SHORT_BYTES), None);
    }
}
