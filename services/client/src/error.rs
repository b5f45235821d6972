//! What can go wrong: one error type for each operation of the library.
//!
//! Owns: the error enums and what a refusal of the server says. Must not know how a connection works.

use std::io;
use std::time::Duration;

use antar_proto::ErrorCode;
use serde::Deserialize;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not `HOST:PORT`.
    #[error("{addr} is not an address of the form HOST:PORT")]
    BadAddress {
        /// As it was given.
        addr: String,
    },
    /// The name does not resolve, or nobody listens there.
    #[error("cannot reach {addr}: {source}")]
    Unreachable {
        /// As it was given.
        addr: String,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody answers, and not in TLS, or with a certificate that is not believed.
    #[error("no TLS with {addr}: {source}")]
    Tls {
        /// As it was given.
        addr: String,
        /// What went wrong in the handshake.
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("cannot reach {addr}: no answer within {after:?}")]
    Timeout {
        /// As it was given.
        addr: String,
        /// How long was waited.
        after: Duration,
    },
}

/// Why a connection ended. Kept by the connection, and told to everybody who waits for a reply on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The server closed it between two frames, or this side did.
    #[error("the connection was closed")]
    Ended,
    /// The server closed it in the middle of a frame.
    #[error("the connection was closed in the middle of a reply")]
    MidFrame,
    /// The network failed.
    #[error("the connection broke: {0}")]
    Broken(io::ErrorKind),
    /// What came is not the protocol.
    #[error("not the protocol: {0}")]
    Violation(Violation),
}

/// How the other side broke the protocol. The connection is closed then: replies can no longer be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame grew beyond [`antar_proto::frame::FRAME_BYTES_MAX`].
    #[error("a reply without an end: is this an Antar server?")]
    FrameTooLong,
    /// A frame is not a JSON object.
    #[error("a reply that is not a JSON object: is this an Antar server?")]
    NotAnObject,
    /// A reply that nobody had asked for.
    #[error("a reply without a request")]
    Unasked,
    /// A reply has another tag than the oldest request that waits.
    #[error("a reply to another request")]
    WrongTag,
    /// A reply's `status` is neither `OK` nor `ERROR`.
    #[error("a reply without a status")]
    NoStatus,
}

/// Why a request got no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It would not be one request line; nothing was sent.
    #[error("{0}")]
    BadLine(&'static str),
    /// The connection ended first. The server may have carried the request out or not.
    #[error(transparent)]
    Closed(Closed),
    /// No reply in time. The server may have carried the request out or not; a late reply is dropped, and the
    /// connection goes on.
    #[error("no reply within {0:?}")]
    Timeout(Duration),
}

/// Why a typed call did not do what was asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// There was no reply.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The server said no; nothing was done.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The reply said OK, without what it should hold.
    #[error("the reply to {command} is not understood: {reason}")]
    Unexpected {
        /// The command.
        command: &'static str,
        /// What is missing.
        reason: String,
    },
}

/// A reply that says `ERROR`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Refusal {
    /// The stable code, as it stands on the wire. See [`Refusal::known`].
    #[serde(default)]
    pub code: String,
    /// The reports' wording.
    #[serde(default)]
    pub message: String,
    /// What is wrong and what to do, in English; may be empty.
    #[serde(default)]
    pub detail: String,
    /// Receivers that do not exist.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// For `unavailable`: `false`, or `"unknown"` when nobody can tell whether the message was stored.
    #[serde(default)]
    pub stored: Option<serde_json::Value>,
}

impl Refusal {
    /// The code, if this version knows it.
    pub fn known(&self) -> Option<ErrorCode> {
        ErrorCode::from_wire(&self.code)
    }

    /// Whether the message may have been stored all the same: the same request with the same tag settles it.
    pub fn may_be_stored(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.as_str() == Some("unknown"))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        if !self.detail.is_empty() {
            write!(f, " \u{2014} {}", self.detail)?;
        }
        if !self.unknown.is_empty() {
            write!(f, ": {}", self.unknown.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_message_code_and_detail() {
        let json = r#"{"status":"ERROR","code":"no-such-user","message":"User Tidak Ditemukan","detail":"try users","new":1}"#;
        let refusal: Refusal = serde_json::from_str(json).unwrap();
        assert_eq!(refusal.to_string(), "User Tidak Ditemukan (no-such-user) — try users");
        assert_eq!(refusal.known(), Some(ErrorCode::NoSuchUser));
    }

    #[test]
    fn only_stored_unknown_may_be_stored() {
        let parse = |stored: &str| -> Refusal {
            serde_json::from_str(&format!(r#"{{"code":"unavailable","message":"x","stored":{stored}}}"#))
                .unwrap()
        };
        assert!(parse(r#""unknown""#).may_be_stored());
        assert!(!parse("false").may_be_stored());
        assert!(!parse("null").may_be_stored());
    }
}
