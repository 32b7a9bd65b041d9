#!/usr/bin/env python3
"""Measures what clients see of a failing worker: the pause of a stream from SIGKILL to its next token, without and
with a standby; the same for a worker that is stopped; and how long a cancelled job's last event takes with a worker
that runs, that is stopped and that is dead.

    tools/bench/failover.py MODEL [--device cpu] [--rounds 21] [--cancels 100] [--at 128] [--words 200] [--streams 1]

With --streams each fault hits so many streams with prompts of their own, and the pause is that of each. With --beside the
signal comes while the worker reads a prompt of so many words: its long steps may go on on the device after its death.

Each disturbed stream is compared with an undisturbed one, byte for byte. Standard library only; talks to 127.0.0.1
and signals only workers of the services it started."""

import argparse
import http.client
import json
import os
import pathlib
import signal
import statistics
import threading
import time

import streams
import swarm

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT_S = 60


def health(server):
    connection = http.client.HTTPConnection(server.address, timeout=10)
    connection.request("GET", "/health")
    report = json.load(connection.getresponse())
    connection.close()
    return report


def settled(server, standby, generation=0):
    """The report of health once the worker is ready, after that generation, and its standby too if there is one."""
    since = time.monotonic()
    while time.monotonic() - since < LIMIT_S:
        report = health(server)
        if report["status"] == "healthy" and report["worker"]["generation"] >= generation and (report["standby"] or not standby):
            return report
        time.sleep(0.005)
    raise SystemExit(f"error: not ready within {LIMIT_S} s: {report}")


def stream(server, job, at=None, trigger=None):
    """Runs a job and calls `trigger` when token `at` has come: text of all token events, first and last event, the
    longest time without a token from the fault on, and from the fault to the last event, seconds."""
    text, count, since, pause, triggered, started, last = [], 0, None, 0.0, None, None, None
    for _, line in server.lines("/execute", job):
        now = time.perf_counter()
        if not line.startswith(b"data: "):
            continue
        if b'"type":"token"' not in line:
            event = json.loads(line[6:])
            started, last = started or event, event
            continue
        text.append(line)
        count += 1
        if since is not None:
            pause, since = max(pause, now - since), now
        if count == at:
            trigger()
            triggered = since = time.perf_counter()
    ended = time.perf_counter() - triggered if triggered else 0.0
    return b"".join(text), started, last, pause, ended


