//! A dead letter, as it stands on `realm.<id>.dead`: the bytes as they came in, and in headers what is known of them.
//!
//! Owns: that format, of this version and of the one before. Must not know: when something is put aside, or what becomes
//! of it then.

use std::sync::Arc;

use antar_broker::{ENTRY_BODY_BYTES_MAX, Entry, Headers, Seq, Subject};
use antar_proto::RealmId;
use antar_proto::envelope::unbundle;
use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::arrival::Line;
use crate::dead::{Claim, Dead};
use crate::hex::hex;
use crate::recall::INBOX_HEADER;
use crate::sign::{KEY_HEADER, SIGNATURE_HEADER};

/// What the names of a letter's own headers begin with.
const DEAD_HEADERS: &str = "Antar-Dead-";
/// Why, for programs. An entry without it is of the version before.
const CODE_HEADER: &str = "Antar-Dead-Code";
/// Why, for people.
const REASON_HEADER: &str = "Antar-Dead-Reason";
/// The realm that has signed it, proven.
const ORIGIN_HEADER: &str = "Antar-Dead-Origin";
/// The realm that it says to come from, which nothing proves.
const CLAIMED_HEADER: &str = "Antar-Dead-Claimed-Origin";
/// Who has published it, where the broker tells.
const PUBLISHER_HEADER: &str = "Antar-Dead-Publisher";
/// Which lines of the body are meant, from 0, with commas; all of it if there is no such header.
const LINES_HEADER: &str = "Antar-Dead-Lines";
/// What was left out, `body` (its end) or `proof` (the headers that it came with).
const CUT_HEADER: &str = "Antar-Dead-Cut";

/// Longest reason that is kept: a sender can put what it likes into what cannot be read.
const REASON_BYTES_MAX: usize = 512;
/// The headers that prove an envelope are 56 and 86 bytes long, and there are two of them. Whatever is longer, or oftener
/// there, proves nothing; it only has to fit beside the rest into the 4 KiB of an entry's headers.
const PROOF_VALUE_BYTES_MAX: usize = 256;
const PROOF_HEADERS_MAX: usize = 4;

/// What is to be put aside of one inbox entry, for one reason.
pub(crate) struct Buried {
    pub(crate) entry: Arc<Entry>,
    /// The lines that are meant, one bit for each; none for the entry as a whole.
    lines: u64,
    pub(crate) code: &'static str,
    reason: String,
    is_proven: bool,
}

impl Buried {
    pub(crate) fn new(line: &Line, dead: &Dead) -> Self {
        Self {
            entry: line.entry.clone(),
            lines: line.number.map_or(0, |number| 1 << number),
            code: dead.code(),
            reason: dead.to_string(),
            is_proven: line.number.is_some() || !dead.is_unproven(),
        }
    }

    /// Takes another one up, if it is about other lines of the same entry, for the same reason. So no entry is kept oftener
    /// than there are reasons, however many envelopes it has.
    pub(crate) fn join(&mut self, other: &Self) -> bool {
        let is_same = self.entry.seq == other.entry.seq && self.code == other.code;
        let joins = is_same && self.lines != 0 && other.lines != 0;
        if joins {
            self.lines |= other.lines;
        }
        joins
    }

    /// What makes its append idempotent. After a batch that was broken off, other lines may be meant.
    pub(crate) fn key(&self) -> String {
        let Self { entry, lines, code, .. } = self;
        match lines {
            0 => format!("dead/{}", entry.seq),
            lines => format!("dead/{}/{code}/{lines:x}", entry.seq),
        }
    }

