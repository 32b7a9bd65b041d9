//! File descriptors over a Unix stream: one data byte of no meaning with one descriptor.

use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

/// Receives one descriptor, close-on-exec. Whatever else came with the message is closed.
///
/// # Errors
/// The other end is gone, or sent none, or more than one. What the socket itself says is passed on:
/// `WouldBlock` and `Interrupted` among it.
pub fn receive(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut byte = [0_u8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    // It closes what is not taken out of it.
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let data = &mut [IoSliceMut::new(&mut byte)];
    let message = recvmsg(socket, data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let rights = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let mut received: Vec<OwnedFd> = rights.flatten().collect();
    let all = !message.flags.contains(ReturnFlags::CTRUNC);
    match (received.pop(), received.is_empty()) {
        (Some(fd), true) if all => Ok(fd),
        (None, _) if message.bytes == 0 => Err(broken("the descriptor channel ended")),
        (None, _) if all => Err(broken("a message without a descriptor came")),
        // The kernel took it back.
        (None, _) => Err(broken(
            "a descriptor could not be taken: as many are open here as may be (ulimit -n)",
        )),
        _ => Err(broken("more than one descriptor came with a message")),
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
