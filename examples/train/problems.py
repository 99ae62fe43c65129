#!/usr/bin/env python3
"""Makes chats about small sums in English and Korean, the training texts of docs/TRAINING.md.

    python3 problems.py COUNT > problems.jsonl

A line is one chat as `dure data pack` reads it: {"messages": [...]}. The problems, their steps and
answers are those of the built-in model (tools/default_model); the same COUNT gives the same bytes.
"""
import json
import os
import random
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "default_model"))
from problems import make  # noqa: E402


def main():
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    rng = random.Random(1)
    for _ in range(int(sys.argv[1])):
        kind = rng.choices(("expression", "word", "other"), (10, 8, 2))[0]
        problem = make(rng, rng.choice(("en", "ko")), kind)
        answer = f"<think>\n{problem.thinking}\n</think>\n\n{problem.answer}"
        chat = [{"role": "user", "content": problem.question},
                {"role": "assistant", "content": answer}]
        print(json.dumps({"messages": chat}, ensure_ascii=False))


if __name__ == "__main__":
    main()
