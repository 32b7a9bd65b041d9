//! Descriptors that systemd passed: which of them is the socket to listen on.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use nix::sys::socket::{getsockopt, sockopt};

/// A descriptor and the name that systemd has for it.
#[derive(Debug)]
pub struct Passed {
    /// `FileDescriptorName=` of a socket, `FDNAME=` of a stored descriptor.
    pub name: String,
    /// The descriptor, close-on-exec.
    pub fd: OwnedFd,
}

/// Why a passed socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// Which one?
    #[error("{0} listening sockets were passed; give one ListenStream= only")]
    Several(usize),
    /// A local socket, perhaps.
    #[error(
        "the passed socket {name} is not a TCP socket ({source}); give ListenStream= an address and \
         a port"
    )]
    NoTcp {
        /// Its name.
        name: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Passed {
    /// Whether it is a socket that connections can be accepted from.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        // What is no socket has no options.
        getsockopt(&self.fd, sockopt::AcceptConn) == Ok(true)
    }
}

/// The one listener among the listening sockets.
pub(super) fn the_listener(mut sockets: Vec<Passed>) -> Result<Option<TcpListener>, PassedError> {
    let several = sockets.len();
    let Some(Passed { name, fd }) = sockets.pop() else {
        return Ok(None);
    };
    if several > 1 {
        return Err(PassedError::Several(several));
    }
    let listener = TcpListener::from(fd);
    // Of a socket of another family there is no such address.
    let usable = listener
        .local_addr()
        .and_then(|_| listener.set_nonblocking(true));
    match usable {
        Ok(()) => Ok(Some(listener)),
        Err(source) => Err(PassedError::NoTcp { name, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn passed(fd: impl Into<OwnedFd>) -> Passed {
        Passed {
            name: "http".into(),
            fd: fd.into(),
        }
    }

    fn tcp() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn only_listening_sockets_are_taken_for_one() {
        assert!(passed(tcp()).is_listening());
        assert!(!passed(UnixStream::pair().unwrap().0).is_listening());
        assert!(!passed(tempfile::tempfile().unwrap()).is_listening());
    }

    #[test]
    fn one_tcp_socket_is_the_listener_and_all_else_is_an_error() {
        let socket = tcp();
        let address = socket.local_addr().unwrap();
        let listener = the_listener(vec![passed(socket)]).unwrap().unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        assert!(the_listener(vec![]).unwrap().is_none());
        let two = the_listener(vec![passed(tcp()), passed(tcp())]).unwrap_err();
        assert!(two.to_string().contains("2 listening sockets"), "{two}");
        let dir = tempfile::tempdir().unwrap();
        let local = UnixListener::bind(dir.path().join("s")).unwrap();
        let error = the_listener(vec![passed(local)]).unwrap_err();
        assert!(
            error.to_string().contains("http is not a TCP socket"),
            "{error}"
        );
    }
}
