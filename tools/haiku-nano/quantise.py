#!/usr/bin/env python3
"""Quantises the F32 file to Q4_K_M with llama.cpp, through llama-cpp-python."""

import argparse
from pathlib import Path

import llama_cpp

from model import BUILD, MODELS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=BUILD / "haiku-nano-f32.gguf")
    parser.add_argument("--out", type=Path, default=MODELS / "haiku-nano-q4_k_m.gguf")
    args = parser.parse_args()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    params.nthread = 2
    args.out.parent.mkdir(parents=True, exist_ok=True)
    failed = llama_cpp.llama_model_quantize(str(args.source).encode(), str(args.out).encode(), params)
    if failed:
        raise SystemExit(f"llama_model_quantize({args.source}) gave {failed}")
    print(f"{args.out.stat().st_size} bytes in {args.out}")


if __name__ == "__main__":
    main()
