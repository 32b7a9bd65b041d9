//! Every phase against every event, before and after the first worker was ready.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::protocol::message::ToSupervisor;
use proptest::prelude::*;

use super::{Action, Context, Event, Outcome, Phase, Policy, Standby, State};
use crate::samples::info;
use crate::worker::process::WorkerExit;
use crate::worker::{WorkerEvent, WorkerReport};

/// The events, in the order of the table's columns; happenings are those of worker `generation`.
fn events(generation: u64) -> [(&'static str, Event<'static>); 16] {
    let of = |event| {
        let report: &'static WorkerReport = Box::leak(Box::new(WorkerReport { generation, event }));
        Event::Worker(report)
    };
    let message = || String::from("why");
    [
        ("start", Event::Start),
        ("spawned", of(spawned())),
        (
            "spawn-failed",
            of(WorkerEvent::SpawnFailed { message: message() }),
        ),
        ("connected", of(WorkerEvent::Connected)),
        (
            "handshake-failed",
            of(WorkerEvent::HandshakeFailed { message: message() }),
        ),
        ("progress", of(progress(40))),
        ("unfit-file", of(WorkerEvent::Looked(Err(message())))),
        (
            "load-failed",
            of(WorkerEvent::Message(ToSupervisor::LoadFailed {
                code: ErrorCode::InsufficientVram,
                message: message(),
            })),
        ),
        ("ready", of(ready())),
        ("hung", of(WorkerEvent::Hung { message: message() })),
        ("fatal", of(fatal())),
        ("link-lost", of(link_lost())),
        ("exited", of(WorkerEvent::Exited(WorkerExit::Signal(9)))),
        ("job-finished", Event::JobFinished),
        ("stop", Event::Stop),
        ("tick", Event::Tick),
    ]
}

fn spawned() -> WorkerEvent {
    WorkerEvent::Spawned { pid: 4711 }
}

fn progress(percent: u8) -> WorkerEvent {
    WorkerEvent::Message(ToSupervisor::LoadProgress { percent })
}

fn link_lost() -> WorkerEvent {
    WorkerEvent::LinkLost {
        message: "gone".into(),
    }
}

fn ready() -> WorkerEvent {
    WorkerEvent::Ready {
        info: Box::new(info()),
        weights: None,
        pool: None,
    }
}

fn fatal() -> WorkerEvent {
    WorkerEvent::Message(ToSupervisor::Fatal {
        code: ErrorCode::CudaError,
        message: "why".into(),
    })
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

type Row = (&'static str, &'static str, &'static str, &'static str);

/// What is not listed changes nothing and does nothing: (phase, event, next phase, actions).
/// After the first worker was ready.
const LATER: &[Row] = &[
    ("idle", "start", "spawning", "spawn"),
    ("idle", "stop", "over", "finish:stopped"),
    ("spawning", "spawned", "handshaking", ""),
    ("spawning", "spawn-failed", "spawning", "spawn"),
    ("spawning", "stop", "stopping", "kill"),
    ("handshaking", "connected", "loading", "load"),
    ("handshaking", "handshake-failed", "spawning", "kill spawn"),
    ("handshaking", "hung", "spawning", "kill spawn"),
    ("handshaking", "link-lost", "spawning", "kill spawn"),
    ("handshaking", "exited", "spawning", "spawn"),
    ("handshaking", "stop", "stopping", "kill"),
    ("handshaking", "tick", "spawning", "kill spawn"),
    ("loading", "progress", "loading", ""),
    ("loading", "unfit-file", "spawning", "spawn"),
    ("loading", "load-failed", "spawning", "spawn"),
    ("loading", "ready", "ready", "serve"),
    ("loading", "hung", "spawning", "kill spawn"),
    ("loading", "fatal", "spawning", "spawn"),
    ("loading", "link-lost", "spawning", "kill spawn"),
    ("loading", "exited", "spawning", "spawn"),
    ("loading", "stop", "stopping", "shutdown"),
    ("ready", "hung", "spawning", "hold kill spawn"),
    ("ready", "fatal", "spawning", "hold spawn"),
    ("ready", "link-lost", "spawning", "hold kill spawn"),
    ("ready", "exited", "spawning", "hold spawn"),
    ("ready", "stop", "stopping", "shutdown"),
    ("backoff", "stop", "over", "finish:stopped"),
    ("backoff", "tick", "spawning", "spawn"),
    ("stopping", "spawn-failed", "over", "finish:stopped"),
    ("stopping", "exited", "over", "finish:stopped"),
    ("stopping", "tick", "stopping", "kill"),
];

/// Where the first start differs: nothing is tried twice.
const FIRST: &[Row] = &[
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
    ("handshaking", "link-lost", "ending", ""),
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
        "unfit-file",
        "over",
        "kill finish:MODEL_LOAD_FAILED",
    ),
    (
        "loading",
        "load-failed",
        "over",
        "kill finish:INSUFFICIENT_VRAM",
    ),
    ("loading", "hung", "over", "kill finish:WORKER_UNAVAILABLE"),
    ("loading", "fatal", "over", "kill finish:CUDA_ERROR"),
    ("loading", "link-lost", "ending", ""),
    (
        "loading",
        "exited",
        "over",
        "kill finish:WORKER_UNAVAILABLE",
    ),
    ("ending", "exited", "over", "kill finish:WORKER_UNAVAILABLE"),
    ("ending", "stop", "stopping", "kill"),
    ("ending", "tick", "ending", "kill"),
];

