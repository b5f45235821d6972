//! A range of a log as a file: written under another name, synced, and only then put in its place.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use antar_realm::traffic;
use antar_replay::file::{Exporter, FORMAT, Header};
use anyhow::Context as _;

use super::ReplayArgs;
use super::progress::Progress;
use super::source::Source;
use crate::config::Environment;
use crate::exit::{Exit, OrExit as _, Outcome};
use crate::say;

const BUFFER_BYTES: usize = 1024 * 1024;

/// A file that goes away again unless it was finished.
struct Draft {
    draft: PathBuf,
    file: PathBuf,
    is_done: bool,
}

impl Draft {
    fn begin(file: &Path) -> std::io::Result<(Self, File)> {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let draft = PathBuf::from(name);
        // What people wrote to each other is for its owner only.
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        Ok((Self { draft, file: file.to_owned(), is_done: false }, opened))
    }

    fn finish(mut self, opened: &File) -> std::io::Result<()> {
        opened.sync_all()?;
        std::fs::rename(&self.draft, &self.file)?;
        self.is_done = true;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_done {
            // Whoever looks for it finds it by its name.
            let _ = std::fs::remove_file(&self.draft);
        }
    }
}

/// Exports what is wanted.
pub(super) async fn run(args: &ReplayArgs, file: &Path, environment: &Environment) -> Outcome {
    let mut source = Source::open(args, environment).await?;
    let key = traffic::public_key(&source.broker, &source.reading.realm).await.or_exit(Exit::Unreachable)?;
    let header = header(args, &source, key);
    let about = || format!("{} cannot be written", file.display());
    let (draft, opened) = Draft::begin(file).with_context(about)?;
    let out = BufWriter::with_capacity(BUFFER_BYTES, opened);
    let mut exporter = Exporter::begin(out, &header).with_context(about)?;
    let mut progress = Progress::of_entries(false);
    let limit = args.limit.unwrap_or(u64::MAX);
    while exporter.entries() < limit {
        let Some(entry) = source.next().await? else { break };
        progress.step();
        if source.is_wanted(&entry) {
            exporter.entry(&entry).with_context(about)?;
        }
    }
    let entries = exporter.entries();
    let mut out = exporter.finish().with_context(about)?;
    out.flush().with_context(about)?;
    draft.finish(out.get_ref()).with_context(about)?;
    drop(progress);
    say::remark(format!("{entries} entries of realm {} are in {}", source.reading.realm, file.display()));
    source.close().await;
    Ok(())
}

fn header(args: &ReplayArgs, source: &Source, key: Option<String>) -> Header {
    let reading = &source.reading;
    let mut filters = Vec::new();
    let mut filter = |name: &str, value: Option<String>| {
        filters.extend(value.map(|value| (name.to_owned(), value)));
    };
    filter("user", args.user.clone());
    filter("peer", args.peer.as_ref().map(ToString::to_string));
    filter("id", args.id.map(|id| id.to_string()));
    filter("grep", args.grep.clone());
    filter("limit", args.limit.map(|limit| limit.to_string()));
    Header {
        antar_export: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        realm: reading.realm.clone(),
        key,
        from: reading.from.map(|bound| bound.to_text()),
        to: reading.to.map(|bound| bound.to_text()),
        kinds: reading.kinds.iter().map(ToString::to_string).collect(),
        filters,
    }
}
