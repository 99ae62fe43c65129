#!/usr/bin/env python3
"""dure's packers against ggml's quantisers (llama-cpp-python): error and speed on random rows.

    tools/ref/compare_quantisers.py [TYPE...]

Per type, kind of rows (Gaussian; t4: Student's t with 4 degrees of freedom) and importance (none;
log-normal per column): sqrt(sum w (x - back)^2 / sum w x^2), w the importance or 1, and MB of f32 a
second on one core. Without importance ggml weights the error itself, mostly by x^2. Exit status 1 if
dure's error is larger anywhere. Compiles src/tensor with $CC or cc."""
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import llama_cpp
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

ROOT = pathlib.Path(__file__).resolve().parents[2]
TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
         "IQ4_XS"]
ROWS, COLS = 64, 2048


def load_dure(folder):
    out = pathlib.Path(folder) / "tensor.so"
    sources = sorted((ROOT / "src/tensor").glob("*.c")) + [ROOT / "src/base/err.c"]
    subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O3", "-DNDEBUG", "-D_GNU_SOURCE",
                    "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared",
                    f"-I{ROOT / 'src'}", "-o", out, *sources, "-lm"], check=True)
    return ctypes.CDLL(str(out))


def load_ggml():
    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    ggml = ctypes.CDLL(str(next(folder.glob("libggml-base.*"))))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [
        ctypes.c_int64] * 3 + [ctypes.c_void_p]
    return ggml


def pointer(array):
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def measure(pack, kind, x, importance):
    """(error, MB/s) of a packer: pack(out, x, importance)."""
    block, n_bytes = GGML_QUANT_SIZES[kind]
    out = np.zeros((ROWS, COLS // block * n_bytes), np.uint8)
    start = time.process_time()
    pack(out, x, importance)
    seconds = time.process_time() - start
    back = quants.dequantize(out, kind).reshape(x.shape).astype(np.float64)
    w = np.ones(COLS) if importance is None else importance.astype(np.float64)
    error = np.sqrt((w * (x - back) ** 2).sum() / (w * x.astype(np.float64) ** 2).sum())
    return error, x.nbytes / 1e6 / seconds


def main():
    rng = np.random.default_rng(1)
    rows = {"Gaussian": rng.normal(size=(ROWS, COLS)), "t4": rng.standard_t(4, size=(ROWS, COLS))}
    importances = {"none": None, "given": np.exp(1.5 * rng.normal(size=COLS)).astype(np.float32)}
    worse = 0
    with tempfile.TemporaryDirectory() as folder:
        dure, ggml = load_dure(folder), load_ggml()
        print(f"{'type':7} {'rows':9} {'importance':10} {'ggml':>9} {'dure':>9} {'ratio':>6}"
              f" {'ggml MB/s':>10} {'dure MB/s':>10}")
        for name in sys.argv[1:] or TYPES:
            kind = GGMLQuantizationType[name]
            pack = getattr(dure, f"du_pack_{name.lower()}")
            pack.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
            pack.restype = None

            def ours(out, x, w):
                for i in range(ROWS):
                    pack(pointer(out[i]), pointer(x[i]), COLS, pointer(w))

            def theirs(out, x, w):
                ggml.ggml_quantize_chunk(int(kind), pointer(x), pointer(out), 0, ROWS, COLS, pointer(w))

            for kind_of_rows, x in rows.items():
                x = (0.02 * x).astype(np.float32)
                for given, w in importances.items():
                    (e0, s0), (e1, s1) = measure(theirs, kind, x, w), measure(ours, kind, x, w)
                    worse += e1 > e0
                    print(f"{name:7} {kind_of_rows:9} {given:10} {e0:9.6f} {e1:9.6f} {e1 / e0:6.3f}"
                          f" {s0:10.0f} {s1:10.0f}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
