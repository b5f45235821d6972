//! What proves where an envelope comes from: a signature over its bytes, beside them in two headers.
//!
//! Owns: the headers, and the order in which an envelope that came in is checked before anything in it is believed. Must
//! not know how keys are pinned (`peer`).

use std::sync::Arc;

use antar_broker::{Entry, Headers, KvError};
use antar_proto::envelope::{Envelope, EnvelopeError, unbundle};

use crate::dead::{Claim, Dead};
use crate::delivery::LOOKUPS_MAX;
use crate::key::{PublicKey, RealmKey};
use crate::shared::Shared;

/// Names the key that has signed.
pub(crate) const KEY_HEADER: &str = "Antar-Key";
/// The signature over the body, base64url.
pub(crate) const SIGNATURE_HEADER: &str = "Antar-Signature";
/// So many envelopes are signed or checked where they are; more go to threads that may take long, since one takes some
/// 20 to 50 µs, and a whole batch would hold up what else the thread has to do.
const INLINE_MAX: usize = 8;

impl RealmKey {
    /// What stands beside an envelope's bytes when they are published.
    pub fn headers(&self, envelope: &[u8]) -> Headers {
        let pair = |name: &str, value: String| (name.to_owned(), value);
        vec![pair(KEY_HEADER, self.public().to_string()), pair(SIGNATURE_HEADER, self.sign(envelope))]
    }
}

fn header<'a>(entry: &'a Entry, name: &str) -> Option<&'a str> {
    let mut found = entry.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    // Two of them could be read one way here and another way elsewhere.
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

impl Shared {
    /// What the first envelope of an inbox entry says of itself, once it is proven that the realm that it names has
    /// signed the entry, for us.
    pub(crate) fn prove(&self, entry: &Entry) -> Result<Claim, Dead> {
        let first = unbundle(&entry.body)?.next().unwrap_or_default();
        let Some(claim) = Claim::of(first) else {
            let error = Envelope::from_bytes(first).err();
            return Err(error.unwrap_or_else(|| EnvelopeError::Malformed("no origin".into())).into());
        };
        let Some(peer) = self.peers.copy.get(claim.origin.as_str()) else {
            return Err(Dead::UnknownOrigin(claim.origin));
        };
        // `realm.<id>.inbox.<peer>`: the broker tells too who has published it.
        if let Some(from) = entry.subject.tokens().nth(3)
            && from != claim.origin.as_str()
        {
            return Err(Dead::WrongOrigin { claimed: claim.origin, from: from.to_owned() });
        }
        let (Some(by), Some(signature)) = (header(entry, KEY_HEADER), header(entry, SIGNATURE_HEADER)) else {
            return Err(Dead::Unsigned);
        };
        match &peer.key {
            Some(key) if key.as_str() == by => {
                if !key.has_signed(&entry.body, signature) {
                    return Err(Dead::BadSignature(claim.origin));
                }
            }
            _ if peer.offered.as_ref().map(PublicKey::as_str) == Some(by) => {
                return Err(Dead::KeyChanged(claim.origin));
            }
            _ => return Err(Dead::UnknownKey(claim.origin)),
        }
        if claim.dest.as_ref() != Some(self.places.realm()) {
            return Err(Dead::WrongRealm(claim.dest));
        }
        Ok(claim)
    }

    /// Proves once more what failed because its realm, or its key, is not known here: both may have been added or trusted
    /// on another edge a moment ago.
    pub(crate) async fn prove_again(
        &self,
        entry: &Entry,
        proof: Result<Claim, Dead>,
        lookups: &mut usize,
    ) -> Result<Result<Claim, Dead>, KvError> {
        let (Dead::UnknownOrigin(origin) | Dead::UnknownKey(origin) | Dead::KeyChanged(origin)) =
            (match &proof {
                Ok(_) => return Ok(proof),
                Err(dead) => dead,
            })
        else {
            return Ok(proof);
        };
        if *lookups >= LOOKUPS_MAX {
            return Ok(proof);
        }
        *lookups += 1;
        self.peers.copy.catch_up(origin.as_str()).await?;
        Ok(self.prove(entry))
    }

    /// The same for each entry of a batch.
    pub(crate) async fn prove_all(self: &Arc<Self>, entries: &[Arc<Entry>]) -> Vec<Result<Claim, Dead>> {
        let shared = self.clone();
        each(entries.to_vec(), move |entry| shared.prove(&entry)).await
    }

    /// Each of these bodies with its headers.
    pub(crate) async fn sign_all(&self, bodies: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Headers)> {
        let key = self.key.clone();
        each(bodies, move |bytes| {
            let headers = key.headers(&bytes);
            (bytes, headers)
        })
        .await
    }
}

/// Applies `work` to each, on all processors if there are many.
async fn each<T, R>(items: Vec<T>, work: impl Fn(T) -> R + Send + Sync + 'static) -> Vec<R>
where
    T: Send + 'static,
    R: Send + 'static,
{
    if items.len() <= INLINE_MAX {
        return items.into_iter().map(work).collect();
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let part = items.len().div_ceil(processors).max(INLINE_MAX);
    let (work, count) = (Arc::new(work), items.len());
    let (mut items, mut parts) = (items.into_iter(), Vec::new());
    while items.len() > 0 {
        let (work, some) = (work.clone(), items.by_ref().take(part).collect::<Vec<_>>());
        parts.push(tokio::task::spawn_blocking(move || some.into_iter().map(&*work).collect::<Vec<R>>()));
    }
    let mut done = Vec::with_capacity(count);
    for part in parts {
        done.extend(part.await.expect("checking signatures does not panic"));
    }
    done
}
