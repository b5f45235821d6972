//! Files as whoever copies a whole realm has to know them: which parts belong to a record, and what a record of another moment,
//! or of a realm that was restored, has to say.

use bytes::Bytes;

use super::{FileRecord, FileState};

/// The parts of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Their keys in the bucket of parts.
    pub keys: Vec<String>,
    /// Without any of them the record is none.
    pub are_needed: bool,
}

/// The parts of the file with this record; `None` for one that is being removed, or cannot be read.
pub(crate) fn parts(value: &[u8]) -> Option<Parts> {
    let record: FileRecord = serde_json::from_slice(value).ok()?;
    let first = if record.origin.is_some() { 0 } else { 1 };
    let keys = (first..=record.parts).map(|number| record.part_key(number)).collect();
    let are_needed = match record.state {
        FileState::Going => return None,
        FileState::Open => false,
        FileState::Whole | FileState::Sent => true,
    };
    Some(Parts { keys, are_needed })
}

/// A record for a moment between two looks at it. If the message that brings the file was stored between them, it may not have
/// been there at that moment: then it is to be stored yet, and whoever does so finds it if it was.
pub(crate) fn between(before: Option<&[u8]>, after: &Bytes) -> Bytes {
    let read = |value: &[u8]| serde_json::from_slice::<FileRecord>(value).ok();
    let was_sent = before.and_then(read).is_some_and(|record| record.state == FileState::Sent);
    match read(after) {
        Some(record) if record.state == FileState::Sent && !was_sent => {
            write(&FileRecord { state: FileState::Whole, ..record }, after)
        }
        _ => after.clone(),
    }
}

/// A record of a realm that was restored at this time: like all that is in it, the file is kept from then on.
pub(crate) fn restored(value: &Bytes, at: u64) -> Bytes {
    match serde_json::from_slice::<FileRecord>(value) {
        Ok(record) => write(&FileRecord { created: at, fetcher: None, ..record }, value),
        Err(_) => value.clone(),
    }
}

fn write(record: &FileRecord, otherwise: &Bytes) -> Bytes {
    serde_json::to_vec(record).map_or_else(|_| otherwise.clone(), Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str, more: &str) -> Bytes {
        let id = "0192d4d5-0000-7000-8000-000000000000";
        Bytes::from(format!(
            r#"{{"id":"{id}","owner":"messi","to":["pele"],"name":"x","size":9,"parts":2,"state":"{state}","created":5{more}}}"#
        ))
    }

    #[test]
    fn a_record_names_its_parts_and_says_whether_it_needs_them() {
        let parts_of = |value: &Bytes| parts(value).map(|parts| (parts.keys.len(), parts.are_needed));
        assert_eq!(parts_of(&record("open", "")), Some((2, false)));
        assert_eq!(parts_of(&record("sent", r#","origin":"b""#)), Some((3, true)));
        assert_eq!(parts_of(&record("going", "")), None);
        assert_eq!(parts_of(&Bytes::from_static(b"{}")), None);
        let keys = parts(&record("sent", r#","origin":"b""#)).unwrap().keys;
        assert_eq!(keys[0], "0192d4d5000070008000000000000000.b.0");
    }

    #[test]
    fn what_was_sent_between_two_looks_is_to_be_sent_yet() {
        let state = |value: Bytes| serde_json::from_slice::<FileRecord>(&value).unwrap().state;
        let (open, sent) = (record("open", ""), record("sent", ""));
        assert_eq!(state(between(None, &sent)), FileState::Whole);
        assert_eq!(state(between(Some(&open), &sent)), FileState::Whole);
        assert_eq!(state(between(Some(&sent), &sent)), FileState::Sent);
        assert_eq!(state(between(None, &open)), FileState::Open);
        let restored: FileRecord = serde_json::from_slice(&restored(&sent, 70)).unwrap();
        assert_eq!(restored.created, 70);
    }
}
