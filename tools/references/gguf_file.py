"""A model of transformers as a GGUF file, with the keys and the tensors that published files have."""

import math

import gguf
import numpy as np
import torch
from gguf import MODEL_ARCH

# Their rows of q and k stand so that RoPE turns pairs, (2i, 2i + 1), where transformers turns halves, (i, i + n/2).
PAIRED = {MODEL_ARCH.LLAMA, MODEL_ARCH.GRANITE, MODEL_ARCH.SMOLLM3, MODEL_ARCH.MISTRAL3}
# Their norms multiply by 1 + weight; files hold the sum.
SHIFTED_NORMS = {MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3}
WITHOUT_HEAD_SIZE = {MODEL_ARCH.GRANITE, MODEL_ARCH.PHI3}
WITHOUT_ROPE = {MODEL_ARCH.GEMMA2}


def head_size(config):
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rope_of(config):
    """The RoPE of layers without a window."""
    return config.rope_parameters.get("full_attention", config.rope_parameters)


def add_general(writer, name):
    writer.add_type("model")
    writer.add_name(name)
    writer.add_description("A tiny random model: a reference for an engine, it says nothing.")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_shape(writer, arch, config):
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if getattr(config, "head_dim", None) and arch not in WITHOUT_HEAD_SIZE:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if arch in PAIRED:
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(head_size(config))


def add_rope(writer, arch, config):
    rope = rope_of(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if arch == MODEL_ARCH.PHI3:
        rotated = int(rope["partial_rotary_factor"] * config.hidden_size) // config.num_attention_heads
        writer.add_rope_dimension_count(rotated)
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        if rope["rope_type"] == "longrope":
            writer.add_rope_scaling_attn_factors(longrope_factor(config))
        return
    if "sliding_attention" in config.rope_parameters:
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if rope.get("beta_fast") is not None:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if arch == MODEL_ARCH.MISTRAL3:
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])


def longrope_factor(config):
    """What LongRoPE multiplies cos and sin by, at any length."""
    original = config.original_max_position_embeddings
    return math.sqrt(1 + math.log(config.max_position_embeddings / original) / math.log(original))


def add_family(writer, arch, config):
    if arch == MODEL_ARCH.GRANITE:
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if arch == MODEL_ARCH.GEMMA2:
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if arch in (MODEL_ARCH.GEMMA2, MODEL_ARCH.GEMMA3, MODEL_ARCH.GPT_OSS, MODEL_ARCH.PHI3):
        writer.add_sliding_window(config.sliding_window or 0)
    if getattr(config, "num_local_experts", None):
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if arch == MODEL_ARCH.QWEN3MOE:
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if arch == MODEL_ARCH.GPT_OSS:
        writer.add_expert_feed_forward_length(config.intermediate_size)


def paired(rows, heads):
    """The rows of q or k in each head's order 0, n/2, 1, n/2 + 1 …"""
    size = rows.shape[0] // heads
    order = torch.arange(size).view(2, size // 2).T.reshape(-1)
    return rows.view(heads, size, *rows.shape[1:])[:, order].reshape(rows.shape)


def llama3_factors(config):
    """What each pair's frequency is divided by: 1 for short waves, the factor for long ones, a blend between them."""
    rope = rope_of(config)
    size = head_size(config)
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - kept) / rope["factor"] + kept)


def split_experts(name, tensor, interleaved):
    """Gate and up of all experts, which transformers holds as one tensor; files have each as [expert, out, in]."""
    kind = "bias" if name.endswith("_bias") else "weight"
    stem = name.removesuffix("_bias").removesuffix("_proj")
    if interleaved and kind == "weight":
        tensor = tensor.transpose(1, 2)
    if not stem.endswith("gate_up"):
        return {f"{stem}_proj.{kind}": tensor}
    gate, up = (tensor[:, 0::2], tensor[:, 1::2]) if interleaved else tensor.chunk(2, dim=1)
    stem = stem.removesuffix("gate_up")
    return {f"{stem}gate_proj.{kind}": gate, f"{stem}up_proj.{kind}": up}


def tensors_of(arch, config, weights):
    """All tensors by their names in the file."""
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    found = {}
    for name, tensor in weights.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if arch in PAIRED and ".q_proj." in name:
            tensor = paired(tensor, config.num_attention_heads)
        if arch in PAIRED and ".k_proj." in name:
            tensor = paired(tensor, config.num_key_value_heads)
        if arch in SHIFTED_NORMS and name.endswith("norm.weight"):
            tensor = tensor + 1
        if name.endswith(".sinks"):
            name += ".weight"
        parts = split_experts(name, tensor, arch == MODEL_ARCH.GPT_OSS) if ".experts." in name else {name: tensor}
        for part, value in parts.items():
            ours = names.get_name(part, try_suffixes=(".weight", ".bias"))
            assert ours, f"no name for {part}"
            found[ours] = value
    rope = rope_of(config)
    if rope["rope_type"] == "llama3":
        found["rope_freqs.weight"] = llama3_factors(config)
    if rope["rope_type"] == "longrope":
        found["rope_factors_long.weight"] = torch.tensor(rope["long_factor"], dtype=torch.float32)
        found["rope_factors_short.weight"] = torch.tensor(rope["short_factor"], dtype=torch.float32)
    return found


def in_single_precision(name, tensor):
    """Whether files hold it as F32: vectors, biases, routers."""
    return tensor.ndim == 1 or name.endswith(".bias") or ".ffn_gate_inp." in name


def write(path, reference, config, weights):
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[reference.arch])
    add_general(writer, reference.name)
    add_shape(writer, reference.arch, config)
    if reference.arch not in WITHOUT_ROPE:
        add_rope(writer, reference.arch, config)
    add_family(writer, reference.arch, config)
    for name, tensor in tensors_of(reference.arch, config, weights).items():
        values = tensor.contiguous().numpy()
        if not in_single_precision(name, tensor):
            halves = values.astype(np.float16)
            assert (halves == values).all(), f"{name} is not exact in half precision"
            values = halves
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
