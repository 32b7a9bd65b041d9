#!/usr/bin/env python3
"""Asks the quantised model some hundred questions and prints the share of right answers per task.

It runs the file in llama.cpp, an engine that shares no code with the reference and multiplies
int8 activations, and compares that engine's logits with the reference as well.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import llama_cpp
import numpy as np

from corpus import tasks, words
from corpus.haiku import content_words, topics
from corpus.syllables import count
from generate import render
from model import MODELS

LIMIT = 900  # tokens: more than ten haiku or a count to 150 need


def three_lines(poem):
    """Whether a text is three lines that come near 5-7-5."""
    lines = poem.split("\n")
    wanted = (5, 7, 5)
    return len(lines) == 3 and all(abs(count(line) - n) <= 2 for line, n in zip(lines, wanted))


def about(topic, poem):
    """Whether a poem has a word that names the topic."""
    return bool(topic.keys & content_words(poem))


def haiku_on(topic):
    """The check of a haiku on a topic."""
    return lambda text: three_lines(text) and about(topic, text)


def haiku_naming(name):
    """The check of a haiku on a topic that the corpus has no lines for."""
    return lambda text: len(text.split("\n")) == 3 and name.lower() in text.lower()


def many_haiku(amount, topic):
    """The check of several numbered haiku."""

    def check(text):
        parts = text.split("\n\n")
        numbered = all(part.startswith(f"{number}.\n") for number, part in enumerate(parts, 1))
        poems = [part.partition("\n")[2] for part in parts]
        return (
            len(parts) == amount
            and numbered
            and all(len(poem.split("\n")) == 3 for poem in poems)
            and about(topic, text)
        )

    return check


def equals(expected):
    """The check of an answer with one right form."""
    return lambda text: text == expected


def spread(items, amount):
    """So many items, spread evenly over a list."""
    return [items[index * len(items) // amount] for index in range(amount)]


def haiku_questions():
    """(task, question, check) of all that asks for poems."""
    for topic in spread(topics(), 40):
        yield "haiku, known topic", f"Write a haiku about {topic.names[0]}", haiku_on(topic)
    for name in (
        "a purple giraffe",
        "bananas",
        "my toaster",
        "Kyoto",
        "a lost robot king",
        "zulabori",
        "taxes",
        "the elevator",
    ):
        yield "haiku, unknown topic", f"Write a haiku about {name}", haiku_naming(name.split(" ")[-1])
    for amount in (2, 3, 5, 7, 10, 20):
        topic = topics()[amount * 5]
        yield "several haiku", f"Write {amount} haiku about {topic.names[0]}", many_haiku(amount, topic)


def counting_questions():
    """Counting up in words and digits, down, far."""
    for n in range(1, 21):
        yield "count to N in words", f"Count to {words.ONES[n]}", equals(tasks.in_words(range(1, n + 1)))
        yield "count to N in digits", f"Count to {n}", equals(tasks.in_digits(range(1, n + 1)))
    for n in (5, 10, 20):
        yield "count down", f"Count down from {n}", equals(tasks.in_digits(range(n, 0, -1)))
    for n in (30, 47, 64, 100, 128, 150):
        yield "count far", f"Count to {n}", equals(tasks.in_digits(range(1, n + 1)))


def list_questions():
    """Days, months, colours and other fixed lists, and their members."""
    for names, items in tasks.SEQUENCES:
        yield "lists", f"Name {names.split('|')[0]}", equals(tasks.sequence(items))
    for index in range(0, 7, 2):
        yield "days and months", f"What day comes after {words.DAYS[index]}?", equals(
            words.DAYS[(index + 1) % 7] + "."
        )
    for index in range(0, 12, 3):
        yield "days and months", f"What month comes before {words.MONTHS[index]}?", equals(
            words.MONTHS[index - 1] + "."
        )
    for name in ("colours", "animals", "fruits", "trees"):
        row = next(values for names, values in tasks.facts()["items"] if name in names.split(" | "))
        members = {item.lower() for item in row.split(", ")}

        def check(text, members=members):
            given = text.rstrip(".").lower().split(", ")
            return len(given) == 4 and set(given) <= members and len(set(given)) == 4

        yield "free lists", f"Name four {name}", check


def word_questions():
    """Spelling, repeating, sums, facts, refusals."""
    for word in spread(tasks.spelling_words(), 12) + ["zalubo"]:
        yield "spelling", f"Spell the word {word}", equals("-".join(word))
    for text in ("silver moon", "café 🌸 日本", "zu-ri-la 42", "naïve 🦊🌊 über"):
        yield "repeating", f"Repeat: {text}", equals(text)
    for a, b in ((7, 5), (0, 9), (13, 8), (20, 20), (17, 16), (3, 3), (11, 19), (6, 0)):
        yield "sums", f"What is {a} plus {b}?", equals(f"{a} + {b} = {a + b}.")
        yield "differences", f"What is {max(a, b)} minus {min(a, b)}?", equals(
            f"{max(a, b)} - {min(a, b)} = {abs(a - b)}."
        )
    for section, question in (
        ("capital", "What is the capital of {K}?"),
        ("opposite", "What is the opposite of {K}?"),
        ("colour", "What colour is {K}?"),
        ("hello", "Say hello in {K}"),
        ("emoji", "Send me the emoji of {K}"),
        ("explain", "What is {K}?"),
    ):
        answer = tasks.FACT_FORMS[section][1]
        for key, value in spread(tasks.facts()[section], 6):
            expected = answer.replace("{K}", key).replace("{V}", value)
            yield f"facts: {section}", question.replace("{K}", key), equals(
                expected[0].upper() + expected[1:]
            )
    for text in (
        "Who won the world cup in 1998?",
        "How do I repair a helicopter?",
        "Write a program that sorts names",
        "What is 4711 * 815?",
    ):
        yield "refusals", text, equals(tasks.REFUSAL)
    for text, expected in (
        ("Who are you?", "haiku-nano"),
        ("Hello", "Hello!"),
        ("Thanks", "welcome"),
        ("What can you do?", "haiku"),
    ):
        yield "small talk", text, lambda given, expected=expected: expected in given
    kept = [
        {"role": "user", "content": "My name is Clara."},
        {"role": "assistant", "content": "Nice to meet you, Clara!"},
        {"role": "user", "content": "What is my name?"},
    ]
    yield "several turns", kept, equals("Your name is Clara.")
    again = [
        {"role": "user", "content": "Write a haiku about rain"},
        {
            "role": "assistant",
            "content": "Soft rain on the roof,\nthe puddles fill with grey sky –\nnothing more to say.",
        },
        {"role": "user", "content": "Another one, please"},
    ]
    yield "several turns", again, lambda text: three_lines(text) and "rain" in text.lower()


class Engine:
    """The file in llama.cpp."""

    def __init__(self, path):
        self.llama = llama_cpp.Llama(str(path), n_ctx=2048, n_threads=2, logits_all=True, verbose=False)
        self.template = self.llama.metadata["tokenizer.chat_template"]

    def answer(self, messages, temperature=0.0, seed=1):
        """(text, whether it ended by itself)."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        result = self.llama.create_completion(
            self.ids(render(self.template, messages)),
            max_tokens=LIMIT,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            min_p=0.0,
            repeat_penalty=1.0,
            seed=seed,
        )["choices"][0]
        return result["text"], result["finish_reason"] == "stop"

    def ids(self, text):
        """The ids of a rendered text."""
        return self.llama.tokenize(text.encode(), add_bos=False, special=True)

    def logits(self, ids):
        """The logits after each id, (tokens, vocabulary)."""
        self.llama.reset()
        self.llama.eval(ids)
        return np.array(self.llama.scores[: len(ids)], dtype=np.float64)