def job(args, name, tokens):
    """A job hot enough to go on for long."""
    return {"job_id": name, "prompt": "the sea and " * (args.words // 3), "max_tokens": tokens, "temperature": 2.0,
            "top_k": 64, "seed": args.seed}


def service(args, standby):
    return streams.Orcd(args.bin / "worker-orcd", args.model, args.device,
                        [*args.flags.split(), *(["--standby"] if standby else [])])



def pauses(server, args, standby, number, rounds):
    """Milliseconds from the signal to the next token, one for each round."""
    tokens = args.at + 64
    report = settled(server, standby)
    for seed in range(1, 200):  # the first whose answer is long enough
        args.seed = seed
        undisturbed, started, last, _, _ = stream(server, job(args, f"seed-{seed}", tokens))
        if last.get("tokens_out", 0) >= args.at + 8:
            break
    else:
        raise SystemExit(f"error: this model ends all its answers before token {args.at + 8}; choose a smaller --at")
    found = []
    while len(found) < rounds:
        report = settled(server, standby)
        pid = report["worker"]["pid"]
        text, _, last, pause, _ = stream(server, job(args, f"round-{len(found)}", tokens), args.at, lambda: os.kill(pid, number))
        if text != undisturbed or last["type"] != "end":
            raise SystemExit(f"error: the disturbed stream differs from the undisturbed one; its last event: {last}")
        if last["replays"]:  # a stream that was over before the signal says nothing
            found.append(pause * 1e3)
        settled(server, standby, report["worker"]["generation"] + 1)
    prefill = statistics.median(first_token(server, args, n) for n in range(9))
    return found, started["prompt_tokens"], report, prefill


def several(server, args, standby, rounds):
    """The same for --streams streams at once: one pause for each stream and round, the longest time without a token that ends
    after the signal. It comes when the last of them has its token number `at`. Prompts differ from their first words on,
    or, with --shared, in their last ones only."""
    tokens = args.at + 512

    def asked(number, name):
        asked = job(args, f"{name}-{number}", tokens)
        prompt = f"{asked['prompt']} stream {number}" if args.shared else f"stream {number}: {asked['prompt']}"
        return asked | {"prompt": prompt, "seed": number + 1, "ignore_eos": True}

    def all_at_once(name, trigger=None):
        return swarm.swarm(server.address, [asked(n, name) for n in range(args.streams)], args.at, trigger)

    def told(answer):
        events = answer.events()
        return [event for event in events if swarm.TOKEN in event], json.loads(events[0]), json.loads(events[-1])

    def read_beside(name):
        """The tokens of a job whose prompt nobody has read before, and its last event."""
        job = asked(args.streams, name) | {"prompt": "the rain and " * (args.beside // 3), "max_tokens": 16, "cache": False}
        return told(swarm.swarm(server.address, [job])[0])[::2]

    settled(server, standby)
    if args.shared:  # the others find its prompt
        swarm.swarm(server.address, [asked(0, "first")])
    undisturbed = [told(answer) for answer in all_at_once("undisturbed")]
    beside = read_beside("beside") if args.beside else None
    found = []
    for number in range(rounds):
        report = settled(server, standby)
        pid, at, others = report["worker"]["pid"], [], []
        reader = threading.Thread(target=lambda: others.append(read_beside(f"beside-{number}")))

        def kill():
            if beside:
                reader.start()
                time.sleep(args.beside_ms / 1e3)
            os.kill(pid, signal.SIGKILL)
            at.append(time.perf_counter())

        answers = all_at_once(f"round-{number}", kill)
        for answer, (expected, *_) in zip(answers, undisturbed):
            text, _, last = told(answer)
            if text != expected or last["type"] != "end":
                raise SystemExit(f"error: a disturbed stream differs from the undisturbed one; its last event: {last}")
            # Not that between the first tokens of a stream and those of the last one to begin.
            times = [time for time, tokens in answer.times if tokens >= args.at]
            gaps = [after - before for before, after in zip(times, times[1:]) if after > at[0]]
            if last["replays"] and gaps:
                found.append(max(gaps) * 1e3)
        if beside:
            reader.join()
            (text, last), (expected, _) = others[0], beside
            if text != expected or not last.get("replays"):
                raise SystemExit(f"error: the job beside them differs, or met no fault; its last event: {last}")
        settled(server, standby, report["worker"]["generation"] + 1)
    return found, undisturbed[0][1]["prompt_tokens"], report


def first_token(server, args, number):
    """Milliseconds from sending the same prompt to its first token: what a replay's prefill costs at least, for the
    tokens after the prompt come on top."""
    begun = time.perf_counter()
    for _, line in server.lines("/execute", job(args, f"first-{number}", 1)):
        if b'"type":"token"' in line:
            return (time.perf_counter() - begun) * 1e3
    raise SystemExit("error: no token came")


def cancel(server, name):
    connection = http.client.HTTPConnection(server.address, timeout=10)
    connection.request("POST", "/cancel", json.dumps({"job_id": name}), {"Content-Type": "application/json"})
    connection.getresponse().read()
    connection.close()


def cancels(server, args, number, rounds):
    """Milliseconds from sending the cancellation to the last event of the job; the worker has got the signal (if
    one is given) just before."""
    found, generation = [], 0
    while len(found) < rounds:
        worker = settled(server, False, generation)["worker"]
        pid, generation = worker["pid"], worker["generation"] + (1 if number else 0)
        name = f"cancelled-{len(found)}"
        if number:  # a finished job: the next worker comes at once
            first_token(server, args, f"before-{name}")

        def trigger():
            if number:
                os.kill(pid, number)
            threading.Thread(target=cancel, args=(server, name)).start()

        _, _, last, _, ended = stream(server, job(args, name, 2000), 4, trigger)
        if last.get("code") == "CANCELLED":
            found.append(ended * 1e3)
    settled(server, False, generation)
    return found


def line(what, found, note=""):
    found = sorted(found)
    p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
    print(f"| {what} | {statistics.median(found):.2f} | {p99:.2f} | {found[-1]:.2f} | {len(found)} | {note} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--stops", type=int, default=5, help="rounds with a stopped worker")
    parser.add_argument("--cancels", type=int, default=100)
    parser.add_argument("--at", type=int, default=128, help="token at which the worker gets the signal")
    parser.add_argument("--words", type=int, default=200, help="words of the prompt")
    parser.add_argument("--streams", type=int, default=1, help="streams at once; more than one: only SIGKILL is tried")
    parser.add_argument("--shared", action="store_true", help="with --streams: prompts that begin alike")
    parser.add_argument("--beside", type=int, default=0, help="with --streams: words of a prompt that is being read then")
    parser.add_argument("--beside-ms", type=float, default=150, help="from sending it to the signal")
    parser.add_argument("--flags", default="", help="further flags of the service")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target" / "release")
    args = parser.parse_args()
    args.seed = 1

    print("| | p50 ms | p99 ms | max ms | rounds | |\n|---|---|---|---|---|---|")
    if args.streams > 1:
        for standby in (False, True):
            with service(args, standby) as server:
                found, prompt, report = several(server, args, standby, args.rounds)
                line(f"SIGKILL to next token of {args.streams} streams, {'with' if standby else 'without'} standby", found,
                     f"{report['device_name']}, prompts of {prompt} tokens, at token {args.at}")
        return
    for standby in (False, True):
        with service(args, standby) as server:
            found, prompt, report, prefill = pauses(server, args, standby, signal.SIGKILL, args.rounds)
            memory = f", standby holds {report['standby_worker']['vram_bytes'] >> 20} MiB" if standby else ""
            line(f"SIGKILL to next token, {'with' if standby else 'without'} standby", found,
                 f"{report['device_name']}, prompt {prompt} tokens whose first token takes "
                 f"{prefill:.1f} ms, at token {args.at}{memory}")
    with service(args, False) as server:
        settled(server, False)
        if args.stops:
            line("SIGSTOP to next token", pauses(server, args, False, signal.SIGSTOP, args.stops)[0])
        if args.cancels:
            line("cancel to last event, worker running", cancels(server, args, None, args.cancels))
            line("cancel to last event, worker stopped", cancels(server, args, signal.SIGSTOP, args.cancels // 5))
            line("cancel to last event, worker dead", cancels(server, args, signal.SIGKILL, args.cancels // 5))


if __name__ == "__main__":
    main()
