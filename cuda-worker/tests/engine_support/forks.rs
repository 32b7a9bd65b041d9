//! Sequences that go on from another one's tokens, on any backend.

use cuda_worker::engine::Engine;
use cuda_worker::scheduler::step_engine::{StepBatch, StepEngine as _};
use orcd_shared::sampling::SamplingParams;

/// Prompts about the end of a page of 64 positions.
pub(crate) const LENGTHS: [usize; 6] = [1, 5, 63, 64, 65, 130];
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

/// The same from one prompt, processed once but for its last token: sequences 1 and 2 go on from 0, which ends in
/// the middle while they go on.
pub(crate) fn forked(engine: &mut Engine, prompt: &[u32]) -> Vec<Vec<u32>> {
    let before = prompt.len() as u32 - 1;
    let most = before + 1 + TOKENS;
    engine.open(0, most).unwrap();
    if before > 0 {
        draw(
            engine,
            (0, 0, before + 1),
            &prompt[..prompt.len() - 1],
            SamplingParams::GREEDY,
        );
    }
    engine.fork(0, 1, most).unwrap();
    engine.fork(1, 2, most).unwrap();
    let mut tokens = vec![Vec::new(); 3];
    let mut last = [prompt[prompt.len() - 1]; 3];
    for place in 0..TOKENS {
        for (slot, how) in samplings().into_iter().enumerate() {
            if slot == 0 && place > TOKENS / 2 {
                continue;
            }
            let at = (slot as u32, before + place, before + 1);
            last[slot] = draw(engine, at, &[last[slot]], how);
            tokens[slot].push(last[slot]);
        }
        if place == TOKENS / 2 {
            engine.close(0).unwrap();
        }
    }
    engine.close(2).unwrap();
    engine.close(1).unwrap();
    tokens
}

/// Asserts that `forked` says what `alone` does, as far as it goes.
pub(crate) fn assert_begins(alone: &[Vec<u32>], forked: &[Vec<u32>], what: &str) {
    for (i, (whole, found)) in alone.iter().zip(forked).enumerate() {
        assert!(
            found.len() as u32 > TOKENS / 2,
            "{what}: sequence {i} is short"
        );
        assert_eq!(found, &whole[..found.len()], "{what}: sequence {i}");
    }
    assert_ne!(forked[1], forked[2], "{what}: sequences draw on their own");
}
