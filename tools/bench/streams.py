"""Two servers, started, asked and measured in the same way: worker-orcd, and llama.cpp's llama-server.
Standard library only; talks to 127.0.0.1."""

import dataclasses
import http.client
import json
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time


@dataclasses.dataclass
class Streamed:
    """One answer, read to its end. Times are seconds from sending the request."""
    times: list  # of each event that brought text or a token
    end_s: float
    tokens: int
    prompt_tokens: int
    end: dict  # the last event as it came

    @property
    def first_s(self):
        return self.times[0]

    @property
    def tok_s(self):
        """After the first token."""
        return (self.tokens - 1) / (self.end_s - self.first_s)


class Server:
    """A process that serves one model, stopped at the end of the `with`."""

    def __init__(self, command, env=None):
        self.command = [str(word) for word in command]
        self.env = {**os.environ, **(env or {})}

    def __enter__(self):
        self.runtime = tempfile.TemporaryDirectory()
        begun = time.perf_counter()
        self.process = self.start()
        try:
            self.address = self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        self.ready_s = time.perf_counter() - begun
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.runtime.cleanup()

    def start(self):
        raise NotImplementedError

    def wait_until_ready(self):
        """Returns HOST:PORT."""
        raise NotImplementedError

    def stream(self, prompt, tokens, seed):
        raise NotImplementedError

    def failed(self):
        return SystemExit(f"error: {self.command[0]} ended with {self.process.wait()} before it was ready; "
                          f"run {' '.join(self.command)} to see why")

    def lines(self, path, body):
        """Posts JSON; yields (seconds since sending, line) of the answer."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        begun = time.perf_counter()
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"error: {self.command[0]} answered {response.status}: {response.read().decode()}")
        for line in response:
            yield time.perf_counter() - begun, line
        connection.close()


class Orcd(Server):
    """worker-orcd on a free port. `fields` go into every job."""

    def __init__(self, binary, model, device, flags=(), fields=None):
        super().__init__([binary, "--model", model, "--device", device, "--port", "0", *flags])
        self.fields = fields or {}
        self.count = 0
        self.lock = threading.Lock()

    def start(self):
        return subprocess.Popen([*self.command, "--runtime-dir", self.runtime.name], env=self.env,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def wait_until_ready(self):
        words = self.process.stdout.readline().split()
        if not words or words[0] != "READY":
            raise self.failed()
        return words[1].removeprefix("http://")

    def stream(self, prompt, tokens, seed):
        with self.lock:
            self.count += 1
            name = f"bench-{self.count}"
        job = {"job_id": name, "prompt": prompt, "max_tokens": tokens, "seed": seed, **self.fields}
        times, prompt_tokens, end, end_s = [], 0, None, 0.0
        for at, line in self.lines("/execute", job):
            if line.startswith(b"event: token"):
                times.append(at)
            elif line.startswith(b"data: ") and b'"type":"started"' in line:
                prompt_tokens = json.loads(line[6:])["prompt_tokens"]
            elif line.startswith(b"data: ") and b'"type":"e' in line:
                end, end_s = json.loads(line[6:]), at
        if end is None or end["type"] != "end":
            raise SystemExit(f"error: job failed: {end}")
        return Streamed(times, end_s, end["tokens_out"], prompt_tokens, end)


class LlamaServer(Server):
    """llama-server on a free port, `parallel` slots with continuous batching. `fields` go into every request."""

    def __init__(self, folder, model, parallel, context, flags=(), env=None, fields=None):
        super().__init__([folder / "llama-server", "-m", model, "-np", parallel, "-c", parallel * context, "-fa", "on",
                          "-cb", "--no-webui", "--host", "127.0.0.1", *flags], env)
        self.fields = fields or {}

    def start(self):
        with socket.socket() as s:  # free now; nobody else here takes ports
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        return subprocess.Popen([*self.command, "--port", str(self.port)], env=self.env,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_until_ready(self, limit_s=30):
        deadline = time.monotonic() + limit_s
        while self.process.poll() is None and time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return f"127.0.0.1:{self.port}"
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.005)
        self.process.terminate()
        raise self.failed()

    def stream(self, prompt, tokens, seed):
        body = {"prompt": prompt, "n_predict": tokens, "stream": True, "cache_prompt": False, "seed": seed, **self.fields}
        times, end, end_s = [], None, 0.0
        for at, line in self.lines("/completion", body):
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:]) or {}
            if event.get("stop"):
                end, end_s = event, at
            elif event.get("content") or event.get("tokens"):
                times.append(at)
        if end is None or not times:
            raise SystemExit("error: llama-server's answer has no end")
        return Streamed(times, end_s, end["tokens_predicted"], end["tokens_evaluated"], end)


def several(server, streams, prompt, tokens, seed, meanwhile=None):
    """`streams` answers at once: tokens per second in all, from the first request to the last end."""
    results = [None] * streams

    def run(i):
        results[i] = server.stream(prompt, tokens, seed + i)

    begun = time.perf_counter()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(streams)]
    [t.start() for t in threads]
    while meanwhile and any(t.is_alive() for t in threads):
        meanwhile()
    [t.join() for t in threads]
    seconds = time.perf_counter() - begun
    if None in results:
        raise SystemExit("error: a stream failed, see above")
    return sum(r.tokens for r in results) / seconds


def median(values):
    return statistics.median(values)
