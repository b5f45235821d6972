//! Files of a person, on the way to the server and back: `/file` and `/get`.
//!
//! Owns: how a file is cut into requests, and where what comes is put: never over anything, and not before its SHA-256 is right.
//! Must not know connections: each request is handed out, and its reply taken, one at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use antar_proto::MessageId;
use antar_proto::command::Verb;
use antar_proto::file::{FileInfo, PARTS_MAX, safe_name};
use data_encoding::{BASE64, HEXLOWER};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::calls::Token;
use crate::chat::input::{Prepared, Target};
use crate::reply::Reply;

/// Bytes of a part: in base64 they fit into a line.
const PART_BYTES: u64 = 45_000;
/// Names that are tried for what is saved without one.
const NAMES_MAX: u32 = 1_000;

/// What is to be done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    /// `/file [TARGET] PATH`.
    Send {
        /// To whom.
        to: Target,
        /// Which.
        path: PathBuf,
    },
    /// `/get ID [PATH]`.
    Get {
        /// Which.
        id: MessageId,
        /// Where to; without it the working directory, under the file's own name.
        path: Option<PathBuf>,
    },
}

/// A file on its way.
#[derive(Debug)]
pub(crate) enum Transfer {
    /// To the server.
    Up(Upload),
    /// From it.
    Down(Download),
}

/// See [`Transfer::Up`].
#[derive(Debug)]
pub(crate) struct Upload {
    file: File,
    to: Target,
    name: String,
    id: MessageId,
    size: u64,
    parts: u32,
    sent: u32,
}

/// See [`Transfer::Down`].
#[derive(Debug)]
pub(crate) struct Download {
    id: MessageId,
    wanted: Option<PathBuf>,
    into: Option<Saving>,
    /// How many parts have come, of how many.
    come: u32,
    parts: u32,
}

/// A file that is being written; it goes away unless it is complete.
#[derive(Debug)]
struct Saving {
    file: File,
    path: PathBuf,
    info: FileInfo,
    hasher: Sha256,
    bytes: u64,
    is_complete: bool,
}

