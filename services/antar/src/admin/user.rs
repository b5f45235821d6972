//! `antar user …`.

use std::io::IsTerminal as _;
use std::path::Path;

use antar_realm::admin::{AccountInfo, AdminReply, AdminRequest, IMPORT_ACCOUNTS_MAX, NewAccount};
use anyhow::Context as _;
use serde::Serialize;

use super::operator::{Operator, Target};
use super::{import, password, unexpected};
use crate::cli::UserCommand;
use crate::config::Environment;
use crate::exit::{Exit, Failure, OrExit as _, Outcome};
use crate::say;

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
        UserCommand::Remove { user } => {
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
