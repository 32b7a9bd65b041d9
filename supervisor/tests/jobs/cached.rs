//! What workers say of prompts that they had kept.

use orcd_shared::job::{CacheScope, JobKey};
use orcd_shared::protocol::message::ToSupervisor;
use orcd_supervisor::jobs::{JobEvent, NewJob, Numbered};
use orcd_supervisor::metrics::Format;

use super::support::{Service, job, last, rest};

/// A job with a prompt of three tokens that shares KV pages with others.
fn sharing(name: &str) -> NewJob {
    let mut job = job(name);
    job.options.cache = CacheScope::Salt([1; 16]);
    job
}

async fn begun(service: &Service, key: JobKey, cached: u32) {
    service.message(ToSupervisor::Begun { key, cached }).await;
}

fn cached_tokens(events: &[Numbered]) -> u32 {
    match last(events) {
        JobEvent::End { cached_tokens, .. } => *cached_tokens,
        other => panic!("{other:?}"),
    }
}

/// Tokens that were asked for, those that were found, and those that replays found, as `/metrics` has them.
fn counted(service: &Service) -> [u64; 3] {
    let text = service.metrics.encode(Format::Prometheus, None).unwrap();
    [
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "orcd_adopted_tokens_total",
    ]
    .map(|name| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().parse().unwrap()
    })
}

#[tokio::test]
async fn what_a_job_finds_of_its_own_is_counted_apart_after_a_crash_and_not_after_a_preemption() {
    let mut service = Service::ready().await;
    let (mut a, spec_a) = service.run(sharing("a")).await;
    begun(&service, spec_a.key, 0).await;
    let (mut b, spec_b) = service.run(sharing("b")).await;
    begun(&service, spec_b.key, 2).await;
    service.tokens(spec_b.key, 0, "x").await;
    service.message(ToSupervisor::Preempted(spec_b.key)).await;
    let again = service.submitted().await;
    begun(&service, again.key, 4).await;
    service.token(again.key, 0, b'x'.into(), None).await;
    service.eos(again.key, 1).await;
    assert_eq!(cached_tokens(&rest(&mut b).await), 2);
    service.crash().await;
    service.bring_up().await;
    let again = service.submitted().await;
    begun(&service, again.key, 3).await;
    service.eos(again.key, 0).await;
    assert_eq!(cached_tokens(&rest(&mut a).await), 0);
    assert_eq!(counted(&service), [6, 2, 3]);
}

#[tokio::test]
async fn a_job_that_shares_with_nobody_has_not_asked() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(job("a")).await;
    begun(&service, spec.key, 0).await;
    service.eos(spec.key, 0).await;
    rest(&mut stream).await;
    assert_eq!(counted(&service), [0, 0, 0]);
}

#[tokio::test]
async fn what_is_said_of_a_job_that_is_over_or_never_was_changes_nothing() {
    let mut service = Service::ready().await;
    let (mut stream, spec) = service.run(sharing("a")).await;
    begun(&service, JobKey(99), 3).await;
    service.jobs.cancel("a".into()).await;
    begun(&service, spec.key, 3).await;
    service.message(ToSupervisor::Cancelled(spec.key)).await;
    rest(&mut stream).await;
    service.until(|s| s.free_slots == 2).await;
    assert_eq!(counted(&service), [0, 0, 0]);
}
