//! A realm's log, read from outside of what serves the realm.
//!
//! Owns: what is taken out of logs as a whole, and put into them. Must not know: sockets, sessions, command lines.

pub mod backup;
