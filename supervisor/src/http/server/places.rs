//! How many connections there may be: places for everybody, and some that only probes are served
//! in, so that who looks after the service sees it also when it is overrun.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 4096;
/// Connections beyond those, for probes alone.
const PROBE_CONNECTIONS: usize = 64;
/// Descriptors kept back for everything that is no connection: about twenty are in use, more while a
/// worker is replaced.
const OTHER_DESCRIPTORS: usize = 64;

/// How many connections of each kind a limit of descriptors allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    everybody: usize,
    probes: usize,
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    everybody: Arc<Semaphore>,
    /// What ends the connection that has the place; they are given in turn.
    probes: Vec<CancellationToken>,
    next: usize,
}

/// A connection's place, given back on drop.
#[derive(Debug)]
pub(super) enum Place {
    /// For any request.
    Any(#[expect(dead_code, reason = "it is its drop that matters")] OwnedSemaphorePermit),
    /// For one probe, until the token is cancelled because another connection needs it.
    Probe(CancellationToken),
}

impl Places {
    /// As many as this process has descriptors for; if those are few, a warning says so.
    pub(super) fn take() -> Self {
        let wanted = MAX_CONNECTIONS + PROBE_CONNECTIONS + OTHER_DESCRIPTORS;
        let limit = raise_descriptors(wanted);
        let counts = counts(limit);
        if counts.everybody < MAX_CONNECTIONS {
            tracing::warn!(
                "RLIMIT_NOFILE allows {limit} open files: {} connections are served at once and not \
                 {MAX_CONNECTIONS}, others get 503; raise the limit to {wanted} (ulimit -n, \
                 LimitNOFILE=)",
                counts.everybody
            );
        }
        Self::new(counts)
    }

    fn new(counts: Counts) -> Self {
        Self {
            everybody: Arc::new(Semaphore::new(counts.everybody)),
            probes: vec![CancellationToken::new(); counts.probes],
            next: 0,
        }
    }

    /// A place for a connection. There always is one: the oldest of those for probes has to go for
    /// it. A probe's request comes with its connection and is answered at once, so it is whoever
    /// sends nothing that is cut.
    pub(super) fn give(&mut self) -> Place {
        if let Ok(permit) = Arc::clone(&self.everybody).try_acquire_owned() {
            return Place::Any(permit);
        }
        let token = CancellationToken::new();
        if let Some(oldest) = self.probes.get_mut(self.next) {
            oldest.cancel();
            *oldest = token.clone();
        }
        self.next = (self.next + 1) % self.probes.len().max(1);
        Place::Probe(token)
    }
}

impl Place {
    /// Whether only probes are served in it.
    pub(super) fn is_for_probes(&self) -> bool {
        matches!(self, Self::Probe(_))
    }

    /// Waits until another connection needs the place.
    pub(super) async fn is_needed(&self) {
        match self {
            Self::Any(_) => std::future::pending().await,
            Self::Probe(needed) => needed.cancelled().await,
        }
    }
}

/// Half of few descriptors, and no more than needed of many, are kept back for other things.
fn counts(limit: usize) -> Counts {
    let other = OTHER_DESCRIPTORS.min(limit / 2);
    let probes = PROBE_CONNECTIONS.min(limit / 8).max(1);
    let rest = limit.saturating_sub(other + probes);
    Counts {
        everybody: rest.clamp(1, MAX_CONNECTIONS),
        probes,
    }
}

/// Raises the limit of descriptors to `wanted`, as far as that is allowed; what it then is.
fn raise_descriptors(wanted: usize) -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    let raised = (wanted as u64).clamp(soft, hard.max(soft));
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => raised,
        Err(_) => soft,
    };
    usize::try_from(limit).unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_shared_out_and_many_are_enough() {
        let of = |limit| {
            let counts = counts(limit);
            (counts.everybody, counts.probes)
        };
        assert_eq!(of(1 << 20), (4096, 64));
        assert_eq!(of(4096 + 128), (4096, 64));
        assert_eq!(of(4096), (4096 - 128, 64));
        assert_eq!(of(1024), (1024 - 128, 64));
        assert_eq!(of(64), (24, 8));
        assert_eq!(of(0), (1, 1));
    }

    #[test]
    fn behind_the_last_place_the_oldest_probe_makes_room() {
        let mut places = Places::new(Counts {
            everybody: 1,
            probes: 2,
        });
        let any = places.give();
        assert!(!any.is_for_probes());
        let tokens: Vec<_> = (0..3)
            .map(|_| match places.give() {
                Place::Probe(token) => token,
                other => panic!("{other:?}"),
            })
            .collect();
        let needed: Vec<_> = tokens.iter().map(CancellationToken::is_cancelled).collect();
        assert_eq!(needed, [true, false, false]);
        drop(any);
        assert!(!places.give().is_for_probes());
    }
}
