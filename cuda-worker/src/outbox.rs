//! Messages to the supervisor. Whoever has one writes it: another thread in between would cost each
//! token a wake-up, and the engine its processor on a busy machine. A thread of its own adds the
//! heartbeat, which goes on whatever the engine is doing.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use interprocess::local_socket::Stream;
use interprocess::local_socket::traits::Stream as _;
use orcd_shared::exit;
use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::frame;
use orcd_shared::protocol::message::{HEARTBEAT_MS, ToSupervisor};

use crate::exit_now::exit_now;
use crate::log;

/// Pause between heartbeats: half of what is promised, so that a late wake-up keeps the promise.
const BEAT: Duration = Duration::from_millis(HEARTBEAT_MS / 2);

/// What the heartbeat tells, kept up to date by the engine thread.
#[derive(Debug, Default)]
pub struct Status {
    steps: AtomicU64,
    running: AtomicU32,
    kv_used: AtomicU32,
    kv_cached: AtomicU32,
    kv_refused: AtomicU32,
}

impl Status {
    /// Notes the present state.
    pub fn set(&self, steps: u64, running: usize, kv: PageCounts) {
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        self.steps.store(steps, Ordering::Relaxed);
        self.running.store(running, Ordering::Relaxed);
        self.kv_used.store(kv.used, Ordering::Relaxed);
        self.kv_cached.store(kv.cached, Ordering::Relaxed);
        self.kv_refused.store(kv.refused, Ordering::Relaxed);
    }

    fn heartbeat(&self) -> ToSupervisor {
        ToSupervisor::Heartbeat {
            steps: self.steps.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
            kv: PageCounts {
                used: self.kv_used.load(Ordering::Relaxed),
                cached: self.kv_cached.load(Ordering::Relaxed),
                refused: self.kv_refused.load(Ordering::Relaxed),
            },
        }
    }
}

/// Where messages to the supervisor are put. They leave whole and in order.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Mutex<Wire>>);

#[derive(Debug)]
struct Wire {
    stream: Arc<Stream>,
    /// Of the message being written; kept for its memory.
    bytes: Vec<u8>,
}

impl Wire {
    fn write(&mut self, message: &ToSupervisor) -> io::Result<()> {
        self.bytes.clear();
        frame::encode(message, &mut self.bytes).map_err(io::Error::other)?;
        (&mut &*self.stream).write_all(&self.bytes)
    }
}

impl Outbox {
    /// Starts the heartbeat.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn open(stream: Arc<Stream>, status: Arc<Status>) -> io::Result<Self> {
        let outbox = Self(Arc::new(Mutex::new(Wire {
            stream,
            bytes: Vec::new(),
        })));
        let beating = outbox.clone();
        let thread = std::thread::Builder::new().name("heartbeat".into());
        thread.spawn(move || {
            loop {
                std::thread::sleep(BEAT);
                beating.send(&status.heartbeat());
            }
        })?;
        Ok(outbox)
    }

    /// Writes a message. Waits while the supervisor is some hundred kilobytes behind: it would only
    /// pile up here otherwise. Should it never read again, its end is noticed by the reader.
    pub fn send(&self, message: &ToSupervisor) {
        if let Err(error) = self.lock().write(message) {
            // The reader learns the same from the socket; whoever is first ends the process.
            log::line(format_args!("the supervisor can't be written to: {error}"));
            exit_now(exit::worker::OK);
        }
    }

    /// Writes the message after which the process ends, if the supervisor takes it in time.
    pub fn send_last(&self, message: &ToSupervisor, limit: Duration) {
        let mut wire = self.lock();
        // Nobody is left to hear of a failure.
        let _ = wire.stream.set_send_timeout(Some(limit));
        let _ = wire.write(message);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wire> {
        // A panic while writing leaves half a message at worst, and ends the process anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
