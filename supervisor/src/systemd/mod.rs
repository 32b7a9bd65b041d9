//! What systemd and this service exchange: readiness and state, the time that loading may
//! take, the watchdog, a listening socket that was passed, and the descriptors of weights and KV memory,
//! which systemd keeps while no supervisor runs.
//!
//! The environment is read once, at the beginning of `main`. Without it everything here does
//! nothing.

mod environment;
mod fdstore;
mod message;
mod notifier;
mod passed;
mod report;
mod status;
mod watchdog;

use std::net::TcpListener;
use std::time::Duration;

pub use fdstore::{FdStore, ImageLocation, PoolSizing, PoolTerms, StoreTerms};
pub use message::Message;
pub use notifier::Notifier;
pub use passed::{Passed, PassedError};
pub use report::Report;
pub use watchdog::{LivenessProbe, ProbeError, feed_watchdog};

use crate::worker::handles::take_inherited;
use environment::Environment;

/// What systemd passed to this process. The default is nothing.
#[derive(Debug, Default)]
pub struct Manager {
    environment: Environment,
    passed: Vec<Passed>,
}

impl Manager {
    /// Reads the environment and takes the descriptors that were passed. To be called before
    /// anything else in `main`: later, others may have opened descriptors of their own.
    #[must_use]
    pub fn take() -> Self {
        let environment = Environment::read(std::process::id(), |name| std::env::var_os(name));
        let count = u16::try_from(environment.passed.len()).unwrap_or(u16::MAX);
        let passed = std::iter::zip(&environment.passed, take_inherited(count))
            .filter_map(|(name, fd)| {
                let name = name.clone();
                Some(Passed { name, fd: fd? })
            })
            .collect();
        Self {
            environment,
            passed,
        }
    }

    /// The listening socket that was passed, if there is one.
    ///
    /// # Errors
    /// There are several, or it is no TCP socket.
    pub fn take_listener(&mut self) -> Result<Option<TcpListener>, PassedError> {
        let (listening, others) = std::mem::take(&mut self.passed)
            .into_iter()
            .partition(Passed::is_listening);
        self.passed = others;
        passed::the_listener(listening)
    }

    /// What was passed beside the listener.
    #[must_use]
    pub fn take_others(&mut self) -> Vec<Passed> {
        std::mem::take(&mut self.passed)
    }

    /// The way to notify systemd.
    #[must_use]
    pub fn notifier(&self) -> Notifier {
        Notifier::new(self.environment.notify_socket.as_deref())
    }

    /// Signs of life are wanted at least this often.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.environment.watchdog
    }
}
