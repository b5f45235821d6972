//! How much is kept, and how much may be. Owns these types.

use serde::Serialize;

/// What one stream holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamUsage {
    /// Its name.
    pub name: String,
    /// Entries that are there. Where several may share a message of the broker's (NATS), these messages.
    pub entries: u64,
    /// Bytes that they take, where the broker counts them for each stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What a broker holds, and what it may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// The streams that were asked for and are there, in the order of the question.
    pub streams: Vec<StreamUsage>,
    /// Bytes that all of it takes, also what is not of these streams: the file with what lies beside it, or the account.
    pub stored_bytes: u64,
    /// What became of this process's connections to the broker since they were opened, by name; nothing where there are none.
    #[serde(skip)]
    pub events: Vec<(&'static str, u64)>,
    /// How many it may be, if there is such a limit and it can be known: of a file, what it has and what its disk has left; of an
    /// account of NATS, its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}
