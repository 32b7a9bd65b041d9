//! A pool that outlives its engine: what the next one takes over, and what it doesn't.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

#[path = "engine_support/mod.rs"]
mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use cuda_worker::engine::{Backend, Engine, EngineOptions};
use cuda_worker::loader;
use cuda_worker::pool::ledger::Ledger;
use cuda_worker::scheduler::step_engine::{EngineError, Owner, StepBatch, StepEngine as _};
use orcd_shared::job::{CacheScope, JobKey};
use orcd_shared::protocol::message::Serve;
use orcd_shared::sampling::SamplingParams;
use support::assert_same;
use support::model::{Model, in_chunks, options, prompt, step};

const FINGERPRINT: [u8; 32] = [9; 32];
/// Of a supervisor.
const RUN: u64 = 5;
/// A job that shares with nobody.
const OWNER: Owner = Owner {
    key: JobKey(7),
    scope: CacheScope::Job,
};
const PAGES: u32 = 8;

fn small() -> EngineOptions {
    EngineOptions {
        kv_pages: PAGES,
        ..options()
    }
}

/// Three pages and a bit.
fn tokens() -> Vec<u32> {
    prompt(200, 3)
}

/// An engine whose pool is its own and can be taken over.
fn first(model: &Model) -> Engine {
    let mut engine = model.engine(&small());
    engine.outlive(FINGERPRINT, RUN, Ledger::create(PAGES).unwrap());
    engine.take_over(serve(1)).unwrap();
    engine
}

fn serve(epoch: u64) -> Serve {
    Serve {
        epoch,
        keep: true,
        settled: true,
    }
}

/// The next engine on what `engine` leaves.
fn next(model: &Model, [memory, ledger]: [OwnedFd; 2], fingerprint: [u8; 32]) -> Engine {
    let backend = Backend::cpu().unwrap();
    let plan = &model.plan;
    let (weights, _) = loader::load(&backend, &model.source(), |_| ()).unwrap();
    let bytes = backend.kv_bytes(plan, &small()).unwrap();
    let memory = backend.attach_kv(memory, bytes).unwrap();
    let options = EngineOptions {
        // It would take what is there for free.
        poison: false,
        ..small()
    };
    let mut engine = backend.engine_on(plan, weights, memory, &options).unwrap();
    engine.outlive(fingerprint, RUN, Ledger::open(ledger, PAGES).unwrap());
    engine
}

/// Has a sequence in slot 0 process all of `tokens`.
fn process(engine: &mut Engine, tokens: &[u32]) -> (u32, Vec<f32>) {
    let cached = engine.open_for(0, 250, OWNER, tokens).unwrap();
    let logits = step(engine, 0, cached, &tokens[cached as usize..]);
    (cached, logits)
}

/// Whether a step of two tokens can be made, and what it fails with if not.
fn try_step(engine: &mut Engine, slot: u32, start: u32) -> Result<usize, EngineError> {
    let mut batch = StepBatch::default();
    batch.add_run(slot, start, &[1, 2]).unwrap();
    batch.sample_last(SamplingParams::GREEDY).unwrap();
    engine.run(&batch).map(<[_]>::len)
}

fn expected(model: &Model) -> Vec<f32> {
    in_chunks(&mut model.engine(&options()), 0, &tokens(), 256)
}

#[test]
fn the_next_engine_goes_on_with_the_full_pages_of_the_one_before() {
    let model = Model::named("tiny-qwen2");
    let mut one = first(&model);
    assert_eq!(process(&mut one, &tokens()).0, 0);
    // As a worker does before it waits for the next command.
    one.rest().unwrap();
    let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
    two.take_over(serve(2)).unwrap();
    assert_eq!(two.counts().cached, 3);
    let (cached, logits) = process(&mut two, &tokens());
    assert_eq!(cached, 192);
    assert_same(
        &logits,
        &expected(&model),
        "after three pages of another engine",
    );
    // The first one, should it not be dead, has nothing to write to any more.
    let refused = try_step(&mut one, 0, 200);
    assert!(
        matches!(&refused, Err(EngineError::Device(m)) if m.contains("belongs to another worker")),
        "{refused:?}"
    );
    // What was the job's alone is forgotten with it.
    two.close(0).unwrap();
    assert_eq!((two.counts().used, two.counts().cached), (0, 0));
}

#[test]
fn a_page_whose_sum_was_not_noted_is_computed_again() {
    let model = Model::named("tiny-qwen2");
    let mut one = first(&model);
    process(&mut one, &tokens());
    // Killed before it began another step: no sum is known to be there.
    let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
    two.take_over(serve(2)).unwrap();
    let (cached, logits) = process(&mut two, &tokens());
    assert_eq!(cached, 0);
    assert_same(&logits, &expected(&model), "with nothing taken over");
    drop(two);
    // After one step more they are.
    let mut one = first(&model);
    process(&mut one, &tokens());
    try_step(&mut one, 0, 200).unwrap();
    let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
    two.take_over(serve(2)).unwrap();
    assert_eq!(process(&mut two, &tokens()).0, 192);
}

#[test]
fn nothing_is_taken_over_that_another_program_or_model_or_job_has_computed() {
    let model = Model::named("tiny-qwen2");
    let mut one = first(&model);
    process(&mut one, &tokens());
    one.rest().unwrap();
    let mut other = next(&model, one.share_pool().unwrap(), [8; 32]);
    other.take_over(serve(2)).unwrap();
    assert_eq!(process(&mut other, &tokens()).0, 0);
    let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
    two.take_over(serve(3)).unwrap();
    let stranger = Owner {
        key: JobKey(8),
        ..OWNER
    };
    assert_eq!(two.open_for(1, 250, stranger, &tokens()).unwrap(), 0);
}

