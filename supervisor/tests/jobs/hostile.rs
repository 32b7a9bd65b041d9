//! A worker that says whatever it likes. The supervisor stays in order: it never panics, and every
//! job gets one terminal event, its last, after numbers without a gap.

use std::time::Duration;

use orcd_shared::error::ErrorCode;
use orcd_shared::job::{Finish, JobKey};
use orcd_shared::kv::PageCounts;
use orcd_shared::protocol::message::{StepReport, StepToken, ToSupervisor};
use orcd_supervisor::jobs::dispatcher::Outcome;
use orcd_supervisor::jobs::{JobEvent, JobStream, NewJob, Numbered};
use orcd_supervisor::worker::WorkerEvent;
use orcd_supervisor::worker::process::WorkerExit;
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::{Service, info, job, rest};

/// Jobs of each case; twice what runs at once.
const JOBS: u64 = 4;

/// What the worker does next.
#[derive(Debug, Clone)]
enum Deed {
    /// A message, out of the blue.
    Says(ToSupervisor),
    /// The same from a worker that is gone or was never there.
    SaysAs(u64, ToSupervisor),
    /// It is ready, again.
    Ready,
    /// Its socket closes and it ends.
    Dies,
    /// It ends and never was seen to.
    Exits,
    /// The client of a job cancels.
    IsCancelled(u64),
}

