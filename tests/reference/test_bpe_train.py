"""Trained tokenizers against the reference libraries: merges learnt from random text by both, and what
transformers and tokenizers make of our files. Needs the Python packages tokenizers and transformers
(tools/ref/requirements.txt)."""
import importlib.util
import json
import os
import random
import tempfile
import unittest

import program
import tap

BLOCKS = ((0x61, 0x7B), (0xAC00, 0xAD00), (0x20, 0x7F), (0x00, 0x20), (0x80, 0x250), (0x3000, 0x3400),
          (0x4E00, 0x4F00), (0x1F000, 0x1FB00))
SPECIAL = ["<s>", "</s>", "<pad>"]
GOLDEN = os.path.join(program.GOLDEN, "bpe_train")


def random_texts(seed, n):
    rng = random.Random(seed)
    for _ in range(n):
        parts = []
        for _ in range(rng.randrange(1, 40)):
            first, last = rng.choice(BLOCKS[:2] * 6 + BLOCKS)
            last = min(last, first + rng.choice((4, 12, 300)))
            parts.append("".join(chr(rng.randrange(first, last)) for _ in range(rng.randrange(1, 6))))
            parts.append(rng.choice((" ", " ", "", "\n", "  ", "12 ", "3.14")))
        yield "".join(parts)


def has(*packages):
    return all(importlib.util.find_spec(package) for package in packages)


@unittest.skipUnless(has("tokenizers", "transformers"), "needs tokenizers and transformers")
class BpeTrain(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def train(self, texts, rule, n_vocab, *more):
        path = os.path.join(self.folder, "texts.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        program.run("tokenizer", "train", "--vocab", n_vocab, "--pre", rule, "--bos", SPECIAL[0], "--eos",
                    SPECIAL[1], "--pad", SPECIAL[2], *more, "-o", self.folder, path)

    def test_merges_of_random_texts(self):
        import tokenizers
        from tokenizers import Tokenizer, trainers
        for rule in ("qwen2", "deepseek-v3"):
            for seed in range(4):
                texts = list(random_texts(seed, 1500))
                self.train(texts, rule, 2000)
                data = json.loads(program.read(GOLDEN, rule + ".json"))
                data["model"].update(vocab={}, merges=[])
                data["added_tokens"] = []
                reference = Tokenizer.from_str(json.dumps(data))
                alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
                reference.train_from_iterator(texts, trainers.BpeTrainer(
                    vocab_size=2000, min_frequency=2, special_tokens=SPECIAL, initial_alphabet=alphabet,
                    show_progress=False))
                wanted = json.loads(reference.to_str())["model"]
                made = json.loads(program.read(self.folder, "tokenizer.json"))["model"]
                self.assertEqual(made["vocab"], wanted["vocab"])
                self.assertEqual([m.split(" ") for m in made["merges"]], wanted["merges"])

    def test_transformers_reads_it(self):
        import transformers
        self.train(random_texts(9, 1500), "qwen2", 3000, "--special", "<|user|>", "--token", "<think>")
        reference = transformers.AutoTokenizer.from_pretrained(self.folder)
        self.assertEqual((reference.bos_token, reference.eos_token, reference.pad_token), tuple(SPECIAL))
        texts = [*random_texts(10, 1500), "<s>", "두레는 </s> 12345 마을", "", "<|user|>안녕 <think>\n3</think>"]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        for flags, special in ((("--parse-special",), False), (("--parse-special", "--bos"), True)):
            out = program.run("tokenize", self.folder, "--jsonl", "-", *flags, stdin=lines).out
            for text, line in zip(texts, out.splitlines(), strict=True):
                want = reference(text, add_special_tokens=special)["input_ids"]
                if special and text.startswith("<s>"):
                    want = want[1:]  # dure puts BOS there once
                self.assertEqual(json.loads(line)["tokens"], want, text)


if __name__ == "__main__":
    tap.main()
