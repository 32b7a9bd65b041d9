//! Every family, by synthetic models with all that its files may have: the right numbers, and the same bits however the
//! work is cut.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place
#![allow(clippy::print_stdout)] // measured errors are worth seeing

mod engine_support;

use cuda_worker::engine::EngineOptions;
use cuda_worker::scheduler::step_engine::StepEngine as _;
use cuda_worker::weights_plan::{Activation, ModelPlan, Role, RopeScaling, plan};
use engine_support::assert_same;
use engine_support::model::{Chunk, GREEDY, Model, in_chunks, one_by_one, options, prompt, run};
use engine_support::naive::{Naive, divergence, relative_error};
use orcd_shared::gguf::{GgufFile, TensorType};

const FAMILIES: [&str; 14] = synth_model::Shape::FAMILIES;
/// Tokens that windows, contexts of training and pages end within, and fewer than that context of training.
const LONG: usize = 70;
const SHORT: usize = 40;

/// In full, with the published hyperparameters.
#[test]
fn published_shapes_are_planned() {
    let folder = tempfile::tempdir().unwrap();
    let planned = |name: &str| {
        let path = folder.path().join(name);
        let shape = synth_model::Shape::named(name).unwrap();
        synth_model::outline(&shape, &synth_model::Options::default(), &path).unwrap();
        plan(GgufFile::open(&path).unwrap().header()).unwrap()
    };
    for (name, most) in [
        ("qwen3-4b", 2_492_000_000),
        ("qwen3-30b-a3b", 18_552_000_000),
        ("gemma-3-4b", 2_484_000_000),
        ("gpt-oss-20b", 12_098_000_000),
    ] {
        let bytes = planned(name).image_bytes;
        assert!((most - 2_000_000..most).contains(&bytes), "{name}: {bytes}");
    }
    let gemma = planned("gemma-3-4b");
    assert_eq!(gemma.quant_kind, "Q4_K_M");
    let [global, local] = gemma.shape.kinds;
    assert_eq!((global.window, local.window), (0, 1024));
    assert_eq!((global.rope.base, local.rope.base), (1e6, 1e4));
    assert_eq!((global.rope.factor, local.rope.factor), (8.0, 1.0));
    // Of 34 layers every sixth is global.
    assert_eq!(gemma.shape.second_kind[0].count_ones(), 29);
    let moe = planned("qwen3-30b-a3b").shape;
    let sizes = (moe.n_experts, moe.n_experts_used, moe.d_ff, moe.head_dim);
    assert_eq!(sizes, (128, 8, 768, 128));
    let gpt_oss = planned("gpt-oss-20b").shape;
    assert_eq!(gpt_oss.second_kind[0], 0x55_5555);
    assert_eq!(gpt_oss.kinds.map(|kind| kind.window), [0, 128]);
    assert_eq!(gpt_oss.kinds[1].rope.original_context, 4096);
    assert!(!gpt_oss.kinds[1].rope.rounds_bounds);
}

/// As long sequences, beyond windows and the context of training, and as short ones.
#[test]
fn logits_of_every_family_are_those_of_the_model_in_binary64() {
    for name in FAMILIES {
        let model = Model::named(name);
        for length in [LONG, SHORT] {
            let tokens = prompt(length, 1);
            let exact = Naive::new(&model.file, &model.plan).logits(&tokens);
            let floats = EngineOptions {
                float_activations: true,
                ..options()
            };
            let rows = one_by_one(&mut model.engine(&floats), 0, &tokens);
            let errors = rows.iter().zip(&exact).map(|(r, e)| relative_error(r, e));
            let worst = errors.fold(0f64, f64::max);
            let rows = one_by_one(&mut model.engine(&options()), 0, &tokens);
            let kls = rows.iter().zip(&exact).map(|(r, e)| divergence(e, r));
            let kl = kls.sum::<f64>() / length as f64;
            println!(
                "{name}, {length} tokens: float activations off by {worst:.2e} of the largest logit, int8 KL {kl:.2e}"
            );
            assert!(worst < 1e-4, "{name}, {length} tokens: {worst}");
            assert!(kl < 1e-2, "{name}, {length} tokens: {kl}");
        }
    }
}

