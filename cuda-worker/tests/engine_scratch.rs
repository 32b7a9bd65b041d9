//! Memory that several operations have in turn: nobody overwrites what somebody still reads.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place
#![allow(clippy::print_stdout)] // sizes are worth seeing

mod engine_support;

use cuda_worker::engine::EngineOptions;
use cuda_worker::probe::{ScratchOf, Use, feed_forward_group, place_partials, scratch};
use cuda_worker::weights_plan::ModelShape;
use engine_support::model::{Model, in_chunks, options, prompt};
use engine_support::{Rng, assert_same};

const BACKENDS: [ScratchOf; 3] = [ScratchOf::Cpu, ScratchOf::Gpu, ScratchOf::Warpgroups];

/// The shape of Llama 3.1 8B.
fn eight_billion() -> ModelShape {
    ModelShape {
        n_layers: 32,
        d_model: 4096,
        d_ff: 14336,
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 128,
        vocab: 128_256,
        ..Model::named("tiny-qwen2").plan.shape
    }
}

#[test]
fn pieces_that_are_in_use_together_do_not_overlap() {
    let tiny = synth_model::Shape::VARIED.map(|name| Model::named(name).plan.shape);
    for shape in tiny.iter().chain(&[eight_billion()]) {
        for backend in BACKENDS {
            for (rows, samples) in [(1, 1), (7, 4), (1030, 4), (9, 30)] {
                let (bytes, pieces) = scratch(shape, rows, samples, backend);
                let at = format!("{backend:?}, {rows} rows, {samples} samples, {shape:?}");
                for (i, a) in pieces.iter().enumerate() {
                    assert!(
                        a.begin.is_multiple_of(64) && a.end <= bytes,
                        "{a:?} of {bytes}: {at}"
                    );
                    for b in &pieces[..i] {
                        let together = a.used == b.used || [a.used, b.used].contains(&Use::Always);
                        let apart = a.end <= b.begin || b.end <= a.begin;
                        assert!(apart || !together, "{a:?} and {b:?}: {at}");
                    }
                }
                let last = pieces.iter().map(|piece| piece.end).max().unwrap();
                assert!(
                    bytes - last < 64,
                    "{bytes} bytes, {last} of them used: {at}"
                );
            }
        }
    }
}

/// A worker that stands by has all of this to itself.
#[test]
fn scratch_of_a_large_model_is_bounded() {
    let shape = eight_billion();
    for backend in BACKENDS {
        let (bytes, pieces) = scratch(&shape, 2048, 256, backend);
        println!("{backend:?}: {} MiB", bytes >> 20);
        let sum: u64 = pieces.iter().map(|piece| piece.end - piece.begin).sum();
        assert!(bytes < 300 << 20, "{backend:?}: {bytes}");
        assert!(bytes < sum * 2 / 3, "{backend:?}: {bytes} of {sum}");
    }
}

#[test]
fn feed_forward_groups_are_alike_and_hold_all_rows() {
    for most in [1_u32, 5, 64, 100, 1024] {
        for rows in 1..3000 {
            let each = feed_forward_group(rows, most);
            assert!(
                (1..=most).contains(&each),
                "{rows} rows, at most {most}: {each}"
            );
            let (groups, least) = (rows.div_ceil(each), rows.div_ceil(most));
            if most.is_multiple_of(64) {
                let alike = rows.div_ceil(least).next_multiple_of(64);
                assert!(each <= alike, "{rows} rows, at most {most}: {each}");
                assert_eq!(groups, least, "{rows} rows, at most {most}: {each}");
                assert!(
                    groups == 1 || each.is_multiple_of(64),
                    "{rows} rows, at most {most}: {each}"
                );
            }
        }
    }
}

#[test]
fn a_step_of_several_feed_forward_groups_changes_no_bit() {
    // Small models have groups only if steps could be this large.
    let long = EngineOptions {
        context: 2304,
        max_batch_tokens: 65_535,
        ..options()
    };
    let mut in_groups = 0;
    for name in synth_model::Shape::VARIED {
        let model = Model::named(name);
        let shape = &model.plan.shape;
        let wide = u64::from(long.max_batch_tokens) * u64::from(shape.d_ff) * 8 > 160 << 20;
        if !wide || shape.n_experts > 0 {
            continue;
        }
        in_groups += 1;
        let mut engine = model.engine(&long);
        for n in [1100, 2250] {
            let tokens = prompt(n, 7);
            let short = in_chunks(&mut engine, 0, &tokens, 600);
            let whole = in_chunks(&mut engine, 1, &tokens, n);
            assert_same(&whole, &short, format!("{name}, {n} rows"));
        }
        if in_groups == 2 {
            break;
        }
    }
    assert_eq!(in_groups, 2, "no model is in groups");
}

#[test]
fn rows_of_a_launch_have_partial_results_of_their_own() {
    const KEYS: u32 = 256; // of a run
    let mut rng = Rng(11);
    for _ in 0..2000 {
        let (room_runs, room_rows) = (1 + rng.below(60), 1 + rng.below(20) as u32);
        let positions: Vec<u32> = (0..1 + rng.below(50))
            .map(|_| rng.below(room_runs * u64::from(KEYS)) as u32)
            .collect();
        let all: Vec<u32> = (0..positions.len() as u32).collect();
        let some: Vec<u32> = (all.iter().copied()).filter(|_| rng.below(3) > 0).collect();
        let listed = if rng.below(2) == 0 || some.is_empty() {
            &[][..]
        } else {
            &some
        };
        let (launches, place) = place_partials(&positions, listed, room_runs, room_rows);
        let rows = if listed.is_empty() { &all } else { listed };
        assert_eq!(launches.iter().sum::<u32>() as usize, rows.len());
        let runs = |row: u32| match positions[row as usize] / KEYS + 1 {
            1 => 0,
            n => u64::from(n),
        };
        let mut rest = rows;
        for n in launches {
            let (launch, later) = rest.split_at(n as usize);
            let mut end = 0;
            for &row in launch {
                assert!(
                    u64::from(place[row as usize]) >= end,
                    "{row} of {launch:?}: {place:?}"
                );
                end = u64::from(place[row as usize]) + runs(row);
            }
            assert!(n <= room_rows && end <= room_runs, "{launch:?}: {place:?}");
            if let Some(&next) = later.first() {
                assert!(
                    n == room_rows || end + runs(next) > room_runs,
                    "{next} had room beside {launch:?}"
                );
            }
            rest = later;
        }
    }
}

#[test]
fn short_and_long_sequences_attend_in_one_launch() {
    let room = (64 << 20) / (32 * 130 * 4); // of a model of 8B
    let mut positions = vec![131_071];
    positions.extend([12_287; 63]);
    assert_eq!(place_partials(&positions, &[], room, 256).0, [64]);
    assert_eq!(place_partials(&[131_071; 16], &[], room, 256).0, [7, 7, 2]);
}
