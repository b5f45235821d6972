//! `antar user …`.

use std::io::IsTerminal as _;
use std::path::Path;

use antar_realm::admin::{AccountInfo, AdminReply, AdminRequest, IMPORT_ACCOUNTS_MAX, NewAccount};
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::operator::{Operator, Target};
use super::{import, password, unexpected};
use crate::cli::UserCommand;
use crate::config::Environment;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::say;

/// `antar user remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Whose.
    user: String,
    /// Remove all else that this realm keeps of the user and of nobody else, and say what others keep. To repeat it is safe.
    #[arg(long)]
    erase: bool,
    /// Who does it, for the event; USER@HOST if not given.
    #[arg(long, value_name = "NAME", requires = "erase")]
    by: Option<String>,
    /// One JSON object with what was erased.
    #[arg(long, requires = "erase")]
    json: bool,
}

/// Runs one command.
pub(crate) async fn run(command: UserCommand, target: Target, environment: &Environment) -> Outcome {
    // What has to be read or asked for comes first: nothing is opened for a command that cannot be carried out.
    let (request, done) = match command {
        UserCommand::List { json } => {
            return with(target, false, async |operator| list(operator, json).await).await;
        }
        UserCommand::Import { file, json } => {
            let accounts = read_accounts(&file)?;
            return with(target, true, async move |operator| import_all(operator, accounts, json).await)
                .await;
        }
        UserCommand::Invite { uses, days } => {
            let request = AdminRequest::UserInvite { uses, days };
            return with(target, true, async move |operator| invite(operator, request).await).await;
        }
        UserCommand::Add { user, name, country, password } => {
            let password = password::read_new(password.password_file.as_deref(), environment)?;
            let done = format!("{user} can log in");
            (AdminRequest::UserAdd(NewAccount { user, password, name, country }), done)
        }
        UserCommand::Passwd { user, password } => {
            let password = password::read_new(password.password_file.as_deref(), environment)?;
            let done = format!("{user} has a new password, and no session");
            (AdminRequest::UserPasswd { user, password }, done)
        }
        UserCommand::Disable { user } => {
            let done = format!("{user} cannot log in any more");
            (AdminRequest::UserDisable { user, disabled: true }, done)
        }
        UserCommand::Enable { user } => {
            let done = format!("{user} can log in again");
            (AdminRequest::UserDisable { user, disabled: false }, done)
        }
        UserCommand::Remove(RemoveArgs { user, erase: true, by, json }) => {
            let by = by.unwrap_or_else(|| environment.operator());
            return with(target, false, async move |operator| erase(operator, user, by, json).await).await;
        }
        UserCommand::Remove(RemoveArgs { user, .. }) => {
            let done = format!("{user} is gone");
            (AdminRequest::UserRemove { user }, done)
        }
    };
    let may_make = matches!(request, AdminRequest::UserAdd(_));
    with(target, may_make, async move |operator| operator.tell(request).await).await?;
    say::line(done)
}

/// Reaches the realm, does one thing, and leaves it in good order whatever came of it.
pub(crate) async fn with(
    target: Target,
    may_make: bool,
    act: impl AsyncFnOnce(&Operator) -> Outcome,
) -> Outcome {
    let operator = Operator::reach(target, may_make).await?;
    let outcome = act(&operator).await;
    operator.leave().await;
    outcome
}

async fn list(operator: &Operator, json: bool) -> Outcome {
    let mut rows = vec![["user", "name", "country", "sessions", "created", ""].map(String::from).to_vec()];
    let mut after = None;
    loop {
        let (accounts, more) = match operator.ask(AdminRequest::UserList { after: after.take() }).await? {
            AdminReply::Accounts { accounts, more } => (accounts, more),
            reply => return Err(unexpected(&reply)),
        };
        for account in &accounts {
            if json {
                say::json(account)?;
            } else {
                rows.push(row(account));
            }
        }
        after = accounts.last().map(|account| account.user.clone());
        if !more || after.is_none() {
            break;
        }
    }
    if json { Ok(()) } else { say::table(&rows) }
}