#[test]
fn what_is_not_to_be_believed_is_free() {
    let model = Model::named("tiny-qwen2");
    let mut one = first(&model);
    process(&mut one, &tokens());
    one.rest().unwrap();
    let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
    let forget = Serve {
        keep: false,
        ..serve(2)
    };
    two.take_over(forget).unwrap();
    assert_eq!(two.counts().cached, 0);
    assert_eq!(two.capacity(), PAGES);
    let (cached, logits) = process(&mut two, &tokens());
    assert_eq!(cached, 0);
    assert_same(&logits, &expected(&model), "after all was forgotten");
}

#[test]
fn pages_that_a_dying_worker_may_write_to_are_nobodys_until_it_is_gone() {
    let model = Model::named("tiny-qwen2");
    let mut one = first(&model);
    process(&mut one, &tokens());
    one.rest().unwrap();
    let unsettled = Serve {
        settled: false,
        ..serve(2)
    };
    let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
    // Nothing before the pool is its own.
    two.open(1, 10).unwrap();
    assert!(matches!(
        try_step(&mut two, 1, 0),
        Err(EngineError::Device(_))
    ));
    two.close(1).unwrap();
    two.take_over(unsettled).unwrap();
    // The fourth page is not full.
    assert_eq!((two.counts().cached, two.capacity()), (3, PAGES - 1));
    let (cached, logits) = process(&mut two, &tokens());
    assert_eq!(cached, 192);
    assert_same(
        &logits,
        &expected(&model),
        "beside a page that is not settled",
    );
    two.open(1, 256).unwrap();
    step(&mut two, 1, 0, &prompt(192, 5));
    two.open(2, 10).unwrap();
    let full = try_step(&mut two, 2, 0);
    assert!(matches!(full, Err(EngineError::OutOfMemory(_))), "{full:?}");
    two.settled().unwrap();
    assert_eq!(two.capacity(), PAGES);
    try_step(&mut two, 2, 0).unwrap();
}

#[test]
fn a_flipped_bit_is_found_and_costs_nothing_but_time() {
    let model = Model::named("tiny-qwen2");
    let backend = Backend::cpu().unwrap();
    let page_bytes = backend.kv_bytes(&model.plan, &small()).unwrap() / u64::from(PAGES) - 8;
    let names_at = 4096 + 4 * u64::from(PAGES);
    let tokens_at = names_at + 32 * u64::from(PAGES);
    // Of the second page: in its memory, its sum, its name and its tokens.
    let memory_places = [
        page_bytes + 1,
        2 * page_bytes - 4096,
        u64::from(PAGES) * page_bytes + 8,
    ];
    let ledger_places = [names_at + 32 + 5, tokens_at + 256 + 9];
    let places = memory_places.map(|at| (0, at)).into_iter();
    for (file, at) in places.chain(ledger_places.map(|at| (1, at))) {
        let mut one = first(&model);
        process(&mut one, &tokens());
        one.rest().unwrap();
        let descriptors = one.share_pool().unwrap();
        let damaged = File::from(descriptors[file].try_clone().unwrap());
        let mut byte = [0];
        damaged.read_exact_at(&mut byte, at).unwrap();
        damaged.write_all_at(&[byte[0] ^ 16], at).unwrap();
        let mut two = next(&model, descriptors, FINGERPRINT);
        two.take_over(serve(2)).unwrap();
        let (cached, logits) = process(&mut two, &tokens());
        let what = format!("byte {at} of file {file}");
        assert_eq!(cached, 64, "{what}");
        assert_same(&logits, &expected(&model), what);
        // A name that is another one is looked for by nobody.
        let refused = u32::from((file, at) != (1, names_at + 32 + 5));
        assert_eq!(two.counts().refused, refused, "byte {at} of file {file}");
    }
}

#[test]
fn a_ledger_of_anything_else_is_refused() {
    let ledger = || -> OwnedFd { Ledger::create(PAGES).unwrap().share().unwrap() };
    assert!(Ledger::open(ledger(), PAGES).is_ok());
    let error = Ledger::open(ledger(), PAGES + 1).unwrap_err().to_string();
    assert!(error.contains("no ledger of 9 KV pages"), "{error}");
    let damaged = ledger();
    File::from(damaged.try_clone().unwrap())
        .write_all_at(b"x", 3)
        .unwrap();
    assert!(Ledger::open(damaged, PAGES).is_err());
    let short = ledger();
    File::from(short.try_clone().unwrap())
        .set_len(5000)
        .unwrap();
    assert!(Ledger::open(short, PAGES).is_err());
    let empty: OwnedFd = tempfile::tempfile().unwrap().into();
    assert!(Ledger::open(empty, PAGES).is_err());
}

#[test]
fn memory_of_another_size_or_one_that_could_shrink_is_refused() {
    let backend = Backend::cpu().unwrap();
    let memory = backend.allocate_kv(1 << 20).unwrap();
    assert!(backend.attach_kv(memory.share().unwrap(), 1 << 20).is_ok());
    for (fd, bytes, what) in [
        (memory.share().unwrap(), 1 << 21, "expected 2097152"),
        (tempfile::tempfile().unwrap().into(), 1 << 20, "not sealed"),
    ] {
        let refused = backend.attach_kv(fd, bytes).err();
        assert!(
            matches!(&refused, Some(EngineError::Invalid(m)) if m.contains(what)),
            "{refused:?}"
        );
    }
}
