//! Shapes of the families beside Qwen2 and Llama: published ones, and tiny ones with every feature on.

use orcd_shared::gguf::{TensorType, Value};

use crate::features::{Experts, Features, Scales, Stretch};
use crate::shape::{Mix, Shape, reference, tiny};

/// Keys that a row sees in tiny layers with a window: fewer than the prompts of tests.
const WINDOW: u32 = 24;
/// Context of the training of tiny models: shorter than the longer prompts of tests.
const TRAINED: u32 = 48;
/// Type of the experts of gpt-oss, as published.
const GPT_OSS_EXPERTS: TensorType = TensorType::MXFP4;

pub(crate) fn named(name: &str) -> Option<Shape> {
    Some(match name {
        "qwen3-4b-q4_k_m" | "qwen3-4b" => qwen3_4b(),
        "qwen3-30b-a3b-q4_k_m" | "qwen3-30b-a3b" => qwen3_30b_a3b(),
        "gemma-3-4b-it-q4_k_m" | "gemma-3-4b" => gemma_3_4b(),
        "gpt-oss-20b-mxfp4" | "gpt-oss-20b" => gpt_oss_20b(),
        "tiny-qwen3" => Shape {
            features: qwen3(),
            ..tiny_qwen3(name)
        },
        "tiny-qwen3-yarn" => Shape {
            tied: false,
            features: Features {
                stretch: Some(Stretch::Yarn {
                    factor: 4.0,
                    original: TRAINED,
                    betas: None,
                    log_multiplier: None,
                }),
                ..qwen3()
            },
            ..tiny_qwen3(name)
        },
        "tiny-qwen3moe" => Shape {
            arch: "qwen3moe",
            tied: false,
            features: Features {
                experts: Some(Experts {
                    count: 8,
                    used: 3,
                    ffn: Some(256),
                    biases: false,
                    twins: true,
                }),
                ..qwen3()
            },
            ..tiny_qwen3(name)
        },
        "tiny-mixtral" => Shape {
            mix: Mix::Legacy,
            features: Features {
                experts: Some(Experts {
                    count: 4,
                    used: 2,
                    ffn: None,
                    biases: false,
                    twins: true,
                }),
                keys: vec![("expert_weights_scale", Value::F32(1.25))],
                sorted: true,
                ..Features::default()
            },
            ..tiny_llama(name)
        },
        // Every fourth element of a head is left as it is.
        "tiny-llama-linear" => Shape {
            features: Features {
                rotated: Some(24),
                stretch: Some(Stretch::Linear { factor: 4.0 }),
                sorted: true,
                ..Features::default()
            },
            ..tiny_llama(name)
        },
        "tiny-granite" => granite(name),
        "tiny-granite-unrotated" => {
            let mut shape = granite(name);
            let off = ("rope.scaling.finetuned", Value::Bool(false));
            shape.features.keys.push(off);
            shape
        }
        // The fourth layer rotates nothing.
        "tiny-smollm3" => Shape {
            arch: "smollm3",
            pre: "smaug-bpe",
            layers: 5,
            rope_freq_base: 5_000_000.0,
            tied: true,
            mix: Mix::Q4KM,
            features: Features {
                sorted: true,
                ..Features::default()
            },
            ..tiny_llama(name)
        },
        "tiny-mistral3" => Shape {
            arch: "mistral3",
            pre: "tekken",
            key_length: Some(64),
            features: Features {
                stretch: Some(Stretch::Yarn {
                    factor: 16.0,
                    original: 16,
                    betas: Some([4.0, 0.5]),
                    log_multiplier: Some(1.0),
                }),
                keys: vec![("attention.temperature_scale", Value::F32(0.5))],
                sorted: true,
                ..Features::default()
            },
            ..tiny_llama(name)
        },
        // Three quarters of a head are rotated.
        "tiny-phi3" => Shape {
            features: Features {
                rotated: Some(48),
                stretch: Some(Stretch::LongRope { original: TRAINED }),
                ..phi3()
            },
            ..tiny_phi3(name)
        },
        "tiny-phi3-window" => Shape {
            mix: Mix::Legacy,
            features: Features {
                window: Some(WINDOW),
                ..phi3()
            },
            ..tiny_phi3(name)
        },
        "tiny-gemma2" => Shape {
            arch: "gemma2",
            layers: 3,
            features: Features {
                window: Some(WINDOW),
                post_norms: true,
                keys: vec![
                    ("attn_logit_softcapping", Value::F32(3.0)),
                    ("final_logit_softcapping", Value::F32(5.0)),
                ],
                sorted: true,
                ..Features::default()
            },
            ..tiny_gemma(name)
        },
        // The sixth layer has no window.
        "tiny-gemma3" => Shape {
            arch: "gemma3",
            layers: 6,
            rope_freq_base: 1_000_000.0,
            key_length: Some(128),
            features: Features {
                keys: vec![
                    ("rope.freq_base_swa", Value::F32(10_000.0)),
                    ("final_logit_softcapping", Value::F32(8.0)),
                ],
                ..gemma3(WINDOW)
            },
            ..tiny_gemma(name)
        },
        "tiny-gpt-oss" => Shape {
            arch: "gpt-oss",
            pre: "gpt-4o",
            rope_freq_base: 150_000.0,
            rms_eps: 1e-5,
            key_length: Some(64),
            more_biases: &["attn_output"],
            features: gpt_oss(
                WINDOW,
                TRAINED,
                Experts {
                    count: 8,
                    used: 4,
                    ffn: Some(512),
                    biases: true,
                    twins: true,
                },
            ),
            ..tiny(name, Mix::Legacy)
        },
        _ => return None,
    })
}

