#!/usr/bin/env python3
"""What `make run` does: start the service on the small model, show one answer as it streams,
print requests to try, and stay up until Ctrl-C. Standard library only."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT = "Write a haiku about GPU computing"


def free_port(preferred: int) -> int:
    """The usual port, or any free one where somebody already listens there."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", preferred))
            return preferred
        except OSError:
            return 0


def start(model: pathlib.Path) -> tuple[subprocess.Popen, str]:
    """Starts worker-orcd and returns it with its base URL, once it accepts requests."""
    binary = ROOT / "target" / "release" / "worker-orcd"
    port = free_port(int(os.environ.get("ORCD_PORT", "8080")))
    command = [str(binary), "--model", str(model), "--port", str(port)]
    print("$", " ".join(os.path.relpath(c, ROOT) if os.path.isabs(c) else c for c in command), flush=True)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    ready = server.stdout.readline().split()
    if len(ready) < 2 or ready[0] != "READY":
        sys.exit(server.wait() or 1)  # it has said why on stderr
    return server, ready[1]


def stream(base: str, prompt: str) -> None:
    """Sends one job and prints its text as it comes, then what `end` says."""
    body = json.dumps({"job_id": "demo", "prompt": prompt, "max_tokens": 200, "temperature": 0.7})
    request = urllib.request.Request(f"{base}/execute", body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        for line in response:
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            if event["type"] == "token":
                print(event["t"], end="", flush=True)
            elif event["type"] == "started":
                print(f"\n> {prompt}   (seed {event['seed']})\n", flush=True)
            elif event["type"] == "end":
                print(f"\n\n[{event['tokens_out']} tokens in {event['decode_time_ms']} ms, {event['stop_reason']}]\n")
            elif event["type"] == "error":
                sys.exit(f"error: {event['code']}: {event['message']}")


def main() -> None:
    model = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "models" / "haiku-nano-q4_k_m.gguf"
    server, base = start(model)
    try:
        stream(base, PROMPT)
        if "--once" in sys.argv:
            return
        print(f"""worker-orcd is up at {base}. Try, in another terminal:

  curl -N {base}/execute -H 'Content-Type: application/json' \\
       -d '{{"job_id":"a","prompt":"Count to five","temperature":0}}'
  curl -N {base}/execute -d '{{"job_id":"b","prompt":"Write ten haiku about the sea","seed":7}}'
  curl {base}/cancel -d '{{"job_id":"b"}}'
  curl {base}/health
  kill -9 $(curl -s {base}/health | python3 -c 'import json,sys; print(json.load(sys.stdin)["worker"]["pid"])')   # streams go on

Ctrl-C stops it.""", flush=True)
        server.wait()
    except KeyboardInterrupt:
        pass  # the terminal sent SIGINT to the service as well
    finally:
        if server.poll() is None and "--once" in sys.argv:
            server.send_signal(signal.SIGTERM)
        server.wait()
    sys.exit(server.returncode)


if __name__ == "__main__":
    main()
