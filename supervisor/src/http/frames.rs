//! The body of a stream: events as they come, and a comment whenever nothing else was sent for a
//! while, whatever the reason. Proxies cut connections that say nothing, and a cut would cancel the
//! job.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::sse;
use super::sse::Resumed;
use crate::jobs::{JobEvent, JobStream, Numbered};

/// Longest silence. Clients are promised 5 s; the rest is for a busy machine.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// The job waits for its place.
const QUEUED: &[u8] = b": queued\n\n";
/// It runs, or is to go on after its worker was lost.
const WORKING: &[u8] = b": working\n\n";

/// The stream stopped before the job's last event: the connection is cut, so that the client does
/// not take what it has for everything.
#[derive(Debug, thiserror::Error)]
#[error("the job's stream was given up before its end")]
pub(super) struct Unfinished;

/// Makes the frames of one answer.
pub(super) struct Frames {
    stream: JobStream,
    /// Token events that are left out: the client has them of another service.
    received: Option<u64>,
    keep_alive: KeepAlive,
    ended: bool,
}

impl Frames {
    /// Of a stream that nothing was sent of; the client has `received` token events of another service. A job that waits
    /// has a comment at once.
    pub(super) fn new(stream: JobStream, received: Option<u64>) -> Self {
        let waits = stream.events.next_id() == 0;
        Self {
            stream,
            received,
            keep_alive: KeepAlive::new(if waits { Duration::ZERO } else { KEEP_ALIVE }),
            ended: false,
        }
    }

    /// The next frame; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Unfinished>> {
        while !self.ended {
            let event = tokio::select! {
                biased;
                event = self.stream.events.recv() => event,
                () = self.keep_alive.over() => return Some(Ok(self.comment())),
            };
            let Some(event) = event else {
                self.ended = true;
                return Some(Err(Unfinished));
            };
            self.ended = event.event.is_terminal();
            if let Some(frame) = self.frame(&event) {
                self.keep_alive.broken();
                return Some(Ok(frame));
            }
        }
        None
    }

    /// What is sent for an event. In the place of those that the client has there is one that says so.
    fn frame(&self, event: &Numbered) -> Option<Bytes> {
        match (self.received, &event.event) {
            (Some(tokens), JobEvent::Started { job_id, .. }) => {
                Some(sse::encode_resumed(&Resumed { job_id, tokens }))
            }
            (Some(tokens), JobEvent::Token { .. }) if event.id <= tokens => None,
            _ => Some(sse::encode(event)),
        }
    }

    fn comment(&mut self) -> Bytes {
        self.keep_alive.broken();
        // The first event comes when the job begins.
        let waits = self.stream.events.next_id() == 0;
        Bytes::from_static(if waits { QUEUED } else { WORKING })
    }
}

/// Since when nothing was sent. Sending costs a look at the clock; the timer is set anew only when
/// it has run down.
pub(super) struct KeepAlive {
    since: Instant,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self::new(KEEP_ALIVE)
    }
}

impl KeepAlive {
    fn new(first: Duration) -> Self {
        let now = Instant::now();
        Self {
            since: now,
            limit: first,
            timer: Box::pin(sleep_until(now + first)),
        }
    }

    /// Something is sent.
    pub(super) fn broken(&mut self) {
        self.since = Instant::now();
        self.limit = KEEP_ALIVE;
    }

    /// Waits until nothing was sent for too long.
    pub(super) async fn over(&mut self) {
        loop {
            self.timer.as_mut().await;
            let due = self.since + self.limit;
            if Instant::now() >= due {
                return;
            }
            self.timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests;
