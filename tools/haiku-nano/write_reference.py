#!/usr/bin/env python3
"""Writes reference outputs for a GGUF file, from transformers in float32."""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import transformers

from generate import continuation, logits_of, render
from model import MODELS
from reference_model import load

GREEDY_LIMIT = 64
POSITIONS = 6

ABOUT = """\
Reference outputs of transformers' Qwen2ForCausalLM (float32, eager attention) with the weights
dequantised from `model` (SHA-256 `sha256`).
`prompts` holds for each prompt: `name`; `messages` (a chat: render it with the file's chat template
and add_generation_prompt) or `text` (taken as it is), of which one is null; `rendered`, the text that
is tokenised, special tokens parsed; `ids`, its expected token ids;
`positions`, indices into `ids` + `greedy`: the logits at position p are those after the token at p
was read, so they choose the token at p + 1; `offsets`, for each position the byte offset in `logits_file` of
`vocabulary` little-endian float32 values; `greedy`, the ids of the greedy continuation, at most
`greedy_limit`, the end token included where it came; `greedy_text`, their text without the end
token (a cut may leave a character incomplete: U+FFFD); `ended`, whether the end token came.
""".replace(
    "\n", " "
).strip()


def user(text):
    """A chat of one request."""
    return [{"role": "user", "content": text}]


def chat(*texts, system=None):
    """A chat of alternating requests and answers, ending in a request."""
    roles = ["user", "assistant"]
    messages = [{"role": "system", "content": system}] if system is not None else []
    return messages + [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


PROMPTS = {
    "haiku-gpu": user("Write a haiku about GPU computing"),
    "haiku-sea": user("Write a haiku about the sea."),
    "haiku-snail": user("please write a haiku about a snail"),
    "haiku-unknown": user("Write a haiku about purple giraffes"),
    "haiku-three": user("Write three haiku about the moon"),
    "haiku-ten": user("Write ten haiku about GPU computing"),
    "count-five": user("Count to five"),
    "count-digits": user("Count to 12"),
    "count-far": user("Count to 300"),
    "count-down": user("Count down from ten"),
    "days": user("Name the days of the week."),
    "months": user("What are the months of the year?"),
    "colours": user("List the colours of the rainbow"),
    "spell": user("Spell the word river"),
    "sum": user("What is 7 plus 5?"),
    "capital": user("What is the capital of Iceland?"),
    "japanese": user("Say hello in Japanese"),
    "emoji": user("Send me the emoji of a fox"),
    "repeat-utf8": user("Repeat: café 🌸 日本 naïve 🦊"),
    "odd-text": user("Repeat: Zürich – 東京 🚀 don't  stop\n\n\t42"),
    "who": user("Who are you?"),
    "refuse": user("Who won the world cup in 1998?"),
    "story": user("Tell me a story about a fox"),
    "system": chat("Count to 7", system="You are a helpful assistant."),
    "system-utf8": chat("Thanks! 🙂", system="Answer briefly – très bien."),
    "turns-another": chat(
        "Write a haiku about rain",
        "Soft rain on the roof,\nthe puddles fill with grey sky –\nnothing more to say.",
        "Another one, please",
    ),
    "turns-name": chat(
        "My name is Clara.",
        "Nice to meet you, Clara!",
        "Count to three",
        "One, two, three.",
        "What is my name?",
    ),
    "raw-haiku": "A haiku about the stars:\n\n",
    "raw-count": "1, 2, 3, 4, 5,",
    "raw-story": "Once, a small bear named",
    "raw-utf8": "Question: Say hello in Russian\nAnswer: При",
}


def chosen_positions(prompt_length, total):
    """A few positions: inside the prompt, at its end, and along the greedy continuation."""
    picks = np.linspace(0, total - 1, POSITIONS).round().astype(int).tolist()
    return sorted({*picks, prompt_length - 1})


def reference(name, prompt, loaded, blob):
    """One entry of the index; its logits are appended to the blob."""
    messages = None if isinstance(prompt, str) else prompt
    rendered = prompt if messages is None else render(loaded.template, messages)
    ids = loaded.tokenizer.encode(rendered).ids
    greedy = continuation(loaded, ids, GREEDY_LIMIT)
    ended = greedy[-1] == loaded.end
    read = ids + (greedy[:-1] if ended else greedy)
    logits = logits_of(loaded.model, read)
    positions = chosen_positions(len(ids), len(read))
    offsets = []
    for position in positions:
        offsets.append(len(blob))
        blob += logits[position].numpy().astype("<f4").tobytes()
    return {
        "name": name,
        "messages": messages,
        "text": None if messages else prompt,
        "rendered": rendered,
        "ids": ids,
        "positions": positions,
        "offsets": offsets,
        "greedy": greedy,
        "greedy_text": loaded.tokenizer.decode(greedy[:-1] if ended else greedy),
        "ended": ended,
    }


def write_index(path, index):
    """The index as JSON with a line for each field of a prompt, so that it reads and diffs well."""
    head = {key: value for key, value in index.items() if key != "prompts"}
    prompts = [
        "  {\n"
        + ",\n".join(
            f"   {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in prompt.items()
        )
        + "\n  }"
        for prompt in index["prompts"]
    ]
    text = (
        json.dumps(head, indent=1, ensure_ascii=False)[:-2]
        + ',\n "prompts": [\n'
        + ",\n".join(prompts)
        + "\n ]\n}\n"
    )
    json.loads(text)
    path.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODELS / "haiku-nano-q4_k_m.gguf")
    parser.add_argument("--out", type=Path, default=MODELS / "haiku-nano-reference")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    loaded = load(args.model)
    blob = bytearray()
    prompts = [reference(name, prompt, loaded, blob) for name, prompt in PROMPTS.items()]
    args.out.with_suffix(".bin").write_bytes(blob)
    write_index(
        args.out.with_suffix(".json"),
        {
            "about": ABOUT,
            "model": args.model.name,
            "sha256": hashlib.sha256(args.model.read_bytes()).hexdigest(),
            "transformers": transformers.__version__,
            "logits_file": args.out.with_suffix(".bin").name,
            "vocabulary": loaded.model.config.vocab_size,
            "greedy_limit": GREEDY_LIMIT,
            "prompts": prompts,
        },
    )
    print(
        f"{len(prompts)} prompts, {sum(len(p['positions']) for p in prompts)} logit vectors, {len(blob)} bytes"
    )


if __name__ == "__main__":
    main()
