//! The export format: a range of a realm's log as one file. `proto-docs/replay.md` describes it.
//!
//! JSON, one object a line: a header, one line for each entry, and a last line with their number and a checksum. Every
//! line but the last ends with a sum over all bytes of the file up to there. So whatever is cut off or altered is found, and
//! where.

use std::io::{self, BufRead, Write};

use antar_broker::{Entry, EntryId, Headers, Seq, Subject};
use antar_proto::RealmId;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::json::{number, string};
use crate::time::{self, Clock};

/// The version of the format.
pub const FORMAT: u32 = 1;
/// Longest line: a body of 900 KiB whose every byte is written as `\u0000`, and what stands beside it.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How much of a running sum stands at the end of a line.
const SUM_BYTES: usize = 8;
/// What comes before the sum, and after it.
const SUM_BEFORE: &[u8] = b",\"sum\":\"";
const SUM_AFTER: &[u8] = b"\"}\n";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub antar_export: u32,
    /// The version of Antar that has written it.
    pub version: String,
    /// The realm.
    pub realm: RealmId,
    /// The realm's public key, if it has one.
    pub key: Option<String>,
    /// Where the range begins and ends, as it was asked for.
    pub from: Option<String>,
    /// See `from`.
    pub to: Option<String>,
    /// The kinds of entries.
    pub kinds: Vec<String>,
    /// What else the entries were chosen by: option and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<(String, String)>,
}

/// Writes an export.
pub struct Exporter<W> {
    out: W,
    hash: Sha256,
    clock: Clock,
    line: Vec<u8>,
    entries: u64,
}

impl<W: Write> Exporter<W> {
    /// Begins with the header.
    pub fn begin(out: W, header: &Header) -> io::Result<Self> {
        let (hash, clock) = (Sha256::new(), Clock::default());
        let mut exporter = Self { out, hash, clock, line: Vec::new(), entries: 0 };
        serde_json::to_writer(&mut exporter.line, header)?;
        exporter.line.pop();
        exporter.end_line()?;
        Ok(exporter)
    }

    /// Adds an entry.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let line = &mut self.line;
        line.extend_from_slice(b"{\"subject\":\"");
        line.extend_from_slice(entry.subject.as_str().as_bytes());
        line.extend_from_slice(b"\",\"seq\":");
        number(entry.seq.0, line);
        line.extend_from_slice(b",\"time\":\"");
        self.clock.write(entry.time, line);
        line.extend_from_slice(b"\",\"id\":");
        string(entry.id.as_str(), line);
        line.extend_from_slice(b",\"headers\":[");
        for (at, (name, value)) in entry.headers.iter().enumerate() {
            line.extend_from_slice(if at > 0 { b",[" } else { b"[" });
            string(name, line);
            line.push(b',');
            string(value, line);
            line.push(b']');
        }
        line.push(b']');
        match std::str::from_utf8(&entry.body) {
            Ok(text) => {
                line.extend_from_slice(b",\"body\":");
                string(text, line);
            }
            Err(_) => {
                line.extend_from_slice(b",\"base64\":\"");
                line.extend_from_slice(BASE64.encode(&entry.body).as_bytes());
                line.push(b'"');
            }
        }
        self.entries += 1;
        self.end_line()
    }

    /// Adds the last line and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        let sum = HEXLOWER.encode(&self.hash.finalize());
        let last = Last { end: true, entries: self.entries, sha256: sum };
        serde_json::to_writer(&mut self.out, &last)?;
        self.out.write_all(b"\n")?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// How many entries were added.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn end_line(&mut self) -> io::Result<()> {
        self.hash.update(&self.line);
        let sum = sum_of(&self.hash);
        let begin = self.line.len();
        self.line.extend_from_slice(SUM_BEFORE);
        self.line.extend_from_slice(sum.as_bytes());
        self.line.extend_from_slice(SUM_AFTER);
        self.hash.update(&self.line[begin..]);
        self.out.write_all(&self.line)?;
        self.line.clear();
        Ok(())
    }
}

fn sum_of(hash: &Sha256) -> String {
    HEXLOWER.encode(&hash.clone().finalize()[..SUM_BYTES])
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
struct Last {
    end: bool,
    entries: u64,
    sha256: String,
}

#[derive(Deserialize)]
struct Line {
    subject: String,
    seq: u64,
    time: String,
    id: String,
    headers: Headers,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    base64: Option<String>,
}

/// Why a file is not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is no export of Antar")]
    Foreign,
    /// A newer version has written it.
    #[error("the export has format {0}, this version of Antar knows {FORMAT}: use a newer one")]
    Newer(u32),
    /// It ends too early.
    #[error("the file is cut off: it ends at byte {offset} without its last line")]
    Truncated {
        /// Its size.
        offset: u64,
    },
    /// It is not what was written.
    #[error("the file is damaged at byte {offset} (line {line}): {why}")]
    Damaged {
        /// Where the line begins that is not right.
        offset: u64,
        /// Its number, from 1.
        line: u64,
        /// What is not right.
        why: &'static str,
    },
}

