//! The streams: which there are, what they have to be like, and which keeps a subject.
//!
//! The only place that makes or changes a stream. What is there is compared: a setting that would break a promise is
//! refused and left alone (`get_or_create` of the library ignores differences, and would make a lost stream anew, empty).

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, Republish, RetentionPolicy, StorageType};
use serde::Deserialize;

use tokio::time::{Instant, sleep};

use super::api::{API_TIMEOUT, Api, ApiError, Get};
use super::differences::broken_promises;
use crate::{Bucket, Filter, IDEMPOTENCE_WINDOW, OpenError, ReadError, StreamSpec, StreamUsage, Usage};

/// Most consumers of a stream: ours has none, a person's tools may have some (the server's default is 1,000).
const CONSUMERS_MAX: i32 = 1_000;
/// How long the server remembers ids of a bucket's writes: longer than any of them is tried again.
const BUCKET_WINDOW: Duration = Duration::from_secs(120);
/// How long the server keeps the mark of a key that expired.
const MARKER_TTL: Duration = Duration::from_secs(3600);
/// Pause between looks at a stream that was just made.
const LEADER_DELAY: Duration = Duration::from_millis(20);
/// Names on one page of the API (the server's own).
const NAMES_PER_PAGE: usize = 1024;

/// What the names of streams behind buckets begin with (ADR-8).
pub(super) const BUCKET_PREFIX: &str = "KV_";

/// A stream that is there.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: String,
    filters: Vec<String>,
    /// Subjects below the first are announced live below the second.
    live: (String, String),
    /// A direct read may be answered by a server that is behind.
    pub(super) is_replicated: bool,
}

impl Stream {
    /// The live subject for a filter of this stream.
    pub(super) fn live(&self, filter: &str) -> Option<String> {
        let (from, to) = &self.live;
        filter.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}"))
    }
}

/// Those that are known. Cheap to clone.
#[derive(Clone)]
pub(super) struct Streams {
    api: Api,
    replicas: usize,
    /// A bucket that is not there is made when it is used.
    may_make: bool,
    known: Arc<RwLock<Vec<Arc<Stream>>>>,
}

fn open_error(error: ApiError) -> OpenError {
    match error {
        ApiError::Unavailable(_) | ApiError::Nobody => OpenError::Unreachable(error.to_string()),
        other => OpenError::Invalid(other.to_string()),
    }
}

/// The two tokens that a stream's subjects begin with.
fn scope(filters: &[Filter]) -> Option<String> {
    let scope = |filter: &Filter| {
        let mut tokens = filter.as_str().split('.').take_while(|token| *token != "*" && *token != ">");
        Some(format!("{}.{}.", tokens.next()?, tokens.next()?))
    };
    let first = scope(filters.first()?)?;
    filters.iter().all(|filter| scope(filter).as_ref() == Some(&first)).then_some(first)
}

/// The name of the stream behind a bucket.
pub(super) fn bucket_stream(bucket: &Bucket) -> String {
    format!("{BUCKET_PREFIX}{}", bucket.as_str())
}

/// What all subjects of a bucket begin with.
pub(super) fn bucket_prefix(bucket: &Bucket) -> String {
    format!("$KV.{}.", bucket.as_str())
}

fn bucket_live(bucket: &Bucket) -> String {
    format!("kv.live.{}.", bucket.as_str())
}

impl Streams {
    pub(super) fn new(api: Api, replicas: usize, may_make: bool) -> Self {
        Self { api, replicas, may_make, known: Arc::default() }
    }

    fn remember(&self, stream: Stream) -> Arc<Stream> {
        let stream = Arc::new(stream);
        let mut known = self.known.write().expect("no holder of this lock panics");
        known.retain(|other| other.name != stream.name);
        known.push(stream.clone());
        stream
    }

