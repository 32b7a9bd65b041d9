//! `WATCHDOG=1`, for as long as this process does its work: each sign of life is sent only after the
//! dispatcher and the HTTP side have answered. A thread that merely runs proves nothing.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::{Message, Notifier};
use crate::jobs::JobsHandle;

/// What has to answer.
#[derive(Debug, Clone)]
pub struct LivenessProbe {
    /// The dispatcher: asked through the same queue as every job.
    pub jobs: JobsHandle,
    /// All routes; asked for `/health` directly and not over a connection, of which there may be no
    /// more to be had under load.
    pub router: Router,
    /// The task that accepts connections.
    pub accepting: AbortHandle,
}

/// What did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The dispatcher has ended.
    #[error("the dispatcher has ended")]
    Ended,
    /// The accept loop is gone.
    #[error("connections are no longer accepted")]
    NotAccepting,
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TooLate(Duration),
}

impl LivenessProbe {
    /// Asks all of them.
    ///
    /// # Errors
    /// The first that did not answer.
    pub async fn check(&self, limit: Duration) -> Result<(), ProbeError> {
        let answered = timeout(limit, self.ask());
        answered.await.unwrap_or(Err(ProbeError::TooLate(limit)))
    }

    async fn ask(&self) -> Result<(), ProbeError> {
        if !self.jobs.ping().await {
            return Err(ProbeError::Ended);
        }
        let mut request = Request::new(Body::empty());
        let host = http::HeaderValue::from_static("localhost");
        request.headers_mut().insert(http::header::HOST, host);
        *request.uri_mut() = http::Uri::from_static("/health");
        // Whatever it answers, it does.
        let Ok(_) = TowerToHyperService::new(self.router.clone())
            .call(request)
            .await;
        match self.accepting.is_finished() {
            true => Err(ProbeError::NotAccepting),
            false => Ok(()),
        }
    }
}

/// Sends keep-alives, three in each `period`, until the dispatcher has ended.
pub async fn feed_watchdog(notifier: Notifier, period: Duration, probe: LivenessProbe) {
    let pause = period / 3;
    let keep_alive = Message::default().with("WATCHDOG", 1);
    loop {
        sleep(pause).await;
        match probe.check(pause).await {
            Ok(()) => notifier.notify(&keep_alive, &[]).await,
            // The service is about to end.
            Err(ProbeError::Ended) => return,
            Err(error) => tracing::error!(%error, "no keep-alive for systemd's watchdog"),
        }
    }
}
