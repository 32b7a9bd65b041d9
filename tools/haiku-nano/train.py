#!/usr/bin/env python3
"""Trains the model: transformers' Qwen2, bf16 on a GPU, with the 4-bit grid in view at the end.

The last part of the training runs with weights rounded to 4 bits in blocks of 32, as Q4_K does
(straight-through gradients). What is learnt there survives the quantisation of so small a model.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM

from model import BUILD, END_OF_TEXT, IM_END, IM_START, load_tokenizer, model_config

ROW = 2048  # tokens of a training row: all positions of the context
BLOCK = 32  # weights that share a scale in Q4_K
REQUEST_WEIGHT = 0.1  # the loss on what users and systems say, beside 1 on answers
EARLY, EARLY_WEIGHT = 256, 3.0  # most chats are short: their positions count more
GRID_FROM = 0.6  # the share of the training after which weights are rounded


class GridLinear(nn.Linear):
    """A linear layer that can round its weights to 16 steps per block, as Q4_K will."""

    rounding = None  # a shared scalar tensor: 0 as stored, 1 rounded

    def forward(self, x):
        weight = self.weight
        if self.rounding is not None:
            weight = weight + self.rounding * (rounded(weight.detach()) - weight.detach())
        return F.linear(x, weight, self.bias)


def rounded(weight):
    """The weights on a grid of 16 steps between each block's least (at most 0) and greatest."""
    blocks = weight.float().view(weight.shape[0], -1, BLOCK)
    low = blocks.amin(-1, keepdim=True).clamp(max=0)
    step = ((blocks.amax(-1, keepdim=True) - low) / 15).clamp(min=1e-8)
    return (((blocks - low) / step).round() * step + low).view_as(weight)


def build_model(layers, start, device):
    """A model, new or with weights to start from, and the scalar that turns the rounding on."""
    config = model_config(layers)
    config._attn_implementation = "sdpa"
    config.initializer_range = 0.03
    model = Qwen2ForCausalLM(config)
    if start:
        state = torch.load(start / "weights.pt", weights_only=True)
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    model = model.to(device)
    rounding = torch.zeros((), device=device)
    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = GridLinear
            module.rounding = rounding
    return model, rounding


def loss_weights(tokens, tokenizer):
    """How much each token counts as a target: answers and plain text 1, requests little."""
    start_id, end_id = tokenizer.token_to_id(IM_START), tokenizer.token_to_id(IM_END)
    assistant = tokenizer.encode("assistant").ids[0]
    starts, ends = np.flatnonzero(tokens == start_id), np.flatnonzero(tokens == end_id)
    requests = tokens[starts + 1] != assistant
    change = np.zeros(len(tokens) + 1, dtype=np.float64)
    change[starts[requests]] += REQUEST_WEIGHT - 1
    change[ends[requests] + 1] -= REQUEST_WEIGHT - 1
    return (np.cumsum(change[:-1]) + 1).astype(np.float32)


def split(tokens, end, held_out):
    """Where the held-out documents begin."""
    return np.flatnonzero(tokens[: len(tokens) - held_out] == end)[-1] + 1


class Rows:
    """Rows that begin with a document and go on through the ones behind it."""

    def __init__(self, tokens, weights, end, device):
        starts = np.concatenate([[0], np.flatnonzero(tokens == end) + 1])
        self.starts = torch.from_numpy(starts[starts < len(tokens) - ROW - 1]).to(device)
        self.tokens = torch.from_numpy(tokens.astype(np.int32)).to(device)
        self.weights = torch.from_numpy(weights).to(device)
        self.span = torch.arange(ROW + 1, device=device)
        early = (self.span[:-1] < EARLY).float()
        self.position_weights = 1 + early * (EARLY_WEIGHT - 1)

    def draw(self, rows, generator):
        """(inputs, targets, weights of the targets), each (rows, ROW)."""
        picks = torch.randint(len(self.starts), (rows,), generator=generator, device=self.starts.device)
        index = self.starts[picks][:, None] + self.span
        tokens = self.tokens[index].long()
        return tokens[:, :-1], tokens[:, 1:], self.weights[index[:, 1:]] * self.position_weights