    /// The stream that keeps all that a filter matches, among those that were opened or found before.
    pub(super) fn known(&self, filter: &str) -> Option<Arc<Stream>> {
        let known = self.known.read().expect("no holder of this lock panics");
        known.iter().find(|stream| stream.filters.iter().any(|own| covers(own, filter))).cloned()
    }

    /// The stream that keeps all that a filter matches; asks the server for one that is not known yet.
    pub(super) async fn of(&self, filter: &Filter) -> Result<Arc<Stream>, ReadError> {
        if let Some(stream) = self.known(filter.as_str()) {
            return Ok(stream);
        }
        #[derive(Deserialize)]
        struct Names {
            #[serde(default)]
            streams: Option<Vec<String>>,
        }
        let unavailable = |error: ApiError| ReadError::Unavailable(error.to_string());
        let question = serde_json::json!({ "subject": filter.as_str() });
        let names: Names = self.api.ask("STREAM.NAMES", &question).await.map_err(unavailable)?;
        for name in names.streams.unwrap_or_default() {
            let info = self.info(&name).await.map_err(unavailable)?;
            if let Some(info) = info
                && let Some(stream) = stream_of(&info)
            {
                self.remember(stream);
            }
        }
        self.known(filter.as_str()).ok_or_else(|| ReadError::NoStream(filter.clone()))
    }