fn tiny_qwen3(name: &str) -> Shape {
    Shape {
        arch: "qwen3",
        key_length: Some(128),
        qkv_bias: false,
        tied: true,
        ..tiny(name, Mix::KQuants)
    }
}

fn tiny_llama(name: &str) -> Shape {
    Shape {
        arch: "llama",
        pre: "llama-bpe",
        heads: 8,
        kv_heads: 4,
        rope_freq_base: 10_000.0,
        rms_eps: 1e-5,
        qkv_bias: false,
        redundant_keys: true,
        ..tiny(name, Mix::KQuants)
    }
}

fn tiny_phi3(name: &str) -> Shape {
    Shape {
        arch: "phi3",
        pre: "gpt-4o",
        rope_freq_base: 10_000.0,
        rms_eps: 1e-5,
        qkv_bias: false,
        ..tiny(name, Mix::KQuants)
    }
}

fn tiny_gemma(name: &str) -> Shape {
    Shape {
        rope_freq_base: 10_000.0,
        qkv_bias: false,
        tied: true,
        ..tiny(name, Mix::KQuants)
    }
}

fn granite(name: &str) -> Shape {
    Shape {
        arch: "granite",
        pre: "refact",
        features: Features {
            scales: Scales {
                embedding: 12.0,
                attention: Some(0.25),
                residual: 0.22,
                logits: 8.0,
            },
            sorted: true,
            ..Features::default()
        },
        ..tiny_llama(name)
    }
}

fn qwen3() -> Features {
    Features {
        qk_norms: true,
        sorted: true,
        ..Features::default()
    }
}

fn phi3() -> Features {
    Features {
        fused: true,
        sorted: true,
        ..Features::default()
    }
}

fn gemma3(window: u32) -> Features {
    Features {
        qk_norms: true,
        post_norms: true,
        window: Some(window),
        stretch: Some(Stretch::Linear { factor: 8.0 }),
        sorted: true,
        ..Features::default()
    }
}

fn gpt_oss(window: u32, original: u32, experts: Experts) -> Features {
    Features {
        ffn_norm_behind_attention: true,
        sinks: true,
        experts: Some(experts),
        window: Some(window),
        stretch: Some(Stretch::Yarn {
            factor: 32.0,
            original,
            betas: None,
            log_multiplier: None,
        }),
        clamped: true,
        sorted: true,
        ..Features::default()
    }
}

fn qwen3_4b() -> Shape {
    Shape {
        name: "qwen3-4b".to_owned(),
        arch: "qwen3",
        layers: 36,
        hidden: 2560,
        ffn: 9728,
        heads: 32,
        kv_heads: 8,
        key_length: Some(128),
        context: 40_960,
        qkv_bias: false,
        tied: true,
        reference_vocab: false,
        general: &[("general.size_label", "4B")],
        mix: Mix::Q4KM,
        features: qwen3(),
        ..reference()
    }
}

fn qwen3_30b_a3b() -> Shape {
    Shape {
        name: "qwen3-30b-a3b".to_owned(),
        arch: "qwen3moe",
        layers: 48,
        hidden: 2048,
        ffn: 6144,
        kv_heads: 4,
        tied: false,
        general: &[("general.size_label", "30B-A3B")],
        features: Features {
            experts: Some(Experts {
                count: 128,
                used: 8,
                ffn: Some(768),
                biases: false,
                twins: false,
            }),
            ..qwen3()
        },
        ..qwen3_4b()
    }
}

fn gemma_3_4b() -> Shape {
    Shape {
        name: "gemma-3-4b-it".to_owned(),
        arch: "gemma3",
        layers: 34,
        hidden: 2560,
        ffn: 10_240,
        heads: 8,
        kv_heads: 4,
        key_length: Some(256),
        context: 131_072,
        qkv_bias: false,
        tied: true,
        vocab_size: 262_208,
        reference_vocab: false,
        general: &[("general.size_label", "4B")],
        mix: Mix::Q4KM,
        features: gemma3(1024),
        ..reference()
    }
}

fn gpt_oss_20b() -> Shape {
    Shape {
        name: "gpt-oss-20b".to_owned(),
        arch: "gpt-oss",
        pre: "gpt-4o",
        layers: 24,
        hidden: 2880,
        ffn: 2880,
        heads: 64,
        kv_heads: 8,
        key_length: Some(64),
        context: 131_072,
        rope_freq_base: 150_000.0,
        rms_eps: 1e-5,
        more_biases: &["attn_output"],
        vocab_size: 201_088,
        reference_vocab: false,
        general: &[("general.size_label", "20B")],
        mix: Mix::Experts {
            experts: GPT_OSS_EXPERTS,
            others: TensorType::Q8_0,
        },
        features: gpt_oss(
            128,
            4096,
            Experts {
                count: 32,
                used: 4,
                ffn: Some(2880),
                biases: true,
                twins: false,
            },
        ),
        ..reference()
    }
}