/// The standby's life beside a worker that serves: (its phase, event, its next phase, actions).
const STANDBY: &[Row] = &[
    ("idle", "tick", "spawning", "spawn"),
    ("spawning", "spawned", "handshaking", ""),
    ("spawning", "spawn-failed", "backoff", ""),
    ("spawning", "exited", "backoff", ""),
    ("spawning", "handshake-failed", "backoff", "kill"),
    ("spawning", "hung", "backoff", "kill"),
    ("spawning", "link-lost", "backoff", "kill"),
    ("spawning", "unfit-file", "backoff", ""),
    ("spawning", "load-failed", "backoff", ""),
    ("spawning", "fatal", "backoff", ""),
    ("handshaking", "connected", "loading", "load"),
    ("handshaking", "spawn-failed", "backoff", ""),
    ("handshaking", "exited", "backoff", ""),
    ("handshaking", "handshake-failed", "backoff", "kill"),
    ("handshaking", "hung", "backoff", "kill"),
    ("handshaking", "link-lost", "backoff", "kill"),
    ("handshaking", "unfit-file", "backoff", ""),
    ("handshaking", "load-failed", "backoff", ""),
    ("handshaking", "fatal", "backoff", ""),
    ("handshaking", "tick", "backoff", "kill"),
    ("loading", "progress", "loading", ""),
    ("loading", "ready", "ready", ""),
    ("loading", "spawn-failed", "backoff", ""),
    ("loading", "exited", "backoff", ""),
    ("loading", "handshake-failed", "backoff", "kill"),
    ("loading", "hung", "backoff", "kill"),
    ("loading", "link-lost", "backoff", "kill"),
    ("loading", "unfit-file", "backoff", ""),
    ("loading", "load-failed", "backoff", ""),
    ("loading", "fatal", "backoff", ""),
    ("ready", "spawn-failed", "backoff", ""),
    ("ready", "exited", "backoff", ""),
    ("ready", "handshake-failed", "backoff", "kill"),
    ("ready", "hung", "backoff", "kill"),
    ("ready", "link-lost", "backoff", "kill"),
    ("ready", "fatal", "backoff", ""),
    ("backoff", "tick", "spawning", "spawn"),
];