/// What a family's shape is there for changes its logits by far more than the engine may be off.
#[test]
fn features_of_every_family_matter() {
    let tokens = prompt(LONG, 1);
    let last = |naive: &Naive<'_>| naive.logits(&tokens).pop().unwrap();
    let off = |exact: &[f64], found: &[f64]| {
        let found: Vec<f32> = found.iter().map(|l| *l as f32).collect();
        relative_error(&found, exact)
    };
    for name in FAMILIES {
        let model = Model::named(name);
        let exact = last(&Naive::new(&model.file, &model.plan));
        for (what, change) in features(name) {
            let mut plan = model.plan.clone();
            change(&mut plan);
            let error = off(&exact, &last(&Naive::new(&model.file, &plan)));
            println!("{name} without {what}: off by {error:.1e}");
            assert!(error > 1e-2, "{name} without {what}: {error}");
        }
        if model.plan.shape.n_experts > 0 {
            let mut naive = Naive::new(&model.file, &model.plan);
            naive.takes_last_of_ties = true;
            let all = Naive::new(&model.file, &model.plan).logits(&tokens);
            let errors = all
                .iter()
                .zip(naive.logits(&tokens))
                .map(|(e, f)| off(e, &f));
            let error = errors.fold(0f64, f64::max);
            println!("{name} with the last of those that tie: off by {error:.1e}");
            assert!(error > 1e-2, "{name}: no experts tie");
        }
    }
}

type Change = fn(&mut ModelPlan);

/// Features of a shape, and what takes each out of a plan.
fn features(name: &str) -> Vec<(&'static str, Change)> {
    match name {
        "tiny-qwen3" => vec![
            ("the norms of queries", |p| lose(p, &[Role::AttnQNorm])),
            ("the norms of keys", |p| lose(p, &[Role::AttnKNorm])),
        ],
        "tiny-qwen3-yarn" => vec![
            ("YaRN", unstretch),
            ("the factor on cosines", |p| {
                p.shape.kinds[0].rope.log_multiplier = 1.0;
            }),
        ],
        "tiny-qwen3moe" => vec![("the third expert", |p| p.shape.n_experts_used = 2)],
        "tiny-mixtral" => vec![
            ("the second expert", |p| p.shape.n_experts_used = 1),
            ("the experts' factor", |p| p.shape.expert_scale = 1.0),
        ],
        "tiny-llama-linear" => vec![
            ("linear scaling", unstretch),
            ("the unrotated part", |p| {
                p.shape.kinds[0].rope.pairs = p.shape.head_dim / 2;
            }),
        ],
        "tiny-granite" => vec![
            ("the embedding's factor", |p| p.shape.embedding_scale = 1.0),
            ("the factor of scores", |p| p.shape.attention_scale = 0.0),
            ("the factor of branches", |p| p.shape.residual_scale = 1.0),
            ("the factor of logits", |p| p.shape.logit_scale = 1.0),
        ],
        "tiny-granite-unrotated" => vec![("its unrotated layers", |p| {
            p.shape.kinds[0].rope.pairs = p.shape.head_dim / 2;
        })],
        "tiny-smollm3" => vec![("the unrotated layer", |p| p.shape.second_kind = [0; 16])],
        "tiny-mistral3" => vec![
            ("YaRN", unstretch),
            ("the growing factor", |p| {
                p.shape.query_scale = 0.0;
            }),
        ],
        "tiny-phi3" => vec![
            ("the divisors of long sequences", unstretch),
            ("the factor on cosines", |p| {
                p.shape.kinds[0].rope.attn_factor = 1.0
            }),
        ],
        "tiny-phi3-window" => vec![("the window", unwindow)],
        "tiny-gemma2" => vec![
            ("the cap on scores", |p| p.shape.attention_soft_cap = 0.0),
            ("the cap on logits", |p| p.shape.logit_soft_cap = 0.0),
            ("the window", unwindow),
            ("tanh-GELU", |p| p.shape.activation = Activation::SwiGlu),
        ],
        "tiny-gemma3" => vec![
            ("norms behind attention", |p| lose(p, &[Role::PostAttnNorm])),
            ("norms behind feed-forward parts", |p| {
                lose(p, &[Role::PostFfnNorm])
            }),
            ("the norms of heads", |p| {
                lose(p, &[Role::AttnQNorm, Role::AttnKNorm])
            }),
            ("the window", unwindow),
            ("linear scaling", unstretch),
            ("the base of layers with a window", |p| {
                p.shape.kinds[1].rope = p.shape.kinds[0].rope;
            }),
        ],
        "tiny-gpt-oss" => vec![
            ("the sinks", |p| lose(p, &[Role::AttnSinks])),
            ("the window", unwindow),
            ("YaRN", unstretch),
            ("bounds that are not rounded", |p| {
                p.shape
                    .kinds
                    .iter_mut()
                    .for_each(|k| k.rope.rounds_bounds = true);
            }),
            ("the clamp", |p| p.shape.activation = Activation::SwiGlu),
            ("the router's bias", |p| lose(p, &[Role::RouterBias])),
            ("the experts' biases", |p| {
                lose(p, &[Role::FfnGateBias, Role::FfnUpBias, Role::FfnDownBias]);
            }),
            ("the biases of attention", |p| {
                lose(
                    p,
                    &[
                        Role::AttnQBias,
                        Role::AttnKBias,
                        Role::AttnVBias,
                        Role::AttnOutputBias,
                    ],
                );
            }),
        ],
        _ => panic!("{name} is there for nothing"),
    }
}

