//! What is planned from a header, and what is refused by name: a wrong guess would talk nonsense
//! without an error.

#![allow(clippy::unwrap_used)] // a panic is a failing test with a place

use cuda_worker::weights_plan::{
    IMAGE_ALIGN, ModelPlan, ModelShape, PlanError, Role, RopeStyle, plan,
};
use orcd_shared::gguf::write::{TensorSpec, layout};
use orcd_shared::gguf::{Array, FILE_TYPES, Header, Metadata, TensorType, Value};

/// A header in pieces that a test can damage.
struct Draft {
    metadata: Vec<(String, Value)>,
    tensors: Vec<TensorSpec>,
}

const LAYERS: u32 = 2;
const VOCAB: u64 = 24;

impl Draft {
    fn new(arch: &str, biases: bool) -> Self {
        let text = |s: &str| Value::String(s.to_owned());
        let tokens = (0..VOCAB).map(|i| i.to_string()).collect();
        let mut draft = Self {
            metadata: vec![
                ("general.architecture".into(), text(arch)),
                ("general.name".into(), text("draft")),
                ("general.file_type".into(), Value::U32(15)),
                (
                    "tokenizer.ggml.tokens".into(),
                    Value::Array(Array::String(tokens)),
                ),
            ],
            tensors: Vec::new(),
        };
        for (key, value) in [
            ("block_count", Value::U32(LAYERS)),
            ("context_length", Value::U32(512)),
            ("embedding_length", Value::U32(64)),
            ("feed_forward_length", Value::U32(96)),
            ("attention.head_count", Value::U32(4)),
            ("attention.head_count_kv", Value::U32(2)),
            ("rope.freq_base", Value::F32(1e6)),
            ("attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ] {
            draft.metadata.push((format!("{arch}.{key}"), value));
        }
        draft.matrix("token_embd.weight", &[64, VOCAB]);
        draft.matrix("output.weight", &[64, VOCAB]);
        draft.vector("output_norm.weight", 64);
        for layer in 0..LAYERS {
            let name = |name: &str| format!("blk.{layer}.{name}");
            draft.vector(&name("attn_norm.weight"), 64);
            draft.matrix(&name("attn_q.weight"), &[64, 64]);
            draft.matrix(&name("attn_k.weight"), &[64, 32]);
            draft.matrix(&name("attn_v.weight"), &[64, 32]);
            if biases {
                draft.vector(&name("attn_q.bias"), 64);
                draft.vector(&name("attn_k.bias"), 32);
                draft.vector(&name("attn_v.bias"), 32);
            }
            draft.matrix(&name("attn_output.weight"), &[64, 64]);
            draft.vector(&name("ffn_norm.weight"), 64);
            draft.matrix(&name("ffn_gate.weight"), &[64, 96]);
            draft.matrix(&name("ffn_up.weight"), &[64, 96]);
            draft.matrix(&name("ffn_down.weight"), &[96, 64]);
        }
        draft
    }

    fn qwen2() -> Self {
        Self::new("qwen2", true)
    }

    fn llama() -> Self {
        Self::new("llama", false)
    }

    fn add(&mut self, name: &str, ne: &[u64], ty: TensorType) {
        self.tensors.push(TensorSpec {
            name: name.to_owned(),
            ne: ne.to_vec(),
            ty,
        });
    }

    fn matrix(&mut self, name: &str, ne: &[u64]) {
        self.add(name, ne, TensorType::Q8_0);
    }

    fn vector(&mut self, name: &str, n: u64) {
        self.add(name, &[n], TensorType::F32);
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.to_owned(), value));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.metadata.retain(|(k, _)| k != name);
        self.tensors.retain(|t| t.name != name);
        self
    }

    fn tensor(mut self, name: &str, ne: &[u64], ty: TensorType) -> Self {
        let spec = TensorSpec {
            name: name.to_owned(),
            ne: ne.to_vec(),
            ty,
        };
        match self.tensors.iter_mut().find(|t| t.name == name) {
            Some(place) => *place = spec,
            None => self.tensors.push(spec),
        }
        self
    }

    /// Eight times as wide, so that rows are whole super-blocks, with matrices of the types that `ty` says by their names.
    fn wide(mut self, arch: &str, ty: impl Fn(&str) -> TensorType) -> Self {
        for tensor in &mut self.tensors {
            let dims = tensor.ne.iter_mut().filter(|n| **n != VOCAB);
            dims.for_each(|n| *n *= 8);
            if tensor.ne.len() == 2 {
                tensor.ty = ty(&tensor.name);
            }
        }
        self.set(&format!("{arch}.embedding_length"), Value::U32(512))
            .set(&format!("{arch}.feed_forward_length"), Value::U32(768))
    }

    fn header(self) -> Header {
        let mut metadata = Metadata::new();
        for (key, value) in self.metadata {
            metadata.insert(key, value).unwrap();
        }
        let layout = layout(&metadata, &self.tensors).unwrap();
        Header {
            metadata,
            tensors: layout.tensors,
            alignment: layout.alignment,
            data_offset: layout.data_offset,
        }
    }

    fn plan(self) -> ModelPlan {
        plan(&self.header()).unwrap()
    }

    /// The error must name all of these.
    #[track_caller]
    fn refused(self, naming: &[&str]) {
        let error = plan(&self.header()).unwrap_err().to_string();
        assert!(
            naming.iter().all(|part| error.contains(part)),
            "{error:?} lacks one of {naming:?}"
        );
    }
}

