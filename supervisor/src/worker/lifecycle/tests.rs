//! Every phase against every event, before and after the first worker was ready.

use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;

use super::{Action, Context, Event, Outcome, Phase, Policy, State};

/// The events, in the order of the table's columns.
fn events() -> [(&'static str, Event); 15] {
    let text = || String::from("why");
    [
        ("start", Event::Start),
        ("spawned", Event::Spawned),
        ("spawn-failed", Event::SpawnFailed(text())),
        ("connected", Event::Connected),
        ("handshake-failed", Event::HandshakeFailed(text())),
        ("progress", Event::Progress(40)),
        (
            "load-failed",
            Event::LoadFailed(ErrorCode::InsufficientVram, text()),
        ),
        ("ready", Event::Ready),
        ("hung", Event::Hung(text())),
        ("fatal", Event::Fatal(ErrorCode::CudaError, text())),
        ("link-lost", Event::LinkLost(text())),
        ("exited", Event::Exited("signal 9 (SIGKILL)".into())),
        ("job-finished", Event::JobFinished),
        ("stop", Event::Stop),
        ("tick", Event::Tick),
    ]
}

const PHASES: [&str; 9] = [
    "idle",
    "spawning",
    "handshaking",
    "loading",
    "ready",
    "ending",
    "backoff",
    "stopping",
    "over",
];

/// What is not listed changes nothing and does nothing: (phase, event, next phase, actions).
/// After the first worker was ready.
const LATER: &[(&str, &str, &str, &str)] = &[
    ("idle", "start", "spawning", "spawn"),
    ("idle", "stop", "over", "finish:stopped"),
    ("spawning", "spawned", "handshaking", ""),
    ("spawning", "spawn-failed", "spawning", "spawn"),
    ("spawning", "stop", "stopping", "kill"),
    ("handshaking", "connected", "loading", "load"),
    ("handshaking", "handshake-failed", "ending", "kill"),
    ("handshaking", "hung", "ending", "kill"),
    ("handshaking", "link-lost", "ending", ""),
    ("handshaking", "exited", "spawning", "spawn"),
    ("handshaking", "stop", "stopping", "kill"),
    ("handshaking", "tick", "ending", "kill"),
    ("loading", "progress", "loading", ""),
    ("loading", "load-failed", "ending", ""),
    ("loading", "ready", "ready", "serve"),
    ("loading", "hung", "ending", "kill"),
    ("loading", "fatal", "ending", ""),
    ("loading", "link-lost", "ending", ""),
    ("loading", "exited", "spawning", "spawn"),
    ("loading", "stop", "stopping", "shutdown"),
    ("ready", "hung", "ending", "hold kill"),
    ("ready", "fatal", "ending", "hold"),
    ("ready", "link-lost", "ending", "hold"),
    ("ready", "exited", "spawning", "hold spawn"),
    ("ready", "stop", "stopping", "shutdown"),
    ("ending", "exited", "spawning", "spawn"),
    ("ending", "stop", "stopping", "kill"),
    ("ending", "tick", "ending", "kill"),
    ("backoff", "stop", "over", "finish:stopped"),
    ("backoff", "tick", "spawning", "spawn"),
    ("stopping", "spawn-failed", "over", "finish:stopped"),
    ("stopping", "exited", "over", "finish:stopped"),
    ("stopping", "tick", "stopping", "kill"),
];

/// Where the first start differs: nothing is tried twice.
const FIRST: &[(&str, &str, &str, &str)] = &[
    (
        "spawning",
        "spawn-failed",
        "over",
        "kill finish:WORKER_UNAVAILABLE",
    ),
    (
        "handshaking",
        "handshake-failed",
        "over",
        "kill finish:WORKER_UNAVAILABLE",
    ),
    (
        "handshaking",
        "hung",
        "over",
        "kill finish:WORKER_UNAVAILABLE",
    ),
    (
        "handshaking",
        "exited",
        "over",
        "kill finish:WORKER_UNAVAILABLE",
    ),
    (
        "handshaking",
        "tick",
        "over",
        "kill finish:WORKER_UNAVAILABLE",
    ),
    (
        "loading",
        "load-failed",
        "over",
        "kill finish:INSUFFICIENT_VRAM",
    ),
    ("loading", "hung", "over", "kill finish:WORKER_UNAVAILABLE"),
    ("loading", "fatal", "over", "kill finish:CUDA_ERROR"),
    (
        "loading",
        "exited",
        "over",
        "kill finish:WORKER_UNAVAILABLE",
    ),
    ("ending", "exited", "over", "kill finish:WORKER_UNAVAILABLE"),
];

/// A phase by name, with all its times due at `now` but the abandoning.
fn phase(name: &str, now: Instant) -> Phase {
    let later = now + Duration::from_secs(100);
    match name {
        "idle" => Phase::Idle,
        "spawning" => Phase::Spawning,
        "handshaking" => Phase::Handshaking { until: now },
        "loading" => Phase::Loading { percent: 10 },
        "ready" => Phase::Ready { since: now },
        "ending" => Phase::Ending {
            kill_at: Some(now),
            abandon_at: later,
        },
        "backoff" => Phase::Backoff { until: now },
        "stopping" => Phase::Stopping {
            kill_at: Some(now),
            abandon_at: later,
        },
        _ => Phase::Over,
    }
}

fn name_of(phase: &Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Spawning => "spawning",
        Phase::Handshaking { .. } => "handshaking",
        Phase::Loading { .. } => "loading",
        Phase::Ready { .. } => "ready",
        Phase::Ending { .. } => "ending",
        Phase::Backoff { .. } => "backoff",
        Phase::Stopping { .. } => "stopping",
        Phase::Over => "over",
    }
}