fn lose(plan: &mut ModelPlan, roles: &[Role]) {
    let before = plan.tensors.len();
    plan.tensors.retain(|tensor| !roles.contains(&tensor.role));
    assert!(plan.tensors.len() < before, "{roles:?}");
}

fn unstretch(plan: &mut ModelPlan) {
    for kind in &mut plan.shape.kinds {
        kind.rope.scaling = RopeScaling::None;
    }
}

fn unwindow(plan: &mut ModelPlan) {
    plan.shape.kinds.iter_mut().for_each(|kind| kind.window = 0);
}

/// However prompts are cut, with however many threads, beside whichever others.
#[test]
fn every_family_gives_the_same_bits_however_it_is_computed() {
    for name in FAMILIES {
        let model = Model::named(name);
        let mut engine = model.engine(&options());
        let mut other = model.engine(&EngineOptions {
            threads: 3,
            ..options()
        });
        let prompts = [
            prompt(150, 4),
            prompt(SHORT, 5),
            prompt(1, 6),
            prompt(LONG, 7),
        ];
        let mut alone = Vec::new();
        for tokens in &prompts {
            let whole = in_chunks(&mut engine, 0, tokens, tokens.len());
            for size in [1, 2, 5, 7, 64, 149] {
                let found = in_chunks(&mut engine, (size % 4) as u32, tokens, size);
                assert_same(&found, &whole, format!("{name}, chunks of {size}"));
            }
            let found = in_chunks(&mut other, 1, tokens, 64);
            assert_same(&found, &whole, format!("{name}, three threads"));
            alone.push(whole);
        }
        // In two steps of all sequences, the second of which begins elsewhere in each.
        let of = |i: usize, from: usize, to: usize| Chunk {
            slot: i as u32,
            start: from as u32,
            tokens: &prompts[i][from..to],
            sample: GREEDY,
        };
        for (i, tokens) in prompts.iter().enumerate() {
            engine.open(i as u32, tokens.len() as u32).unwrap();
        }
        let begin: Vec<_> = [3, 0, 1].map(|i| of(i, 0, prompts[i].len() / 3)).into();
        run(&mut engine, &begin).unwrap();
        let order = [1, 2, 0, 3];
        let rest: Vec<_> = order
            .map(|i| {
                of(
                    i,
                    if i == 2 { 0 } else { prompts[i].len() / 3 },
                    prompts[i].len(),
                )
            })
            .into();
        run(&mut engine, &rest).unwrap();
        for (place, i) in order.into_iter().enumerate() {
            let found = engine.logits(place).unwrap();
            assert_same(&found, &alone[i], format!("{name}, sequence {i} of four"));
        }
    }
}

#[test]
fn a_tensor_for_each_expert_gives_the_bits_of_merged_ones() {
    let shape = || synth_model::Shape::named("tiny-mixtral").unwrap();
    for shape in [shape(), shape().with_type(TensorType::Q4K)] {
        let merged = Model::of(&shape);
        let separate = merged.with_separate_experts();
        let tensors = [&merged, &separate].map(|model| model.file.header().tensors.len());
        // Gate, up and down of four experts in two layers.
        assert_eq!(tensors[1], tensors[0] + 2 * 3 * 3);
        assert_eq!(separate.plan.image_bytes, merged.plan.image_bytes);
        let tokens = prompt(LONG, 1);
        for size in [1, LONG] {
            let [expected, found] = [&merged, &separate]
                .map(|model| in_chunks(&mut model.engine(&options()), 0, &tokens, size));
            assert_same(
                &found,
                &expected,
                format!("{}, chunks of {size}", shape.name),
            );
        }
    }
}
