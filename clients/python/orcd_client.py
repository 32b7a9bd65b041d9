#!/usr/bin/env python3
"""One stream over several replicas of worker-orcd: where one is lost, another goes on with the next byte.

    from orcd_client import Replicas
    for event in Replicas(["http://10.0.0.1:8080", "http://10.0.0.2:8080"]).execute({"prompt": "Count to five"}):
        if event["type"] == "token":
            print(event["t"], end="", flush=True)

Needs Python 3.9 and nothing else. From a shell: orcd_client.py URL[,URL...] PROMPT
"""

import http.client
import json
import random
import sys
import time
import urllib.parse

# A stream is never silent for longer than 5 s: one that is, is dead.
SILENCE_S = 15
# Between rounds over all replicas: doubled from the first to the last.
FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 5.0
# Attempts in a row that bring nothing, for each replica.
ROUNDS = 6
# Longest line of a stream, bytes: what is longer comes from another kind of service.
MAX_LINE = 16 << 20

# Codes that another replica, or the same one a moment later, may not answer with.
RETRIABLE = {
    "QUEUE_FULL", "RATE_LIMITED", "DRAINING", "WORKER_UNAVAILABLE", "INSUFFICIENT_VRAM", "INSUFFICIENT_MEMORY",
    "VRAM_OOM", "CUDA_ERROR", "INFERENCE_TIMEOUT", "CANCELLED", "REPLAY_DIVERGED",
    # Another model or other limits: a replica for other streams.
    "FINGERPRINT_MISMATCH",
    # The service has not yet noticed that the last connection is cut.
    "JOB_EXISTS",
}
# Codes that are the same everywhere. What has neither is a router's, whose service is gone.
FINAL = {
    "INVALID_REQUEST", "CONTEXT_LENGTH_EXCEEDED", "UNAUTHORIZED", "INVALID_API_KEY", "FORBIDDEN_ORIGIN", "INTERNAL",
    "WORKER_CRASHED", "MODEL_NOT_FOUND",
}


