//! The engine as a whole: the right numbers, and the same bits however the work is cut.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place
#![allow(clippy::print_stdout)] // measured errors are worth seeing

mod engine_support;
#[path = "engine_support/shares.rs"]
mod shares;

use cuda_worker::engine::EngineOptions;
use cuda_worker::scheduler::step_engine::{EngineError, StepBatch, StepEngine as _, Wanted};
use engine_support::model::{
    Chunk, GREEDY, Model, in_chunks, one_by_one, options, prompt, run, step,
};
use engine_support::naive::{Naive, divergence, relative_error};
use engine_support::{Rng, assert_same};
use orcd_shared::gguf::TensorType;
use orcd_shared::sampling::{SamplingParams, numbers};

const SHAPES: [&str; 9] = synth_model::Shape::VARIED;

#[test]
fn logits_are_those_of_the_model_in_binary64() {
    for name in SHAPES {
        let model = Model::named(name);
        let tokens = prompt(20, 1);
        let exact = Naive::new(&model.file, &model.plan).logits(&tokens);
        let floats = EngineOptions {
            float_activations: true,
            ..options()
        };
        let rows = one_by_one(&mut model.engine(&floats), 0, &tokens);
        let mut worst = 0f64;
        for (row, exact) in rows.iter().zip(&exact) {
            worst = worst.max(relative_error(row, exact));
        }
        let rows = one_by_one(&mut model.engine(&options()), 0, &tokens);
        let kl = rows
            .iter()
            .zip(&exact)
            .map(|(row, exact)| divergence(exact, row))
            .sum::<f64>()
            / 20.0;
        println!(
            "{name}: float activations off by {worst:.2e} of the largest logit, int8 KL {kl:.2e}"
        );
        assert!(worst < 1e-4, "{name}: {worst}");
        assert!(kl < 5e-3, "{name}: {kl}");
    }
}

/// Biases of the attention's output and of the logits, which no shape above has.
#[test]
fn a_qwen2_with_every_bias_gives_the_models_logits() {
    let model = Model::of(&synth_model::Shape {
        name: "biased-qwen2".into(),
        more_biases: &["attn_output", "output"],
        ..synth_model::Shape::named("tiny-qwen2").unwrap()
    });
    let tokens = prompt(12, 3);
    let exact = Naive::new(&model.file, &model.plan).logits(&tokens);
    let floats = EngineOptions {
        float_activations: true,
        ..options()
    };
    let rows = one_by_one(&mut model.engine(&floats), 0, &tokens);
    for (row, exact) in rows.iter().zip(&exact) {
        let worst = relative_error(row, exact);
        assert!(worst < 1e-4, "{worst}");
    }
    let mut engine = model.engine(&options());
    let whole = in_chunks(&mut engine, 0, &tokens, 12);
    let last = one_by_one(&mut engine, 1, &tokens).pop().unwrap();
    assert_same(&last, &whole, "one by one");
}

/// q, k and v, and gate and up, that read one input quantized in different ways, or not at all.
#[test]
fn layers_that_mix_k_quants_with_other_types_give_the_models_logits() {
    let model = Model::of(&synth_model::Shape {
        name: "mixed-llama".into(),
        mix: synth_model::Mix::Everything,
        ..synth_model::Shape::named("tiny-llama").unwrap()
    });
    let tokens = prompt(20, 4);
    let exact = Naive::new(&model.file, &model.plan).logits(&tokens);
    let mut engine = model.engine(&options());
    let rows = one_by_one(&mut engine, 0, &tokens);
    let kls = rows.iter().zip(&exact).map(|(r, e)| divergence(e, r));
    let kl = kls.sum::<f64>() / 20.0;
    println!("mixed types: KL {kl:.2e}");
    assert!(kl < 1e-2, "{kl}");
    let whole = in_chunks(&mut engine, 1, &tokens, 20);
    assert_same(rows.last().unwrap(), &whole, "all at once");
}

