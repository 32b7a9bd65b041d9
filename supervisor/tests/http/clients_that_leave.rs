//! A client that goes away takes its job with it, also while there is nothing to send to it.

use std::time::{Duration, Instant};

use crate::played::PARALLEL;
use crate::support::{Client, Fixture};

/// The contract says a hundred milliseconds, this machine may be busy. Well below the pause between two
/// comments, which would find out by themselves that a client has left.
const PROMPTLY: Duration = Duration::from_secs(2);

/// How a client can go.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// close(2).
    Closed,
    /// As a killed process with unread data: a reset.
    Reset,
    /// Its sending side first, the rest while it is still silent.
    HalvesOneByOne,
}

async fn leave(mut client: Client, how: Leaving) {
    match how {
        Leaving::Closed => {}
        Leaving::Reset => client.socket.set_zero_linger().unwrap(),
        Leaving::HalvesOneByOne => {
            client.close_sending_half().await;
            tokio::time::sleep(PROMPTLY).await;
        }
    }
    drop(client);
}

#[tokio::test]
async fn the_running_job_of_a_silent_stream_is_cancelled_at_once() {
    for how in [Leaving::Closed, Leaving::Reset, Leaving::HalvesOneByOne] {
        let mut service = Fixture::ready().await;
        let (client, key) = service.running(r#"{"job_id":"j","prompt":"a"}"#).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        leave(client, how).await;
        let left = Instant::now();
        assert_eq!(service.worker.told_to_cancel().await, key);
        assert!(left.elapsed() < PROMPTLY, "{how:?}: {:?}", left.elapsed());
    }
}

#[tokio::test]
async fn the_waiting_job_leaves_the_queue() {
    let mut service = Fixture::ready().await;
    let mut running = Vec::new();
    for i in 0..PARALLEL {
        running.push(
            service
                .running(&format!(r#"{{"job_id":"{i}","prompt":"a"}}"#))
                .await,
        );
    }
    let mut waiting = service.client().await;
    waiting
        .post("/execute", r#"{"job_id":"w","prompt":"a"}"#)
        .await;
    waiting.head().await;
    service.worker.until(|s| s.queued == 1).await;
    let left = Instant::now();
    drop(waiting);
    service.worker.until(|s| s.queued == 0).await;
    assert!(left.elapsed() < PROMPTLY, "{:?}", left.elapsed());
}

#[tokio::test]
async fn a_job_that_continues_does_not_mind() {
    let mut service = Fixture::ready().await;
    let (client, key) = service.continuing().await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(service.worker.pending_calls().is_empty());
    service.worker.eos(key, 0).await;
    service.worker.until(|s| s.running == 0).await;
}

#[tokio::test]
async fn a_reader_that_reads_nothing_delays_nobody() {
    let mut service =
        Fixture::ready_with(|s| s.bounds.reader_grace = Duration::from_millis(100)).await;
    let (slow, slow_key) = service.running(r#"{"job_id":"slow","prompt":"a"}"#).await;
    let (mut quick, quick_key) = service.running(r#"{"job_id":"quick","prompt":"a"}"#).await;
    // Far more than one may have unread.
    let mut sent = 0;
    while service.worker.jobs.snapshot().running == 2 {
        service
            .worker
            .tokens(slow_key, sent, &"x".repeat(500))
            .await;
        sent += 500;
        assert!(
            sent < 1_000_000,
            "the slow reader's job goes on without end"
        );
        let index = sent / 500 - 1;
        let begin = Instant::now();
        service
            .worker
            .token(quick_key, index, u32::from(b'y'), None)
            .await;
        assert!(quick.event().await.starts_with("event: token\n"));
        assert!(begin.elapsed() < PROMPTLY, "{:?}", begin.elapsed());
    }
    drop(slow);
}