class JobFailed(Exception):
    """The job can't go on anywhere. `code` is worker-orcd's, or None where no replica could be reached."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code


class Replicas:
    """Services for the same model, as URLs without a path. `key` is for those that ask for one."""

    def __init__(self, urls, key=None, rounds=ROUNDS):
        if not urls:
            raise ValueError("urls is empty; give at least one, such as http://127.0.0.1:8080")
        self._urls = [_base(url) for url in urls]
        self._key = key
        self._attempts = rounds * len(urls)

    def execute(self, job):
        """Yields the events of a job of POST /execute, each once and in order, to `end`."""
        yield from self._run(_Job(job))

    def chat(self, body):
        """Yields the chunks of a POST /v1/chat/completions, each once and in order."""
        yield from self._run(_Completion("/v1/chat/completions", body))

    def completion(self, body):
        """Yields the chunks of a POST /v1/completions, each once and in order."""
        yield from self._run(_Completion("/v1/completions", body))

    def _run(self, stream):
        failures, at, error = 0, 0, None
        while failures < self._attempts:
            url = self._urls[at % len(self._urls)]
            after = None
            try:
                for item in self._attempt(url, stream):
                    failures = 0
                    yield item
                if stream.is_over:
                    return
                error = JobFailed(None, f"{url} ended the stream before its end")
            except _Retriable as retriable:
                error, after = retriable.error, retriable.after
            except (OSError, http.client.HTTPException) as cut:
                error = JobFailed(None, f"{url}: {cut or type(cut).__name__}")
            if stream.is_complete:
                return
            failures += 1
            at += 1
            # The next replica is asked at once; after all of them have failed it takes a while.
            if failures % len(self._urls) == 0:
                time.sleep(_pause(failures // len(self._urls), after))
        raise error

    def _attempt(self, url, stream):
        connection = _connection(url)
        try:
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = "Bearer " + self._key
            connection.request("POST", url.path + stream.path, json.dumps(stream.body()), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                _refused(answer)
            for data in _data(answer):
                yield from stream.take(data)
                if stream.is_over:
                    return
        finally:
            connection.close()


class _Job:
    """A stream of /execute as far as it came."""

    path = "/execute"

    def __init__(self, job):
        self._job = {**job, "stream": True}
        self._started = None
        self._ids = []
        # The last event is here; all that matters is here.
        self.is_over = self.is_complete = False

    def body(self):
        if self._started is None:
            return self._job
        resume = {name: self._started[name] for name in ("fingerprint", "request_digest", "template_time")}
        same = {"job_id": self._started["job_id"], "seed": self._started["seed"]}
        return {**self._job, **same, "resume": {"ids": self._ids, **resume}}

    def take(self, data):
        event = json.loads(data)
        kind = event["type"]
        if kind == "resumed":
            return
        if kind == "error":
            failed = JobFailed(event["code"], event["message"])
            raise _Retriable(failed) if event["code"] in RETRIABLE else failed
        if kind == "started":
            self._started = event
        elif kind == "token":
            self._ids.append(event["id"])
        self.is_over = kind == "end"
        yield event


class _Completion:
    """A stream of chunks as far as it came."""

    def __init__(self, path, body):
        if body.get("n", 1) != 1:
            raise ValueError("n is not 1; only a single output can go on at another replica")
        self.path = path
        self._body = {**body, "stream": True, "return_token_ids": True}
        self._origin = None
        self._ids = []
        self.is_over = self.is_complete = False

    def body(self):
        if self._origin is None:
            return self._body
        return {**self._body, "seed": self._origin["seed"], "resume": {**self._origin["resume"], "ids": self._ids}}

    def take(self, data):
        if data == b"[DONE]":
            # Some routers end a stream so whose service is gone.
            self.is_over = self.is_complete
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise _error(chunk["error"], may_be_a_routers=True)
        if "resume" in chunk:
            self._origin = {"seed": chunk["seed"], "resume": chunk["resume"]}
        for choice in chunk["choices"]:
            self._ids += choice.get("token_ids") or []
            # After it only the usage may come.
            self.is_complete = self.is_complete or choice.get("finish_reason") is not None
        yield chunk


class _Retriable(Exception):
    """Another replica may go on; `after` is when to ask this one again, seconds."""

    def __init__(self, error, after=None):
        super().__init__(str(error))
        self.error, self.after = error, after


def _base(url):
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no URL of a service; give one such as http://127.0.0.1:8080")
    return parts._replace(path=parts.path.rstrip("/"))


def _connection(url):
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    return kind(url.hostname, url.port, timeout=SILENCE_S)


def _pause(round_, after):
    longest = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** (round_ - 1))
    # Clients that failed together do not come back together.
    pause = longest * random.uniform(0.5, 1)
    return max(pause, min(after or 0, LAST_PAUSE_S))


def _refused(answer):
    """Raises what an answer without a stream means."""
    text = answer.read(1 << 20)
    # A router in front of worker-orcd that finds nobody, or has too much to do.
    may_be_a_routers = answer.status == 429 or answer.status >= 500
    try:
        error = _error(json.loads(text)["error"], may_be_a_routers)
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not from worker-orcd.
        error = JobFailed(None, f"HTTP {answer.status}")
        if may_be_a_routers:
            error = _Retriable(error)
    if isinstance(error, _Retriable):
        after = answer.headers.get("Retry-After", "")
        error.after = int(after) if after.isdigit() else None
    raise error


def _error(error, may_be_a_routers):
    if not isinstance(error, dict):
        error = {"message": str(error)}
    # OpenAI's form has the same codes in small letters, and none for a wrong request.
    code = error.get("code") or ("invalid_request" if error.get("type") == "invalid_request_error" else "unknown")
    code = str(code).upper()
    failed = JobFailed(code, error.get("message", ""))
    is_retriable = code in RETRIABLE or (may_be_a_routers and code not in FINAL)
    return _Retriable(failed) if is_retriable else failed


def _data(answer):
    """Yields the data of each whole event."""
    data = None
    while True:
        line = answer.readline(MAX_LINE)
        if not line:
            return
        line = line.rstrip(b"\r\n")
        if line.startswith(b"data: "):
            data = line[len(b"data: "):]
        elif not line and data is not None:
            yield data
            data = None


def main(arguments):
    if len(arguments) != 2:
        sys.exit("usage: orcd_client.py URL[,URL...] PROMPT")
    urls, prompt = arguments
    try:
        for event in Replicas(urls.split(",")).execute({"prompt": prompt}):
            print(event.get("t", ""), end="", flush=True)
    except (JobFailed, ValueError) as error:
        sys.exit(f"\nerror: {error}")
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
