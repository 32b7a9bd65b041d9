//! Injects faults, and waits until the service is over them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use orcd_tests::WorkerHarness;
use orcd_tests::kv_pool::PoolFiles;
use orcd_tests::proc::wait_until;
use serde_json::Value;

use crate::faults::{Damage, Fault, Injection};
use crate::rng::Rng;

/// The service is over any fault by then, on any machine.
const RECOVERY: Duration = Duration::from_secs(60);
/// A failpoint that no worker reaches within this time is cleared.
const WAITS: Duration = Duration::from_secs(5);

/// All crashes of a fault have shown by then, unless there was one less.
const SECOND_CRASH: Duration = Duration::from_secs(5);
/// A worker that was sent a deadly signal is dead by then, or did not get it.
const DEATH: Duration = Duration::from_millis(100);

/// A fault that was injected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InjectedFault {
    pub(crate) kind: &'static str,
    pub(crate) from: Instant,
    /// The service was healthy again.
    pub(crate) until: Instant,
}

/// Workers lost so far.
pub(crate) fn restarts(service: &WorkerHarness) -> u64 {
    service.health()["worker"]["restarts"].as_u64().unwrap_or(0)
}

/// Injects the fault and waits until the service is over it; `None` if no worker came by.
/// `begin_prompt` sends a job with a long prompt and returns when it has begun.
pub(crate) fn inject(
    service: &WorkerHarness,
    fault: Fault,
    begin_prompt: impl FnOnce(),
) -> Result<Option<InjectedFault>, String> {
    let before = restarts(service);
    if matches!(fault.injection, Injection::InPrompt(_)) {
        begin_prompt();
    }
    let from = Instant::now();
    let failpoint = apply(service, fault.injection);
    if let Some(point) = failpoint
        && !wait_until(WAITS, || !service.is_failpoint_set(point))
        && service.clear_failpoint(point)
    {
        recovered(service, restarts(service), fault)?;
        return Ok(None);
    }
    // What was meant for the successor may have met the one that was killed.
    let least = before + u64::from(fault.crashes.min(1));
    let all = before + u64::from(fault.crashes);
    if !wait_until(SECOND_CRASH, || is_over(&service.health(), all)) {
        recovered(service, least, fault)?;
    }
    Ok(Some(InjectedFault {
        kind: fault.kind,
        from,
        until: Instant::now(),
    }))
}

/// Returns the failpoint that was set, if one was.
fn apply(service: &WorkerHarness, injection: Injection) -> Option<&'static str> {
    match injection {
        Injection::Signal(signal) => {
            let worker = service.worker();
            worker.signal(signal);
            // Rust's handler for stack overflows takes one that no access caused for a mistake, and
            // is gone for the next.
            let dies = signal != Signal::SIGSTOP;
            while dies && !worker.is_gone_within(DEATH) {
                worker.signal(signal);
            }
        }
        Injection::Starve(time) => {
            let worker = service.worker();
            worker.signal(Signal::SIGSTOP);
            std::thread::sleep(time);
            worker.signal(Signal::SIGCONT);
        }
        Injection::At(point, action) => {
            service.set_failpoint(point, action);
            return Some(point);
        }
        Injection::InPrompt(action) => {
            service.set_failpoint("step", action);
            return Some("step");
        }
        Injection::InFailover(point, action) => {
            let worker = service.worker();
            service.set_failpoint(point, action);
            worker.signal(Signal::SIGKILL);
            return Some(point);
        }
        Injection::Damaged(damage) => {
            // All is at hand before it is stopped: it is dead long before somebody takes it for a hang, and its successor
            // sees the pool as it stays.
            let pool = PoolFiles::of(service);
            let worker = service.worker();
            worker.signal(Signal::SIGSTOP);
            wait_until(DEATH, || worker.is_stopped());
            match damage {
                Damage::Memory => {
                    pool.flip_bits();
                }
                Damage::Ledger(seed) => {
                    let mut rng = Rng::new(seed, 0);
                    pool.tear_ledger(|below| rng.below(below));
                }
            }
            worker.signal(Signal::SIGKILL);
        }
        Injection::Twice(pause) => {
            let first = service.kill_worker();
            std::thread::sleep(pause);
            let another = |pid: &Value| pid.as_u64().is_some_and(|pid| pid != u64::from(first.pid));
            service.wait_for_health(RECOVERY, |h| another(&h["worker"]["pid"]));
            service.kill_worker();
        }
    }
    None
}

/// At least so many workers were lost, and there is one that serves.
fn is_over(health: &Value, restarts: u64) -> bool {
    let lost = health["worker"]["restarts"].as_u64();
    health["status"] == "healthy" && lost.is_some_and(|lost| lost >= restarts)
}

fn recovered(service: &WorkerHarness, restarts: u64, fault: Fault) -> Result<(), String> {
    let mut health = Value::Null;
    let over = wait_until(RECOVERY, || {
        health = service.health();
        is_over(&health, restarts)
    });
    if over {
        return Ok(());
    }
    Err(format!(
        "no recovery from {fault:?} in {RECOVERY:?}: {health:#}"
    ))
}