#[test]
fn qwen2_is_planned_with_biases_and_rotation_of_halves() {
    let plan = Draft::qwen2().plan();
    assert_eq!(plan.quant_kind, "Q4_K_M");
    let s = &plan.shape;
    assert_eq!((s.n_layers, s.d_model, s.d_ff, s.vocab), (2, 64, 96, 24));
    assert_eq!((s.n_heads, s.n_kv_heads, s.head_dim), (4, 2, 16));
    let rope = s.kinds[0].rope;
    assert_eq!((rope.style, rope.pairs), (RopeStyle::Neox, 8));
    assert_eq!(
        (rope.base, s.rms_eps, plan.context_length),
        (1e6, 1e-6, 512)
    );
    for role in [Role::AttnQBias, Role::AttnKBias, Role::AttnVBias] {
        assert_eq!(
            plan.tensors.iter().filter(|t| t.role == role).count(),
            2,
            "{role:?}"
        );
    }
}

#[test]
fn tensors_lie_aligned_apart_and_in_the_files_order() {
    let draft = Draft::qwen2();
    let names: Vec<String> = draft.tensors.iter().map(|t| t.name.clone()).collect();
    let plan = draft.plan();
    let mut end = 0;
    for (t, name) in plan.tensors.iter().zip(&names) {
        assert_eq!(&t.info.name, name);
        assert_eq!(t.offset % IMAGE_ALIGN, 0);
        assert!(t.offset >= end && t.offset < end + IMAGE_ALIGN);
        end = t.offset + t.info.nbytes;
    }
    assert_eq!(plan.tensors.len(), names.len());
    assert_eq!(plan.image_bytes, end.next_multiple_of(IMAGE_ALIGN));
}

#[test]
fn the_fastest_dimension_is_the_columns() {
    let plan = Draft::qwen2().plan();
    let down = plan
        .tensors
        .iter()
        .find(|t| t.role == Role::FfnDown)
        .unwrap();
    assert_eq!((down.rows, down.cols), (64, 96));
    let norm = plan
        .tensors
        .iter()
        .find(|t| t.role == Role::OutputNorm)
        .unwrap();
    assert_eq!((norm.rows, norm.cols), (1, 64));
}

#[test]
fn llama_is_planned_without_biases_and_with_rotation_of_neighbors() {
    let plan = Draft::llama()
        .set("llama.rope.dimension_count", Value::U32(16))
        .set("llama.vocab_size", Value::U32(24))
        .set("llama.rope.scaling.type", Value::String("none".into()))
        .tensor("rope_freqs.weight", &[8], TensorType::F32)
        .plan();
    assert_eq!(plan.shape.kinds[0].rope.style, RopeStyle::Interleaved);
    assert!(plan.tensors.iter().any(|t| t.role == Role::RopeFreqs));
}

#[test]
fn tied_embeddings_need_no_output() {
    let plan = Draft::qwen2().without("output.weight").plan();
    assert!(plan.tensors.iter().all(|t| t.role != Role::Output));
}

