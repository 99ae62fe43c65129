"""`dure tokenizer train`: the reference library's results, inputs of all kinds, mistakes."""
import json
import os
import random
import signal
import subprocess
import time

import folder
import program
import tap

GOLDEN = os.path.join(program.GOLDEN, "bpe_train")
TEXTS = os.path.join(GOLDEN, "texts.jsonl")
BYTES_AND_SPECIAL = 259
HANGUL = "".join(map(chr, range(0xAC00, 0xAC80)))


def random_text(seed, n):
    """Words by a law of few and many, so that there is something to learn."""
    rng = random.Random(seed)
    words = ["".join(rng.choice("abcdefg" if k % 2 else HANGUL) for _ in range(rng.randrange(1, 7)))
             for k in range(500)]
    return " ".join(words[int(500 * rng.random() ** 3)] for _ in range(n)) + " 2024\n"


class TokenizerTrain(folder.InFolder):
    def train(self, *words, **more):
        """The --json object; the result is in the folder out."""
        return program.run("tokenizer", "train", "--output", self.path("out"), "--json", *words,
                           **more).json

    def pieces(self):
        """The bytes of what was learned."""
        table = {chr(b) if 0x20 < b < 0x7f or 0xa0 < b < 0x100 and b != 0xad else None: b
                 for b in range(256)}
        others = iter(range(0x100, 0x200))
        table.update({chr(next(others)): b for b in range(256)
                      if not (0x20 < b < 0x7f or 0xa0 < b < 0x100 and b != 0xad)})
        return [bytes(table[c] for c in text) for text, id in self.model()["vocab"].items()
                if id >= BYTES_AND_SPECIAL]

    def model(self):
        return json.loads(program.read(self.path("out"), "tokenizer.json"))["model"]

    def test_same_as_the_reference_library(self):
        for rule in ("qwen2", "deepseek-v3"):
            with self.subTest(rule):
                wanted = json.loads(program.read(GOLDEN, rule + ".json"))
                made = self.train("--vocab", 1000, "--pre", rule, "--bos", "<s>", "--eos", "</s>",
                                  "--pad", "<pad>", TEXTS)
                model = self.model()
                self.assertEqual(model["vocab"], wanted["model"]["vocab"])
                self.assertEqual([tuple(m.split(" ")) for m in model["merges"]],
                                 [tuple(m) for m in wanted["model"]["merges"]])
                self.assertEqual((made["vocab"], made["merges"], made["special"]), (1000, 741, 3))
                self.assertEqual(made["documents"], len(program.json_lines(TEXTS)))

    def test_digits_korean_and_english(self):
        self.train("--vocab", 1000, TEXTS)
        done = program.run("tokenize", self.path("out"), "--json", stdin="두레는 The 12345").json
        self.assertEqual(done["pieces"][-5:], list("12345"))
        self.assertEqual(program.run("detokenize", self.path("out"), stdin=" ".join(
            map(str, done["tokens"]))).out, "두레는 The 12345")
        pieces = self.pieces()
        self.assertIn(b" the", pieces)
        self.assertTrue([p for p in pieces if p.decode(errors="replace").strip() == "나누어"])
        for piece in pieces:
            self.assertFalse(any(byte in b"0123456789" for byte in piece), piece)

    def test_files_can_be_used(self):
        text = "함께 abc <think> 37\n\n\x00\U0001f33e<｜begin▁of▁sentence｜>"
        made = self.train("--vocab", "1k", "--special", "<think>", "--special", "</think>", TEXTS)
        self.assertEqual((made["vocab"], made["special"]), (1024, 5))
        self.assertEqual(made["output"], self.path("out/tokenizer.json"))
        self.assertEqual(made["config"], self.path("out/tokenizer_config.json"))
        config = json.loads(program.read(made["config"]))
        self.assertEqual((config["bos_token"], config["eos_token"], config["pad_token"]),
                         ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"))
        ids = program.run("tokenize", self.path("out"), stdin=text).out
        self.assertEqual(program.run("detokenize", self.path("out"), stdin=ids).out, text)
        self.assertGreaterEqual(min(map(int, ids.split())), 5)  # all of it is text
        ids = program.run("tokenize", self.path("out"), "--parse-special", stdin=text).out.split()
        self.assertEqual((ids.count("3"), ids[-1]), (1, "0"))
        with_bos = program.run("tokenize", self.path("out"), "--bos", stdin="abc").out.split()
        self.assertEqual((with_bos[0], with_bos.count("0")), ("0", 1))

    def test_threads_change_nothing(self):
        files = [self.write(f"{k}.txt", random_text(k, 20000)) for k in range(4)]
        first = None
        for threads in (1, 2, 3, 7):
            self.train("--vocab", 700, "--threads", threads, *files)
            made = program.read(self.path("out"), "tokenizer.json")
            first = first or made
            self.assertEqual(made, first)

    def test_kinds_of_input(self):
        """The same texts in every form give the same tokenizer."""
        lines = [random_text(k, 200) for k in range(20)]
        text = self.write("a.txt", "".join(lines))
        self.train("--vocab", 500, text)
        wanted = self.model()
        pairs = [{"prompt": a, "response": b} for a, b in zip(lines[::2], lines[1::2])]
        chats = [{"messages": [{"role": "user", "content": a},
                               {"role": "assistant", "content": b, "more": None}], "other": 1}
                 for a, b in zip(lines[::2], lines[1::2])]
        forms = {"t.jsonl": [{"text": line} for line in lines], "p.jsonl": pairs, "c.ndjson": chats}
        for name, records in forms.items():
            body = "\n\n".join(json.dumps(record) for record in records) + "\r\n"
            with self.subTest(name):
                made = self.train("--vocab", 500, self.write(name, body))
                self.assertEqual(self.model(), wanted)
                self.assertEqual(made["documents"], len(records))
                self.assertEqual(made["bytes"], len("".join(lines).encode()))
        with self.subTest("standard input"):
            self.train("--vocab", 500, "-", stdin="".join(lines))
            self.assertEqual(self.model(), wanted)
        with self.subTest("documents in a text"):
            made = self.train("--vocab", 500, "--separator", "<|endoftext|>",
                              self.write("s.txt", "<|endoftext|>\n".join(lines) + "<|endoftext|>"))
            self.assertEqual(self.model(), wanted)
            self.assertEqual(made["documents"], len(lines))
        with self.subTest("several files"):
            files = [self.write(f"f{i}.txt", line) for i, line in enumerate(lines)]
            made = self.train("--vocab", 500, *files)
            self.assertEqual(self.model(), wanted)
            self.assertEqual(made["documents"], len(lines))

    def test_tokens_that_show(self):
        """A chat's tokens: roles are nothing in a text, <think> is a token and is shown."""
        made = self.train("--vocab", 1000, "--special", "<|user|>", "--token", "<think>", "--token", "</think>", TEXTS)
        self.assertEqual((made["vocab"], made["special"]), (1000, 6))
        text = "<|user|><think>함께</think>1"
        ids = program.run("tokenize", self.path("out"), stdin=text).out.split()
        self.assertEqual([id for id in ids if int(id) < 6], ["4", "5"])
        self.assertEqual(program.run("detokenize", self.path("out"), stdin=" ".join(ids)).out, text)
        ids = program.run("tokenize", self.path("out"), "--parse-special", stdin=text).out.split()
        self.assertEqual((ids[:2], ids[-2]), (["3", "4"], "5"))
        shown = program.run("detokenize", self.path("out"), "--skip-special", stdin=" ".join(ids)).out
        self.assertEqual(shown, text[len("<|user|>"):])
        added = json.loads(program.read(self.path("out"), "tokenizer.json"))["added_tokens"]
        self.assertEqual([t["special"] for t in added], [True] * 4 + [False] * 2)

    def test_out_names_a_file(self):
        done = program.run("tokenizer", "train", "--vocab", 300, "-o", self.path("my.json"), TEXTS)
        self.assertIn(f"{self.path('my.json')}: 300 tokens from 77.", done.out)
        self.assertEqual(sorted(os.listdir(self.folder)), ["my.json", "tokenizer_config.json"])

    def test_fewer_tokens_than_asked_for(self):
        program.run("tokenizer", "train", "--vocab", "300", "-o", self.path("out"),
                    self.write("a.txt", "abc abd abe"))
        done = program.run("tokenizer", "train", "--vocab", "300", "-o", self.path("out"),
                           self.path("a.txt"))
        self.assertIn("fewer than 300", done.out)
        self.assertEqual(self.model()["merges"], ["a b", "Ġ ab"])

    def test_mistakes(self):
        good = self.write("good.jsonl", '{"text": "abc"}\n')
        cases = (
            (("--vocab", "300", self.write("a.jsonl", '{"text": "a"}\n\n{"text": 5}\n')),
             "a.jsonl:3: no text \"text\""),
            (("--vocab", "300", self.write("b.jsonl", '{"text": "a"}\n{"text"\n')), "b.jsonl:2: "),
            (("--vocab", "300", self.write("c.jsonl", "[1]\n")), "c.jsonl:1: not a JSON object"),
            (("--vocab", "300", self.write("d.txt", b"one\ntwo\nthr\xffee\n")),
             "d.txt:3: bytes that are not UTF-8"),
            (("--vocab", "300", self.write("e.jsonl", '{"messages": [{"content": "a"}]}')),
             "e.jsonl:1: a message has no \"role\""),
            (("--vocab", "300", good, self.path("nowhere.txt")), "nowhere.txt: cannot open it"),
            (("--vocab", "300", self.write("f.zst", b"\x28\xb5\x2f\xfd\x00\x01")), "f.zst: byte 6"),
            (("--vocab", "300", self.write("g.gz", b"\x1f\x8b\x08\x00")), "g.gz: packed by gzip"),
            (("--vocab", "258", good), "a vocabulary of 258"),
            (("--vocab", "300", "--pre", "none", good), "rule 'none' is not known"),
            (("--vocab", "300", "--special", "<a>", "--special", "<a>", good), "there twice"),
            (("--vocab", "300", "-o", "/dev/null/x.json", good), "/dev/null"),
        )
        for words, message in cases:
            with self.subTest(message):
                done = program.run("tokenizer", "train", "-o", self.path("x.json"), *words, status=1)
                self.assertIn(message, done.err)
                self.assertFalse(os.path.exists(self.path("x.json")))
        for words, message in ((("x.txt",), "--vocab is missing"),
                               (("--vocab", "300"), "an argument is missing"),
                               (("--vocab", "9", "x.txt"), "not between 257"),
                               (("--vocab", "300", "--special", "", "x.txt"), "--special: an empty name"),
                               (("--vocab", "300", "--token", "", "x.txt"), "--token: an empty name")):
            with self.subTest(message):
                self.assertIn(message, program.run("tokenizer", "train", *words, status=2).err)

    def test_interrupt_leaves_nothing(self):
        process = subprocess.Popen([program.DURE, "tokenizer", "train", "--vocab", "300", "-o",
                                    self.path("t.json"), "-"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdin.write(b"some text to read\n" * 1000)
        process.stdin.flush()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    tap.main()
