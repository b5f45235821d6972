//! Bytes from another realm: nothing may panic, and what was understood comes out the same when written and read again.

#![no_main]

use antar_proto::envelope::{
    BUNDLE_ENVELOPES_MAX, ENVELOPE_VERSION, Envelope, EnvelopeError, bundle, unbundle,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(lines) = unbundle(data) {
        let lines: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
        assert!(lines.len() <= BUNDLE_ENVELOPES_MAX);
        assert_eq!(bundle(&lines).first().map(|(_, body)| body.as_slice()), Some(data));
    }
    match Envelope::from_bytes(data) {
        Ok(envelope) => {
            assert_eq!(envelope.v, ENVELOPE_VERSION);
            assert_eq!(Envelope::from_bytes(&envelope.to_bytes()).as_ref(), Ok(&envelope));
        }
        Err(EnvelopeError::Version(version)) => assert_ne!(version, u64::from(ENVELOPE_VERSION)),
        Err(EnvelopeError::Malformed(why)) => assert!(!why.is_empty()),
    }
});
