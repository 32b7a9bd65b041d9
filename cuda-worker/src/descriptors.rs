//! File descriptors between supervisor and worker. They travel beside the socket, over the Unix
//! stream that is this process's standard input: one data byte of no meaning with one descriptor.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use orcd_shared::descriptors;

/// Longest wait for the other side. It sends a descriptor before the message that speaks of it, so
/// that a healthy peer is never waited for.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// One end of the descriptor channel.
#[derive(Debug)]
pub struct DescriptorChannel {
    stream: UnixStream,
}

impl DescriptorChannel {
    /// The channel on standard input; `None` if that is something else, as in a worker without
    /// anybody to hold its memory.
    #[must_use]
    pub fn on_stdin() -> Option<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned().ok()?;
        let stream = UnixStream::from(stdin);
        // Fails on what is no socket, a terminal or /dev/null.
        stream.local_addr().ok()?;
        Self::over(stream).ok()
    }

    /// A channel over one end of a Unix stream pair.
    ///
    /// # Errors
    /// The waits can't be bounded.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(HANDOVER_TIMEOUT))?;
        stream.set_write_timeout(Some(HANDOVER_TIMEOUT))?;
        Ok(Self { stream })
    }

    /// Sends a duplicate of `fd`.
    ///
    /// # Errors
    /// The other end is gone or does not read.
    pub fn send(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        retry(|| descriptors::send(&self.stream, &[0], &[fd]))
    }

    /// Receives one descriptor, close-on-exec.
    ///
    /// # Errors
    /// None came in time, or something else than one descriptor.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        retry(|| descriptors::receive(&self.stream))
    }
}

/// Repeats a call that a signal interrupted; says what a timeout was about.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let seconds = HANDOVER_TIMEOUT.as_secs();
                let message = format!("the supervisor did not take part within {seconds} s");
                return Err(io::Error::new(ErrorKind::TimedOut, message));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;

    fn pair() -> (DescriptorChannel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (DescriptorChannel::over(ours).unwrap(), theirs)
    }

    #[test]
    fn descriptor_arrives_with_the_same_file_behind_it_and_close_on_exec() {
        let (ours, theirs) = pair();
        let theirs = DescriptorChannel::over(theirs).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"weights").unwrap();
        theirs.send(file.as_fd()).unwrap();
        drop(file);
        let fd = ours.receive().unwrap();
        let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_ne!(flags & nix::libc::FD_CLOEXEC, 0);
        let mut file = File::from(fd);
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "weights");
    }

    #[test]
    fn byte_without_descriptor_closed_channel_and_silence_are_errors() {
        let (ours, mut theirs) = pair();
        assert_eq!(ours.receive().unwrap_err().kind(), ErrorKind::TimedOut);
        theirs.write_all(&[0]).unwrap();
        assert_eq!(ours.receive().unwrap_err().kind(), ErrorKind::InvalidData);
        drop(theirs);
        assert_eq!(ours.receive().unwrap_err().kind(), ErrorKind::InvalidData);
        let file = tempfile::tempfile().unwrap();
        assert!(ours.send(file.as_fd()).is_err());
    }
}
