"""`dure train`: what a run leaves, and that stopping, threads and accumulation leave no trace.

DURE_TEST_KILLS: how often a run is killed at a random moment (default 4)."""
import array
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import unittest

import folder
import program
import tap
import terminal
from folder import DEEPSEEK, LLAMA, SPEED, VOCAB

KILLS = int(os.environ.get("DURE_TEST_KILLS", "4"))
MODELS = {"llama": LLAMA, "deepseek": DEEPSEEK}
RUN = {"steps": 12, "seq_len": 16, "batch_seqs": 4, "seed": 3, "optim.lr": 0.01,
       "optim.weight_decay": 0.1, "schedule.warmup_steps": 3, "ema.decay": 0.9}
# Other ways through the program; rope_theta and eps have digits that config.json does not keep.
OTHER = {"dtype": "bf16", "optim.name": "muon", "data.order": "shuffled", "recompute": "layer",
         "model.rope_theta": 12345.678901234567, "model.rms_norm_eps": 1.23456789012e-6}
OTHERS = {"llama": {**OTHER, "qat.type": "Q4_0"}, "deepseek": {**OTHER, "mtp.weight": 0.3}}


def safetensors(path):
    """{name: (shape, array of float)} of a file of F32 tensors."""
    with open(path, "rb") as file:
        data = file.read()
    n, = struct.unpack_from("<Q", data)
    header, out = json.loads(data[8:8 + n]), {}
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            out[name] = (tensor["shape"], array.array("f", data[8 + n + begin:8 + n + end]))
    return out


def checksum(data):
    """As du_checksum gives it."""
    h, mask = 0, 2 ** 64 - 1
    for at in range(0, len(data), 8):
        part = data[at:at + 8]
        part += bytes(7 - len(part)) + bytes([len(part)]) if len(part) < 8 else b""
        h = (h ^ int.from_bytes(part, "little")) * 0x9e3779b97f4a7c15 & mask
        h ^= h >> 29
    return f"{h:016x}"


def change_state(path, **values):
    """Sets keys of a state.json, with a checksum that fits; numbers keep their digits."""
    def text():
        compact = json.dumps(state, separators=(",", ":"), sort_keys=True)
        return re.sub('"@(.*?)@"', r"\1", compact).encode()
    with open(path, encoding="utf-8") as file:
        state = json.load(file, parse_float=lambda number: f"@{number}@")
    said = state.pop("checksum")
    assert checksum(text()) == said
    state.update(values)
    state["checksum"] = checksum(text())
    with open(path, "wb") as file:
        file.write(text())


