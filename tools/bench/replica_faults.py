#!/usr/bin/env python3
"""Kills whole replicas behind a router, at random instants of running streams, and compares every stream of the client
that ships with the same one undisturbed: text, token ids and why it ended.

    tools/bench/replica_faults.py [--router smg] [--faults 200] [--seed 7] [--clients 6]

A pair of services is behind the router. Each fault is SIGKILL to one of them and its worker; then it is started again on its
port, and the next fault comes when the router has given it requests again. The seed decides requests, replicas and
instants; what is under way at an instant is the machine's. On the small model and the CPU, on loopback; needs the routers of
tools/ci/routers. Exit code 1 if a token was lost, duplicated or changed."""

import argparse
import difflib
import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "ci" / "routers"))
import fleet  # noqa: E402

# After a replica has a stream again.
LONGEST_WAIT_S = 0.3
# Every replica in turn: one that came back gets requests, whatever prompts the others have had.
POLICY = ["--policy", "round_robin"]
SCHEMA = {"type": "object", "required": ["names", "count"], "additionalProperties": False, "properties": {
    "names": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 8, "maxItems": 12},
    "count": {"type": "integer", "minimum": 0, "maximum": 99}}}


def requests():
    """What clients draw from."""
    def completion(prompt, **fields):
        return "/v1/completions", {"model": "haiku", "prompt": prompt, "max_tokens": 300, "ignore_eos": True, **fields}

    def chat(prompt, **fields):
        messages = [{"role": "user", "content": prompt}]
        return "/v1/chat/completions", {"model": "haiku", "messages": messages, "max_tokens": 400, **fields}

    schema = {"response_format": {"type": "json_schema", "json_schema": {"name": "list", "strict": True, "schema": SCHEMA}}}
    pattern = {"response_format": {"type": "regex", "pattern": "([a-z]{2,6} ){80}end"}, "ignore_eos": False}
    for seed in range(3):
        yield completion("the sea and ", temperature=0, seed=seed, max_tokens=150 + 150 * seed)
        yield completion(f"{seed} winters and ", temperature=0.8, seed=seed)
        yield completion("hot and ", temperature=2, top_k=64, seed=seed)
        yield completion("a nucleus ", temperature=1.2, top_p=0.9, min_p=0.02, seed=seed)
        yield completion("again and again ", temperature=0.7, repetition_penalty=1.2, seed=seed)
        yield completion("once ", temperature=1, frequency_penalty=0.7, presence_penalty=0.4, logit_bias={"42": -100}, seed=seed)
        yield completion("ends ", temperature=1.5, stop=["ing", " the "], seed=seed)
        yield completion("words ", temperature=1, seed=seed, **pattern)
        yield chat("Count to two hundred", temperature=0, seed=seed)
        yield chat("Count to ninety", temperature=0, stop=["8" if seed else "60"], seed=seed)
        yield chat("Write ten haiku about rain", temperature=1, seed=seed)
        yield chat("Write a haiku about salt", temperature=1, seed=seed, max_tokens=8 + seed)
        yield chat("Names and their count, as JSON", temperature=1, seed=seed, **schema)


def compare(expected, found):
    """Tokens lost, duplicated and changed: what is missing, what is too many, what is another one. An output whose tokens
    are right and whose text or reason is not counts as one that is changed."""
    lost = duplicated = changed = 0
    matcher = difflib.SequenceMatcher(None, expected[1], found[1], autojunk=False)
    for what, begin, end, found_begin, found_end in matcher.get_opcodes():
        if what != "equal":
            due, came = end - begin, found_end - found_begin
            changed += min(due, came)
            lost += max(due - came, 0)
            duplicated += max(came - due, 0)
    if expected[1] == found[1] and expected != found:
        changed = 1
    return lost, duplicated, changed


