"""Vocabularies beside the tokenizers that publishers made for them: ids of texts by those.

A vocabulary of a GGUF file becomes a tokenizer of Hugging Face's library by the expression of its tokenizer.json.
Those of packages (tekken and SentencePiece models of mistral-common, cl100k and o200k of js-tiktoken) become GGUF files,
and the packages' own encoders give the ids.
"""

import base64
import json
import subprocess
from importlib import resources
from pathlib import Path

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

LETTERS = r"[^\r\n\p{L}\p{N}]?"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
QWEN2 = rf"{CONTRACTIONS}|{LETTERS}\p{{L}}+|\p{{N}}|{SYMBOLS}|{LINES}"
QWEN35 = rf"{CONTRACTIONS}|{LETTERS}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{LINES}"
LLAMA3 = rf"{CONTRACTIONS}|{LETTERS}\p{{L}}+|\p{{N}}{{1,3}}|{SYMBOLS}|{LINES}"
# By what tokenizer.json of a model of that name has: expression, normalizer, ignore_merges. None: digits, then GPT-2's.
BY_NAME = {
    "qwen2": (QWEN2, normalizers.NFC(), False),
    "qwen35": (QWEN35, normalizers.NFC(), False),
    "llama-bpe": (LLAMA3, None, True),
    "refact": (None, None, False),
    "smollm": (None, None, False),
}
# Tokens of Phi-3 that leave the white space after them.
PHI3_LEAVES = ("<unk>", "<s>", "<|endoftext|>")


def of_file(path):
    """A function from texts to ids, by Hugging Face's library, and the names of the special tokens."""
    data = gguf.read(path)
    make = {"gpt2": byte_level, "llama": sentence_piece}[data["tokenizer.ggml.model"]]
    tokenizer = make(data)
    special = specials(data)
    tokenizer.add_special_tokens(special)
    return lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)], [s.content for s in special]


def specials(data):
    """The tokens that act or are atomic, as tokenizer.json has them added."""
    tokens, types = data["tokenizer.ggml.tokens"], data["tokenizer.ggml.token_type"]
    is_phi3 = data.get("general.architecture") == "phi3"
    acts = (gguf.CONTROL, gguf.UNKNOWN, gguf.USER_DEFINED)
    return [AddedToken(text, special=True, normalized=False, rstrip=is_phi3 and text not in PHI3_LEAVES)
            for text, kind in zip(tokens, types) if kind in acts]


def byte_level(data):
    tokens = data["tokenizer.ggml.tokens"]
    expression, normalizer, ignore_merges = BY_NAME[data["tokenizer.ggml.pre"]]
    merges = [tuple(merge.split(" ")) for merge in data["tokenizer.ggml.merges"]]
    model = models.BPE(vocab=ids_of(tokens), merges=merges, ignore_merges=ignore_merges)
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    if expression:
        split = pre_tokenizers.Split(Regex(expression), behavior="isolated")
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        split = pre_tokenizers.Digits(individual_digits=True)
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, last])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentence_piece(data):
    """As transformers converts a SentencePiece model: merges are the pairs that make a token, in the order of scores."""
    tokens, types, scores = (data[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type", "scores"))
    vocab = ids_of(tokens)
    whole = {t for t, kind in zip(tokens, types) if kind == gguf.NORMAL}
    merges = []
    for token, kind, score in zip(tokens, types, scores):
        if kind != gguf.NORMAL:
            continue
        pairs = [(token[:i], token[i:]) for i in range(1, len(token))]
        pairs = [pair for pair in pairs if pair[0] in whole and pair[1] in whole]
        pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(score, len(left), len(right), left, right) for left, right in pairs]
    merges.sort(key=lambda merge: merge[:3], reverse=True)
    unknown = tokens[data["tokenizer.ggml.unknown_token_id"]]
    model = models.BPE(vocab=vocab, merges=[merge[3:] for merge in merges], unk_token=unknown, fuse_unk=True,
                       byte_fallback=True)
    tokenizer = Tokenizer(model)
    spaces = [normalizers.Replace(" ", "\u2581")]
    if data.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend("\u2581"))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    return tokenizer


def ids_of(tokens):
    # Of two tokens of one text the lower counts.
    return {text: i for i, text in reversed(list(enumerate(tokens)))}


