//! Realms that share a NATS server, each in the account that `antar realm nats-config` gave it.

use std::fs;
use std::io::Result;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nkeys::KeyPair;
use tempfile::TempDir;

use super::{Wire, antar};

/// The accounts of some realms, and the keys that belong to them.
pub(crate) struct Tenants {
    dir: TempDir,
}

impl Tenants {
    /// Accounts for these realms, each joined with each other.
    #[track_caller]
    pub(crate) fn of(realms: &[&str]) -> Self {
        let tenants = Self { dir: TempDir::new().expect("a temporary directory") };
        tenants.renew(realms);
        tenants
    }

    /// Writes the accounts again, for these realms; keys that are there stay.
    #[track_caller]
    pub(crate) fn renew(&self, realms: &[&str]) {
        let (keys, accounts) = (self.keys(), self.accounts_path());
        let (keys, accounts) = (keys.to_str(), accounts.to_str());
        let path = |path: Option<&str>| path.expect("a temporary path is UTF-8").to_owned();
        let mut args = vec!["realm".to_owned(), "nats-config".into()];
        args.extend(realms.iter().map(|realm| (*realm).to_owned()));
        args.extend(["--storage-gib".into(), "1".into()]);
        args.extend(["--credentials".into(), path(keys), "--output".into(), path(accounts)]);
        antar(args).exits(0);
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    /// The file with the accounts.
    pub(crate) fn accounts_path(&self) -> PathBuf {
        self.dir.path().join("accounts.conf")
    }

    /// What stands in it: a part of a server's configuration.
    #[track_caller]
    pub(crate) fn accounts(&self) -> String {
        fs::read_to_string(self.accounts_path()).expect("it was written")
    }

    /// The file with a realm's seed (`broker.credentials_file`).
    pub(crate) fn seed_path(&self, realm: &str) -> PathBuf {
        self.keys().join(realm).join("nats.nk")
    }

    /// A realm's key.
    #[track_caller]
    pub(crate) fn key(&self, realm: &str) -> KeyPair {
        key(&self.seed_path(realm))
    }

    /// A connection to `server` as a realm.
    #[track_caller]
    pub(crate) fn wire(&self, server: SocketAddr, realm: &str) -> Wire {
        self.try_wire(server, realm).unwrap_or_else(|error| panic!("{realm}: {error}"))
    }

    /// The same, or why there is none.
    #[track_caller]
    pub(crate) fn try_wire(&self, server: SocketAddr, realm: &str) -> Result<Wire> {
        let key = self.key(realm);
        sign_in(server, &key.public_key(), &key)
    }
}

#[track_caller]
fn key(path: &Path) -> KeyPair {
    let seed = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    KeyPair::from_seed(seed.trim()).expect("it holds a seed")
}

/// Connects as `public`, with signatures by `key`.
pub(crate) fn sign_in(server: SocketAddr, public: &str, key: &KeyPair) -> Result<Wire> {
    Wire::connect_signed(server, public, |nonce| base64url(&key.sign(nonce).expect("it has a seed")))
}

/// URL-safe base64 without padding (RFC 4648, section 5).
pub(crate) fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        for digit in 0..=three.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}
