use std::os::fd::AsFd as _;
use std::path::Path;

use orcd_shared::error::ErrorCode;
use orcd_shared::exit::worker::LOAD_FAILED;
use orcd_shared::job::{JobKey, JobSpec};
use orcd_shared::protocol::message::{
    Device, KvSize, LoadRequest, LoadSource, ToSupervisor, ToWorker,
};
use orcd_shared::weights::ContentHash;

use crate::model;
use crate::supervisor::{Worker, job, load};

/// The reason a worker gives for not loading; checks that it ends with the code for it.
fn failure(request: LoadRequest) -> (ErrorCode, String) {
    let mut worker = Worker::greeted();
    worker.send(&ToWorker::Load(Box::new(request)));
    let reason = loop {
        match worker.receive().expect("it ended without a reason") {
            ToSupervisor::LoadProgress { .. } => {}
            ToSupervisor::LoadFailed { code, message } => break (code, message),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(worker.exit(), i32::from(LOAD_FAILED));
    reason
}

#[test]
fn progress_rises_over_the_quarters_to_ready() {
    let mut worker = Worker::greeted();
    worker.send(&ToWorker::Load(Box::new(load(&model::tiny()))));
    let (info, percents) = worker.await_ready();
    assert!(percents.is_sorted_by(|a, b| a < b), "{percents:?}");
    for quarter in [0, 25, 50, 75, 100] {
        assert!(percents.contains(&quarter), "{percents:?}");
    }
    assert_eq!(info.load_source, LoadSource::File);
    assert_eq!(info.parallel, 3);
    assert!(!info.resident, "the CPU's memory is no device memory");
    assert!(info.context > 0 && info.memory_used > 0, "{info:?}");
    assert!(info.compute_capability.is_none() && info.runtime_version.is_none());
}

#[test]
fn context_and_slots_are_as_asked_for() {
    let (_worker, info) = Worker::ready(LoadRequest {
        context: Some(100),
        parallel: Some(2),
        ..load(&model::tiny())
    });
    assert_eq!((info.context, info.parallel), (100, 2));
}

#[test]
fn missing_file_is_named() {
    let (code, message) = failure(load(Path::new("/nowhere/model.gguf")));
    assert_eq!(code, ErrorCode::ModelLoadFailed);
    assert!(message.contains("/nowhere/model.gguf"), "{message}");
}

#[test]
fn file_that_is_no_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garbage.gguf");
    std::fs::write(&path, [7; 5000]).unwrap();
    let (code, message) = failure(load(&path));
    assert_eq!(code, ErrorCode::ModelLoadFailed);
    assert!(message.contains("garbage.gguf"), "{message}");
}

#[test]
fn truncated_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short.gguf");
    let whole = std::fs::read(model::tiny()).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let (code, message) = failure(load(&path));
    assert_eq!(code, ErrorCode::ModelLoadFailed);
    assert!(message.contains("short.gguf"), "{message}");
}

#[test]
#[cfg(not(feature = "cuda"))]
fn cuda_device_in_a_build_without_cuda_is_no_cpu_run() {
    let (code, message) = failure(LoadRequest {
        device: Device::Cuda(0),
        ..load(&model::tiny())
    });
    assert_eq!(code, ErrorCode::CudaError);
    assert!(
        message.contains("cuda:0") && message.contains("no CUDA backend"),
        "{message}"
    );
}

#[test]
fn second_process_attaches_to_the_weights_of_the_first_after_its_death() {
    let request = load(&model::tiny());
    let jobs = [job(1, 20, 15), job(2, 3, 15)];
    let (mut first, info) = Worker::ready(request.clone());
    let manifest = info.weights.expect("the image can't be shared");
    let retained = first.descriptors.receive().unwrap();
    let received = first.run(&jobs);
    drop(first);

    let mut second = Worker::greeted();
    second.descriptors.send(retained.as_fd()).unwrap();
    let request = LoadRequest {
        weights: Some(manifest.clone()),
        ..request
    };
    second.send(&ToWorker::Load(Box::new(request)));
    let (info, percents) = second.await_ready();
    assert_eq!(info.load_source, LoadSource::Handle);
    assert_eq!(info.weights, Some(manifest));
    assert_eq!(percents.last(), Some(&100));
    assert_eq!(second.run(&jobs), received);
    assert!(info.pool.is_some(), "it has a pool of its own");
    second.descriptors.receive().unwrap();
    second.descriptors.receive().unwrap();
    assert!(
        second.descriptors.receive().is_err(),
        "the supervisor holds the image already"
    );
}