impl Drop for Saving {
    fn drop(&mut self) {
        if !self.is_complete {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A reply to `getfile`.
#[derive(Deserialize)]
struct Part {
    file: FileInfo,
    part: u32,
    parts: u32,
    data: String,
}

impl Transfer {
    /// Begins. An error says in words why nothing comes of it.
    pub(crate) fn begin(job: &Job) -> Result<Self, String> {
        match job {
            Job::Send { to, path } => Upload::open(to, path).map(Self::Up),
            Job::Get { id, path } => {
                let wanted = path.clone();
                Ok(Self::Down(Download { id: *id, wanted, into: None, come: 0, parts: 1 }))
            }
        }
    }

    /// The next request; `None` when all is done.
    pub(crate) fn next(&mut self, token: &Token) -> Result<Option<Prepared>, String> {
        match self {
            Self::Up(upload) => upload.next(token),
            Self::Down(download) => Ok(download.next(token)),
        }
    }

    /// Takes the reply to a request that was not refused.
    pub(crate) fn take(&mut self, reply: &Reply) -> Result<(), String> {
        match self {
            Self::Up(_) => Ok(()),
            Self::Down(download) => download.take(reply),
        }
    }

    /// What was done, for a person.
    pub(crate) fn done(&self) -> String {
        match self {
            Self::Up(Upload { name, to, size, id, .. }) => {
                format!("file {name} ({size} bytes) sent to {} ({id})", to.as_str())
            }
            Self::Down(Download { into: Some(saved), .. }) => {
                format!("saved as {} ({} bytes)", saved.path.display(), saved.bytes)
            }
            Self::Down(_) => "nothing was saved".into(),
        }
    }

    /// The same for a program.
    pub(crate) fn done_json(&self) -> serde_json::Value {
        match self {
            Self::Up(Upload { id, name, size, .. }) => {
                serde_json::json!({"status": "OK", "file_id": id, "name": name, "size": size})
            }
            Self::Down(Download { id, into, .. }) => {
                let path = into.as_ref().map(|saved| saved.path.display().to_string());
                serde_json::json!({"status": "OK", "file_id": id, "saved": path})
            }
        }
    }
}

impl Upload {
    fn open(to: &Target, path: &Path) -> Result<Self, String> {
        let say = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(say)?;
        let about = file.metadata().map_err(say)?;
        if !about.is_file() {
            return Err(format!("{} is no file", path.display()));
        }
        let size = about.len();
        if size == 0 {
            return Err(format!("{} is empty", path.display()));
        }
        let parts = u32::try_from(size.div_ceil(PART_BYTES)).ok().filter(|&parts| parts <= PARTS_MAX);
        let parts = parts.ok_or_else(|| format!("{} is too large", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A name is one word of a line.
        let name: String =
            safe_name(&name).chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
        Ok(Self { file, to: to.clone(), name, id: MessageId::fresh(), size, parts, sent: 0 })
    }

    fn next(&mut self, token: &Token) -> Result<Option<Prepared>, String> {
        if self.sent == self.parts {
            return Ok(None);
        }
        self.sent += 1;
        let part = antar_proto::file::Part { number: self.sent, parts: self.parts, size: self.size };
        let length = part.bytes().ok_or("it cannot be cut into parts")?;
        let mut bytes = Vec::new();
        let read = (&self.file).take(length).read_to_end(&mut bytes);
        read.map_err(|error| format!("{}: {error}", self.name))?;
        if bytes.len() as u64 != length {
            return Err(format!("{} has become shorter while it was sent", self.name));
        }
        let verb = if self.to.is_one() { Verb::SendFile } else { Verb::SendGroupFile };
        let line = format!(
            "{} {} {} {} {} part={}/{} size={} id={}",
            verb.spec().names[0],
            token.as_str(),
            self.to.as_str(),
            self.name,
            BASE64.encode(&bytes),
            self.sent,
            self.parts,
            self.size,
            self.id
        );
        let about = vec![self.to.as_str().to_owned()];
        // A part that was stored before is found there.
        Ok(Some(Prepared { line, verb: Some(verb), about, repeatable: true }))
    }
}

impl Download {
    fn next(&self, token: &Token) -> Option<Prepared> {
        if self.come == self.parts {
            return None;
        }
        let line = format!("getfile {} {} part={}", token.as_str(), self.id, self.come + 1);
        let about = vec![self.id.to_string()];
        Some(Prepared { line, verb: Some(Verb::GetFile), about, repeatable: true })
    }

    fn take(&mut self, reply: &Reply) -> Result<(), String> {
        let unreadable = || "the server's answer is none to getfile".to_owned();
        let Part { file, part, parts, data } = reply.read().map_err(|_| unreadable())?;
        let bytes = BASE64.decode(data.as_bytes()).map_err(|_| unreadable())?;
        let saving = match &mut self.into {
            Some(saving) => saving,
            none => none.insert(Saving::open(self.wanted.as_deref(), file.clone())?),
        };
        if part != self.come + 1 || parts < part || file != saving.info {
            return Err(unreadable());
        }
        (self.come, self.parts) = (part, parts);
        saving.bytes += bytes.len() as u64;
        saving.hasher.update(&bytes);
        let write = saving.file.write_all(&bytes);
        write.map_err(|error| format!("{}: {error}", saving.path.display()))?;
        if part == parts {
            let sum = HEXLOWER.encode(&saving.hasher.finalize_reset());
            if sum != saving.info.sha256 || saving.bytes != saving.info.size {
                return Err("the bytes are not those of the file: it was not saved".into());
            }
            saving.is_complete = true;
        }
        Ok(())
    }
}

impl Saving {
    /// Makes the file; one that is there is left alone.
    fn open(wanted: Option<&Path>, info: FileInfo) -> Result<Self, String> {
        let name = safe_name(&info.name);
        let path = match wanted {
            Some(folder) if folder.is_dir() => folder.join(&name),
            Some(path) => path.to_owned(),
            None => PathBuf::from(&name),
        };
        let may_choose = wanted.is_none_or(Path::is_dir);
        let mut tried = path.clone();
        for number in 1..NAMES_MAX {
            match OpenOptions::new().write(true).create_new(true).open(&tried) {
                Ok(file) => {
                    let (hasher, bytes) = (Sha256::new(), 0);
                    return Ok(Self { file, path: tried, info, hasher, bytes, is_complete: false });
                }
                Err(error) if may_choose && error.kind() == std::io::ErrorKind::AlreadyExists => {
                    tried = path.with_file_name(numbered(&name, number));
                }
                Err(error) => return Err(format!("{}: {error}", tried.display())),
            }
        }
        Err(format!("{}: there are too many of this name", path.display()))
    }
}

/// `foto.png` becomes `foto-1.png`.
fn numbered(name: &str, number: u32) -> String {
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => format!("{stem}-{number}.{ending}"),
        _ => format!("{name}-{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::input::{Context, Input, understand};
    use crate::reply::Frame;

    fn to(name: &str) -> Target {
        match understand(&format!("/to {name}"), &Context::default()) {
            Ok(Input::To(Some(target))) => target,
            other => panic!("{other:?}"),
        }
    }

    fn reply(bytes: &[u8], info: &FileInfo, part: u32, parts: u32) -> Reply {
        let json = serde_json::json!({"status": "OK", "file": info, "part": part, "parts": parts,
            "data": BASE64.encode(bytes)});
        let Frame::Reply(reply) = Frame::parse(json.to_string().as_bytes()).unwrap() else { panic!() };
        reply
    }

    fn info(name: &str, bytes: &[u8]) -> FileInfo {
        let sha256 = HEXLOWER.encode(&Sha256::digest(bytes));
        let (name, media) = (name.to_owned(), "text/plain".to_owned());
        FileInfo { id: MessageId::fresh(), name, media, size: bytes.len() as u64, sha256 }
    }

    #[test]
    fn a_file_goes_in_parts_that_the_protocol_takes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("foto saya.bin");
        fs::write(&path, vec![7; 100_000]).unwrap();
        let mut transfer = Transfer::begin(&Job::Send { to: to("a,b"), path }).unwrap();
        let mut lines = Vec::new();
        while let Some(prepared) = transfer.next(&Token::new("T")).unwrap() {
            assert!(prepared.line.len() < antar_proto::line::LINE_BYTES_MAX && prepared.repeatable);
            assert!(antar_proto::parse::parse(prepared.line.as_bytes()).is_ok());
            lines.push(prepared.line);
        }
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("sendgroupfile T a,b foto_saya.bin "), "{}", &lines[0][..60]);
        let empty = dir.path().join("kosong");
        fs::write(&empty, b"").unwrap();
        for bad in [empty, dir.path().to_owned(), dir.path().join("tidak ada")] {
            assert!(Transfer::begin(&Job::Send { to: to("a"), path: bad }).is_err());
        }
    }

    #[test]
    fn what_is_saved_replaces_nothing_and_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let get = |path: &Path| {
            let job = Job::Get { id: MessageId::fresh(), path: Some(path.to_owned()) };
            Transfer::begin(&job).unwrap()
        };
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let file = info("../../etc/x.txt", b"halo juga");
        for saved in ["x.txt", "x-1.txt"] {
            let mut transfer = get(dir.path());
            transfer.take(&reply(b"halo ", &file, 1, 2)).unwrap();
            assert!(transfer.next(&Token::new("T")).unwrap().unwrap().line.ends_with("part=2"));
            transfer.take(&reply(b"juga", &file, 2, 2)).unwrap();
            assert!(transfer.next(&Token::new("T")).unwrap().is_none());
            assert_eq!(fs::read(dir.path().join(saved)).unwrap(), b"halo juga");
        }
        // Under a name that was asked for: only if there is none.
        assert!(get(&dir.path().join("x.txt")).take(&reply(b"halo juga", &file, 1, 1)).is_err());
        // Broken off, or other bytes: nothing stays.
        let mut transfer = get(&dir.path().join("y"));
        transfer.take(&reply(b"halo ", &file, 1, 2)).unwrap();
        assert!(transfer.take(&reply(b"lain", &file, 2, 2)).is_err());
        drop(transfer);
        assert_eq!(names(), ["x-1.txt", "x.txt"]);
    }
}