/// What a standby in each phase means to the loss of the worker before it: (its phase, way to be
/// lost, phase of the present worker then, actions).
const PROMOTION: &[Row] = &[
    ("idle", "link-lost", "spawning", "hold kill spawn"),
    ("backoff", "link-lost", "spawning", "hold kill spawn"),
    ("spawning", "link-lost", "spawning", "hold kill"),
    ("handshaking", "link-lost", "handshaking", "hold kill"),
    ("loading", "link-lost", "loading", "hold kill"),
    ("ready", "link-lost", "ready", "hold kill serve"),
    ("ready", "exited", "ready", "hold serve"),
    ("ready", "hung", "ready", "hold kill serve"),
    ("ready", "fatal", "ready", "hold serve"),
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
        Action::Spawn(_) => "spawn".into(),
        Action::Load(_) => "load".into(),
        Action::Serve => "serve".into(),
        Action::SuspendJobs(_) => "hold".into(),
        Action::Shutdown(_) => "shutdown".into(),
        Action::Abandon(_) => "abandon".into(),
        Action::Kill(_) => "kill".into(),
        Action::Finish(Outcome::Stopped) => "finish:stopped".into(),
        Action::Finish(Outcome::StartupFailed { code, .. }) => format!("finish:{code}"),
        Action::Finish(Outcome::WorkerLost { .. }) => "finish:lost".into(),
    };
    actions.iter().map(name).collect::<Vec<String>>().join(" ")
}

fn row(table: &'static [Row], phase: &str, event: &str) -> Option<&'static Row> {
    table.iter().find(|(p, e, ..)| *p == phase && *e == event)
}

/// Every row was met by a pair that exists.
fn assert_all_used(table: &'static [Row], used: &[&'static Row]) {
    for row in table {
        assert!(used.contains(&row), "no such pair: {row:?}");
    }
}

