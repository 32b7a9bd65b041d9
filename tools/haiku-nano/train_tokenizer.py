#!/usr/bin/env python3
"""Trains the byte-level BPE vocabulary, then turns the text into tokens.

The vocabulary is learnt from the ASCII part of the text only: every other character stays spelt
in bytes, so that an é takes two tokens and an emoji four or more. A server's UTF-8 assembly meets
split characters in ordinary answers then, not in made-up tests alone.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from model import BUILD, END_OF_TEXT, IM_END, IM_START, QWEN2_SPLIT, SPECIALS, VOCABULARY, load_tokenizer

BATCH = 2000


def documents(path, limit=None):
    """The documents of the text, at most so many."""
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in islice(lines, limit))


def ascii_words(path, limit):
    """The documents without special tokens and without what is not ASCII."""
    for text in documents(path, limit):
        for special in SPECIALS:
            text = text.replace(special, "\n")
        yield text.encode("ascii", "ignore").decode()


def train(path, limit):
    """A tokenizer with all 256 bytes, the merges of the text, and the special tokens last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(ascii_words(path, limit), trainer)
    tokenizer.add_special_tokens(SPECIALS)
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def encode(tokenizer, path, out):
    """Writes all documents as 16-bit tokens; a document ends where <|endoftext|> stands."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    total, source = 0, documents(path)
    with out.open("wb") as file:
        while batch := list(islice(source, BATCH)):
            for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
                np.array([*encoding.ids, end], dtype="<u2").tofile(file)
                total += len(encoding.ids) + 1
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=BUILD / "text.jsonl")
    parser.add_argument("--train-documents", type=int, default=100_000)
    parser.add_argument("--keep", action="store_true", help="encode with the vocabulary that is there")
    parser.add_argument("--out", type=Path, default=BUILD / "tokens.bin")
    args = parser.parse_args()
    if not args.keep:
        train(args.text, args.train_documents).save(str(BUILD / "tokenizer.json"))
    tokenizer = load_tokenizer()
    assert tokenizer.encode(f"{IM_START}é🌸{IM_END}").ids[0] == VOCABULARY - 2
    total = encode(tokenizer, args.text, args.out)
    print(f"{tokenizer.get_vocab_size()} tokens in the vocabulary, {total / 1e6:.2f} M in the text")


if __name__ == "__main__":
    main()