    /// The headers and the body of its letter.
    pub(crate) fn letter(&self) -> (Headers, Bytes) {
        let entry = &self.entry;
        let mut headers: Headers = vec![
            (CODE_HEADER.into(), self.code.into()),
            (REASON_HEADER.into(), printable(&self.reason)),
            (INBOX_HEADER.into(), entry.seq.to_string()),
        ];
        let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
        if let Some(claim) = Claim::of_first(&entry.body) {
            add(if self.is_proven { ORIGIN_HEADER } else { CLAIMED_HEADER }, claim.origin.to_string());
        }
        if let Some(publisher) = publisher(&entry.subject) {
            add(PUBLISHER_HEADER, publisher.to_owned());
        }
        if self.lines != 0 {
            add(LINES_HEADER, numbers(self.lines).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
        }
        let proof = proof(&entry.headers);
        for (name, value) in proof.iter().flatten() {
            add(name, value.clone());
        }
        let kept = entry.body.len().min(ENTRY_BODY_BYTES_MAX);
        let cut = [("body", kept < entry.body.len()), ("proof", proof.is_none())];
        let cut: Vec<&str> = cut.into_iter().filter(|(_, is_cut)| *is_cut).map(|(what, _)| what).collect();
        if !cut.is_empty() {
            add(CUT_HEADER, cut.join(","));
        }
        (headers, entry.body.slice(..kept))
    }
}

/// The numbers of the bits that are set.
fn numbers(lines: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |number| lines >> number & 1 == 1)
}

/// Who has published an inbox entry, if its subject tells: `realm.<id>.inbox.<peer>`.
fn publisher(inbox: &Subject) -> Option<&str> {
    inbox.tokens().nth(3)
}

/// The headers that prove an entry, as they came; `None` if they are too many, too long or nothing that could be kept.
fn proof(headers: &Headers) -> Option<Headers> {
    let mut proof = Headers::new();
    for (name, value) in headers {
        let Some(known) = [KEY_HEADER, SIGNATURE_HEADER].into_iter().find(|k| k.eq_ignore_ascii_case(name))
        else {
            continue;
        };
        let is_sane = value.len() <= PROOF_VALUE_BYTES_MAX && value.bytes().all(|b| b.is_ascii_graphic());
        if !is_sane || proof.len() == PROOF_HEADERS_MAX {
            return None;
        }
        proof.push((known.to_owned(), value.clone()));
    }
    Some(proof)
}

/// A reason as it may stand in a header: bounded, and nothing in it that ends a line.
fn printable(reason: &str) -> String {
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    reason[..end].chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// A dead letter that was read.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    /// Its own, in the log.
    pub(crate) entry: Arc<Entry>,
    pub(crate) code: String,
    pub(crate) reason: String,
    pub(crate) inbox_seq: Seq,
    /// Where it says to come from, and whether that is proven.
    pub(crate) origin: Option<(RealmId, bool)>,
    /// As it came in, or as much of it as was kept.
    pub(crate) body: Bytes,
    pub(crate) lines: Option<Vec<usize>>,
    publisher: Option<String>,
    /// What is missing of it, for people.
    pub(crate) lacks: Option<&'static str>,
}

/// One of the version before.
#[derive(Deserialize)]
struct OldLetter {
    reason: String,
    code: String,
    inbox_seq: u64,
    body: String,
}