class Campaign:
    """Clients that send one request after the other until they are told to end."""

    def __init__(self, url, expected):
        self._url, self._expected = url, expected
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.streams, self.tokens, self.resumed, self.verdicts, self.pauses = 0, 0, 0, [0, 0, 0], []
        # Clients that ended before they were told to.
        self.broken = 0

    def run(self, random_):
        """Until the end; what a client stumbles over that is no verdict is a failure of the campaign."""
        try:
            self._run(random_)
        except Exception:  # noqa: BLE001: in a thread nobody else would hear of it
            traceback.print_exc()
            with self._lock:
                self.broken += 1

    def _run(self, random_):
        while not self._over.is_set():
            number = random_.randrange(len(self._expected))
            (path, body), expected = self._expected[number]
            stream = fleet.Stream([self._url], path, body).read()
            verdict = compare(expected, stream.output)
            if any(verdict) or stream.error:
                print(f"request {number}: lost, duplicated, changed {verdict}; {stream.error}; resumed {stream.resumed} times; "
                      f"{len(stream.ids)} of {len(expected[1])} tokens", file=sys.stderr, flush=True)
            with self._lock:
                self.streams += 1
                self.tokens += len(stream.ids)
                self.resumed += stream.resumed > 0
                self.pauses += stream.pauses
                self.verdicts = [sum(pair) for pair in zip(self.verdicts, verdict)]

    def end(self):
        self._over.set()


def faults(args, replicas, router, random_):
    """Does them; so many times a fault met a stream."""
    met = 0
    for number in range(args.faults):
        victim = random_.choice(replicas)
        fleet.wait("the replica has a stream", lambda: victim.running() > 0)
        time.sleep(random_.uniform(0, LONGEST_WAIT_S))
        met += victim.running() > 0
        victim.kill_whole()
        # Sometimes it is back before the router has looked.
        time.sleep(random_.choice([0, 1.5]))
        victim.start()
        fleet.wait("the router takes the replica back", lambda: victim.url in router.healthy() and victim.jobs() > 0)
        if (number + 1) % 20 == 0:
            print(f"{number + 1} faults", file=sys.stderr, flush=True)
    return met


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", choices=fleet.ROUTERS, default=fleet.ROUTERS[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target" / "release")
    args = parser.parse_args()
    if not fleet.installed():
        sys.exit(fleet.UNAVAILABLE)
    with tempfile.TemporaryDirectory() as scratch:
        replicas = [fleet.Replica(args.bin, number, scratch) for number in range(2)]
        try:
            for replica in replicas:
                replica.start()
            campaign, met, seconds = run(args, replicas)
        finally:
            for replica in replicas:
                replica.kill()
    pauses = sorted(campaign.pauses)
    for name, value in [
        ("faults", args.faults), ("that met a running stream", met), ("streams", campaign.streams),
        ("tokens compared", campaign.tokens), ("streams resumed", campaign.resumed),
        ("tokens lost / duplicated / changed", " / ".join(map(str, campaign.verdicts))),
        ("pause of a resumed stream, p50 / longest", f"{statistics.median(pauses):.2f} s / {pauses[-1]:.2f} s" if pauses else "none"),
        ("seconds", round(seconds)),
    ]:
        print(f"| {name} | {value} |")
    if campaign.broken:
        sys.exit(f"error: {campaign.broken} clients broke off, see above")
    if campaign.resumed == 0:
        sys.exit("error: no stream had to be resumed: nothing was tried; give more --faults")
    sys.exit(1 if any(campaign.verdicts) else 0)


def run(args, replicas):
    asked = list(requests())
    undisturbed = [fleet.Stream([replicas[0].url], path, body).read() for path, body in asked]
    failed = [stream.error for stream in undisturbed if stream.error]
    if failed:
        sys.exit(f"error: a request fails on a service alone: {failed[0]}")
    with fleet.Router(args.router, [replica.url for replica in replicas], POLICY) as router:
        campaign = Campaign(router.url, [(request, stream.output) for request, stream in zip(asked, undisturbed)])
        clients = [threading.Thread(target=campaign.run, args=(random.Random(f"{args.seed} {number}"),), daemon=True)
                   for number in range(args.clients)]
        begun = time.monotonic()
        for client in clients:
            client.start()
        met = faults(args, replicas, router, random.Random(args.seed))
        campaign.end()
        for client in clients:
            client.join(fleet.LIMIT_S)
            if client.is_alive():
                sys.exit(f"error: a stream did not end within {fleet.LIMIT_S} s")
        return campaign, met, time.monotonic() - begun


if __name__ == "__main__":
    main()
