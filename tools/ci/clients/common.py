"""What the tests of all Python clients share: where the service is, and what it is doing."""

import json
import os
import signal
import time
import urllib.request
from enum import Enum

from pydantic import BaseModel, Field

BASE = os.environ["ORCD_CLIENTS_URL"]
KEY = os.environ["ORCD_CLIENTS_KEY"]
HAIKU = [{"role": "user", "content": "Write a haiku about rain"}]
# What a machine may take that is busy with other things.
PATIENCE_S = 20


class Mood(Enum):
    """One of some words."""

    calm = "calm"
    stormy = "stormy"


class Line(BaseModel):
    """A part that comes several times."""

    text: str = Field(min_length=3, max_length=12)
    beats: int = Field(ge=5, le=7)


class Verse(BaseModel):
    """What an answer with a schema is; every part has an end that a small model comes to."""

    mood: Mood
    title: str | None = Field(max_length=8)
    lines: list[Line] = Field(min_length=1, max_length=3)


def health():
    with urllib.request.urlopen(f"{BASE}/health", timeout=PATIENCE_S) as answer:
        return json.load(answer)


def wait_until(what, is_so):
    """Waits until `is_so()` holds."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, f"not so within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


def nothing_runs():
    jobs = health()["jobs"]
    return jobs["running"] == 0 and jobs["queued"] == 0


def kill_worker():
    """SIGKILL to the process that has the model."""
    os.kill(health()["worker"]["pid"], signal.SIGKILL)


def run(tests):
    """Runs the functions of a module whose names begin with test_."""
    for name, test in sorted(tests.items()):
        if name.startswith("test_"):
            test()
            print(f"  {name.removeprefix('test_').replace('_', ' ')}", flush=True)