fn key() -> impl Strategy<Value = JobKey> {
    // Mostly those that there are; keys count from 1.
    prop_oneof![8 => 0..JOBS + 2, 1 => any::<u64>()].prop_map(JobKey)
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..6_u32, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

fn token() -> impl Strategy<Value = StepToken> {
    let finish = prop_oneof![
        6 => Just(None),
        1 => Just(Some(Finish::Eos)),
        1 => Just(Some(Finish::MaxTokens)),
        1 => Just(Some(Finish::ContextFull)),
    ];
    // Ids beyond the vocabulary too.
    let id = prop_oneof![8 => 0..300_u32, 1 => any::<u32>()];
    (key(), count(), id, finish).prop_map(|(key, index, id, finish)| StepToken {
        key,
        index,
        id,
        finish,
    })
}

fn message() -> impl Strategy<Value = ToSupervisor> {
    let step =
        (any::<u64>(), any::<u32>(), vec(token(), 0..12)).prop_map(|(step, step_us, tokens)| {
            ToSupervisor::Step(StepReport {
                step,
                step_us,
                tokens,
                logprobs: Vec::new(),
            })
        });
    let code = prop_oneof![
        Just(ErrorCode::VramOom),
        Just(ErrorCode::CudaError),
        Just(ErrorCode::ModelLoadFailed),
        Just(ErrorCode::WorkerCrashed),
    ];
    let failed = (key(), code.clone(), ".{0,40}")
        .prop_map(|(key, code, message)| ToSupervisor::JobFailed { key, code, message });
    let heartbeat = (any::<u64>(), count(), count()).prop_map(|(steps, running, used)| {
        ToSupervisor::Heartbeat {
            steps,
            running,
            kv: PageCounts {
                used,
                ..PageCounts::default()
            },
        }
    });
    prop_oneof![
        10 => step,
        3 => failed,
        3 => key().prop_map(ToSupervisor::Cancelled),
        3 => key().prop_map(ToSupervisor::Preempted),
        3 => heartbeat,
        1 => any::<u8>().prop_map(|percent| ToSupervisor::LoadProgress { percent }),
        1 => any::<u32>().prop_map(|protocol| ToSupervisor::Hello { protocol, build: "x".into() }),
        1 => Just(ToSupervisor::Ready(Box::new(info()))),
        1 => (code.clone(), ".{0,40}")
            .prop_map(|(code, message)| ToSupervisor::Fatal { code, message }),
        1 => (code, ".{0,40}")
            .prop_map(|(code, message)| ToSupervisor::LoadFailed { code, message }),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        16 => message().prop_map(Deed::Says),
        2 => (0..5_u64, message()).prop_map(|(worker, message)| Deed::SaysAs(worker, message)),
        1 => Just(Deed::Ready),
        1 => Just(Deed::Dies),
        1 => Just(Deed::Exits),
        1 => (0..JOBS).prop_map(Deed::IsCancelled),
    ]
}

fn name(n: u64) -> String {
    format!("job-{n}")
}

/// Plays the deeds, then drains; what each job's reader got, and how the dispatcher ended.
async fn play(deeds: Vec<Deed>) -> (Vec<Vec<Numbered>>, Outcome) {
    let mut service = Service::ready_with(|settings| {
        // Nobody plays a worker that stops as it is told to.
        settings.drain_timeout = Duration::from_millis(1);
        settings.fleet.policy.shutdown_grace = Duration::from_millis(1);
        settings.fleet.policy.abandon_after = Duration::from_millis(1);
    })
    .await;
    let mut streams: Vec<JobStream> = Vec::new();
    for n in 0..JOBS {
        let stop = vec!["ab".into()];
        let job = NewJob {
            stop,
            ..job(&name(n))
        };
        streams.push(service.submit(job).await);
    }
    let first = service.generation;
    for deed in deeds {
        match deed {
            Deed::Says(message) => service.message(message).await,
            Deed::SaysAs(worker, message) => {
                service.emit_as(worker, WorkerEvent::Message(message)).await;
            }
            Deed::Ready => {
                let info = Box::new(info());
                let (weights, pool) = (None, None);
                let ready = WorkerEvent::Ready {
                    info,
                    weights,
                    pool,
                };
                service.emit(ready).await;
            }
            Deed::Dies => {
                // Killed only if it was there; nobody asks.
                let message = "closed".into();
                service.emit(WorkerEvent::LinkLost { message }).await;
                let killed = WorkerExit::Signal(9);
                service.emit(WorkerEvent::Exited(killed)).await;
                // A successor, as far as one is started at once.
                service.generation += 1;
                for what in [WorkerEvent::Spawned { pid: 1 }, WorkerEvent::Connected] {
                    service.emit(what).await;
                }
                let info = Box::new(info());
                let (weights, pool) = (None, None);
                let ready = WorkerEvent::Ready {
                    info,
                    weights,
                    pool,
                };
                service.emit(ready).await;
            }
            Deed::Exits => {
                service
                    .emit_as(first, WorkerEvent::Exited(WorkerExit::Code(0)))
                    .await
            }
            Deed::IsCancelled(n) => drop(service.jobs.cancel(name(n).as_str().into()).await),
        }
    }
    service.jobs.drain().await;
    let mut told = Vec::new();
    for stream in &mut streams {
        told.push(rest(stream).await);
    }
    (told, service.outcome().await)
}

/// What holds of every stream, whatever the worker said.
fn assert_regular(events: &[Numbered]) -> Result<(), TestCaseError> {
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    let due: Vec<_> = (0..events.len() as u64).collect();
    prop_assert_eq!(ids, due);
    let is_terminal =
        |event: &&Numbered| matches!(event.event, JobEvent::End { .. } | JobEvent::Error { .. });
    prop_assert_eq!(events.iter().filter(is_terminal).count(), 1, "{:?}", events);
    prop_assert!(
        events.last().as_ref().is_some_and(is_terminal),
        "{:?}",
        events
    );
    let mut tokens = 0;
    for event in events {
        match event.event {
            JobEvent::Token { index, .. } => {
                prop_assert_eq!(index, tokens);
                tokens += 1;
            }
            JobEvent::End { tokens_out, .. } | JobEvent::Error { tokens_out, .. } => {
                prop_assert_eq!(tokens_out, tokens);
            }
            JobEvent::Started { .. } => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_job_ends_once_whatever_the_worker_says(deeds in vec(deed(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (told, outcome) = runtime.block_on(play(deeds));
        for events in &told {
            assert_regular(events)?;
        }
        if let Outcome::WorkerLost { message } = &outcome {
            prop_assert!(!message.contains("bug"), "{}", message);
        }
    }
}
