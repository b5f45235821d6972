//! `antar doctor`: checks an installation against what is promised.
//!
//! * `config` — settings that are valid and dangerous.
//! * `broker` — servers, account, streams, the file; most of it is [`antar_broker::Broker::examine`].
//! * `realm`, `keys` — each realm: its keys, lanes, dead letters, peers.
//! * `kinds` — every finding that there can be; `report` — those that there are.
//! * `ask` — how whoever serves a realm is asked.
//!
//! Architecture invariant: nothing here changes anything. The log is opened for reading only, and what is asked of edges is
//! what they answer without taking note of who asks.

mod ask;
mod broker;
mod config;
mod keys;
mod kinds;
mod realm;
mod report;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use antar_broker::{OpenError, SharedBroker};
use antar_proto::RealmId;
use clap::Args;

use crate::admin::config_or;
use crate::cli::{OperatorArgs, server_address};
use crate::config::{Config, Environment, Flag, Problems};
use crate::exit::{Exit, Outcome};
use crate::say::Format;
use ask::Asker;
use report::Report;

/// `antar doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Looks, and changes nothing; also while the realm is served. Run it with the configuration and as the user of an edge. What it
can find, what that means and what to do about it: proto-docs/doctor.md.

Examples:
  antar doctor --config antar.toml
  antar doctor --config antar.toml --monitor 127.0.0.1:8222     also what only the NATS server's monitoring tells
  antar doctor --data antar-demo --format json

Exit code 0 if nothing was found, or only notes; 1 if there is an error or a warning; 3 if the broker cannot be reached.")]
pub(crate) struct DoctorArgs {
    /// Look at this realm only. Otherwise: that of the configuration, or all that are in the broker.
    #[arg(long, value_name = "REALM")]
    realm: Option<RealmId>,
    /// For people, or one JSON object.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Where a NATS server has its monitoring (`http:` in its configuration). May be repeated, once for each server.
    #[arg(long, value_name = "ADDR", value_parser = server_address)]
    monitor: Vec<SocketAddr>,
    /// Which broker.
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Stands for no realm where a configuration has to have one.
const NO_REALM: &str = "0-not-set";

/// One realm, and what it is looked at with.
struct Patient<'a> {
    config: &'a Config,
    /// Can only be read.
    broker: &'a SharedBroker,
    asker: Arc<Asker>,
    realm: RealmId,
    key_file: PathBuf,
    /// Nobody has said where the key file is, and nothing else tells.
    is_key_file_a_guess: bool,
    /// All realms in the broker.
    beside: &'a [RealmId],
}

/// Runs `antar doctor`.
pub(crate) async fn run(args: DoctorArgs, environment: &Environment) -> Outcome<ExitCode> {
    let mut report = Report::default();
    let presets = vec![Flag("realm.id", "", NO_REALM.to_owned())];
    let named = args.realm.as_ref().map(RealmId::as_str);
    let (shown, unreachable) = match config_or(&args.operator, named, environment, presets) {
        Ok(config) => {
            let exit = examine(&args, &config, &mut report).await;
            (config.broker.to_string(), exit == Some(Exit::Unreachable))
        }
        Err(failure) => match failure.error.downcast_ref::<Problems>() {
            Some(Problems(problems)) => {
                for problem in problems {
                    report.say(None, &kinds::CONFIG_INVALID, "", problem.trim());
                }
                ("the configuration".to_owned(), false)
            }
            None => return Err(failure),
        },
    };
    match args.format {
        Format::Text => report.text(&shown)?,
        Format::Json => report.json(&shown)?,
    }
    Ok(match (unreachable, report.is_healthy()) {
        (true, _) => ExitCode::from(Exit::Unreachable as u8),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(Exit::Failed as u8),
    })
}

/// Looks at everything; why it could not, if it could not.
async fn examine(args: &DoctorArgs, config: &Config, report: &mut Report) -> Option<Exit> {
    config::check(config, args.operator.config.as_deref(), report);
    broker::check_monitors(&config.broker, &args.monitor, report).await;
    let opened = antar_broker::open_for_reading(&config.broker.settings()).await;
    let broker = match opened {
        Ok(broker) => broker,
        Err(error) => return Some(broker::refused(&error, &config.broker, report)),
    };
    let asker = match Asker::of(&config.broker).await {
        Ok(asker) => Arc::new(asker),
        Err(error) => {
            broker.close().await;
            return Some(broker::refused(&error, &config.broker, report));
        }
    };
    let looked = examine_realms(config, &broker, &asker, report).await;
    broker.close().await;
    if let Some(asker) = Arc::into_inner(asker) {
        asker.close().await;
    }
    let why = looked.err()?.to_string();
    Some(broker::refused(&OpenError::Unreachable(why), &config.broker, report))
}

async fn examine_realms(
    config: &Config,
    broker: &SharedBroker,
    asker: &Arc<Asker>,
    report: &mut Report,
) -> Result<(), antar_broker::ReadError> {
    let beside = antar_realm::realms(broker).await?;
    let realms = match config.realm.id.as_str() {
        NO_REALM => beside.clone(),
        _ => vec![config.realm.id.clone()],
    };
    if realms.is_empty() {
        report.say(None, &kinds::REALM_MISSING, "ID", "there is no realm in the broker");
    }
    for realm in realms {
        report.begin(&realm);
        let usual = config.broker.key_file(&config.realm.id);
        let told = config.realm.key_file.clone().filter(|told| *told != usual);
        let patient = Patient {
            config,
            broker,
            asker: asker.clone(),
            // Beside a database is where it is made; a NATS server tells nothing of where an edge is.
            is_key_file_a_guess: told.is_none() && config.broker.sqlite_path().is_none(),
            key_file: told.unwrap_or_else(|| config.broker.key_file(&realm)),
            realm,
            beside: &beside,
        };
        realm::check(&patient, report).await?;
    }
    Ok(())
}
