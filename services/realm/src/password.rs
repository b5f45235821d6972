//! Password hashing: Argon2id on few threads, so that a storm of logins slows nobody but those who log in.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

/// Longest password, in bytes. Longer ones are refused before anything is hashed.
pub(crate) const PASSWORD_BYTES_MAX: usize = 256;
/// Most hashings that wait for a thread; more are told to come later. At 20 ms each, 5 s of work for one thread.
const WAITING_MAX: usize = 256;

/// Hashes and verifies. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Passwords {
    /// One for each hashing at a time.
    threads: Arc<Semaphore>,
    /// One for each hashing, at work or waiting.
    places: Arc<Semaphore>,
    /// Verified against when there is no such account, so that it takes as long.
    nobody: Arc<str>,
}

/// Why nothing was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HashError {
    /// Too many wait already.
    #[error("too many logins at once")]
    Busy,
    /// The library refused; a password that it cannot take.
    #[error("the password cannot be hashed")]
    Failed,
}

impl Passwords {
    /// One that works on half of the processors, on one at least.
    pub(crate) async fn start() -> Result<Self, HashError> {
        let threads = std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
        let mut passwords = Self {
            threads: Arc::new(Semaphore::new(threads)),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            nobody: "".into(),
        };
        passwords.nobody = passwords.hash("nobody has this password").await?.into();
        Ok(passwords)
    }

    /// The PHC string of a password, with a fresh salt (Argon2id, 19 MiB, t=2, p=1: OWASP's first choice).
    pub(crate) async fn hash(&self, password: &str) -> Result<String, HashError> {
        let password = password.to_owned();
        self.run(move || {
            let hash = Argon2::default().hash_password(password.as_bytes()).map_err(|_| HashError::Failed)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether the password is that of `hash`. Without a hash it takes as long and is false.
    pub(crate) async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, HashError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).to_owned();
        let password = password.to_owned();
        self.run(move || {
            let parsed = PasswordHash::new(&hash).map_err(|_| HashError::Failed)?;
            let same = Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok();
            Ok(same && known)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| HashError::Busy)?;
        let thread = self.threads.clone().acquire_owned().await.map_err(|_| HashError::Failed)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop((place, thread));
            result
        });
        done.await.map_err(|_| HashError::Failed)?
    }
}
