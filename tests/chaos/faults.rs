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

/// All kinds, in the order of the report.
pub(crate) const KINDS: [&str; 17] = [
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
];

/// Faults in an order that the seed decides: each kind comes once before any comes again.
#[derive(Debug)]
pub(crate) struct Deck {
    rng: Rng,
    left: Vec<&'static str>,
    standby: bool,
    /// When the service takes a worker's silence for a hang.
    hang: Duration,
}

impl Deck {
    /// For a service with or without a standby.
    pub(crate) fn new(rng: Rng, standby: bool, hang: Duration) -> Self {
        Self {
            rng,
            left: Vec::new(),
            standby,
            hang,
        }
    }

    /// The next fault.
    pub(crate) fn draw(&mut self) -> Fault {
        if self.left.is_empty() {
            let possible = |kind: &&str| self.standby || *kind != PROMOTION;
            self.left = KINDS.iter().copied().filter(possible).collect();
        }
        let at = self.rng.below(self.left.len() as u64);
        let kind = self.left.swap_remove(usize::try_from(at).unwrap());
        let injection = injection(kind, &mut self.rng, self.hang);
        let crashes = match injection {
            Injection::Starve(_) => 0,
            Injection::Twice(_) | Injection::InFailover("command", _) => 2,
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
        other => unreachable!("{other} is no kind"),
    }
}

#[test]
fn seed_decides_and_every_kind_comes() {
    let drawn = |seed, standby| {
        let mut deck = Deck::new(Rng::new(seed, 0), standby, Duration::from_millis(500));
        (0..KINDS.len()).map(|_| deck.draw()).collect::<Vec<_>>()
    };
    assert_eq!(drawn(7, true), drawn(7, true));
    assert_ne!(drawn(7, true), drawn(8, true));
    for kind in KINDS {
        let came = |standby| drawn(7, standby).iter().any(|fault| fault.kind == kind);
        assert!(came(true), "{kind}");
        assert_eq!(came(false), kind != PROMOTION, "{kind}");
    }
}
