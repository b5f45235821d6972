//! `antar serve`: one edge server of one realm.

use crate::cli::ServeArgs;
use crate::config::{Config, Environment, Raw, Sources, keys, print};
use crate::exit::{Exit, OrExit as _, Outcome};
use crate::say;
use crate::server::{self, Site};

/// Where the configuration of `serve` comes from.
fn sources<'a>(args: &'a ServeArgs, environment: &'a Environment) -> Sources<'a> {
    let file = args.config.as_deref();
    Sources { file, environment: Some(environment), flags: args.flags(), ..Sources::default() }
}

/// Serves until a signal comes.
pub(crate) async fn run(args: ServeArgs, environment: &Environment) -> Outcome {
    let config = Config::load(sources(&args, environment)).or_exit(Exit::Usage)?;
    let logging = crate::log::init(&config.log)?;
    let Config { realm, command, tls, http, certificate, .. } = config;
    let site = Site { realm, command, tls, http, certificate, flag: "--listen", http_flag: "--http" };
    let outcome = server::run(&config.broker, &config.edge, vec![site], |_| Ok(())).await;
    logging.end().await;
    outcome
}

/// `antar config check`.
pub(crate) fn check(args: &ServeArgs, environment: &Environment) -> Outcome {
    Config::load(sources(args, environment)).or_exit(Exit::Usage)?;
    say::line("OK")
}

/// `antar config print`. What is wrong is told after what could be read.
pub(crate) fn print_config(args: &ServeArgs, environment: &Environment) -> Outcome {
    let mut raw = Raw::read(sources(args, environment)).or_exit(Exit::Usage)?;
    say::line(print(&raw).trim_end())?;
    Config::validate(&mut raw).or_exit(Exit::Usage)?;
    Ok(())
}

/// `antar config keys`.
pub(crate) fn print_keys() -> Outcome {
    say::line(keys::markdown().trim_end())
}
