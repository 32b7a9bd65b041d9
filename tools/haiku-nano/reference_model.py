"""Loads a GGUF file into transformers: float32 weights, dequantised from the very file."""

from dataclasses import dataclass

import gguf
import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM

from export_gguf import PER_LAYER
from model import QWEN2_SPLIT

FILE_TO_LAYER = {ours: theirs for theirs, ours in PER_LAYER.items()}


@dataclass
class Loaded:
    """A model with its tokenizer, template and end token, all out of one file."""

    model: Qwen2ForCausalLM
    tokenizer: Tokenizer
    template: str
    end: int


def transformers_name(name):
    """A tensor's name in transformers for its name in the file."""
    fixed = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in fixed:
        return fixed[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{FILE_TO_LAYER[rest]}"


def read_config(fields):
    """The configuration as the file's keys have it."""

    def get(key):
        return fields[f"qwen2.{key}"].contents()

    return Qwen2Config(
        vocab_size=len(fields["tokenizer.ggml.tokens"].data),
        hidden_size=get("embedding_length"),
        intermediate_size=get("feed_forward_length"),
        num_hidden_layers=get("block_count"),
        num_attention_heads=get("attention.head_count"),
        num_key_value_heads=get("attention.head_count_kv"),
        max_position_embeddings=get("context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": get("rope.freq_base")},
        rms_norm_eps=get("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings=True,
    )


def read_tokenizer(fields):
    """The tokenizer as the file's vocabulary and merges have it."""
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    specials = [token for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL]
    vocabulary = {token: index for index, token in enumerate(tokens) if token not in specials}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    return tokenizer


def load(path):
    """Everything of a file; attention in its plain form, which other engines can be held against."""
    reader = gguf.GGUFReader(str(path))
    config = read_config(reader.fields)
    config._attn_implementation = "eager"
    model = Qwen2ForCausalLM(config).float().eval()
    state = {
        transformers_name(tensor.name): torch.from_numpy(
            np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        )
        for tensor in reader.tensors
    }
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return Loaded(
        model,
        read_tokenizer(reader.fields),
        reader.fields["tokenizer.chat_template"].contents(),
        reader.fields["tokenizer.ggml.eos_token_id"].contents(),
    )
