"""What all steps agree on: the shape of the model, its special tokens, its files."""

from pathlib import Path

from tokenizers import Tokenizer
from transformers import Qwen2Config

HERE = Path(__file__).parent
BUILD = HERE / "build"
MODELS = HERE.parent.parent / "models"

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = [END_OF_TEXT, IM_START, IM_END]
VOCABULARY = 2048

# The split that llama.cpp and others run for tokenizer.ggml.pre = "qwen2".
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def load_tokenizer(path=BUILD / "tokenizer.json"):
    """The trained tokenizer."""
    return Tokenizer.from_file(str(path))


def chat_template():
    """The chat template as it goes into the file."""
    return (HERE / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")


def model_config(layers=8):
    """Qwen2 as small as k-quants allow: they pack 256 weights, so every row is a multiple of it."""
    return Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=VOCABULARY - 3,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 3,
    )
