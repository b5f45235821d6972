//! `antar realm nats-config`: an account of NATS for each realm, joined to the others by services and nothing else.
//!
//! Owns: the text of the accounts, and the keys that realms log in with. Needs no broker. Must not know: how a server is
//! run beside that; `deploy/nats/` includes what is written here.
//!
//! Why accounts: inside one account no permissions keep realms apart (a consumer's delivery subject, a reply subject or a
//! rollup header reach what permissions forbid). What a realm publishes to `realm.b.inbox` arrives in *b*'s account as
//! `realm.b.inbox.<realm>`: the server tells the origin, and a limit for each subject holds each origin's share.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use antar_proto::RealmId;
use anyhow::Context as _;
use clap::{Args, ValueHint};
use nkeys::{KeyPair, KeyPairType};

use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::say;

/// `antar realm nats-config`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each realm logs in with a key: DIR/REALM/nats.nk holds its seed (broker.credentials_file). Seeds that are there are kept,
so the same command with one more realm adds that realm; then `nats-server --signal reload` twice, a second apart (the
first makes the account, the second joins it). The file with the accounts holds public keys only. DIR/SYS/nats.nk is for
the servers' own account.

Examples:
  antar realm nats-config realm1 realm2 --credentials keys --output accounts.conf
  antar realm nats-config realm1 realm2=UBXKIUJF4G5ITROD5BV6SDR6P4Q65O2WV43UPBJ6CNUZJZZYUG7P7UN5 --credentials keys")]
pub(crate) struct NatsConfigArgs {
    /// The realms; with =U…, the public key that the realm's operators made, so that its seed is not known here.
    #[arg(required = true, value_name = "REALM[=KEY]")]
    pub(super) realms: Vec<Tenant>,
    /// Where seeds are, and are made if they are not there.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) credentials: Option<PathBuf>,
    /// The file to write, instead of standard output.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) output: Option<PathBuf>,
    /// What each realm may store, in GiB; in a cluster each replica counts.
    #[arg(long, value_name = "GIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) storage_gib: u32,
}

/// The servers' own account, for `nats server …`. Realm ids are lower case, so no realm has this name.
const SYSTEM: &str = "SYS";
/// The file that holds a realm's seed, in the realm's folder of `--credentials`.
const SEED_FILE: &str = "nats.nk";
/// Streams of one account: a realm has 3, 5 buckets and an object store; the rest is room for an operator's own.
const STREAMS_MAX: u32 = 32;
/// Consumers of one account, watches of buckets among them: some ten for each edge and one for each peer. A consumer
/// costs the server about 50 KiB, so this is what an account can make it hold: 500 MiB.
const CONSUMERS_MAX: u32 = 10_000;
/// Connections of one account: edges, operators' commands and tools.
const CONNECTIONS_MAX: u32 = 256;
/// Subscriptions of each connection: an edge has one for each user that is logged in on it.
const SUBSCRIPTIONS_MAX: u32 = 200_000;
/// Leaf nodes of one account: sites of one realm.
const LEAF_NODES_MAX: u32 = 16;

/// A realm that gets an account, and its public key if that was made elsewhere: `REALM` or `REALM=U…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenant {
    realm: RealmId,
    key: Option<String>,
}

impl FromStr for Tenant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, key) = text.split_once('=').map_or((text, None), |(id, key)| (id, Some(key)));
        let realm = id.parse().map_err(|_| {
            format!("{id:?} is no realm id: 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or a digit")
        })?;
        let public = |key: &str| {
            let pair = KeyPair::from_public_key(key).ok()?;
            (pair.key_pair_type() == KeyPairType::User).then(|| key.to_owned())
        };
        let key = key.map(|key| public(key).ok_or("after = comes the public key of a user, U…".to_owned()));
        Ok(Self { realm, key: key.transpose()? })
    }
}

/// A realm and the public key that it logs in with.
struct Account {
    realm: RealmId,
    key: String,
}

