#!/usr/bin/env python3
"""Measures the service over HTTP: start to READY, first token, tokens per second of one stream and of
several, cost per token beyond the engine's steps, health during inference, the supervisor's memory.

    tools/bench/serve.py MODEL [--device cpu] [--streams 4] [--tokens 200] [--bin DIR] [--json]

Standard library only; talks to 127.0.0.1. Prints medians over --rounds rounds."""

import argparse
import json
import pathlib
import time
import urllib.request

import streams
from streams import median

ROOT = pathlib.Path(__file__).resolve().parents[2]


def health(service):
    with urllib.request.urlopen(f"http://{service.address}/health", timeout=10) as response:
        return json.load(response)


def memory_mib(service):
    """Resident memory of the supervisor, MiB."""
    for line in open(f"/proc/{service.process.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024


def one_stream(service, args, number):
    answer = service.stream(args.prompt, args.tokens, 1000 + number)
    steps = len(answer.times) - 1
    if steps < 9:
        return None  # it ended by itself: too short to measure
    rate = steps / (answer.times[-1] - answer.first_s)
    # The engine's time for the prompt and the first token alone, taken off: what is left are the steps
    # between the first and the last token.
    first = service.stream(args.prompt, 1, 1000 + number)
    engine_us = (answer.end["engine_time_us"] - first.end["engine_time_us"]) / steps
    return {"first_token_ms": answer.first_s * 1e3, "tok_s": rate, "beyond_engine_us": 1e6 / rate - engine_us,
            "tokens": steps + 1}


def several_streams(service, args, number):
    latencies = []

    def look():
        sent = time.perf_counter()
        health(service)
        latencies.append((time.perf_counter() - sent) * 1e3)
        time.sleep(0.01)

    return streams.several(service, args.streams, args.prompt, args.tokens, 77 * number, look), latencies


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", default="Write ten haiku about the sea")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target" / "release")
    parser.add_argument("--flag", action="append", default=[], help="passed on to worker-orcd, e.g. --flag=--threads=2")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    def start():
        return streams.Orcd(args.bin / "worker-orcd", args.model, args.device, args.flag, {"temperature": 1.0})

    starts = []
    for _ in range(args.rounds):
        with start() as service:
            starts.append(service.ready_s * 1e3)
    with start() as service:
        idle_mib = memory_mib(service)
        one_stream(service, args, 0)  # warm
        ones = [r for r in (one_stream(service, args, i) for i in range(1, 3 * args.rounds)) if r]
        rates, latencies = [], []
        for i in range(1, args.rounds + 1):
            rate, found = several_streams(service, args, i)
            rates.append(rate)
            latencies += found
        busy_mib = memory_mib(service)
        device = health(service)["device"]
    latencies.sort()
    if not ones:
        raise SystemExit("every answer was shorter than 10 tokens: nothing to measure")
    of = lambda key: median(r[key] for r in ones)
    figures = {
        "device": device,
        "start to READY, ms": round(median(starts), 1),
        "first token, ms": round(of("first_token_ms"), 2),
        "one stream, tok/s": round(of("tok_s"), 1),
        "beyond the engine's step, us per token": round(of("beyond_engine_us"), 1),
        f"{args.streams} streams, tok/s in all": round(median(rates), 1),
        "health beside them, p50 ms": round(latencies[len(latencies) // 2], 2),
        "health beside them, p99 ms": round(latencies[int(len(latencies) * 0.99)], 2),
        "supervisor idle / after, MiB": f"{idle_mib:.1f} / {busy_mib:.1f}",
        "tokens per stream, median": median(r["tokens"] for r in ones),
    }
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:42} {value}")


if __name__ == "__main__":
    main()
