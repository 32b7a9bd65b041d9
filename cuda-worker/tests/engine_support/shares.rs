//! Sequences that begin with what others have computed, on any backend.

use cuda_worker::engine::Engine;
use cuda_worker::scheduler::step_engine::{Owner, StepBatch, StepEngine as _};
use orcd_shared::job::{CacheScope, JobKey};
use orcd_shared::sampling::SamplingParams;

/// Prompts about the end of a page of 64 positions.
pub(crate) const LENGTHS: [usize; 8] = [1, 5, 63, 64, 65, 127, 128, 130];
/// Tokens that each sequence gets after its prompt.
const TOKENS: u32 = 70;

/// How the sequences of a family draw: the first is the one that the others go on from.
pub(crate) fn samplings() -> [SamplingParams; 3] {
    let sampled = |seed| SamplingParams {
        temperature: 1.0,
        seed,
        ..SamplingParams::GREEDY
    };
    let penalized = SamplingParams {
        repetition_penalty: 1.3,
        frequency_penalty: 0.7,
        presence_penalty: -0.3,
        top_p: 0.9,
        ..sampled(8)
    };
    [SamplingParams::GREEDY, sampled(7), penalized]
}

/// Appends `tokens` after the first `start` and samples the next; the output begins at `output`.
fn draw(
    engine: &mut Engine,
    (slot, start, output): (u32, u32, u32),
    tokens: &[u32],
    how: SamplingParams,
) -> u32 {
    let mut batch = StepBatch::default();
    batch.add_run(slot, start, tokens).unwrap();
    batch.begin_output(output);
    batch.add_sample(tokens.len() - 1, how).unwrap();
    engine.run(&batch).unwrap()[0].token
}

/// What each of [`samplings`] gives after `prompt` in a sequence of its own.
pub(crate) fn alone(engine: &mut Engine, prompt: &[u32]) -> Vec<Vec<u32>> {
    let one = |how| {
        let start = prompt.len() as u32;
        engine.open(0, start + TOKENS).unwrap();
        let mut tokens = vec![draw(engine, (0, 0, start), prompt, how)];
        for place in start..start + TOKENS - 1 {
            let last = tokens[tokens.len() - 1];
            tokens.push(draw(engine, (0, place, start), &[last], how));
        }
        engine.close(0).unwrap();
        tokens
    };
    samplings().map(one).to_vec()
}

/// All share with all.
pub(crate) const EVERYBODY: Owner = Owner {
    key: JobKey(1),
    scope: CacheScope::Salt([3; 16]),
};

/// Opens a sequence that begins with `prompt` and samples the token after it; that, and how many tokens of the prompt were
/// there.
fn begin(engine: &mut Engine, slot: u32, prompt: &[u32], how: SamplingParams) -> (u32, u32) {
    let length = prompt.len() as u32;
    let most = length + TOKENS;
    let cached = engine.open_for(slot, most, EVERYBODY, prompt).unwrap();
    let rest = &prompt[cached as usize..];
    (draw(engine, (slot, cached, length), rest, how), cached)
}

/// Tokens of a prompt that are there when another sequence has processed all of it: those of its full pages, but for its
/// last token, whose logits are wanted.
pub(crate) fn most_cached(prompt: &[u32]) -> u32 {
    let full = prompt.len() / 64 * 64;
    full.min(prompt.len() - 1) as u32
}

/// The same as [`alone`] from one prompt, of which all full pages are processed once: sequences 1 and 2 begin with those of
/// 0, which ends in the middle while they go on.
pub(crate) fn shared(engine: &mut Engine, prompt: &[u32], known: bool) -> Vec<Vec<u32>> {
    let length = prompt.len() as u32;
    let mut tokens = vec![Vec::new(); 3];
    for (slot, how) in samplings().into_iter().enumerate() {
        let (first, cached) = begin(engine, slot as u32, prompt, how);
        let expected = match (slot, known) {
            (0, false) => 0,
            _ => most_cached(prompt),
        };
        assert_eq!(cached, expected, "{length} tokens, sequence {slot}");
        tokens[slot].push(first);
    }
    for place in 1..TOKENS {
        for (slot, how) in samplings().into_iter().enumerate() {
            if slot == 0 && place > TOKENS / 2 {
                continue;
            }
            let last = tokens[slot][tokens[slot].len() - 1];
            let at = (slot as u32, length + place - 1, length);
            tokens[slot].push(draw(engine, at, &[last], how));
        }
        if place == TOKENS / 2 {
            engine.close(0).unwrap();
        }
    }
    engine.close(2).unwrap();
    engine.close(1).unwrap();
    tokens
}

/// Asserts that `found` says what `alone` does, as far as it goes.
pub(crate) fn assert_begins(alone: &[Vec<u32>], shared: &[Vec<u32>], what: &str) {
    for (i, (whole, found)) in alone.iter().zip(shared).enumerate() {
        assert!(
            found.len() as u32 > TOKENS / 2,
            "{what}: sequence {i} is short"
        );
        assert_eq!(found, &whole[..found.len()], "{what}: sequence {i}");
    }
    assert_ne!(shared[1], shared[2], "{what}: sequences draw on their own");
}
