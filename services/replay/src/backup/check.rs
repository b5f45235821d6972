//! Reads a whole backup before anything is done with it: that it is as it was written, and that it makes sense.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use antar_broker::{EntryId, Seq, StreamSpec, Subject};
use antar_proto::RealmId;
use antar_realm::restored::Restored;
use antar_realm::snapshot::{CURSORS, PEERS, STREAMS, Snapshot};
use zeroize::Zeroizing;

use super::frame::{FileError, Reader};
use super::record::{End, EntryRecord, Header, KeyRecord, QueueRecord, Record};

/// What has to be known of a backup to restore it, beside its entries and the values of its keys.
#[derive(Debug)]
pub struct Contents {
    /// What the file says of itself.
    pub header: Header,
    /// How much is in it.
    pub end: End,
    /// The checksum of the whole.
    pub digest: String,
    /// The realm.
    pub realm: RealmId,
    /// The realm's private key, if it is in the file.
    pub seed: Option<Zeroizing<String>>,
    /// How many entries the fullest box of a mailbox has.
    pub fullest_box: u64,
    /// How far each box was read.
    /// Where each subject was read up to, by whoever reads it.
    pub(super) cursors: HashMap<Subject, BTreeSet<Seq>>,
    /// How far each queue was worked on, by its subject.
    pub(super) queues: HashMap<Subject, Seq>,
    /// The epoch of the lane to each peer.
    pub(super) epochs: HashMap<String, u64>,
}

/// What a file says of itself, as far as that can be believed of a file that was not read to its end.
pub fn head(path: &Path) -> Result<Header, FileError> {
    Reader::open(path).map(|(_, header)| header)
}

/// Reads a backup to its end.
pub fn check(path: &Path) -> Result<Contents, FileError> {
    let (mut reader, header) = Reader::open(path)?;
    let realm: RealmId = header.realm.parse().map_err(|error| reader.damaged(error))?;
    let snapshot = Snapshot::new(realm.clone());
    let mut checking = Checking {
        streams: snapshot.streams(0),
        snapshot,
        at: Stage::Keys,
        seq: 0,
        seed: None,
        cursors: HashMap::new(),
        queues: HashMap::new(),
        epochs: HashMap::new(),
        boxes: HashMap::new(),
        counted: End::default(),
        end: None,
    };
    while let Some(record) = reader.next()? {
        checking.see(record).map_err(|why| reader.damaged(why))?;
    }
    let Checking { seed, cursors, queues, epochs, boxes, end, .. } = checking;
    let Some(end) = end else {
        return Err(reader.damaged("it ends before its last line"));
    };
    if header.has_seed != seed.is_some() {
        return Err(reader.damaged("the private key is not as the header says"));
    }
    let fullest_box = boxes.into_values().max().unwrap_or(0);
    let digest = reader.digest();
    Ok(Contents { header, end, digest, realm, seed, fullest_box, cursors, queues, epochs })
}

/// How far a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Keys,
    Queues,
    Stream(usize),
    End,
}

struct Checking {
    snapshot: Snapshot,
    streams: [StreamSpec; 3],
    at: Stage,
    /// The last sequence of the stream.
    seq: u64,
    seed: Option<Zeroizing<String>>,
    cursors: HashMap<Subject, BTreeSet<Seq>>,
    queues: HashMap<Subject, Seq>,
    epochs: HashMap<String, u64>,
    boxes: HashMap<String, u64>,
    counted: End,
    end: Option<End>,
}

impl Checking {
    fn reach(&mut self, stage: Stage) -> Result<(), String> {
        if stage < self.at {
            return Err("its lines are not in their order".into());
        }
        if stage > self.at {
            self.seq = 0;
        }
        self.at = stage;
        Ok(())
    }

    fn see(&mut self, record: Record) -> Result<(), String> {
        self.counted.count(&record);
        match record {
            Record::Header(_) => Err("it begins twice".into()),
            Record::Seed(seed) => {
                self.seed = Some(Zeroizing::new(seed));
                self.reach(Stage::Keys)
            }
            Record::Key(key) => self.key(key),
            Record::Queue(queue) => self.queue(queue),
            Record::Entry(entry) => self.entry(entry),
            Record::End(end) => {
                self.reach(Stage::End)?;
                self.counted.left_out = end.left_out;
                if self.counted != end || self.end.is_some() {
                    return Err("it has not as many lines as its last one says".into());
                }
                self.end = Some(end);
                Ok(())
            }
        }
    }

    fn key(&mut self, KeyRecord { bucket, key, value, .. }: KeyRecord) -> Result<(), String> {
        self.reach(Stage::Keys)?;
        let bytes = value.bytes().ok_or("a value is not readable")?;
        if self.snapshot.bucket(&bucket).is_none() {
            return Err(format!("{bucket:?} is no bucket of a realm"));
        }
        if bucket == CURSORS {
            let seq = serde_json::from_slice::<u64>(&bytes).map_err(|_| "a cursor is no number")?;
            let subject = self.snapshot.cursor_subject(&key).ok_or("a cursor is of no box")?;
            self.cursors.entry(subject).or_default().insert(Seq(seq));
        }
        if bucket == PEERS {
            let epoch = Restored::epoch_of(&bytes).ok_or("a peer has no epoch")?;
            self.epochs.insert(key, epoch);
        }
        Ok(())
    }

    fn queue(&mut self, QueueRecord { subject, acked }: QueueRecord) -> Result<(), String> {
        self.reach(Stage::Queues)?;
        let subject = Subject::new(&subject).map_err(|error| error.to_string())?;
        self.snapshot.queue_over(&subject).ok_or("a position is of no queue of the realm's")?;
        self.queues.insert(subject, Seq(acked));
        Ok(())
    }

    fn entry(&mut self, entry: EntryRecord) -> Result<(), String> {
        let stream = STREAMS.iter().position(|name| *name == entry.stream).ok_or("an entry of no stream")?;
        self.reach(Stage::Stream(stream))?;
        EntryId::new(&*entry.id).ok_or("an entry's id is none")?;
        entry.body.bytes().ok_or("a body is not readable")?;
        if entry.at.is_empty() {
            return Err("an entry without a subject".into());
        }
        for (text, seq) in &entry.at {
            let subject = Subject::new(text).map_err(|error| error.to_string())?;
            if !self.streams[stream].filters.iter().any(|filter| filter.matches(text)) {
                return Err(format!("{text} is no subject of its stream"));
            }
            if *seq <= self.seq {
                return Err("its entries are not in their order".into());
            }
            self.seq = *seq;
            if self.snapshot.owner(&subject).is_some() {
                *self.boxes.entry(text.clone()).or_default() += 1;
            }
        }
        Ok(())
    }
}