impl Letter {
    /// `None` for an entry that is no dead letter.
    pub(crate) fn of(entry: &Arc<Entry>) -> Option<Self> {
        let header = |name: &str| {
            let found = entry.headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        let Some(code) = header(CODE_HEADER) else { return Self::of_old(entry) };
        let origin = |name, is_proven| header(name).and_then(|id| Some((id.parse().ok()?, is_proven)));
        let cut = header(CUT_HEADER).unwrap_or_default();
        Some(Self {
            entry: entry.clone(),
            code: code.to_owned(),
            reason: header(REASON_HEADER).unwrap_or_default().to_owned(),
            inbox_seq: Seq(header(INBOX_HEADER).and_then(|seq| seq.parse().ok()).unwrap_or_default()),
            origin: origin(ORIGIN_HEADER, true).or_else(|| origin(CLAIMED_HEADER, false)),
            body: entry.body.clone(),
            lines: header(LINES_HEADER)
                .map(|lines| lines.split(',').filter_map(|number| number.parse().ok()).collect()),
            publisher: header(PUBLISHER_HEADER).map(str::to_owned),
            lacks: match cut {
                "" => None,
                "proof" => Some("its signature was too large to be kept"),
                _ => Some("it was too large to be kept as a whole"),
            },
        })
    }

    fn of_old(entry: &Arc<Entry>) -> Option<Self> {
        let OldLetter { reason, code, inbox_seq, body } = serde_json::from_slice(&entry.body).ok()?;
        let origin = Claim::of_first(body.as_bytes()).map(|claim| (claim.origin, false));
        Some(Self {
            entry: entry.clone(),
            code,
            reason,
            inbox_seq: Seq(inbox_seq),
            origin,
            body: body.into(),
            lines: None,
            publisher: None,
            lacks: Some("an older version has kept its text, but not its signature"),
        })
    }

    /// What it is known by wherever it stands: a hash of all that came in and was found out. A sequence would not do, which
    /// is another one in a realm that was restored.
    pub(crate) fn key(&self) -> String {
        let is_own = |name: &str| {
            name.starts_with(DEAD_HEADERS) || [INBOX_HEADER, KEY_HEADER, SIGNATURE_HEADER].contains(&name)
        };
        let mut own: Vec<_> = self.entry.headers.iter().filter(|(name, _)| is_own(name)).collect();
        own.sort();
        let parts = own.iter().flat_map(|(name, value)| [name.as_bytes(), b":", value.as_bytes(), b"\n"]);
        let hash = parts.fold(Sha256::new(), |hash, part| hash.chain_update(part));
        hex(&hash.chain_update(&self.entry.body).finalize()[..16])
    }

    /// The inbox entry that it was, to be proven once more.
    pub(crate) fn as_it_came(&self, inbox: &Subject) -> Arc<Entry> {
        let came_on = match &self.publisher {
            Some(publisher) => Subject::new(format!("{inbox}.{publisher}")).unwrap_or_else(|_| inbox.clone()),
            None => inbox.clone(),
        };
        let is_proof = |name: &String| [KEY_HEADER, SIGNATURE_HEADER].contains(&name.as_str());
        Arc::new(Entry {
            subject: came_on,
            seq: self.inbox_seq,
            headers: self.entry.headers.iter().filter(|(name, _)| is_proof(name)).cloned().collect(),
            body: self.body.clone(),
            ..(*self.entry).clone()
        })
    }

    /// The envelopes that are meant, each with its number. Of bytes that are no envelopes, all of them.
    pub(crate) fn envelopes(&self) -> Vec<(usize, Bytes)> {
        let Ok(all) = unbundle(&self.body) else { return vec![(0, self.body.clone())] };
        let all = all.map(|line| self.body.slice_ref(line)).enumerate();
        all.filter(|(number, _)| self.lines.as_ref().is_none_or(|lines| lines.contains(number))).collect()
    }
}

#[cfg(test)]
mod tests {
    use antar_broker::{EntryId, Timestamp};

    use super::*;

    fn came(headers: Headers, body: &[u8]) -> Arc<Entry> {
        Arc::new(Entry {
            subject: Subject::new("realm.b.inbox.a").unwrap(),
            seq: Seq(7),
            time: Timestamp(1),
            id: EntryId::unique(),
            headers,
            body: Bytes::copy_from_slice(body),
        })
    }

    /// The letter that an entry becomes, as it is read back.
    fn letter(entry: &Arc<Entry>, number: Option<usize>, dead: &Dead) -> Letter {
        let line = Line { entry: entry.clone(), number, body: entry.body.clone() };
        let (headers, body) = Buried::new(&line, dead).letter();
        let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(size <= 4096, "{size} bytes of headers");
        let subject = Subject::new("realm.b.dead").unwrap();
        Letter::of(&Arc::new(Entry { subject, headers, body, ..(**entry).clone() })).unwrap()
    }