/// What a killed worker had computed for a job is there for the job in the next one, and says the same.
#[test]
fn second_process_takes_the_pool_of_the_first_over_after_its_death() {
    let request = load(&model::tiny());
    // So long that it has not ended when it is killed.
    let long = job(1, 200, 1500);
    let (mut first, info) = Worker::ready(request.clone());
    let alone = first.run(std::slice::from_ref(&long)).remove(&1).unwrap().0;
    let pool = info.pool.expect("the pool can't be shared");
    assert_eq!((pool.backend.as_str(), pool.pages), ("cpu", info.kv_pages));
    let _weights = first.descriptors.receive().unwrap();
    let held = [0, 1].map(|_| first.descriptors.receive().unwrap());
    first.submit(long.clone());
    let mut emitted = Vec::new();
    let mut is_killed = false;
    // To the end of what it sent, as a supervisor does: it may be well ahead of who reads.
    while let Some(message) = first.receive() {
        if let ToSupervisor::Step(report) = message {
            emitted.extend(report.tokens.iter().map(|token| token.id));
        }
        if emitted.len() >= 10 && !is_killed {
            first.kill();
            is_killed = true;
        }
    }
    assert!(emitted.len() < alone.len(), "it ended before it was killed");
    drop(first);

    let take_over = |other: bool| {
        let mut next = Worker::greeted();
        next.epoch = 1;
        held.iter()
            .for_each(|fd| next.descriptors.send(fd.as_fd()).unwrap());
        let mut pool = pool.clone();
        pool.fingerprint[0] ^= u8::from(other);
        next.send(&ToWorker::Load(Box::new(LoadRequest {
            pool: Some(pool),
            kv: Some(KvSize::Pages(info.kv_pages)),
            ..request.clone()
        })));
        let (info, _) = next.await_ready();
        next.submit(JobSpec {
            emitted: emitted.clone(),
            ..long.clone()
        });
        (next, info)
    };
    let (mut second, its) = take_over(false);
    assert_eq!(its.pool.as_ref(), Some(&pool));
    let begun = second.receive();
    let Some(ToSupervisor::Begun { key, cached }) = begun else {
        panic!("{begun:?}");
    };
    assert_eq!(key, JobKey(1));
    // All but the token that the last emitted one is drawn after. Where a page begins it may have been killed before the
    // ledger had heard of the page before, or the new one.
    let computed = 200 + emitted.len() as u32 - 2;
    let said = format!("{cached} of {computed}");
    match computed % 64 {
        2..62 => assert_eq!(cached, computed, "{said}"),
        _ => assert!(cached <= computed && cached + 64 >= computed, "{said}"),
    }
    let mut ids = emitted[..emitted.len() - 1].to_vec();
    while ids.len() < alone.len() {
        if let Some(ToSupervisor::Step(report)) = second.receive() {
            ids.extend(report.tokens.iter().map(|token| token.id));
        }
    }
    assert_eq!(ids, alone);
    let (mut third, its) = take_over(true);
    assert_ne!(its.pool.unwrap().id, pool.id, "it was another one's");
    assert!(matches!(third.receive(), Some(ToSupervisor::Step(_))));
}

#[test]
fn image_of_other_content_or_a_missing_descriptor_is_loaded_from_the_file() {
    let (first, info) = Worker::ready(load(&model::tiny()));
    let mut manifest = info.weights.unwrap();
    let retained = first.descriptors.receive().unwrap();

    let mut second = Worker::greeted();
    let request = LoadRequest {
        weights: Some(manifest.clone()),
        ..load(&model::tiny())
    };
    second.send(&ToWorker::Load(Box::new(request)));
    let (info, _) = second.await_ready();
    assert_eq!(info.load_source, LoadSource::File, "no descriptor came");

    manifest.model.stamps[0].modified_ns += 1;
    manifest.model.hash.0[0] ^= 1;
    let mut third = Worker::greeted();
    third.descriptors.send(retained.as_fd()).unwrap();
    let request = LoadRequest {
        weights: Some(manifest.clone()),
        ..load(&model::tiny())
    };
    third.send(&ToWorker::Load(Box::new(request)));
    let (info, _) = third.await_ready();
    assert_eq!(info.load_source, LoadSource::File, "another file");
    assert_ne!(info.weights, Some(manifest));
    third.descriptors.receive().unwrap();
}

/// What is left of a download that was given its room and then broken off.
#[test]
fn file_of_which_the_end_is_missing_is_a_load_error_that_names_the_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.gguf");
    let mut bytes = std::fs::read(model::tiny()).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let (code, message) = failure(load(&path));
    assert_eq!(code, ErrorCode::ModelLoadFailed);
    for part in ["half.gguf: tensor ", "is zero throughout", "get it again"] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn image_of_a_file_that_was_touched_is_taken_and_sent_with_its_new_stamp() {
    let (first, info) = Worker::ready(load(&model::tiny()));
    let right = info.weights.unwrap();
    let retained = first.descriptors.receive().unwrap();
    let mut manifest = right.clone();
    manifest.model.stamps[0].modified_ns -= 1;
    let mut second = Worker::greeted();
    second.descriptors.send(retained.as_fd()).unwrap();
    let request = LoadRequest {
        weights: Some(manifest),
        model_hash: Some(right.model.hash),
        ..load(&model::tiny())
    };
    second.send(&ToWorker::Load(Box::new(request)));
    let (info, _) = second.await_ready();
    assert_eq!(info.load_source, LoadSource::Handle);
    assert_eq!(info.model_hash, right.model.hash);
    assert_eq!(info.weights, Some(right));
    second.descriptors.receive().unwrap();
}

#[test]
fn file_of_another_content_than_asked_for_is_a_load_error_that_names_both() {
    let asked = ContentHash([0xcd; 32]);
    let (code, message) = failure(LoadRequest {
        model_hash: Some(asked),
        ..load(&model::tiny())
    });
    assert_eq!(code, ErrorCode::ModelLoadFailed);
    for part in ["was written to since", "tiny", &asked.to_string()] {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}
