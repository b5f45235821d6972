//! An edge: where clients of a realm connect.
//!
//! Owns: listeners, connections, limits, and the way from a line to a reply. Must not know: what is kept where; it
//! asks the realm. An edge holds nothing that matters: whatever was answered OK is in the broker.

mod blocks;
mod commands;
mod config;
mod connection;
mod counts;
mod files;
mod groups;
mod guests;
mod http;
mod listener;
mod outbox;
mod tls;
mod transport;
mod web;
mod websocket;

pub use config::EdgeConfig;
pub use listener::{Listeners, bind, run};
pub use tls::{CertificateError, Certificates, RELOAD_CHECK};