#[test]
fn without_a_key_value_head_count_every_head_has_its_own() {
    let mut draft = Draft::llama().without("llama.attention.head_count_kv");
    for layer in 0..LAYERS {
        for name in ["attn_k.weight", "attn_v.weight"] {
            draft = draft.tensor(&format!("blk.{layer}.{name}"), &[64, 64], TensorType::Q8_0);
        }
    }
    let plan = draft.plan();
    assert_eq!(plan.shape.n_kv_heads, 4);
    let key = "llama.attention.head_count_kv";
    assert!(plan.absent.iter().any(|a| a.key == key && a.taken == "4"));
}

#[test]
fn a_missing_key_with_a_documented_value_has_it_and_is_noted() {
    for (arch, draft) in [("qwen2", Draft::qwen2()), ("llama", Draft::llama())] {
        let key = format!("{arch}.rope.freq_base");
        assert_eq!(draft.plan().shape.kinds[0].rope.base, 1e6);
        let draft = if arch == "llama" {
            Draft::llama()
        } else {
            Draft::qwen2()
        };
        let plan = draft.without(&key).plan();
        assert_eq!(plan.shape.kinds[0].rope.base, 10_000.0);
        let absent = |key: &str| {
            let found = plan.absent.iter().filter(|a| a.key == key);
            found.map(|a| a.taken.clone()).collect::<Vec<_>>()
        };
        assert_eq!(absent(&key), ["10000"]);
        assert_eq!(absent(&format!("{arch}.attention.key_length")), ["16"]);
        assert_eq!(absent(&format!("{arch}.attention.value_length")), ["16"]);
        assert_eq!(absent(&format!("{arch}.rope.dimension_count")), ["16"]);
        assert_eq!(absent(&format!("{arch}.vocab_size")), ["24"]);
        assert_eq!(absent("general.alignment"), ["32"]);
        assert_eq!(plan.absent.len(), 6, "{:?}", plan.absent);
    }
}

#[test]
fn a_key_that_is_there_is_not_noted_as_absent() {
    let plan = Draft::llama()
        .set("general.alignment", Value::U32(64))
        .set("llama.vocab_size", Value::U32(24))
        .set("llama.rope.dimension_count", Value::U32(16))
        .set("llama.attention.key_length", Value::U32(16))
        .set("llama.attention.value_length", Value::U32(16))
        .plan();
    assert_eq!(plan.absent, []);
}

#[test]
fn a_missing_hyperparameter_without_a_documented_value_is_an_error() {
    for key in [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ] {
        let key = format!("qwen2.{key}");
        Draft::qwen2().without(&key).refused(&[&key]);
    }
    Draft::qwen2()
        .without("general.architecture")
        .refused(&["general.architecture"]);
}

#[test]
fn a_missing_tensor_is_named() {
    for name in [
        "token_embd.weight",
        "output_norm.weight",
        "blk.0.attn_norm.weight",
        "blk.1.attn_q.bias",
        "blk.1.attn_k.bias",
        "blk.0.attn_v.bias",
        "blk.1.attn_output.weight",
        "blk.1.ffn_down.weight",
    ] {
        Draft::qwen2().without(name).refused(&[name, "missing"]);
    }
}

#[test]
fn a_tensor_that_nothing_would_use_is_named() {
    let f32 = TensorType::F32;
    Draft::qwen2()
        .tensor("blk.0.attn_q_norm.weight", &[16], f32)
        .refused(&["attn_q_norm", "qwen2"]);
    Draft::qwen2()
        .tensor("rope_freqs.weight", &[8], f32)
        .refused(&["rope_freqs.weight"]);
    Draft::qwen2()
        .tensor("blk.2.attn_norm.weight", &[64], f32)
        .refused(&["blk.2.attn_norm"]);
    Draft::qwen2()
        .tensor("blk.0.ffn_up.bias", &[96], f32)
        .refused(&["blk.0.ffn_up.bias", "qwen2"]);
    Draft::llama()
        .tensor("output.bias", &[VOCAB], f32)
        .refused(&["output.bias", "llama"]);
    Draft::llama()
        .tensor("blk.0.attn_norm.bias", &[64], f32)
        .refused(&["blk.0.attn_norm.bias", "llama"]);
}

