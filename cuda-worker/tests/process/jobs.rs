use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use orcd_shared::error::ErrorCode;
use orcd_shared::job::{Finish, JobKey, JobSpec};
use orcd_shared::protocol::message::{HEARTBEAT_MS, KvSize, LoadRequest, ToSupervisor, ToWorker};

use crate::model;
use crate::supervisor::{Worker, job, load};

#[test]
fn jobs_in_freed_slots_say_the_same_as_alone() {
    let (mut worker, info) = Worker::ready(load(&model::tiny()));
    let jobs: Vec<_> = (1..=7).map(|key| job(key, 10 * key as u32, 20)).collect();
    assert!(jobs.len() > info.parallel as usize);
    let together = worker.run(&jobs);
    for job in &jobs {
        let alone = worker.run(std::slice::from_ref(job));
        assert_eq!(alone[&job.key.0], together[&job.key.0], "job {}", job.key);
        assert_eq!(alone[&job.key.0].1, Finish::MaxTokens);
    }
}

#[test]
fn replay_continues_with_the_last_token_sent() {
    let (mut worker, _) = Worker::ready(load(&model::tiny()));
    let whole = job(5, 70, 24);
    let (ids, _) = worker.run(std::slice::from_ref(&whole)).remove(&5).unwrap();
    for sent in [1, 2, 13, 24] {
        let mut replay = whole.clone();
        replay.emitted = ids[..sent].to_vec();
        worker.submit(replay);
        let mut first = None;
        let mut rest = Vec::new();
        while rest.len() < ids.len() - sent + 1 {
            let Some(ToSupervisor::Step(report)) = worker.receive() else {
                panic!("no step")
            };
            for token in report.tokens {
                first.get_or_insert(token.index as usize);
                rest.push(token.id);
            }
        }
        assert_eq!(first, Some(sent - 1));
        assert_eq!(rest, ids[sent - 1..], "after {sent} tokens");
    }
}

/// SIGKILL in the middle of three jobs: another worker, given what was sent, says the rest of each. Jobs grow beyond the
/// windows, one beyond the context of LongRoPE's training.
#[test]
fn jobs_of_a_killed_worker_go_on_in_another_in_every_family() {
    for name in synth_model::Shape::FAMILIES {
        let path = model::family(name);
        // So long that none has ended when the last one to come has twenty tokens, however late it comes.
        let jobs = [job(1, 4, 240), job(2, 20, 260), job(3, 45, 250)];
        let (mut worker, _) = Worker::ready(load(&path));
        let whole = worker.run(&jobs);
        let mut sent: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        jobs.iter().for_each(|job| worker.submit(job.clone()));
        while sent.get(&3).is_none_or(|ids| ids.len() < 20) {
            let Some(ToSupervisor::Step(report)) = worker.receive() else {
                panic!("no step")
            };
            for token in report.tokens {
                sent.entry(token.key.0).or_default().push(token.id);
            }
        }
        // Kills it.
        drop(worker);
        let (mut worker, _) = Worker::ready(load(&path));
        let replays = jobs.clone().map(|job| JobSpec {
            emitted: sent.remove(&job.key.0).unwrap(),
            ..job
        });
        let rest = worker.run(&replays);
        for replay in &replays {
            let (key, emitted) = (replay.key.0, &replay.emitted);
            // It begins with the last that was sent.
            let all = [&emitted[..emitted.len() - 1], &rest[&key].0].concat();
            assert!(emitted.len() < whole[&key].0.len(), "{name}: it had ended");
            assert_eq!((all, rest[&key].1), whole[&key], "{name}, job {key}");
        }
    }
}

#[test]
fn end_token_of_the_load_request_ends_a_job() {
    let (mut worker, _) = Worker::ready(load(&model::tiny()));
    let (ids, _) = worker.run(&[job(1, 8, 20)]).remove(&1).unwrap();
    let last = ids[9];
    let first = ids.iter().position(|&id| id == last).unwrap();
    drop(worker);
    let request = LoadRequest {
        end_tokens: vec![last],
        ..load(&model::tiny())
    };
    let (mut worker, _) = Worker::ready(request);
    let ended = worker.run(&[job(1, 8, 20)]);
    assert_eq!(ended[&1], (ids[..=first].to_vec(), Finish::Eos));
}

#[test]
fn context_that_is_full_ends_a_job() {
    let request = LoadRequest {
        context: Some(40),
        ..load(&model::tiny())
    };
    let (mut worker, _) = Worker::ready(request);
    let ended = worker.run(&[job(1, 30, 1000)]);
    assert_eq!((ended[&1].0.len(), ended[&1].1), (10, Finish::ContextFull));
}