fn names_of(actions: &[Action]) -> String {
    let name = |action: &Action| match action {
        Action::Spawn => "spawn".into(),
        Action::Load => "load".into(),
        Action::Serve => "serve".into(),
        Action::HoldJobs => "hold".into(),
        Action::Shutdown => "shutdown".into(),
        Action::Kill => "kill".into(),
        Action::Finish(Outcome::Stopped) => "finish:stopped".into(),
        Action::Finish(Outcome::StartupFailed { code, .. }) => format!("finish:{code}"),
        Action::Finish(Outcome::WorkerLost { .. }) => "finish:lost".into(),
    };
    actions.iter().map(name).collect::<Vec<String>>().join(" ")
}

fn check_table(served: bool) {
    let policy = Policy::default();
    let now = Instant::now();
    let cx = Context {
        policy: &policy,
        now,
        jitter: 0.0,
    };
    for from in PHASES {
        if !served && ["ready", "backoff"].contains(&from) {
            // Being ready sets `served`, and without it nothing is tried a second time.
            continue;
        }
        for (event_name, event) in events() {
            let row = |table: &'static [(&str, &str, &str, &str)]| {
                table
                    .iter()
                    .find(|(p, e, ..)| *p == from && *e == event_name)
            };
            let special = if served { None } else { row(FIRST) };
            let (to, does) = special
                .or_else(|| row(LATER))
                .map_or((from, ""), |(_, _, to, does)| (*to, *does));
            let state = State {
                phase: phase(from, now),
                served,
                generation: 1,
                ..State::default()
            };
            let (next, actions) = state.step(cx, event);
            let got = (name_of(&next.phase), names_of(&actions));
            assert_eq!(
                got,
                (to, does.to_string()),
                "{from} + {event_name}, served: {served}"
            );
        }
    }
}

#[test]
fn every_pair_after_the_first_worker_was_ready() {
    check_table(true);
}

#[test]
fn every_pair_before_the_first_worker_was_ready() {
    check_table(false);
}

/// A service with a clock of its own.
struct Service {
    state: State,
    policy: Policy,
    now: Instant,
}

impl Service {
    fn ready(policy: Policy) -> Self {
        let mut service = Self {
            state: State::default(),
            policy,
            now: Instant::now(),
        };
        service.on(Event::Start);
        service.become_ready();
        service
    }

    fn on(&mut self, event: Event) -> String {
        let cx = Context {
            policy: &self.policy,
            now: self.now,
            jitter: 0.0,
        };
        let (state, actions) = std::mem::take(&mut self.state).step(cx, event);
        self.state = state;
        names_of(&actions)
    }

    fn become_ready(&mut self) {
        for event in [Event::Spawned, Event::Connected, Event::Ready] {
            self.on(event);
        }
    }

