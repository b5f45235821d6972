//! Backups: all of a realm in one file, and a realm out of such a file, on either broker.
//!
//! `take` reads a realm that may be served meanwhile; the order in which it looks at the realm's parts makes what it
//! sees a state in which the realm could have been stopped by a crash (`proto-docs/backup.md`). `restore` makes the realm
//! anew where there is none, and compares what it has made with the file. `frame` and `record` are the file.

mod check;
mod compare;
mod frame;
mod record;
mod restore;
mod seen;
mod source;
mod take;

pub use check::{Contents, check, head};
pub use frame::FileError;
pub use record::{End, Header};
pub use restore::{Options, Restoration, RestoreError, restore};
pub use take::{Backup, Seed, TakeError, take};
