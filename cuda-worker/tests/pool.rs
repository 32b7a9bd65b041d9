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
use cuda_worker::scheduler::step_engine::{Coming, EngineError, Owner, StepBatch, StepEngine as _};
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
        replays: 0,
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
fn the_next_engine_goes_on_with_the_pages_of_the_one_before() {
    let model = Model::named("tiny-qwen2");
    let mut one = first(&model);
    assert_eq!(process(&mut one, &tokens()).0, 0);
    // As a worker does before it waits for the next command.
    one.rest().unwrap();
    let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
    two.take_over(serve(2)).unwrap();
    assert_eq!(two.counts().cached, 3);
    // All but the last token, whose logits are wanted.
    let (cached, logits) = process(&mut two, &tokens());
    assert_eq!(cached, 199);
    assert_same(
        &logits,
        &expected(&model),
        "after three pages of another engine and a bit of a fourth",
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
fn what_the_ledger_was_not_told_is_computed_again() {
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
    // They are when the next step has ended, and the ledger is told when the one after that has begun.
    for (steps, known) in [(1, 0), (2, 199), (3, 199)] {
        let mut one = first(&model);
        process(&mut one, &tokens());
        for step in 0..steps {
            try_step(&mut one, 0, 200 + 2 * step).unwrap();
        }
        let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
        two.take_over(serve(2)).unwrap();
        assert_eq!(process(&mut two, &tokens()).0, known, "{steps} steps");
    }
}

#[test]
fn a_page_that_is_not_full_is_gone_on_with_after_each_loss() {
    let model = Model::named("tiny-qwen2");
    let tokens = prompt(230, 3);
    let mut engine = first(&model);
    let (mut done, mut epoch) = (190, 1);
    process(&mut engine, &tokens[..done]);
    // Over the end of a page, one by one and several at once.
    for more in [1, 1, 1, 2, 3, 5, 1, 9] {
        engine.rest().unwrap();
        epoch += 1;
        let mut next = next(&model, engine.share_pool().unwrap(), FINGERPRINT);
        let settled = epoch % 2 == 0;
        next.take_over(Serve {
            settled,
            ..serve(epoch)
        })
        .unwrap();
        let so_far = &tokens[..done + more];
        let (cached, logits) = process(&mut next, so_far);
        assert_eq!(cached as usize, done, "then {more}");
        let mut alone = model.engine(&options());
        let expected = in_chunks(&mut alone, 0, so_far, 256);
        assert_same(&logits, &expected, format!("{more} after {done}"));
        done += more;
        next.settled().unwrap();
        engine = next;
    }
}

#[test]
fn of_a_page_that_is_not_full_others_get_what_they_begin_with() {
    let model = Model::named("tiny-qwen2");
    let everybody = Owner {
        scope: CacheScope::Salt([4; 16]),
        ..OWNER
    };
    let mut one = first(&model);
    one.open_for(0, 250, everybody, &tokens()).unwrap();
    step(&mut one, 0, 0, &tokens());
    one.rest().unwrap();
    // Of the fourth page the first `same` tokens are alike; of a fifth one nothing is known.
    for same in [0, 1, 5, 8] {
        let mut other = tokens();
        other.truncate(192 + same);
        other.extend(prompt(20, 8));
        let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
        two.take_over(Serve {
            settled: false,
            ..serve(2 + same as u64)
        })
        .unwrap();
        let cached = two.open_for(0, 250, everybody, &other).unwrap() as usize;
        assert_eq!(cached, 192 + same);
        let logits = step(&mut two, 0, cached as u32, &other[cached..]);
        let mut alone = model.engine(&options());
        let expected = in_chunks(&mut alone, 0, &other, 256);
        assert_same(&logits, &expected, format!("{same} tokens alike"));
    }
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
fn jobs_that_come_together_find_what_each_finds_alone() {
    let model = Model::named("tiny-qwen2");
    let owner = |key| Owner {
        key: JobKey(key),
        ..OWNER
    };
    let all: Vec<_> = (1..4)
        .map(|key| prompt(70 + 13 * key as usize, key as u32))
        .collect();
    for spoiled in [false, true] {
        let mut one = first(&model);
        for (slot, tokens) in (0..).zip(&all) {
            one.open_for(slot, 200, owner(slot.into()), tokens).unwrap();
            step(&mut one, slot, 0, tokens);
        }
        one.rest().unwrap();
        let [memory, ledger] = one.share_pool().unwrap();
        if spoiled {
            // The first page of the second one.
            let file = File::from(memory.try_clone().unwrap());
            let backend = Backend::cpu().unwrap();
            let bytes = backend.kv_bytes(&model.plan, &small()).unwrap();
            let page = bytes / u64::from(PAGES) - 512;
            file.write_all_at(&[1, 2, 3], 2 * page).unwrap();
        }
        let mut two = next(&model, [memory, ledger], FINGERPRINT);
        two.take_over(serve(2)).unwrap();
        let coming = (0..).zip(&all).map(|(key, tokens)| Coming {
            max_tokens: 200,
            owner: owner(key),
            tokens: [&tokens[..50], &tokens[50..]],
        });
        two.expect(&coming.collect::<Vec<_>>()).unwrap();
        assert_eq!(two.counts().refused, u32::from(spoiled));
        for (slot, tokens) in (0..).zip(&all) {
            let cached = two.open_for(slot, 200, owner(slot.into()), tokens).unwrap();
            let damaged = spoiled && slot == 1;
            let expected = if damaged { 0 } else { tokens.len() - 1 };
            assert_eq!(cached as usize, expected, "{slot}, spoiled: {spoiled}");
            let logits = step(&mut two, slot, cached, &tokens[cached as usize..]);
            let alone = in_chunks(&mut model.engine(&options()), 0, tokens, 256);
            assert_same(&logits, &alone, format!("{slot}, spoiled: {spoiled}"));
        }
    }
}

#[test]
fn what_was_in_a_page_before_is_not_taken_for_what_is_there_now() {
    let model = Model::named("tiny-qwen2");
    let everybody = Owner {
        scope: CacheScope::Salt([4; 16]),
        ..OWNER
    };
    let mut first = first(&model);
    first.rest().unwrap();
    let mut one = next(&model, first.share_pool().unwrap(), FINGERPRINT);
    one.take_over(serve(2)).unwrap();
    let before = tokens();
    one.open_for(0, 250, everybody, &before).unwrap();
    step(&mut one, 0, 0, &before);
    one.rest().unwrap();
    one.close(0).unwrap();
    // The same page again, with two other tokens in place of the first eight.
    let mut after = before[..194].to_vec();
    after[192..].fill(77);
    assert_eq!(one.open_for(0, 250, everybody, &after).unwrap(), 192);
    step(&mut one, 0, 192, &after[192..]);
    one.rest().unwrap();
    let mut two = next(&model, one.share_pool().unwrap(), FINGERPRINT);
    two.take_over(serve(3)).unwrap();
    after.extend(&before[194..]);
    let cached = two.open_for(0, 250, everybody, &after).unwrap();
    assert_eq!(cached, 194);
    let logits = step(&mut two, 0, cached, &after[194..]);
    let expected = in_chunks(&mut model.engine(&options()), 0, &after, 256);
    assert_same(&logits, &expected, "after a page that was used twice");
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
    assert_eq!(cached, 199);
    assert_same(
        &logits,
        &expected(&model),
        "with a copy of a page that is not settled",
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
    let pages = u64::from(PAGES);
    let page_bytes = backend.kv_bytes(&model.plan, &small()).unwrap() / pages - 512;
    let sums_at = pages * page_bytes;
    let names_at = 4096 + 4 * pages;
    let afters_at = names_at + 32 * pages;
    let tokens_at = afters_at + 32 * pages;
    let (memory, ledger) = (0, 1);
    for (file, at, known, refused) in [
        // Of the second page, which is full: in its memory, a sum, its name and its tokens. A name that is another one is
        // looked for by nobody; that of the page before is of no use.
        (memory, page_bytes + 1, 64, 1),
        (memory, 2 * page_bytes - 4096, 64, 1),
        (memory, sums_at + 512, 64, 1),
        (ledger, names_at + 32 + 5, 64, 0),
        (ledger, afters_at + 32 + 5, 199, 0),
        (ledger, tokens_at + 256 + 9, 64, 1),
        // Of the fourth, which has eight tokens: of the first in its memory and its sum, and of what was never written;
        // the name of the page before, and the third token.
        (memory, 3 * page_bytes + 1, 192, 1),
        (memory, sums_at + 3 * 512, 192, 1),
        (memory, sums_at + 3 * 512 + 8 * 20, 199, 0),
        (ledger, names_at + 3 * 32, 199, 0),
        (ledger, afters_at + 3 * 32, 192, 0),
        (ledger, tokens_at + 3 * 256 + 9, 194, 0),
    ] {
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
        assert_eq!(cached, known, "{what}");
        assert_same(&logits, &expected(&model), &what);
        assert_eq!(two.counts().refused, refused, "{what}");
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
