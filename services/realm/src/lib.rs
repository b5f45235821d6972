//! What a realm is: accounts, sessions, mailboxes, peers, and the way of a message within and between realms.
//!
//! Owns: the meaning of everything kept in the broker. Must not know: sockets, lines, or which broker it is.

/// The target of spans that are made to be exported. They are no part of the log, and cost nothing where nobody exports them.
pub const SPANS: &str = "antar_trace";

mod account;
pub mod admin;
mod arrival;
mod block;
mod bot;
mod card;
pub mod checkup;
mod clock;
pub mod config;
mod copy;
mod counts;
mod cursor;
mod dead;
mod delivered;
mod delivery;
mod edges;
mod erase;
mod event;
mod feed;
mod file;
mod group;
mod hex;
mod hop;
mod invite;
pub mod key;
mod key_file;
mod lane;
mod letter;
mod letters;
mod login;
mod mail;
mod mailbox;
mod operate;
mod password;
mod peer;
mod places;
mod plan;
mod presence;
mod provision;
mod quarantine;
mod rate;
mod realm;
mod recall;
mod receipt;
mod recent;
mod redrive;
mod reign;
mod replayed;
pub mod restored;
mod room;
mod search;
mod send;
mod session;
mod shared;
mod sign;
pub mod snapshot;
pub mod status;
mod tasks;
pub mod trace;
pub mod traffic;
mod turn;
mod whereabouts;

pub use account::AccountError;
pub use block::{BLOCKS_MAX, BlockError};
pub use bot::Hooked;
pub use config::{Provision, RealmConfig, Registration};
pub use counts::{Counts, Labels};
pub use cursor::ReadMark;
pub use edges::{Activity, Counted, EdgeRecord, GONE_AFTER, Waiting};
pub use feed::{Feed, Pushed, Step};
pub use file::{FileError, FilePart, FileReader, FileView, NewFile, PART_BYTES_MAX, Stored};
pub use group::{
    GROUPS_MAX, GROUPS_PER_USER_MAX, GroupError, GroupInfo, MEMBERS_MAX, SharedEvent, TOPIC_BYTES_MAX,
};
pub use key_file::{KeyError, Rotated};
pub use login::LoginError;
pub use mailbox::{History, Unread, UnreadMessage};
pub use peer::AddRealmError;
pub use places::realms;
pub use provision::Made;
pub use rate::{Rate, RateLimits, TooMuch};
pub use realm::{NotReady, READY_GRACE, Realm, StartError};
pub use search::SearchResult;
pub use send::{Send, SendError, SendId, Sending, Sent};
pub use session::SessionKey;
pub use whereabouts::MessageStatus;
