//! The hops of an envelope: the trace context that it carries, and the line of the log that each hop writes.
//!
//! Must not know what is done with an envelope.

use std::borrow::Cow;
use std::sync::LazyLock;

use antar_broker::Seq;
use antar_proto::{MessageId, RealmId};
use serde::Deserialize;

/// Bytes of a trace context: `00-<trace id>-<span id>-01`.
const TRACEPARENT_BYTES: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// The number of this process, chosen at its start.
static EDGE: LazyLock<u32> = LazyLock::new(|| uuid::Uuid::new_v4().as_fields().0);

/// What this edge is called in trace contexts: eight hexadecimal digits.
pub(crate) fn edge() -> String {
    format!("{:08x}", *EDGE)
}

/// The W3C trace context of an envelope. Its trace id is the envelope's own id, so that one is found by the other. The span is
/// a new one; its first half names the edge, which costs no bytes. Sampled.
pub(crate) fn traceparent(id: MessageId) -> String {
    // The last bits of a random UUID are all random. No span is zero.
    let (_, random) = uuid::Uuid::new_v4().as_u64_pair();
    let mut span = u64::from(*EDGE) << 32 | u64::from(random as u32) | 1;
    let mut text = [b'-'; TRACEPARENT_BYTES];
    text[..2].copy_from_slice(b"00");
    id.0.simple().encode_lower(&mut text[3..35]);
    for digit in text[36..52].iter_mut().rev() {
        *digit = b"0123456789abcdef"[(span & 15) as usize];
        span >>= 4;
    }
    text[53..].copy_from_slice(b"01");
    String::from_utf8_lossy(&text).into_owned()
}

/// The edge that has made a trace context, if it is one of ours.
pub(crate) fn edge_of(traceparent: &str) -> Option<&str> {
    let is_ours = traceparent.len() == TRACEPARENT_BYTES && traceparent.starts_with("00-");
    traceparent.get(36..44).filter(|edge| is_ours && edge.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Logs, if somebody wants to see it, that an envelope went by and where it stands now: never what it says.
pub(crate) fn log_hop(realm: &RealmId, hop: &'static str, seq: Seq, envelope: &[u8]) {
    /// What is logged of an envelope.
    #[derive(Deserialize)]
    struct Logged<'a> {
        id: MessageId,
        #[serde(borrow, default)]
        traceparent: Option<Cow<'a, str>>,
    }
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let Ok(Logged { id, traceparent }) = serde_json::from_slice(envelope) else { return };
    // It may come from another realm, which can write what it likes there.
    let traceparent = traceparent.filter(|text| text.len() == TRACEPARENT_BYTES && text.is_ascii());
    tracing::debug!(%realm, hop, seq = seq.0, %id, traceparent = ?traceparent, "an envelope went by");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_one_of_w3c_and_is_found_by_the_id() {
        let id = MessageId::fresh();
        let (one, other) = (traceparent(id), traceparent(id));
        let parts: Vec<&str> = one.split('-').collect();
        assert_eq!((parts.len(), parts[0], parts[3]), (4, "00", "01"));
        assert_eq!(parts[1], id.0.simple().to_string());
        assert!(
            parts[2].len() == 16 && parts[2].bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
        );
        assert_ne!(one, other, "each is a span of its own");
        assert_eq!((edge_of(&one), edge_of(&other)), (Some(&*edge()), Some(&*edge())));
        for other in ["", "00-x-y-01", "é"] {
            assert_eq!(edge_of(other), None);
        }
    }
}
