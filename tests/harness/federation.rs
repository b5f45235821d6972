//! Realms with as many edges as wanted, each a process of its own, that share a broker and nothing else.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{Builder, Nats, Proxy, Server};

/// What the edges of a realm have in common beside the broker: the realm's key.
pub(crate) struct Realms {
    keys: TempDir,
}

impl Realms {
    /// Realms that do not exist yet.
    pub(crate) fn new() -> Self {
        Self { keys: TempDir::new().expect("a temporary directory") }
    }

    /// How an edge of a realm is started.
    pub(crate) fn edge(&self, realm: &str, broker: &str) -> Builder {
        Builder::edge(realm, broker).env("REALM__KEY_FILE", self.key_path(realm).display())
    }

    /// Where the key of a realm is.
    pub(crate) fn key_path(&self, realm: &str) -> PathBuf {
        self.keys.path().join(format!("{realm}.nk"))
    }

    /// The seed of a realm that was started.
    #[track_caller]
    pub(crate) fn key_of(&self, realm: &str) -> String {
        fs::read_to_string(self.key_path(realm)).expect("an edge of the realm has made it")
    }
}

/// Realms on a NATS server of their own.
pub(crate) struct Federation {
    /// The NATS server.
    pub(crate) nats: Nats,
    /// The realms.
    pub(crate) realms: Realms,
}

impl Federation {
    /// One on a NATS server without accounts.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self { nats: Nats::start(), realms: Realms::new() }
    }

    /// An edge of a realm.
    #[track_caller]
    pub(crate) fn edge(&self, realm: &str) -> Server {
        self.realms.edge(realm, &self.nats.url()).start()
    }

    /// A line to the NATS server that can be cut.
    pub(crate) fn link(&self) -> Proxy {
        Proxy::start(self.nats.addr())
    }

    /// An edge at the end of such a line.
    #[track_caller]
    pub(crate) fn edge_behind(&self, link: &Proxy, realm: &str) -> Server {
        self.realms.edge(realm, &link.nats_url()).start()
    }
}