/// Writes the accounts, and the keys that are not there yet.
pub(crate) fn run(args: &NatsConfigArgs) -> Outcome {
    for (at, tenant) in args.realms.iter().enumerate() {
        if args.realms[..at].iter().any(|other| other.realm == tenant.realm) {
            return Err(Failure::new(Exit::Usage, format!("{} is named twice", tenant.realm)));
        }
    }
    let folder = args.credentials.as_deref();
    let account = |tenant: &Tenant| {
        let key = match (&tenant.key, folder) {
            (Some(key), _) => key.clone(),
            (None, Some(folder)) => key_in(&folder.join(tenant.realm.as_str()))?,
            (None, None) => {
                let message = format!(
                    "{} needs a key: --credentials DIR makes one there, {}=U… takes one made elsewhere",
                    tenant.realm, tenant.realm
                );
                return Err(Failure::new(Exit::Usage, message));
            }
        };
        Ok(Account { realm: tenant.realm.clone(), key })
    };
    let accounts = args.realms.iter().map(account).collect::<Outcome<Vec<_>>>()?;
    let system = folder.map(|folder| key_in(&folder.join(SYSTEM))).transpose()?;
    let text = text(&accounts, system.as_deref(), args.storage_gib);
    match &args.output {
        Some(path) => replace(path, &text),
        None => say::line(text.trim_end()),
    }
}

/// The public key of the seed in `folder`, which is made if it is not there.
fn key_in(folder: &Path) -> Outcome<String> {
    let path = folder.join(SEED_FILE);
    let shown = path.display();
    let pair = match fs::read_to_string(&path) {
        Ok(text) => {
            let pair = KeyPair::from_seed(text.trim()).ok();
            pair.filter(|pair| pair.key_pair_type() == KeyPairType::User).ok_or_else(|| {
                Failure::new(Exit::Failed, format!("{shown} does not hold the seed of a user (SU…)"))
            })?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let pair = KeyPair::new_user();
            let seed = pair.seed().context("a new key has a seed")?;
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| shown.to_string())?;
            write_new(&path, 0o600, &format!("{seed}\n")).with_context(|| shown.to_string())?;
            say::remark(format!("made {shown}"));
            pair
        }
        Err(error) => return Err(error).with_context(|| shown.to_string()).or_exit(Exit::Failed),
    };
    Ok(pair.public_key())
}

/// Puts `text` in the place of the file, whole or not at all: a server may be reading it.
fn replace(path: &Path, text: &str) -> Outcome {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}", std::process::id()));
    let part = PathBuf::from(part);
    // Public keys only: the server, which often runs as another user, has to read it.
    let done = write_new(&part, 0o644, text).and_then(|()| fs::rename(&part, path));
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    Ok(done.with_context(|| path.display().to_string())?)
}

