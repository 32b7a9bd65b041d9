//! The journal's own protocol: a datagram per event, a field for each of its values, so that
//! `journalctl ORCD_JOB_ID=…` finds what happened to a job.
//!
//! Our own sender and not a crate's: that one waits for a journal that is busy, and logging must
//! never slow down tokens.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// In front of an event's own fields: systemd itself has a `JOB_ID`, of other jobs.
const PREFIX: &str = "ORCD_";
const IDENTIFIER: &str = "worker-orcd";

/// Sends events to the journal. Those that it does not take at once are dropped and counted.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    dropped: AtomicU64,
}

impl Journal {
    /// The journal, if that is where `stderr` leads; `stream` is the value of `JOURNAL_STREAM`. The
    /// variable alone says nothing: it stays there when stderr is redirected.
    pub(super) fn of(stderr: impl AsFd, stream: Option<&OsStr>) -> Option<Self> {
        let (device, inode) = device_and_inode(stream?)?;
        let stat = nix::sys::stat::fstat(stderr).ok()?;
        ((stat.st_dev, stat.st_ino) == (device, inode)).then_some(())?;
        Self::at(Path::new(SOCKET)).ok()
    }

    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // An empty entry is discarded: this only finds out whether anybody listens.
        socket.send_to(&[], path)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            dropped: AtomicU64::new(0),
        })
    }

    fn send(&self, entry: &Entry) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let mut note = Entry::new(Level::WARN);
            let text = "log entries were dropped: the journal was full";
            note.add("MESSAGE", format_args!("{dropped} {text}"));
            if !self.try_send(&note) {
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        if !self.try_send(entry) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// By path and not connected: the journal may be started again.
    fn try_send(&self, entry: &Entry) -> bool {
        self.socket.send_to(&entry.bytes, &self.path).is_ok()
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut entry = Entry::new(*event.metadata().level());
        entry.describe(event.metadata());
        event.record(&mut entry);
        self.send(&entry);
    }
}

/// `DEVICE:INODE`.
fn device_and_inode(stream: &OsStr) -> Option<(u64, u64)> {
    let (device, inode) = stream.to_str()?.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// An entry in the form of the protocol: per field its name, a line end, the length in eight bytes,
/// the value and a line end. So a value may hold anything.
#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
}

impl Entry {
    fn new(level: Level) -> Self {
        let mut entry = Self {
            bytes: Vec::with_capacity(512),
        };
        entry.add("PRIORITY", format_args!("{}", priority(level)));
        entry.add("SYSLOG_IDENTIFIER", format_args!("{IDENTIFIER}"));
        entry
    }

    fn describe(&mut self, metadata: &Metadata<'_>) {
        self.add("TARGET", format_args!("{}", metadata.target()));
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            self.add("CODE_FILE", format_args!("{file}"));
            self.add("CODE_LINE", format_args!("{line}"));
        }
    }

    fn add(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'\n');
        let length_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 8]);
        // Writing to memory does not fail; a value that can't be shown stays short.
        let _ = self.bytes.write_fmt(value);
        let length = (self.bytes.len() - length_at - 8) as u64;
        self.bytes[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
        self.bytes.push(b'\n');
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(&name(field), format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(&name(field), format_args!("{value:?}"));
    }
}

/// The field's name as the journal takes it: capitals, digits, underscores.
fn name(field: &Field) -> String {
    if field.name() == "message" {
        return "MESSAGE".to_owned();
    }
    let allowed = |c: char| match c.to_ascii_uppercase() {
        upper if upper.is_ascii_alphanumeric() => upper,
        _ => '_',
    };
    PREFIX
        .chars()
        .chain(field.name().chars().map(allowed))
        .collect()
}

/// As syslog counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt as _;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn listen() -> (tempfile::TempDir, UnixDatagram, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let double = UnixDatagram::bind(&path).unwrap();
        double.set_nonblocking(true).unwrap();
        let journal = Journal::at(&path).unwrap();
        assert_eq!(double.recv(&mut [0; 1]).unwrap(), 0);
        (dir, double, journal)
    }

    /// The fields of the next entry.
    fn receive(double: &UnixDatagram) -> BTreeMap<String, String> {
        let mut buffer = vec![0; 64 << 10];
        let n = double.recv(&mut buffer).unwrap();
        let mut rest = &buffer[..n];
        let mut fields = BTreeMap::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == b'\n').unwrap();
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            let (length, tail) = rest[end + 1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let value = String::from_utf8(tail[..length].to_vec()).unwrap();
            assert_eq!(tail[length], b'\n');
            assert!(fields.insert(name, value).is_none(), "a field twice");
            rest = &tail[length + 1..];
        }
        fields
    }

    #[test]
    fn values_are_fields_whatever_they_hold() {
        let (_dir, double, journal) = listen();
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(job_id = "a\nPRIORITY=0", correlation_id = %"c-1", tokens = 7, "job {}", "ended");
        });
        let fields = receive(&double);
        for (name, value) in [
            ("MESSAGE", "job ended"),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "worker-orcd"),
            ("ORCD_JOB_ID", "a\nPRIORITY=0"),
            ("ORCD_CORRELATION_ID", "c-1"),
            ("ORCD_TOKENS", "7"),
        ] {
            assert_eq!(fields[name], value, "{fields:#?}");
        }
        assert!(fields["CODE_FILE"].ends_with("journal.rs"));
    }

    #[test]
    fn a_full_journal_is_not_waited_for() {
        let (_dir, double, journal) = listen();
        let mut entry = Entry::new(Level::INFO);
        entry.add("MESSAGE", format_args!("x"));
        let mut sent = 0;
        while journal.try_send(&entry) {
            sent += 1;
            assert!(sent < 100_000, "a queue without end");
        }
        journal.send(&entry);
        journal.send(&entry);
        (0..sent).for_each(|_| drop(receive(&double)));
        journal.send(&entry);
        let note = &receive(&double)["MESSAGE"];
        assert!(note.starts_with("2 log entries were dropped"), "{note}");
        assert_eq!(receive(&double)["MESSAGE"], "x");
    }

    #[test]
    fn only_the_stream_that_stderr_is_counts() {
        let file = tempfile::tempfile().unwrap();
        let stat = file.metadata().unwrap();
        let stream = format!("{}:{}", stat.dev(), stat.ino());
        assert_eq!(
            device_and_inode(OsStr::new(&stream)),
            Some((stat.dev(), stat.ino()))
        );
        let other = format!("{}:{}", stat.dev(), stat.ino() + 1);
        for stream in [&other, "", "1", "a:b"] {
            assert!(Journal::of(&file, Some(OsStr::new(stream))).is_none());
        }
        assert!(Journal::of(&file, None).is_none());
        // With the right one it depends on whether a journal runs here.
        let there = Journal::at(Path::new(SOCKET)).is_ok();
        let found = Journal::of(&file, Some(OsStr::new(&stream)));
        assert_eq!(found.is_some(), there);
    }
}
