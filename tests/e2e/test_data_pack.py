"""`dure data pack`: shards read by a reader of our own from their description (docs/design/data.md), the same
for any number of threads, mixtures, validation, chats, mistakes."""
import json
import os
import random
import signal
import struct
import subprocess
import tempfile
import time

import folder
import program
import tap

TEXTS = os.path.join(program.GOLDEN, "bpe_train", "texts.jsonl")
TEMPLATE = ("{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}"
            "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")


def read_bytes(*parts):
    with open(os.path.join(*parts), "rb") as file:
        return file.read()


def bits(data, n):
    return [data[i // 8] >> i % 8 & 1 for i in range(n)]


class Sequence:
    def __init__(self, record, seq_len, token_bytes):
        n = seq_len + 1
        self.tokens = list(struct.unpack_from("<%d%s" % (n, "H" if token_bytes == 2 else "I"), record))
        at = n * token_bytes
        self.begins = bits(record[at:], n)
        self.counts = bits(record[at + (n + 7) // 8:], n)

    def pieces(self):
        """(tokens, counts) of each run that begins somewhere, the last token being only a target."""
        starts = [0] + [i for i in range(1, len(self.tokens)) if self.begins[i]] + [len(self.tokens)]
        return [(self.tokens[a:b], self.counts[a:b]) for a, b in zip(starts, starts[1:])]


def read(folder, part="train"):
    with open(os.path.join(folder, "index.json"), encoding="utf-8") as file:
        index = json.load(file)
    n, size = index["seq_len"] + 1, index["token_bytes"]
    record = (n * size + 2 * ((n + 7) // 8) + 7) // 8 * 8 + 8
    found = []
    for entry in index["parts"][part]["files"]:
        data = read_bytes(folder, entry["file"])
        magic, version, token_bytes, seq_len, count, first, vocab, checksum, _ = struct.unpack_from("<8sIIQQQQQQ", data)
        assert (magic, version, token_bytes, seq_len) == (b"duredata", 2, size, n - 1)
        assert (count, first, vocab) == (entry["sequences"], len(found), index["vocab"])
        assert "%016x" % checksum == entry["checksum"]
        assert len(data) == 64 + count * record
        found += [Sequence(data[64 + i * record:], n - 1, size) for i in range(count)]
    assert len(found) == index["parts"][part]["sequences"]
    assert not found or entry["checksum"] == index["parts"][part]["checksum"]
    return found


class DataPack(folder.InFolder):
    @classmethod
    def setUpClass(cls):
        cls.tokenizer_folder = tempfile.TemporaryDirectory()
        cls.tokenizer = cls.tokenizer_folder.name
        program.run("tokenizer", "train", "--vocab", 600, "--bos", "<s>", "--eos", "</s>", "--pad", "<pad>",
                    "--special", "<|user|>", "--special", "<|assistant|>", "-o", cls.tokenizer, TEXTS)

    @classmethod
    def tearDownClass(cls):
        cls.tokenizer_folder.cleanup()

    def write_lines(self, name, records):
        return self.write(name, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))

    def pack(self, *words, out="out", seq_len=64, **more):
        return program.run("data", "pack", "--tokenizer", self.tokenizer, "--seq-len", seq_len, "-o", self.path(out),
                           "--json", *words, **more).json

    def ids(self, text, *flags):
        return program.run("tokenize", self.tokenizer, "--json", *flags, stdin=text).json["tokens"]

    def test_texts_in_their_order(self):
        """Without a shuffle the rows, one behind the other, are the documents."""
        texts = [r["text"] for r in program.json_lines(TEXTS)]
        made = self.pack("--shuffle", 0, TEXTS)
        lines = program.run("tokenize", self.tokenizer, "--bos", "--jsonl", TEXTS).out.splitlines()
        wanted = [json.loads(line)["tokens"] + [1] for line in lines]
        self.assertEqual((made["documents"], made["tokens"]), (len(texts), sum(map(len, wanted))))
        sequences = read(self.path("out"))
        self.assertEqual(len(sequences), made["sequences"])
        stream = [token for s in sequences for token in s.tokens[:-1]]
        flat = [token for tokens in wanted for token in tokens]
        # An end of text that is the last target of a sequence is no row of the next one.
        at, learned = 0, 0
        for s in sequences:
            for i, token in enumerate(s.tokens[:-1]):
                if at < len(flat) and token != flat[at] and flat[at] == 1:
                    at += 1
                if at < len(flat):
                    self.assertEqual(token, flat[at])
                    self.assertEqual(s.begins[i], token == 0 or i == 0)
                    at += 1
                learned += s.counts[i + 1]
                self.assertEqual(s.counts[i + 1], int(at < len(flat) and token != 1))
        self.assertGreaterEqual(at, len(flat) - 1)
        self.assertEqual(made["learned"], learned)
        self.assertEqual(made["filler"], stream.count(2))
        self.assertLess(made["filler"], 64)

    def test_threads_change_nothing(self):
        first = None
        for threads in (1, 2, 3):
            made = self.pack("--threads", threads, "--validation", 0.1, TEXTS, out=f"t{threads}")
            del made["output"]
            files = {name: read_bytes(self.path(f"t{threads}"), name)
                     for name in sorted(os.listdir(self.path(f"t{threads}")))}
            first = first or (made, files)
            self.assertEqual((made, files), first)
        self.pack("--seed", 2, "--validation", 0.1, TEXTS, out="other")
        other = read_bytes(self.path("other"), "train-00000.bin")
        self.assertNotEqual(other, first[1]["train-00000.bin"])
        self.assertEqual(read_bytes(self.path("other"), "validation-00000.bin"),
                         first[1]["validation-00000.bin"])

    def documents(self, part="train"):
        """The documents of sequences in which none is cut, as (tokens, counts)."""
        return [(tuple(t), tuple(c)) for s in read(self.path("out"), part) for t, c in s.pieces()
                if t[0] != 2]

    def test_answers_and_chats(self):
        pairs = [{"prompt": f"What is {i} + {i}? ", "response": f"{2 * i}"} for i in range(40)]
        chats = [{"messages": [{"role": "user", "content": f"질문 {i}"}, {"role": "assistant", "content": "답"},
                               {"role": "user", "content": "again"}, {"role": "assistant", "content": str(i)}]}
                 for i in range(40)]
        long = [{"prompt": "many " * 100, "response": "x"}, {"messages": [{"role": "user", "content": "alone"}]}]
        template = self.write("t.jinja", TEMPLATE)
        made = self.pack("--template", template, self.write_lines("a.jsonl", pairs + chats + long))
        self.assertEqual((made["documents"], made["too_long"], made["empty"]), (80, 1, 1))
        wanted = []
        for p in pairs:
            prompt, response = self.ids(p["prompt"], "--bos"), self.ids(p["response"])
            wanted.append((tuple(prompt + response + [1]), tuple([0] * len(prompt) + [1] * len(response) + [1])))
        for c in chats:
            tokens, counts = [0], [0]
            for m in c["messages"]:
                text = self.ids(m["content"])
                tokens += [3 if m["role"] == "user" else 4, *text]
                counts += [0] + [int(m["role"] == "assistant")] * len(text)
                if m["role"] == "assistant":
                    tokens.append(1)
                    counts.append(1)
            wanted.append((tuple(tokens), tuple(counts)))
        self.assertEqual(sorted(self.documents()), sorted(wanted))
        self.assertEqual(made["learned"], sum(sum(c) for _, c in wanted))

    def test_the_template_is_the_tokenizers(self):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            self.write(name, program.read(self.tokenizer, name))
        chats = self.write_lines("a.jsonl", [{"messages": [{"role": "user", "content": "hi"},
                                                           {"role": "assistant", "content": "yo"}]}])
        words = ("data", "pack", "--tokenizer", self.folder, "--seq-len", 64, "-o", self.path("out"), chats)
        done = program.run(*words, status=1)
        self.assertIn("a.jsonl:1: \"messages\" need a chat template", done.err)
        self.write("chat_template.jinja", TEMPLATE)
        program.run(*words)
        self.assertEqual(self.documents()[0][0], (0, 3, *self.ids("hi"), 4, *self.ids("yo"), 1))

    def sources(self, **sizes):
        """A file of documents of one letter each, by name, in one source each."""
        rng = random.Random(3)
        for name, n in sizes.items():
            self.write_lines(name + ".jsonl", [{"text": (name + " ") * rng.randrange(3, 20)} for _ in range(n)])

    def test_mixture(self):
        self.sources(a=300, b=300, c=300)
        made = self.pack("--source", self.path("a.jsonl:6"), "--source", self.path("b.jsonl:3"), "--source",
                         self.path("c.jsonl:1"), "--shuffle", 0)
        tokens = [s["tokens"] for s in made["sources"]]
        self.assertEqual([s["passes"] for s in made["sources"]], [1, 1, 1])
        self.assertEqual(made["sources"][0]["documents"], 300)  # the one that ended
        for share, n in zip((0.6, 0.3, 0.1), tokens):
            self.assertAlmostEqual(n / made["tokens"], share, delta=0.01)
        # The shares hold all the way, not only in the end.
        letter = {self.ids("a" + " a")[-1]: "a", self.ids("b" + " b")[-1]: "b", self.ids("c" + " c")[-1]: "c"}
        stream = [letter[t] for s in read(self.path("out")) for t in s.tokens[:-1] if t in letter]
        for i in range(0, len(stream) - 1000, 500):
            self.assertAlmostEqual(stream[i:i + 1000].count("a") / 1000, 0.6, delta=0.06)

    def test_sources_begin_anew(self):
        self.sources(a=300, b=20)
        made = self.pack("--source", self.path("a.jsonl:1"), "--source", self.path("b.jsonl:1"), "--tokens", 5000)
        a, b = made["sources"]
        self.assertEqual(a["passes"], 1)
        self.assertGreater(b["passes"], 5)
        self.assertAlmostEqual(a["tokens"], 2500, delta=50)
        self.assertAlmostEqual(b["tokens"], 2500, delta=50)
        self.assertGreaterEqual(made["tokens"], 5000)
        self.assertLess(made["tokens"], 5050)

    def test_patterns_name_files(self):
        self.sources(a1=10, a2=10, b=10)
        made = self.pack("--source", self.path("a*.jsonl:1"))
        self.assertEqual((made["documents"], made["sources"][0]["files"]), (20, self.path("a*.jsonl:1")))
        two = [self.path("a1.jsonl"), self.path("b.jsonl")]
        made = self.pack(*two, out="two")
        self.assertEqual([source["files"] for source in made["sources"]], [" ".join(two)])

    def test_validation(self):
        """Each document is on one side, the same one whatever comes beside it, and copies are together."""
        texts = [f"document number {i} says {i * i}" for i in range(400)]
        records = [{"text": t} for t in texts + texts[:200]]
        made = self.pack("--validation", 0.2, self.write_lines("a.jsonl", records), seq_len=512)
        held = made["validation"]["documents"]
        self.assertEqual(made["documents"] + held, 600)
        self.assertTrue(80 < held < 160, held)  # 120 and five deviations of 8

        def found(part):
            text = program.run("detokenize", self.tokenizer, stdin=" ".join(
                str(t) for s in read(self.path("out"), part) for t in s.tokens[:-1])).out
            return {t for t in texts if t in text}
        train, validation = found("train"), found("validation")
        self.assertFalse(train & validation)
        random.Random(1).shuffle(records)
        self.pack("--validation", 0.2, self.write_lines("b.jsonl", records[:300]), seq_len=512, out="out2")
        text = program.run("detokenize", self.tokenizer, stdin=" ".join(
            str(t) for s in read(self.path("out2"), "validation") for t in s.tokens[:-1])).out
        self.assertFalse({t for t in train if t in text})

    def test_kinds_of_input(self):
        lines = [f"line {i} of a text\n" for i in range(50)]
        wanted = None
        jsonl = "".join(json.dumps({"text": line}) + "\n" for line in lines)
        for name, words, more in (
                ("a", (self.write("a.jsonl", jsonl),), {}),
                ("b", ("--separator", "--", self.write("b.txt", "--\n".join(lines))), {}),
                ("c", ("--format", "jsonl", "-"), {"stdin": jsonl}),
                ("d", [self.write(f"d{i:02}.txt", line) for i, line in enumerate(lines)], {})):
            with self.subTest(name):
                made = self.pack(*words, out=name, **more)
                self.assertEqual(made["documents"], 50)
                data = read_bytes(self.path(name), "train-00000.bin")
                wanted = wanted or data
                self.assertEqual(data, wanted)

    def test_many_shards(self):
        made = self.pack("--shard-size", "1k", TEXTS, out="many")
        self.pack(TEXTS, out="one")
        many, one = read(self.path("many")), read(self.path("one"))
        self.assertGreater(len(os.listdir(self.path("many"))), 10)
        self.assertEqual(len(many), made["sequences"])
        self.assertEqual([s.tokens for s in many], [s.tokens for s in one])

    def peak_of(self, out, *words):
        """Resident memory of packing, in bytes."""
        with subprocess.Popen([program.DURE, "data", "pack", "--tokenizer", self.tokenizer, "--seq-len", "64",
                               "--threads", "2", "-o", self.path(out), *words], stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        return usage.ru_maxrss * 1024

    def test_memory_is_bounded(self):
        """Neither the text, nor its tokens, nor what is written is held."""
        if program.sanitized():
            self.skipTest("memory under a sanitizer is not the program's")
        rng = random.Random(3)
        block = "".join(json.dumps({"text": " ".join(str(rng.randrange(1000)) for _ in range(200))}) + "\n"
                        for _ in range(2500)).encode()
        peaks = []
        for size in (8 << 20, 40 << 20):
            with open(self.path("texts.jsonl"), "wb") as file:
                for _ in range(size // len(block)):
                    file.write(block)
            peaks.append(self.peak_of(str(size), "--shuffle", "1M", "--shard-size", "1M", "--validation", "0.1",
                                      self.path("texts.jsonl")))
        self.assertLess(peaks[1], peaks[0] + (16 << 20), "32 MiB more of text")

    def test_for_people(self):
        done = program.run("data", "pack", "--tokenizer", self.tokenizer, "--seq-len", 64, "-o", self.path("out"),
                           "--validation", 0.1, TEXTS)
        self.assertIn("sequences of 64 tokens from", done.out)
        self.assertIn("for validation: ", done.out)
        done = program.run("data", "pack", "--tokenizer", self.tokenizer, "--seq-len", 64, "-o", self.path("out"),
                           TEXTS, status=1)
        self.assertIn("holds packed data already", done.err)

    def test_mistakes(self):
        good = self.write_lines("good.jsonl", [{"text": "abc"}])
        cases = (
            ((self.write("a.jsonl", '{"text": "a"}\n\n{"text": 5}\n'),), "a.jsonl:3: no text \"text\""),
            ((self.write("b.txt", b"one\ntwo\nthr\xffee\n"),), "b.txt:3: bytes that are not UTF-8"),
            ((good, self.path("nowhere.txt")), "nowhere.txt: cannot open it"),
            ((self.write("empty.jsonl", ""),), "nothing to train on"),
            (("--tokens", "1k", self.write("none.jsonl", '{"text": ""}\n')), "none.jsonl: nothing in it to train on"),
            (("--template", self.path("none.jinja"), good), "none.jinja"),
        )
        for words, message in cases:
            with self.subTest(message):
                done = program.run("data", "pack", "--tokenizer", self.tokenizer, "--seq-len", 64, "-o",
                                   self.path("out"), *words, status=1)
                self.assertIn(message, done.err)
                self.assertFalse(os.path.exists(self.path("out")))
        full = ("--tokenizer", self.tokenizer, "-o", self.path("out"), "--seq-len", 64)
        for words, message in ((full[2:] + (good,), "--tokenizer is missing"),
                               (full[:2] + full[4:] + (good,), "--output is missing"),
                               (full[:4] + (good,), "--seq-len is missing"),
                               (full, "an argument is missing"),
                               (full + ("--source", good + ":1", good), "not both"),
                               (full + ("--source", good), "not of the form"),
                               (full + ("--source", good + ":0"), "not of the form"),
                               (full + ("--source", good + ":1x"), "not of the form"),
                               (full + ("--validation", 0.7, good), "--validation")):
            with self.subTest(message):
                self.assertIn(message, program.run("data", "pack", *words, status=2).err)

    def test_interrupt_leaves_nothing(self):
        text = self.write("a.txt", "some text to read\n" * 600000)
        process = subprocess.Popen([program.DURE, "data", "pack", "--tokenizer", self.tokenizer, "--seq-len", "16",
                                    "--shard-size", "1k", "--shuffle", "0", "-o", self.path("out"), text],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.time() + 60
        while not os.path.exists(self.path("out/train-00001.bin")) and time.time() < deadline:
            time.sleep(0.05)
        self.assertTrue(os.path.exists(self.path("out/train-00001.bin")))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertFalse(os.path.exists(self.path("out")))

    # ---- dure train on shards

    def train(self, out, *words, status=0, **keys):
        model = {"arch": "llama", "vocab_size": 600, "hidden_size": 32, "intermediate_size": 64,
                 "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 512,
                 "rope_theta": 10000, "rms_norm_eps": "1e-6", "initializer_range": 0.1}
        keys = {"out": self.path(out), "steps": 6, "seq_len": 32, "batch_seqs": 2,
                **{f"model.{key}": value for key, value in model.items()}, **keys}
        pairs = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
        done = program.run("train", *pairs, *words, status=status)
        return done.err if status else self.measured(out)

    def test_training_on_a_text_and_on_its_tokens(self):
        """One long document, packed, is the same run as its raw tokens."""
        text = " ".join(r["text"] for r in program.json_lines(TEXTS))[:8000]
        made = self.pack(self.write("a.txt", text), seq_len=64)
        self.assertGreater(made["sequences"], 20)
        ids = self.ids(text, "--bos")
        with open(self.path("raw"), "wb") as file:
            file.write(struct.pack(f"<{len(ids)}H", *ids))
        for seq_len in (64, 32):
            with self.subTest(seq_len):
                packed = self.train(f"p{seq_len}", seq_len=seq_len, **{"data.shards": self.path("out")})
                raw = self.train(f"r{seq_len}", seq_len=seq_len, **{"data.tokens": self.path("raw")})
                self.assertEqual(packed, raw)

    def test_documents_do_not_see_each_other(self):
        """Packed together or alone, the losses of documents are the same."""
        records = [{"prompt": f"a question of {k} words " * k, "response": "the answer " * (6 - k)} for k in (1, 2, 3)]
        losses, targets = [], []
        for k in range(4):
            made = self.pack(self.write_lines(f"{k}.jsonl", records if k == 3 else [records[k]]), seq_len=128,
                             out=str(k))
            self.assertEqual(made["sequences"], 1)
            losses.append(self.train(f"run{k}", steps=1, batch_seqs=1, seq_len=128,
                                     **{"data.shards": self.path(str(k))})[0]["loss"])
            targets.append(made["learned"])
        self.assertEqual(sum(targets[:3]), targets[3])
        alone = sum(n * x for n, x in zip(targets[:3], losses)) / targets[3]
        self.assertAlmostEqual(alone, losses[3], delta=1e-5)

    def test_a_run_on_shards_goes_on(self):
        self.pack("--validation", 0.2, TEXTS, seq_len=64)
        keys = {"data.shards": self.path("out"), "data.validation": self.path("out"), "data.order": "shuffled"}
        whole = self.train("a", **{**keys, "validate.every": 2})
        self.train("b", **{**keys, "validate.every": 2, "steps": 3})
        again = self.train("b", "--resume", **{**keys, "validate.every": 2})
        again[2].pop("validation")  # the last step of the shorter run
        self.assertEqual(again, whole)
        self.assertTrue(any("validation" in line for line in whole))
        self.pack("--seed", 9, TEXTS, out="other")
        os.rename(self.path("out"), self.path("old"))
        os.rename(self.path("other"), self.path("out"))
        del keys["data.validation"]
        self.assertIn("is not what it was", self.train("b", "--resume", status=1, **{**keys, "steps": 8}))

    def test_shards_that_do_not_fit(self):
        self.pack(TEXTS, seq_len=64)
        shards = {"data.shards": self.path("out")}
        self.assertIn("no multiple of 48", self.train("a", status=1, seq_len=48, **shards))
        self.assertIn("a vocabulary of 600 tokens, but the model has 500",
                      self.train("b", status=1, **{**shards, "model.vocab_size": 500}))
        self.assertIn("no sequences for validation", self.train("c", status=1, **{
            **shards, "data.validation": self.path("out")}))


if __name__ == "__main__":
    tap.main()
