#!/usr/bin/env python3
"""Writes the training text: one JSON string a line, each a document.

Documents are drawn in parts, each from its own seed, so that the text is the same on any number
of processes.
"""

import argparse
import json
import random
from multiprocessing import Pool
from pathlib import Path

from corpus.chat import document

PART = 5000  # documents drawn from one seed


def write_part(job):
    """The lines of one part."""
    seed, size = job
    rng = random.Random(seed)
    return "".join(json.dumps(document(rng), ensure_ascii=False) + "\n" for _ in range(size))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=650_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("build/text.jsonl"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    parts = -(-args.documents // PART)
    jobs = [(args.seed * 1_000_003 + part, min(PART, args.documents - part * PART)) for part in range(parts)]
    with Pool(args.processes) as pool, args.out.open("w", encoding="utf-8") as out:
        for text in pool.imap(write_part, jobs):
            out.write(text)
    print(f"{args.documents} documents, {args.out.stat().st_size / 1e6:.1f} MB in {args.out}")


if __name__ == "__main__":
    main()
