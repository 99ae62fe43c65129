#!/usr/bin/env python3
"""Makes tests/golden/bpe_train: texts, and the byte-level BPE tokenizers that the reference library
learns from them.

    make_bpe_train.py

texts.jsonl holds the lines of corpus.py and random words over few letters, whose pairs often occur
equally often; RULE.json is tokenizer.json with three special tokens and merges of pairs that occur
twice or more, learnt by tokenizers' BpeTrainer."""
import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, processors, trainers
from tokenizers import pre_tokenizers as pre

import corpus
from vocab_rules import RULES

ROOT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "bpe_train"
SPECIAL = ["<s>", "</s>", "<pad>"]
N_VOCAB = 1000


def random_lines(n):
    rng = random.Random(5)
    for _ in range(n):
        words = ("".join(rng.choice("abcd가나다12") for _ in range(rng.randrange(1, 9)))
                 for _ in range(rng.randrange(1, 30)))
        yield " ".join(words)


def learn(rule, lines):
    empty = Tokenizer(models.BPE())
    empty.decoder = decoders.ByteLevel()
    empty.post_processor = processors.ByteLevel(trim_offsets=False)
    data = json.loads(empty.to_str())
    data["pre_tokenizer"] = RULES[rule]["pre"]
    tok = Tokenizer.from_str(json.dumps(data))
    trainer = trainers.BpeTrainer(vocab_size=N_VOCAB, min_frequency=2, special_tokens=SPECIAL,
                                  initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator(lines, trainer)
    return tok


def main():
    ROOT.mkdir(exist_ok=True)
    lines = [*corpus.lines(), *random_lines(300)]
    (ROOT / "texts.jsonl").write_text(
        "".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in lines))
    for rule in ("qwen2", "deepseek-v3"):
        tok = learn(rule, lines)
        data = json.loads(tok.to_str())
        (ROOT / f"{rule}.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
