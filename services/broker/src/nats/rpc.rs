//! Requests and replies, and services that tools can find.

use std::sync::Arc;
use std::time::Duration;

use async_nats::service::ServiceExt as _;
use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::NatsBroker;
use crate::{Replier, Request, RequestError, Requests, Service, Subject};

/// Requests that wait to be taken by who serves them.
const REQUESTS_MAX: usize = 256;
/// Replies that are waited for at the same time by one server.
const REPLIES_MAX: usize = 1024;
/// How long one look may take whether a subscription is known to the other servers.
const PROBE_PERIOD: Duration = Duration::from_millis(20);
/// All who serve a subject share its requests under this name.
const GROUP: &str = "antar";

impl NatsBroker {
    pub(super) async fn serve_subject(&self, subject: &Subject) -> Result<Requests, RequestError> {
        if self.is_closed() {
            return Err(RequestError::Unavailable("the broker was closed".into()));
        }
        let subscribed =
            self.reader.api.live().queue_subscribe(subject.as_str().to_owned(), GROUP.to_owned());
        let subscribed = tokio::time::timeout(super::api::API_TIMEOUT, subscribed).await;
        let subscriber = subscribed
            .map_err(|_| RequestError::Unavailable("there is no connection to NATS".into()))?
            .map_err(|error| RequestError::Unavailable(error.to_string()))?;
        self.settle_live().await?;
        Ok(self.take_requests(subscriber, subject))
    }

    /// Waits until requests of this broker find what was subscribed before. What serves and what asks are two
    /// connections, in a cluster often of two servers. Those tell each other of an account's subscriptions in their
    /// order, so that the last one proves the others.
    async fn settle_live(&self) -> Result<(), RequestError> {
        let unavailable = |error: &str| RequestError::Unavailable(error.to_owned());
        let (live, asking) = (self.reader.api.live(), self.reader.api.client());
        let probe = live.new_inbox();
        let settled = async {
            let mut arrived =
                live.subscribe(probe.clone()).await.map_err(|error| unavailable(&error.to_string()))?;
            loop {
                let sent = asking.publish(probe.clone(), Bytes::new()).await;
                sent.map_err(|error| unavailable(&error.to_string()))?;
                if let Ok(Some(_)) = tokio::time::timeout(PROBE_PERIOD, arrived.next()).await {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(super::api::API_TIMEOUT, settled)
            .await
            .unwrap_or_else(|_| Err(unavailable("no answer from NATS in time")))
    }

    fn take_requests(&self, mut subscriber: Subscriber, subject: &Subject) -> Requests {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let client = self.reader.api.live().clone();
        let (closed, subject) = (self.closed.clone(), subject.as_str().to_owned());
        let tasks = self.tasks.clone();
        let replies = Arc::new(Semaphore::new(REPLIES_MAX));
        self.tasks.spawn(async move {
            loop {
                // Cancel-safe: a request that is not taken runs into its asker's timeout, or is handed on below.
                let message = tokio::select! {
                    message = subscriber.next() => message,
                    () = sender.closed() => None,
                    () = closed.cancelled() => return,
                };
                let Some(message) = message else { break };
                let Some(reply) = message.reply.clone() else { continue };
                let Ok(permit) = replies.clone().try_acquire_owned() else { continue };
                let (done, answer) = oneshot::channel();
                let request = Request { body: message.payload.clone(), reply: Replier::new(done) };
                match sender.try_send(request) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => continue,
                    Err(mpsc::error::TrySendError::Closed(_)) => {
                        hand_on(&client, &subject, message).await;
                        break;
                    }
                }
                let client = client.clone();
                tasks.spawn(async move {
                    let _permit = permit;
                    if let Ok(body) = answer.await {
                        let _ = client.publish(reply, body).await;
                    }
                });
            }
            // Whoever asked between the end and the server's note of it is mostly answered by somebody else. Draining waits for
            // what has arrived; unsubscribing would drop it.
            let _ = subscriber.drain().await;
            loop {
                // Cancel-safe: once the broker is closed nobody waits for what is handed on.
                let message = tokio::select! {
                    message = subscriber.next() => message,
                    () = closed.cancelled() => return,
                };
                let Some(message) = message else { return };
                hand_on(&client, &subject, message).await;
            }
        });
        Requests::new(requests)
    }

    pub(super) async fn serve_service(
        &self,
        service: &Service,
        subject: &Subject,
    ) -> Result<Requests, RequestError> {
        let requests = self.serve_subject(subject).await?;
        let metadata = [("subject".to_owned(), subject.as_str().to_owned())].into();
        let builder = self.reader.api.live().service_builder().description(service.description.as_str());
        let started = builder.metadata(metadata).start(&service.name, &service.version).await;
        let started = started.map_err(|error| RequestError::Unavailable(error.to_string()))?;
        // It answers those who look for services for as long as the broker is open.
        let closed = self.closed.clone();
        self.tasks.spawn(async move {
            closed.cancelled().await;
            drop(started.stop().await);
        });
        Ok(requests)
    }
}

async fn hand_on(client: &async_nats::Client, subject: &str, message: Message) {
    if let Some(reply) = message.reply {
        let _ = client.publish_with_reply(subject.to_owned(), reply, message.payload).await;
    }
}
