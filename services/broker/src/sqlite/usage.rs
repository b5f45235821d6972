//! How much the file takes, and how much its disk has left.

use std::path::Path;

use super::schema::beside;
use crate::{StreamUsage, Usage};

/// The file and what grows beside it.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// What the streams hold and the file takes. Asks the file system, so not for a thread that must not wait.
pub(super) fn of_file(path: &Path, streams: Vec<StreamUsage>) -> Usage {
    let bytes = |part: &str| std::fs::metadata(beside(path, part)).map_or(0, |about| about.len());
    let stored_bytes = PARTS.into_iter().map(bytes).sum();
    let free = rustix::fs::statvfs(path).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    Usage {
        streams,
        stored_bytes,
        events: Vec::new(),
        limit_bytes: free.map(|free| free.saturating_add(stored_bytes)),
    }
}
