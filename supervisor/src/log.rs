//! Logs on stderr, written only as far as stderr takes them at once: whoever reads it slowly, or
//! not at all, must not slow down tokens. What doesn't fit is dropped and counted.

mod journal;

use std::env::{self, VarError};
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::LogFormat;
use journal::Journal;

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT_FILTER: &str = "info";
/// A pipe that is ready takes so many bytes without waiting (`PIPE_BUF`).
const PART_BYTES: usize = 4096;

/// Lines dropped since one could last be written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Starts logging for a chat in the terminal, which lines would disturb: there are none, unless `RUST_LOG` asks for them.
pub fn start_beside_a_chat(format: Option<LogFormat>) {
    if env::var_os(EnvFilter::DEFAULT_ENV).is_some_and(|wanted| !wanted.is_empty()) {
        start(format);
    }
}

/// Starts logging. Without a `format` said, lines for people; or, where stderr is systemd's journal,
/// entries with fields of their own.
pub fn start(format: Option<LogFormat>) {
    let (filter, fault) = filter(env::var(EnvFilter::DEFAULT_ENV));
    let stream = env::var_os("JOURNAL_STREAM");
    let journal = match format {
        None => Journal::of(io::stderr(), stream.as_deref()),
        Some(_) => None,
    };
    // Each of these fails if logging was started before, in which case that goes on.
    let _ = match journal {
        Some(journal) => tracing_subscriber::registry()
            .with(filter)
            .with(journal)
            .try_init(),
        None => start_on_stderr(format.unwrap_or(LogFormat::Text), filter),
    };
    if let Some(fault) = fault {
        tracing::warn!("RUST_LOG {fault}; the filter is {DEFAULT_FILTER:?}");
    }
}

/// What to log where `RUST_LOG` is this, and why it is not followed.
fn filter(wanted: Result<String, VarError>) -> (EnvFilter, Option<String>) {
    let fault = match wanted {
        Ok(wanted) => match EnvFilter::try_new(&wanted) {
            Ok(filter) => return (filter, None),
            Err(error) => {
                let invalid = |directive: &&str| {
                    !directive.is_empty() && directive.parse::<Directive>().is_err()
                };
                let directive = wanted.split(',').find(invalid).unwrap_or(&wanted);
                Some(format!("has an invalid directive `{directive}`: {error}"))
            }
        },
        Err(VarError::NotUnicode(_)) => Some("is not valid UTF-8".to_owned()),
        Err(VarError::NotPresent) => None,
    };
    (DEFAULT_FILTER.into(), fault)
}

fn start_on_stderr(format: LogFormat, filter: EnvFilter) -> Result<(), TryInitError> {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || Stderr { format })
        .with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
}

/// Stderr as long as it takes lines.
struct Stderr {
    format: LogFormat,
}

impl Write for Stderr {
    /// Takes a whole line: tracing-subscriber formats it before it writes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Held over both, so that nobody takes the room that was seen.
        let mut stderr = io::stderr().lock();
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let note = self.note(dropped);
            if !write_at_once(&mut stderr, note.as_bytes()) {
                DROPPED.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        if !write_at_once(&mut stderr, line) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stderr {
    fn note(&self, dropped: u64) -> String {
        let text = format!("{dropped} log lines were dropped: stderr was full");
        match self.format {
            LogFormat::Text => format!("{text}\n"),
            LogFormat::Json => format!("{{\"level\":\"WARN\",\"message\":\"{text}\"}}\n"),
        }
    }
}

/// Writes without waiting; `false` if not everything was written.
fn write_at_once<W: Write + AsFd>(out: &mut W, bytes: &[u8]) -> bool {
    bytes
        .chunks(PART_BYTES)
        .all(|part| has_room(out.as_fd()) && out.write_all(part).is_ok())
}

fn has_room(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let ready = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0);
    ready
        && fds[0]
            .revents()
            .is_some_and(|r| r.contains(PollFlags::POLLOUT))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_full_pipe_is_not_waited_for() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let line = [b'x'; 1000];
        let mut written = 0;
        while write_at_once(&mut writer, &line) {
            written += 1;
            assert!(written < 10_000, "a pipe without end");
        }
        assert!(written > 0);
        reader.read_exact(&mut [0; 8192]).unwrap();
        assert!(write_at_once(&mut writer, &line));
    }
    #[test]
    fn a_directive_that_cannot_be_read_is_named_and_the_default_holds() {
        let of = |wanted: &str| {
            let (filter, fault) = filter(Ok(wanted.into()));
            (filter.to_string(), fault)
        };
        assert_eq!(of("warn"), ("warn".into(), None));
        for (wanted, named) in [
            ("info,orcd_supervisor=loud", "`orcd_supervisor=loud`"),
            ("warn,,[=", "`[=`"),
        ] {
            let (filter, fault) = of(wanted);
            assert_eq!(filter, DEFAULT_FILTER);
            assert!(fault.is_some_and(|fault| fault.contains(named)), "{wanted}");
        }
        let (filter, fault) = filter(Err(VarError::NotPresent));
        assert_eq!((filter.to_string().as_str(), fault), (DEFAULT_FILTER, None));
        let (_, fault) = super::filter(Err(VarError::NotUnicode("\u{fffd}".into())));
        assert!(fault.is_some_and(|fault| fault.contains("UTF-8")));
    }
}
