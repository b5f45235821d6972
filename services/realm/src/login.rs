//! Logging in, registering and changing a password.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use antar_broker::KvError;
use antar_proto::{ErrorCode, UserName};
use tokio::sync::OwnedMutexGuard;

use crate::account::{Account, AccountError};
use crate::config::Registration;
use crate::event::RealmEvent;
use crate::password::{HashError, PASSWORD_BYTES_MAX};
use crate::session::SessionKey;
use crate::shared::Shared;

/// So many failures of one account from one address within [`FAILURE_WINDOW`] are answered at once; further tries wait
/// (`reliability.md`, Accounts).
const FAILURES_FREE: usize = 10;
/// How long a failure counts.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// How long a further try waits.
const FAILURE_DELAY: Duration = Duration::from_secs(2);
/// Most pairs of account and address that are remembered.
const FAILURE_PAIRS_MAX: usize = 10_000;

/// Why nobody was logged in, or no account was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// There is no such account.
    #[error("no such account")]
    NoSuchAccount,
    /// The password is wrong.
    #[error("wrong password")]
    BadPassword,
    /// One of the two, where the realm does not tell which.
    #[error("wrong user or password")]
    BadCredentials,
    /// The realm does not let this person register.
    #[error("{0}")]
    RegistrationClosed(&'static str),
    /// The account cannot be made or changed like this.
    #[error(transparent)]
    Account(AccountError),
    /// Too many logins at once.
    #[error("too many logins at once, try again")]
    Busy,
    /// The broker does not answer.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
}

impl LoginError {
    /// Its code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchAccount => ErrorCode::NoSuchAccount,
            Self::BadPassword => ErrorCode::BadPassword,
            Self::BadCredentials => ErrorCode::BadCredentials,
            Self::RegistrationClosed(_) => ErrorCode::RegistrationClosed,
            Self::Account(error) => error.code(),
            Self::Busy => ErrorCode::SlowDown,
            Self::Unavailable(_) => ErrorCode::Unavailable,
        }
    }
}

impl AccountError {
    /// Its code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadName | Self::BadDisplay => ErrorCode::BadName,
            Self::WeakPassword { .. } => ErrorCode::WeakPassword,
            Self::Exists => ErrorCode::UserExists,
            Self::NoSuchUser => ErrorCode::NoSuchUser,
            Self::Busy => ErrorCode::SlowDown,
            Self::Unavailable(_) => ErrorCode::Unavailable,
        }
    }
}

impl From<AccountError> for LoginError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Busy => Self::Busy,
            AccountError::Unavailable(why) => Self::Unavailable(why),
            other => Self::Account(other),
        }
    }
}

impl From<HashError> for LoginError {
    fn from(_: HashError) -> Self {
        Self::Busy
    }
}

