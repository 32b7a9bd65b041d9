#!/usr/bin/env python3
"""Measures what a killed worker costs: the pause of a stream from SIGKILL to its next token, without and with a
standby, and what many restarts leave behind (file descriptors, device memory).

    tools/bench/failover.py MODEL [--device cpu] [--rounds 9] [--at 128] [--words 200] [--restarts 0]

Each disturbed stream is compared with an undisturbed one, byte for byte. Standard library only; talks to 127.0.0.1
and kills only workers of the services it started."""

import argparse
import http.client
import json
import os
import pathlib
import signal
import statistics
import subprocess
import time

from serve import ROOT, Service


def run(service, job, at=None, strike=None):
    """Runs a job; calls `strike` when token number `at` is here. Token bytes, `started`, `end`, and the longest time
    without a token from the strike on, seconds."""
    connection = http.client.HTTPConnection(service.address, timeout=120)
    connection.request("POST", "/execute", json.dumps(job), {"Content-Type": "application/json"})
    text, count, since, pause, started, end = [], 0, None, 0.0, None, None
    for line in connection.getresponse():
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line[6:])
        if event["type"] == "token":
            now = time.perf_counter()
            if since is not None:
                pause, since = max(pause, now - since), now
            text.append(line)
            count += 1
            if count == at:
                strike()
                since = time.perf_counter()
        elif event["type"] == "started":
            started = event
        else:
            end = event
    connection.close()
    if end is None or end["type"] != "end":
        raise SystemExit(f"the stream failed: {end}")
    return b"".join(text), started, end, pause


def wait(service, fits, limit=60):
    since = time.monotonic()
    while time.monotonic() - since < limit:
        health = service.health()
        if fits(health):
            return health
        time.sleep(0.005)
    raise SystemExit(f"not within {limit} s; at last {health}")


def kill(service):
    os.kill(service.health()["worker"]["pid"], signal.SIGKILL)


def pauses(args, standby):
    extra = ["--standby"] if standby else []
    with Service(args, extra) as service:
        settled = lambda h: h["status"] == "healthy" and (not standby or h["standby"])
        health = wait(service, settled)
        job = {"job_id": "a", "prompt": "the sea and " * (args.words // 3), "max_tokens": args.at + 64,
               "temperature": 1.0, "top_k": 64, "seed": 7}
        undisturbed, started, end, _ = run(service, job)
        if end["tokens_out"] < args.at + 8:
            raise SystemExit(f"the answer has only {end['tokens_out']} tokens; choose a smaller --at")
        found = []
        while len(found) < args.rounds:
            wait(service, settled)
            text, _, end, pause = run(service, job, args.at, lambda: kill(service))
            if text != undisturbed:
                raise SystemExit("the disturbed stream differs")
            if end["replays"]:  # a stream that was over before the kill says nothing
                found.append(pause * 1e3)
        return found, started["prompt_tokens"], health


def device_memory():
    """Used memory of the first GPU, MiB; None without one."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return int(subprocess.run(query, capture_output=True, text=True, timeout=10).stdout.split()[0])
    except (OSError, IndexError, ValueError):
        return None


def restarts(args, count):
    """Kills the worker `count` times; what the service holds before and after."""
    def held(service):
        wait(service, lambda h: h["status"] == "healthy")
        time.sleep(0.5)
        return {"descriptors": len(os.listdir(f"/proc/{service.process.pid}/fd")), "device memory, MiB": device_memory(),
                "supervisor, MiB": round(service.memory_mib(), 1)}

    with Service(args, ["--max-restarts", "1000"]) as service:
        job = {"job_id": "b", "prompt": "x", "max_tokens": 2, "seed": 1, "temperature": 1.0, "top_k": 64}
        kill(service)  # the first restart settles what is made once
        wait(service, lambda h: h["worker"]["restarts"] == 1 and h["status"] == "healthy")
        run(service, job)
        before = held(service)
        begun = time.perf_counter()
        for n in range(2, count + 2):
            kill(service)
            wait(service, lambda h: h["worker"]["restarts"] == n and h["status"] in ("healthy", "unhealthy"))
            run(service, job)  # a finished job: the next restart comes at once
        seconds = time.perf_counter() - begun
        return before, held(service), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--at", type=int, default=128, help="token at which the worker is killed")
    parser.add_argument("--words", type=int, default=200, help="words of the prompt")
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target" / "release")
    parser.add_argument("--flag", action="append", default=[])
    args = parser.parse_args()

    for standby in (False, True):
        found, prompt_tokens, health = pauses(args, standby)
        found.sort()
        name = "with standby" if standby else "without standby"
        print(f"SIGKILL to next token, {name}: p50 {statistics.median(found):.1f} ms, max {found[-1]:.1f} ms of "
              f"{len(found)} ({health['device_name']}, prompt {prompt_tokens} tokens, killed at {args.at})")
        if standby:
            print(f"standby's own memory: {health['standby_worker']['vram_bytes'] >> 20} MiB")
    if args.restarts:
        before, after, seconds = restarts(args, args.restarts)
        print(f"{args.restarts} restarts in {seconds:.1f} s; before {before}; after {after}")


if __name__ == "__main__":
    main()