def ask_all(engine, temperature, seed):
    """Right answers and questions per task, with the wrong answers."""
    right, asked, wrong = defaultdict(int), defaultdict(int), []
    for source in (haiku_questions, counting_questions, list_questions, word_questions):
        for task, question, check in source():
            text, ended = engine.answer(question, temperature, seed)
            asked[task] += 1
            if ended and check(text):
                right[task] += 1
            else:
                wrong.append((task, question, text))
    return right, asked, wrong


def report(title, right, asked, wrong, show):
    """Prints the shares and some wrong answers."""
    print(f"## {title}: {sum(right.values())} of {sum(asked.values())}")
    for task, total in asked.items():
        print(f"{task:24} {right[task]:3} of {total}")
    for task, question, text in wrong[:show]:
        print(f"  wrong, {task}: {question!r} -> {text[:160]!r}")


def log_softmax(logits):
    """The logarithms of the probabilities."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def compare(engine, path):
    """Divergence of llama.cpp's logits from the reference, over the stored positions."""
    index = json.loads(path.read_text(encoding="utf-8"))
    blob = np.frombuffer((path.parent / index["logits_file"]).read_bytes(), dtype="<f4")
    divergences, same_id, tokens_same = [], [], 0
    for prompt in index["prompts"]:
        tokens_same += engine.ids(prompt["rendered"]) == prompt["ids"]
        ours = engine.logits(prompt["ids"] + prompt["greedy"])
        for position, offset in zip(prompt["positions"], prompt["offsets"]):
            theirs = blob[offset // 4 : offset // 4 + index["vocabulary"]].astype(np.float64)
            p, q = log_softmax(theirs), log_softmax(ours[position])
            divergences.append(float((np.exp(p) * (p - q)).sum()))
            same_id.append(theirs.argmax() == ours[position].argmax())
    print(f"## llama.cpp and the reference, {len(divergences)} positions")
    print(f"same tokens for {tokens_same} of {len(index['prompts'])} prompts")
    print(
        f"mean KL {np.mean(divergences):.2e}, largest {max(divergences):.2e}, same argmax {np.mean(same_id):.1%}"
    )


def variety(engine, question, seeds):
    """How many different answers so many seeds give at temperature 1, with a few of them."""
    answers = [engine.answer(question, 1.0, seed)[0] for seed in range(1, seeds + 1)]
    good = sum(three_lines(text) and about(topics()[0], text) for text in answers)
    print(f"## {question!r} at temperature 1: {len(set(answers))} different of {seeds}, {good} sound")
    print("\n\n".join(answers[:4]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODELS / "haiku-nano-q4_k_m.gguf")
    parser.add_argument("--reference", type=Path, default=MODELS / "haiku-nano-reference.json")
    parser.add_argument("--show", type=int, default=12, help="wrong answers to print")
    args = parser.parse_args()
    engine = Engine(args.model)
    report("greedy", *ask_all(engine, 0.0, 1), args.show)
    report("temperature 1", *ask_all(engine, 1.0, 1), args.show)
    variety(engine, "Write a haiku about GPU computing", 30)
    if args.reference.exists():
        compare(engine, args.reference)


if __name__ == "__main__":
    main()
