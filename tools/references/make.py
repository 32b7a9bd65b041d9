#!/usr/bin/env python3
"""Makes the references again: tiny random models as GGUF files, and their logits by transformers in float32.

    make references, or: make.py [--out FOLDER] [NAME …]

Each reference is checked: without any one of its features the logits differ."""

import argparse
import copy
import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers

import gguf_file
from families import REFERENCES

FOLDER = Path(__file__).resolve().parents[2] / "models" / "references"
POSITIONS = 24
# How much the logits differ at least without a feature, as a share of their own size.
DIFFERENCE = 1e-2
# Sequences are drawn until no choice of experts is closer than this.
ROUTER_MARGIN = 2e-3
# Factors on the spread of matrices: scores far enough apart for attention to choose, layers that add something.
GAINS = {"q_proj": 1.3, "k_proj": 1.3, "qkv_proj": 1.2, "o_proj": 1.5, "lm_head": 2.0}

ABOUT = """\
Tiny random models and their logits by transformers (float32, eager attention, no cache), made by tools/references.
For each reference: `model`, the file, and its `sha256`; `class` of transformers; `about`, what it is there for;
`ids`, the tokens; `positions`, indices into `ids`: the logits at p are those after the token at p was read;
`logits_file`, and in it `offsets`, for each position that of `vocabulary` little-endian float32 values in bytes.
Where there are experts, `router_margin`: for each position the smallest gap, over all layers and all positions up to
it, between the last router logit that was chosen and the first that was not.
""".replace("\n", " ").strip()


def seeded(*what):
    return np.random.default_rng([zlib.crc32(str(part).encode()) for part in what])


def configuration(reference, **changes):
    config_class = getattr(transformers, reference.config_class or f"{reference.family}Config")
    # transformers writes into what it is given.
    return config_class(**copy.deepcopy({**reference.config, **changes}))


def build(reference, config):
    model_class = getattr(transformers, f"{reference.family}ForCausalLM")
    model = model_class._from_config(config, attn_implementation="eager", experts_implementation="eager")
    return model.float().eval()


def embedding_spread(config):
    """Embeddings have about the size of what a layer adds, once they are scaled."""
    if config.model_type.startswith("gemma"):
        return config.hidden_size**-0.5
    return 0.5 / getattr(config, "embedding_multiplier", 1.0)


def draw(reference, config, name, shape):
    """A tensor's random values; those of matrices are exact in half precision."""
    numbers = seeded(reference.name, name)
    if "norm" in name:
        middle = 0.0 if config.model_type.startswith("gemma") else 1.0
        return middle + numbers.uniform(-0.3, 0.3, shape)
    if name.endswith("sinks"):
        return 1.0 + numbers.normal(size=shape)
    if name.endswith("bias"):
        return numbers.uniform(-0.5, 0.5, shape)
    inputs = shape[1] if config.model_type == "gpt_oss" and ".experts." in name else shape[-1]
    spread = inputs**-0.5
    if "embed_tokens" in name:
        spread = embedding_spread(config)
    for part, gain in {**GAINS, **reference.gains}.items():
        if f".{part}" in f".{name}":
            spread *= gain
    values = spread * numbers.normal(size=shape)
    if name.endswith(("mlp.gate.weight", "router.weight")):
        return 2 * values
    return values.astype(np.float16)


@torch.no_grad()
def fill(model, reference, config):
    for name, parameter in model.named_parameters():
        values = draw(reference, config, name, tuple(parameter.shape))
        parameter.copy_(torch.from_numpy(values.astype(np.float32)))