class Base(folder.InFolder):
    def setUp(self):
        super().setUp()
        rng = random.Random(5)
        self.write_tokens("tokens.bin", [rng.randrange(VOCAB) for _ in range(700)])
        self.write_tokens("other.bin", [rng.randrange(VOCAB) for _ in range(300)])

    def config(self, name, model="llama", **more):
        """The path of a configuration, whose folder has that name too."""
        keys = {**MODELS.get(model, {}), **RUN, "data.tokens": self.path("tokens.bin"),
                "out": self.path(name), **more}
        path = self.path(name + ".conf")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{key} = {value}\n" for key, value in keys.items()
                            if value is not None)
        return path

    def train(self, out, *words, model="llama", status=0, keys=None, **more):
        return program.run("train", self.config(out, model, **(keys or {})), *words, status=status,
                           **more)

    def names(self, out):
        """Of the folder's files, event files apart, which have the time in their names."""
        return sorted(name for name in os.listdir(self.path(out)) if "tfevents" not in name)

    def checkpoints(self, out):
        return sorted(name for name in os.listdir(self.path(out)) if name.startswith("step-"))

    def start(self, out, *words, **keys):
        """A process that trains, in the background."""
        return subprocess.Popen([program.DURE, "train", self.config(out, **keys), *words],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class Training(Base):
    def test_a_run(self):
        for model in MODELS:
            with self.subTest(model):
                done = self.train(model, model=model, keys={"steps": 150})
                self.assertEqual(done.out, self.path(model, "step-000150") + "\n")
                lines = self.metrics(model)
                self.assertEqual([line["step"] for line in lines], list(range(1, 151)))
                self.assertEqual([line["tokens"] for line in lines], list(range(64, 150 * 64 + 1, 64)))
                self.assertAlmostEqual(lines[0]["lr"], 0.01 / 3)
                self.assertTrue(all(line["tok_s"] > 0 and line["grad_norm"] > 0 for line in lines))
                self.assertLess(abs(lines[0]["loss"] - math.log(VOCAB)), 1)
                self.assertLess(lines[-1]["loss"], lines[0]["loss"] - 1)
                for key in ("balance", "overload"):
                    self.assertEqual(key in lines[0], model == "deepseek")
                self.assertNotIn("mtp_loss", lines[0])
                self.assertEqual(self.names(model), ["lock", "metrics.jsonl", "report.html",
                                                     "run.json", "step-000150"])
                self.assertEqual(sorted(self.files(model, 150)),
                                 ["config.json", "model.safetensors", "state.json",
                                  "state.safetensors"])

    def test_the_checkpoint_is_a_model(self):
        """Its logits give the loss that the next step measures."""
        for model in MODELS:
            with self.subTest(model):
                self.train(model, model=model, keys={"checkpoint.every": 11})
                tokens = array.array("H")
                with open(self.path("tokens.bin"), "rb") as file:
                    tokens.frombytes(file.read())
                first = 11 * 4 * 16  # of step 12; the data wraps
                losses = []
                for b in range(4):
                    at = first + 16 * b
                    row = [tokens[(at + i) % len(tokens)] for i in range(17)]
                    with open(self.path("ids"), "w", encoding="utf-8") as file:
                        file.write(" ".join(map(str, row[:16])))
                    program.run("logits", self.path(model, "step-000011"), "--tokens-file",
                                self.path("ids"), "-o", self.path("logits.npy"))
                    shape, logits = program.npy(self.path("logits.npy"))
                    self.assertEqual(shape, (16, VOCAB))
                    for i, target in enumerate(row[1:]):
                        values = logits[i * VOCAB:(i + 1) * VOCAB]
                        top = max(values)
                        losses.append(top - values[target] +
                                      math.log(sum(math.exp(v - top) for v in values)))
                self.assertAlmostEqual(sum(losses) / len(losses), self.metrics(model)[11]["loss"],
                                       places=4)
                # Without a tokenizer answers are ids.
                done = program.run("run", self.path(model, "step-000011"), "--tokens-file",
                                   self.path("ids"), "-n", 5, "--temp", 0, "--json").json
                top = max(range(VOCAB), key=lambda v: logits[15 * VOCAB + v])
                self.assertEqual((done["tokens"][0], len(done["tokens"]), done["text"]), (top, 5, ""))
                program.run("bench", self.path(model, "step-000011"), "-p", 8, "-n", 2, "-r", 1)
                shown = program.run("perplexity", self.path(model, "step-000011"), "--tokens",
                                    self.path("ids"), "--json").json
                self.assertAlmostEqual(shown["nll"], sum(losses[48:63]) / 15, places=4)
                self.assertIn("tokenizer.json", program.run(
                    "run", self.path(model, "step-000011"), "-p", "x", status=1).err)

    def test_the_folder_is_no_model(self):
        """It says which checkpoint is the last."""
        self.train("a", keys={"steps": 4, "checkpoint.every": 2})
        done = program.run("inspect", self.path("a"), status=1)
        self.assertIn(f"its last checkpoint is {self.path('a', 'step-000004')}\n", done.err)
        done = program.run("run", self.path("a"), "-p", "x", status=1)
        self.assertIn(f"its last checkpoint is {self.path('a', 'step-000004')}\n", done.err)

    def test_tokenizer_goes_with_it(self):
        _, size = self.make_tokenizer()
        for tokenizer in ("tok", "tok/tokenizer.json"):
            self.train("a", "--overwrite", keys={"model.vocab_size": size, "steps": 2, "tokenizer":
                                                 self.path(tokenizer)})
            made = self.path("a", "step-000002")
            for name in ("tokenizer.json", "tokenizer_config.json"):
                self.assertEqual(program.read(made, name), program.read(self.path("tok"), name))
            self.assertIn("eos_token_id", json.loads(program.read(made, "config.json")))
        done = program.run("run", made, "--raw", "-p", "one two", "-n", "8", "--temp", "0",
                           "--ignore-eos")
        program.run("convert", made, self.path("a.gguf"))
        again = program.run("run", self.path("a.gguf"), "--raw", "-p", "one two", "-n", "8",
                            "--temp", "0", "--ignore-eos")
        self.assertEqual(done.out_bytes, again.out_bytes)
        self.assertNotEqual(done.out_bytes, b"")
        # A run that goes on keeps the tokenizer, also when its source is gone.
        shutil.rmtree(self.path("tok"))
        self.train("a", "--resume", keys={"model.vocab_size": size, "steps": 3})
        self.assertIn("tokenizer.json", self.files("a", 3))
        self.assertEqual(self.files("a", 3)["tokenizer.json"], self.files("a", 2)["tokenizer.json"])
        self.assertIn("tokenizer = nowhere", self.train(
            "b", keys={"steps": 1, "tokenizer": "nowhere"}, status=1).err)

    def test_the_guide(self):
        """The steps of docs/TRAINING.md with its files, fewer chats and shorter training."""
        example = os.path.join(program.SOURCE, "examples", "train")
        chats, tokenizer, packed = (self.path(name) for name in ("chats.jsonl", "tok", "packed"))
        done = subprocess.run([sys.executable, os.path.join(example, "problems.py"), "200"],
                              capture_output=True, check=True)
        with open(chats, "wb") as file:
            file.write(done.stdout)
        program.run("tokenizer", "train", "--vocab", 2048, "--special", "<|user|>", "--special",
                    "<|assistant|>", "--token", "<think>", "--token", "</think>", "-o", tokenizer,
                    chats)
        shutil.copy(os.path.join(example, "chat_template.jinja"), tokenizer)
        program.run("data", "pack", "--tokenizer", tokenizer, "--seq-len", 256, "--validation",
                    0.1, "-o", packed, chats)
        keys = {"out": self.path("small"), "tokenizer": tokenizer, "data.shards": packed,
                "data.validation": packed, "steps": 2, "schedule.decay_steps": 1, "batch_seqs": 1}
        done = program.run("train", os.path.join(example, "small.conf"), *(
            word for key, value in keys.items() for word in ("--set", f"{key}={value}")))
        checkpoint = self.path("small", "step-000002")
        self.assertEqual(done.out, checkpoint + "\n")
        first, second = self.metrics("small")
        self.assertAlmostEqual(first["loss"], math.log(2048), delta=0.2)
        self.assertIn("validation", second)
        samples, = program.json_lines(self.path("small"), "samples.jsonl")
        self.assertEqual(len(samples["samples"]), 2)
        self.assertEqual(program.read(checkpoint, "chat_template.jinja"),
                         program.read(example, "chat_template.jinja"))
        asked = program.run("run", checkpoint, "--temp", "0", "-n", "3", "-p", "3+4는?", "--json")
        self.assertEqual(len(json.loads(asked.out)["tokens"]), 3)

    def test_same_as_the_reference(self):
        """20 steps from the reference implementation's weights (tests/golden/README.md)."""
        golden = os.path.join(program.GOLDEN, "training")
        names = [name for name in sorted(os.listdir(golden))
                 if os.path.isdir(os.path.join(golden, name))]
        self.assertGreater(len(names), 5)
        for name in names:
            with self.subTest(name):
                folder = os.path.join(golden, name)
                keys = {"init": folder, "data.tokens": os.path.join(golden, "tokens.bin"),
                        "steps": 20, "seq_len": 12, "batch_seqs": 2, "optim.lr": 1e-4, "seed": None,
                        "schedule.warmup_steps": None, "ema.decay": None}
                self.train(name, model=None, keys=keys)
                wanted = json.loads(program.read(folder, "steps.json"))
                for i, line in enumerate(self.metrics(name)):
                    self.assertLess(abs(line["loss"] / wanted["loss"][i] - 1), 1e-5)
                    self.assertLess(abs(line["grad_norm"] / wanted["grad_norm"][i] - 1), 1e-4)
                before = safetensors(os.path.join(folder, "model.safetensors"))
                after = safetensors(self.path(name, "step-000020", "model.safetensors"))
                self.assertEqual({key: shape for key, (shape, _) in before.items()},
                                 {key: shape for key, (shape, _) in after.items()})
                changes = safetensors(os.path.join(folder, "changes.safetensors"))
                for key, (_, change) in changes.items():
                    old, new = before[key][1], after[key][1]
                    # A step rounds each weight twice.
                    allowed = 1e-4 * max(map(abs, change)) + 40 * 2 ** -24 * max(map(abs, old))
                    for x, y, d in zip(old, new, change):
                        self.assertLessEqual(abs(y - x - d), allowed, key)

    def make_tokenizer(self):
        """A folder with a tokenizer, and how many tokens it has."""
        with open(self.path("text"), "w", encoding="utf-8") as file:
            file.write("one two three four five six seven one two three " * 20)
        done = program.run("tokenizer", "train", "--vocab", 280, "--output", self.path("tok"), "--json",
                           self.path("text"))
        return self.path("tok"), done.json["vocab"]

    def test_init(self):
        """From a directory and from a GGUF file."""
        folder, size = self.make_tokenizer()
        for model in MODELS:
            with self.subTest(model):
                self.train(model, model=model,
                           keys={"model.vocab_size": size, "tokenizer": folder})
                start = self.path(model, "step-000012")
                program.run("convert", start, self.path("m.gguf"))
                for i, init in enumerate((start, self.path("m.gguf"))):
                    self.train(f"{model}{i}", model=None, keys={"init": init, "steps": 3})
                a, b = self.measured(f"{model}0"), self.measured(f"{model}1")
                self.assertEqual(a, b)
                # Step 1 reads what step 1 of the first run read, with better weights.
                self.assertLess(a[0]["loss"], self.measured(model)[0]["loss"])
                a, b = self.files(f"{model}0", 3), self.files(f"{model}1", 3)
                self.assertTrue(a["model.safetensors"] == b["model.safetensors"])
                self.assertIn("tokenizer.json", b)
                self.assertEqual(a["config.json"], b["config.json"])

    def test_validation(self):
        self.train("a", keys={"data.validation": self.path("other.bin"), "checkpoint.every": 5,
                              "validate.batches": 100})
        lines = self.metrics("a")
        self.assertEqual([line["step"] for line in lines if "validation" in line], [5, 10, 12])
        self.train("b", keys={"data.validation": self.path("other.bin"), "validate.every": 4,
                              "validate.batches": 1})
        lines = self.metrics("b")
        self.assertEqual([line["step"] for line in lines if "validation" in line], [4, 8, 12])
        # It changes nothing else, and what is measured is the loss of those sequences.
        self.train("c")
        for line in lines:
            for key in ("validation", *SPEED):
                line.pop(key, None)
        self.assertEqual(lines, self.measured("c"))
        self.train("d", keys={"data.validation": self.path("tokens.bin"), "validate.every": 11,
                              "validate.batches": 1, "optim.lr": 0})
        lines = self.metrics("d")
        self.assertEqual(lines[10]["validation"], lines[0]["loss"])

    def test_best_checkpoint_stays(self):
        """Data that contradict the validation data: the first checkpoint is the best."""
        self.write_tokens("up.bin", [i % VOCAB for i in range(300)])
        self.write_tokens("down.bin", [-i % VOCAB for i in range(300)])
        self.train("a", keys={"data.tokens": self.path("up.bin"), "steps": 20, "checkpoint.every": 2,
                              "checkpoint.keep": 2, "data.validation": self.path("down.bin")})
        lines = [line for line in self.metrics("a") if "validation" in line]
        best = min(lines, key=lambda line: line["validation"])["step"]
        self.assertLess(best, 18)
        self.assertEqual(self.checkpoints("a"), [f"step-{step:06}" for step in (best, 18, 20)])

    def test_tokens_that_no_sequence_has(self):
        """Their rows of the embedding have no gradients and no moments: they stay, whatever eps."""
        self.write_tokens("half.bin", [i * i % (VOCAB // 2) for i in range(300)])
        self.train("a", keys={"data.tokens": self.path("half.bin"), "optim.eps": 1e-30,
                              "optim.weight_decay": 0, "checkpoint.every": 1})
        first, last = (safetensors(self.path("a", f"step-{step:06}", "model.safetensors"))
                       ["model.embed_tokens.weight"][1][VOCAB // 2 * 32:] for step in (10, 12))
        self.assertTrue(first == last and any(first))

    def test_router_biases(self):
        """Each step moves them by 0 or +-0.01."""
        self.train("a", model="deepseek", keys={"checkpoint.every": 1, "checkpoint.keep": 20})
        before = [0.0] * 8
        for step in range(1, 13):
            tensors = safetensors(self.path("a", f"step-{step:06}", "model.safetensors"))
            shape, bias = tensors["model.layers.1.mlp.gate.e_score_correction_bias"]
            self.assertEqual(shape, [8])
            moved = [round((new - old) / 0.01, 3) for new, old in zip(bias, before)]
            self.assertTrue(set(moved) <= {-1, 0, 1}, moved)
            self.assertIn(1, moved)
            before = list(bias)

    def test_rounded_weights(self):
        """With qat.type passes see the weights of the file that `dure quantize` writes."""
        model = os.path.join(program.SOURCE, "tests", "golden", "models", "llama_tied")
        program.run("quantize", model, self.path("q8.gguf"), "--type", "Q8_0")
        losses = {}
        for name, keys in (("f32", {"init": model}), ("file", {"init": self.path("q8.gguf")}),
                           ("qat", {"init": model, "qat.type": "Q8_0"})):
            self.train(name, model="none", keys={"steps": 1, "optim.lr": 0, **keys})
            losses[name] = self.metrics(name)[0]["loss"]
        self.assertEqual(losses["qat"], losses["file"])
        self.assertNotEqual(losses["qat"], losses["f32"])

    def test_mean(self):
        """mean.NAME goes on from step to step, of biases that choose experts too, and is what
        `convert --mean` writes."""
        self.train("run", model="deepseek", keys={
            "ema.decay": 0.75, "steps": 4, "checkpoint.every": 1, "checkpoint.keep": 9})
        state = weights = None
        for step in self.checkpoints("run"):
            before = state
            state = safetensors(self.path("run", step, "state.safetensors"))
            weights = safetensors(self.path("run", step, "model.safetensors"))
            for name, (_, values) in weights.items() if before else ():
                mean = before["mean." + name][1]
                for w, old, new in zip(values, mean, state["mean." + name][1]):
                    self.assertAlmostEqual(0.75 * old + 0.25 * w, new, delta=1e-6, msg=name)
        self.assertTrue(any("e_score_correction_bias" in name for name in weights))
        program.run("convert", self.path("run", "step-000004"), self.path("mean"), "--mean")
        mean = safetensors(self.path("mean", "model.safetensors"))
        self.assertEqual(mean, {name: state["mean." + name] for name in weights})
        self.assertNotEqual(mean, weights)

    def test_no_mean(self):
        self.train("run", keys={"ema.decay": 0, "steps": 1})
        program.run("convert", self.path("run", "step-000001"), self.path("mean"))
        for given, says in ((self.path("run", "step-000001"), "without ema.decay"),
                            (self.path("mean"), "no checkpoint")):
            done = program.run("convert", given, self.path("m.gguf"), "--mean", status=1)
            self.assertIn(says, done.err)

    def test_clip_and_schedule(self):
        """A first step of plain SGD is lr * clip / norm long; a warm-up ends at optim.lr."""
        keys = {"optim.name": "sgd", "optim.momentum": 0, "optim.weight_decay": 0, "ema.decay": 0,
                "optim.clip": 0.001, "schedule.warmup_steps": 2, "steps": 2, "checkpoint.every": 1,
                "optim.lr": 0.5}
        self.train("a", keys=keys)
        weights = [safetensors(self.path("a", f"step-{step:06}", "model.safetensors"))
                   for step in (1, 2)]
        square = sum((x - y) ** 2 for name in weights[0]
                     for x, y in zip(weights[0][name][1], weights[1][name][1]))
        self.assertAlmostEqual(math.sqrt(square) / (0.5 * 0.001), 1, places=3)
        self.assertEqual([line["lr"] for line in self.metrics("a")], [0.25, 0.5])
        self.assertGreater(self.metrics("a")[0]["grad_norm"], 0.01)
        self.assertNotIn("state.safetensors", self.files("a", 2))

    def test_token_behind_the_next(self):
        """Its loss falls too, and `loss` is that of the next token alone."""
        self.train("a", model="deepseek", keys={"mtp.weight": 0.3, "steps": 150})
        lines = self.metrics("a")
        self.assertLess(lines[-1]["mtp_loss"], lines[0]["mtp_loss"] - 0.3)
        self.train("b", model="deepseek", keys={"steps": 1})
        self.assertEqual(lines[0]["loss"], self.metrics("b")[0]["loss"])


class SameBits(Base):
    def test_threads(self):
        for model in MODELS:
            for i, keys in enumerate(({}, OTHERS[model])):
                for n in (1, 2, 3):
                    self.train(f"{model}{i}{n}", "--threads", n, model=model, keys=keys)
                self.assert_same_run(f"{model}{i}1", f"{model}{i}2")
                self.assert_same_run(f"{model}{i}1", f"{model}{i}3")

    def test_steps_that_grow(self):
        """2, 2, 3, 4, 4 and so on of one sequence each, the data in order; the balance loss is the
        mean of each step's; resuming, and micro-batches of two, leave the same bytes."""
        for model in MODELS:
            grow = {"batch_seqs": 1, "accumulate": 7, "schedule.batch_from": 2,
                    "schedule.batch_steps": 7}
            self.train(f"{model}-whole", model=model, keys=grow)
            steps = self.metrics(f"{model}-whole")
            self.assertEqual([line["tokens"] // 16 for line in steps],
                             [2, 4, 7, 11, 15, 20, 26, 33, 40, 47, 54, 61])
            for stop in (1, 4, 9):
                self.train(f"{model}-part", "--overwrite", model=model, keys={**grow, "steps": stop})
                self.train(f"{model}-part", "--resume", model=model, keys=grow)
                self.assert_same_run(f"{model}-whole", f"{model}-part")
            # The first two steps are those of a run whose steps have two sequences.
            self.train(f"{model}-two", model=model, keys={"batch_seqs": 2, "steps": 2})
            self.assertEqual([line["loss"] for line in self.metrics(f"{model}-two")],
                             [line["loss"] for line in steps[:2]])
        wrong = self.train("wrong", status=2, keys={**grow, "schedule.batch_from": 8})
        self.assertIn("schedule.batch_from = 8: more than accumulate = 7", wrong.err)

    def test_accumulation(self):
        for model in MODELS:
            for i, keys in enumerate(({}, OTHERS[model])):
                for n in (1, 2, 4):
                    self.train(f"{model}{i}{n}", model=model,
                               keys={**keys, "accumulate": n, "batch_seqs": 4 // n})
                for n in (2, 4):
                    a, b = f"{model}{i}1", f"{model}{i}{n}"
                    self.assertEqual(self.measured(a), self.measured(b))
                    for name in ("model.safetensors", "state.safetensors"):
                        self.assertTrue(self.files(a, 12)[name] == self.files(b, 12)[name], name)

    def test_resume_at_every_step(self):
        for model in MODELS:
            every = {**OTHERS[model], "checkpoint.every": 1, "checkpoint.keep": 20}
            self.train("whole", "--overwrite", model=model, keys=every)
            for step in range(1, 12):
                out = f"{model}{step}"
                os.mkdir(self.path(out))
                shutil.copy(self.path("whole", "metrics.jsonl"), self.path(out))
                shutil.copytree(self.path("whole", f"step-{step:06}"),
                                self.path(out, f"step-{step:06}"))
                self.train(out, "--resume", model=model, keys={**OTHERS[model], "checkpoint.every": step % 3})
                self.assert_same_run("whole", out)

    def test_the_smoothed_loss_goes_on(self):
        """What is shown, and when a spike is one, do not depend on where the run was stopped."""
        def smooth(err):
            return dict(re.findall(r"^step (\d+)/\d+ .*smooth (\S+)", err, re.MULTILINE))
        whole = smooth(self.train("whole", keys={"steps": 30}).err)
        self.train("parts", keys={"steps": 7})
        parts = smooth(self.train("parts", "--resume", keys={"steps": 30}).err)
        self.assertIn("20", parts)
        self.assertEqual({step: parts[step] for step in whole if int(step) > 7},
                         {step: whole[step] for step in whole if int(step) > 7})
        state = json.loads(program.read(self.path("whole", "step-000030", "state.json")))
        self.assertEqual(state["smooth"]["seen"], 30)
        self.assertEqual(state, json.loads(
            program.read(self.path("parts", "step-000030", "state.json"))))

    def test_stop_by_steps_and_go_on(self):
        self.train("whole", "--threads", 1)
        for steps in (1, 5, 6, 12):
            self.train("a", "--resume", "--threads", 2, keys={"steps": steps})
        self.assert_same_run("whole", "a")
        # A run that is done stays as it is.
        before, names = self.files("a", 12), sorted(os.listdir(self.path("a")))
        record = program.read(self.path("a"), "run.json")
        done = self.train("a", "--resume")
        self.assertEqual(done.out, self.path("a", "step-000012") + "\n")
        self.assertEqual(before, self.files("a", 12))
        self.assertEqual(names, sorted(os.listdir(self.path("a"))))
        self.assertEqual(record, program.read(self.path("a"), "run.json"))
        self.assert_same_run("whole", "a")

    def test_killed(self):
        """Killed at any moment, as often as it takes: the same bytes."""
        keys = {"steps": 300, "checkpoint.every": 3, "checkpoint.keep": 2}
        start = time.monotonic()
        self.train("whole", "-q", keys=keys)
        whole_s = time.monotonic() - start
        rng = random.Random(11)
        n_kills = 0
        while n_kills < KILLS:
            shutil.rmtree(self.path("a"), ignore_errors=True)
            for _ in range(KILLS - n_kills + 1):
                process = self.start("a", "--resume", "-q", **keys)
                try:
                    process.wait(rng.uniform(0, whole_s / 2))
                except subprocess.TimeoutExpired:
                    process.kill()
                    n_kills += 1
                process.communicate()
                if process.returncode == 0:
                    break
            self.train("a", "--resume", "-q", keys=keys)
            self.assert_same_run("whole", "a", 300)
            self.assertEqual(self.checkpoints("a"), self.checkpoints("whole"))

    def test_signals(self):
        """SIGINT and SIGTERM: the step is finished and saved; going on gives the same bytes."""
        keys = {"steps": 400}
        self.train("whole", "-q", keys=keys)
        for number in (signal.SIGTERM, signal.SIGINT):
            process = self.start("a", "--resume", **keys)
            self.wait_for_lines("a", len(self.metrics("a")) + 5 if number == signal.SIGINT else 5,
                                process)
            process.send_signal(number)
            out, err = process.communicate()
            self.assertEqual((process.returncode, out), (130, b""), err)
            step = len(self.metrics("a"))
            self.assertIn(f"saved as {self.path('a')}/step-{step:06}; to go on: dure train --resume "
                          f"{self.path('a.conf')}\n", err.decode())
            self.assertLess(step, 400)
        self.train("a", "--resume", "-q", keys=keys)
        self.assert_same_run("whole", "a", 400)

    def test_the_command_that_goes_on(self):
        """What is printed at a signal, given to a shell, goes on with this run."""
        out = self.path("it's mine")
        process = self.start("a", "--set", f"out={out}", "--set", "steps=1000000")
        self.wait_for_lines("it's mine", 3, process)
        process.send_signal(signal.SIGINT)
        command = re.search(r"to go on: (.*)", process.communicate()[1].decode())[1]
        step = len(self.metrics("it's mine")) + 2
        path = os.path.dirname(program.DURE) + os.pathsep + os.environ["PATH"]
        subprocess.run(f"{command} -q --set steps={step}", shell=True, check=True,
                       stdout=subprocess.DEVNULL, env={**os.environ, "PATH": path})
        self.assertEqual(len(self.metrics("it's mine")), step)


class Folder(Base):
    """What is in the way, damaged or full."""

    def test_holds_a_run(self):
        self.train("a", keys={"steps": 2})
        before = self.files("a", 2)
        done = self.train("a", keys={"steps": 2}, status=1)
        self.assertIn("holds a run: --resume goes on with it, --overwrite removes it", done.err)
        self.assertEqual(before, self.files("a", 2))
        for name in ("notes.txt", "step-mine"):
            with open(self.path("a", name), "w", encoding="utf-8"):
                pass
        self.train("a", "--overwrite", keys={"steps": 3})
        self.assertEqual(self.names("a"), ["lock", "metrics.jsonl", "notes.txt", "report.html",
                                           "run.json", "step-000003", "step-mine"])
        self.assertEqual(len(self.metrics("a")), 3)
        with open(self.path("a", "step-000003", "notes.txt"), "w", encoding="utf-8"):
            pass
        done = self.train("a", "--overwrite", keys={"steps": 3}, status=1)
        self.assertIn("step-000003: holds notes.txt, which belongs to no checkpoint", done.err)
        self.assertIn("notes.txt", self.files("a", 3))

    def test_overwrite_removes_all_or_nothing(self):
        self.train("a", keys={"steps": 2, "checkpoint.every": 1})
        with open(self.path("a", "step-000007"), "w", encoding="utf-8"):
            pass  # a file is no checkpoint
        self.train("a", "--overwrite", keys={"steps": 3, "checkpoint.every": 1})
        self.assertEqual([name for name in self.names("a") if name.startswith("step")],
                         ["step-000001", "step-000002", "step-000003", "step-000007"])
        with open(self.path("a", "step-000003", "notes.txt"), "w", encoding="utf-8"):
            pass
        before = self.names("a")
        done = self.train("a", "--overwrite", keys={"steps": 3}, status=1)
        self.assertIn("step-000003: holds notes.txt", done.err)
        self.assertEqual(self.names("a"), before)

    def test_resume_begins_where_there_is_nothing(self):
        self.train("a", "--resume")
        self.train("b")
        self.assert_same_run("a", "b")
        os.makedirs(self.path("c"))
        shutil.copy(self.path("a", "metrics.jsonl"), self.path("c"))
        self.train("c", "--resume")
        self.assert_same_run("c", "b")

    def test_damaged(self):
        """The last whole checkpoint is taken, one line tells of each that is not."""
        keys = {"checkpoint.every": 4}
        self.train("whole", keys=keys)
        damages = {"truncated": lambda folder: os.truncate(folder + "/state.safetensors", 1000),
                   "gone": lambda folder: os.remove(folder + "/state.json"),
                   "empty": lambda folder: os.truncate(folder + "/model.safetensors", 0),
                   "foreign": lambda folder: shutil.copy(
                       program.model("llama_tied") + "/model.safetensors", folder)}
        for name, damage in damages.items():
            with self.subTest(name):
                shutil.rmtree(self.path("a"), ignore_errors=True)
                shutil.copytree(self.path("whole"), self.path("a"))
                damage(self.path("a", "step-000012"))
                done = self.train("a", "--resume", "-q", keys=keys)
                self.assertEqual(done.err.count("\n"), 1, done.err)
                self.assertIn("not resumed from: " + self.path("a", "step-000012"), done.err)
                self.assert_same_run("whole", "a")
        for step in (4, 8, 12):
            damages["truncated"](self.path("a", f"step-{step:06}"))
        done = self.train("a", "--resume", "-q", keys=keys)
        self.assertEqual(done.err.count("not resumed from: "), 3)
        self.assertIn("no checkpoint is whole: the run begins anew", done.err)
        self.assert_same_run("whole", "a")

    def test_a_newer_version_is_no_damage(self):
        """The run of a program that is newer stays as it is."""
        self.train("a", keys={"steps": 4, "checkpoint.every": 2})
        change_state(self.path("a", "step-000004", "state.json"), version=2)
        before = (self.files("a", 2), self.files("a", 4), self.metrics("a"))
        done = self.train("a", "--resume", status=1)
        self.assertIn("step-000004: state.json: version 2, but this program reads version 1", done.err)
        self.assertEqual(before, (self.files("a", 2), self.files("a", 4), self.metrics("a")))
        change_state(self.path("a", "step-000004", "state.json"), version=1)
        self.train("a", "--resume")
        self.train("b")
        self.assert_same_run("a", "b")

    def test_another_place_in_the_data(self):
        """Where a program's schedule gives the next step other data, the run does not go on."""
        grow = {"accumulate": 3, "schedule.batch_from": 1, "schedule.batch_steps": 3}  # 1, 1, 2, 3
        self.train("a", keys={**grow, "steps": 2})
        state = self.path("a", "step-000002", "state.json")
        change_state(state, micro_batch=4)
        before = self.files("a", 2)
        done = self.train("a", "--resume", keys=grow, status=1)
        self.assertIn("step-000002: goes on with micro-batch 4, and step 3 of this configuration "
                      "begins with 2: it would not be the same run", done.err)
        self.assertEqual(before, self.files("a", 2))
        change_state(state, micro_batch=2)
        self.train("a", "--resume", keys=grow)

    def test_changed_keys(self):
        self.train("a", keys={"steps": 2})
        before = self.files("a", 2)
        for key, value in (("optim.lr", 0.02), ("seed", 4), ("seq_len", 8), ("accumulate", 2),
                           ("model.hidden_size", 16), ("data.order", "shuffled")):
            done = self.train("a", "--resume", keys={key: value}, status=1)
            self.assertIn(f"{key} is '{value}' now and was '", done.err)
            self.assertIn("it would not be the same run", done.err)
        self.write_tokens("tokens.bin", [3] * 700)
        done = self.train("a", "--resume", status=1)
        self.assertIn("tokens.bin: is not what it was when the run was begun", done.err)
        self.assertEqual(before, self.files("a", 2))
        self.assertEqual(len(self.metrics("a")), 2)

    def test_one_process(self):
        process = self.start("a", "-q", steps=100000)
        self.wait_for_lines("a", 1, process)
        for how in ("--resume", "--overwrite"):
            self.assertIn("another process holds it", self.train("a", how, status=1).err)
        process.kill()
        process.communicate()
        self.train("a", "--overwrite", keys={"steps": 1})

    def test_full_disk(self):
        """Files may not grow beyond a limit: the last checkpoint stays whole."""
        keys = {"steps": 400, "checkpoint.every": 10}
        self.train("whole", "-q", keys=keys)
        size = len(self.files("whole", 400)["state.safetensors"])
        n_bytes = os.path.getsize(self.path("whole", "metrics.jsonl"))
        self.assertGreater(size, n_bytes // 4)
        process = subprocess.run(
            [program.DURE, "train", self.config("a", **keys), "-q"], capture_output=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes // 2, n_bytes)))
        if size < n_bytes // 2:
            self.assertEqual(process.returncode, 1)
            self.assertIn(b"metrics.jsonl: cannot write it: File too large", process.stderr)
            self.assertIn(b"the last checkpoint is", process.stderr)
        self.train("a", "--resume", "-q", keys=keys)
        self.assert_same_run("whole", "a", 400)
        process = subprocess.run(
            [program.DURE, "train", self.config("b", **keys), "-q"], capture_output=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, size)))
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"state.safetensors: cannot write it: File too large", process.stderr)
        self.assertEqual({*self.names("b")} - {"report.html"}, {"lock", "metrics.jsonl", "run.json"})

    def test_not_finite(self):
        """Weights that explode end the run; the checkpoint before it stays."""
        keys = {"optim.lr": 1000, "optim.weight_decay": 1000, "schedule.warmup_steps": 0,
                "checkpoint.every": 1, "checkpoint.keep": 20}
        done = self.train("a", "-q", keys=keys, status=1)
        self.assertRegex(done.err, r"step \d+: (the loss is .*)?model\.\S+ is not finite")
        steps = len(self.checkpoints("a"))
        for line in self.metrics("a"):
            self.assertTrue(math.isfinite(line["loss"]))
        self.assertLess(steps, 12)
        for name in self.checkpoints("a"):
            for _, values in safetensors(self.path("a", name, "model.safetensors")).values():
                self.assertTrue(all(map(math.isfinite, values)))


    def test_an_update_that_overflows(self):
        """In the step that saves, of a weight that no pass sees: it is not saved."""
        self.write_tokens("half.bin", [i % (VOCAB // 2) for i in range(300)])
        self.train("start", keys={"steps": 1})
        init = self.path("start", "step-000001")
        with open(os.path.join(init, "model.safetensors"), "r+b") as file:
            n, = struct.unpack("<Q", file.read(8))
            _, end = json.loads(file.read(n))["model.embed_tokens.weight"]["data_offsets"]
            file.seek(8 + n + end - 4)  # of the last token
            file.write(struct.pack("<f", 1e38))
        keys = {"init": init, "data.tokens": self.path("half.bin"), "steps": 2, "optim.lr": 1,
                "schedule.warmup_steps": 0, "optim.weight_decay": 1000, "checkpoint.every": 1}
        done = self.train("a", "-q", model=None, keys=keys, status=1)
        self.assertIn("step 1: model.embed_tokens.weight is not finite any more", done.err)
        self.assertEqual((len(self.metrics("a")), self.checkpoints("a")), (1, []))


class CommandLine(Base):
    def test_keys(self):
        text = program.run("train", "--keys").out
        listed = program.run("train", "--keys", "--json").json
        for key in listed:
            self.assertIn("\n" + key["key"], "\n" + text)
        names = [key["key"] for key in listed]
        for name in ("init", "out", "steps", "seq_len", "batch_seqs", "accumulate", "seed", "dtype",
                     "data.tokens", "data.token_bytes", "data.order", "optim.lr", "model.arch",
                     "checkpoint.every", "checkpoint.keep", "router.bias_step", "mtp.weight"):
            self.assertIn(name, names)

    def test_everything_by_set(self):
        self.train("a", keys={"steps": 2})
        keys = {**LLAMA, **RUN, "steps": 2, "data.tokens": self.path("tokens.bin"),
                "out": self.path("b")}
        words = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
        program.run("train", *words)
        self.assert_same_run("a", "b", 2)

    def test_mistakes(self):
        tokens = self.path("tokens.bin")

        def wrong(*pairs):
            needed = ("steps=1", f"out={self.path('b')}", f"data.tokens={tokens}")
            return [word for pair in needed + pairs for word in ("--set", pair)]

        for words, message in (
                (("--set", "stepz=3"), "unknown key stepz, did you mean steps"),
                (("--set", "steps"), "takes KEY=VALUE"),
                (("--set", "steps=x"), "takes a whole number"),
                ((), "neither init nor model.arch"),
                (wrong("model.arch=deepseek"), "model_type 'deepseek' is not supported (deepseek_v3"),
                (wrong("model.arch=llama"), "model.*: the key num_hidden_layers is missing"),
                (wrong("init=x", "qat.type=Q7"), "qat.type: 'Q7' is no type (Q8_0, "),
                (("--resume", "--overwrite"), "choose one"),
                (("--json",), "--json goes with --keys"),
                (("--keys", "--resume"), "--keys lists the keys"),
                (("--set", "init=x", "--set", "model.arch=llama"), "init and model.* are both given"),
                (("a.conf", "b.conf"), "an argument too many"),
                (("--threads", "0"), "--threads")):
            with self.subTest(words):
                done = program.run("train", *words, status=2)
                self.assertEqual(done.out, "")
                self.assertIn(message, done.err)
        config = self.config("a", **{"nonsense": 1})
        self.assertIn(f"{config}:", program.run("train", config, status=2).err)
        self.assertIn("nowhere.conf", program.run("train", "nowhere.conf", status=1).err)
        for keys, message in (({"data.tokens": "nowhere"}, "data.tokens: nowhere: cannot open it"),
                              ({"data.tokens": None, "data.shards": "nowhere"},
                               "data.shards: nowhere/index.json: cannot open it"),
                              ({"data.validation": "nowhere"}, "data.validation: nowhere: cannot"),
                              ({"model.vocab_size": 60}, "outside the vocabulary"),
                              ({"seq_len": 4096}, "longer than max_position_embeddings"),
                              ({"mtp.weight": 0.1}, "mtp.weight"),
                              ({"model.head_dim": 512}, "head_dim = 512: training takes heads of"),
                              ({"router.bias_step": 0.1}, "router.bias_step"),
                              ({"out": tokens}, "tokens.bin")):
            with self.subTest(keys):
                done = self.train("b", keys=keys, status=1)
                self.assertIn(message, done.err)
                self.assertEqual(done.err.count("\n"), 1, done.err)

    def test_lines(self):
        err = self.train("a", keys={"steps": 25}).err.splitlines()
        self.assertEqual([line.split("  ")[0] for line in err],
                         ["step 1/25", "step 10/25", "step 20/25", "step 25/25"])
        self.assertRegex(err[1], r"step 10/25  \d+:\d\d left  loss \d\.\d+  smooth \d\.\d+  \d+ tok/s"
                                 r"  lr \S+  norm \S+(  \d+ % of peak)?$")
        self.assertEqual(self.train("b", "--quiet").err, "")

    def test_on_a_terminal(self):
        screen = terminal.Terminal("train", self.config("a"), columns=60)
        seen = screen.read_until("step 12/12")
        seen += screen.read_until("step-000012")
        self.assertIn("\rstep 1/12", seen)
        for line in seen.replace("\n", "\r").split("\r"):
            self.assertLessEqual(len(line.replace("\033[K", "")), 60 + len(self.path("a")))
            if line.startswith("step"):  # whole fields, the first ones
                self.assertRegex(line, r" left  loss \d\.\d{4}  smooth \d\.\d{4}(  \d+ tok/s)?(  lr \S+)?\033\[K$")


class Plan(Base):
    def plan(self, out, *words, model="llama", status=0, **keys):
        return program.run("train", self.config(out, model, **keys), "--plan", *words,
                           status=status)

    def test_json(self):
        """Fields as the manual lists them, and nothing is left behind."""
        for model in MODELS:
            plan = json.loads(self.plan(model, "--json", model=model).out)
            memory = plan["memory_bytes"]
            self.assertEqual(list(memory["total"]), ["none", "cheap", "layer"])
            kinds = ("weights", "rounded", "gradients", "waiting", "moments", "mean", "kept",
                     "scratch")
            self.assertEqual(memory["total"]["cheap"], sum(memory[kind] for kind in kinds))
            self.assertEqual(memory["moments"], 2 * memory["weights"])
            self.assertEqual(memory["mean"], memory["weights"])
            self.assertEqual((memory["mapped"], memory["frozen"]), (0, 0))
            self.assertEqual(plan["params_trained"], plan["params"])
            self.assertEqual(plan["ranks"]["n"], 1)
            self.assertEqual(plan["ranks"]["sent_bytes_per_step"], 0)
            self.assertEqual(plan["tokens_per_step"], 64)
            self.assertEqual(plan["flops_rule"], 6 * plan["params_active"])
            self.assertTrue(plan["fits"])
            self.assertAlmostEqual(plan["run_s"], 12 * plan["step_s"])
            grow = {"accumulate": 4, "schedule.batch_steps": 12}  # 1, 2 and 3
            grown = json.loads(self.plan(model, "--json", model=model, **grow).out)
            self.assertLess(grown["run_s"], 0.8 * 12 * grown["step_s"])
            self.assertGreater(plan["tok_s"], 0)
            self.assertFalse(os.path.exists(self.path(model)))

    def test_text(self):
        text = self.plan("text").out
        for word in ("parameters", "forward", "moments", "recompute = cheap (set)", "tok/s"):
            self.assertIn(word, text)

    def test_adapters(self):
        """Over F32 and quantised files: what is frozen apart from what a run needs memory for."""
        start, file, mapped = program.model("deepseek_v3_noqlora"), self.path("q8.gguf"), []
        program.run("convert", start, file, "--type", "q8_0")
        shapes = json.loads(self.plan("shape", "--json", model=None, init=start).out)
        with open(os.path.join(start, "config.json"), encoding="utf-8") as config:
            shape = json.load(config)
        narrow = shape["hidden_size"] + shape["num_attention_heads"] * shape["v_head_dim"]
        biases = (shape["num_hidden_layers"] - shape["first_k_dense_replace"]) * shape["n_routed_experts"]
        for init in (start, file):
            keys = {"init": init, "lora.rank": 4, "lora.targets": "o_proj",
                    "router.bias_step": 0.01}
            plan = json.loads(self.plan("adapters", "--json", model=None, **keys).out)
            memory = plan["memory_bytes"]
            trained = shape["num_hidden_layers"] * 4 * narrow + biases
            self.assertEqual(plan["params_trained"], trained)
            self.assertEqual(plan["params"], shapes["params"] + trained)
            kinds = ("frozen", "weights", "rounded", "gradients", "waiting", "moments", "mean",
                     "kept", "scratch")
            self.assertEqual(memory["total"]["cheap"], sum(memory[kind] for kind in kinds))
            self.assertEqual(memory["moments"], 2 * memory["weights"])
            self.assertLess(memory["weights"], 4 * trained + 64 * 2 * shape["num_hidden_layers"])
            self.assertTrue(memory["mapped_stays"])
            mapped.append(memory["mapped"])
            # no gradients of frozen matrices
            self.assertLess(plan["flops_backward"], 0.8 * shapes["flops_backward"])
            self.assertGreater(plan["flops_forward"], shapes["flops_forward"])
            self.assertGreater(plan["tok_s"], 0)
            text = self.plan("adapters", model=None, **keys).out
            for word in ("frozen weights", "adapters", "  trained", "tok/s"):
                self.assertIn(word, text)
        self.assertLess(mapped[1], 0.6 * mapped[0])  # of F16
        large = {"init": file, "lora.rank": 4, "batch_seqs": 1 << 20, "seq_len": 1024}
        for words in (("--plan", "--json"), ()):
            done = program.run("train", self.config("large", None, **large), *words, status=1)
            self.assertRegex(done.err, r"the run needs \d+ MB and \d+ MB are free: .*batch_seqs")

    def test_wide_heads_are_refused(self):
        done = self.plan("wide", status=1, **{"model.head_dim": 258})
        self.assertIn("head_dim = 258: training takes heads of at most 256 values", done.err)

    def test_what_does_not_fit_is_refused(self):
        """With the numbers and keys, by the plan and by the run, at once whatever the numbers."""
        large = {"batch_seqs": 1 << 20, "accumulate": 1 << 20, "seq_len": 2048,
                 "model.max_position_embeddings": 4096}
        for words in (("--plan", "--json"), ()):
            done = program.run("train", self.config("large", **large), *words, status=1,
                               timeout=20)
            self.assertRegex(done.err, r"the run needs \d+ MB and \d+ MB are free: .*batch_seqs")
        self.assertEqual(self.checkpoints("large"), [])

    @unittest.skipUnless(os.environ.get("DURE_TEST_SPEED"), "DURE_TEST_SPEED=1 on a quiet machine")
    def test_speed(self):
        """Within 25 % of a run's."""
        keys = {**DEEPSEEK, "model.hidden_size": 256, "model.num_hidden_layers": 6,
                "model.moe_intermediate_size": 128, "model.vocab_size": 2048, "seq_len": 256,
                "batch_seqs": 16, "steps": 8}
        said = json.loads(self.plan("speed", "--json", **keys).out)["tok_s"]
        self.train("speed", keys=keys)
        speeds = sorted(line["tok_s"] for line in self.metrics("speed")[1:])
        self.assertAlmostEqual(said / speeds[len(speeds) // 2], 1, delta=0.25)


class LearningRate(Base):
    def find(self, *words, status=0, **keys):
        return program.run("train", self.config("found", "llama", **keys), "--lr-find", *words,
                           status=status)

    def test_json(self):
        """Rates rise by equal factors until the loss explodes; the folder is not made."""
        self.write_tokens("cycle.bin", [i * i % VOCAB for i in range(3000)])
        keys = {"data.tokens": self.path("cycle.bin"), "seq_len": 32}
        found = json.loads(self.find("--json", **keys).out)
        rates = [step["lr"] for step in found["steps"]]
        for a, b in zip(rates, rates[1:]):
            self.assertAlmostEqual(b / a, 10 ** (8 / 119), delta=1e-9)
        self.assertTrue(found["exploded"])
        self.assertLess(found["steepest"], found["lowest"])
        losses = [step["smooth"] for step in found["steps"]]
        self.assertEqual(rates[losses.index(min(losses))], found["lowest"])
        self.assertFalse(os.path.exists(self.path("found")))
        # A run with it learns.
        self.train("run", keys={**keys, "steps": 60, "optim.lr": found["steepest"]})
        lines = self.metrics("run")
        self.assertLess(lines[-1]["loss"], 0.7 * lines[0]["loss"])
        text = self.find(**keys).out
        self.assertIn(f"suggested: optim.lr = {found['steepest']:.1e}\n", text)
        self.assertIn(f"and explodes at {rates[-1]:.2e}\n", text)

    def test_refusals(self):
        """Random tokens teach nothing; --resume goes on, which this does not."""
        rng = random.Random(7)
        self.write_tokens("noise.bin", [rng.randrange(VOCAB) for _ in range(9000)])
        self.assertIn("no learning rate from 1e-07 to 10 lowers the loss",
                      self.find(status=1, **{"data.tokens": self.path("noise.bin")}).err)
        for word in ("--resume", "--overwrite", "--plan"):
            self.assertIn("leave the run's folder alone", self.find(word, status=2).err)


class Spike(Base):
    def test_the_run_stops_and_keeps_the_checkpoint_before(self):
        """20 steps of one token and then any: the message names the steps."""
        rng = random.Random(9)
        self.write_tokens("jump.bin", [5] * 1280 + [rng.randrange(VOCAB) for _ in range(1280)])
        done = self.train("spike", status=1,
                          keys={"data.tokens": self.path("jump.bin"), "spike.factor": 2,
                                "spike.steps": 3, "steps": 40, "checkpoint.every": 1,
                                "checkpoint.keep": 1})
        self.assertRegex(done.err,
                         r"step 23: the loss is \S+, and since step 21 above 2 times the smoothed")
        self.assertIn("step-000020", self.checkpoints("spike"))
        self.assertEqual(self.metrics("spike")[-1]["step"], 23)


if __name__ == "__main__":
    tap.main()
