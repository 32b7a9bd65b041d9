#!/usr/bin/env python3
"""bench/peer: this engine and llama.cpp, the same file, the same machine, the same run.

    tools/bench/peer/compare.py [--model FILE]... [--peer DIR] [--bin DIR] [--out FILE] [--device cuda:0] [--alone]

Measures decoding (1 to 64 sequences) and prompts (512 to 8192 tokens) of the engines alone, and over HTTP the first token
and the tokens per second of one stream and of eight. Prints a table for each model and writes them, with machine, versions
and commands, to --out: a fragment for docs/BENCHMARKS.md. What is not given is made first: our programs by cargo with CUDA,
the peer by tools/bench/peer/build, synthetic files of Qwen2.5-0.5B and Llama-3.1-8B by synth-model."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import peer_libraries  # noqa: E402
import streams  # noqa: E402
from streams import median  # noqa: E402

ROOT = HERE.parents[2]
SHAPES = ("qwen2.5-0.5b-instruct-q4_k_m", "llama-3.1-8b-q4_k_m")
BATCHES, PROMPTS = (1, 2, 4, 8, 32, 64), (512, 2048, 8192)
DEPTH, STEPS = 128, 64  # decoding is measured from position 128 to 192
STREAMS, CONTEXT = 8, 4096
SHORT, SENTENCE = "Write a haiku about GPU computing", "The sea is calm tonight and the tide is full. "
LONG_TOKENS = 1500
TOKENS, ROUNDS = 128, 5

# Rows in milliseconds: less is more.
MILLISECONDS = ("HTTP, first token, short prompt", "HTTP, first token, 1.5k tokens", "start to ready")


class Runner:
    """Runs programs within a limit and remembers what was run."""

    def __init__(self):
        self.commands = []

    def run(self, command, limit_s, env=None):
        command = [str(word) for word in command]
        self.commands.append(shlex.join(command))
        begun = time.monotonic()
        done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=limit_s)
        if done.returncode != 0:
            raise SystemExit(f"error: {shlex.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        print(f"  {pathlib.Path(command[0]).name}: {time.monotonic() - begun:.1f} s", file=sys.stderr)
        return done.stdout


def ours_alone(args, model, runner):
    """bench_engine: tokens per second by row."""
    text = runner.run([args.bench, model, "--device", args.device, "--depth", DEPTH,
                       "--prompts", ",".join(map(str, PROMPTS)), "--batches", ",".join(map(str, BATCHES))], 90)
    rates = {(kind, int(n)): float(rate) for kind, n, rate in
             re.findall(r"\| (prefill|decode) +(\d+) \|.*\| +([\d.]+) tok/s", text)}
    found = {f"prefill {n}": rates["prefill", n] for n in PROMPTS}
    return found | {decode_row(n): rates["decode", n] for n in BATCHES}


def peer_alone(args, model, runner, env):
    """llama-bench and llama-batched-bench: tokens per second by row."""
    layers = ["-ngl", "99" if args.device != "cpu" else "0"]
    found = {}
    common = ["-m", model, "-fa", "1", *layers, "-o", "jsonl"]
    text = runner.run([args.peer / "llama-bench", *common, "-p", ",".join(map(str, PROMPTS)), "-n", "0"], 90, env)
    text += runner.run([args.peer / "llama-bench", *common, "-p", "0", "-n", STEPS, "-d", DEPTH], 60, env)
    for test in json_lines(text):
        row = f"prefill {test['n_prompt']}" if test["n_prompt"] else decode_row(1)
        found[row] = float(test["avg_ts"])
    several = [n for n in BATCHES if n > 1]
    text = runner.run([args.peer / "llama-batched-bench", "-m", model, "-fa", "on", *layers,
                       "-c", max(several) * 256, "-b", "2048", "-npp", DEPTH, "-ntg", STEPS,
                       "-npl", ",".join(map(str, several)), "--output-format", "jsonl"], 90, env)
    for test in json_lines(text):
        found[decode_row(test["pl"])] = float(test["speed_tg"])
    return found


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def decode_row(n):
    return "decode, 1 sequence" if n == 1 else f"decode, {n} sequences"


def over_http(server, prompts):
    """The rows of one server, greedy, after a warm-up of each kind of request."""
    with server:
        for prompt in prompts.values():
            server.stream(prompt, 8, 1)
        streams.several(server, STREAMS, prompts["short"], 16, 1)
        ones = [server.stream(prompts["short"], TOKENS, 10 + i) for i in range(ROUNDS)]
        longs = [server.stream(prompts["long"], 4, 20 + i) for i in range(ROUNDS)]
        rates = [streams.several(server, STREAMS, prompts["short"], TOKENS, 100 * i) for i in range(1, ROUNDS + 1)]
        if min(s.tokens for s in ones) < TOKENS // 2:
            raise SystemExit(f"error: answers of {[s.tokens for s in ones]} tokens are too short to measure")
        return {
            "HTTP, one stream": median(s.tok_s for s in ones),
            "HTTP, 8 streams in all": median(rates),
            "HTTP, first token, short prompt": median(s.first_s for s in ones) * 1e3,
            "HTTP, first token, 1.5k tokens": median(s.first_s for s in longs) * 1e3,
            "start to ready": server.ready_s * 1e3,
        }, (ones[0].prompt_tokens, longs[0].prompt_tokens)


def orcd(args, model):
    return streams.Orcd(args.bin / "worker-orcd", model, args.device,
                        ["--parallel", str(STREAMS), "--context", str(args.context)],
                        {"template": False, "temperature": 0})


def llama_server(args, model, env):
    # Greedy, with the one sampler that it needs: it would sort 150 000 candidates a token otherwise.
    fields = {"temperature": 0, "top_k": 1, "samplers": ["top_k"], "return_tokens": True}
    layers = ["-ngl", "99" if args.device != "cpu" else "0"]
    return streams.LlamaServer(args.peer, model, STREAMS, args.context, layers, env, fields)


def long_prompt(args, model):
    """About LONG_TOKENS tokens, by this model's own count."""
    with orcd(args, model) as server:
        one, four = (server.stream(SENTENCE * n, 1, 1).prompt_tokens for n in (1, 4))
    wanted = min(LONG_TOKENS, args.context * 3 // 4)
    return SENTENCE * max(1, round((wanted - one) / (four - one) * 3 + 1))


def table(ours, peer):
    lines = ["| | ours | llama.cpp | ratio |", "|---|---|---|---|"]
    for row, o in ours.items():
        if row not in peer:
            continue
        p, milliseconds = peer[row], row in MILLISECONDS
        show = (lambda v: f"{v:.1f} ms") if milliseconds else (lambda v: f"{v:,.0f} tok/s".replace(",", " "))
        lines.append(f"| {row} | {show(o)} | {show(p)} | {p / o if milliseconds else o / p:.2f} × |")
    return "\n".join(lines)


def gpu():
    """Name, driver and memory, or None."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def processor():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return platform.processor()


def fragment(args, machine, sections, commands):
    version = subprocess.run([args.bin / "worker-orcd", "--version"], capture_output=True, text=True, timeout=30).stdout
    peer = args.peer / "VERSION"
    peer_version = peer.read_text().strip() if peer.exists() else "no VERSION file beside it"
    lines = [
        f"### Against llama.cpp, {datetime.date.today()}", "",
        f"Machine: {machine}; {processor()}; {platform.platform()}.",
        f"Ours: {' '.join(version.split())}. Peer: {peer_version}.", "",
        f"Decoding is from position {DEPTH} to {DEPTH + STEPS}. Over HTTP: greedy, raw prompts, {TOKENS} tokens a stream, "
        f"medians of {ROUNDS}; first token counts from sending the request. A ratio above 1 is ours ahead.", ""]
    for model, text, tokens in sections:
        over_http = f"; prompts over HTTP of {tokens[0]} and {tokens[1]} tokens" if tokens else ""
        lines += [f"{model.name}, {model.stat().st_size} bytes{over_http}:", "", text, ""]
    lines += ["Commands:", "", "```", *commands, "```", ""]
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, action="append", help="may be given several times")
    parser.add_argument("--peer", type=pathlib.Path, help="folder with llama-bench, llama-batched-bench, llama-server")
    parser.add_argument("--bin", type=pathlib.Path, help="folder with worker-orcd, cuda-worker, bench_engine, synth-model")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "target" / "bench" / "peer.md")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--alone", action="store_true", help="the engines alone, nothing over HTTP")
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens a stream may have, of both servers")
    return parser.parse_args()


def prepare(args):
    """Our programs, the peer and the models, made where they are missing."""
    if args.bin is None:
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target" / "with-cuda")).absolute()
        subprocess.run(["cargo", "build", "--release", "--locked", "--features", "cuda", "--target-dir", target, "-p",
                        "worker-orcd", "-p", "cuda-worker", "-p", "synth-model", "--bins", "--example", "bench_engine"],
                       check=True, cwd=ROOT)
        args.bin = target / "release"
    args.bench = next((p for p in (args.bin / "bench_engine", args.bin / "examples" / "bench_engine") if p.exists()), None)
    if args.bench is None:
        raise SystemExit(f"error: no bench_engine in {args.bin}; cargo build --release -p cuda-worker --example bench_engine")
    if args.peer is None:
        work = ROOT / "target" / "peer"
        args.peer = work / "peer"
        if not (args.peer / "llama-server").exists():
            subprocess.run(["bash", HERE / "build", work], check=True)
    if args.model is None:
        args.model = [args.out.parent / f"{shape}.gguf" for shape in SHAPES]
        args.out.parent.mkdir(parents=True, exist_ok=True)
        for shape, model in zip(SHAPES, args.model):
            if not model.exists():
                subprocess.run([args.bin / "synth-model", "--shape", shape, "--out", model], check=True, timeout=120)


def measure(args, model, runner):
    """Both on one model: the table, and the lengths of the prompts over HTTP."""
    env = peer_libraries.environment(args.peer)
    if args.alone:
        peer = peer_alone(args, model, runner, env)
        return table(ours_alone(args, model, runner), peer), None
    prompts = {"short": SHORT, "long": long_prompt(args, model)}
    peer = peer_alone(args, model, runner, env)
    ours = ours_alone(args, model, runner)
    for server, rows in zip((llama_server(args, model, env), orcd(args, model)), (peer, ours)):
        found, tokens = over_http(server, prompts)
        rows.update(found)
        runner.commands.append(shlex.join(server.command))
        print(f"  {server.command[0]}: prompts of {tokens[0]} and {tokens[1]} tokens", file=sys.stderr)
    return table(ours, peer), tokens


def main():
    args = arguments()
    machine = gpu()
    if machine is None and args.device != "cpu":
        print("SKIPPED bench/peer: no NVIDIA GPU on this machine")
        sys.exit(1 if os.environ.get("ORCD_REQUIRE_GPU") == "1" else 0)
    prepare(args)
    runner, sections = Runner(), []
    for model in args.model:
        text, tokens = measure(args, model, runner)
        sections.append((model, text, tokens))
        print(f"{model.name}\n{text}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(fragment(args, machine or "no GPU", sections, runner.commands))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
