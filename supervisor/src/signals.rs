//! What ends the service: SIGTERM, SIGINT, SIGHUP (its terminal is gone), `POST /shutdown`. A service
//! that systemd runs has no terminal: SIGHUP, which some send to daemons to have them read their
//! settings again, is ignored there.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The ways to stop; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled: take no new jobs, let the running ones finish for a while.
    pub drain: CancellationToken,
    /// Cancelled: stop at once, but let each stream have its last event.
    pub abort: CancellationToken,
    /// Cancelled: wait for nothing any more.
    pub leave: CancellationToken,
}

impl Shutdown {
    /// One that SIGTERM, SIGINT and SIGHUP begin, a second SIGINT brings to an end, and a third cuts
    /// off. To be called within a runtime. Unless `hangup_stops`, SIGHUP does nothing.
    ///
    /// # Errors
    /// The handlers can't be installed.
    pub fn by_signals(hangup_stops: bool) -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let shutdown = Self::default();
        let Self {
            drain,
            abort,
            leave,
        } = shutdown.clone();
        tokio::spawn(async move {
            let mut interrupts = 0;
            loop {
                let name = tokio::select! {
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = hangup.recv(), if hangup_stops => "SIGHUP",
                    Some(()) = interrupt.recv() => {
                        interrupts += 1;
                        "SIGINT"
                    }
                    else => return,
                };
                match interrupts {
                    0 | 1 => tracing::info!("{name}: stopping"),
                    2 => {
                        tracing::warn!("second SIGINT: stopping at once");
                        abort.cancel();
                    }
                    _ => leave.cancel(),
                }
                drain.cancel();
            }
        });
        Ok(shutdown)
    }
}
