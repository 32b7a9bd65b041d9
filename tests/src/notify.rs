//! systemd's part, played: a notify socket that keeps all notifications, and the
//! file-descriptor store that belongs to it.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tempfile::TempDir;

use crate::proc::wait_until;

/// How often the reading thread looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// One notification.
#[derive(Debug, Clone)]
pub struct Notification {
    /// When it was read.
    pub at: Instant,
    /// `KEY=value`, in order.
    pub lines: Vec<String>,
}

/// What was received and stored so far.
#[derive(Debug, Default)]
struct Known {
    notifications: Vec<Notification>,
    store: Vec<(String, OwnedFd)>,
}

/// The socket, read all the time until it is dropped.
#[derive(Debug)]
pub struct NotifyDouble {
    address: String,
    known: Arc<Mutex<Known>>,
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    #[expect(dead_code, reason = "it is its drop that matters")]
    folder: TempDir,
}

impl Default for NotifyDouble {
    fn default() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let known = Arc::new(Mutex::new(Known::default()));
        let over = Arc::new(AtomicBool::new(false));
        let reader = {
            let (known, over) = (known.clone(), over.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if let Some((lines, fds)) = receive(&socket) {
                        known.lock().unwrap().take(lines, fds);
                    }
                }
            })
        };
        Self {
            address: path.to_str().unwrap().to_owned(),
            known,
            over,
            reader: Some(reader),
            folder,
        }
    }
}

impl NotifyDouble {
    /// The value of `NOTIFY_SOCKET`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Everything so far.
    pub fn notifications(&self) -> Vec<Notification> {
        self.known.lock().unwrap().notifications.clone()
    }

    /// The values of a key so far, in order.
    pub fn values(&self, key: &str) -> Vec<String> {
        let notifications = self.notifications();
        let lines = notifications
            .iter()
            .flat_map(|notification| &notification.lines);
        lines
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(str::to_owned)
            .collect()
    }

    /// Waits until the notifications are as wanted.
    #[track_caller]
    pub fn wait_until(&self, what: &str, limit: Duration, wanted: impl Fn(&Self) -> bool) {
        assert!(
            wait_until(limit, || wanted(self)),
            "not within {limit:?}: {what}; notifications so far {:#?}",
            self.notifications()
        );
    }

    /// Names in the store, in the order of their arrival.
    pub fn stored_names(&self) -> Vec<String> {
        let known = self.known.lock().unwrap();
        known.store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Duplicates of what is in the store, as a restarted service gets them.
    pub fn stored(&self) -> Vec<(String, OwnedFd)> {
        let known = self.known.lock().unwrap();
        let duplicate = |(name, fd): &(String, OwnedFd)| (name.clone(), fd.try_clone().unwrap());
        known.store.iter().map(duplicate).collect()
    }
}

impl Drop for NotifyDouble {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.reader.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

impl Known {
    fn take(&mut self, lines: Vec<String>, fds: Vec<OwnedFd>) {
        let has = |line: &str| lines.iter().any(|l| l == line);
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME="));
        if has("FDSTORE=1") {
            assert_eq!(fds.len(), 1, "{lines:?}");
            let name = name.expect("a name for what is stored").to_owned();
            self.store
                .extend(fds.into_iter().map(|fd| (name.clone(), fd)));
        } else if has("FDSTOREREMOVE=1") {
            let name = name.expect("a name for what is removed");
            self.store.retain(|(stored, _)| stored != name);
        }
        self.notifications.push(Notification {
            at: Instant::now(),
            lines,
        });
    }
}

/// The next datagram and the descriptors in it; `None` when there was none for a moment.
fn receive(socket: impl AsFd) -> Option<(Vec<String>, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    assert!(
        !received.flags.contains(ReturnFlags::TRUNC),
        "systemd takes 4096 bytes"
    );
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let text = std::str::from_utf8(&bytes[..received.bytes]).unwrap();
    assert!(text.ends_with('\n'), "{text:?}");
    Some((text.lines().map(str::to_owned).collect(), fds))
}
