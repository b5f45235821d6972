//! The client side of Antar: a library for programs, and `chat` for people and scripts.
//!
//! Owns: connections to an edge, the matching of replies to requests, what a person types and sees.
//! Must not know: anything but the line protocol. Not the realm, not the broker: that proves that the protocol is enough.
//!
//! Architecture invariant: only [`chat`] knows of terminals; the library beneath it prints nothing and reads no
//! environment.

//! # A bot
//!
//! A bot is a user with a token that does not expire (`antar bot add`). This one says back what it is told:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use antar_client::{Client, ClientOptions, Event, Token};
//!
//! let token = Token::new(std::fs::read_to_string("bot.token")?.trim());
//! let (client, mut events) = Client::connect("127.0.0.1:4001", &ClientOptions::default()).await?;
//! client.watch(&token).await?;
//! while let Some(event) = events.next().await {
//!     // Notices are not from people, and what a bot says to itself has no end.
//!     if let Event::Message { message, .. } = event
//!         && message.kind.is_none()
//!         && message.from != message.to
//!     {
//!         client.send(&token, &message.from, &format!("you said: {}", message.msg)).await?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

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
