//! Logs on stderr. They are written by a thread of their own: whoever reads stderr slowly, or not
//! at all, must not slow down tokens. What doesn't fit its queue is dropped and counted.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::LogFormat;

/// Lines that may wait.
const QUEUE: usize = 1024;
/// Time for the last lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);
/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT_FILTER: &str = "info";

/// Writes what waits when dropped, as far as that is quick.
#[derive(Debug)]
pub struct LogGuard {
    queue: Option<SyncSender<Message>>,
    writer: Option<JoinHandle<()>>,
}

/// Starts logging.
#[must_use]
pub fn start(format: LogFormat) -> LogGuard {
    let (queue, lines) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let lines = LogLines {
        lines,
        dropped: Arc::clone(&dropped),
    };
    let spawned = std::thread::Builder::new()
        .name("log".into())
        .spawn(move || lines.write());
    let writer = match &spawned {
        Ok(_) => BoxMakeWriter::new(Queue {
            queue: queue.clone(),
            dropped,
        }),
        Err(_) => BoxMakeWriter::new(io::stderr),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| DEFAULT_FILTER.into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal());
    // Fails if logging was started before, in which case that goes on.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    LogGuard {
        queue: Some(queue),
        writer: spawned.ok(),
    }
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    End,
}

#[derive(Debug, Clone)]
struct Queue {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Queue {
    // tracing-subscriber formats a whole line before it writes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct LogLines {
    lines: Receiver<Message>,
    dropped: Arc<AtomicU64>,
}

impl LogLines {
    fn write(self) {
        let mut stderr = io::stderr();
        while let Ok(Message::Line(line)) = self.lines.recv() {
            // Without a stderr there is nowhere to say so.
            let _ = stderr.write_all(&line);
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let _ = writeln!(
                    stderr,
                    "{dropped} log lines were dropped: stderr is too slow"
                );
            }
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (Some(queue), Some(writer)) = (self.queue.take(), self.writer.take()) else {
            return;
        };
        if queue.try_send(Message::End).is_err() {
            return;
        }
        let end = Instant::now() + FLUSH_LIMIT;
        while !writer.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
