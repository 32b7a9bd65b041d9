//! Descriptors for which there is no room in this process. A test binary of its own: the limit is the
//! whole process's.
// A test's panic is its failure.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use orcd_shared::descriptors::{receive, send};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What comes of a message with so many descriptors where there is room for `room` more.
fn received(sent: usize, room: u64) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    send(&theirs, &[0], &vec![theirs.as_fd(); sent]).unwrap();
    let lowest_free = File::open("/dev/null").unwrap().as_raw_fd();
    let before = getrlimit(Resource::Nofile);
    let current = Some(u64::try_from(lowest_free).unwrap() + room);
    setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
    let received = receive(&ours);
    setrlimit(Resource::Nofile, before).unwrap();
    received
}

#[test]
fn what_the_kernel_cut_off_is_an_error_that_says_so() {
    assert!(received(1, 1).is_ok());
    // In the second case one arrives, and looks like all there was.
    for (sent, room) in [(1, 0), (2, 1)] {
        let error = received(sent, room).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("MSG_CTRUNC"), "{error}");
    }
}