fn write_new(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The accounts in the language of nats-server. Names are quoted: there may be a realm called `true` or `10m`.
fn text(accounts: &[Account], system: Option<&str>, storage_gib: u32) -> String {
    let mut out = String::from(
        "# Accounts for nats-server, written by `antar realm nats-config`: a change by hand is lost when it is run again.\n\
         # Every realm has an account of its own. They are joined by the services below and by nothing else: a realm may\n\
         # publish into the inbox of another, gets the acknowledgement back, and may ask for its name card.\n\
         # The keys are public; the seeds that belong to them are in the realms' own files.\n",
    );
    if system.is_some() {
        let _ = writeln!(
            out,
            "\n# The account of the servers themselves, for `nats server report` and the like."
        );
        let _ = writeln!(out, "system_account: {SYSTEM}");
    }
    let _ = writeln!(out, "\naccounts {{");
    if let Some(key) = system {
        let _ = writeln!(out, "  \"{SYSTEM}\" {{\n    users: [{{nkey: \"{key}\"}}]\n  }}");
    }
    for Account { realm, key } in accounts {
        let peers = || accounts.iter().map(|account| &account.realm).filter(|peer| *peer != realm);
        let _ = writeln!(out, "  \"{realm}\" {{");
        let _ = writeln!(out, "    users: [{{nkey: \"{key}\"}}]");
        let _ = writeln!(
            out,
            "    # Everything is stored in files. In a cluster each replica counts.\n    \
             jetstream: {{max_memory: 0, max_file: {storage_gib}GiB, max_streams: {STREAMS_MAX}, max_consumers: {CONSUMERS_MAX}}}"
        );
        let _ = writeln!(
            out,
            "    limits: {{max_connections: {CONNECTIONS_MAX}, max_subscriptions: {SUBSCRIPTIONS_MAX}, max_leafnodes: {LEAF_NODES_MAX}}}"
        );
        let _ = writeln!(out, "    exports: [");
        for peer in peers() {
            let _ =
                writeln!(out, "      {{service: \"realm.{realm}.inbox.{peer}\", accounts: [\"{peer}\"]}}");
        }
        if peers().next().is_some() {
            let names = peers().map(|peer| format!("\"{peer}\"")).collect::<Vec<_>>().join(", ");
            let _ = writeln!(out, "      {{service: \"realm.{realm}.info\", accounts: [{names}]}}");
        }
        let _ = writeln!(out, "    ]\n    imports: [");
        for peer in peers() {
            let inbox = format!("{{account: \"{peer}\", subject: \"realm.{peer}.inbox.{realm}\"}}");
            let _ = writeln!(out, "      {{service: {inbox}, to: \"realm.{peer}.inbox\"}}");
            let _ =
                writeln!(out, "      {{service: {{account: \"{peer}\", subject: \"realm.{peer}.info\"}}}}");
        }
        let _ = writeln!(out, "    ]\n  }}");
    }
    out + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn args(realms: &[&str], credentials: Option<&Path>, output: &Path) -> NatsConfigArgs {
        NatsConfigArgs {
            realms: realms.iter().map(|text| text.parse().unwrap()).collect(),
            credentials: credentials.map(Path::to_owned),
            output: Some(output.to_owned()),
            storage_gib: 1,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn seeds_are_private_kept_and_not_in_the_accounts() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, output) = (dir.path().join("keys"), dir.path().join("accounts.conf"));
        run(&args(&["a", "b"], Some(&keys), &output)).unwrap();
        let first = fs::read_to_string(&output).unwrap();
        for name in ["a", "b", SYSTEM] {
            let path = keys.join(name).join(SEED_FILE);
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700), "{name}");
            let seed = fs::read_to_string(&path).unwrap();
            let key = KeyPair::from_seed(seed.trim()).unwrap().public_key();
            assert!(first.contains(&key) && !first.contains(seed.trim()), "{first}");
        }
        // A further realm changes no key of the others.
        run(&args(&["a", "b", "c"], Some(&keys), &output)).unwrap();
        let second = fs::read_to_string(&output).unwrap();
        for line in first.lines().filter(|line| line.contains("nkey")) {
            assert!(second.contains(line), "{line} is gone");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn every_pair_is_joined_in_both_directions_and_no_realm_with_itself() {
        let key = KeyPair::new_user().public_key();
        let account = |id: &str| Account { realm: id.parse().unwrap(), key: key.clone() };
        let text = text(&["a", "b", "c"].map(account), None, 1);
        for (realm, peer) in [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")] {
            let export = format!("{{service: \"realm.{realm}.inbox.{peer}\", accounts: [\"{peer}\"]}}");
            assert_eq!(text.matches(&export).count(), 1, "{export} in {text}");
            let import = format!(
                "{{service: {{account: \"{peer}\", subject: \"realm.{peer}.inbox.{realm}\"}}, to: \"realm.{peer}.inbox\"}}"
            );
            assert_eq!(text.matches(&import).count(), 1, "{import} in {text}");
        }
        assert_eq!(text.matches("service:").count(), 6 + 3 + 12, "{text}");
        assert!(!text.contains("realm.a.inbox.a"), "{text}");
    }

    #[test]
    fn a_key_made_elsewhere_is_taken_if_it_is_a_users_public_key() {
        let user = KeyPair::new_user();
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("accounts.conf");
        run(&args(&[&format!("a={}", user.public_key())], None, &output)).unwrap();
        assert!(fs::read_to_string(&output).unwrap().contains(&user.public_key()));
        for wrong in [user.seed().unwrap(), KeyPair::new_account().public_key(), "U".into(), String::new()] {
            assert!(format!("a={wrong}").parse::<Tenant>().is_err(), "{wrong}");
        }
        for wrong in ["", "A", "a.b", "*", "a\"", "a b", SYSTEM] {
            assert!(wrong.parse::<Tenant>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_a_foreign_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("accounts.conf");
        let refused = run(&args(&["a", "a"], Some(dir.path()), &output)).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        let refused = run(&args(&["a"], None, &output)).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        let seed = dir.path().join("a").join(SEED_FILE);
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(&seed, "something else").unwrap();
        assert_eq!(run(&args(&["a"], Some(dir.path()), &output)).unwrap_err().exit, Exit::Failed);
        assert_eq!(fs::read_to_string(&seed).unwrap(), "something else");
        assert!(!output.exists());
    }
}
