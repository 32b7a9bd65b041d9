//! How many connections there may be: permits for everybody, and some for probes alone, so that who
//! looks after the service sees it also when it is overrun.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Most connections at once.
pub(in super::super) const MAX_CONNECTIONS: usize = 4096;
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

/// The permits of one listener.
#[derive(Debug)]
pub(super) struct ConnectionPermits {
    everybody: Arc<Semaphore>,
    probes: Arc<Semaphore>,
    /// What ends each connection with a permit for probes, the oldest first.
    oldest: VecDeque<Weak<CancellationToken>>,
}

/// A connection's permit, given back on drop.
#[derive(Debug)]
pub(super) enum ConnectionPermit {
    /// For any request.
    Any(#[expect(dead_code, reason = "it is its drop that matters")] OwnedSemaphorePermit),
    /// For one probe, until the token is cancelled because another connection needs it.
    Probe(
        Arc<CancellationToken>,
        #[expect(dead_code, reason = "it is its drop that matters")] OwnedSemaphorePermit,
    ),
}

impl ConnectionPermits {
    /// As many as this process has descriptors for; if those are few, a warning says so.
    pub(super) fn new() -> Self {
        let (counts, warning) = as_many_as_possible();
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        Self::with_counts(counts)
    }

    fn with_counts(counts: Counts) -> Self {
        Self {
            everybody: Arc::new(Semaphore::new(counts.everybody)),
            probes: Arc::new(Semaphore::new(counts.probes)),
            oldest: VecDeque::new(),
        }
    }

    /// A permit for a connection. There always is one soon: the oldest connection with one for probes
    /// is cut for it. A probe's request comes with its connection and is answered at once, so it is whoever
    /// sends nothing that is cut. `None`: the listener is being closed.
    pub(super) async fn acquire(&mut self) -> Option<ConnectionPermit> {
        if let Ok(permit) = Arc::clone(&self.everybody).try_acquire_owned() {
            return Some(ConnectionPermit::Any(permit));
        }
        if self.probes.available_permits() == 0 {
            let mut oldest = std::iter::from_fn(|| self.oldest.pop_front());
            if let Some(alive) = oldest.find_map(|token| token.upgrade()) {
                alive.cancel();
            }
        }
        let permit = Arc::clone(&self.probes).acquire_owned().await.ok()?;
        let token = Arc::new(CancellationToken::new());
        self.oldest.retain(|token| token.strong_count() > 0);
        self.oldest.push_back(Arc::downgrade(&token));
        Some(ConnectionPermit::Probe(token, permit))
    }
}

impl ConnectionPermit {
    /// Whether only probes are served with it.
    pub(super) fn is_for_probes(&self) -> bool {
        matches!(self, Self::Probe(..))
    }

    /// Waits until another connection needs the permit.
    pub(super) async fn is_reclaimed(&self) {
        match self {
            Self::Any(_) => std::future::pending().await,
            Self::Probe(needed, _) => needed.cancelled().await,
        }
    }
}

/// What there is to be said if this process has descriptors for few connections alone.
pub(crate) fn few_connections() -> Option<String> {
    as_many_as_possible().1
}

/// Raises the limit of descriptors as far as it goes; how many connections it allows, and what to say if they are few.
fn as_many_as_possible() -> (Counts, Option<String>) {
    let wanted = MAX_CONNECTIONS + PROBE_CONNECTIONS + OTHER_DESCRIPTORS;
    let limit = raise_descriptors(wanted);
    let counts = counts(limit);
    let warning = (counts.everybody < MAX_CONNECTIONS).then(|| {
        format!(
            "RLIMIT_NOFILE allows {limit} open files: {} connections are served at once and not \
             {MAX_CONNECTIONS}, others get 503; raise the limit to {wanted} (ulimit -n, \
             LimitNOFILE=)",
            counts.everybody
        )
    });
    (counts, warning)
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

    #[tokio::test]
    async fn without_a_permit_left_the_oldest_probe_makes_room() {
        let mut permits = ConnectionPermits::with_counts(Counts {
            everybody: 1,
            probes: 2,
        });
        let any = permits.acquire().await.unwrap();
        assert!(!any.is_for_probes());
        let mut probes = Vec::new();
        for _ in 0..2 {
            let permit = permits.acquire().await.unwrap();
            assert!(permit.is_for_probes());
            let holding = async move { permit.is_reclaimed().await };
            probes.push(tokio::spawn(holding));
        }
        // One that is over by itself is no longer the oldest.
        let third = permits.acquire().await.unwrap();
        drop(third);
        let fourth = permits.acquire().await.unwrap();
        let fifth = permits.acquire().await.unwrap();
        assert!(fourth.is_for_probes() && fifth.is_for_probes());
        for probe in probes {
            probe.await.unwrap();
        }
        drop(any);
        assert!(!permits.acquire().await.unwrap().is_for_probes());
    }
}
