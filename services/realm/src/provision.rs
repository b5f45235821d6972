//! What a realm needs in the broker before it can start, and who makes it.
//!
//! Owns: which of it may be missing, and when that is a loss. Must not know: what it is used for.

use std::time::{Duration, Instant};

use antar_broker::SharedBroker;

use crate::config::{Provision, RealmConfig};
use crate::copy::holds_nothing;
use crate::key::RealmKey;
use crate::key_file;
use crate::places::{DEAD, EDGES, FILE_PARTS, FILES, GROUPS, Places};
use crate::realm::StartError;
use crate::snapshot;

/// Buckets that came with later versions.
const LATER: [&str; 2] = [DEAD, GROUPS];
/// How long making a realm's streams may take another edge that starts at the same time, and how often is looked.
const MAKING_MAX: Duration = Duration::from_secs(2);
const MAKING_LOOK: Duration = Duration::from_millis(100);

/// What was made of a realm.
#[derive(Debug)]
pub struct Made {
    /// The streams and buckets that were not there.
    pub names: Vec<String>,
    /// The realm's public key.
    pub key: String,
    /// It was made, too.
    pub is_key_new: bool,
}

pub(crate) async fn make(
    broker: &SharedBroker,
    places: &Places,
    config: &RealmConfig,
) -> Result<(Made, RealmKey), StartError> {
    let names = provision(broker, places, config).await?;
    let may_make = config.provision != Provision::Never;
    let (key, is_key_new) = key_file::settle(broker, places, config.key_file.as_deref(), may_make).await?;
    Ok((Made { names, key: key.public().to_string(), is_key_new }, key))
}

/// Makes what is not there, as far as it may, and compares what is. The names of what was made.
async fn provision(
    broker: &SharedBroker,
    places: &Places,
    config: &RealmConfig,
) -> Result<Vec<String>, StartError> {
    if snapshot::restoring(broker, places).await?.is_some() {
        return Err(StartError::Restoring);
    }
    let began = Instant::now();
    loop {
        match provision_now(broker, places, config).await {
            // Another edge may be making the rest at this moment.
            Err(StartError::Missing { .. })
                if config.provision == Provision::IfNew && began.elapsed() < MAKING_MAX =>
            {
                tokio::time::sleep(MAKING_LOOK).await;
            }
            provisioned => return provisioned,
        }
    }
}

async fn provision_now(
    broker: &SharedBroker,
    places: &Places,
    config: &RealmConfig,
) -> Result<Vec<String>, StartError> {
    let (streams, buckets) = (places.streams(config.mailbox_entries_max), places.buckets());
    // A realm that an older version made has none of these, and has lost nothing.
    let (mut later, kept): (Vec<_>, Vec<_>) =
        buckets.iter().cloned().partition(|bucket| LATER.iter().any(|name| *bucket == places.bucket(name)));
    later.push(places.bucket(EDGES));
    let mut names = broker.missing(&streams, &kept).await?;
    let is_whole = names.is_empty();
    // Streams are made last: where there is none yet, nothing was ever kept.
    let is_new = streams.iter().all(|spec| names.contains(&spec.name));
    // Likewise those of files, but one without the other was lost, unless that is empty.
    let mut lost_files = false;
    for (bucket, other) in
        [(FILES, FILE_PARTS), (FILE_PARTS, FILES)].map(|pair| (places.bucket(pair.0), places.bucket(pair.1)))
    {
        if broker.missing(&[], std::slice::from_ref(&bucket)).await?.is_empty() {
            continue;
        }
        lost_files |= broker.missing(&[], std::slice::from_ref(&other)).await?.is_empty()
            && !holds_nothing(broker, &other).await.map_err(StartError::Kv)?;
        later.push(bucket);
    }
    let is_whole = is_whole && !lost_files;
    names.extend(broker.missing(&[], &later).await?);
    let advice = match config.provision {
        Provision::Missing => None,
        Provision::IfNew if is_new || is_whole => None,
        Provision::Never if names.is_empty() => None,
        Provision::Never if is_new => Some("make the realm with `antar realm init`"),
        Provision::Never if is_whole => {
            Some("this version keeps more than the one that made the realm: `antar realm init` makes it")
        }
        _ => Some(
            "the rest of the realm is there, so they were lost: restore them, or have them made anew and empty by \
             `antar realm init --add-missing`",
        ),
    };
    if let Some(advice) = advice {
        return Err(StartError::Missing { names, advice });
    }
    for bucket in buckets.iter().chain(&[EDGES, FILE_PARTS, FILES].map(|name| places.bucket(name))) {
        broker.open_bucket(bucket).await?;
    }
    for spec in &streams {
        broker.open_stream(spec).await?;
    }
    Ok(names)
}