    pub(super) async fn info(&self, name: &str) -> Result<Option<Info>, ApiError> {
        match self.api.ask(&format!("STREAM.INFO.{name}"), &serde_json::json!({})).await {
            Ok(info) => Ok(Some(info)),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The sequence of a stream's last message.
    pub(super) async fn last(&self, name: &str) -> Result<u64, ReadError> {
        let info = self.info(name).await.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        info.map(|info| info.state.last_sequence)
            .ok_or_else(|| ReadError::Unavailable(format!("stream {name} is gone")))
    }

    /// See [`crate::Broker::usage`].
    pub(super) async fn usage(&self, streams: &[StreamSpec]) -> Result<Usage, ApiError> {
        #[derive(Deserialize)]
        struct Account {
            storage: u64,
            limits: Limits,
        }
        #[derive(Deserialize)]
        struct Limits {
            /// Not above 0 if there is none.
            max_storage: i64,
        }
        let mut usage = Usage::default();
        for spec in streams {
            if let Some(info) = self.info(&spec.name).await? {
                let (name, state) = (spec.name.clone(), info.state);
                usage.streams.push(StreamUsage { name, entries: state.messages, bytes: Some(state.bytes) });
            }
        }
        let account: Account = self.api.ask("INFO", &serde_json::json!({})).await?;
        usage.stored_bytes = account.storage;
        usage.limit_bytes = u64::try_from(account.limits.max_storage).ok().filter(|limit| *limit > 0);
        Ok(usage)
    }

    /// The names among these that are not there.
    pub(super) async fn missing(&self, names: Vec<String>) -> Result<Vec<String>, OpenError> {
        let there = self.all_names().await.map_err(open_error)?;
        Ok(names.into_iter().filter(|name| !there.contains(name)).collect())
    }

    /// See [`crate::Broker::stream_names`]: without those of buckets.
    pub(super) async fn names(&self) -> Result<Vec<String>, ApiError> {
        let all = self.all_names().await?;
        Ok(all.into_iter().filter(|name| !name.starts_with(BUCKET_PREFIX)).collect())
    }

    pub(super) async fn all_names(&self) -> Result<BTreeSet<String>, ApiError> {
        #[derive(Deserialize)]
        struct Names {
            #[serde(default)]
            total: usize,
            #[serde(default)]
            streams: Option<Vec<String>>,
        }
        let mut there = BTreeSet::new();
        let mut offset = 0;
        loop {
            let question = serde_json::json!({ "offset": offset });
            let page: Names = self.api.ask("STREAM.NAMES", &question).await?;
            there.extend(page.streams.unwrap_or_default());
            offset += NAMES_PER_PAGE;
            if offset >= page.total {
                return Ok(there);
            }
        }
    }

    /// See [`crate::Broker::open_stream`].
    pub(super) async fn open(&self, spec: &StreamSpec) -> Result<(), OpenError> {
        let sane = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if spec.name.is_empty() || !spec.name.bytes().all(sane) {
            return Err(OpenError::Invalid(format!("{:?} is no name of a stream", spec.name)));
        }
        let config = stream_config(spec, self.replicas)?;
        self.make_or_compare(config, true).await
    }

    /// See [`crate::Broker::open_bucket`].
    pub(super) async fn open_bucket(&self, bucket: &Bucket) -> Result<(), OpenError> {
        let config = bucket_config(bucket, self.replicas);
        self.make_or_compare(config, false).await
    }

    /// The stream of a bucket; asks the server for one that is not known yet, and makes one that is not there: a bucket
    /// that somebody relies on was opened with its realm. `None` if it is not there and may not be made.
    pub(super) async fn bucket(&self, bucket: &Bucket) -> Result<Option<Arc<Stream>>, OpenError> {
        let filter = format!("{}>", bucket_prefix(bucket));
        if let Some(stream) = self.known(&filter) {
            return Ok(Some(stream));
        }
        if self.may_make {
            self.open_bucket(bucket).await?;
            let made = self.known(&filter);
            return made.map(Some).ok_or_else(|| OpenError::Unreachable("the bucket is not there".into()));
        }
        let info = self.info(&bucket_stream(bucket)).await.map_err(open_error)?;
        Ok(info.as_ref().and_then(stream_of).map(|stream| self.remember(stream)))
    }

    /// Waits until a stream that was just made has a leader that answers.
    async fn wait_for_leader(&self, name: &str) -> Result<(), OpenError> {
        let deadline = Instant::now() + API_TIMEOUT;
        let anything = Get { last_by_subj: Some("nothing"), ..Get::default() };
        while let Err(error) = self.api.get(name, &anything).await {
            if Instant::now() > deadline {
                return Err(OpenError::Unreachable(format!(
                    "stream {name} was made and does not answer: {error}"
                )));
            }
            sleep(LEADER_DELAY).await;
        }
        Ok(())
    }

    async fn make_or_compare(&self, wanted: Config, can_raise: bool) -> Result<(), OpenError> {
        let there = self.info(&wanted.name).await.map_err(open_error)?;
        let info = match there {
            Some(info) => info,
            None => match self.api.ask(&format!("STREAM.CREATE.{}", wanted.name), &wanted).await {
                Ok(info) => {
                    self.wait_for_leader(&wanted.name).await?;
                    info
                }
                // Somebody else was faster; what is there then is compared.
                Err(error) => match self.info(&wanted.name).await.map_err(open_error)? {
                    Some(info) => info,
                    None => return Err(open_error(error)),
                },
            },
        };
        let differs = |difference: String| OpenError::Differs { name: wanted.name.clone(), difference };
        if let Some((_, difference)) = broken_promises(&info.config, &wanted).into_iter().next() {
            return Err(differs(difference));
        }
        let (is, wants) = (info.config.max_messages_per_subject, wanted.max_messages_per_subject);
        let number = |max: i64| if max <= 0 { i64::MAX } else { max };
        let mut info = info;
        if number(is) > number(wants) || (is != wants && !can_raise) {
            return Err(differs(format!(
                "its entries per subject can be raised, not lowered: they are {is}, not {wants}"
            )));
        } else if number(is) < number(wants) {
            let raised = Config {
                max_messages_per_subject: wants,
                discard_new_per_subject: wanted.discard_new_per_subject,
                ..info.config.clone()
            };
            info =
                self.api.ask(&format!("STREAM.UPDATE.{}", wanted.name), &raised).await.map_err(open_error)?;
        }
        match stream_of(&info) {
            Some(stream) => drop(self.remember(stream)),
            None => return Err(differs("it does not announce what it stores".into())),
        }
        Ok(())
    }
}

/// What a stream has to be like.
pub(super) fn stream_config(spec: &StreamSpec, replicas: usize) -> Result<Config, OpenError> {
    let scope = scope(&spec.filters).ok_or_else(|| {
        OpenError::Invalid(format!(
            "the filters of stream {} do not begin with the same two tokens",
            spec.name
        ))
    })?;
    let live = (scope.clone(), format!("{scope}live."));
    Ok(Config {
        name: spec.name.clone(),
        subjects: spec.filters.iter().map(|filter| filter.as_str().to_owned()).collect(),
        max_messages_per_subject: spec.entries_per_subject_max.map_or(-1, to_i64),
        discard_new_per_subject: spec.entries_per_subject_max.is_some(),
        duplicate_window: IDEMPOTENCE_WINDOW,
        ..common(replicas, &live)
    })
}

/// What the stream behind a bucket has to be like.
pub(super) fn bucket_config(bucket: &Bucket, replicas: usize) -> Config {
    let live = (bucket_prefix(bucket), bucket_live(bucket));
    Config {
        name: bucket_stream(bucket),
        subjects: vec![format!("{}>", live.0)],
        max_messages_per_subject: 1,
        allow_rollup: true,
        deny_delete: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(MARKER_TTL),
        duplicate_window: BUCKET_WINDOW,
        ..common(replicas, &live)
    }
}

/// Settings that all streams share.
fn common(replicas: usize, live: &(String, String)) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_consumers: CONSUMERS_MAX,
        max_messages: -1,
        max_bytes: -1,
        max_age: Duration::ZERO,
        num_replicas: replicas,
        allow_direct: true,
        republish: Some(Republish {
            source: format!("{}>", live.0),
            destination: format!("{}>", live.1),
            headers_only: false,
        }),
        ..Config::default()
    }
}

