#!/usr/bin/env python3
"""Speed of dure's tokenizer beside the reference library's, on the same text in the same parts.

    compare_tokenizers.py BENCH_TOKENIZER FOLDER TEXT

BENCH_TOKENIZER is the program of that name in a build folder, FOLDER holds a tokenizer.json. Needs
the Python package tokenizers. One thread each; MB/s of processor time, so that a busy machine
disturbs little."""
import os
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402  (reads the variable when it is imported)

PART_BYTES = 8192
ROUNDS = 2


def parts_of(text):
    """As bench_tokenizer cuts: the first line's end behind each PART_BYTES."""
    start, parts = 0, []
    while start < len(text):
        line = text.find(b"\n", start + PART_BYTES)
        end = len(text) if line < 0 else line + 1
        parts.append(text[start:end].decode())
        start = end
    return parts


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    program, folder, path = sys.argv[1:]
    print(subprocess.run([program, folder, path], check=True, capture_output=True, text=True).stdout,
          end="")
    with open(path, "rb") as f:
        text = f.read()
    parts = parts_of(text)
    tok = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tok.encode_special_tokens = True
    print(f"tokenizers {tokenizers.__version__}, in parts of 8 KiB")
    best, n = None, 0
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        n = sum(len(e.ids) for e in tok.encode_batch_fast(parts, add_special_tokens=False))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        best = min(best or (cpu, wall), (cpu, wall))
    print(f"  best   {len(text) / best[0] / 1e6:6.1f} MB/s of processor time, "
          f"{len(text) / best[1] / 1e6:6.1f} MB/s on the wall ({n} tokens)")


if __name__ == "__main__":
    main()