/// Biases that `arch` may have, with their lengths.
fn optional_biases(arch: &str) -> Vec<(&'static str, u64, Role)> {
    let attention = ("attn_output.bias", 64, Role::AttnOutputBias);
    if arch == "qwen2" {
        return vec![attention];
    }
    vec![
        attention,
        ("attn_q.bias", 64, Role::AttnQBias),
        ("attn_k.bias", 32, Role::AttnKBias),
        ("attn_v.bias", 32, Role::AttnVBias),
        ("ffn_gate.bias", 96, Role::FfnGateBias),
        ("ffn_up.bias", 96, Role::FfnUpBias),
        ("ffn_down.bias", 64, Role::FfnDownBias),
    ]
}

#[test]
fn optional_biases_are_planned_where_every_block_has_them() {
    for arch in ["qwen2", "llama"] {
        for (name, n, role) in optional_biases(arch) {
            let draft = || Draft::new(arch, arch == "qwen2");
            let bias = |layer| format!("blk.{layer}.{name}");
            let f32 = TensorType::F32;
            let plan = draft()
                .tensor(&bias(0), &[n], f32)
                .tensor(&bias(1), &[n], f32)
                .plan();
            let found = plan.tensors.iter().filter(|t| t.role == role);
            assert_eq!(found.map(|t| t.layer).collect::<Vec<_>>(), [0, 1], "{name}");
            draft()
                .tensor(&bias(0), &[n], f32)
                .refused(&[&bias(1), "missing"]);
            draft()
                .tensor(&bias(0), &[n + 1], f32)
                .refused(&[&bias(0), &n.to_string()]);
        }
    }
    let plan = Draft::qwen2()
        .tensor("output.bias", &[VOCAB], TensorType::F32)
        .plan();
    assert!(plan.tensors.iter().any(|t| t.role == Role::OutputBias));
}

#[test]
fn a_wrong_shape_is_shown_with_the_right_one() {
    let q8 = TensorType::Q8_0;
    Draft::qwen2()
        .tensor("blk.1.ffn_down.weight", &[64, 96], q8)
        .refused(&["blk.1.ffn_down.weight", "[64, 96]", "[96, 64]"]);
    Draft::qwen2()
        .tensor("blk.0.attn_k.weight", &[64, 64], q8)
        .refused(&["blk.0.attn_k.weight", "[64, 64]", "[64, 32]"]);
    Draft::qwen2()
        .tensor("output_norm.weight", &[32], TensorType::F32)
        .refused(&["output_norm.weight", "[32]", "[64]"]);
    Draft::qwen2()
        .tensor("output.weight", &[64, 23], q8)
        .refused(&["output.weight", "[64, 23]", "[64, 24]"]);
    // Trailing dimensions of one element are the same shape.
    Draft::qwen2()
        .tensor("blk.0.attn_k.weight", &[64, 32, 1, 1], q8)
        .plan();
}

#[test]
fn vectors_must_be_f32() {
    Draft::qwen2()
        .tensor("blk.0.ffn_norm.weight", &[64], TensorType::F16)
        .refused(&["blk.0.ffn_norm.weight", "F16", "F32"]);
}

#[test]
fn an_unknown_architecture_is_named_with_the_known_ones() {
    Draft::new("mamba", false).refused(&["mamba", "qwen2", "llama"]);
}

#[test]
fn the_vocabulary_is_as_long_as_the_tokenizers_list_and_the_key() {
    let tokens = Value::Array(Array::String(vec!["a".into(); 23]));
    Draft::qwen2()
        .set("tokenizer.ggml.tokens", tokens)
        .refused(&["tokenizer.ggml.tokens", "23", "24"]);
    Draft::qwen2()
        .set("qwen2.vocab_size", Value::U32(25))
        .refused(&["qwen2.vocab_size", "25", "24"]);
    Draft::qwen2().without("tokenizer.ggml.tokens").plan();
}