/// A stream with what is needed to use it; `None` for one that announces nothing.
fn stream_of(info: &Info) -> Option<Stream> {
    let config = &info.config;
    let republish = config.republish.as_ref()?;
    let prefix = |text: &str| text.strip_suffix('>').map(str::to_owned);
    Some(Stream {
        name: config.name.clone(),
        filters: config.subjects.clone(),
        live: (prefix(&republish.source)?, prefix(&republish.destination)?),
        is_replicated: config.num_replicas > 1,
    })
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether everything that `filter` matches is matched by `own` too.
pub(super) fn covers(own: &str, filter: &str) -> bool {
    let mut theirs = filter.split('.');
    for pattern in own.split('.') {
        match (pattern, theirs.next()) {
            (">", Some(_)) => return true,
            ("*", Some(token)) if token != ">" => {}
            (literal, Some(token)) if literal == token => {}
            _ => return false,
        }
    }
    theirs.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_keeps_a_filter_only_if_it_keeps_all_of_it() {
        let check = |own: &str, filter: &str, expected: bool| {
            assert_eq!(covers(own, filter), expected, "{own} and {filter}");
        };
        check("realm.a.mail.*.*", "realm.a.mail.messi.*", true);
        check("realm.a.mail.*.*", "realm.a.mail.messi.local", true);
        check("realm.a.mail.*.*", "realm.a.mail.>", false);
        check("realm.a.mail.*.*", "realm.a.*.messi.local", false);
        check("realm.a.>", "realm.a.mail.>", true);
        check("realm.a.inbox", "realm.a.inbox.b", false);
    }

    #[test]
    fn the_subjects_of_a_stream_share_two_tokens() {
        let filters =
            |texts: &[&str]| texts.iter().map(|text| Filter::new(text).unwrap()).collect::<Vec<_>>();
        assert_eq!(scope(&filters(&["realm.a.inbox", "realm.a.inbox.*"])).as_deref(), Some("realm.a."));
        assert_eq!(scope(&filters(&["realm.a.x", "realm.b.x"])), None);
        assert_eq!(scope(&filters(&["realm.*.x"])), None);
        assert_eq!(scope(&[]), None);
    }
}
