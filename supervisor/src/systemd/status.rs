//! The line that `systemctl status` shows.

use crate::jobs::{ServiceState, Snapshot};

/// What the service does at present. `model` names the file.
pub(super) fn line(snapshot: &Snapshot, model: &str) -> String {
    let last = snapshot.last_exit.as_deref().unwrap_or("not known yet");
    match snapshot.state {
        ServiceState::Starting { percent } => format!("Loading {model}: {percent} %"),
        ServiceState::Ready if snapshot.stalled => {
            format!("Unhealthy: the engine is stalled on {model}")
        }
        ServiceState::Ready => format!("Ready: serving {model}"),
        ServiceState::Recovering => {
            format!("Recovering: the worker is replaced, jobs are held (last end: {last})")
        }
        ServiceState::Draining => format!(
            "Draining: {} running, {} queued",
            snapshot.running, snapshot.queued
        ),
        ServiceState::Unhealthy => {
            format!("Unhealthy: the worker can't be kept alive (last end: {last})")
        }
    }
}