#[test]
fn keys_that_mean_other_arithmetic_are_refused() {
    let text = |s: &str| Value::String(s.to_owned());
    for (key, value, found) in [
        ("rope.scaling.type", text("su"), "su"),
        ("rope.dimension_count", Value::U32(18), "18"),
        ("rope.dimension_count", Value::U32(7), "7"),
        ("attention.scale", Value::F32(0.5), "0.5"),
        ("logit_scale", Value::F32(8.0), "8"),
        ("attention.sliding_window", Value::U32(4096), "4096"),
        ("final_logit_softcapping", Value::F32(30.0), "30"),
        ("attention.value_length", Value::U32(32), "32"),
        ("rope.freq_base", Value::F32(-1.0), "-1"),
        (
            "attention.layer_norm_rms_epsilon",
            Value::F32(f32::NAN),
            "NaN",
        ),
        ("block_count", Value::U32(0), "0"),
        ("attention.head_count_kv", Value::U32(3), "3"),
        ("attention.head_count", Value::U32(0), "0"),
        ("block_count", Value::U32(u32::MAX), "4294967295"),
    ] {
        let key = format!("llama.{key}");
        Draft::llama().set(&key, value).refused(&[&key, found]);
    }
    let experts = Value::U32(8);
    Draft::qwen2()
        .set("qwen2.expert_count", experts.clone())
        .refused(&["qwen2.expert_count", "8"]);
    let draft = || Draft::llama().set("llama.expert_count", experts.clone());
    draft().refused(&["llama.expert_used_count"]);
    draft()
        .set("llama.expert_used_count", Value::U32(9))
        .refused(&["llama.expert_used_count", "9", "8"]);
    draft()
        .set("llama.expert_used_count", Value::U32(2))
        .refused(&["ffn_gate.weight", "llama"]);
    // The same keys where they change nothing.
    Draft::llama()
        .set("llama.rope.scaling.factor", Value::F32(1.0))
        .set("llama.expert_count", Value::U32(0))
        .set("llama.attention.key_length", Value::U32(16))
        .set("llama.attention.value_length", Value::U32(16))
        .plan();
}

#[test]
fn a_head_may_be_of_another_size_than_the_quotient() {
    let mut draft = Draft::llama().set("llama.attention.key_length", Value::U32(32));
    let q8 = TensorType::Q8_0;
    for layer in 0..LAYERS {
        let name = |name: &str| format!("blk.{layer}.{name}.weight");
        draft = draft
            .tensor(&name("attn_q"), &[64, 128], q8)
            .tensor(&name("attn_k"), &[64, 64], q8)
            .tensor(&name("attn_v"), &[64, 64], q8)
            .tensor(&name("attn_output"), &[128, 64], q8);
    }
    assert_eq!(draft.plan().shape.head_dim, 32);
}

#[test]
fn the_mixture_of_types_is_named_as_in_the_file_or_after_most_bytes() {
    let kind = |ty| {
        Draft::qwen2()
            .set("general.file_type", Value::U32(ty))
            .plan()
            .quant_kind
    };
    assert_eq!(
        (kind(7).as_str(), kind(14).as_str(), kind(1).as_str()),
        ("Q8_0", "Q4_K_S", "F16")
    );
    assert_eq!(kind(9999), "Q8_0");
    assert_eq!(
        Draft::qwen2()
            .without("general.file_type")
            .plan()
            .quant_kind,
        "Q8_0"
    );
}

/// What llama.cpp quantizes a model of two layers to: the type of most matrices, that of `attn_v`, of `ffn_down` in the
/// first layer, of `attn_output`, and of the output matrix.
const MIXES: [(&str, [TensorType; 5]); 21] = {
    use TensorType::{
        BF16, F16, F32, IQ4NL, IQ4XS, MXFP4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0,
    };
    [
        ("F32", [F32; 5]),
        ("F16", [F16; 5]),
        ("BF16", [BF16; 5]),
        ("Q2_K_S", [Q2K, Q4K, Q4K, Q2K, Q6K]),
        ("Q2_K", [Q2K, Q4K, Q3K, Q3K, Q6K]),
        ("Q3_K_S", [Q3K, Q3K, Q3K, Q3K, Q6K]),
        ("Q3_K_M", [Q3K, Q5K, Q5K, Q4K, Q6K]),
        ("Q3_K_L", [Q3K, Q5K, Q5K, Q5K, Q6K]),
        ("Q4_0", [Q4_0, Q4_0, Q4_0, Q4_0, Q6K]),
        ("Q4_1", [Q4_1, Q4_1, Q4_1, Q4_1, Q6K]),
        ("Q4_K_S", [Q4K, Q5K, Q5K, Q4K, Q6K]),
        ("Q4_K_M", [Q4K, Q6K, Q6K, Q4K, Q6K]),
        ("IQ4_NL", [IQ4NL, Q5K, Q5K, IQ4NL, Q6K]),
        ("IQ4_XS", [IQ4XS, Q5K, Q5K, IQ4XS, Q6K]),
        ("Q5_0", [Q5_0, Q5_0, Q5_0, Q5_0, Q6K]),
        ("Q5_1", [Q5_1, Q5_1, Q5_1, Q5_1, Q6K]),
        ("Q5_K_S", [Q5K; 5]),
        ("Q5_K_M", [Q5K, Q6K, Q6K, Q5K, Q6K]),
        ("Q6_K", [Q6K; 5]),
        ("Q8_0", [Q8_0; 5]),
        ("MXFP4_MOE", [MXFP4, Q8_0, MXFP4, Q8_0, Q8_0]),
    ]
};

