//! File descriptors over Unix sockets: the one place that sends and receives them.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Sends `data`, and duplicates of `fds` (eight at most) with it. On a stream `data` has to have a byte,
/// of whatever meaning: a descriptor does not travel alone.
///
/// # Errors
/// The other end is gone, or there are too many descriptors. What the socket itself says is passed on:
/// `WouldBlock` and `Interrupted` among it.
pub fn send(socket: impl AsFd, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    let data = [IoSlice::new(data)];
    sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one descriptor, close-on-exec. Whatever else came with the message is closed.
///
/// # Errors
/// The other end is gone, or sent none, or more than one, or the kernel cut some off. What the socket
/// itself says is passed on: `WouldBlock` and `Interrupted` among it.
pub fn receive(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut byte = [0_u8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    // It closes what is not taken out of it.
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let data = &mut [IoSliceMut::new(&mut byte)];
    let message = recvmsg(socket, data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(broken(
            "descriptors were cut off (MSG_CTRUNC): more than one came, or as many are open here as may \
             be (ulimit -n)",
        ));
    }
    let rights = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let mut received: Vec<OwnedFd> = rights.flatten().collect();
    match (received.pop(), received.is_empty()) {
        (Some(fd), true) => Ok(fd),
        (Some(_), false) => Err(broken("more than one descriptor came with a message")),
        (None, _) if message.bytes == 0 => Err(broken("the descriptor channel ended")),
        (None, _) => Err(broken("a message without a descriptor came")),
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
