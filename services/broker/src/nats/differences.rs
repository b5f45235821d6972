//! How a stream that is there differs from what it has to be like.
//!
//! Owns: which differences break a promise, so that a stream is refused, and which are only worth a word.

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use crate::examine::flaws;
use crate::{FlawKind, Severity};

/// A difference, for people.
pub(super) type Difference = (&'static FlawKind, String);

/// A limit of all entries together above this is none.
const NO_LIMIT: i64 = u32::MAX as i64;

/// Those for which the stream is refused.
pub(super) fn broken_promises(is: &Config, wants: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut say = |kind, what: String| found.push((kind, what));
    if sorted(is) != sorted(wants) {
        say(&flaws::STREAM_SUBJECTS, format!("its subjects are {}, not {}", sorted(is), sorted(wants)));
    }
    if is.storage != StorageType::File {
        say(&flaws::STREAM_STORAGE, "it is kept in memory, not in files".into());
    }
    if is.retention != RetentionPolicy::Limits {
        say(&flaws::STREAM_RETENTION, "it forgets what was taken: its retention is not by limits".into());
    }
    if is.discard != DiscardPolicy::New {
        say(
            &flaws::STREAM_DISCARD,
            "it drops old entries for new ones: its discard policy is not new".into(),
        );
    }
    if !is.max_age.is_zero() {
        say(&flaws::STREAM_AGE, "it drops entries by age, read or not: max_age is set".into());
    }
    if is.max_messages > 0 && is.max_messages < NO_LIMIT {
        let what = "it has a limit for all entries together (max_msgs), which lets one fill it for all";
        say(&flaws::STREAM_LIMITS, what.into());
    }
    if is.duplicate_window < wants.duplicate_window {
        let (is, wants) = (is.duplicate_window.as_secs(), wants.duplicate_window.as_secs());
        say(&flaws::STREAM_WINDOW, format!("it recognises a repetition for {is} s only, not {wants} s"));
    }
    if !is.allow_direct {
        say(&flaws::STREAM_ACCESS, "it cannot be read directly: allow_direct is off".into());
    }
    if is.no_ack || is.sealed {
        say(&flaws::STREAM_ACCESS, "it acknowledges nothing, or is sealed".into());
    }
    if republish(is) != republish(wants) {
        let what = "it does not announce what it stores as it should: republish differs";
        say(&flaws::STREAM_REPUBLISH, what.into());
    }
    if wants.allow_message_ttl && !is.allow_message_ttl {
        say(&flaws::STREAM_TTL, "its keys cannot expire: allow_msg_ttl is off".into());
    }
    found
}

/// Those with which it works for now.
pub(super) fn oddities(is: &Config, wants: &Config, servers: usize) -> Vec<(Severity, Difference)> {
    let mut found = Vec::new();
    let mut say = |severity, kind, what: String| found.push((severity, (kind, what)));
    if is.max_bytes > 0 {
        let what =
            format!("it may hold {} bytes in all (max_bytes), which lets one fill it for all", is.max_bytes);
        say(Severity::Warning, &flaws::STREAM_LIMITS, what);
    }
    let limit = |config: &Config| match config.max_messages_per_subject {
        max if max <= 0 => i64::MAX,
        max => max,
    };
    match (limit(is), limit(wants)) {
        (is, wants) if is > wants => {
            let is = if is == i64::MAX { "any number of".into() } else { is.to_string() };
            let what =
                format!("it has promised {is} entries for each subject; the configuration wants {wants}");
            say(Severity::Error, &flaws::STREAM_PER_SUBJECT, what);
        }
        (is, wants) if is < wants => {
            let what = format!(
                "it holds {is} entries of each subject, the configuration wants {wants}: it is raised at the next start"
            );
            say(Severity::Note, &flaws::STREAM_PER_SUBJECT, what);
        }
        _ => {}
    }
    if is.deny_purge || (is.deny_delete && !wants.deny_delete) {
        say(
            Severity::Warning,
            &flaws::STREAM_DENIES,
            "it refuses to remove entries: deny_purge or deny_delete is on".into(),
        );
    }
    let sources = is.sources.as_ref().map_or(0, Vec::len);
    if sources > 0 || is.mirror.is_some() || is.subject_transform.is_some() {
        let what = "it takes entries from other streams, or renames them: sources, mirror or subject_transform is set";
        say(Severity::Warning, &flaws::STREAM_SOURCES, what.into());
    }
    if let Some(what) = too_few_replicas(is.num_replicas, wants.num_replicas, servers) {
        say(Severity::Warning, &flaws::STREAM_REPLICAS, what);
    }
    found
}

/// What is said of a stream that is kept by too few of so many servers; JetStream needs three to outlive one.
fn too_few_replicas(is: usize, wants: usize, servers: usize) -> Option<String> {
    match is {
        _ if is < wants => Some(format!("{is} of {servers} servers keeps it, broker.replicas wants {wants}")),
        1 if servers >= 3 => Some(format!("1 of {servers} servers keeps it")),
        2 => Some("2 servers keep it: it stands still as soon as one of them is away".into()),
        _ => None,
    }
}

fn sorted(config: &Config) -> String {
    let mut subjects = config.subjects.clone();
    subjects.sort();
    subjects.join(" ")
}

fn republish(config: &Config) -> Option<(&str, &str, bool)> {
    let one = config.republish.as_ref()?;
    Some((&one.source, &one.destination, one.headers_only))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::stream::Source;

    use super::super::streams::{bucket_config, stream_config};
    use super::*;
    use crate::{Bucket, Filter, StreamSpec};

    fn wanted() -> Config {
        let filters = vec![Filter::new("realm.a.inbox").unwrap(), Filter::new("realm.a.inbox.*").unwrap()];
        let spec = StreamSpec { name: "S".into(), filters, entries_per_subject_max: Some(9) };
        stream_config(&spec, 1).unwrap()
    }

    /// The ids of what is found of a stream that was changed so, in a cluster of so many servers.
    fn found(change: impl FnOnce(&mut Config), servers: usize) -> Vec<&'static str> {
        let (mut is, wants) = (wanted(), wanted());
        change(&mut is);
        let mut ids: Vec<_> = broken_promises(&is, &wants).into_iter().map(|(kind, _)| kind.id).collect();
        ids.extend(oddities(&is, &wants, servers).into_iter().map(|(_, (kind, _))| kind.id));
        ids
    }

    #[test]
    fn a_stream_as_it_was_made_has_no_difference() {
        assert_eq!(found(|_| {}, 1), Vec::<&str>::new());
        let bucket = bucket_config(&Bucket::new("b").unwrap(), 1);
        assert_eq!(broken_promises(&bucket, &bucket), []);
        assert_eq!(oddities(&bucket, &bucket, 1), []);
    }

    #[test]
    fn each_setting_that_was_changed_is_found_under_its_own_id() {
        let check = |id: &str, change: fn(&mut Config)| assert_eq!(found(change, 1), [id]);
        check("stream.subjects", |is| drop(is.subjects.pop()));
        check("stream.storage", |is| is.storage = StorageType::Memory);
        check("stream.retention", |is| is.retention = RetentionPolicy::WorkQueue);
        check("stream.discard", |is| is.discard = DiscardPolicy::Old);
        check("stream.age", |is| is.max_age = Duration::from_secs(60));
        check("stream.limits", |is| is.max_messages = 5);
        check("stream.limits", |is| is.max_bytes = 5);
        check("stream.window", |is| is.duplicate_window = Duration::from_secs(120));
        check("stream.access", |is| is.allow_direct = false);
        check("stream.access", |is| is.no_ack = true);
        check("stream.republish", |is| is.republish = None);
        check("stream.per-subject", |is| is.max_messages_per_subject = 10);
        check("stream.per-subject", |is| is.max_messages_per_subject = 8);
        check("stream.denies", |is| is.deny_purge = true);
        check("stream.sources", |is| is.sources = Some(vec![Source::default()]));
    }

    #[test]
    fn one_replica_in_a_cluster_of_three_is_too_few_and_on_one_server_it_is_not() {
        assert_eq!(found(|_| {}, 3), ["stream.replicas"]);
        assert_eq!(found(|is| is.num_replicas = 2, 3), ["stream.replicas"]);
        assert_eq!(found(|is| is.num_replicas = 3, 3), Vec::<&str>::new());
        assert!(too_few_replicas(1, 3, 1).is_some_and(|what| what.contains("wants 3")));
        assert_eq!(too_few_replicas(1, 1, 2), None);
    }
}
