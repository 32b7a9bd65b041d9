#!/usr/bin/env python3
"""Makes models/formats.bin and models/formats.json again: blocks of every format as llama.cpp quantizes them, and what the
package gguf dequantizes them to.

    make formats"""

import ctypes
import json
import math
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np
import xllamacpp
from gguf import GGMLQuantizationType as Type

FOLDER = Path(__file__).resolve().parents[2] / "models"
TYPES = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K,
         Type.IQ4_NL, Type.IQ4_XS, Type.MXFP4]
ROWS, COLS = 2, 256

ABOUT = f"""\
Blocks of every format, made by tools/formats: quantized by llama.cpp (ggml_quantize_chunk of xllamacpp
{version("xllamacpp")}), dequantized by the Python package gguf {version("gguf")}. For each type {ROWS} rows of {COLS} values:
in formats.bin, from the byte `blocks` on, `bytes` bytes as in a GGUF file, and from `values` on their little-endian
float32 values.
""".replace("\n", " ").strip()


def values():
    """One row as weights are; one with blocks of zeros, of one sign, of one large value, and of very different sizes."""
    rng = np.random.default_rng(20261129)
    rows = rng.standard_normal((ROWS, COLS)) * 0.02
    odd = rows[1].reshape(-1, 32)
    odd[0] = 0
    odd[1] = np.abs(odd[1])
    odd[2, 5] = -3
    # Of the last blocks MXFP4's scales are the least that there are, and denormal.
    for i, exponent in enumerate([-20, -60, -122, -123, -124]):
        odd[3 + i] *= 2.0 ** exponent / np.abs(odd[3 + i]).max() * 1.5
    return rows.astype(np.float32)


def quantized(ggml, of, rows):
    """The rows' bytes."""
    size = gguf.GGML_QUANT_SIZES[of][1] * COLS // gguf.GGML_QUANT_SIZES[of][0]
    out = np.zeros((ROWS, size), np.uint8)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    written = ggml.ggml_quantize_chunk(
        ctypes.c_int(of), rows.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(0),
        ctypes.c_int64(ROWS), ctypes.c_int64(COLS), None)
    assert written == out.nbytes, (of, written)
    return out


def main():
    package = Path(xllamacpp.__file__).parent
    [library] = package.glob("xllamacpp.*so")
    ggml = ctypes.CDLL(str(library))
    rows = values()
    data, types = b"", {}
    for of in TYPES:
        blocks = quantized(ggml, of, rows)
        found = gguf.dequantize(blocks, of)
        off = float(np.abs(found - rows)[0].max() / np.abs(rows[0]).max())
        assert found.dtype == np.float32 and off < 0.3 and math.isfinite(off), (of, off)
        types[of.name] = {"blocks": len(data), "bytes": blocks.nbytes, "values": len(data) + blocks.nbytes}
        data += blocks.tobytes() + found.astype("<f4").tobytes()
    (FOLDER / "formats.bin").write_bytes(data)
    index = {"about": ABOUT, "rows": ROWS, "cols": COLS, "types": types}
    (FOLDER / "formats.json").write_text(json.dumps(index, indent=1) + "\n")
    print(f"{len(types)} formats, {len(data)} bytes")


if __name__ == "__main__":
    main()