def alphabet():
    """The character of each byte in vocabularies of byte-level BPE."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]


def write_ranked(path, pre, ranks, specials, first):
    """The GGUF file of a vocabulary of bytes with ranks: ids count from `first`, special tokens have ids of their own.

    Merges are all pairs of tokens that make a token, in the order of their ranks, as converters write them."""
    spell = alphabet()
    tokens = [f"[UNUSED{i}]" for i in range(max([first + len(ranks), *(i + 1 for i in specials.values())]))]
    types = [gguf.UNUSED] * len(tokens)
    by_rank = sorted(ranks.items(), key=lambda item: item[1])
    merges = []
    for data, rank in by_rank:
        tokens[first + rank] = "".join(spell[byte] for byte in data)
        types[first + rank] = gguf.NORMAL
        pairs = [(data[:i], data[i:]) for i in range(1, len(data))]
        pairs = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [" ".join("".join(spell[byte] for byte in part) for part in pair) for pair in pairs]
    for text, id_ in specials.items():
        tokens[id_], types[id_] = text, gguf.CONTROL
    gguf.write(path, {
        "general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges,
    })


def tekken(name, path):
    """Writes the vocabulary of `name`, and gives the encoder of mistral-common for it."""
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    source = resources.files("mistral_common") / "data" / name
    tokenizer = Tekkenizer.from_file(str(source))
    data = json.loads(source.read_text())
    first = tokenizer.num_special_tokens
    size = data["config"]["default_vocab_size"] - first
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in data["vocab"][:size]}
    write_ranked(path, "tekken", ranks, {tokenizer.id_to_piece(i): i for i in range(first)}, first)
    return lambda texts: [tokenizer.encode(text, bos=False, eos=False) for text in texts]


def mistral_sentence_piece(name, path):
    """Writes the vocabulary of `name`, and gives the encoder of SentencePiece for it."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(str(resources.files("mistral_common") / "data" / name))
    ids = range(model.vocab_size())

    def kind(i):
        if model.is_byte(i):
            return gguf.BYTE
        if model.is_unknown(i):
            return gguf.UNKNOWN
        return gguf.CONTROL if model.is_control(i) else gguf.NORMAL

    gguf.write(path, {
        "general.architecture": "llama", "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [model.id_to_piece(i) for i in ids],
        "tokenizer.ggml.token_type": [kind(i) for i in ids],
        "tokenizer.ggml.scores": [float(model.get_score(i)) for i in ids],
        "tokenizer.ggml.unknown_token_id": model.unk_id(),
    })
    return lambda texts: [model.encode(text) for text in texts]


# Reads the ranks of js-tiktoken, encodes texts, or leaves out what JavaScript sees otherwise than OpenAI's own tokenizer:
# characters younger than its Unicode, U+0085 (white space), U+FEFF (none), and U+017F, which is an s in `(?i:'s)`.
NODE = """
const { Tiktoken } = require("js-tiktoken/lite");
const ranks = require("js-tiktoken/ranks/" + process.argv[1]);
const encode = () => {
  const encoder = new Tiktoken(ranks);
  const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
  return texts.map((text) => encoder.encode(text, [], []));
};
const clean = () => JSON.parse(require("fs").readFileSync(0, "utf8"))
  .map((text) => text.replace(/[\\p{Cn}\\u0085\\ufeff\\u017f]/gu, ""));
process.stdout.write(JSON.stringify({ ranks: () => ranks, encode, clean }[process.argv[2]]()));
"""


def tiktoken(name, pre, path, packages):
    """Writes the vocabulary of `name`, and gives the encoder of js-tiktoken for it, and what makes texts fit for it."""
    def node(what, text=""):
        command = ["node", "-e", NODE, name, what]
        return json.loads(subprocess.run(command, cwd=packages, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout)

    data = node("ranks")
    ranks = {}
    for line in data["bpe_ranks"].split("\n"):
        if line:
            _, start, *tokens = line.split(" ")
            ranks |= {base64.b64decode(token): int(start) + i for i, token in enumerate(tokens)}
    write_ranked(path, pre, ranks, data["special_tokens"], 0)
    return lambda texts: node("encode", json.dumps(texts)), lambda texts: node("clean", json.dumps(texts))
