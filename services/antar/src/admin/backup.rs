//! `antar realm backup` and `antar realm restore`.
//!
//! Owns: what is said about them, and the exit codes. What a backup is lies in `antar_replay::backup`.

use std::path::PathBuf;
use std::time::Duration;

use antar_broker::{AppendError, KvError, ReadError, RequestError, SharedBroker};
use antar_proto::RealmId;
use antar_realm::KeyError;
use antar_realm::admin::{self, AdminRequest};
use antar_realm::snapshot::{self, Snapshot};
use antar_replay::backup::{
    self, Backup, End, FileError, Options, Restoration, RestoreError, Seed, TakeError,
};
use clap::{Args, ValueHint};
use serde::Serialize;

use super::operator::Target;
use crate::exit::{Exit, Failure, Outcome};
use crate::say;
use crate::server::open_failure;

/// How long an edge may take to say that it serves the realm.
const PING_MAX: Duration = Duration::from_secs(5);

/// `antar realm backup`.
#[derive(Debug, Args)]
#[command(after_help = "\
Works while the realm is being served and while it is not; nobody is held up by it. All that had been answered OK when
the command began is in the file. It is written beside FILE, read back, and renamed only then.

The file holds everybody's messages and hashes of passwords: nobody but its owner may read it (mode 0600). `zstd -dc FILE`
shows what is in it. The realm's private key is not, so keep the key file as well, or say --with-key.

Examples:
  antar realm backup kampus kampus.backup --config antar.toml
  antar realm backup realm1 realm1.backup --data antar-demo       of a running demo")]
pub(crate) struct BackupArgs {
    /// The realm's id.
    pub(super) id: String,
    /// The file to write. One that is there is replaced.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Put the realm's private key (realm.key_file) into the file too: whoever reads the file can then speak for the realm.
    #[arg(long)]
    with_key: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// `antar realm restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes the realm anew, on either broker. A realm of which anything is there is left alone (exit code 5). The whole file
is checked first, and nothing is written if a byte of it is wrong. What was written is read back. Nobody may serve the realm
meanwhile; until it is complete it does not start, and the same command again goes on where it ended.

An edge needs the realm's key file: copy it to realm.key_file, if it is not in the backup. If it is lost, --new-key gives
the realm another key at its first start, which the other realms have to trust (`antar realm trust`).

Examples:
  antar realm restore kampus.backup --config antar.toml
  antar realm restore kampus.backup --broker nats://127.0.0.1:4222")]
pub(crate) struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The realm that the backup has to be of.
    #[arg(long, value_name = "ID")]
    realm: Option<String>,
    /// The private key is lost: let the realm have another one.
    #[arg(long)]
    new_key: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Taken<'a> {
    id: &'a str,
    file: &'a std::path::Path,
    time: &'a str,
    #[serde(flatten)]
    end: &'a End,
    bytes: u64,
    checksum: &'a str,
    has_key: bool,
}

/// Takes a backup.
pub(super) async fn take(args: &BackupArgs, target: Target) -> Outcome {
    let id = &target.realm.id;
    let seed = args.with_key.then(|| seed(&target)).transpose()?;
    let settings = target.broker.settings();
    let broker = antar_broker::open_for_reading(&settings).await.map_err(|error| open_failure(&error))?;
    let snapshot = Snapshot::new(id.clone());
    let taking = backup::take(&broker, &snapshot, &args.file, seed, env!("CARGO_PKG_VERSION"));
    // Cancel-safe: a backup that is broken off removes what it has written.
    let taken = tokio::select! {
        taken = taking => taken.map_err(take_failure),
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Failed, "broken off; there is no backup")),
    };
    broker.close().await;
    let Backup { header, end, bytes, digest } = taken?;
    let has_key = header.has_seed;
    if args.json {
        let (id, file, time) = (id.as_str(), args.file.as_path(), header.time.as_str());
        return say::json(&Taken { id, file, time, end: &end, bytes, checksum: &digest, has_key });
    }
    let (entries, keys, file) = (end.entries_total(), end.keys_total(), args.file.display());
    say::line(format!(
        "{id}: {entries} entries and {keys} keys in {file}, {bytes} bytes, read back and compared"
    ))?;
    say::line(format!("{id}: all that was answered OK before {}; checksum {digest}", header.time))?;
    if end.left_out > 0 {
        let left_out = end.left_out;
        say::line(format!(
            "{id}: {left_out} entries were left out: mail of accounts that are gone, or none of Antar's"
        ))?;
    }
    match has_key {
        true => {
            say::remark(format!("{file} holds the private key of {id}: whoever reads it can speak for {id}"))
        }
        false => {
            say::remark(format!("the private key of {id} is not in it: keep a copy of its key file as well"))
        }
    }
    Ok(())
}

