"""What the references are: each a tiny model of one of transformers' own classes, and the features it is there for."""

from dataclasses import dataclass, field

import torch
from gguf import MODEL_ARCH

HEAD = 32
LENGTH = 96


@dataclass
class Reference:
    """A GGUF file and the sequences whose logits are kept."""

    name: str
    arch: MODEL_ARCH
    # Of transformers: the classes are the family's name and ForCausalLM or Config behind it.
    family: str
    about: str
    config: dict
    # What the reference is there for: without it the logits differ. For each feature either other values of the
    # configuration, or a function that takes the feature out of a model.
    without: dict = field(default_factory=dict)
    # The sequences: what stands behind the reference's name, and how many tokens they have.
    lengths: dict = field(default_factory=lambda: {"": LENGTH})
    # Factors on the spread of matrices, by a part of the tensor's name.
    gains: dict = field(default_factory=dict)
    config_class: str = ""


def shape(**more):
    """A configuration as small as it can be with grouped heads whose size is not that of the model divided by them."""
    return {
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        **more,
    }


def narrow(**more):
    """The same for families whose head size is always that of the model divided by the heads."""
    return shape(num_attention_heads=2, num_key_value_heads=1, **more)


def rope(kind="default", theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


def modules(model, *names):
    """The model's modules whose last name is one of these."""
    return [(name, module) for name, module in model.named_modules() if name.rsplit(".", 1)[-1] in names]


def passed_by(*names):
    """Takes the modules of these names out: what goes in comes out."""

    def change(model):
        for name, _ in modules(model, *names):
            model.set_submodule(name, torch.nn.Identity())

    return change


def zeroed(*endings):
    """Sets the parameters whose names end so to zero."""

    def change(model):
        for name, parameter in model.named_parameters():
            if name.endswith(endings):
                parameter.zero_()

    return change


def without_sinks(model):
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            parameter.fill_(-1e9)


QK_NORM = {"the norms of q and k": passed_by("q_norm", "k_norm")}
DEFAULT_ROPE = {"rope_parameters": rope()}
GEMMA_NORMS = {
    "the norms behind attention and FFN": passed_by("post_attention_layernorm", "post_feedforward_layernorm")
}


def gemma3_rope(local=10000.0, **of_global_layers):
    return {
        "sliding_attention": rope(theta=local),
        "full_attention": {**rope(theta=1e6), **of_global_layers},
    }


def gemma3(**more):
    return narrow(**{
        "num_hidden_layers": 6, "head_dim": HEAD, "query_pre_attn_scalar": HEAD, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True, "sliding_window": 20, "rope_parameters": gemma3_rope(), **more,
    })


YARN = rope("yarn", factor=4.0, original_max_position_embeddings=512)
LLAMA_YARN = rope("yarn", factor=8.0, original_max_position_embeddings=128, beta_fast=8.0, beta_slow=2.0)
LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
MINISTRAL = rope(
    "yarn", factor=16.0, original_max_position_embeddings=32, beta_fast=4.0, beta_slow=0.5,
    mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.5,
)
GPT_OSS = rope(
    "yarn", theta=150000.0, factor=32.0, original_max_position_embeddings=1024, beta_fast=32.0, beta_slow=1.0,
    truncate=False,
)
LONGROPE = {
    "short_factor": [round(1 + 0.03 * i, 2) for i in range(HEAD // 2)],
    "long_factor": [round(1 + 0.05 * i * i, 2) for i in range(HEAD // 2)],
}

REFERENCES = [
    Reference(
        "qwen3", MODEL_ARCH.QWEN3, "Qwen3",
        "a norm for each head of q and k before RoPE, no biases, head size not d / heads",
        shape(head_dim=HEAD, tie_word_embeddings=True, rms_norm_eps=1e-6, rope_parameters=rope(theta=1e6)),
        QK_NORM,
    ),
    Reference(
        "mistral-nemo", MODEL_ARCH.LLAMA, "Mistral",
        "llama's graph, RoPE on pairs, head size not d / heads",
        shape(head_dim=HEAD, sliding_window=None, rope_parameters=rope(theta=1e6)),
        {"the RoPE base": DEFAULT_ROPE},
    ),
    Reference(
        "llama-linear", MODEL_ARCH.LLAMA, "Llama",
        "linear scaling of RoPE, biases on q, k, v and the attention's output",
        shape(
            head_dim=HEAD, tie_word_embeddings=True, attention_bias=True,
            rope_parameters=rope("linear", factor=4.0),
        ),
        {"linear scaling": DEFAULT_ROPE, "the biases": zeroed(".bias")},
    ),
    Reference(
        "qwen3-yarn", MODEL_ARCH.QWEN3, "Qwen3",
        "YaRN on halves with default bounds of the ramp",
        shape(
            head_dim=HEAD, tie_word_embeddings=True, rms_norm_eps=1e-6, max_position_embeddings=2048,
            rope_parameters=YARN,
        ),
        {
            "YaRN": DEFAULT_ROPE,
            "the factor on cos and sin": {"rope_parameters": {**YARN, "attention_factor": 1.0}},
            "the ramp": {"rope_parameters": {**YARN, "beta_fast": 1e-6, "beta_slow": 1e-7}},
        },
    ),
    Reference(
        "llama-llama3", MODEL_ARCH.LLAMA, "Llama",
        "llama3's scaling of RoPE (rope_freqs.weight)",
        shape(head_dim=HEAD, rope_parameters=LLAMA3),
        {"llama3's scaling": DEFAULT_ROPE},
    ),
    Reference(
        "granite", MODEL_ARCH.GRANITE, "Granite",
        "factors on the embedding, on attention scores, on what layers add and under the logits",
        narrow(
            num_hidden_layers=3, embedding_multiplier=6.0, attention_multiplier=0.25, residual_multiplier=0.4,
            logits_scaling=2.5, rope_parameters=rope(),
        ),
        {
            "the embedding's factor": {"embedding_multiplier": 1.0},
            "the factor of attention": {"attention_multiplier": HEAD**-0.5},
            "the factor on what layers add": {"residual_multiplier": 1.0},
            "the factor under the logits": {"logits_scaling": 1.0},
        },
    ),
    Reference(
        "smollm3", MODEL_ARCH.SMOLLM3, "SmolLM3",
        "no RoPE on every fourth layer",
        narrow(num_hidden_layers=5, rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=rope(theta=5e6)),
        {"the layer without RoPE": {"no_rope_layers": [1] * 5}},
    ),
    Reference(
        "gemma3", MODEL_ARCH.GEMMA3, "Gemma3",
        "four norms a layer, QK norm, tanh-GELU, embeddings × √d, windows on five of six layers, two RoPE bases",
        gemma3(),
        {
            **QK_NORM,
            **GEMMA_NORMS,
            "the window": {"sliding_window": 4096},
            "the RoPE base of window layers": {"rope_parameters": gemma3_rope(local=1e6)},
            "tanh-GELU": {"hidden_activation": "silu"},
        },
        config_class="Gemma3TextConfig",
    ),
    Reference(
        "gemma3-linear", MODEL_ARCH.GEMMA3, "Gemma3",
        "as gemma3, with linear scaling on the layer without a window alone",
        gemma3(rope_parameters=gemma3_rope(rope_type="linear", factor=8.0)),
        {"linear scaling": {"rope_parameters": gemma3_rope()}},
        config_class="Gemma3TextConfig",
    ),
    Reference(
        "gemma2", MODEL_ARCH.GEMMA2, "Gemma2",
        "soft caps on scores and logits, windows on even layers, four norms a layer, tanh-GELU, embeddings × √d",
        narrow(
            num_hidden_layers=3, head_dim=HEAD, query_pre_attn_scalar=HEAD, rms_norm_eps=1e-6, tie_word_embeddings=True,
            sliding_window=16, attn_logit_softcapping=3.0, final_logit_softcapping=2.0, rope_parameters=rope(),
        ),
        {
            **GEMMA_NORMS,
            "the window": {"sliding_window": 4096},
            "the cap on scores": {"attn_logit_softcapping": None},
            "the cap on logits": {"final_logit_softcapping": None},
            "tanh-GELU": {"hidden_activation": "silu"},
        },
    ),
    Reference(
        "qwen2", MODEL_ARCH.QWEN2, "Qwen2",
        "biases on q, k and v",
        narrow(rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=rope(theta=1e6)),
        {"the biases": zeroed(".bias")},
    ),
    Reference(
        "llama-yarn", MODEL_ARCH.LLAMA, "Llama",
        "YaRN on pairs with bounds of the ramp given",
        shape(head_dim=HEAD, tie_word_embeddings=True, max_position_embeddings=1024, rope_parameters=LLAMA_YARN),
        {
            "YaRN": DEFAULT_ROPE,
            "the bounds of the ramp": {"rope_parameters": {**LLAMA_YARN, "beta_fast": 32.0, "beta_slow": 1.0}},
        },
    ),
    Reference(
        "phi3", MODEL_ARCH.PHI3, "Phi3",
        "q, k and v in one matrix, gate and up in one matrix; its window is longer than the sequence",
        narrow(sliding_window=2047, original_max_position_embeddings=512, rope_parameters=rope()),
        {"the RoPE base": {"rope_parameters": rope(theta=1e6)}},
    ),
    Reference(
        "phi3-partial", MODEL_ARCH.PHI3, "Phi3",
        "RoPE on the first three quarters of each head",
        narrow(
            original_max_position_embeddings=512, sliding_window=None, tie_word_embeddings=True,
            rope_parameters=rope(partial_rotary_factor=0.75),
        ),
        {"the unrotated part": {"rope_parameters": rope(partial_rotary_factor=1.0)}},
    ),
    Reference(
        "mistral3", MODEL_ARCH.MISTRAL3, "Ministral3",
        "YaRN on pairs without a factor on cos and sin, q × a factor that grows with the position",
        shape(head_dim=HEAD, rope_parameters=MINISTRAL),
        {
            "YaRN": {"rope_parameters": {**MINISTRAL, "rope_type": "default"}},
            "the growing factor": {"rope_parameters": {**MINISTRAL, "llama_4_scaling_beta": 0.0}},
            "cos and sin as they are": {"rope_parameters": {**MINISTRAL, "mscale_all_dim": None}},
        },
    ),
    Reference(
        "qwen3moe", MODEL_ARCH.QWEN3MOE, "Qwen3Moe",
        "3 of 8 experts, their weights a softmax over all, then divided by their sum; QK norm",
        shape(
            head_dim=HEAD, tie_word_embeddings=True, rms_norm_eps=1e-6, moe_intermediate_size=64, num_experts=8,
            num_experts_per_tok=3, norm_topk_prob=True, rope_parameters=rope(theta=1e6),
        ),
        {
            **QK_NORM,
            "the division by the sum": {"norm_topk_prob": False},
            "the third expert": {"num_experts_per_tok": 2},
        },
    ),
    Reference(
        "mixtral", MODEL_ARCH.LLAMA, "Mixtral",
        "llama with 2 of 4 experts",
        narrow(
            num_local_experts=4, num_experts_per_tok=2, sliding_window=None, rope_parameters=rope(theta=1e6),
        ),
        {"the second expert": {"num_experts_per_tok": 1}},
    ),
    Reference(
        "gpt-oss", MODEL_ARCH.GPT_OSS, "GptOss",
        "sinks, windows on even layers, biases everywhere, YaRN with bounds that are not rounded, 4 of 8 experts,"
        " softmax over the chosen, clamped SwiGLU",
        shape(
            intermediate_size=64, head_dim=HEAD, sliding_window=16, num_local_experts=8, num_experts_per_tok=4,
            rope_parameters=GPT_OSS, max_position_embeddings=32768,
        ),
        {
            "the sinks": without_sinks,
            "the window": {"sliding_window": 4096},
            "the biases of attention": zeroed("_proj.bias"),
            "the biases of experts": zeroed("proj_bias"),
            "the router's bias": zeroed("router.bias"),
            "YaRN": {"rope_parameters": rope(theta=150000.0)},
            "bounds that are not rounded": {"rope_parameters": {**GPT_OSS, "truncate": True}},
            "the clamp": {"swiglu_limit": 1e9},
            "the sigmoid's factor": {"swiglu_alpha": 1.0},
        },
        gains={"gate_up_proj": 4.0, "down_proj": 0.3},
    ),
    Reference(
        "phi3-longrope", MODEL_ARCH.PHI3, "Phi3",
        "LongRoPE: long factors where the sequence is longer than the original context, else short ones",
        narrow(
            sliding_window=262144, max_position_embeddings=192, original_max_position_embeddings=48,
            rope_parameters=rope("longrope", **LONGROPE),
        ),
        {
            "the factors": {"rope_parameters": rope()},
            "the factor on cos and sin": {"rope_parameters": rope("longrope", attention_factor=1.0, **LONGROPE)},
        },
        lengths={"-short": 40, "-long": LENGTH},
    ),
]
