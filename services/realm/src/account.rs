//! Accounts: who may log in to this realm and what they are called.

use std::sync::Arc;

use antar_broker::{Expect, KvError, Timestamp};
use antar_proto::{Address, UserName};
use serde::{Deserialize, Serialize};

use crate::bot::Bot;
use crate::clock::now_rfc3339;
use crate::copy::KvCopy;
use crate::password::{HashError, PASSWORD_BYTES_MAX, Passwords};

/// Longest display name and country, in bytes.
pub(crate) const DISPLAY_BYTES_MAX: usize = 128;

/// The accounts of the reports: user, name, country.
const DEMO_ACCOUNTS: [(&str, &str, &str); 3] = [
    ("messi", "Lionel Messi", "Argentina"),
    ("henderson", "Jordan Henderson", "Inggris"),
    ("lineker", "Gary Lineker", "Inggris"),
];
/// Their password, likewise from the reports.
const DEMO_PASSWORD: &str = "surabaya";

/// One account, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) user: UserName,
    pub(crate) name: String,
    pub(crate) country: String,
    /// PHC string.
    pub(crate) password: String,
    #[serde(default)]
    pub(crate) disabled: bool,
    /// Changes with the password, and when the account is disabled or enabled: sessions opened before are then dead,
    /// also those that were being opened at that moment.
    #[serde(default)]
    pub(crate) generation: u64,
    /// Whom the user wants to hear nothing from, in alphabetical order; see `block`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blocks: Vec<Address>,
    /// What makes it a bot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bot: Option<Bot>,
    /// RFC 3339, UTC.
    pub(crate) created: String,
}

/// Why an account was not made or changed. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The name is no name.
    #[error("a user name has 1 to 32 of a-z, 0-9, _ and -, and begins with a letter or a digit")]
    BadName,
    /// The display name or the country is too long or has control characters.
    #[error("a name to show has up to 128 bytes and no control characters")]
    BadDisplay,
    /// The password is too short, too long or has spaces.
    #[error("a password has {min} to {PASSWORD_BYTES_MAX} bytes and no spaces")]
    WeakPassword {
        /// Fewest bytes.
        min: usize,
    },
    /// There is an account of this name.
    #[error("there is an account of this name")]
    Exists,
    /// There is none of this name.
    #[error("there is no account of this name")]
    NoSuchUser,
    /// Too many logins at once.
    #[error("too many logins at once")]
    Busy,
    /// The broker does not answer.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
}

impl From<HashError> for AccountError {
    fn from(_: HashError) -> Self {
        Self::Busy
    }
}

impl From<KvError> for AccountError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Conflict => Self::Exists,
            KvError::Refused(why) | KvError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

/// The accounts of a realm. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Accounts {
    pub(crate) copy: KvCopy<Account>,
    pub(crate) passwords: Passwords,
    password_bytes_min: usize,
}

impl Accounts {
    pub(crate) fn new(copy: KvCopy<Account>, passwords: Passwords, password_bytes_min: usize) -> Self {
        Self { copy, passwords, password_bytes_min }
    }

    pub(crate) fn get(&self, user: &UserName) -> Option<Arc<Account>> {
        self.copy.get(user.as_str())
    }

    /// Makes an account; the password is hashed here. An empty `name` is the user's.
    pub(crate) async fn add(
        &self,
        user: &str,
        password: &str,
        name: &str,
        country: &str,
    ) -> Result<UserName, AccountError> {
        self.make(user, password, name, country, None).await
    }

    /// The same, for a bot too.
    pub(crate) async fn make(
        &self,
        user: &str,
        password: &str,
        name: &str,
        country: &str,
        bot: Option<Bot>,
    ) -> Result<UserName, AccountError> {
        let user: UserName = user.parse().map_err(|_| AccountError::BadName)?;
        let name = if name.is_empty() { user.as_str() } else { name };
        for shown in [name, country] {
            if shown.len() > DISPLAY_BYTES_MAX || shown.chars().any(char::is_control) {
                return Err(AccountError::BadDisplay);
            }
        }
        self.check_password(password)?;
        if self.get(&user).is_some() {
            return Err(AccountError::Exists);
        }
        let account = Account {
            user: user.clone(),
            name: name.into(),
            country: country.into(),
            password: self.passwords.hash(password).await?,
            disabled: false,
            // An account made anew under a name that was used before is of another generation.
            generation: Timestamp::now().0,
            blocks: Vec::new(),
            bot,
            created: now_rfc3339(),
        };
        self.copy.put(user.as_str(), &account, Expect::Absent, None).await?;
        Ok(user)
    }

    fn check_password(&self, password: &str) -> Result<(), AccountError> {
        let length = self.password_bytes_min..=PASSWORD_BYTES_MAX;
        if !length.contains(&password.len()) || password.contains(char::is_whitespace) {
            return Err(AccountError::WeakPassword { min: self.password_bytes_min });
        }
        Ok(())
    }

    /// Sets a password.
    pub(crate) async fn set_password(&self, user: &UserName, password: &str) -> Result<(), AccountError> {
        self.check_password(password)?;
        let hash = self.passwords.hash(password).await?;
        self.change(user, |account| account.password.clone_from(&hash)).await
    }

    /// Disables or enables an account.
    pub(crate) async fn set_disabled(&self, user: &UserName, disabled: bool) -> Result<(), AccountError> {
        self.change(user, |account| account.disabled = disabled).await
    }

    /// Changes an account in a way that ends its sessions.
    async fn change(&self, user: &UserName, change: impl Fn(&mut Account)) -> Result<(), AccountError> {
        let change = |account: &mut Account| {
            change(account);
            account.generation += 1;
            Ok::<_, AccountError>(())
        };
        self.amend(user, change).await
    }

    /// Changes an account by compare-and-set; somebody else's change in between is kept.
    pub(crate) async fn amend<E: From<AccountError>>(
        &self,
        user: &UserName,
        change: impl Fn(&mut Account) -> Result<(), E>,
    ) -> Result<(), E> {
        const TRIES: usize = 5;
        for _ in 0..TRIES {
            // One that was made on another edge a moment ago may not have come yet.
            self.copy.fresh(user.as_str()).await.map_err(AccountError::from)?;
            let Some((account, revision)) = self.copy.get_with_revision(user.as_str()) else {
                return Err(AccountError::NoSuchUser.into());
            };
            let mut changed = Account::clone(&account);
            change(&mut changed)?;
            match self.copy.put(user.as_str(), &changed, Expect::Revision(revision), None).await {
                Err(KvError::Conflict) => {
                    self.copy.catch_up(user.as_str()).await.map_err(AccountError::from)?;
                }
                other => return other.map_err(|error| AccountError::from(error).into()),
            }
        }
        Err(AccountError::Unavailable("the account is being changed by others".into()).into())
    }

    /// Removes an account.
    pub(crate) async fn remove(&self, user: &UserName) -> Result<(), AccountError> {
        if self.copy.fresh(user.as_str()).await?.is_none() {
            return Err(AccountError::NoSuchUser);
        }
        Ok(self.copy.delete(user.as_str()).await?)
    }

    /// Makes the reports' accounts where they are missing.
    pub(crate) async fn add_demo_accounts(&self) -> Result<(), AccountError> {
        for (user, name, country) in DEMO_ACCOUNTS {
            match self.add(user, DEMO_PASSWORD, name, country).await {
                Ok(_) | Err(AccountError::Exists) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
