//! The client side of Antar: a library for programs, and `chat` for people and scripts.
//!
//! Owns: connections to an edge, the matching of replies to requests, what a person types and sees.
//! Must not know: anything but the line protocol. Not the realm, not the broker: that proves that the protocol is enough.
//!
//! Architecture invariant: only [`chat`] knows of terminals; the library beneath it prints nothing and reads no
//! environment.

pub mod calls;
pub mod chat;
pub mod client;
mod connection;
pub mod error;
pub mod reply;
#[cfg(test)]
mod testing;
mod tls;

pub use antar_proto::reply::Event;
pub use calls::{Inbox, Messages, Search, Sent, Token};
pub use chat::{ChatOptions, ChatOutcome};
pub use client::{Client, ClientOptions, Events};
pub use error::{CallError, Closed, ConnectError, Refusal, RequestError, Violation};
pub use reply::Reply;
pub use tls::{Tls, TrustError};