def loss_of(model, inputs, targets, weights):
    """Mean cross-entropy, and a little pull of the logits' normaliser to zero."""
    logits = model(input_ids=inputs, use_cache=False).logits.float()
    normaliser = torch.logsumexp(logits, -1)
    picked = logits.gather(-1, targets[..., None]).squeeze(-1)
    total = weights.sum()
    entropy = ((normaliser - picked) * weights).sum() / total
    return entropy + 1e-4 * (normaliser.square() * weights).sum() / total, entropy


def optimizer_for(model, peak, device):
    """AdamW; vectors and the embedding are not decayed."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() < 2 or "embed" in name]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=device == "cuda")


def learning_rate(progress, step, peak):
    """Warm-up, level, and from 40 % on down to nearly zero along a cosine."""
    warm = min(1.0, (step + 1) / 100)
    fall = max(0.0, (progress - 0.4) / 0.6)
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, fall))))


def validate(model, rows, count, device):
    """Mean loss on held-out rows, position and request weights as in training."""
    generator = torch.Generator(device).manual_seed(7)
    losses = []
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        for _ in range(count):
            losses.append(loss_of(model, *rows.draw(8, generator))[1].item())
    return sum(losses) / len(losses)


def save(model, path, facts):
    """Writes the weights in fp16, with what is known of the training beside them."""
    path.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().half().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    torch.save(state, path / "weights.pt")
    (path / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def train(args):
    """The training loop; ends after the steps or the seconds given, whichever come first."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    tokenizer = load_tokenizer(args.data / "tokenizer.json")
    tokens = np.fromfile(args.data / "tokens.bin", dtype="<u2")
    weights, end = loss_weights(tokens, tokenizer), tokenizer.token_to_id(END_OF_TEXT)
    border = split(tokens, end, min(500_000, len(tokens) // 20))
    rows = Rows(tokens[:border], weights[:border], end, device)
    test_rows = Rows(tokens[border:], weights[border:], end, device)
    model, rounding = build_model(args.layers, args.start, device)
    optimizer = optimizer_for(model, args.peak, device)
    step_loss = torch.compile(loss_of) if args.compile else loss_of
    generator = torch.Generator(device).manual_seed(args.seed)
    if args.compile:  # before the clock starts
        with torch.autocast(device, torch.bfloat16):
            step_loss(model, *rows.draw(args.rows, generator))[0].backward()
        optimizer.zero_grad(set_to_none=True)
    started, log = time.time(), []
    step, progress = 0, 0.0
    while progress < 1:
        progress = max(step / args.steps, (time.time() - started) / args.max_seconds)
        rounding.fill_(1.0 if args.start else min(1.0, max(0.0, (progress - GRID_FROM) / 0.05)))
        rate = learning_rate(progress, step, args.peak)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device, torch.bfloat16):
            loss, entropy = step_loss(model, *rows.draw(args.rows, generator))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % args.log_every == 0 or step < 4:
            value = entropy.item()
            log.append([step, round(value, 4)])
            print(
                f"step {step} loss {value:.4f} rate {rate:.2e} after {time.time() - started:.0f} s",
                flush=True,
            )
    rounding.fill_(1.0)
    on_grid = validate(model, test_rows, 16, device)
    rounding.fill_(0.0)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": step,
        "tokens_per_step": args.rows * ROW,
        "tokens_seen": step * args.rows * ROW,
        "tokens_in_text": len(tokens),
        "seconds": round(time.time() - started),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "held_out_loss": round(validate(model, test_rows, 16, device), 4),
        "held_out_loss_on_4_bit_grid": round(on_grid, 4),
        "loss": log,
    }
    print({key: value for key, value in facts.items() if key != "loss"})
    save(model, args.out, facts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=BUILD, help="folder of tokens.bin and tokenizer.json")
    parser.add_argument("--out", type=Path, default=BUILD / "trained")
    parser.add_argument("--start", type=Path, help="folder of weights to go on from")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--max-seconds", type=float, default=1e9, help="ends the schedule by time")
    parser.add_argument("--rows", type=int, default=64, help="rows of 2048 tokens a step")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--peak", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--compile", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
