"""OUT/report.html and `dure report`: what the page shows, that it is whole and harmless, and that it is
the same however the run was computed and stopped; samples."""
import array
import html.parser
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time
import xml.etree.ElementTree

import folder
import program
import tap
from folder import DEEPSEEK, LLAMA, VOCAB

RUN = {"steps": 12, "seq_len": 16, "batch_seqs": 4, "seed": 3, "optim.lr": 0.01,
       "schedule.warmup_steps": 3, "validate.every": 4, "mtp.weight": 0.3}
CURVES = ["loss", "lr", "grad_norm", "speed"]
EXPERTS = ["experts", "overload", "maxvio", "biases", "bias"]
VOID = {"meta", "br"}


class Page(html.parser.HTMLParser):
    """A page whose tags are paired, which runs nothing and loads nothing. texts: what stands in it;
    ids: of its elements."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "img", "iframe", "object", "a", "form", "base"), tag
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("src", "href", "xlink:href"), name
            assert "url(" not in (value or ""), value
            if name == "id":
                assert value not in self.ids, value
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            assert "url(" not in data and "@import" not in data
        else:
            self.texts.append(data)


def without_time(text):
    """The page without what depends on the clock and the machine."""
    for pattern in (r'<figure id="speed">.*?</figure>', r'<div class="card time">.*?</div>',
                    r'<details open class="time">.*?</details>', r'<p class="note time">.*?</p>'):
        text, n = re.subn(pattern, "", text, flags=re.DOTALL)
        assert n > 0, pattern
    return text


def figure(text, name):
    return re.search(rf'<figure id="{name}".*?</figure>', text, re.DOTALL).group(0)


class Base(folder.InFolder):
    def setUp(self):
        super().setUp()
        rng = random.Random(5)
        self.write_tokens("tokens.bin", [rng.randrange(VOCAB) for _ in range(700)])

    def words(self, out, model=DEEPSEEK, **more):
        keys = {**model, **RUN, "data.tokens": self.path("tokens.bin"),
                "data.validation": self.path("tokens.bin"), "out": self.path(out), **more}
        return [word for key, value in keys.items() if value is not None
                for word in ("--set", f"{key}={value}")]

    def train(self, out, *words, status=0, **more):
        return program.run("train", *self.words(out, **more), *words, status=status)

    def report(self, *parts):
        return program.read(self.path(*parts), "report.html")

    def check(self, text, curves):
        page = Page(text)
        for name in curves:
            self.assertIn(name, page.ids)
        drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
        self.assertEqual(len(drawings), len(curves))
        for drawing in drawings:
            svg = xml.etree.ElementTree.fromstring(drawing)
            self.assertEqual(svg.get("role"), "img")
            title, desc = (svg.find(tag) for tag in ("title", "desc"))
            self.assertEqual(svg.get("aria-labelledby"), f"{title.get('id')} {desc.get('id')}")
            self.assertTrue(title.text and desc.text)
            self.assertNotIn("nan", drawing.replace("</", ""))
            self.assertNotIn("inf", drawing)
        return page


class Report(Base):
    def test_the_page(self):
        self.train("a")
        text = self.report("a")
        page = self.check(text, CURVES + ["balance"] + EXPERTS)
        lines = program.json_lines(self.path("a"), "metrics.jsonl")
        said = " ".join(page.texts)
        self.assertIn("lowest %.4g at step" % min(line["loss"] for line in lines), said)
        self.assertIn("deepseek_v3", said)
        self.assertIn("step-000012", said)
        for step in range(1, 13):
            self.assertIn(f"step {step}\ntraining loss", text)
        # Every key, and a mark at those that are given.
        for key in program.run("train", "--keys", "--json").json:
            given = key["key"] in (*DEEPSEEK, *RUN, "data.tokens", "data.validation", "out")
            self.assertEqual(f"<td>{key['key']} *</td>" in text, given, key)
            self.assertEqual(f"<td>{key['key']}</td>" in text, not given, key)
        # A dense model has no experts; without a validation loss there is none.
        self.train("b", model=LLAMA, **{"mtp.weight": None, "data.validation": None})
        self.assertIn("validation loss", page.texts)
        page = self.check(self.report("b"), CURVES)
        self.assertNotIn("validation loss", page.texts)

    def test_threads(self):
        pages = []
        for n in (1, 2, 3):
            self.train("a", "--overwrite", "--threads", n, "-q", steps=140)
            pages.append(without_time(self.report("a")))
        self.assertEqual(pages[0], pages[1])
        self.assertEqual(pages[0], pages[2])

    def test_both_halves(self):
        """A run that was stopped and went on has the curves of one that never was."""
        keys = {"checkpoint.every": 100, "validate.every": 20}
        self.train("a", steps=130, **{**keys, "checkpoint.every": 65})
        self.assertIn("steps 129 to 130", figure(self.report("a"), "loss"))
        many = self.words("a", steps=1000000, **keys)
        process = subprocess.Popen([program.DURE, "train", *many, "--resume"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while len(program.read(self.path("a"), "metrics.jsonl").splitlines()) < 150:
            self.assertIsNone(process.poll())
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        process.communicate()
        self.assertEqual(process.returncode, 130)
        stopped = len(program.read(self.path("a"), "metrics.jsonl").splitlines())
        self.assertIn(f"<b>{stopped}</b><span>of 1000000", self.report("a"))
        self.train("a", "--resume", steps=stopped + 50, **keys)
        self.train("whole", steps=stopped + 50, **keys)
        for name in ["lr", "grad_norm", "balance"] + EXPERTS:
            self.assertEqual(figure(self.report("a"), name), figure(self.report("whole"), name))
        processes = json.loads(program.read(self.path("a"), "run.json"))["processes"]
        self.assertEqual([process["step"] for process in processes], [0, 130, stopped])

    def test_made_anew(self):
        self.train("a")
        first = self.report("a")
        os.remove(self.path("a", "report.html"))
        done = program.run("report", self.path("a"))
        self.assertEqual(done.out, self.path("a", "report.html") + "\n")
        self.assertEqual(without_time(self.report("a")), without_time(first))
        program.run("report", self.path("a"), "-o", self.path("page.html"))
        self.assertEqual(without_time(program.read(self.path("page.html"))), without_time(first))
        # Lines that a run has not finished writing are left out.
        with open(self.path("a", "metrics.jsonl"), "a", encoding="utf-8") as file:
            file.write('{"step":13,"loss":')
        program.run("report", self.path("a"))
        self.assertEqual(without_time(self.report("a")), without_time(first))
        os.remove(self.path("a", "run.json"))
        program.run("report", self.path("a"))
        self.check(self.report("a"), CURVES + ["balance"] + EXPERTS)
        self.assertIn("metrics.jsonl is missing", program.run(
            "report", self.folder, status=1).err)
        self.assertIn("nowhere", program.run("report", self.path("nowhere"), status=1).err)

    def test_after_a_failure(self):
        """The page of a run that ends with an error shows the steps before it."""
        self.train("a", status=1, **{"optim.lr": 1000, "optim.weight_decay": 1000,
                                     "schedule.warmup_steps": 0})
        n = len(program.json_lines(self.path("a"), "metrics.jsonl"))
        self.assertIn(f"<b>{n}</b><span>of 12", self.report("a"))

    def test_damaged_metrics(self):
        """Lines that are lost are told, and kept."""
        self.train("a", steps=6)
        path = self.path("a", "metrics.jsonl")
        lines = program.read(path).splitlines(keepends=True)
        damaged = "".join(lines[:1] + ["garbage\n"] + lines[2:])
        self.write(path, damaged)
        done = self.train("a", "--resume", steps=8)
        self.assertIn("metrics.jsonl: ends at step 1, the checkpoint is of step 6\n", done.err)
        self.assertIn("metrics.jsonl: was damaged; it is kept as metrics.jsonl.bad\n", done.err)
        self.assertEqual([line["step"] for line in program.json_lines(path)], [1, 7, 8])
        self.assertEqual(program.read(path + ".bad"), damaged)
        os.remove(path)
        done = self.train("a", "--resume", steps=9)
        self.assertIn("metrics.jsonl: ends at step 0, the checkpoint is of step 8\n", done.err)
        self.assertNotIn("damaged", done.err)
        done = self.train("a", "--resume", steps=10)
        self.assertNotIn("metrics.jsonl:", done.err)
        self.train("a", "--overwrite", steps=1)
        self.assertFalse(os.path.exists(path + ".bad"))

    def test_after_a_kill(self):
        """A page that a killed process did not come to is made up for."""
        self.train("a")
        first = self.report("a")
        os.remove(self.path("a", "report.html"))
        self.train("a", "--resume")
        for name in CURVES:
            self.assertEqual(figure(self.report("a"), name), figure(first, name))

    def test_pipe(self):
        self.train("a", steps=2)
        os.remove(self.path("a", "metrics.jsonl"))
        os.mkfifo(self.path("a", "metrics.jsonl"))
        for done in (program.run("report", self.path("a"), status=1),
                     self.train("a", "--resume", steps=3, status=1)):
            self.assertIn("metrics.jsonl: not a regular file", done.err)

    def test_tiny_speeds(self):
        os.mkdir(self.path("a"))
        self.write("a/metrics.jsonl", json.dumps({"step": 1, "loss": 1, "lr": 1e-320, "tokens": 64,
                                                  "tok_s": 1e-320}) + "\n")
        program.run("report", self.path("a"))
        text = self.report("a")
        self.check(text, re.findall(r'<figure id="(\w+)"', text))
        self.assertIn("<b>-</b><span>of steps alone", text)
        self.assertNotIn("inf", re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL))

    def test_no_room_for_it(self):
        """A page that cannot be written stops no training."""
        os.makedirs(self.path("a", "report.html"))
        done = self.train("a", "-q")
        self.assertIn("no report: ", done.err)
        self.assertEqual(done.out, self.path("a", "step-000012") + "\n")

    def test_long_runs(self):
        """The page stays small, whatever the run."""
        os.mkdir(self.path("a"))
        rng = random.Random(1)
        sizes = []
        for n in (2000, 60000):
            with open(self.path("a", "metrics.jsonl"), "w", encoding="utf-8") as file:
                for step in range(1, n + 1):
                    line = {"step": step, "loss": 2 + rng.random(), "grad_norm": rng.random(),
                            "lr": 1e-3 * rng.random(), "tokens": step, "tok_s": rng.random()}
                    if step * 64 % n < 64:
                        line["experts"] = [[rng.randrange(99) for _ in range(64)] for _ in range(26)]
                        line["biases"] = [[rng.random() for _ in range(64)] for _ in range(26)]
                    file.write(json.dumps(line) + "\n")
            program.run("report", self.path("a"))
            text = self.report("a")
            self.check(text, CURVES + [name for name in EXPERTS if name != "maxvio"])
            sizes.append(len(text))
        self.assertLess(max(sizes), 500_000)
        self.assertLess(sizes[1], 1.2 * sizes[0])

    def test_hostile(self):
        """Names, values and texts that would be markup, numbers that would be none."""
        name = "<b onload=x>&\"'<"
        evil = "</pre></style><script>alert('x')</script><img src=x onerror=y>&lt;\""
        self.train(name)
        with open(self.path(name, "samples.jsonl"), "w", encoding="utf-8") as file:
            file.write(json.dumps({"step": 4, "samples": [{"prompt": evil, "text": evil + "\0\x1b"},
                                                          {"prompt": 3}, []]}) + "\n")
        path = self.path(name, "run.json")
        run = json.loads(program.read(path))
        run["config"]["data.tokens"] = run["model"]["arch"] = run["config"]["steps"] = evil
        run["processes"][0]["machine"] = evil
        with open(path, "w", encoding="utf-8") as file:
            json.dump(run, file)
        program.run("report", self.path(name))
        page = self.check(self.report(name), CURVES + ["balance"] + EXPERTS)
        self.assertIn(name, page.texts)
        self.assertGreaterEqual("".join(page.texts).count(evil), 6)
        for text in ("[]", "{", "null", '{"processes": 3, "config": [], "model": "x"}'):
            self.write(path, text)
            program.run("report", self.path(name))
            self.check(self.report(name), CURVES + ["balance"] + EXPERTS)

    def test_hostile_metrics(self):
        os.mkdir(self.path("a"))
        layer = [1] * 8
        lines = [{"step": 1, "loss": 1e308, "lr": -1e-320, "grad_norm": -1, "tok_s": 1e-300,
                  "tokens": 1e300, "experts": "x", "validation": True},
                 {"step": 2, "loss": [], "experts": [[], layer, 3, layer], "biases": [[], [1e308] * 8]},
                 {"step": 3, "loss": 0, "experts": [[], layer[1:], [], layer], "biases": {}},
                 {"step": 4, "loss": 1e-310, "experts": [[], [-1] * 8, [], [1e300] * 8],
                  "biases": [[], ["x"] * 8, [], layer]},
                 {"step": 2 ** 40, "loss": 1e29, "tokens": -5, "tok_s": 5},
                 {"step": 2 ** 62, "loss": 5}, {"step": 2 ** 62 + 1, "loss": 5}]
        for n in range(1, len(lines) + 1):
            self.write("a/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines[:n]))
            program.run("report", self.path("a"))
            text = self.report("a")
            self.check(text, re.findall(r'<figure id="(\w+)"', text))
            self.assertLess(len(text), 500_000)


class Experts(Base):
    def test_counts_and_biases(self):
        self.train("a", **{"checkpoint.every": 1, "checkpoint.keep": 20})
        for line in program.json_lines(self.path("a"), "metrics.jsonl"):
            counts, biases = line["experts"], line["biases"]
            self.assertEqual([len(row) for row in counts], [0, 8, 8])  # dense, trunk, behind it
            self.assertEqual([len(row) for row in biases], [0, 8, 8])
            self.assertEqual(sum(counts[1]), 64 * 2)
            self.assertAlmostEqual(max(counts[1]) / 16 - 1, line["overload"])
            with open(self.path("a", f"step-{line['step']:06}", "model.safetensors"), "rb") as file:
                data = file.read()
            n, = struct.unpack_from("<Q", data)
            header = json.loads(data[8:8 + n])
            begin, end = header["model.layers.1.mlp.gate.e_score_correction_bias"]["data_offsets"]
            kept = array.array("f", data[8 + n + begin:8 + n + end])
            for x, y in zip(kept, biases[1]):
                self.assertAlmostEqual(x, y, delta=1e-5 * abs(x) + 1e-30)

    def test_which_steps(self):
        self.train("a", steps=300, **{"validate.every": 300})
        lines = program.json_lines(self.path("a"), "metrics.jsonl")
        told = [line["step"] for line in lines if "experts" in line]
        self.assertEqual(told, [*range(1, 128), *range(128, 256, 2), *range(256, 301, 4)])
        self.assertEqual(told, [line["step"] for line in lines if "biases" in line])


class Samples(Base):
    def setUp(self):
        super().setUp()
        self.write("text", "one two three four five six seven one two three " * 20)
        done = program.run("tokenizer", "train", "--vocab", 280, "--output", self.path("tok"),
                           "--json", self.path("text"))
        self.keys = {"model.vocab_size": done.json["vocab"], "tokenizer": self.path("tok"),
                     "checkpoint.every": 4, "checkpoint.keep": 20, "sample.tokens": 7}

    def test_what_the_checkpoints_say(self):
        prompts = ["one two", "three \"<b>\""]
        for name, n_threads in (("a", 1), ("b", 2)):
            self.train(name, "--threads", n_threads,
                       **{**self.keys, "sample.prompt": json.dumps(prompts)})
        self.assertEqual(program.read(self.path("a"), "samples.jsonl"),
                         program.read(self.path("b"), "samples.jsonl"))
        lines = program.json_lines(self.path("a"), "samples.jsonl")
        self.assertEqual([line["step"] for line in lines], [4, 8, 12])
        for line in lines:
            self.assertEqual([sample["prompt"] for sample in line["samples"]], prompts)
            for sample in line["samples"]:
                said = program.run("run", self.path("a", f"step-{line['step']:06}"), "--raw", "-p",
                                   sample["prompt"], "-n", 7, "--temp", 0, "--deterministic",
                                   "--json").json
                self.assertEqual(sample["text"], said["text"])
        page = self.check(self.report("a"), CURVES + ["balance"] + EXPERTS)
        self.assertIn("samples", page.ids)
        for line in lines:
            self.assertIn(f"Step {line['step']}", page.texts)
        self.assertIn(prompts[1], page.texts)

    def test_stopping_leaves_no_trace(self):
        keys = {**self.keys, "sample.prompt": "one"}
        self.train("whole", **keys)
        self.train("a", **{**keys, "steps": 9, "checkpoint.every": 4})
        self.assertEqual([line["step"] for line in program.json_lines(
            self.path("a"), "samples.jsonl")], [4, 8, 9])  # 9 was the last one
        for name in (9, 8):
            shutil.rmtree(self.path("a", f"step-{name:06}"))
        # One that a killed process did not come to is made up for.
        self.write("a/samples.jsonl", "")
        self.train("a", "--resume", **keys)
        self.assertEqual(program.read(self.path("a"), "samples.jsonl"),
                         program.read(self.path("whole"), "samples.jsonl"))
        self.write("a/samples.jsonl", "")
        before = self.report("a")
        os.remove(self.path("a", "report.html"))
        self.train("a", "--resume", **keys)
        newest = re.compile(r"<h3>Step 12</h3>.*?</pre>", re.DOTALL)
        self.assertEqual(newest.findall(self.report("a")), newest.findall(before))
        self.assertEqual(len(newest.findall(before)), 1)

    def test_mistakes(self):
        keys = {**self.keys, "sample.prompt": "one"}
        done = self.train("a", status=1, **{**keys, "tokenizer": None})
        self.assertIn("sample.prompt: the run has no tokenizer", done.err)
        for prompt in ("[", "[]", "[3]", '[""]', '["a", null]'):
            done = self.train("a", status=2, **{**keys, "sample.prompt": prompt})
            self.assertIn("sample.prompt", done.err)
        self.assertIn("asked with init's own tokenizer", program.run(
            "train", "--set", f"init={program.model('llama_tied')}", "--set", "lora.rank=2", "--set",
            "sample.prompt=one", "--set", "steps=1", "--set", "out=x", "--set", "data.tokens=x",
            "--set", "tokenizer=x", status=2).err)

    def test_adapters(self):
        """What the merged models say, of F32 and of quantised ones."""
        self.train("start", **self.keys)
        start, file = self.path("start", "step-000012"), self.path("q8.gguf")
        program.run("convert", start, file, "--type", "q8_0")
        keys = {"lora.rank": 4, "router.bias_step": 0.01, "optim.lr": 0.03, "checkpoint.every": 6,
                "checkpoint.keep": 9, "sample.prompt": "one two", "sample.tokens": 7}
        for name, init, end in (("a", start, ""), ("b", file, ".gguf")):
            self.train(name, model={}, init=init, **{**keys, "mtp.weight": 0})
            lines = program.json_lines(self.path(name), "samples.jsonl")
            self.assertEqual([line["step"] for line in lines], [6, 12])
            texts = [self.ask(init)]
            for line in lines:
                merged = self.path(f"{name}{line['step']}{end}")
                program.run("merge", init, self.path(name, f"step-{line['step']:06}"), merged)
                self.assertEqual(line["samples"][0]["text"], self.ask(merged))
                texts.append(line["samples"][0]["text"])
            self.assertGreater(len(set(texts)), 1)  # adapters count

    def ask(self, model):
        return program.run("run", model, "--raw", "-p", "one two", "-n", 7, "--temp", 0,
                           "--deterministic", "--json").json["text"]

    def test_a_prompt_that_fills_the_context(self):
        done = self.train("a", "-q", **{**self.keys, "model.max_position_embeddings": 16,
                                        "sample.prompt": json.dumps(["one two three " * 20, "one"])})
        self.assertEqual(done.out, self.path("a", "step-000012") + "\n")
        self.assertNotIn("no samples", done.err)
        for line in program.json_lines(self.path("a"), "samples.jsonl"):
            self.assertEqual([type(s["text"]) for s in line["samples"]], [type(None), str])
        self.assertIn("(the prompt fills the context)", self.report("a"))

    def test_a_signal_ends_samples(self):
        keys = {**self.keys, "model.max_position_embeddings": 1 << 20, "sample.prompt": "one",
                "sample.tokens": 1 << 19, "checkpoint.every": 2}
        process = subprocess.Popen([program.DURE, "train", *self.words("a", **keys)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.wait_for_lines("a", 2, process)
        time.sleep(0.3)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertIn("no samples of step 2: interrupted", err)
        self.assertEqual(program.read(self.path("a"), "samples.jsonl"), "")


if __name__ == "__main__":
    tap.main()
