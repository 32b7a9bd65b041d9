#!/usr/bin/env python3
"""Measures the service over HTTP: start to READY, first token, tokens per second of one stream and of
several, cost per token beyond the engine's steps, health during inference, the supervisor's memory.

    tools/bench/serve.py MODEL [--device cpu] [--streams 4] [--tokens 200] [--bin DIR] [--json]

Standard library only; talks to 127.0.0.1. Prints medians over --rounds rounds."""

import argparse
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Service:
    """worker-orcd on a free port, stopped at the end of the `with`."""

    def __init__(self, args, extra=()):
        self.command = [str(args.bin / "worker-orcd"), "--model", str(args.model), "--device", args.device,
                        "--port", "0", *args.flag, *extra]

    def __enter__(self):
        self.runtime = tempfile.TemporaryDirectory()
        begun = time.perf_counter()
        self.process = subprocess.Popen([*self.command, "--runtime-dir", self.runtime.name],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        words = self.process.stdout.readline().split()
        self.ready_s = time.perf_counter() - begun
        if not words or words[0] != "READY":
            raise SystemExit(f"not ready, exit {self.process.wait()}: run {' '.join(self.command)} to see why")
        self.address = words[1].removeprefix("http://")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=30)
        self.runtime.cleanup()

    def health(self):
        with urllib.request.urlopen(f"http://{self.address}/health", timeout=10) as response:
            return json.load(response)

    def memory_mib(self):
        """Resident memory of the supervisor, MiB."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024


def stream(address, job):
    """Runs one job; returns its times in seconds from sending, and its `end`."""
    connection = http.client.HTTPConnection(address, timeout=600)
    begun = time.perf_counter()
    connection.request("POST", "/execute", json.dumps(job), {"Content-Type": "application/json"})
    response = connection.getresponse()
    times, end = [], None
    for line in response:
        if line.startswith(b"event: token"):
            times.append(time.perf_counter() - begun)
        elif line.startswith(b"data: ") and b'"type":"e' in line:
            end = json.loads(line[6:])
    connection.close()
    if end is None or end["type"] != "end":
        raise SystemExit(f"job failed: {end}")
    return times, end


def job(name, prompt, tokens, seed):
    return {"job_id": name, "prompt": prompt, "max_tokens": tokens, "temperature": 1.0, "seed": seed}


def one_stream(service, args, number):
    times, end = stream(service.address, job(f"one-{number}", args.prompt, args.tokens, 1000 + number))
    if len(times) < 10:
        return None  # it ended by itself: too short to measure
    rate = (len(times) - 1) / (times[-1] - times[0])
    # The engine's time for the prompt and the first token alone, taken off: what is left are the steps
    # between the first and the last token.
    _, first = stream(service.address, job(f"first-{number}", args.prompt, 1, 1000 + number))
    engine_us = (end["engine_time_us"] - first["engine_time_us"]) / (len(times) - 1)
    return {"first_token_ms": times[0] * 1e3, "tok_s": rate, "beyond_engine_us": 1e6 / rate - engine_us,
            "tokens": len(times)}


def several_streams(service, args, number):
    results = [None] * args.streams

    def run(i):
        results[i] = stream(service.address, job(f"many-{number}-{i}", args.prompt, args.tokens, 77 * number + i))

    begun = time.perf_counter()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(args.streams)]
    [t.start() for t in threads]
    latencies = []
    while any(t.is_alive() for t in threads):
        sent = time.perf_counter()
        service.health()
        latencies.append((time.perf_counter() - sent) * 1e3)
        time.sleep(0.01)
    [t.join() for t in threads]
    seconds = time.perf_counter() - begun
    return sum(len(times) for times, _ in results) / seconds, latencies


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

    starts = []
    for _ in range(args.rounds):
        with Service(args) as service:
            starts.append(service.ready_s * 1e3)
    with Service(args) as service:
        idle_mib = service.memory_mib()
        one_stream(service, args, 0)  # warm
        ones = [r for r in (one_stream(service, args, i) for i in range(1, 3 * args.rounds)) if r]
        rates, latencies = [], []
        for i in range(1, args.rounds + 1):
            rate, health = several_streams(service, args, i)
            rates.append(rate)
            latencies += health
        busy_mib = service.memory_mib()
        device = service.health()["device"]
    latencies.sort()
    if not ones:
        raise SystemExit("every answer was shorter than 10 tokens: nothing to measure")
    median = lambda key: statistics.median(r[key] for r in ones)
    figures = {
        "device": device,
        "start to READY, ms": round(statistics.median(starts), 1),
        "first token, ms": round(median("first_token_ms"), 2),
        "one stream, tok/s": round(median("tok_s"), 1),
        "beyond the engine's step, us per token": round(median("beyond_engine_us"), 1),
        f"{args.streams} streams, tok/s in all": round(statistics.median(rates), 1),
        "health beside them, p50 ms": round(latencies[len(latencies) // 2], 2),
        "health beside them, p99 ms": round(latencies[int(len(latencies) * 0.99)], 2),
        "supervisor idle / after, MiB": f"{idle_mib:.1f} / {busy_mib:.1f}",
        "tokens per stream, median": statistics.median(r["tokens"] for r in ones),
    }
    if args.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:42} {value}")


if __name__ == "__main__":
    main()
