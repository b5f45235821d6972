//! The limits of an edge.

use std::time::Duration;

use antar_proto::line::LINE_BYTES_MAX;

use crate::tls::HANDSHAKE_TIME;

/// Limits of one edge (`reliability.md`, P8). Every one of them costs only the connection that reaches it.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Longest line of a connection that has logged in, without its end.
    pub line_bytes_max: usize,
    /// How long a line may take from its first byte to its last.
    pub line_time: Duration,
    /// Most connections from one address that have not logged in; the one idle longest goes first.
    pub guests_per_address_max: usize,
    /// How long a connection may stay without logging in.
    pub guest_time: Duration,
    /// Most connections.
    pub connections_max: usize,
    /// Most sends of one connection that wait for their acknowledgement.
    pub pipeline_max: usize,
    /// Further pages, as `Origin` names them (`https://chat.example`, in lower case), from which a WebSocket is taken.
    pub origins: Vec<String>,
    /// How long a reader may take nothing while there is something for it.
    pub write_stall: Duration,
    /// How long a send waits for its acknowledgement before it is answered `unavailable`.
    pub ack_time: Duration,
    /// How long a shutdown waits for what is in flight.
    pub drain_time: Duration,
}

impl EdgeConfig {
    /// How long a handshake of TLS may take.
    pub(crate) fn handshake_time(&self) -> Duration {
        HANDSHAKE_TIME.min(self.guest_time)
    }
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            line_bytes_max: LINE_BYTES_MAX,
            line_time: Duration::from_secs(60),
            guests_per_address_max: 64,
            guest_time: Duration::from_secs(600),
            connections_max: 65_536,
            pipeline_max: 1_024,
            origins: Vec::new(),
            write_stall: Duration::from_secs(30),
            ack_time: Duration::from_secs(5),
            drain_time: Duration::from_secs(6),
        }
    }
}
