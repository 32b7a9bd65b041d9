#!/usr/bin/env python3
"""Writes the trained model as GGUF (F32), with the same keys as published qwen2 files."""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch

from model import BUILD, SPECIALS, chat_template, load_tokenizer, model_config

PER_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def gguf_name(name):
    """A tensor's name in the file for its name in transformers."""
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{PER_LAYER[rest]}"


def add_hyperparameters(writer, config):
    """The keys that say what the model is and how it is shaped."""
    writer.add_type("model")
    writer.add_name("haiku-nano")
    writer.add_version("v1")
    writer.add_description("A small poet: haiku, counting, lists and simple facts.")
    writer.add_license("MIT OR Apache-2.0")
    writer.add_size_label("6.8M")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def add_tokenizer(writer, path):
    """The vocabulary, its merges, its special tokens and the chat template."""
    tokenizer = load_tokenizer(path)
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    merges = json.loads(path.read_text(encoding="utf-8"))["model"]["merges"]
    kinds = [gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    end_of_text, _, im_end = (tokenizer.token_to_id(token) for token in SPECIALS)
    writer.add_eos_token_id(im_end)
    writer.add_pad_token_id(end_of_text)
    writer.add_bos_token_id(end_of_text)
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template())


def add_tensors(writer, weights):
    """All tensors; the output is tied to the embedding, so the file holds it once."""
    for name, tensor in weights.items():
        writer.add_tensor(gguf_name(name), tensor.float().numpy().astype(np.float32))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, default=BUILD / "trained")
    parser.add_argument("--tokenizer", type=Path, default=BUILD / "tokenizer.json")
    parser.add_argument("--out", type=Path, default=BUILD / "haiku-nano-f32.gguf")
    args = parser.parse_args()
    weights = torch.load(args.trained / "weights.pt", weights_only=True)
    layers = 1 + max(int(name.split(".")[2]) for name in weights if ".layers." in name)
    writer = gguf.GGUFWriter(str(args.out), "qwen2")
    add_hyperparameters(writer, model_config(layers))
    add_tokenizer(writer, args.tokenizer)
    add_tensors(writer, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{args.out.stat().st_size} bytes in {args.out}")


if __name__ == "__main__":
    main()
