#!/usr/bin/env python3
"""Writes tests/golden/quants/: random blocks of every quantised type and what the gguf package
dequantises them to, and the lattices of the IQ types.

<type>.bin      N blocks, then N * block float32 (little-endian)
iq_grids.bin    the points of iq1, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, one byte per weight

Needs the Python packages gguf, numpy and torch (for F8_E4M3, which GGUF lacks). Usage: make_quants.py [DIR]"""
import pathlib
import sys

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf import quants

TYPES = {
    "f32": T.F32, "f16": T.F16, "bf16": T.BF16, "q4_0": T.Q4_0, "q4_1": T.Q4_1, "q5_0": T.Q5_0, "q5_1": T.Q5_1,
    "q8_0": T.Q8_0, "q2_k": T.Q2_K, "q3_k": T.Q3_K, "q4_k": T.Q4_K, "q5_k": T.Q5_K,
    "q6_k": T.Q6_K, "iq4_nl": T.IQ4_NL, "iq4_xs": T.IQ4_XS, "iq1_s": T.IQ1_S, "iq1_m": T.IQ1_M,
    "iq2_xxs": T.IQ2_XXS, "iq2_xs": T.IQ2_XS, "iq2_s": T.IQ2_S, "iq3_xxs": T.IQ3_XXS,
    "iq3_s": T.IQ3_S, "mxfp4": T.MXFP4,
}
# Byte offsets of the binary16 fields of a block.
HALVES = {
    "q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q2_k": [80, 82],
    "q3_k": [108], "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208], "iq4_nl": [0], "iq4_xs": [0],
    "iq1_s": [0], "iq2_xxs": [0], "iq2_xs": [0], "iq2_s": [0], "iq3_xxs": [0], "iq3_s": [0],
}
GRIDS = [quants.IQ1_S, quants.IQ2_XXS, quants.IQ2_XS, quants.IQ2_S, quants.IQ3_XXS, quants.IQ3_S]


def random_blocks(rng, name, n, n_bytes):
    """Uniform bytes with finite scales: ordinary ones, and one subnormal, zero and huge one."""
    x = rng.integers(0, 256, size=(n, n_bytes), dtype=np.uint8)
    for at in HALVES.get(name, []):
        d = rng.normal(size=n).astype(np.float16)
        d[:3] = [6e-8, 0.0, -65504.0]
        x[:, at : at + 2] = d.reshape(n, 1).view(np.uint8)
    if name == "iq1_m":  # d is the top nibbles of the four u16 at 48
        d = rng.normal(size=n).astype(np.float16).view(np.uint16)
        for k in range(4):
            x[:, 49 + 2 * k] = (x[:, 49 + 2 * k] & 15) | ((d >> (4 * k)) & 15).astype(np.uint8) << 4
    if name == "mxfp4":  # 255 is NaN in the standard, a number in the package: left to the unit test
        x[:3, 0] = [0, 1, 254]
        x[x[:, 0] == 255, 0] = 127
    if name in ("f16", "bf16"):
        x = x[np.isfinite(quants.dequantize(x, TYPES[name])).all(axis=1)]
    return x


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/quants")
    out.mkdir(parents=True, exist_ok=True)
    for i, (name, kind) in enumerate(TYPES.items()):
        rng = np.random.default_rng(1000 + i)
        block, n_bytes = GGML_QUANT_SIZES[kind]
        x = random_blocks(rng, name, {1: 512, 32: 16, 256: 5}[block], n_bytes)
        with np.errstate(over="ignore"):
            y = quants.dequantize(x, kind).astype("<f4")
        (out / f"{name}.bin").write_bytes(x.tobytes() + y.tobytes())
    f8 = torch.arange(256, dtype=torch.uint8)
    y = f8.view(torch.float8_e4m3fn).float().numpy().astype("<f4")
    (out / "f8_e4m3.bin").write_bytes(f8.numpy().tobytes() + y.tobytes())
    grids = []
    for kind in GRIDS:
        kind.init_grid()
        grids.append(kind.grid.astype(np.int8).tobytes())
    (out / "iq_grids.bin").write_bytes(b"".join(grids))


if __name__ == "__main__":
    main()
