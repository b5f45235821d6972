//! Traces to an OTLP collector: the spans that the realm makes for it ([`SPANS`]), by HTTP, in batches.
//!
//! Owns: the queue, the thread that empties it, and what is said when the collector is away. The server never waits: a
//! span that finds the queue full is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use antar_realm::SPANS;
use async_trait::async_trait;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::exit::{Exit, OrExit as _, Outcome};

/// Spans that wait; more are dropped.
const QUEUE_MAX: usize = 8_192;
/// Spans in one request.
const BATCH_MAX: usize = 1_024;
/// How long spans wait for others to go with.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long a collector may take for a request.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the end of the process waits for the last batch: it has to fit into its 10 s, of which the server takes 9.
const END_TIMEOUT: Duration = Duration::from_millis(700);

/// What exports.
pub(super) struct Traces(SdkTracerProvider);

/// Starts exporting to `endpoint`, inside of a runtime.
pub(super) fn start<S>(endpoint: &str) -> Outcome<(impl Layer<S> + Send + Sync + use<S>, Traces)>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let client = Client {
        inner: HyperClient::with_default_connector(EXPORT_TIMEOUT, None),
        runtime: Handle::current(),
        is_away: AtomicBool::new(false),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .or_exit(Exit::Usage)?;
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_MAX)
        .with_max_export_batch_size(BATCH_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let resource = Resource::builder()
        .with_service_name("antar")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider =
        SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("antar"))
        .with_location(false)
        .with_threads(false)
        .with_filter(Targets::new().with_target(SPANS, tracing::Level::INFO));
    Ok((layer, Traces(provider)))
}

impl Traces {
    /// Exports what waits, if the collector is quick.
    pub(super) async fn end(self) {
        // It blocks its thread; and it may go on beyond its timeout, when nobody waits any more.
        let end = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(END_TIMEOUT));
        if !matches!(tokio::time::timeout(END_TIMEOUT, end).await, Ok(Ok(Ok(())))) {
            tracing::warn!("the last spans were not exported");
        }
    }
}

/// Carries out requests of the thread that exports, which is none of the runtime's.
#[derive(Debug)]
struct Client {
    inner: HyperClient,
    runtime: Handle,
    /// The last request failed: said once, and once when that is over.
    is_away: AtomicBool,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.inner.clone();
        let answer = self.runtime.spawn(async move { client.send_bytes(request).await }).await?;
        let problem = match &answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(response.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        match (problem, self.is_away.load(Ordering::Relaxed)) {
            (Some(problem), false) => {
                self.is_away.store(true, Ordering::Relaxed);
                tracing::warn!(problem, "the collector of traces takes nothing; spans are dropped meanwhile");
            }
            (None, true) => {
                self.is_away.store(false, Ordering::Relaxed);
                tracing::info!("the collector of traces takes spans again");
            }
            _ => {}
        }
        answer
    }
}