/// The realm's private key, from its file.
fn seed(target: &Target) -> Outcome<Seed> {
    let path = target.realm.key_file.clone().unwrap_or_default();
    let found = snapshot::read_seed(&path).map_err(key_failure)?;
    let (text, key) = found.ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            format!("{} is not there: --with-key needs the realm's key file", path.display()),
        )
    })?;
    Ok(Seed { text, key: key.to_string() })
}

/// The realm that a backup says it is of; that has to be the one that was asked for.
pub(super) fn realm_of(args: &RestoreArgs) -> Outcome<String> {
    let header = backup::head(&args.file).map_err(|error| file_failure(args, &error))?;
    match &args.realm {
        Some(wanted) if *wanted != header.realm => {
            let (file, realm) = (args.file.display(), header.realm);
            Err(Failure::new(Exit::Rejected, format!("{file} is a backup of {realm}, not of {wanted}")))
        }
        _ => Ok(header.realm),
    }
}

#[derive(Debug, Serialize)]
struct Restored<'a> {
    id: &'a str,
    entries: u64,
    keys: u64,
    expired: u64,
    went_on: bool,
    time: &'a str,
}

/// Makes the realm of a backup.
pub(super) async fn restore(args: &RestoreArgs, target: Target) -> Outcome {
    let contents = backup::check(&args.file).map_err(|error| file_failure(args, &error))?;
    let (id, key_file) = (contents.realm.clone(), target.realm.key_file.clone().unwrap_or_default());
    if let Some(seed) = contents.seed.as_ref().filter(|_| !args.new_key) {
        snapshot::keep_seed(&key_file, seed).map_err(key_failure)?;
    }
    let broker = antar_broker::open(&target.broker.settings()).await.map_err(|error| open_failure(&error))?;
    let options = Options { mailbox_entries_max: target.realm.mailbox_entries_max, new_key: args.new_key };
    let restored = match nobody_serves(&broker, &id).await {
        Ok(()) => backup::restore(&broker, &args.file, &contents, options).await.map_err(restore_failure),
        Err(failure) => Err(failure),
    };
    broker.close().await;
    let Restoration { went_on, entries, keys, expired, .. } = restored?;
    let time = contents.header.time.as_str();
    if args.json {
        return say::json(&Restored { id: id.as_str(), entries, keys, expired, went_on, time });
    }
    if went_on {
        say::line(format!("{id}: went on with what was broken off"))?;
    }
    let there = &target.broker;
    say::line(format!("{id}: {entries} entries and {keys} keys are in {there}, read back and compared"))?;
    say::line(format!(
        "{id}: it is as it was at {time}; {expired} sessions and invitations have expired since"
    ))?;
    let found = snapshot::read_seed(&key_file).map_err(key_failure)?.map(|(_, key)| key.to_string());
    match contents.header.key.filter(|_| !args.new_key) {
        Some(key) if found.as_ref() != Some(&key) => {
            say::remark(format!("before {id} is served, its key {key} has to be in {}", key_file.display()));
        }
        _ => {}
    }
    Ok(())
}

/// That no edge of the realm runs, which would see it before it is whole. (A file has one holder anyway.)
async fn nobody_serves(broker: &SharedBroker, id: &RealmId) -> Outcome {
    let ping = serde_json::to_vec(&AdminRequest::Ping)?;
    match broker.request(&admin::subject(id), ping.into(), PING_MAX).await {
        Err(RequestError::NoResponder) => Ok(()),
        Ok(_) => Err(Failure::new(Exit::Rejected, format!("{id} is there and is being served"))),
        Err(error) => Err(Failure::new(Exit::Unreachable, format!("realm {id}: {error}"))),
    }
}

fn file_failure(args: &RestoreArgs, error: &FileError) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {error}; nothing was restored", args.file.display()))
}

fn key_failure(error: KeyError) -> Failure {
    let exit = if matches!(error, KeyError::Other { .. }) { Exit::Rejected } else { Exit::Failed };
    Failure::new(exit, error)
}

fn take_failure(error: TakeError) -> Failure {
    let exit = match &error {
        TakeError::Open(error) => open_failure(error).exit,
        TakeError::Read(ReadError::Unavailable(_)) | TakeError::Kv(KvError::Unavailable(_)) => {
            Exit::Unreachable
        }
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}

fn restore_failure(error: RestoreError) -> Failure {
    let exit = match &error {
        RestoreError::Refused(_) | RestoreError::PositionsLeft(_) => Exit::Rejected,
        RestoreError::Open(error) => open_failure(error).exit,
        RestoreError::Read(ReadError::Unavailable(_))
        | RestoreError::Kv(KvError::Unavailable(_))
        | RestoreError::Append(AppendError::NotStored(_) | AppendError::Unknown(_)) => Exit::Unreachable,
        _ => Exit::Failed,
    };
    let advice = match error.leaves_a_part() {
        true => {
            "; the realm does not start before it is complete: the same command again goes on where it ended"
        }
        false => "",
    };
    Failure::new(exit, format!("{error}{advice}"))
}
