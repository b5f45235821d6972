//! Ed25519 keys of realms, in the form that NATS uses for keys of users (`U…` for the public one, a seed `SU…`).
//!
//! Owns: what a key is, signing and verifying. Must not know where a key is kept or what is signed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no {0}")]
pub struct BadKey(&'static str);

/// A realm's public key, ready to verify. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Arc<Parsed>);

#[derive(PartialEq, Eq)]
struct Parsed {
    text: Box<str>,
    key: VerifyingKey,
}

impl PublicKey {
    fn new(text: &str, key: VerifyingKey) -> Self {
        Self(Arc::new(Parsed { text: text.into(), key }))
    }

    /// As text: 56 letters and digits, the first of them a U.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether `signature` (base64url) is one of exactly these bytes by this key. Strict: there is one signature for
    /// each message and key, and none that several keys or messages share.
    pub fn has_signed(&self, bytes: &[u8], signature: &str) -> bool {
        let mut raw = [0; Signature::BYTE_SIZE];
        let length = BASE64URL_NOPAD.decode_len(signature.len());
        length == Ok(raw.len())
            && BASE64URL_NOPAD.decode_mut(signature.as_bytes(), &mut raw).is_ok()
            && self.0.key.verify_strict(bytes, &Signature::from_bytes(&raw)).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bad = BadKey("public key of a realm: 56 letters and digits, U first");
        if !text.starts_with('U') {
            return Err(bad);
        }
        let (_, bytes) = nkeys::from_public_key(text).map_err(|_| bad.clone())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| bad.clone())?;
        if key.is_weak() { Err(bad) } else { Ok(Self::new(text, key)) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A realm's key with its private part, which is wiped from memory when this goes, and shown by nothing.
pub struct RealmKey {
    signing: SigningKey,
    public: PublicKey,
}

impl RealmKey {
    /// A new one, and its seed: the text that a key file holds.
    pub fn fresh() -> (Self, Zeroizing<String>) {
        let pair = KeyPair::new(KeyPairType::User);
        let seed = Zeroizing::new(pair.seed().expect("a new key has its seed"));
        let key = Self::from_seed(&seed).expect("a seed that was just made is one");
        (key, seed)
    }

    /// The key of a seed.
    pub fn from_seed(seed: &str) -> Result<Self, BadKey> {
        let bad = BadKey("seed of a realm's key: 58 letters and digits, SU first");
        if !seed.starts_with("SU") {
            return Err(bad);
        }
        let (_, bytes) = nkeys::decode_seed(seed).map_err(|_| bad.clone())?;
        let bytes = Zeroizing::new(bytes);
        let signing = SigningKey::from_bytes(&bytes);
        let text = KeyPair::new_from_raw(KeyPairType::User, *bytes).map_err(|_| bad.clone())?.public_key();
        Ok(Self { public: PublicKey::new(&text, signing.verifying_key()), signing })
    }

    /// Its public part.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs bytes: base64url. The same bytes always have the same signature.
    pub fn sign(&self, bytes: &[u8]) -> String {
        BASE64URL_NOPAD.encode(&self.signing.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for RealmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RealmKey({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_bytes_and_its_key_alone() {
        let (key, seed) = RealmKey::fresh();
        let signature = key.sign(b"halo");
        assert!(key.public().has_signed(b"halo", &signature));
        assert_eq!(RealmKey::from_seed(&seed).unwrap().sign(b"halo"), signature);
        assert!(!key.public().has_signed(b"hal0", &signature));
        assert!(!RealmKey::fresh().0.public().has_signed(b"halo", &signature));
        for at in 0..signature.len() {
            let mut other = signature.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(!key.public().has_signed(b"halo", &other), "{at}");
        }
        for bad in ["", "A", &signature[1..], &format!("{signature}A"), &"é".repeat(43)] {
            assert!(!key.public().has_signed(b"halo", bad), "{bad:?}");
        }
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        let (key, seed) = RealmKey::fresh();
        let text = key.public().as_str();
        assert_eq!(text.parse::<PublicKey>().unwrap(), *key.public());
        let account = KeyPair::new_account();
        let weak = {
            // The neutral element: every signature of zeroes would be one by this key.
            let mut raw = vec![20 << 3, 1];
            raw.resize(33, 0);
            let crc = raw.iter().fold(0_u16, |crc, byte| {
                (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
                    if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
                })
            });
            raw.extend(crc.to_le_bytes());
            data_encoding::BASE32_NOPAD.encode(&raw)
        };
        assert!(nkeys::from_public_key(&weak).is_ok(), "only its weakness is wrong with it");
        let lower = text.to_lowercase();
        for bad in ["", "U", &text[1..], &lower, &account.public_key(), &seed, &weak, &"Ü".repeat(28)] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
        for bad in ["", "SU", text, &seed[1..], &account.seed().unwrap(), &"Ü".repeat(29)] {
            assert!(RealmKey::from_seed(bad).is_err());
        }
    }

    #[test]
    fn nothing_shows_a_seed() {
        let (key, seed) = RealmKey::fresh();
        assert!(!format!("{key:?}").contains(&seed[2..]));
    }
}
