//! Messages to the supervisor, written by a thread of their own, which also sends the heartbeat:
//! it goes on whatever the engine is doing.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use interprocess::local_socket::Stream;
use orcd_shared::exit;
use orcd_shared::protocol::frame;
use orcd_shared::protocol::message::{HEARTBEAT_MS, ToSupervisor};

use crate::leave::leave;
use crate::log;

/// Messages that may wait to be written: seconds of steps. A supervisor that lets so many pile up
/// does not read; the engine then waits for it.
const CAPACITY: usize = 1024;

/// Pause between heartbeats: half of what is promised, so that a late wake-up keeps the promise.
const BEAT: Duration = Duration::from_millis(HEARTBEAT_MS / 2);

/// Messages encoded into one write.
const BATCH: usize = 64;

/// What the heartbeat tells, kept up to date by the engine thread.
#[derive(Debug, Default)]
pub struct Status {
    steps: AtomicU64,
    running: AtomicU32,
    waiting: AtomicU32,
}

impl Status {
    /// Notes the present state.
    pub fn set(&self, steps: u64, running: usize, waiting: usize) {
        self.steps.store(steps, Ordering::Relaxed);
        self.running.store(
            u32::try_from(running).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
        self.waiting.store(
            u32::try_from(waiting).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
    }

    fn heartbeat(&self) -> ToSupervisor {
        ToSupervisor::Heartbeat {
            steps: self.steps.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }
}

enum Item {
    Message(ToSupervisor),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Where messages to the supervisor are put.
#[derive(Debug, Clone)]
pub struct Outbox(SyncSender<Item>);

impl Outbox {
    /// Starts the writer.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn open(stream: Arc<Stream>, status: Arc<Status>) -> io::Result<Self> {
        let (outbox, inbox) = mpsc::sync_channel(CAPACITY);
        std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || {
                if let Err(error) = write_all(&stream, &inbox, &status) {
                    // The reader learns the same from the socket; whoever is first ends the process.
                    log::line(format_args!("the supervisor can't be written to: {error}"));
                    leave(exit::worker::OK);
                }
            })?;
        Ok(Self(outbox))
    }

    /// Puts a message behind those before it; waits while the supervisor is far behind.
    pub fn send(&self, message: ToSupervisor) {
        // The writer lives as long as the process, or ends it.
        let _ = self.0.send(Item::Message(message));
    }

    /// Waits until everything sent so far is written, at most `limit`: for last words only.
    pub fn flush(&self, limit: Duration) {
        let (written, wait) = mpsc::sync_channel(1);
        // A full outbox means that nobody reads: last words would not be heard either.
        if self.0.try_send(Item::Flush(written)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }
}

fn write_all(mut stream: &Stream, inbox: &Receiver<Item>, status: &Status) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut waiters = Vec::new();
    let mut due = Instant::now() + BEAT;
    loop {
        let first = match inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(item) => Some(item),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        for item in first.into_iter().chain(inbox.try_iter().take(BATCH)) {
            match item {
                Item::Message(message) => {
                    frame::encode(&message, &mut bytes).map_err(io::Error::other)?;
                }
                Item::Flush(written) => waiters.push(written),
            }
        }
        if Instant::now() >= due {
            frame::encode(&status.heartbeat(), &mut bytes).map_err(io::Error::other)?;
            due = Instant::now() + BEAT;
        }
        stream.write_all(&bytes)?;
        bytes.clear();
        for waiter in waiters.drain(..) {
            // Whoever waited may have run out of patience.
            let _ = waiter.send(());
        }
    }
}