fn check_table(served: bool) {
    let policy = Policy::default();
    let now = Instant::now();
    let cx = Context {
        policy: &policy,
        now,
        jitter: 0.0,
    };
    let mut used = Vec::new();
    for from in PHASES {
        // Being ready sets `served`, and without it nothing is tried a second time; how a worker
        // ends is waited for only until then.
        let reachable = match from {
            "ready" | "backoff" => served,
            "ending" => !served,
            _ => true,
        };
        if !reachable {
            continue;
        }
        for (event_name, event) in events(1) {
            let special = if served {
                None
            } else {
                row(FIRST, from, event_name)
            };
            let found = special.or_else(|| row(LATER, from, event_name));
            used.extend(found);
            let (to, does) = found.map_or((from, ""), |(_, _, to, does)| (*to, *does));
            let state = State {
                phase: phase(from, now),
                served,
                generation: 1,
                spawned: 1,
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
    assert_all_used(if served { LATER } else { FIRST }, &used);
}

#[test]
fn every_pair_after_the_first_worker_was_ready() {
    check_table(true);
}

#[test]
fn every_pair_before_the_first_worker_was_ready() {
    check_table(false);
}

fn with_a_standby() -> Policy {
    Policy {
        standby: true,
        standby_delay: Duration::from_millis(1),
        ..Policy::default()
    }
}

/// Worker 1 serves, worker 2 stands by in the phase given.
fn with_standby(standby: &str, now: Instant) -> State {
    State {
        phase: Phase::Ready {
            since: now.checked_sub(Duration::from_millis(1)).unwrap_or(now),
        },
        served: true,
        generation: 1,
        spawned: 2,
        standby: Standby {
            generation: 2,
            phase: phase(standby, now),
            ..Standby::default()
        },
        ..State::default()
    }
}

#[test]
fn every_pair_of_a_standby() {
    let policy = with_a_standby();
    let now = Instant::now();
    let cx = Context {
        policy: &policy,
        now,
        jitter: 0.0,
    };
    let mut used = Vec::new();
    for from in [
        "idle",
        "spawning",
        "handshaking",
        "loading",
        "ready",
        "backoff",
    ] {
        for (event_name, event) in events(2) {
            if event_name == "stop" {
                continue;
            }
            let found = row(STANDBY, from, event_name);
            used.extend(found);
            let (to, does) = found.map_or((from, ""), |(_, _, to, does)| (*to, *does));
            let (next, actions) = with_standby(from, now).step(cx, event);
            let got = (name_of(&next.standby.phase), names_of(&actions));
            assert_eq!(got, (to, does.to_string()), "{from} + {event_name}");
            assert_eq!(
                name_of(&next.phase),
                "ready",
                "the present worker is not touched"
            );
            assert_eq!(next.restarts, 0);
        }
    }
    assert_all_used(STANDBY, &used);
}

#[test]
fn standby_takes_over_from_wherever_it_is() {
    let policy = with_a_standby();
    let now = Instant::now();
    let cx = Context {
        policy: &policy,
        now,
        jitter: 0.0,
    };
    for (standby, event_name, to, does) in PROMOTION {
        let (_, event) = events(1)
            .into_iter()
            .find(|(name, _)| name == event_name)
            .unwrap();
        let (next, actions) = with_standby(standby, now).step(cx, event);
        let got = (name_of(&next.phase), names_of(&actions));
        assert_eq!(got, (*to, (*does).to_string()), "{standby} + {event_name}");
        let successor = if actions.iter().any(|a| matches!(a, Action::Spawn(_))) {
            3
        } else {
            2
        };
        assert_eq!(next.generation, successor);
        assert_eq!(next.restarts, 1);
        assert!(!next.standby.is_alive());
    }
}

#[test]
fn stop_ends_the_standby_too_and_none_follows() {
    let policy = with_a_standby();
    let mut service = Service::ready(policy);
    assert_eq!(service.wait(Duration::from_millis(1)), "spawn");
    assert_eq!(service.on(Event::Stop), "shutdown kill");
    assert_eq!(service.wait(Duration::from_millis(1)), "");
    assert_eq!(
        service.of_present(WorkerEvent::Exited(WorkerExit::Code(0))),
        "finish:stopped"
    );
}

#[test]
fn next_standby_starts_after_a_promotion() {
    let policy = with_a_standby();
    let mut service = Service::ready(policy);
    assert_eq!(service.wait(Duration::from_millis(1)), "spawn");
    for what in [spawned(), WorkerEvent::Connected, ready()] {
        service.of(2, what);
    }
    assert_eq!(service.of_present(link_lost()), "hold kill serve");
    assert_eq!(service.state.generation, 2);
    assert_eq!(service.wait(Duration::from_millis(1)), "spawn");
    assert_eq!(service.state.standby.generation, 3);
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

    fn on(&mut self, event: Event<'_>) -> String {
        names_of(&self.step(event))
    }

    fn step(&mut self, event: Event<'_>) -> Vec<Action> {
        let cx = Context {
            policy: &self.policy,
            now: self.now,
            jitter: 0.0,
        };
        let (state, actions) = std::mem::take(&mut self.state).step(cx, event);
        self.state = state;
        actions
    }

    fn of(&mut self, generation: u64, event: WorkerEvent) -> String {
        self.on(Event::Worker(&WorkerReport { generation, event }))
    }

    fn of_present(&mut self, event: WorkerEvent) -> String {
        self.of(self.state.generation, event)
    }

    fn become_ready(&mut self) {
        for what in [spawned(), WorkerEvent::Connected, ready()] {
            self.of_present(what);
        }
    }

    fn crash(&mut self) -> String {
        self.of_present(spawned());
        self.of_present(WorkerEvent::Exited(WorkerExit::Code(12)))
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
    assert_eq!(service.wait(Duration::from_millis(9_999)), "", "at the cap");
    assert_eq!(service.wait(Duration::from_millis(1)), "spawn");
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
fn used_up_restarts_end_the_service_and_a_finished_job_restores_them() {
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
fn successor_does_not_wait_for_a_lost_worker_which_is_helped_along_and_left_behind() {
    let mut service = Service::ready(Policy::default());
    assert_eq!(service.of_present(fatal()), "hold spawn");
    assert_eq!(service.wait(Duration::from_millis(199)), "");
    assert_eq!(service.wait(Duration::from_millis(1)), "kill");
    assert_eq!(service.wait(Duration::from_secs(4)), "");
    assert_eq!(service.wait(Duration::from_secs(1)), "abandon");
    assert_eq!(service.state.dying, []);
}

#[test]
fn reaped_worker_is_not_killed_and_its_news_are_no_crash_of_its_successor() {
    let mut service = Service::ready(Policy::default());
    service.of_present(fatal());
    let exited = WorkerEvent::Exited(WorkerExit::Code(12));
    assert_eq!(service.of(1, exited), "");
    assert_eq!(service.wait(Duration::from_secs(1)), "");
    assert_eq!((service.state.restarts, service.state.generation), (1, 2));
}

/// The workers of a sequence of events that were ready, and those that are silenced.
#[derive(Debug, Default)]
struct Silence {
    were_ready: BTreeSet<u64>,
    silenced: BTreeSet<u64>,
}

impl Silence {
    /// What happened to a worker.
    fn note(&mut self, report: &WorkerReport) {
        let silences = matches!(
            report.event,
            WorkerEvent::Exited(_)
                | WorkerEvent::SpawnFailed { .. }
                | WorkerEvent::Message(ToSupervisor::Fatal { .. })
        );
        if silences {
            self.silenced.insert(report.generation);
        }
    }

    /// What is done about it, in its order, and the state then.
    fn check(&mut self, actions: &[Action], state: &State) -> Result<(), TestCaseError> {
        for action in actions {
            match action {
                Action::Kill(generation) => drop(self.silenced.insert(*generation)),
                Action::Serve => {
                    let present = state.generation;
                    let earlier = self.were_ready.iter().filter(|was| **was != present);
                    let loud: Vec<_> = earlier.filter(|was| !self.silenced.contains(was)).collect();
                    prop_assert!(loud.is_empty(), "{present} serves beside {loud:?}");
                }
                _ => {}
            }
        }
        let workers = [
            (state.generation, &state.phase),
            (state.standby.generation, &state.standby.phase),
        ];
        for (generation, phase) in workers {
            if matches!(phase, Phase::Ready { .. }) {
                self.were_ready.insert(generation);
            }
        }
        Ok(())
    }
}

/// After how many milliseconds, to which worker counted back from the latest, and which of the events; or
/// that it gets as far as being ready.
type Happening = (u64, u64, Option<usize>);

fn happening() -> impl Strategy<Value = Happening> {
    let time = prop_oneof![3 => Just(0), 3 => 1..400_u64, 1 => Just(10_000)];
    let event = prop_oneof![2 => Just(None), 3 => (0..events(1).len()).prop_map(Some)];
    (time, 0..3_u64, event)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    /// The invariant of the module, whatever happens in whichever order.
    #[test]
    fn whoever_begins_to_serve_is_alone(happenings in proptest::collection::vec(happening(), 0..60)) {
        let mut service = Service::ready(with_a_standby());
        let mut silence = Silence::default();
        silence.check(&[], &service.state)?;
        for (time, back, event) in happenings {
            service.now += Duration::from_millis(time);
            let generation = service.state.spawned.saturating_sub(back);
            let get_ready = [spawned(), WorkerEvent::Connected, ready()];
            let get_ready = get_ready.map(|event| WorkerReport { generation, event });
            let happens = match event {
                None => get_ready.iter().map(Event::Worker).collect(),
                // Nobody serves after it.
                Some(n) if matches!(events(generation)[n].1, Event::Stop) => vec![],
                Some(n) => vec![events(generation)[n].1],
            };
            for event in happens {
                if let Event::Worker(report) = event {
                    silence.note(report);
                }
                let actions = service.step(event);
                silence.check(&actions, &service.state)?;
            }
            let actions = service.step(Event::Tick);
            silence.check(&actions, &service.state)?;
        }
    }
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
    service.on(Event::Start);
    for what in [spawned(), WorkerEvent::Connected, progress(50)] {
        service.of_present(what);
    }
    service.of_present(progress(25));
    assert_eq!(service.state.phase, Phase::Loading { percent: 50 });
    service.of_present(progress(255));
    assert_eq!(service.state.phase, Phase::Loading { percent: 100 });
}
