//! What operators do: `antar user …`, `antar bot …`, `antar realm …` and `antar dead …`.
//!
//! Owns: the one way from a command to an [`AdminRequest`] and its reply. Must not know how a realm carries it out.

mod backup;
mod bot;
mod dead;
mod import;
mod nats_config;
mod operator;
mod password;
mod quarantine;
mod realm;
mod user;

use antar_realm::admin::AdminReply;

pub(crate) use backup::{BackupArgs, RestoreArgs};
pub(crate) use bot::{BotArgs, run as run_bot};
pub(crate) use dead::{DeadArgs, run as run_dead};
pub(crate) use nats_config::NatsConfigArgs;
pub(crate) use password::read as read_password;
pub(crate) use quarantine::QuarantineCommand;

pub(crate) use user::RemoveArgs;

use crate::cli::{OperatorArgs, RealmArgs, RealmCommand, UserArgs};
use crate::config::{BrokerConfig, Config, Environment, Flag, Sources};
use crate::demo::{DEMO_DIRECTORY, DEMO_FILE};
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
pub(crate) use operator::{Operator, Target};

/// Runs `antar user …`.
pub(crate) async fn run_user(args: UserArgs, environment: &Environment) -> Outcome {
    let target = target(&args.operator, args.realm.as_deref(), environment)?;
    user::run(args.command, target, environment).await
}

/// Runs `antar realm …`.
pub(crate) async fn run_realm(args: RealmArgs, environment: &Environment) -> Outcome {
    if let RealmCommand::NatsConfig(args) = &args.command {
        return nats_config::run(args);
    }
    // The file says which realm it is of.
    let in_file = match &args.command {
        RealmCommand::Restore(args) => Some(backup::realm_of(args)?),
        _ => None,
    };
    let id = in_file.as_deref().or_else(|| args.command.id());
    let target = target(&args.operator, id, environment)?;
    realm::run(args.command, target, environment.operator()).await
}

/// Which broker is meant, by a command that is about no one realm.
pub(crate) fn broker_of(args: &OperatorArgs, environment: &Environment) -> Outcome<BrokerConfig> {
    // A configuration needs a realm; which, does not matter here.
    let any = Flag("realm.id", "this command", "any".to_owned());
    target_or(args, None, environment, vec![any]).map(|target| target.broker)
}

/// Which realm on which broker is meant.
pub(crate) fn target(args: &OperatorArgs, realm: Option<&str>, environment: &Environment) -> Outcome<Target> {
    target_or(args, realm, environment, Vec::new())
}

/// The same for a command that can do without a realm's id: then it is the one in `presets`.
pub(crate) fn target_or(
    args: &OperatorArgs,
    realm: Option<&str>,
    environment: &Environment,
    presets: Vec<Flag>,
) -> Outcome<Target> {
    let config = config_or(args, realm, environment, presets)?;
    Ok(Target { realm: config.realm, broker: config.broker })
}

/// All of the configuration of which [`target_or`] gives a part. One that is not valid is an error with [`Problems`].
///
/// [`Problems`]: crate::config::Problems
pub(crate) fn config_or(
    args: &OperatorArgs,
    realm: Option<&str>,
    environment: &Environment,
    presets: Vec<Flag>,
) -> Outcome<Config> {
    let mut flags = Vec::new();
    flags.extend(realm.map(|realm| Flag("realm.id", "--realm", realm.to_owned())));
    flags.extend(args.broker.as_ref().map(|url| Flag("broker.url", "--broker", url.clone())));
    let in_data = |dir: &std::path::Path| format!("sqlite:{}", dir.join(DEMO_FILE).display());
    flags.extend(args.data.as_ref().map(|dir| Flag("broker.url", "--data", in_data(dir))));
    let sources = Sources { file: args.config.as_deref(), environment: Some(environment), flags, presets };
    let mut config = Config::load(sources).or_exit(Exit::Usage)?;
    if config.broker.is_default {
        let demo = std::path::Path::new(DEMO_DIRECTORY);
        let own = config.broker.sqlite_path().is_some_and(|path| path.exists());
        match (own, demo.join(DEMO_FILE).exists()) {
            (true, true) => {
                let message = format!(
                    "there are two databases here, {} and the demo's: say which by --broker {} or --data {DEMO_DIRECTORY}",
                    config.broker, config.broker
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            (false, true) => {
                let usual = config.broker.key_file(&config.realm.id);
                config.broker.url = in_data(demo);
                if config.realm.key_file == Some(usual) {
                    config.realm.key_file = Some(config.broker.key_file(&config.realm.id));
                }
            }
            (_, false) => {}
        }
    }
    Ok(config)
}

/// The error for a reply that is none of those that the request can have.
pub(crate) fn unexpected(reply: &AdminReply) -> Failure {
    match reply {
        AdminReply::Refused { code, message } => Failure::new(Exit::Rejected, format!("{message} ({code})")),
        AdminReply::Unavailable { message } => Failure::new(Exit::Unreachable, message),
        _ => Failure::new(
            Exit::Failed,
            "the realm answered something else than was asked: is it of another version?",
        ),
    }
}