#[test]
fn running_and_unknown_jobs_are_cancelled_and_others_go_on() {
    let (mut worker, _) = Worker::ready(load(&model::slow()));
    let bystander = job(2, 5, 30);
    for job in [job(1, 5, 400), bystander.clone(), job(3, 5, 400)] {
        worker.submit(job);
    }
    let mut cancelled = Vec::new();
    let mut ids = Vec::new();
    let mut asked = false;
    while ids.len() < 30 {
        match worker.receive().unwrap() {
            ToSupervisor::Cancelled(key) => cancelled.push(key.0),
            ToSupervisor::Step(report) => {
                for token in report.tokens {
                    assert!(!cancelled.contains(&token.key.0), "token after Cancelled");
                    ids.extend((token.key == bystander.key).then_some(token.id));
                }
                if !asked {
                    asked = true;
                    for key in [1, 3, 99] {
                        worker.send(&ToWorker::Cancel(JobKey(key)));
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(cancelled, [1, 3, 99]);
    assert_eq!(worker.run(std::slice::from_ref(&bystander))[&2].0, ids);
}

/// The worker's pages run out with three jobs: it says which one leaves, and that one, given again with what was
/// sent, says the rest.
#[test]
fn a_preempted_job_given_again_says_the_same_as_alone() {
    let request = LoadRequest {
        kv: Some(KvSize::Pages(4)),
        ..load(&model::tiny())
    };
    let (mut worker, info) = Worker::ready(request);
    assert_eq!(info.kv_pages, 4);
    let jobs = [job(1, 10, 150), job(2, 40, 100), job(3, 30, 100)];
    let alone: Vec<_> = jobs
        .iter()
        .map(|job| {
            worker
                .run(std::slice::from_ref(job))
                .remove(&job.key.0)
                .unwrap()
        })
        .collect();
    jobs.iter().for_each(|job| worker.submit(job.clone()));
    let mut sent: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let (mut waiting, mut preemptions, mut ended) = (Vec::new(), 0, 0);
    while ended < jobs.len() {
        match worker.receive().unwrap() {
            ToSupervisor::Preempted(key) => {
                assert_ne!(key.0, 1, "the oldest has to stay");
                preemptions += 1;
                waiting.push(key.0);
            }
            ToSupervisor::Step(report) => {
                for token in report.tokens {
                    let ids = sent.entry(token.key.0).or_default();
                    assert!(token.index as usize <= ids.len());
                    ids.truncate(token.index as usize);
                    ids.push(token.id);
                    ended += usize::from(token.finish.is_some());
                    if token.finish.is_some() {
                        // Somebody's pages are free.
                        for key in waiting.drain(..) {
                            let emitted = sent.get(&key).cloned().unwrap_or_default();
                            let job = jobs[key as usize - 1].clone();
                            worker.submit(JobSpec { emitted, ..job });
                        }
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(preemptions > 0, "four pages were enough");
    for (job, alone) in jobs.iter().zip(alone) {
        assert_eq!(sent[&job.key.0], alone.0, "job {}", job.key);
    }
}

#[test]
fn job_beyond_the_slots_is_refused_and_the_others_go_on() {
    let (mut worker, info) = Worker::ready(load(&model::slow()));
    let places = u64::from(info.parallel);
    (1..=places + 1).for_each(|key| worker.submit(job(key, 5, 400)));
    let mut refused = None;
    let mut seen = std::collections::BTreeSet::new();
    while refused.is_none() || seen.len() < info.parallel as usize {
        match worker.receive().unwrap() {
            ToSupervisor::JobFailed { key, code, .. } => {
                assert_eq!(refused.replace((key, code)), None);
            }
            ToSupervisor::Step(report) => seen.extend(report.tokens.iter().map(|t| t.key.0)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, Some((JobKey(places + 1), ErrorCode::Internal)));
    assert!(seen.into_iter().eq(1..=places));
}

#[test]
fn bad_job_is_refused_and_the_worker_stays() {
    let (mut worker, _) = Worker::ready(load(&model::tiny()));
    let mut strange = job(1, 4, 4);
    strange.prompt[2] = u32::MAX;
    let mut penalty = job(1, 4, 4);
    penalty.sampling.repetition_penalty = 1e-7; // the engine would take the process down with it
    for (bad, expected) in [
        (strange, ErrorCode::Internal),
        (penalty, ErrorCode::InvalidRequest),
    ] {
        worker.submit(bad);
        let Some(ToSupervisor::JobFailed { key, code, .. }) = worker.receive() else {
            panic!()
        };
        assert_eq!((key, code), (JobKey(1), expected));
    }
    assert_eq!(worker.run(&[job(2, 4, 4)]).len(), 1);
}

#[test]
fn heartbeats_come_while_idle_and_while_working_and_count_steps() {
    let (mut worker, _) = Worker::ready(load(&model::slow()));
    let mut beats: Vec<(i32, Instant, u64, u32)> = Vec::new();
    for phase in 0..2 {
        if phase == 1 {
            worker.submit(job(1, 5, 2000));
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(4 * HEARTBEAT_MS)
            || beats.iter().filter(|beat| beat.0 == phase).count() < 4
        {
            if let ToSupervisor::Heartbeat { steps, running, .. } = worker.hear_any().unwrap() {
                beats.push((phase, Instant::now(), steps, running));
            }
        }
    }
    let of = |p: i32| beats.iter().filter(move |b| b.0 == p).collect::<Vec<_>>();
    for phase in [of(0), of(1)] {
        // This machine runs other tests too: half of them keep the promise.
        let pauses = phase.windows(2).map(|pair| pair[1].1 - pair[0].1);
        let mut pauses: Vec<_> = pauses.collect();
        pauses.sort_unstable();
        let median = pauses[pauses.len() / 2];
        assert!(median < Duration::from_millis(HEARTBEAT_MS), "{pauses:?}");
    }
    assert!(of(0).iter().all(|b| (b.2, b.3) == (0, 0)));
    let working = of(1);
    assert!(
        working.last().unwrap().2 > 0 && working.last().unwrap().3 == 1,
        "{working:?}"
    );
}
