"""Training conversations: made from seeds, encoded once, kept as arrays.

    python data.py TOKENIZER_DIR OUT.npz COUNT SEED

OUT.npz holds `tokens` (all conversations one after another), `ends` (where each ends) and `starts` (where the part
begins that the model must produce: reasoning and answer of the last turn; only that part is trained on).
"""

import hashlib
import random
import sys

import numpy as np
from tokenizers import Tokenizer

from arith import Reject
from expressions import follow_problem
from problems import make
from tokenizer import ASSISTANT, BOS, END_THINK, EOS, THINK, USER

KINDS = {"expression": 44, "word": 44, "remainder": 3, "other": 9}
SYSTEM = (
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "Answer briefly.",
    "You are a careful math tutor.",
    "Think step by step.",
    "당신은 친절한 도우미입니다.",
    "짧게 대답하세요.",
    "차근차근 생각하세요.",
)


def held_out(key):
    """One calculation in forty is kept from training; facts about single digits never are."""
    if not key or sum(c.isdigit() for c in key) <= 2:
        return False
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little") % 40 == 0


def draw(rng, lang, kind, test=False):
    while True:
        problem = make(rng, lang, kind)
        if held_out(problem.key) == test:
            return problem


def draw_follow(rng, lang, before, test=False):
    """A follow-up question, or None where none fits the number before it."""
    for _ in range(200):
        try:
            problem = follow_problem(rng, lang, before)
        except Reject:
            continue
        if held_out(problem.key) == test:
            return problem
    return None


def turns(rng, lang, kind, test=False):
    """The problems of one conversation; only the last one is answered with its reasoning."""
    kinds, weights = list(KINDS), list(KINDS.values())
    earlier = []
    if kind == "chat":
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4, 6))):
            other = lang if rng.random() < 0.9 else rng.choice(("en", "ko"))
            earlier.append(draw(rng, other, rng.choices(kinds, weights)[0]))
        last = earlier[-1]
        if last.kind in ("expression", "word") and rng.random() < 0.5:
            follow = draw_follow(rng, last.lang, last.value, test)
            if follow:
                return [*earlier, follow]
        kind = rng.choices(kinds[:2], weights[:2])[0]
    return [*earlier, draw(rng, lang, kind, test)]


def render(problems, system=""):
    """(prompt, completion) in the form of the chat template."""
    prompt = BOS + system
    for problem in problems[:-1]:
        prompt += f"{USER}{problem.question}{ASSISTANT}{problem.answer}{EOS}"
    last = problems[-1]
    return (f"{prompt}{USER}{last.question}{ASSISTANT}{THINK}\n", f"{last.thinking}\n{END_THINK}\n\n{last.answer}{EOS}")


def conversation(rng):
    lang = rng.choice(("en", "ko"))
    kind = "chat" if rng.random() < 0.16 else rng.choices(list(KINDS), list(KINDS.values()))[0]
    problems = turns(rng, lang, kind)
    return *render(problems, rng.choice(SYSTEM) if rng.random() < 0.04 else ""), problems


def main(tokenizer_dir, out, count, seed):
    tokenizer, rng = Tokenizer.from_file(f"{tokenizer_dir}/tokenizer.json"), random.Random(seed)
    tokens, starts, ends, total = [], [], [], 0
    for first in range(0, count, 5000):
        pairs = [conversation(rng)[:2] for _ in range(min(5000, count - first))]
        prompts, answers = (tokenizer.encode_batch(side, add_special_tokens=False) for side in map(list, zip(*pairs)))
        for prompt, answer in zip(prompts, answers):
            tokens.append(np.array(prompt.ids + answer.ids, dtype=np.uint16))
            starts.append(total + len(prompt.ids))
            total += len(tokens[-1])
            ends.append(total)
    np.savez(out, tokens=np.concatenate(tokens), starts=np.array(starts), ends=np.array(ends))
    print(f"{count} conversations, {total} tokens, {total / count:.1f} each")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
