//! The file of a backup: lines in blocks, each compressed, with a checksum that covers all before it.
//!
//! A block is a frame of zstd. Before each stands a frame that zstd skips, with the length of the block and a SHA-256 over
//! the checksum before and the block. So `zstd -dc FILE` shows the lines; whatever was altered, left out or exchanged is
//! found where it is; and the last checksum is one of the whole file. Owns this form; knows nothing of what the lines mean.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::record::{FORMAT, Header, Record, VERSION};

/// Bytes of lines after which a block is written. Larger ones compress hardly better.
const BLOCK_BYTES: usize = 1024 * 1024;
/// Most bytes of lines in one block: a full block and the longest line, which is a body of 900 KiB, escaped.
const LINES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most bytes of one block.
const PACKED_BYTES_MAX: usize = LINES_BYTES_MAX + 64 * 1024;
/// How hard is compressed: zstd's own default, a tenth of JSON's size and still faster than most disks.
const LEVEL: i32 = 3;
/// Of frames that zstd skips, and that hold what follows here.
const MAGIC: [u8; 4] = 0x184D_2A5A_u32.to_le_bytes();
const TAG: [u8; 4] = *b"ANTR";
const CHECKSUM_BYTES: usize = 32;
/// Magic number, length of the rest, tag, length of the block, checksum.
const HEAD_BYTES: usize = 12 + 4 + CHECKSUM_BYTES;

/// Why a file cannot be taken for a backup.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as a backup does.
    #[error("it is no backup of Antar's")]
    NotOurs,
    /// It was written by a newer version.
    #[error("it is of version {0} of the format, and this version of Antar knows {VERSION}")]
    Newer(u32),
    /// It is not as it was written.
    #[error("it is damaged at byte {offset}: {why}")]
    Damaged {
        /// Where the first block that is not whole begins.
        offset: u64,
        /// What is wrong.
        why: String,
    },
}

/// Writes lines.
pub(super) struct Writer {
    file: BufWriter<File>,
    lines: Vec<u8>,
    checksum: [u8; CHECKSUM_BYTES],
    bytes: u64,
}

impl Writer {
    pub(super) fn new(file: File) -> Self {
        let lines = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4);
        Self { file: BufWriter::new(file), lines, checksum: [0; CHECKSUM_BYTES], bytes: 0 }
    }

    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, record)?;
        self.lines.push(b'\n');
        // The header has a block of its own, so that it can be read without the rest.
        let is_full = self.lines.len() >= BLOCK_BYTES || matches!(record, Record::Header(_));
        if is_full { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let packed = zstd::bulk::compress(&self.lines, LEVEL)?;
        self.lines.clear();
        self.checksum = next_checksum(&self.checksum, &packed);
        let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&((HEAD_BYTES - 8) as u32).to_le_bytes());
        head.extend_from_slice(&TAG);
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&self.checksum);
        self.file.write_all(&head)?;
        self.file.write_all(&packed)?;
        self.bytes += (head.len() + packed.len()) as u64;
        Ok(())
    }

    /// Puts all of it on disk: its size in bytes.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        if !self.lines.is_empty() {
            self.end_block()?;
        }
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(self.bytes)
    }
}

fn next_checksum(before: &[u8], packed: &[u8]) -> [u8; CHECKSUM_BYTES] {
    Sha256::new().chain_update(before).chain_update(packed).finalize().into()
}

/// Reads lines.
pub(super) struct Reader {
    file: BufReader<File>,
    /// Where the next block begins, and the one whose lines are read.
    next_at: u64,
    block_at: u64,
    checksum: [u8; CHECKSUM_BYTES],
    lines: Vec<u8>,
    read: usize,
}

impl Reader {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<(Self, Header), FileError> {
        let file = BufReader::new(File::open(path)?);
        let checksum = [0; CHECKSUM_BYTES];
        let mut reader = Self { file, next_at: 0, block_at: 0, checksum, lines: Vec::new(), read: 0 };
        let is_ours = reader.file.fill_buf()?.starts_with(&MAGIC);
        match is_ours.then(|| reader.next()).transpose()?.flatten() {
            Some(Record::Header(header)) if header.format == FORMAT && header.version <= VERSION => {
                Ok((reader, header))
            }
            Some(Record::Header(header)) if header.format == FORMAT => Err(FileError::Newer(header.version)),
            _ => Err(FileError::NotOurs),
        }
    }

    /// The next line; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Record>, FileError> {
        if self.read == self.lines.len() && !self.next_block()? {
            return Ok(None);
        }
        let rest = &self.lines[self.read..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = end.map_or(rest, |end| &rest[..end]);
        let parsed = serde_json::from_slice(line);
        self.read += line.len() + usize::from(end.is_some());
        parsed.map(Some).map_err(|error| self.damaged(format!("a line is not readable: {error}")))
    }

    /// An error about the lines that are read.
    pub(super) fn damaged(&self, why: impl ToString) -> FileError {
        FileError::Damaged { offset: self.block_at, why: why.to_string() }
    }

    /// The checksum of everything that was read.
    pub(super) fn digest(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.checksum)
    }

    fn next_block(&mut self) -> Result<bool, FileError> {
        self.block_at = self.next_at;
        let mut head = [0; HEAD_BYTES];
        match fill(&mut self.file, &mut head)? {
            0 => return Ok(false),
            HEAD_BYTES => {}
            _ => return Err(self.damaged("it ends in the middle of a block")),
        }
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = number(12) as usize;
        let is_head = head[..4] == MAGIC && number(4) as usize == HEAD_BYTES - 8 && head[8..12] == TAG;
        if !is_head || length > PACKED_BYTES_MAX {
            return Err(self.damaged("no block begins there"));
        }
        let mut packed = vec![0; length];
        if fill(&mut self.file, &mut packed)? < length {
            return Err(self.damaged("it ends in the middle of a block"));
        }
        self.checksum = next_checksum(&self.checksum, &packed);
        if self.checksum != head[16..] {
            return Err(self.damaged("the checksum is another"));
        }
        self.lines = zstd::bulk::decompress(&packed, LINES_BYTES_MAX).map_err(|error| self.damaged(error))?;
        self.read = 0;
        self.next_at += (HEAD_BYTES + length) as u64;
        if self.lines.is_empty() {
            return Err(self.damaged("a block without lines"));
        }
        Ok(true)
    }
}

/// Reads as much as there is, up to the length of `into`.
fn fill(file: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
