//! Which faults there are, and which comes next.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::rng::Rng;

/// What is done to the worker. Points and actions are those of the worker's module `failpoints`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Injection {
    /// A signal from outside.
    Signal(Signal),
    /// Stopped for a time and continued: nothing is lost, and nobody may take it for a hang.
    Starve(Duration),
    /// The worker does this to itself when it comes to the point.
    At(&'static str, &'static str),
    /// The same on a step of a long prompt that begins now.
    InPrompt(&'static str),
    /// Set, then SIGKILL: it triggers in whoever comes next, in the middle of the failover.
    InFailover(&'static str, &'static str),
    /// SIGKILL, and again for the successor, this long after.
    Twice(Duration),
    /// Stopped, what it leaves is damaged, then SIGKILL.
    Damaged(Damage),
}

/// What is done to a pool while no worker computes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// A bit of each used page is flipped.
    Memory,
    /// Noise over some of the ledger, which this decides.
    Ledger(u64),
}

/// A fault of the campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its name in the report.
    pub(crate) kind: &'static str,
    /// What is done.
    pub(crate) injection: Injection,
    /// Most crashes that any one stream can be running in because of it.
    pub(crate) crashes: u32,
}

const DEATHS: [&str; 4] = ["kill", "segv", "abort", "exit"];
const HANGS: [&str; 3] = ["stop", "spin", "sleep"];

/// There is nothing to promote without a standby.
const PROMOTION: &str = "dies during promotion";
/// These happen where pages are few.
const IN_SMALL_POOLS: [&str; 2] = [
    "dies as it takes a kept page",
    "dies as a job gives its pages back",
];
/// Nobody reaches the pool in a GPU's memory.
const ON_CPUS: [&str; 2] = [
    "SIGKILL, and a bit of each KV page flipped",
    "SIGKILL, and the ledger of KV pages torn",
];

/// All kinds, in the order of the report.
pub(crate) const KINDS: [&str; 23] = [
    "SIGKILL",
    "SIGSEGV",
    "SIGABRT",
    "SIGTERM",
    "SIGSTOP",
    "starved: SIGSTOP, then SIGCONT",
    "dies before a step",
    "hangs before a step",
    "dies between device and socket",
    "hangs between device and socket",
    "dies of a command",
    "hangs on a command",
    "dies in a prompt",
    "successor dies before the handshake",
    "successor dies while loading",
    PROMOTION,
    "SIGKILL, and its successor too",
    "dies before the ledger knows of full pages",
    "successor dies as it takes the pool over",
    IN_SMALL_POOLS[0],
    IN_SMALL_POOLS[1],
    ON_CPUS[0],
    ON_CPUS[1],
];

/// What of a service decides which faults it may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) standby: bool,
    /// Its pool is too small on purpose.
    pub(crate) is_small: bool,
    pub(crate) is_cpu: bool,
    /// When the service takes a worker's silence for a hang.
    pub(crate) hang: Duration,
}

impl Setting {
    fn has(self, kind: &str) -> bool {
        (self.standby || kind != PROMOTION)
            && (self.is_small || !IN_SMALL_POOLS.contains(&kind))
            && (self.is_cpu || !ON_CPUS.contains(&kind))
    }
}

/// Faults in an order that the seed decides: each kind comes once before any comes again.
#[derive(Debug)]
pub(crate) struct Deck {
    rng: Rng,
    left: Vec<&'static str>,
    setting: Setting,
}

impl Deck {
    /// For a service.
    pub(crate) fn new(rng: Rng, setting: Setting) -> Self {
        Self {
            rng,
            left: Vec::new(),
            setting,
        }
    }

    /// The next fault.
    pub(crate) fn draw(&mut self) -> Fault {
        if self.left.is_empty() {
            let possible = KINDS.into_iter().filter(|kind| self.setting.has(kind));
            self.left = possible.collect();
        }
        let at = self.rng.below(self.left.len() as u64);
        let kind = self.left.swap_remove(usize::try_from(at).unwrap());
        let injection = injection(kind, &mut self.rng, self.setting.hang);
        let crashes = match injection {
            Injection::Starve(_) => 0,
            Injection::Twice(_) | Injection::InFailover("command" | "adopt", _) => 2,
            _ => 1,
        };
        Fault {
            kind,
            injection,
            crashes,
        }
    }
}

fn injection(kind: &str, rng: &mut Rng, hang: Duration) -> Injection {
    let longest_starving = u64::try_from(hang.as_millis()).unwrap() * 2 / 3;
    match kind {
        "SIGKILL" => Injection::Signal(Signal::SIGKILL),
        "SIGSEGV" => Injection::Signal(Signal::SIGSEGV),
        "SIGABRT" => Injection::Signal(Signal::SIGABRT),
        "SIGTERM" => Injection::Signal(Signal::SIGTERM),
        "SIGSTOP" => Injection::Signal(Signal::SIGSTOP),
        "starved: SIGSTOP, then SIGCONT" => Injection::Starve(rng.time(100, longest_starving)),
        "dies before a step" => Injection::At("step", rng.pick(&DEATHS)),
        "hangs before a step" => Injection::At("step", rng.pick(&HANGS)),
        "dies between device and socket" => Injection::At("sampled", rng.pick(&DEATHS)),
        "hangs between device and socket" => Injection::At("sampled", rng.pick(&HANGS)),
        "dies of a command" => Injection::At("command", rng.pick(&DEATHS)),
        "hangs on a command" => Injection::At("command", rng.pick(&HANGS)),
        "dies in a prompt" => Injection::InPrompt(rng.pick(&DEATHS)),
        "successor dies before the handshake" => Injection::InFailover("start", rng.pick(&DEATHS)),
        "successor dies while loading" => {
            Injection::InFailover(rng.pick(&["load", "loaded"]), rng.pick(&DEATHS))
        }
        PROMOTION => Injection::InFailover("command", rng.pick(&DEATHS)),
        "SIGKILL, and its successor too" => Injection::Twice(rng.time(1, 60)),
        "dies before the ledger knows of full pages" => Injection::At("ledger", rng.pick(&DEATHS)),
        "successor dies as it takes the pool over" => {
            Injection::InFailover("adopt", rng.pick(&DEATHS))
        }
        "dies as it takes a kept page" => Injection::At("evict", rng.pick(&DEATHS)),
        "dies as a job gives its pages back" => Injection::At("preempt", rng.pick(&DEATHS)),
        "SIGKILL, and a bit of each KV page flipped" => Injection::Damaged(Damage::Memory),
        "SIGKILL, and the ledger of KV pages torn" => {
            Injection::Damaged(Damage::Ledger(rng.below(u64::MAX)))
        }
        other => unreachable!("{other} is no kind"),
    }
}

#[test]
fn seed_decides_and_every_kind_comes() {
    let setting = |yes| Setting {
        standby: yes,
        is_small: yes,
        is_cpu: yes,
        hang: Duration::from_millis(500),
    };
    let drawn = |seed, yes| {
        let mut deck = Deck::new(Rng::new(seed, 0), setting(yes));
        (0..KINDS.len()).map(|_| deck.draw()).collect::<Vec<_>>()
    };
    assert_eq!(drawn(7, true), drawn(7, true));
    assert_ne!(drawn(7, true), drawn(8, true));
    for kind in KINDS {
        let came = |yes| drawn(7, yes).iter().any(|fault| fault.kind == kind);
        assert!(came(true), "{kind}");
        let is_special =
            kind == PROMOTION || IN_SMALL_POOLS.contains(&kind) || ON_CPUS.contains(&kind);
        assert_eq!(came(false), !is_special, "{kind}");
    }
}
