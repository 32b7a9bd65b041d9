#!/usr/bin/env python3
"""The logits of llama.cpp for ids that another program chooses: what `eval --peer` talks to.

    tools/eval/peer.py MODEL.gguf --context TOKENS --threads N

First it writes a line, `{"peer": NAME, "vocabulary": N}`. Then it answers each line of its standard input, a JSON list of
ids, with the logits after each of them: little-endian binary32, a row of the vocabulary for each id. Nothing is
remembered from one list to the next. It ends with its input.

llama.cpp is the one inside the package xllamacpp, whose own interface has no logits of a prompt: its library is called
as llama.h has it. Structures are those of the version that tools/ci/eval/requirements.txt names; another one whose
defaults lie elsewhere is refused.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path

# Its threads share the processor with eval's own: those that wait must not spin. Read when the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import xllamacpp  # noqa: E402

# A step of llama.cpp unless it is told otherwise, n_ubatch.
STEP_TOKENS = 512
# n_ctx, n_batch, n_ubatch, n_seq_max, and the numbers of threads, as llama_context_default_params has them.
DEFAULTS = (512, 2048, 512, 1, 4, 4)
ERROR_LEVEL = 4

LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class ModelParams(ctypes.Structure):
    """llama_model_params; none of it is changed here. Longer than it is: the callee reads what it knows."""
    _fields_ = [("all", ctypes.c_uint64 * 32)]


class ContextParams(ctypes.Structure):
    """llama_context_params: the fields that are set here, and room for all that come after them."""
    _fields_ = [("n_ctx", ctypes.c_uint32), ("n_batch", ctypes.c_uint32), ("n_ubatch", ctypes.c_uint32),
                ("n_seq_max", ctypes.c_uint32), ("reserved", ctypes.c_uint32 * 3), ("n_threads", ctypes.c_int32),
                ("n_threads_batch", ctypes.c_int32), ("rest", ctypes.c_uint32 * 119)]


class Batch(ctypes.Structure):
    """llama_batch."""
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)),
                ("embd", ctypes.POINTER(ctypes.c_float)), ("pos", ctypes.POINTER(ctypes.c_int32)),
                ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
                ("logits", ctypes.POINTER(ctypes.c_int8))]


# What is called: its result, and its arguments.
FUNCTIONS = {
    "llama_log_set": (None, [LogCallback, ctypes.c_void_p]),
    "llama_backend_init": (None, []),
    "llama_model_default_params": (ModelParams, []),
    "llama_model_load_from_file": (ctypes.c_void_p, [ctypes.c_char_p, ModelParams]),
    "llama_model_get_vocab": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_vocab_n_tokens": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_context_default_params": (ContextParams, []),
    "llama_init_from_model": (ctypes.c_void_p, [ctypes.c_void_p, ContextParams]),
    "llama_get_memory": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_memory_clear": (None, [ctypes.c_void_p, ctypes.c_bool]),
    "llama_batch_init": (Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
    "llama_decode": (ctypes.c_int32, [ctypes.c_void_p, Batch]),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32]),
}


@LogCallback
def log(level, text, _):
    if level == ERROR_LEVEL:
        sys.stderr.write(text.decode(errors="replace"))


def llama_library():
    [path] = Path(xllamacpp.__file__).parent.glob("xllamacpp.*so")
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Peer:
    """A model in llama.cpp, with a context of one sequence."""

    def __init__(self, path, context, threads):
        self.llama = llama_library()
        self.llama.llama_log_set(log, None)
        self.llama.llama_backend_init()
        model = self.llama.llama_model_load_from_file(os.fsencode(path), self.llama.llama_model_default_params())
        if not model:
            sys.exit(f"error: llama.cpp can't load {path}; what it said is above")
        self.vocabulary = self.llama.llama_vocab_n_tokens(self.llama.llama_model_get_vocab(model))
        self.context = self.llama.llama_init_from_model(model, self.params(context, threads))
        if not self.context:
            sys.exit(f"error: llama.cpp has no room for a context of {context} tokens; try a shorter --window")
        self.batch = self.llama.llama_batch_init(STEP_TOKENS, 0, 1)

    def params(self, context, threads):
        params = self.llama.llama_context_default_params()
        found = (params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max, params.n_threads,
                 params.n_threads_batch)
        if found != DEFAULTS:
            sys.exit(f"error: llama_context_params of this xllamacpp lies otherwise ({found} where {DEFAULTS} was); "
                     "compare ContextParams of tools/eval/peer.py with its llama.h")
        params.n_ctx, params.n_batch, params.n_ubatch = context, STEP_TOKENS, STEP_TOKENS
        params.n_threads = params.n_threads_batch = threads
        return params

    def rows(self, ids):
        """The logits after each id, as bytes."""
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)
        for start in range(0, len(ids), STEP_TOKENS):
            step = ids[start:start + STEP_TOKENS]
            self.fill(step, start)
            code = self.llama.llama_decode(self.context, self.batch)
            if code != 0:
                sys.exit(f"error: llama_decode of {len(step)} ids at {start} gives {code}; is the context too short?")
            for row in range(len(step)):
                logits = self.llama.llama_get_logits_ith(self.context, row)
                yield ctypes.string_at(logits, 4 * self.vocabulary)

    def fill(self, step, start):
        batch = self.batch
        batch.n_tokens = len(step)
        for row, token in enumerate(step):
            if not 0 <= token < self.vocabulary:
                sys.exit(f"error: id {token} is none of llama.cpp's {self.vocabulary}")
            batch.token[row], batch.pos[row], batch.logits[row] = token, start + row, 1
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--context", type=int, default=512, help="tokens that see each other")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # What the library prints must not come between the rows.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    peer = Peer(args.model, args.context, args.threads or os.cpu_count())
    name = f"llama.cpp (xllamacpp {version('xllamacpp')})"
    out.write(json.dumps({"peer": name, "vocabulary": peer.vocabulary}).encode() + b"\n")
    out.flush()
    for line in sys.stdin:
        for row in peer.rows(json.loads(line)):
            out.write(row)
        out.flush()


main()