/// Reads an export, and checks it while it does.
pub struct Importer<R> {
    input: R,
    hash: Sha256,
    header: Header,
    /// Where the next line begins, and its number.
    offset: u64,
    line: u64,
    entries: u64,
    buffer: Vec<u8>,
    ended: bool,
}

impl<R: BufRead> Importer<R> {
    /// Reads the header.
    pub fn begin(mut input: R) -> Result<Self, FileError> {
        #[derive(Deserialize)]
        struct Version {
            antar_export: u32,
        }
        const MARK: &[u8] = b"{\"antar_export\":";
        let start = input.fill_buf()?;
        if !start.starts_with(&MARK[..MARK.len().min(start.len())]) {
            return Err(FileError::Foreign);
        }
        let header = Header {
            antar_export: FORMAT,
            version: String::new(),
            realm: "none".parse().expect("this is a name"),
            key: None,
            from: None,
            to: None,
            kinds: Vec::new(),
            filters: Vec::new(),
        };
        let (hash, buffer) = (Sha256::new(), Vec::new());
        let mut file = Self { input, hash, header, offset: 0, line: 1, entries: 0, buffer, ended: false };
        file.read_line()?;
        if let Ok(Version { antar_export }) = serde_json::from_slice(&file.buffer)
            && antar_export > FORMAT
        {
            return Err(FileError::Newer(antar_export));
        }
        file.check_sum()?;
        let header = serde_json::from_slice(&file.buffer);
        file.header = header.map_err(|_| file.damaged("it is no header of an export"))?;
        file.advance();
        Ok(file)
    }

    /// The first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the next line begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry; `None` behind the last one, when the whole file was found to be right.
    pub fn entry(&mut self) -> Result<Option<Entry>, FileError> {
        if self.ended {
            return Ok(None);
        }
        self.read_line()?;
        if self.buffer.starts_with(b"{\"end\":") {
            return self.end().map(|()| None);
        }
        self.check_sum()?;
        let entry = self.parse().ok_or_else(|| self.damaged("it is no entry"))?;
        self.advance();
        self.entries += 1;
        Ok(Some(entry))
    }

    fn parse(&self) -> Option<Entry> {
        let Line { subject, seq, time, id, headers, body, base64 } =
            serde_json::from_slice(&self.buffer).ok()?;
        let body = match (body, base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => BASE64.decode(text.as_bytes()).ok()?,
            _ => return None,
        };
        Some(Entry {
            subject: Subject::new(subject).ok()?,
            seq: Seq(seq),
            time: time::parse(&time)?,
            id: EntryId::new(id)?,
            headers,
            body: body.into(),
        })
    }

    fn end(&mut self) -> Result<(), FileError> {
        let last: Result<Last, _> = serde_json::from_slice(&self.buffer);
        let last = last.map_err(|_| self.damaged("it is no last line of an export"))?;
        if last.sha256 != HEXLOWER.encode(&self.hash.clone().finalize()) {
            return Err(self.damaged("the checksum is another"));
        }
        if !last.end || last.entries != self.entries {
            return Err(self.damaged("the number of entries is another"));
        }
        self.advance();
        if !self.input.fill_buf()?.is_empty() {
            return Err(self.damaged("something stands behind the end"));
        }
        self.ended = true;
        Ok(())
    }

    fn read_line(&mut self) -> Result<(), FileError> {
        self.buffer.clear();
        let mut bounded = io::Read::take(&mut self.input, LINE_BYTES_MAX as u64);
        bounded.read_until(b'\n', &mut self.buffer)?;
        if self.buffer.last() == Some(&b'\n') {
            return Ok(());
        }
        if self.buffer.len() == LINE_BYTES_MAX {
            return Err(self.damaged("it is too long"));
        }
        Err(FileError::Truncated { offset: self.offset + self.buffer.len() as u64 })
    }

    /// Whether the line ends with the sum of all before it.
    fn check_sum(&mut self) -> Result<(), FileError> {
        let tail = SUM_BEFORE.len() + 2 * SUM_BYTES + SUM_AFTER.len();
        let Some((content, end)) = self.buffer.split_at_checked(self.buffer.len().wrapping_sub(tail)) else {
            return Err(self.damaged("it has no sum"));
        };
        self.hash.update(content);
        let is_right = end.starts_with(SUM_BEFORE)
            && end.ends_with(SUM_AFTER)
            && end[SUM_BEFORE.len()..].starts_with(sum_of(&self.hash).as_bytes());
        self.hash.update(end);
        if is_right { Ok(()) } else { Err(self.damaged("it is not as it was written")) }
    }

