//! `antar bot …`: users that are programs, and the hooks by which others speak in their name.

use antar_realm::admin::{AdminReply, AdminRequest};
use clap::{Args, Subcommand};

use super::operator::Operator;
use super::user::with;
use super::{target, unexpected};
use crate::cli::OperatorArgs;
use crate::config::Environment;
use crate::exit::Outcome;
use crate::say;

/// `antar bot`.
#[derive(Debug, Args)]
#[command(after_help = "\
A bot is a user without a password. Its token does not expire, and works wherever the token of a login does. A hook lets a program that
speaks HTTP say something in one conversation, in the name of a bot: POST /hook/SECRET on listen.http. Tokens and secrets are shown
once, and only a hash of them is kept.

Examples:
  antar bot add --realm kampus ci --name 'Build server'
  antar bot hook --realm kampus ci messi
  curl -d 'build 7 failed' http://127.0.0.1:8080/hook/SECRET
  antar bot revoke --realm kampus ci

Exit code 5 if the realm refused something.")]
pub(crate) struct BotArgs {
    /// The realm (realm.id).
    #[arg(long, global = true, value_name = "ID")]
    realm: Option<String>,
    /// Which broker.
    #[command(flatten)]
    operator: OperatorArgs,
    /// What to do.
    #[command(subcommand)]
    command: BotCommand,
}

/// `antar bot …`.
#[derive(Debug, Subcommand)]
enum BotCommand {
    /// Make a bot, and print its token. One that is there gets another token; one that was revoked comes back.
    Add {
        /// Name, as that of a user.
        bot: String,
        /// Name to show; the bot's if not given.
        #[arg(long, default_value = "")]
        name: String,
        /// Who does it, for the event; USER@HOST if not given.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Make a hook that writes to a user, and print its secret.
    Hook {
        /// In whose name.
        bot: String,
        /// To whom: USER or USER@REALM.
        to: String,
        /// Who does it, for the event; USER@HOST if not given.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// List bots and their hooks.
    List {
        /// One JSON object a bot.
        #[arg(long)]
        json: bool,
    },
    /// Take a bot's tokens and hooks back, or one hook.
    Revoke {
        /// Whose.
        bot: String,
        /// Only this hook, by its id.
        #[arg(long, value_name = "ID")]
        hook: Option<String>,
        /// Who does it, for the event; USER@HOST if not given.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

/// Runs `antar bot …`.
pub(crate) async fn run(args: BotArgs, environment: &Environment) -> Outcome {
    let target = target(&args.operator, args.realm.as_deref(), environment)?;
    let operator = |by: Option<String>| by.unwrap_or_else(|| environment.operator());
    match args.command {
        BotCommand::Add { bot, name, by } => {
            let request = AdminRequest::BotAdd { bot, name, by: operator(by) };
            with(target, true, async move |operator| match operator.ask(request).await? {
                AdminReply::BotAdded { token } => say::line(token),
                reply => Err(unexpected(&reply)),
            })
            .await
        }
        BotCommand::Hook { bot, to, by } => {
            let request = AdminRequest::BotHook { bot, to, by: operator(by) };
            with(target, false, async move |operator| match operator.ask(request).await? {
                AdminReply::HookAdded { id, secret } => {
                    say::remark(format!("hook {id}; POST to /hook/ and this secret on listen.http:"));
                    say::line(secret)
                }
                reply => Err(unexpected(&reply)),
            })
            .await
        }
        BotCommand::List { json } => {
            with(target, false, async move |operator| list(operator, json).await).await
        }
        BotCommand::Revoke { bot, hook, by } => {
            let done = match &hook {
                Some(hook) => format!("hook {hook} of {bot} is dead"),
                None => format!("{bot} has no token and no hook any more"),
            };
            let request = AdminRequest::BotRevoke { bot, hook, by: operator(by) };
            with(target, false, async move |operator| operator.tell(request).await).await?;
            say::line(done)
        }
    }
}

async fn list(operator: &Operator, json: bool) -> Outcome {
    let bots = match operator.ask(AdminRequest::BotList).await? {
        AdminReply::Bots { bots } => bots,
        reply => return Err(unexpected(&reply)),
    };
    if json {
        return bots.iter().try_for_each(say::json);
    }
    if bots.is_empty() {
        say::remark("no bots");
        return Ok(());
    }
    let mut rows =
        vec![["bot", "name", "tokens", "hook", "to", "by", "created", ""].map(String::from).to_vec()];
    for bot in &bots {
        let state = if bot.revoked { "revoked" } else { "" };
        let (tokens, created) = (bot.tokens.to_string(), bot.created.clone());
        let own = [&*bot.bot, &*bot.name, &*tokens, "", "", "", &*created, state];
        rows.push(own.map(say::harmless).to_vec());
        for hook in &bot.hooks {
            let hook = ["", "", "", &*hook.id, &*hook.to, &*hook.by, &*hook.created, ""];
            rows.push(hook.map(say::harmless).to_vec());
        }
    }
    say::table(&rows)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    #[test]
    fn the_examples_of_the_help_are_commands() {
        for line in [
            "antar bot add --realm kampus ci --name Build",
            "antar bot hook --realm kampus ci messi@realm2 --by ops",
            "antar bot revoke --realm kampus ci --hook 0123456789ab",
            "antar bot list --json",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }
}
