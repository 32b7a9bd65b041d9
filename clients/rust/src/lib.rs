//! One stream over several replicas of `worker-orcd`: where one is lost, another goes on with the next byte.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use orcd_client::Replicas;
//! use serde_json::json;
//!
//! let replicas = Replicas::new(["http://10.0.0.1:8080", "http://10.0.0.2:8080"])?;
//! let mut events = replicas.execute(json!({"prompt": "Count to five"}))?;
//! while let Some(event) = events.next().await? {
//!     print!("{}", event["t"].as_str().unwrap_or_default());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A connection that fails or is silent, a stream that ends before its end, and errors that another replica may not answer
//! with are followed by an attempt at the next replica, with the ids that came so far. It speaks plain HTTP.

#![forbid(unsafe_code)]

mod attempt;
mod error;
mod progress;
mod sse;

use std::collections::VecDeque;
use std::time::Duration;

use hyper::Uri;
use serde_json::Value;

use attempt::Attempt;
pub use error::Error;
use error::Failure;
use progress::Progress;

/// Attempts in a row that bring nothing, for each replica.
const ROUNDS: u32 = 6;
/// Between rounds over all replicas: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Services for the same model.
#[derive(Debug, Clone)]
pub struct Replicas {
    bases: Vec<Uri>,
    key: Option<String>,
    rounds: u32,
}

/// A stream that goes on at one replica after the other.
#[derive(Debug)]
pub struct Events {
    replicas: Replicas,
    progress: Progress,
    attempt: Option<Attempt>,
    /// Read, and not given out.
    ready: VecDeque<Value>,
    /// Attempts that brought nothing, since the last event.
    failures: u32,
    /// Which replica is next.
    at: usize,
}

impl Replicas {
    /// Services by their URLs, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// [`Error::Url`]; [`Error::NoReplica`] if there is none.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let bases: Vec<Uri> = urls.into_iter().map(base).collect::<Result<_, _>>()?;
        if bases.is_empty() {
            return Err(Error::NoReplica);
        }
        Ok(Self {
            bases,
            key: None,
            rounds: ROUNDS,
        })
    }

    /// For services that ask for a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Gives up after so many rounds over all replicas without an event; 6 if it is not said, at least 1.
    #[must_use]
    pub fn with_rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds.max(1);
        self
    }

    /// The events of a job of `POST /execute`, each once and in order, to `end`.
    ///
    /// # Errors
    /// [`Error::Body`].
    pub fn execute(&self, job: Value) -> Result<Events, Error> {
        self.begin(Progress::job(job)?)
    }

    /// The chunks of a `POST /v1/chat/completions`, each once and in order.
    ///
    /// # Errors
    /// [`Error::Body`], also for `n` above 1: only a single output can go on at another replica.
    pub fn chat(&self, body: Value) -> Result<Events, Error> {
        self.begin(Progress::completion("/v1/chat/completions", body)?)
    }

    /// The chunks of a `POST /v1/completions`, each once and in order.
    ///
    /// # Errors
    /// As [`chat`](Self::chat).
    pub fn completion(&self, body: Value) -> Result<Events, Error> {
        self.begin(Progress::completion("/v1/completions", body)?)
    }

    fn begin(&self, progress: Progress) -> Result<Events, Error> {
        Ok(Events {
            replicas: self.clone(),
            progress,
            attempt: None,
            ready: VecDeque::new(),
            failures: 0,
            at: 0,
        })
    }
}

impl Events {
    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// The job can't go on anywhere; what came before it is all there is.
    pub async fn next(&mut self) -> Result<Option<Value>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.failures = 0;
                return Ok(Some(event));
            }
            if self.progress.is_over() {
                self.attempt = None;
                return Ok(None);
            }
            match self.read().await {
                Ok(()) => {}
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Elsewhere { .. }) if self.progress.is_complete() => return Ok(None),
                Err(Failure::Elsewhere { error, after }) => self.turn(error, after).await?,
            }
        }
    }

    /// Reads on, at the replica whose turn it is.
    async fn read(&mut self) -> Result<(), Failure> {
        let attempt = match &mut self.attempt {
            Some(attempt) => attempt,
            none => {
                let base = &self.replicas.bases[self.at % self.replicas.bases.len()];
                let (path, body) = (self.progress.path(), self.progress.body());
                none.insert(Attempt::begin(base, path, &body, self.replicas.key.as_deref()).await?)
            }
        };
        for data in attempt.read().await? {
            self.ready.extend(self.progress.take(&data)?);
        }
        Ok(())
    }

    /// An attempt failed. The next replica is asked at once; after all of them have failed it takes a while.
    async fn turn(&mut self, error: Error, after: Option<Duration>) -> Result<(), Error> {
        self.attempt = None;
        self.at += 1;
        self.failures += 1;
        let replicas = u32::try_from(self.replicas.bases.len()).unwrap_or(u32::MAX);
        if self.failures >= self.replicas.rounds.saturating_mul(replicas) {
            return Err(error);
        }
        if self.failures.is_multiple_of(replicas) {
            let after = after.unwrap_or_default().min(LAST_PAUSE);
            tokio::time::sleep(pause(self.failures / replicas).max(after)).await;
        }
        Ok(())
    }
}

/// After the round number `round`, from 1 on. Clients that failed together do not come back together.
fn pause(round: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << (round - 1).min(10));
    longest.min(LAST_PAUSE).mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn base(url: &str) -> Result<Uri, Error> {
    let uri: Option<Uri> = url.trim_end_matches('/').parse().ok();
    uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some())
        .ok_or_else(|| Error::Url(url.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_of_a_service_is_named() {
        for url in ["", "127.0.0.1:8080", "https://a", "http://"] {
            let error = Replicas::new([url]).unwrap_err();
            assert!(matches!(error, Error::Url(named) if named == url));
        }
        assert!(matches!(Replicas::new([]), Err(Error::NoReplica)));
        assert!(Replicas::new(["http://127.0.0.1:8080/"]).is_ok());
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        assert!(pause(1) <= FIRST_PAUSE && pause(1) >= FIRST_PAUSE / 2);
        assert!(pause(u32::MAX) <= LAST_PAUSE && pause(u32::MAX) >= LAST_PAUSE / 2);
    }
}
