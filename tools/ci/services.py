"""A service on the small model, the CPU and loopback: what checks of whole programs have in common."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

MODEL = Path(__file__).resolve().parents[2] / "models" / "haiku-nano-q4_k_m.gguf"
# What a machine may take that is busy with other things.
START_LIMIT_S = 120


@contextlib.contextmanager
def running(programs, flags, log):
    """A service with these flags: the process and its URL. It is ended afterwards."""
    command = [str(programs / "worker-orcd"), "--model", str(MODEL), "--device", "cpu", "--port", "0", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCD_")}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as stderr:
        service = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                                   env=environment)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(service.stdout, selectors.EVENT_READ)
            line = service.stdout.readline().decode() if selector.select(START_LIMIT_S) else ""
        if not line.startswith("READY http://"):
            fail(f"the service did not start, see {log}")
        yield service, line.split()[1]
    finally:
        service.kill()
        service.wait()


def post(url, body):
    """The answer, whatever its status."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    # No proxy stands between this and loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=START_LIMIT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