impl From<KvError> for LoginError {
    fn from(error: KvError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// Failures of the last minute, for each account and address.
#[derive(Default)]
pub(crate) struct Throttle {
    failures: Mutex<HashMap<(String, IpAddr), Failures>>,
}

#[derive(Default)]
struct Failures {
    times: VecDeque<Instant>,
    /// Tries that have to wait do so one after the other, however many connections they come from.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Throttle {
    /// Waits as long as a try has to. While what this returns is held, no other such try goes on.
    async fn wait(&self, user: &str, from: IpAddr) -> Option<OwnedMutexGuard<()>> {
        let turn = {
            let mut failures = self.failures.lock().expect("no holder of this lock panics");
            let known = failures.get_mut(&(user.to_owned(), from))?;
            known.times.retain(|at| at.elapsed() < FAILURE_WINDOW);
            (known.times.len() >= FAILURES_FREE).then(|| known.turn.clone())?
        };
        let turn = turn.lock_owned().await;
        tokio::time::sleep(FAILURE_DELAY).await;
        Some(turn)
    }

    fn failed(&self, user: &str, from: IpAddr) {
        let mut failures = self.failures.lock().expect("no holder of this lock panics");
        if failures.len() >= FAILURE_PAIRS_MAX {
            failures.retain(|_, known| known.times.back().is_some_and(|at| at.elapsed() < FAILURE_WINDOW));
        }
        if failures.len() >= FAILURE_PAIRS_MAX {
            // Somebody guesses from very many addresses, or at very many names: forgetting all is better than forgetting
            // to count.
            failures.clear();
        }
        let times = &mut failures.entry((user.to_owned(), from)).or_default().times;
        times.push_back(Instant::now());
        if times.len() > FAILURES_FREE {
            times.pop_front();
        }
    }

    fn succeeded(&self, user: &str, from: IpAddr) {
        self.failures.lock().expect("no holder of this lock panics").remove(&(user.to_owned(), from));
    }
}

impl Shared {
    pub(crate) async fn login(
        self: &Arc<Self>,
        user: &str,
        password: &str,
        from: IpAddr,
    ) -> Result<String, LoginError> {
        // A name that can be none is not remembered as it stands: it may be as long as a line.
        let name = user.parse::<UserName>().ok();
        let known = name.as_ref().map_or("", UserName::as_str);
        let _turn = self.throttle.wait(known, from).await;
        let mut account = match &name {
            Some(name) => self.accounts.copy.fresh(name.as_str()).await?.filter(|account| !account.disabled),
            None => None,
        };
        let mut right = self.is_right(account.as_deref(), password).await?;
        if let (Some(old), false) = (&account, right) {
            // The password may have been changed on another edge a moment ago.
            self.accounts.copy.catch_up(old.user.as_str()).await?;
            let now = self.accounts.get(&old.user).filter(|account| !account.disabled);
            if now.as_ref().is_some_and(|now| now.generation != old.generation) {
                right = self.is_right(now.as_deref(), password).await?;
                account = now;
            }
        }
        let is_known = account.is_some();
        let Some(account) = account.filter(|_| right) else {
            self.throttle.failed(known, from);
            // People type their password where their name belongs: a name that nobody has is not logged.
            let user = if is_known { known } else { "" };
            tracing::info!(realm = %self.places.realm(), user, %from, "a login failed");
            return Err(match (self.config.uniform_errors, is_known) {
                (true, _) => LoginError::BadCredentials,
                (false, true) => LoginError::BadPassword,
                (false, false) => LoginError::NoSuchAccount,
            });
        };
        self.throttle.succeeded(known, from);
        self.open_session(&account.user, account.generation).await
    }

    /// Whether this is the password of an account; takes as long for none.
    async fn is_right(&self, account: Option<&Account>, password: &str) -> Result<bool, LoginError> {
        let hash = account.map(|account| account.password.as_str());
        Ok(password.len() <= PASSWORD_BYTES_MAX && self.accounts.passwords.verify(password, hash).await?)
    }

    /// `generation` is that of the account whose password was compared: if it has changed since, the session is dead.
    async fn open_session(&self, user: &UserName, generation: u64) -> Result<String, LoginError> {
        let token = self.sessions.open(user, generation).await?;
        self.record(RealmEvent::LoggedIn { user: user.clone() }).await;
        Ok(token)
    }

    pub(crate) async fn register(
        &self,
        user: &str,
        password: &str,
        country: &str,
        name: &str,
        invite: Option<&str>,
    ) -> Result<String, LoginError> {
        match (self.config.registration, invite) {
            (Registration::Open, _) => {}
            (Registration::Closed, _) => {
                return Err(LoginError::RegistrationClosed(
                    "this realm's accounts are made by its operators",
                ));
            }
            (Registration::Invite, Some(code)) if self.invites.is_good(code) => {}
            (Registration::Invite, _) => {
                return Err(LoginError::RegistrationClosed(
                    "end the line with invite=CODE, with a code that is still good",
                ));
            }
        }
        let user = self.accounts.add(user, password, name, country).await?;
        if let (Registration::Invite, Some(code)) = (self.config.registration, invite)
            && !self.invites.take(code).await?
        {
            self.accounts.remove(&user).await?;
            return Err(LoginError::RegistrationClosed("the invitation was used up"));
        }
        self.record(RealmEvent::AccountAdded { user: user.clone() }).await;
        let generation = self.accounts.get(&user).map_or(0, |account| account.generation);
        self.open_session(&user, generation).await
    }

    pub(crate) async fn passwd(
        &self,
        user: &UserName,
        key: &SessionKey,
        old: &str,
        new: &str,
        from: IpAddr,
    ) -> Result<(), LoginError> {
        let account = self.accounts.get(user).ok_or(LoginError::NoSuchAccount)?;
        let _turn = self.throttle.wait(user.as_str(), from).await;
        let right = old.len() <= PASSWORD_BYTES_MAX
            && self.accounts.passwords.verify(old, Some(&account.password)).await?;
        if !right {
            self.throttle.failed(user.as_str(), from);
            return Err(LoginError::BadPassword);
        }
        self.accounts.set_password(user, new).await?;
        if let Some(account) = self.accounts.get(user) {
            self.sessions.renew(key, account.generation).await?;
        }
        self.sessions.end_all(user, Some(key)).await?;
        self.record(RealmEvent::PasswordChanged { user: user.clone() }).await;
        Ok(())
    }
}
