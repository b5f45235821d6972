//! What a realm is: accounts, sessions, mailboxes, peers, and the way of a message within and between realms.
//!
//! Owns: the meaning of everything kept in the broker. Must not know: sockets, lines, or which broker it is.

pub mod admin;
pub mod config;

pub use config::{RealmConfig, Registration};
