"""A service on the small model, the CPU and loopback, and packages of npm: what checks of whole programs have in common."""

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

MODEL = Path(__file__).resolve().parents[2] / "models" / "haiku-nano-q4_k_m.gguf"
# What a machine may take that is busy with other things.
START_LIMIT_S = 120
INSTALL_LIMIT_S = 300


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


def node_packages(source, target, what):
    """Installs what package-lock.json in `source` names into `target`. False, with SKIPPED said, where that can't be done;
    with CI=true that is a failure if the registry answers."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            print(f"SKIPPED {what}: there is no {program} here")
            return False
    target.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(source / file, target / file)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel", "error"]
    installed = subprocess.run(command, cwd=target, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
    if installed.returncode == 0:
        return True
    if os.environ.get("CI") == "true" and registry_answers():
        fail(f"npm can't install what {source}/package-lock.json names: {installed.stderr}")
    reason = installed.stderr.strip().splitlines()
    print(f"SKIPPED {what}: npm can't install it here: {reason[-1] if reason else 'no reason given'}")
    return False


def registry_answers():
    return subprocess.run(["npm", "ping", "--loglevel", "silent"], capture_output=True, timeout=60).returncode == 0


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