#[test]
fn every_weight_type_gives_the_models_logits() {
    for ty in TensorType::ALL {
        for name in SHAPES {
            let model = Model::with_type(name, ty);
            let tokens = prompt(5, 2);
            let exact = Naive::new(&model.file, &model.plan).logits(&tokens);
            let rows = one_by_one(&mut model.engine(&options()), 1, &tokens);
            let kl = rows
                .iter()
                .zip(&exact)
                .map(|(r, e)| divergence(e, r))
                .sum::<f64>()
                / 5.0;
            println!("{name} {ty}: KL {kl:.2e}");
            assert!(kl < 5e-3, "{name} {ty}: {kl}");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    for name in SHAPES {
        let model = Model::named(name);
        let tokens = prompt(150, 3);
        let with = |threads| {
            let mut engine = model.engine(&EngineOptions {
                threads,
                ..options()
            });
            let whole = in_chunks(&mut engine, 0, &tokens, 150);
            [whole, one_by_one(&mut engine, 1, &tokens[..9]).concat()].concat()
        };
        let one = with(1);
        for threads in [2, 3, 5] {
            assert_same(&with(threads), &one, format!("{name}, {threads} threads"));
        }
    }
}

#[test]
fn cutting_the_prompt_changes_no_bit() {
    for name in SHAPES {
        let model = Model::named(name);
        let mut engine = model.engine(&options());
        let tokens = prompt(150, 4);
        let whole = in_chunks(&mut engine, 0, &tokens, 150);
        for size in [1, 2, 5, 7, 64, 149] {
            let found = in_chunks(&mut engine, (size % 4) as u32, &tokens, size);
            assert_same(&found, &whole, format!("{name}, chunks of {size}"));
        }
    }
}

#[test]
fn every_type_gives_the_same_bits_however_it_is_cut() {
    for ty in TensorType::ALL {
        let model = Model::with_type("tiny-qwen2", ty);
        let mut engine = model.engine(&options());
        let tokens = prompt(70, 5);
        let whole = in_chunks(&mut engine, 0, &tokens, 70);
        for size in [1, 3, 66] {
            assert_same(
                &in_chunks(&mut engine, 1, &tokens, size),
                &whole,
                format!("{ty}, {size}"),
            );
        }
    }
}

#[test]
fn neighbors_in_the_batch_change_no_bit() {
    let model = Model::named("tiny-qwen2");
    let mut engine = model.engine(&options());
    let prompts: Vec<Vec<u32>> = [90, 1, 33, 64]
        .iter()
        .zip(0..)
        .map(|(n, i)| prompt(*n, i))
        .collect();
    let alone: Vec<Vec<f32>> = prompts
        .iter()
        .map(|p| in_chunks(&mut engine, 3, p, p.len()))
        .collect();
    // All together, in another order of slots, then each cut where the others are not.
    let order = [2usize, 0, 3, 1];
    for &i in &order {
        engine.open(i as u32, 200).unwrap();
    }
    let first: Vec<usize> = prompts.iter().map(|p| p.len() / 3).collect();
    let chunk = |i: usize, from: usize, to: usize| Chunk {
        slot: i as u32,
        start: from as u32,
        tokens: &prompts[i][from..to],
        sample: GREEDY,
    };
    let begin: Vec<_> = order
        .iter()
        .filter(|i| first[**i] > 0)
        .map(|i| chunk(*i, 0, first[*i]))
        .collect();
    run(&mut engine, &begin).unwrap();
    let rest: Vec<_> = order
        .iter()
        .map(|i| chunk(*i, first[*i], prompts[*i].len()))
        .collect();
    run(&mut engine, &rest).unwrap();
    for (place, &i) in order.iter().enumerate() {
        assert_same(
            &engine.logits(place).unwrap(),
            &alone[i],
            format!("sequence {i}"),
        );
    }
}

#[test]
fn a_slot_used_again_remembers_nothing() {
    let model = Model::named("tiny-tied");
    let mut engine = model.engine(&options());
    let (long, short) = (prompt(200, 6), prompt(40, 7));
    let fresh = in_chunks(&mut engine, 0, &short, 40);
    in_chunks(&mut engine, 1, &long, 64);
    assert_same(
        &in_chunks(&mut engine, 1, &short, 40),
        &fresh,
        "after a longer sequence",
    );
    // Nor does the repetition penalty see the tokens of the sequence before.
    let penalty = SamplingParams {
        repetition_penalty: 2.0,
        ..SamplingParams::GREEDY
    };
    let draw = |engine: &mut cuda_worker::engine::Engine, slot| {
        engine.open(slot, 41).unwrap();
        let chunk = Chunk {
            slot,
            start: 0,
            tokens: &short,
            sample: Some(penalty),
        };
        let sampled = run(engine, &[chunk]).unwrap();
        engine.close(slot).unwrap();
        sampled[0]
    };
    let (used, unused) = (draw(&mut engine, 1), draw(&mut engine, 2));
    assert_eq!(used, unused);
}

#[test]
fn drawn_tokens_follow_from_the_logits_and_the_seed_alone() {
    let model = Model::named("tiny-llama");
    let tokens = prompt(50, 8);
    let sampling = SamplingParams {
        temperature: 0.9,
        top_k: 40,
        seed: 42,
        ..SamplingParams::GREEDY
    };
    let generate = |threads, slot, seed| {
        let mut engine = model.engine(&EngineOptions {
            threads,
            ..options()
        });
        engine.open(slot, 100).unwrap();
        let sample = Some(SamplingParams { seed, ..sampling });
        let mut out: Vec<u32> = Vec::new();
        let mut sampled = run(
            &mut engine,
            &[Chunk {
                slot,
                start: 0,
                tokens: &tokens,
                sample,
            }],
        )
        .unwrap();
        for p in 50..80 {
            out.push(sampled[0]);
            let last = [sampled[0]];
            sampled = run(
                &mut engine,
                &[Chunk {
                    slot,
                    start: p,
                    tokens: &last,
                    sample,
                }],
            )
            .unwrap();
        }
        out
    };
    let first = generate(1, 0, 42);
    assert_eq!(first, generate(3, 2, 42));
    assert_ne!(first, generate(1, 0, 43));
}

#[test]
fn going_on_after_emitted_tokens_gives_the_same_tokens() {
    // What the supervisor does after a crash: prompt and emitted tokens as one prompt.
    let model = Model::named("tiny-qwen2");
    let tokens = prompt(30, 9);
    let sample = Some(SamplingParams {
        temperature: 1.0,
        top_p: 0.9,
        repetition_penalty: 1.1,
        seed: 7,
        ..SamplingParams::GREEDY
    });
    let generate = |engine: &mut cuda_worker::engine::Engine, prompt: &[u32], n: usize| {
        engine.open(0, 100).unwrap();
        let mut all = prompt.to_vec();
        let mut sampled = run(
            engine,
            &[Chunk {
                slot: 0,
                start: 0,
                tokens: prompt,
                sample,
            }],
        )
        .unwrap();
        while all.len() < prompt.len() + n {
            all.push(sampled[0]);
            let last = [sampled[0]];
            let start = all.len() as u32 - 1;
            sampled = run(
                engine,
                &[Chunk {
                    slot: 0,
                    start,
                    tokens: &last,
                    sample,
                }],
            )
            .unwrap();
        }
        engine.close(0).unwrap();
        all
    };
    let whole = generate(&mut model.engine(&options()), &tokens, 30);
    for cut in [31, 40, 59] {
        let again = generate(&mut model.engine(&options()), &whole[..cut], 60 - cut);
        assert_eq!(again, whole, "cut at {cut}");
    }
}

#[test]
fn a_step_without_pages_changes_nothing_and_freed_ones_serve_others() {
    let model = Model::named("tiny-qwen2");
    let mut engine = model.engine(&EngineOptions {
        kv_pages: 3,
        ..options()
    });
    let mut roomy = model.engine(&options());
    let tokens = prompt(128, 10);
    // Opening takes nothing: together they might have 600 positions, and there are 192.
    (0..3).for_each(|slot| engine.open(slot, 200).unwrap());
    assert_eq!(engine.counts().used, 0);
    step(&mut engine, 0, 0, &tokens[..64]);
    step(&mut engine, 1, 0, &tokens[..64]);
    assert_eq!(engine.counts().used, 2);
    // Each needs one more, and one is left.
    let mut both = StepBatch::default();
    both.add_run(0, 64, &tokens[64..65]).unwrap();
    both.add_run(1, 64, &tokens[64..65]).unwrap();
    both.sample_last(SamplingParams::GREEDY).unwrap();
    let refused = engine.run(&both);
    assert!(
        matches!(&refused, Err(EngineError::OutOfMemory(m)) if m.contains("needs 2 more KV pages, 1 are free")),
        "{refused:?}"
    );
    assert_eq!(engine.counts().used, 2);
    step(&mut engine, 0, 64, &tokens[64..100]);
    let refused = engine.run(&{
        let mut one = StepBatch::default();
        one.add_run(2, 0, &tokens[..1]).unwrap();
        one.sample_last(SamplingParams::GREEDY).unwrap();
        one
    });
    assert!(
        matches!(refused, Err(EngineError::OutOfMemory(_))),
        "{refused:?}"
    );
    engine.close(1).unwrap();
    assert_eq!(engine.counts().used, 2);
    assert_same(
        &step(&mut engine, 0, 100, &tokens[100..]),
        &in_chunks(&mut roomy, 0, &tokens, 128),
        "the sequence that was there",
    );
    assert_same(
        &step(&mut engine, 2, 0, &tokens[..60]),
        &in_chunks(&mut roomy, 1, &tokens[..60], 60),
        "the sequence that came into a freed page",
    );
    (0..=2)
        .step_by(2)
        .for_each(|slot| engine.close(slot).unwrap());
    assert_eq!(engine.counts().used, 0);
}

#[test]
fn broken_calls_are_refused_and_change_nothing() {
    let model = Model::named("tiny-qwen2");
    let mut engine = model.engine(&options());
    let tokens = prompt(20, 11);
    engine.open(0, 20).unwrap();
    step(&mut engine, 0, 0, &tokens[..10]);
    let mut refuse = |chunks: &[Chunk<'_>], what: &str| {
        let found = run(&mut engine, chunks);
        assert!(
            matches!(&found, Err(EngineError::Invalid(m)) if m.contains(what)),
            "{what}: {found:?}"
        );
    };
    let good = Chunk {
        slot: 0,
        start: 10,
        tokens: &tokens[10..],
        sample: GREEDY,
    };
    let unknown = [model.plan.shape.vocab];
    let many = prompt(300, 1);
    refuse(&[], "needs a run");
    refuse(
        &[Chunk {
            tokens: &[],
            ..good
        }],
        "without tokens",
    );
    refuse(&[Chunk { start: 9, ..good }], "holds 10 tokens");
    refuse(&[Chunk { start: 11, ..good }], "holds 10 tokens");
    refuse(&[Chunk { slot: 1, ..good }], "is not open");
    refuse(&[Chunk { slot: 4, ..good }], "does not exist");
    refuse(
        &[Chunk {
            tokens: &many[..11],
            ..good
        }],
        "it may have 20",
    );
    refuse(
        &[Chunk {
            tokens: &unknown,
            ..good
        }],
        "vocabulary",
    );
    refuse(
        &[
            Chunk {
                tokens: &tokens[..3],
                ..good
            },
            Chunk {
                tokens: &tokens[..3],
                ..good
            },
        ],
        "twice",
    );
    for (name, bounds, field) in numbers() {
        for value in [
            f32::NAN,
            bounds.most as f32 + 0.5,
            bounds.least as f32 - 1.0,
        ] {
            let mut sampling = SamplingParams::GREEDY;
            *field(&mut sampling) = value;
            let sample = Some(sampling);
            refuse(&[Chunk { sample, ..good }], name);
        }
    }
    assert!(
        matches!(engine.open(0, 5), Err(EngineError::Invalid(m)) if m.contains("open already"))
    );
    // More than the context has is as much as it has.
    engine.open(1, 257).unwrap();
    let longer = prompt(257, 3);
    for (start, end) in [(0, 128), (128, 256)] {
        step(&mut engine, 1, start as u32, &longer[start..end]);
    }
    let one_more = Chunk {
        slot: 1,
        start: 256,
        tokens: &longer[256..],
        ..good
    };
    let found = run(&mut engine, &[one_more]);
    assert!(matches!(found, Err(EngineError::Invalid(m)) if m.contains("it may have 256")));
    engine.close(1).unwrap();
    assert!(matches!(engine.open(1, 0), Err(EngineError::Invalid(_))));
    assert!(matches!(engine.close(1), Err(EngineError::Invalid(_))));
    assert!(matches!(engine.logits(1), Err(EngineError::Invalid(_))));
    let rest = step(&mut engine, 0, 10, &tokens[10..]);
    let mut other = model.engine(&options());
    assert_same(
        &rest,
        &in_chunks(&mut other, 0, &tokens, 20),
        "after all of them",
    );
}

#[test]
fn a_step_longer_than_the_batch_is_refused() {
    let model = Model::named("tiny-qwen2");
    let mut engine = model.engine(&EngineOptions {
        max_batch_tokens: 16,
        ..options()
    });
    engine.open(0, 100).unwrap();
    let tokens = prompt(17, 12);
    let found = run(
        &mut engine,
        &[Chunk {
            slot: 0,
            start: 0,
            tokens: &tokens,
            sample: GREEDY,
        }],
    );
    assert!(matches!(found, Err(EngineError::Invalid(m)) if m.contains("max_batch_tokens 16")));
}

#[test]
fn memory_is_told_before_and_after() {
    let model = Model::named("tiny-qwen2");
    let backend = cuda_worker::engine::Backend::cpu().unwrap();
    let engine = model.engine(&options());
    let required = backend.required_bytes(&model.plan, &options()).unwrap();
    assert_eq!(engine.memory_bytes(), required);
    assert!(required > model.plan.image_bytes);
    assert!(!engine.resident());
}

/// Each row's draw depends on the tokens before it and on nothing else in the step.
#[test]
fn several_rows_of_one_sequence_draw_what_they_draw_one_by_one() {
    let model = Model::named("tiny-qwen2");
    let mut engine = model.engine(&EngineOptions {
        slots: 8,
        ..options()
    });
    let tokens = prompt(40, 5);
    let drawing = SamplingParams {
        temperature: 1.0,
        top_p: 0.9,
        seed: 3,
        ..SamplingParams::GREEDY
    };
    let penalized = SamplingParams {
        repetition_penalty: 1.3,
        ..drawing
    };
    let counted = SamplingParams {
        frequency_penalty: 0.5,
        presence_penalty: -1.0,
        ..drawing
    };
    // The output begins after row 7.
    let wanted = [
        (2, penalized),
        (3, SamplingParams::GREEDY),
        (4, counted),
        (9, penalized),
        (17, counted),
        (18, penalized),
        (30, drawing),
        (39, counted),
    ];
    let expected: Vec<u32> = wanted
        .iter()
        .map(|&(row, sampling)| {
            let mut batch = StepBatch::default();
            batch.add_run(0, 0, &tokens[..=row]).unwrap();
            batch.begin_output(8);
            batch.add_sample(row, sampling).unwrap();
            engine.open(0, 64).unwrap();
            let token = engine.run(&batch).unwrap()[0].token;
            engine.close(0).unwrap();
            token
        })
        .collect();
    engine.open(1, 64).unwrap();
    engine.open(2, 64).unwrap();
    let mut batch = StepBatch::default();
    batch.add_run(2, 0, &tokens[..7]).unwrap();
    batch.add_run(1, 0, &tokens).unwrap();
    batch.begin_output(8);
    for (row, sampling) in wanted {
        batch.add_sample(7 + row, sampling).unwrap();
    }
    let found: Vec<u32> = (engine.run(&batch).unwrap().iter())
        .map(|sampled| sampled.token)
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn draws_that_do_not_fit_the_runs_are_refused_and_change_nothing() {
    let model = Model::named("tiny-qwen2");
    let mut engine = model.engine(&options());
    let tokens = prompt(12, 5);
    engine.open(0, 64).unwrap();
    engine.open(1, 64).unwrap();
    let greedy = SamplingParams::GREEDY;
    let penalized = SamplingParams {
        repetition_penalty: 1.3,
        ..greedy
    };
    let batch = |samples: &[(usize, SamplingParams)]| {
        let mut batch = StepBatch::default();
        batch.add_run(0, 0, &tokens[..5]).unwrap();
        batch.add_run(1, 0, &tokens[5..]).unwrap();
        for &(row, sampling) in samples {
            batch.add_sample(row, sampling).unwrap();
        }
        batch
    };
    for (samples, what) in [
        (&[(12, greedy)][..], "row 12 is to be sampled from"),
        (&[(5, greedy), (4, greedy)], "row 4 is sampled from after"),
        (&[(5, greedy), (5, greedy)], "row 5 is sampled from after"),
        (
            &[0, 1, 2, 3, 4].map(|row| (row, greedy)),
            "samples 5 tokens, at most 4",
        ),
    ] {
        let found = engine.run(&batch(samples)).map(<[_]>::len);
        assert!(
            matches!(&found, Err(EngineError::Invalid(m)) if m.contains(what)),
            "{what}: {found:?}"
        );
    }
    let fitting = batch(&[(4, penalized), (11, penalized)]);
    assert_eq!(engine.run(&fitting).unwrap().len(), 2);
}

/// A mask for each row, and logprobs, which are of the logits as they were.
#[test]
fn masks_leave_what_they_allow_and_logprobs_as_they_are() {
    let model = Model::named("tiny-qwen2");
    let vocab = model.plan.shape.vocab;
    let mut engine = model.engine(&options());
    let tokens = prompt(6, 5);
    let mut batch = StepBatch::default();
    batch.add_run(0, 0, &tokens).unwrap();
    let words = vocab.div_ceil(32) as usize;
    for row in 0..3u32 {
        let mut allowed = vec![0; words];
        allowed[row as usize] = 1 << (row + 4);
        let wanted = Wanted {
            mask: Some(batch.add_mask(&allowed)),
            top_logprobs: Some(3),
            ..SamplingParams::GREEDY.into()
        };
        batch.add_sample(row as usize, wanted).unwrap();
    }
    batch.sample_last(SamplingParams::GREEDY).unwrap();
    engine.open(0, 64).unwrap();
    let sampled = engine.run(&batch).unwrap().to_vec();
    for (row, sample) in sampled[..3].iter().enumerate() {
        assert_eq!(sample.token as usize, 32 * row + row + 4);
        let logits = engine.logits(row).unwrap();
        let (of_token, best) = cuda_worker::probe::logprobs(&logits, sample.token, 3);
        assert_eq!(sample.logprob.to_bits(), of_token.to_bits());
        assert!(sample.logprob < 0.0, "{sample:?}");
        let top: Vec<(u32, f32)> = sample.top.iter().map(|t| (t.token, t.logprob)).collect();
        assert_eq!(top[..3], best);
        assert!(
            top[3..].iter().all(|t| *t == (0, 0.0)),
            "only as many as wanted"
        );
    }
    assert_eq!((sampled[3].logprob, sampled[3].top[0].token), (0.0, 0));
}

/// Against the draw from the same logits with these tokens of the output, and with these biases.
#[test]
fn a_draw_counts_the_output_and_adds_its_own_biases() {
    let model = Model::named("tiny-qwen2");
    let mut engine = model.engine(&options());
    let (tokens, more) = (prompt(30, 5), [9u32, 9, 200, 9]);
    let sampling = SamplingParams {
        temperature: 0.8,
        frequency_penalty: 1.5,
        presence_penalty: 0.5,
        seed: 4,
        ..SamplingParams::GREEDY
    };
    let biases = [(9, 8.0), (44, 7.0), (200, 9.5), (250, -3.0)];
    let all = [&tokens[..], &more].concat();
    for output_start in [0, 30, 33, 34, 90] {
        for first in 1..=4 {
            engine.open(0, 64).unwrap();
            step(&mut engine, 0, 0, &tokens);
            let mut batch = StepBatch::default();
            let run = |batch: &mut StepBatch, start: usize, tokens: &[u32]| {
                batch.add_run(0, start as u32, tokens).unwrap();
                batch.begin_output(output_start);
                // Of which the first are somebody else's.
                batch.add_biases(&biases[..2]);
                let biases = batch.add_biases(&biases);
                let wanted = Wanted {
                    biases,
                    ..sampling.into()
                };
                batch.sample_last(wanted).unwrap();
            };
            run(&mut batch, 30, &more[..first]);
            let mut found = engine.run(&batch).unwrap()[0].token;
            let mut before = 30 + first;
            if first < 4 {
                batch.clear();
                run(&mut batch, 30 + first, &more[first..]);
                found = engine.run(&batch).unwrap()[0].token;
                before = 34;
            }
            let beside = cuda_worker::probe::Beside {
                before: &all[..before],
                output_start,
                biases: &biases,
                mask: &[],
            };
            let logits = engine.logits(0).unwrap();
            let expected =
                cuda_worker::probe::draw_beside(&logits, &beside, before as u32, &sampling);
            assert_eq!(
                found, expected,
                "output from {output_start}, cut at {first}"
            );
            engine.close(0).unwrap();
        }
    }
}

#[test]
fn biases_that_can_not_be_are_refused() {
    let model = Model::named("tiny-qwen2");
    let vocab = model.plan.shape.vocab;
    let mut engine = model.engine(&options());
    engine.open(0, 64).unwrap();
    let mut refused = |biases: &[(u32, f32)], what: &str| {
        let mut batch = StepBatch::default();
        batch.add_run(0, 0, &[1, 2]).unwrap();
        let wanted = Wanted {
            biases: batch.add_biases(biases),
            ..SamplingParams::GREEDY.into()
        };
        batch.sample_last(wanted).unwrap();
        let found = engine.run(&batch).map(<[_]>::len);
        assert!(
            matches!(&found, Err(EngineError::Invalid(m)) if m.contains(what)),
            "{what}: {found:?}"
        );
    };
    refused(&[(vocab, 1.0)], "row 1 has a bias of token");
    refused(&[(3, 1.0), (3, 1.0)], "or twice");
    refused(&[(4, 1.0), (3, 1.0)], "after that of a later token");
    refused(&[(3, f32::NAN)], "token 3 that is not finite");
    refused(&[(3, f32::INFINITY)], "token 3 that is not finite");
    let many: Vec<_> = (0..1025).map(|id| (id, 0.0)).collect();
    refused(&many, "has 1025 biases, at most 1024");
    let mut batch = StepBatch::default();
    let of_another = batch.add_biases(&[(1, 1.0); 5]);
    batch.clear();
    batch.add_run(0, 0, &[1, 2]).unwrap();
    let wanted = Wanted {
        biases: of_another,
        ..SamplingParams::GREEDY.into()
    };
    batch.sample_last(wanted).unwrap();
    assert!(matches!(engine.run(&batch), Err(EngineError::Invalid(m)) if m.contains("not there")));
    assert_eq!(step(&mut engine, 0, 0, &[1, 2]).len(), vocab as usize);
}

#[test]
fn masks_and_logprobs_that_can_not_be_are_refused() {
    let model = Model::named("tiny-qwen2");
    let vocab = model.plan.shape.vocab;
    let mut engine = model.engine(&options());
    engine.open(0, 64).unwrap();
    let words = vocab.div_ceil(32) as usize;
    let mut refused = |mask: &[u32], top: u32, what: &str| {
        let mut batch = StepBatch::default();
        batch.add_run(0, 0, &[1, 2]).unwrap();
        let wanted = Wanted {
            mask: Some(batch.add_mask(mask)),
            top_logprobs: Some(top),
            ..SamplingParams::GREEDY.into()
        };
        batch.sample_last(wanted).unwrap();
        let found = engine.run(&batch).map(<[_]>::len);
        assert!(
            matches!(&found, Err(EngineError::Invalid(m)) if m.contains(what)),
            "{what}: {found:?}"
        );
    };
    refused(&vec![0; words], 0, "mask 1 of row 1 allows no token");
    refused(&vec![1; words - 1], 0, "words");
    refused(&[], 0, "mask 1 of row 1 is not there");
    refused(
        &vec![1; words],
        21,
        "wants the logprobs of 21 tokens, at most 20",
    );
    // Bits beyond the vocabulary are no tokens.
    if !vocab.is_multiple_of(32) {
        let mut beyond = vec![0; words];
        beyond[words - 1] = 1 << 31;
        refused(&beyond, 0, "allows no token");
    }
    assert_eq!(step(&mut engine, 0, 0, &[1, 2]).len(), vocab as usize);
}

#[test]
fn sequences_that_share_a_beginning_draw_what_they_draw_alone() {
    let model = Model::named("tiny-llama");
    for length in shares::LENGTHS {
        let prompt = prompt(length, 9);
        let mut engine = model.engine(&options());
        let alone = shares::alone(&mut engine, &prompt);
        for round in 0..2 {
            let found = shares::shared(&mut engine, &prompt, round > 0);
            shares::assert_begins(&alone, &found, &format!("{length} tokens, round {round}"));
        }
        // Whatever is kept.
        assert_eq!(shares::alone(&mut engine, &prompt), alone);
        let counts = engine.counts();
        assert_eq!((counts.used, counts.refused), (0, 0));
        assert!(counts.cached as usize >= length / 64);
    }
}

/// Sequences come, grow, begin as others did and end in any order, in a pool in which what is kept is soon evicted:
/// none ever sees another one's tokens, memory is refused exactly where no page can be had, and all pages come back.
#[test]
fn any_order_of_beginnings_and_ends_keeps_sequences_apart() {
    const PAGES: u32 = 7;
    let model = Model::named("tiny-tied");
    let mut engine = model.engine(&EngineOptions {
        kv_pages: PAGES,
        ..options()
    });
    let mut fresh = model.engine(&options());
    let mut rng = Rng(20_261_128);
    // Tokens, and how many there may be, by slot; and what sequences had at their ends.
    let mut open: [Option<(Vec<u32>, u32)>; 4] = Default::default();
    let mut ended: Vec<Vec<u32>> = Vec::new();
    let (mut compared, mut refused, mut hit) = (0, 0, 0);
    for turn in 0..1500 {
        let slot = rng.below(4) as usize;
        let free = PAGES - engine.counts().used;
        let Some((mut tokens, most)) = open[slot].take() else {
            // A prompt that begins as some sequence did, as far as it likes, and goes on in its own way.
            let others = open.iter().flatten().map(|(tokens, _)| tokens);
            let others: Vec<&Vec<u32>> = others.chain(&ended).collect();
            let mut tokens = match others.len() {
                0 => Vec::new(),
                n => {
                    let other = others[rng.below(n as u64) as usize];
                    other[..rng.below(other.len() as u64 + 1) as usize].to_vec()
                }
            };
            tokens.truncate(180);
            if tokens.is_empty() || rng.below(2) == 0 {
                tokens.extend(prompt(1 + rng.below(70) as usize, turn));
            }
            let most = tokens.len() as u32 + rng.below(60) as u32;
            let found = engine.open_for(slot as u32, most, shares::EVERYBODY, &tokens);
            let cached = found.unwrap() as usize;
            assert!(cached < tokens.len());
            hit += usize::from(cached > 0);
            let more = &tokens[cached..];
            let free = PAGES - engine.counts().used;
            let mut batch = StepBatch::default();
            batch.add_run(slot as u32, cached as u32, more).unwrap();
            batch.sample_last(SamplingParams::GREEDY).unwrap();
            let pages = |tokens: usize| tokens.div_ceil(64);
            let needs = pages(tokens.len()) - pages(cached);
            let ran = engine.run(&batch).map(<[_]>::len);
            if needs > free as usize {
                assert!(matches!(ran, Err(EngineError::OutOfMemory(_))), "{ran:?}");
                engine.close(slot as u32).unwrap();
                refused += 1;
                continue;
            }
            ran.unwrap();
            let logits = engine.logits(0).unwrap();
            let expected = in_chunks(&mut fresh, 0, &tokens, 256);
            assert_same(
                &logits,
                &expected,
                format!("turn {turn}, {cached} were there"),
            );
            compared += 1;
            open[slot] = Some((tokens, most));
            continue;
        };
        let room = most - tokens.len() as u32;
        if room == 0 || rng.below(8) == 0 {
            engine.close(slot as u32).unwrap();
            if ended.len() == 6 {
                ended.remove(0);
            }
            ended.push(tokens);
            continue;
        }
        let more = prompt(1 + rng.below(u64::from(room.min(40))) as usize, turn);
        let pages = |tokens: usize| tokens.div_ceil(64);
        let needs = pages(tokens.len() + more.len()) - pages(tokens.len());
        if needs > free as usize {
            let mut batch = StepBatch::default();
            let start = tokens.len() as u32;
            batch.add_run(slot as u32, start, &more).unwrap();
            let found = engine.run(&batch).map(<[_]>::len);
            assert!(
                matches!(found, Err(EngineError::OutOfMemory(_))),
                "turn {turn}: {found:?}"
            );
            open[slot] = Some((tokens, most));
            refused += 1;
            continue;
        }
        let logits = step(&mut engine, slot as u32, tokens.len() as u32, &more);
        tokens.extend(more);
        if turn % 5 == 0 {
            let expected = in_chunks(&mut fresh, 0, &tokens, 256);
            assert_same(&logits, &expected, format!("turn {turn}, slot {slot}"));
            compared += 1;
        }
        open[slot] = Some((tokens, most));
    }
    assert!(compared > 100, "only {compared} were compared");
    assert!(refused > 5, "only {refused} found no page");
    assert!(hit > 30, "only {hit} found something");
    for (slot, sequence) in open.iter().enumerate() {
        if sequence.is_some() {
            engine.close(slot as u32).unwrap();
        }
    }
    let counts = engine.counts();
    assert_eq!((counts.used, counts.refused), (0, 0));
    assert!(counts.cached > 0);
}
