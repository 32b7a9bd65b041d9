"""Replicas of worker-orcd and a router of others in front of them, on loopback: what `make routers` and
tools/bench/replica_faults.py have in common."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / "tools" / "ci"), str(REPOSITORY / "clients" / "python")]
import orcd_client  # noqa: E402
import services  # noqa: E402

ROUTERS = ["smg", "vllm-router"]
ENVIRONMENT = REPOSITORY / "target" / "python-routers" / "bin"
LOGS = REPOSITORY / "target" / "routers"
UNAVAILABLE = 3
LIMIT_S = 120
# Below the ports that the system gives to connections: one of those could take a killed replica's.
PORTS = range(20_000, 30_000)
_taken = os.getpid() % len(PORTS)


def installed():
    """Whether the routers are here. False, with SKIPPED said, where they can't be had."""
    environment = {**os.environ, "ORCD_PYTHON_TOOLS": "routers"}
    code = subprocess.run([REPOSITORY / "tools" / "ci" / "python-tools", "the routers"], env=environment).returncode
    if code not in (0, UNAVAILABLE):
        sys.exit(code)
    return code == 0


def free_port():
    global _taken
    while True:
        _taken += 1
        port = PORTS[_taken % len(PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def wait(what, condition):
    since = time.monotonic()
    while not condition():
        if time.monotonic() - since > LIMIT_S:
            services.fail(f"not within {LIMIT_S} s: {what}; logs are in {LOGS}")
        time.sleep(0.02)


def get(url):
    """The answer, whatever its status: a health report may come with 503."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=LIMIT_S) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


class Replica:
    """A service on a port and with a name of its own. It can be killed, and started again there."""

    def __init__(self, programs, number, scratch, flags=()):
        runtime = Path(scratch) / f"replica-{number}"
        runtime.mkdir()
        self._log = LOGS / f"replica-{number}.log"
        LOGS.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [str(programs / "worker-orcd"), "--model", str(services.MODEL), "--device", "cpu", "--port", str(port),
                         "--worker-id", str(uuid.uuid4()), "--runtime-dir", str(runtime), "--served-model-name", "haiku", *flags]
        self.process = None

    def start(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCD_")}
        with open(self._log, "a") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                            env=environment)
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            line = self.process.stdout.readline() if selector.select(LIMIT_S) else b""
        if not line.startswith(b"READY "):
            services.fail(f"a replica did not start, see {self._log}")

    def kill(self):
        """Its worker dies with it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def worker(self):
        """The process of its worker."""
        return json.loads(get(f"{self.url}/health"))["worker"]["pid"]

    def kill_whole(self):
        worker = self.worker()
        self.process.kill()
        try:
            os.kill(worker, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the kernel was faster: it dies with the service
        self.kill()

    def metric(self, *names):
        """The sum of these, at one moment, each with or without labels."""
        values = [line.rsplit(" ", 1) for line in get(f"{self.url}/metrics").splitlines() if not line.startswith("#")]
        return sum(float(value) for series, value in values if series in names or series.split("{")[0] in names)

    def jobs(self):
        """So many requests has it taken since its start."""
        return self.metric("orcd_jobs_finished_total", "orcd_jobs_running", "orcd_jobs_queued")

    def running(self):
        return self.metric("orcd_jobs_running")

    def refused(self):
        """So many requests has it refused for its being drained."""
        return self.metric('orcd_requests_refused_total{code="DRAINING"}')


class Router:
    """One of ROUTERS that knows nothing but the replicas' URLs, and looks at them every second."""

    def __init__(self, name, urls, flags=()):
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._log = LOGS / f"{name}.log"
        self._command = [str(ENVIRONMENT / name), *(["launch"] if name == "smg" else []),
                         "--host", "127.0.0.1", "--port", str(self._port),
                         "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()),
                         "--worker-urls", *urls,
                         "--health-check-interval-secs", "1", "--health-failure-threshold", "1",
                         "--health-success-threshold", "1",
                         # A replica that failed is tried again at once, and not after a minute.
                         "--cb-timeout-duration-secs", "1", "--cb-success-threshold", "1", *flags]
        self._replicas = len(urls)

    def __enter__(self):
        # No proxy stands between this and loopback.
        environment = {**os.environ, "NO_PROXY": "*", "PYTHONDONTWRITEBYTECODE": "1"}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            wait(f"{self._command[0]} takes all replicas", lambda: len(self.healthy()) == self._replicas)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def healthy(self):
        """URLs of the replicas that it would send requests to."""
        if self._process.poll() is not None:
            services.fail(f"{self._command[0]} ended with {self._process.returncode}, see {self._log}")
        try:
            workers = json.loads(get(f"{self.url}/workers"))["workers"]
        except (OSError, ValueError, KeyError):
            return []  # it is not there yet
        return [worker["url"] for worker in workers if worker["is_healthy"]]


class Client(orcd_client.Replicas):
    """The client that ships; it counts how often it had to go on."""

    def __init__(self, urls):
        super().__init__(urls)
        self.resumed = 0

    def _attempt(self, url, stream):
        self.resumed += "resume" in stream.body()
        return super()._attempt(url, stream)


class Stream:
    """What came of one request, as far as it came."""

    def __init__(self, urls, path, body):
        self._client = Client(urls)
        self._items = self._client.chat(body) if path.endswith("/chat/completions") else self._client.completion(body)
        self.text, self.ids, self.reason, self.error = "", [], None, None
        # From the last chunk of a replica that was lost to the first one of the next, seconds.
        self.pauses = []

    def read(self):
        at, resumed = time.monotonic(), 0
        try:
            for chunk in self._items:
                now = time.monotonic()
                if self.resumed > resumed:
                    self.pauses.append(now - at)
                at, resumed = now, self.resumed
                for choice in chunk["choices"]:
                    self.text += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                    self.ids += choice.get("token_ids") or []
                    self.reason = choice.get("finish_reason") or self.reason
        except orcd_client.JobFailed as failed:
            self.error = failed
        return self

    @property
    def resumed(self):
        return self._client.resumed

    @property
    def output(self):
        return self.text, self.ids, self.reason
