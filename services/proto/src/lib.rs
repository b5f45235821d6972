//! Both wire formats of Antar: the line protocol between clients and edges, and the envelope between realms.
//!
//! Owns: names and ids, framing, the table of commands, replies and events, error codes, the envelope.
//! Must not know: sockets, tasks, clocks, storage. Everything here is a function of its arguments.

pub mod command;
pub mod envelope;
pub mod error;
pub mod escape;
pub mod file;
pub mod frame;
pub mod json;
pub mod line;
pub mod names;
pub mod parse;
pub mod reply;

pub use command::Command;
pub use error::ErrorCode;
pub use names::{Address, GroupAddress, GroupName, MessageId, RealmId, Tag, UserName};
pub use parse::{Request, RequestError};
