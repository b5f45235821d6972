//! A realm's log, read from outside: what happened, in the order in which it happened.
//!
//! * `range` — where a reading begins and ends.
//! * `merge` — the streams of a realm as one sequence of entries.
//! * `facts` — what an entry says, whatever kind it is; `select` — whether it is wanted.
//! * `show`, `json`, `text` — an entry as a line.
//! * `file` — the export format, written and read; `copy` — entries on their way to another realm.
//!
//! Owns: the formats of these lines and files. Must not know: terminals, arguments, how a realm stores what is copied to it.
//!
//! Architecture invariant: nothing here writes to a broker.

pub mod copy;
pub mod facts;
pub mod file;
mod json;
pub mod merge;
pub mod range;
pub mod select;
pub mod show;
mod text;
mod time;
