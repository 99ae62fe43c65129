#!/usr/bin/env python3
"""Attention of training beside PyTorch's scaled_dot_product_attention, forward and backward, in turns.

    compare_attention.py BUILD_DIR [--threads N] [--turns N] [--shape N_SEQ,SEQ_LEN,H,G,DK,DV]

Causal, F32 and BF16. PyTorch gets contiguous [N_SEQ, H, SEQ_LEN, size] and, where values are shorter
than keys, the faster one of values as they are and values filled up with zeros. A cell is the least
time of all turns in milliseconds. Needs torch."""
import argparse
import re
import subprocess
import time

import torch
import torch.nn.functional as F

SHAPES = ["16,256,8,8,32,32", "16,256,8,8,48,32", "4,1024,8,2,64,64", "1,4096,8,8,64,64",
          "1,2048,4,4,192,128"]


def own(build, threads, shape, bf16):
    command = [f"{build}/bench/bench_attn_train", "--threads", str(threads), "--seconds", "0.4", *shape]
    out = subprocess.run(command + ["--bf16"] * bf16, check=True, capture_output=True, text=True).stdout
    return sum(float(ms) for ms in re.findall(r"([\d.]+) ms", out))


def peer(shape, dtype, fill):
    n_seq, n, heads, groups, dk, dv = map(int, shape)
    def make(h, d):
        return torch.randn(n_seq, h, n, d, dtype=dtype, requires_grad=True)
    q, k, v = make(heads, dk), make(groups, dk), make(groups, dk if fill else dv)
    gradient = torch.randn(n_seq, heads, n, dk if fill else dv, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + 0.4
    for i in range(1000):
        start = time.perf_counter()
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != groups)
        torch.autograd.grad(out, (q, k, v), gradient)
        best = min(best, time.perf_counter() - start)
        if i > 1 and time.perf_counter() > end:
            break
    return best * 1e3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--shape", action="append")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for text in args.shape or SHAPES:
        shape = text.split(",")
        for dtype in torch.float32, torch.bfloat16:
            ours, theirs = [], []
            for _ in range(args.turns):
                ours.append(own(args.build, args.threads, shape, dtype == torch.bfloat16))
                theirs.append(min(peer(shape, dtype, fill) for fill in {False, shape[4] != shape[5]}))
            print(f"{text:22} {str(dtype)[6:]:9} own {min(ours):8.2f} ms    torch {min(theirs):8.2f} ms"
                  f"    {min(theirs) / min(ours):.2f}x", flush=True)


if __name__ == "__main__":
    main()