    fn crash(&mut self) -> String {
        self.on(Event::Spawned);
        self.on(Event::Exited("exit 12".into()))
    }

    fn wait(&mut self, time: Duration) -> String {
        self.now += time;
        self.on(Event::Tick)
    }
}

#[test]
fn first_restart_at_once_then_with_pauses_until_a_job_finishes() {
    let mut service = Service::ready(Policy::default());
    assert_eq!(service.crash(), "hold spawn");
    assert_eq!(service.state.generation, 2);
    assert_eq!(service.crash(), "");
    assert_eq!(service.wait(Duration::from_millis(99)), "");
    assert_eq!(service.wait(Duration::from_millis(1)), "spawn");
    assert_eq!(service.crash(), "");
    assert_eq!(service.wait(Duration::from_millis(199)), "");
    assert_eq!(service.wait(Duration::from_millis(1)), "spawn");
    service.become_ready();
    service.on(Event::JobFinished);
    assert_eq!(service.crash(), "hold spawn");
    assert_eq!(service.state.restarts, 4);
}

#[test]
fn five_crashes_in_a_minute_are_unhealthy_until_proof_of_the_contrary() {
    let mut service = Service::ready(Policy::default());
    for _ in 0..4 {
        service.crash();
        service.wait(Duration::from_secs(5));
    }
    assert!(!service.state.unhealthy);
    service.crash();
    assert!(service.state.unhealthy);
    assert_eq!(service.wait(Duration::from_secs(10)), "spawn");
    service.become_ready();
    assert!(service.state.unhealthy, "ready alone is no proof");
    service.wait(Duration::from_secs(9));
    assert!(service.state.unhealthy);
    service.wait(Duration::from_secs(1));
    assert!(!service.state.unhealthy, "ten seconds of being ready are");
}

#[test]
fn a_finished_job_ends_being_unhealthy() {
    let mut service = Service::ready(Policy::default());
    for _ in 0..5 {
        service.crash();
        service.wait(Duration::from_secs(10));
    }
    assert!(service.state.unhealthy);
    service.on(Event::JobFinished);
    assert!(!service.state.unhealthy);
}

#[test]
fn crashes_far_apart_are_not_unhealthy() {
    let mut service = Service::ready(Policy::default());
    for _ in 0..20 {
        service.crash();
        service.wait(Duration::from_secs(15));
    }
    assert!(!service.state.unhealthy);
}

#[test]
fn spent_restarts_end_the_service_and_a_finished_job_restores_them() {
    let mut service = Service::ready(Policy {
        max_restarts: Some(1),
        ..Policy::default()
    });
    assert_eq!(service.crash(), "hold spawn");
    service.become_ready();
    service.on(Event::JobFinished);
    assert_eq!(service.crash(), "hold spawn");
    assert_eq!(service.crash(), "finish:lost");
}

#[test]
fn worker_that_ignores_sigkill_is_left_behind() {
    let mut service = Service::ready(Policy::default());
    assert_eq!(service.on(Event::LinkLost(String::new())), "hold");
    assert_eq!(service.wait(Duration::from_millis(199)), "");
    assert_eq!(service.wait(Duration::from_millis(1)), "kill");
    assert_eq!(service.wait(Duration::from_secs(4)), "");
    assert_eq!(service.wait(Duration::from_secs(1)), "spawn");
}

#[test]
fn worker_that_ignores_shutdown_is_killed_and_waited_for_only_so_long() {
    let mut service = Service::ready(Policy::default());
    assert_eq!(service.on(Event::Stop), "shutdown");
    assert_eq!(service.wait(Duration::from_secs(1)), "kill");
    assert_eq!(service.wait(Duration::from_secs(5)), "finish:stopped");
}

#[test]
fn progress_never_falls() {
    let mut service = Service {
        state: State::default(),
        policy: Policy::default(),
        now: Instant::now(),
    };
    for event in [
        Event::Start,
        Event::Spawned,
        Event::Connected,
        Event::Progress(50),
    ] {
        service.on(event);
    }
    service.on(Event::Progress(25));
    assert_eq!(service.state.phase, Phase::Loading { percent: 50 });
    service.on(Event::Progress(255));
    assert_eq!(service.state.phase, Phase::Loading { percent: 100 });
}