#[test]
fn every_published_mix_is_planned_and_named() {
    for (number, name, most) in FILE_TYPES {
        let (_, types) = MIXES.iter().find(|mix| mix.0 == name).unwrap();
        assert_eq!(types[0], most, "{name}");
        let of = |tensor: &str| match tensor {
            "output.weight" => types[4],
            _ if tensor.contains("attn_v") => types[1],
            "blk.0.ffn_down.weight" => types[2],
            _ if tensor.contains("attn_output") => types[3],
            _ => types[0],
        };
        let draft = Draft::llama().wide("llama", of);
        let plan = draft.set("general.file_type", Value::U32(number)).plan();
        assert_eq!(plan.quant_kind, name);
        let mut planned: Vec<_> = plan.tensors.iter().map(|t| t.info.ty).collect();
        planned.retain(|ty| *ty != TensorType::F32);
        let expected = types.iter().filter(|ty| **ty != TensorType::F32);
        assert!(
            expected.into_iter().all(|ty| planned.contains(ty)),
            "{name}"
        );
    }
}

type Keys = Vec<(String, Value)>;

/// The plan of a family that the drafts above know nothing of, from its tiny synthetic model.
fn family_plan(
    name: &str,
    change: impl Fn(&mut Keys, &mut Vec<TensorSpec>),
) -> Result<ModelPlan, PlanError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let shape = synth_model::Shape::named(name).unwrap();
    synth_model::outline(&shape, &synth_model::Options::default(), &path).unwrap();
    let file = orcd_shared::gguf::GgufFile::open(&path).unwrap();
    let header = file.header();
    let keys = header.metadata.iter();
    let mut metadata: Keys = keys.map(|(k, v)| (k.to_owned(), v.clone())).collect();
    let tensors = header.tensors.iter().map(|t| TensorSpec {
        name: t.name.clone(),
        ne: t.ne.clone(),
        ty: t.ty,
    });
    let mut tensors: Vec<_> = tensors.collect();
    change(&mut metadata, &mut tensors);
    plan(&Draft { metadata, tensors }.header())
}

/// What is wrong with it.
fn family(name: &str, change: impl Fn(&mut Keys, &mut Vec<TensorSpec>)) -> String {
    family_plan(name, change).map_or_else(|e| e.to_string(), |_| "planned".to_owned())
}

