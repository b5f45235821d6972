//! Bytes from another realm: nothing may panic, and what was understood comes out the same when written and read again.

#![no_main]

use antar_proto::envelope::{ENVELOPE_VERSION, Envelope, EnvelopeError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match Envelope::from_bytes(data) {
        Ok(envelope) => {
            assert_eq!(envelope.v, ENVELOPE_VERSION);
            assert_eq!(Envelope::from_bytes(&envelope.to_bytes()).as_ref(), Ok(&envelope));
        }
        Err(EnvelopeError::Version(version)) => assert_ne!(version, u64::from(ENVELOPE_VERSION)),
        Err(EnvelopeError::Malformed(why)) => assert!(!why.is_empty()),
    }
});