@torch.no_grad()
def logits_of(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def differs(reference, weights, change, ids, logits):
    """By what share of themselves the logits differ in a changed model."""
    changes = change if isinstance(change, dict) else {}
    model = build(reference, configuration(reference, **changes))
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert not missing, missing
    if callable(change):
        with torch.no_grad():
            change(model)
    return ((logits_of(model, ids) - logits).norm() / logits.norm()).item()


def with_margins(model, ids):
    """The logits, and after each token the smallest gap so far between experts chosen and not, if there are experts."""
    gaps = []

    def look(router, inputs, _):
        hidden = inputs[0].reshape(-1, inputs[0].shape[-1])
        scores = torch.nn.functional.linear(hidden, router.weight, getattr(router, "bias", None))
        ordered = scores.sort(dim=-1, descending=True).values
        used = model.config.num_experts_per_tok
        gaps.append(ordered[:, used - 1] - ordered[:, used])

    routers = [module for module in model.modules() if type(module).__name__.endswith("TopKRouter")]
    hooks = [router.register_forward_hook(look) for router in routers]
    logits = logits_of(model, ids)
    for hook in hooks:
        hook.remove()
    if not gaps:
        return logits, None
    return logits, torch.stack(gaps).amin(dim=0).cummin(dim=0).values


def sequence(reference, model, name, length):
    """A sequence, its logits and margins: the first drawn in which no choice of experts is close."""
    for attempt in range(1000):
        ids = seeded("ids", name, attempt).integers(0, model.config.vocab_size, length).tolist()
        logits, margins = with_margins(model, ids)
        if margins is None or margins[-1] > ROUTER_MARGIN:
            return ids, logits, margins
    raise SystemExit(f"{name}: in every sequence a choice of experts is close")


def check(reference, model, weights, name, ids, logits):
    assert torch.isfinite(logits).all(), name
    size = logits.std().item()
    assert 0.2 < size < 20, f"{name}: logits have a spread of {size}"
    if reference.name == "phi3-longrope":
        assert abs(model.model.rotary_emb.attention_scaling - gguf_file.longrope_factor(model.config)) < 1e-12
    shares = {what: differs(reference, weights, change, ids, logits) for what, change in reference.without.items()}
    print(f"{name}: spread {size:.2f}; without " + ", ".join(f"{what} {share:.3f}" for what, share in shares.items()))
    same = [what for what, share in shares.items() if not share > DIFFERENCE]
    assert not same, f"{name}: the logits are the same without {', '.join(same)}"


def make(reference, folder):
    """The entries of the index; the files are written."""
    config = configuration(reference)
    model = build(reference, config)
    fill(model, reference, config)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    path = folder / f"{reference.name}.gguf"
    gguf_file.write(path, reference, config, weights)
    entries = []
    for ending, length in reference.lengths.items():
        name = reference.name + ending
        ids, logits, margins = sequence(reference, model, name, length)
        check(reference, model, weights, name, ids, logits)
        positions = sorted({round(place) for place in np.linspace(0, length - 1, POSITIONS)})
        kept = logits[positions].numpy().astype("<f4")
        (folder / f"{name}.bin").write_bytes(kept.tobytes())
        entry = {
            "name": name,
            "model": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "class": type(model).__name__,
            "about": reference.about,
            "vocabulary": config.vocab_size,
            "ids": ids,
            "positions": positions,
            "logits_file": f"{name}.bin",
            "offsets": [i * kept[0].nbytes for i in range(len(positions))],
        }
        if margins is not None:
            entry["router_margin"] = [round(margins[p].item(), 6) for p in positions]
        entries.append(entry)
    return entries


def write_index(path, entries):
    """As JSON with a line for each field, so that it reads and diffs well."""
    def text_of(entry):
        lines = [f"   {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()]
        return ",\n".join(lines)

    references = ["  {\n" + text_of(entry) + "\n  }" for entry in entries]
    head = json.dumps({"about": ABOUT, "transformers": transformers.__version__}, indent=1)
    text = head[:-2] + ',\n "references": [\n' + ",\n".join(references) + "\n ]\n}\n"
    json.loads(text)
    path.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("names", nargs="*", help="the references to make and no others; the index is left as it is")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_float32_matmul_precision("highest")
    # Sums in one order, so that the logits are the same on every run.
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    entries = []
    for reference in REFERENCES:
        if not args.names or reference.name in args.names:
            entries += make(reference, args.out)
    if not args.names:
        write_index(args.out / "index.json", entries)
    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"{len(entries)} references made; {size} bytes in {args.out}")


if __name__ == "__main__":
    main()