/// The shape of a family whose keys are these, too.
fn family_shape(name: &str, keys: &[(&str, Value)]) -> ModelShape {
    let with = |metadata: &mut Keys, _: &mut Vec<TensorSpec>| {
        metadata.retain(|(k, _)| keys.iter().all(|(key, _)| k != key));
        metadata.extend(keys.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
    };
    family_plan(name, with).unwrap().shape
}

#[test]
fn what_a_family_would_compute_wrongly_is_refused_by_name() {
    let set = |key: &'static str, value: Value| {
        move |metadata: &mut Keys, _: &mut Vec<TensorSpec>| {
            metadata.retain(|(k, _)| k != key);
            metadata.push((key.to_owned(), value.clone()));
        }
    };
    let drop_tensor = |name: &'static str| {
        move |_: &mut Keys, tensors: &mut Vec<TensorSpec>| {
            tensors.retain(|t| t.name != name);
        }
    };
    let text = |s: &str| Value::String(s.to_owned());
    assert_eq!(family("tiny-gemma3", |_, _| ()), "planned");
    for (name, found, parts) in [
        (
            "qwen3",
            family(
                "tiny-qwen3",
                set("qwen3.rope.scaling.type", text("longrope")),
            ),
            ["rope_factors_short.weight", "missing"],
        ),
        (
            "phi3",
            family("tiny-phi3", drop_tensor("rope_factors_short.weight")),
            ["rope_factors_short.weight", "missing"],
        ),
        (
            "phi3",
            family("tiny-phi3", drop_tensor("rope_factors_long.weight")),
            ["rope_factors_long.weight", "missing"],
        ),
        (
            "phi3",
            family("tiny-phi3", |metadata, _| {
                for key in ["head_count", "head_count_kv", "key_length", "value_length"] {
                    let key = format!("phi3.attention.{key}");
                    metadata.retain(|(k, _)| *k != key);
                    metadata.push((key, Value::U32(u32::MAX - 1)));
                }
            }),
            ["phi3.attention.head_count", "at most"],
        ),
        (
            "qwen3moe",
            family(
                "tiny-qwen3moe",
                set("qwen3moe.expert_gating_func", Value::U32(2)),
            ),
            ["expert_gating_func", "softmax"],
        ),
        (
            "qwen3moe",
            family(
                "tiny-qwen3moe",
                set("qwen3moe.expert_weights_norm", Value::Bool(false)),
            ),
            ["expert_weights_norm", "sum to one"],
        ),
        (
            "qwen3moe",
            family("tiny-qwen3moe", |_, tensors| {
                for t in tensors
                    .iter_mut()
                    .filter(|t| t.name.contains("ffn_gate_inp"))
                {
                    t.ty = TensorType::Q8_0;
                }
            }),
            ["ffn_gate_inp.weight", "floats"],
        ),
        (
            "mistral3",
            family(
                "tiny-mistral3",
                set("mistral3.rope.scaling.type", text("none")),
            ),
            ["attention.temperature_scale", "original_context_length"],
        ),
        (
            "phi3",
            family(
                "tiny-phi3-window",
                set("phi3.attention.sliding_window_pattern", Value::U32(2)),
            ),
            ["phi3.attention.sliding_window_pattern", "all layers"],
        ),
        (
            "phi3",
            family(
                "tiny-phi3-window",
                set(
                    "phi3.attention.sliding_window_pattern",
                    Value::Array(Array::Bool(vec![true, false])),
                ),
            ),
            ["phi3.attention.sliding_window_pattern", "all layers"],
        ),
        (
            "phi3",
            family(
                "tiny-phi3-window",
                set("phi3.rope.freq_base_swa", Value::F32(5e3)),
            ),
            ["phi3.rope.freq_base_swa is 5000", "10000"],
        ),
    ] {
        assert!(
            parts.iter().all(|part| found.contains(part)),
            "{name}: {found}"
        );
    }
}

/// The specs of a file with a tensor for each of the four experts of `tiny-mixtral`.
fn separate(tensors: &mut Vec<TensorSpec>) {
    let one_by_one = |tensor: TensorSpec| match tensor.name.strip_suffix("_exps.weight") {
        Some(name) => (0..tensor.ne[2])
            .map(|expert| TensorSpec {
                name: format!("{name}.{expert}.weight"),
                ne: tensor.ne[..2].to_vec(),
                ty: tensor.ty,
            })
            .collect(),
        None => vec![tensor],
    };
    *tensors = tensors.drain(..).flat_map(one_by_one).collect();
}

