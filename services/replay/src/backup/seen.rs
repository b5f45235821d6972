//! Whether an id may have been there before, in bounded memory: a Bloom filter. It says "perhaps" too often, and never
//! "no" wrongly; who hears "perhaps" asks the log.

use sha2::{Digest, Sha256};

/// Bits. With ten million ids one in a hundred new ones is a "perhaps", which costs a round trip.
const BITS: usize = 128 * 1024 * 1024;
/// Bits of each id.
const PER_ID: usize = 6;

/// Ids that were seen.
pub(super) struct Seen(Vec<u64>);

impl Seen {
    pub(super) fn new() -> Self {
        Self(vec![0; BITS / 64])
    }

    /// Takes note of an id; whether it may have been there before.
    pub(super) fn insert(&mut self, id: &str) -> bool {
        let hash = Sha256::digest(id.as_bytes());
        let mut was_there = true;
        for piece in hash.chunks_exact(4).take(PER_ID) {
            let bit = u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]]) as usize % BITS;
            let word = &mut self.0[bit / 64];
            was_there &= *word >> (bit % 64) & 1 == 1;
            *word |= 1 << (bit % 64);
        }
        was_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_and_nearly_nothing_else() {
        let mut seen = Seen::new();
        let wrong = (0..10_000).filter(|n| seen.insert(&n.to_string())).count();
        assert!(wrong < 10, "{wrong} of 10,000 are said to be there before");
        assert!((0..10_000).all(|n| seen.insert(&n.to_string())));
    }
}