    fn advance(&mut self) {
        self.offset += self.buffer.len() as u64;
        self.line += 1;
    }

    fn damaged(&self, why: &'static str) -> FileError {
        FileError::Damaged { offset: self.offset, line: self.line, why }
    }
}

#[cfg(test)]
mod tests {
    use antar_broker::Timestamp;

    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            antar_export: FORMAT,
            version: "0.1.0".into(),
            realm: "realm1".parse().unwrap(),
            key: Some("UABC".into()),
            from: None,
            to: Some("812".into()),
            kinds: vec!["mail".into()],
            filters: vec![("--user".into(), "messi".into())],
        }
    }

    fn entry(seq: u64, headers: Headers, body: Vec<u8>) -> Entry {
        Entry {
            subject: Subject::new("realm.realm1.mail.messi.local").unwrap(),
            seq: Seq(seq),
            time: Timestamp(1_795_304_532_874_925),
            id: EntryId::new(format!("id/{seq}")).unwrap(),
            headers,
            body: body.into(),
        }
    }

    fn export(entries: &[Entry]) -> Vec<u8> {
        let mut exporter = Exporter::begin(Vec::new(), &header()).unwrap();
        entries.iter().for_each(|entry| exporter.entry(entry).unwrap());
        exporter.finish().unwrap()
    }

    fn import(bytes: &[u8]) -> Result<Vec<Entry>, FileError> {
        let mut importer = Importer::begin(bytes)?;
        assert_eq!(importer.header(), &header());
        let mut entries = Vec::new();
        while let Some(entry) = importer.entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    fn some() -> Vec<Entry> {
        let texts = ["{\"text\":\"halo\\nbang\"}", "\u{1b}[2J\u{202e}", ""];
        let mut all: Vec<Entry> =
            (1..).zip(texts).map(|(n, text)| entry(n, Vec::new(), text.into())).collect();
        all.push(entry(9, vec![("A".into(), "1".into()), ("A".into(), "é\"".into())], vec![0xff, 0, b'\n']));
        all
    }

    #[test]
    fn entries_come_back_as_they_were() {
        assert_eq!(import(&export(&some())).unwrap(), some());
        assert_eq!(import(&export(&[])).unwrap(), []);
        assert_eq!(export(&some()), export(&some()));
    }

    #[test]
    fn every_flipped_bit_is_found_and_told_within_its_line() {
        let whole = export(&some());
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            let begin = whole[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1) as u64;
            match import(&bytes) {
                Err(FileError::Damaged { offset, .. }) => assert_eq!(offset, begin, "byte {at}"),
                Err(FileError::Foreign | FileError::Newer(_)) if begin == 0 => {}
                // The end of the last line became something else.
                Err(FileError::Truncated { .. }) if at + 1 == whole.len() => {}
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_found() {
        let whole = export(&some());
        for size in 0..whole.len() {
            let found = import(&whole[..size]);
            assert!(
                matches!(found, Err(FileError::Truncated { offset }) if offset == size as u64),
                "{size}: {found:?}"
            );
        }
        let twice = [&whole[..], &whole[..]].concat();
        assert!(
            matches!(import(&twice), Err(FileError::Damaged { offset, .. }) if offset == whole.len() as u64)
        );
    }

    #[test]
    fn a_line_that_was_left_out_or_moved_is_found() {
        let whole = export(&some());
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        let without = [lines[0], lines[2], lines[3], lines[4], lines[5]].concat();
        let moved = [lines[0], lines[2], lines[1], lines[3], lines[4], lines[5]].concat();
        for bytes in [without, moved] {
            let offset_wanted = lines[0].len() as u64;
            assert!(
                matches!(import(&bytes), Err(FileError::Damaged { offset, .. }) if offset == offset_wanted)
            );
        }
    }

    #[test]
    fn the_example_of_the_document_is_an_export() {
        let document = include_str!("../../../proto-docs/replay.md");
        let block = document.split("```jsonl\n").nth(1).and_then(|rest| rest.split("```").next());
        let mut file = Importer::begin(block.unwrap().as_bytes()).unwrap();
        assert_eq!(file.header().kinds, ["mail"]);
        let mut entries = 0;
        while file.entry().unwrap().is_some() {
            entries += 1;
        }
        assert_eq!(entries, 2);
    }

    proptest! {
        #[test]
        fn any_body_comes_through(body in proptest::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
            let entries = [entry(1, vec![("Name".into(), text.clone())], body), entry(2, Vec::new(), text.into())];
            prop_assert_eq!(import(&export(&entries)).unwrap(), entries);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Importer::begin(&bytes[..]).and_then(|mut file| file.entry());
        }
    }
}