fn row(account: &AccountInfo) -> Vec<String> {
    let state = if account.disabled { "disabled" } else { "" };
    let AccountInfo { user, name, country, sessions, created, .. } = account;
    vec![user.clone(), name.clone(), country.clone(), sessions.to_string(), created.clone(), state.into()]
}

async fn invite(operator: &Operator, request: AdminRequest) -> Outcome {
    match operator.ask(request).await? {
        AdminReply::Invitation { code } => say::line(code),
        reply => Err(unexpected(&reply)),
    }
}

/// What was erased, and what is kept elsewhere.
#[derive(Debug, Serialize)]
struct Erased<'a> {
    user: &'a str,
    known: bool,
    entries: u64,
    kept_by: &'a [String],
}

async fn erase(operator: &Operator, user: String, by: String, json: bool) -> Outcome {
    let request = AdminRequest::UserErase { user: user.clone(), by };
    let (known, entries, peers) = match operator.ask(request).await? {
        AdminReply::Erased { known, entries, peers } => (known, entries, peers),
        reply => return Err(unexpected(&reply)),
    };
    if json {
        return say::json(&Erased { user: &user, known, entries, kept_by: &peers });
    }
    say::line(match known {
        true => format!("{user} is gone, with {entries} entries of the mailbox"),
        false => format!("there was no account of this name; {entries} entries of its mailbox are gone"),
    })?;
    say::remark(
        "kept: what others received, under the name that they saw; events, for retention.days; every backup",
    );
    if !peers.is_empty() {
        say::remark(format!("other realms keep what they were sent: {}", peers.join(", ")));
    }
    Ok(())
}

fn read_accounts(file: &Path) -> Outcome<Vec<NewAccount>> {
    let name = file.display();
    let parsed = if file == Path::new("-") {
        import::parse(std::io::stdin().lock())
    } else {
        import::parse(std::fs::File::open(file).with_context(|| name.to_string()).or_exit(Exit::Usage)?)
    };
    parsed.map_err(|problems| {
        Failure::new(Exit::Usage, format!("{name}: nothing was imported\n  {}", problems.join("\n  ")))
    })
}

/// What an import did.
#[derive(Debug, Default, Serialize)]
struct Imported {
    added: usize,
    existing: Vec<String>,
    refused: Vec<Refused>,
}

#[derive(Debug, Serialize)]
struct Refused {
    user: String,
    reason: String,
}

async fn import_all(operator: &Operator, accounts: Vec<NewAccount>, json: bool) -> Outcome {
    let total = accounts.len();
    let mut all = Imported::default();
    let mut done = 0;
    for chunk in accounts.chunks(IMPORT_ACCOUNTS_MAX) {
        let reply = operator.ask(AdminRequest::UserImport { accounts: chunk.to_vec() }).await;
        let reply = reply.map_err(|failure| Failure {
            exit: failure.exit,
            error: failure
                .error
                .context(format!("after {done} of {total} accounts; the same import may be run again")),
        })?;
        let AdminReply::Imported { added, existing, refused } = reply else { return Err(unexpected(&reply)) };
        all.added += added;
        all.existing.extend(existing);
        all.refused.extend(refused.into_iter().map(|(user, reason)| Refused { user, reason }));
        done += chunk.len();
        if std::io::stderr().is_terminal() {
            say::remark(format!("{done} of {total}"));
        }
    }
    if json {
        say::json(&all)?;
    } else {
        all.refused
            .iter()
            .try_for_each(|Refused { user, reason }| say::line(format!("refused {user}: {reason}")))?;
        say::line(format!(
            "{} added, {} there already, {} refused",
            all.added,
            all.existing.len(),
            all.refused.len()
        ))?;
    }
    match all.refused.len() {
        0 => Ok(()),
        count => Err(Failure::new(Exit::Rejected, format!("{count} of {total} accounts were refused"))),
    }
}
