//! Descriptors that come over a socket: one is taken, none is left behind.
// A test's panic is its failure.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use orcd_shared::descriptors::{receive, send};

/// A pipe, the end to send and the end that tells when nobody has the other one any more.
fn pipe() -> (io::PipeWriter, io::PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    (writer, reader)
}

fn nobody_has_it(mut reader: io::PipeReader) -> bool {
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    io::Read::read(&mut reader, &mut [0]).is_ok_and(|n| n == 0)
}

#[test]
fn one_descriptor_is_taken_close_on_exec() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    send(&theirs, &[0], &[null.as_fd()]).unwrap();
    let fd = receive(&ours).unwrap();
    let flags = rustix::io::fcntl_getfd(&fd).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn descriptors_too_many_are_refused_and_closed() {
    // Two find room after the first one's padding; of five the kernel cuts some off.
    for count in [2, 5] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (sent, reader) = pipe();
        let fds: Vec<_> = (0..count).map(|_| sent.as_fd()).collect();
        send(&theirs, &[0], &fds).unwrap();
        drop(sent);
        let error = receive(&ours).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("more than one"), "{error}");
        assert!(nobody_has_it(reader), "{count} came, and some stay open");
    }
}

#[test]
fn message_without_a_descriptor_and_the_end_are_told_apart() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&[0]).unwrap();
    let error = receive(&ours).unwrap_err();
    assert!(error.to_string().contains("without"), "{error}");
    drop(theirs);
    let error = receive(&ours).unwrap_err();
    assert!(error.to_string().contains("ended"), "{error}");
}

#[test]
fn more_descriptors_than_a_message_takes_are_not_sent() {
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let error = send(&theirs, &[0], &[theirs.as_fd(); 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