    #[test]
    fn a_letter_has_what_came_in_byte_for_byte() {
        let headers = vec![("antar-key".into(), "U1".into()), (SIGNATURE_HEADER.into(), "s".into())];
        let entry = came(headers, b"\xff\xfe\x00\n{\"x\":1}");
        let kept = letter(&entry, Some(1), &Dead::NoLane);
        assert_eq!(
            (kept.code.as_str(), kept.inbox_seq, kept.lines.as_deref()),
            ("no-lane", Seq(7), Some(&[1][..]))
        );
        let again = kept.as_it_came(&Subject::new("realm.b.inbox").unwrap());
        assert_eq!((&again.subject, &again.body, again.headers.len()), (&entry.subject, &entry.body, 2));
        assert_eq!(kept.envelopes(), [(1, Bytes::from_static(b"{\"x\":1}"))]);
        assert_eq!(kept.lacks, None);
        // Restored, it stands elsewhere, under another id, and with more beside it.
        let mut restored = (*kept.entry).clone();
        (restored.seq, restored.id) = (Seq(1), EntryId::unique());
        restored.headers.insert(0, ("Antar-Stored".into(), "1".into()));
        assert_eq!(Letter::of(&Arc::new(restored)).unwrap().key(), kept.key());
        assert_ne!(letter(&entry, Some(0), &Dead::NoLane).key(), kept.key());
    }

    #[test]
    fn whatever_a_sender_sends_a_letter_can_be_stored_and_says_what_it_lacks() {
        let long = "x".repeat(5_000);
        let proofs: [Headers; 3] = [
            vec![(KEY_HEADER.into(), long.clone())],
            vec![(KEY_HEADER.into(), "a\tb".into())],
            vec![(KEY_HEADER.into(), "k".into()); 5],
        ];
        let reasons = [long, "é\r\n\u{1b}[2J".repeat(400)];
        for (headers, reason) in proofs.into_iter().zip(reasons.iter().cycle()) {
            let kept = letter(&came(headers, b"{}"), None, &Dead::Refused(reason.clone()));
            assert_eq!(kept.lacks, Some("its signature was too large to be kept"));
            assert!(kept.reason.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{}", kept.reason);
        }
        let kept = letter(&came(Vec::new(), &vec![b'x'; ENTRY_BODY_BYTES_MAX + 1]), None, &Dead::Unsigned);
        assert_eq!((kept.body.len(), kept.lacks.is_some()), (ENTRY_BODY_BYTES_MAX, true));
    }

    #[test]
    fn lines_of_an_entry_that_fail_alike_share_a_letter() {
        let entry = came(Vec::new(), b"{}\n{}\n{}");
        let line = |number| Line { entry: entry.clone(), number, body: Bytes::new() };
        let mut buried = Buried::new(&line(Some(0)), &Dead::NoLane);
        assert!(buried.join(&Buried::new(&line(Some(63)), &Dead::NoLane)));
        assert!(!buried.join(&Buried::new(&line(Some(1)), &Dead::Kind)));
        assert!(!buried.join(&Buried::new(&line(None), &Dead::NoLane)));
        assert_eq!(numbers(buried.lines).collect::<Vec<_>>(), [0, 63]);
        assert_eq!(buried.key(), "dead/7/no-lane/8000000000000001");
    }

    #[test]
    fn a_letter_of_the_version_before_is_read() {
        let old = br#"{"reason":"it is not signed","code":"unsigned","inbox_seq":15,"time":"x","body":"{\"v\":1}"}"#;
        let kept = Letter::of(&came(Vec::new(), old)).unwrap();
        assert_eq!(
            (kept.code.as_str(), kept.inbox_seq, &kept.body[..]),
            ("unsigned", Seq(15), &b"{\"v\":1}"[..])
        );
        assert!(kept.lacks.is_some());
        assert!(Letter::of(&came(Vec::new(), b"{}")).is_none());
    }
}
