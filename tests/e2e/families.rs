//! What a worker keeps of a sequence, and how it computes with it, differs by family: a stream survives the worker's
//! death in each, byte for byte. On a GPU it is also what the processor makes of it.

use orcd_tests::{Job, Model, Starter, Transcript, WorkerHarness, paths};

use crate::crash::{assert_unchanged, run_disturbed, without_hang_timeout};

/// The context of the training of tiny models, tokens, beyond which LongRoPE has other rotations. Their windows are
/// half as long.
const TRAINED: u64 = 48;
/// The worker is killed before this step: each sequence is longer than a window by then.
const KILLED_AT: u32 = 28;

/// The first ends within the context of the training, the second would go beyond it, and the others begin there.
fn jobs() -> Vec<Job> {
    let job = |name: &str, [prompt, max_tokens]: [u64; 2], temperature: f64| {
        assert!(prompt + u64::from(KILLED_AT) > TRAINED / 2 && max_tokens > KILLED_AT.into());
        let ids: Vec<_> = (0..prompt).map(|i| (i * 37 + i * i * 7) % 251).collect();
        let job = Job::of_ids(name, &ids).set("max_tokens", max_tokens);
        let job = job.set("temperature", temperature).set("seed", 3);
        job.set("top_k", 64).set("ignore_eos", true)
    };
    vec![
        job("within", [12, TRAINED - 12], 0.7),
        job("beyond", [12, TRAINED], 0.7),
        job("greedy", [TRAINED + 10, 36], 0.0),
        job("hot", [2 * TRAINED, 36], 1.5),
    ]
}

/// What comes of the jobs undisturbed, when it is also what comes of them beside a kill of the worker.
#[track_caller]
fn over_a_kill(model: Model) -> Vec<Transcript> {
    let service = without_hang_timeout(model);
    let undisturbed = service.run_together(&jobs());
    let disturbed = run_disturbed(&service, &jobs(), KILLED_AT, || {
        service.kill_worker();
    });
    assert_unchanged(&undisturbed, &disturbed, 1);
    if paths::device() != "cpu" {
        let on_cpu = on_cpu(service.model().into());
        assert_unchanged(&on_cpu.run_together(&jobs()), &undisturbed, 0);
    }
    undisturbed
}

fn on_cpu(model: std::path::PathBuf) -> WorkerHarness {
    Starter::new(Model::File(model)).device("cpu").start()
}

#[test]
fn killed_worker_changes_no_byte_of_sinks_windows_and_experts() {
    over_a_kill(Model::Named("tiny-gpt-oss"));
}

#[test]
fn killed_worker_changes_no_byte_of_windows_with_a_base_of_their_own() {
    over_a_kill(Model::Named("tiny-gemma3"));
}

#[test]
fn killed_worker_changes_no_byte_at_either_side_of_long_rope() {
    let streams = over_a_kill(Model::Named("tiny-phi3"));
    // One prompt and one seed, another `max_tokens`.
    let (within, beyond) = (streams[0].ids(), streams[1].ids());
    assert_ne!(within, beyond[..within.len()], "the same rotations");
}

#[test]
fn killed_worker_changes_no_byte_of_experts() {
    over_a_kill(Model::Named("tiny-qwen3moe"));
}

#[test]
fn killed_worker_changes_no_byte_of_experts_in_tensors_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let merged = Model::Named("tiny-mixtral").file(folder.path());
    let separate = folder.path().join("separate.gguf");
    synth_model::separate_experts(&merged, &separate).unwrap();
    let found = over_a_kill(Model::File(separate));
    let expected = Starter::new(Model::File(merged))
        .start()
        .run_together(&jobs());
    assert_unchanged(&expected, &found, 0);
}
