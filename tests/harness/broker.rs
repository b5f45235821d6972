//! The brokers that the same tests run on.

use super::{Builder, Server};

/// What keeps the log of a server under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broker {
    /// A file in the server's directory.
    Sqlite,
    /// A NATS server of its own.
    Nats,
}

impl Broker {
    /// The one that a module (`module_path!()`) is called after.
    pub(crate) const fn of(module: &str) -> Self {
        match module.as_bytes() {
            [.., b':', b'n', b'a', b't', b's'] => Self::Nats,
            [.., b':', b's', b'q', b'l', b'i', b't', b'e'] => Self::Sqlite,
            _ => panic!("the module is called after no broker"),
        }
    }

    /// How to start `antar demo` on it.
    pub(crate) fn demo_builder(self) -> Builder {
        match self {
            Self::Sqlite => Builder::demo(),
            Self::Nats => Builder::demo_on_nats(),
        }
    }

    /// `antar demo` on it.
    #[track_caller]
    pub(crate) fn demo(self) -> Server {
        self.demo_builder().start()
    }

    /// How to start `antar serve` of realm1 on it, with the demo accounts and open registration.
    pub(crate) fn serve(self) -> Builder {
        match self {
            Self::Sqlite => Builder::serve(),
            Self::Nats => Builder::serve_on_nats(),
        }
    }

    /// The same of another realm.
    pub(crate) fn serve_as(self, realm: &str) -> Builder {
        Builder::serve_as(realm, self == Self::Nats)
    }
}