#[test]
fn experts_in_tensors_of_their_own_are_all_there_and_alike() {
    let with = |change: fn(&mut Vec<TensorSpec>)| {
        family("tiny-mixtral", move |_, tensors| {
            separate(tensors);
            change(tensors);
        })
    };
    fn named<'a>(tensors: &'a mut [TensorSpec], name: &str) -> &'a mut TensorSpec {
        tensors.iter_mut().find(|t| t.name == name).unwrap()
    }
    assert_eq!(with(|_| ()), "planned");
    assert_eq!(with(|tensors| tensors.reverse()), "planned");
    for (found, parts) in [
        (
            with(|tensors| tensors.retain(|t| t.name != "blk.1.ffn_up.2.weight")),
            vec!["blk.1.ffn_up.2.weight", "missing"],
        ),
        (
            with(|tensors| tensors.retain(|t| t.name != "blk.0.ffn_gate.0.weight")),
            vec!["blk.0.ffn_gate.0.weight", "missing"],
        ),
        (
            with(|tensors| {
                let last = named(tensors, "blk.1.ffn_down.3.weight").clone();
                tensors.push(TensorSpec {
                    name: "blk.1.ffn_down.4.weight".into(),
                    ..last
                });
            }),
            vec!["blk.1.ffn_down.4.weight", "no place", "llama"],
        ),
        (
            with(|tensors| named(tensors, "blk.0.ffn_down.1.weight").ne.swap(0, 1)),
            vec!["blk.0.ffn_down.1.weight", "[256, 512]", "[512, 256]"],
        ),
        (
            with(|tensors| named(tensors, "blk.0.ffn_gate.3.weight").ty = TensorType::Q2K),
            vec!["blk.0.ffn_gate.3.weight", "Q2_K", "blk.0.ffn_gate.0.weight"],
        ),
        // One layer merged, the other not.
        (
            family("tiny-mixtral", |_, tensors| {
                let (mut first, mut second): (Vec<_>, Vec<_>) =
                    (tensors.drain(..)).partition(|t| t.name.starts_with("blk.0"));
                separate(&mut first);
                first.append(&mut second);
                *tensors = first;
            }),
            vec!["blk.0.ffn_down.0.weight", "no place"],
        ),
        // Of an architecture that never had such files.
        (
            family("tiny-qwen3moe", |_, tensors| separate(tensors)),
            vec!["blk.0.ffn_down.0.weight", "no place", "qwen3moe"],
        ),
        // Names of that many would take more memory than the file has bytes.
        (
            family("tiny-mixtral", |metadata, tensors| {
                separate(tensors);
                metadata.retain(|(k, _)| k != "llama.expert_count");
                metadata.push(("llama.expert_count".into(), Value::U32(1024)));
            }),
            vec!["llama.expert_count", "1024", "tensors"],
        ),
    ] {
        let named = parts.iter().all(|part| found.contains(part));
        assert!(named, "{found:?} lacks one of {parts:?}");
    }
}

#[test]
fn a_base_of_layers_with_a_window_is_theirs_alone() {
    for (arch, file) in [("gemma2", "tiny-gemma2"), ("gpt-oss", "tiny-gpt-oss")] {
        let without = family_shape(file, &[]).kinds;
        assert!(without[0].window < without[1].window);
        assert_eq!(without[0].rope, without[1].rope, "{arch}");
        let key = format!("{arch}.rope.freq_base_swa");
        let mut with = family_shape(file, &[(&key, Value::F32(7e3))]).kinds;
        assert_eq!(with[1].rope.base, 7e3, "{arch}");
        with[1].rope.base = without[1].rope.base;
        assert_eq!(with, without, "{arch}: stretched as before");
    }
}

/// Files may say so.
#[test]
fn a_window_of_all_layers_of_phi_3_is_one_that_all_are_said_to_have() {
    let expected = family_shape("tiny-phi3-window", &[]);
    let all = Value::Array(Array::Bool(vec![true; expected.n_layers as usize]));
    for pattern in [all, Value::U32(0)] {
        let keys = [
            ("phi3.attention.sliding_window_pattern", pattern),
            ("phi3.rope.freq_base_swa", Value::F32(1e4)),
        ];
        let found = family_shape("tiny-phi3-window", &keys);
        assert_eq!((found.kinds, found.second_kind), (expected.kinds, [0; 16]));
    }
    // Without a window there is nothing that a pattern could mean.
    let keys = [("phi3.attention.sliding_window_pattern", Value::U32(2))];
    let found = family_shape("tiny-phi3", &keys);
    assert_eq!(found.kinds, family_shape("tiny-phi3", &[]).kinds);
}

/// Converters leave the window out where all layers are global.
#[test]
fn gemma_3_without_a_window_has_global_layers_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gemma3");
    let shape = synth_model::Shape::named("tiny-gemma3").unwrap();
    synth_model::outline(&shape, &synth_model::Options::default(), &path).unwrap();
    let file = orcd_shared::gguf::GgufFile::open(&path).unwrap();
    let with = plan(file.header()).unwrap().shape;
    assert!(with.second_kind[0] != 0 && with.kinds[0] != with.kinds[1]);
    let mut metadata = Metadata::new();
    let keys = file.header().metadata.iter();
    for (key, value) in keys.filter(|(key, _)| *key != "gemma3.attention.sliding_window") {
        metadata.insert(key, value.clone()).unwrap();
    }
    let header = Header {
        metadata,
        ..file.header().clone()
    };
    let without = plan(&header).unwrap().shape;
    assert_eq!(without.second_kind, [0; 16]);
    assert_eq!(without.kinds[0], with.kinds[0]);
}
