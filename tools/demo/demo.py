#!/usr/bin/env python3
"""Starts the service on the small model and shows it: one answer as it streams, then one whose worker is killed
in mid-stream, compared with the same answer undisturbed. Prints requests to try and stays up until Ctrl-C.

    tools/demo/demo.py [MODEL] [--bin target/release] [--once]

Standard library only; talks to 127.0.0.1."""

import argparse
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOG = ROOT / "target" / "demo" / "worker-orcd.log"
PROMPT = "Write a haiku about GPU computing"
LONG_PROMPT = "Write twenty haiku about winter"
KILL_AT = 60
SEED = 7
PR_SET_PDEATHSIG = 1


def free_port(preferred):
    """The usual port, or any free one where somebody already listens there."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", preferred))
            return preferred
        except OSError:
            return 0


def end_with(parent):
    """Run in the child before it becomes the service: it gets SIGTERM when this process ends, however that is."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def shown(path):
    return os.path.relpath(path, ROOT) if pathlib.Path(path).is_relative_to(ROOT) else str(path)


def start(binary, model):
    """Starts worker-orcd, its log in a file, and returns it with its base URL once it accepts requests."""
    port = free_port(int(os.environ.get("ORCD_PORT") or 8080))
    command = [str(binary), "--model", str(model), "--port", str(port), "--demo"]
    print("$", " ".join(shown(word) if os.path.isabs(word) else word for word in command))
    print(f"its log: {shown(LOG)}", flush=True)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    parent = os.getpid()
    with open(LOG, "w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True,
                                  preexec_fn=lambda: end_with(parent))
    ready = server.stdout.readline().split()
    if len(ready) < 2 or ready[0] != "READY":
        code = server.wait()
        print(LOG.read_text(errors="replace"), end="", file=sys.stderr)
        sys.exit(code or 1)
    return server, ready[1]


def stop(server):
    """Ends the service: politely, then not."""
    if server.poll() is None:
        server.terminate()
    try:
        server.wait(timeout=15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def health(base):
    with urllib.request.urlopen(f"{base}/health", timeout=10) as response:
        return json.load(response)


def events(base, job):
    """The events of one job as they come."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/execute", json.dumps(job).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        for line in response:
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            if event["type"] == "error":
                sys.exit(f"error: {event['code']}: {event['message']}")
            yield event


def one_answer(base):
    """Sends one job and prints its text as it comes, then what `end` says."""
    job = {"job_id": "demo", "prompt": PROMPT, "max_tokens": 200, "temperature": 0.7}
    for event in events(base, job):
        if event["type"] == "started":
            print(f"\n> {PROMPT}   (seed {event['seed']})\n", flush=True)
        elif event["type"] == "token":
            print(event["t"], end="", flush=True)
        elif event["type"] == "end":
            print(f"\n\n[{event['tokens_out']} tokens in {event['decode_time_ms']} ms, {event['stop_reason']}]\n")


def long_job(name):
    return {"job_id": name, "prompt": LONG_PROMPT, "max_tokens": 300, "temperature": 0.7, "seed": SEED}


def disturbed(base, name, kill_at):
    """The same job with its worker killed at that token, printed as it comes. Its text, the longest time without a
    token from then on (what was under way comes at once), seconds, and how often it was replayed."""
    pid = health(base)["worker"]["pid"]
    text, count, since, pause = "", 0, None, 0.0
    for event in events(base, long_job(name)):
        if event["type"] == "token":
            now = time.monotonic()
            if since:
                pause, since = max(pause, now - since), now
            text += event["t"]
            count += 1
            print(event["t"], end="", flush=True)
            if count == kill_at:
                os.kill(pid, signal.SIGKILL)
                since = time.monotonic()
        elif event["type"] == "end":
            return text, pause, event["replays"]
    sys.exit("error: the stream ended without its last event")


def survive_a_kill(base):
    """Shows that a stream goes on after SIGKILL of its worker, with the same text."""
    tokens = [event for event in events(base, long_job("undisturbed")) if event["type"] == "token"]
    undisturbed = "".join(token["t"] for token in tokens)
    kill_at = min(KILL_AT, max(1, len(tokens) // 4))
    print(f"> {LONG_PROMPT}   (seed {SEED}; its worker gets SIGKILL at token {kill_at})\n", flush=True)
    for attempt in range(1, 6):
        text, pause, replays = disturbed(base, f"disturbed-{attempt}", kill_at)
        if text != undisturbed:
            sys.exit("\nerror: the text differs from that of an undisturbed run")
        if replays:
            print(f"\n\n[killed at token {kill_at}, next token after {pause * 1e3:.0f} ms, text identical to an "
                  f"undisturbed run of the same seed]\n", flush=True)
            return
        print("\n\n[the answer was made before the signal came; once more]\n", flush=True)
    sys.exit("error: each answer was over before its worker could be killed")


def requests(base):
    return f"""worker-orcd is up. Its page, with a button that kills the worker in mid-sentence:

  {base}/

Or try, in another terminal:

  curl -N {base}/execute -d '{{"prompt":"Count to five","job_id":"a","temperature":0}}'
  curl -N {base}/execute -d '{{"prompt":"Write ten haiku about the sea","job_id":"b","seed":7}}'
  curl -sN {base}/execute -d '{{"prompt":"Write twenty haiku about winter","job_id":"c"}}' | \\
    {{ head -n 1; curl -s {base}/cancel -d '{{"job_id":"c"}}'; tail -n 3; }}
  curl {base}/health
  curl {base}/metrics

Ctrl-C stops it."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, nargs="?", default=ROOT / "models" / "haiku-nano-q4_k_m.gguf")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target" / "release", help="where worker-orcd lies")
    parser.add_argument("--once", action="store_true", help="end after the two answers")
    args = parser.parse_args()

    # As KeyboardInterrupt does: the way out is through `finally`.
    # SIGINT too: a shell starts what it runs in the background without Python's own answer to it.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    server, base = start(args.bin.resolve() / "worker-orcd", args.model.resolve())
    try:
        one_answer(base)
        survive_a_kill(base)
        if not args.once:
            print(requests(base), flush=True)
            sys.exit(server.wait())
    except KeyboardInterrupt:
        pass  # the terminal sent SIGINT to the service as well
    finally:
        stop(server)


if __name__ == "__main__":
    main()
