"""bench/compare_torch.py: what it asks of `dure train`, how it reads its metrics, its ratios, and what it
says when there is no PyTorch. The programs are scripts; PyTorch's ways are tried where it is."""
import importlib.util
import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest

import program
import tap

SCRIPT = os.path.join(program.SOURCE, "bench/compare_torch.py")
HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "numpy"))

# A `dure train` whose warm-up steps are slow and whose first turn is faster than its second.
FAKE_DURE = """#!/usr/bin/env python3
import json, os, sys
args = sys.argv[1:]
keys = dict(line.rstrip("\\n").split(" = ", 1) for line in open(args[1]))
with open({calls!r}, "a") as file:
    print(json.dumps([args, keys, os.path.getsize(keys["data.tokens"])]), file=file)
turn = sum(json.loads(line)[1]["dtype"] == keys["dtype"] for line in open({calls!r}))
if keys["dtype"] == "bf16":
    sys.exit("dure train: bf16 is not for me")
os.mkdir(keys["out"])
with open(os.path.join(keys["out"], "metrics.jsonl"), "w") as file:
    for step in range(1, int(keys["steps"]) + 1):
        speed = 1.0 if step <= 2 else 1000.0 / turn + step
        print(json.dumps({{"step": step, "loss": 7.5 - step / 8, "tok_s": speed,
                          "products": step / 10, "peak": turn / 4}}), file=file)
"""


class CompareTorch(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.dure, self.calls = (os.path.join(self.folder.name, n) for n in ("dure", "calls"))
        with open(self.dure, "w", encoding="utf-8") as file:
            file.write(FAKE_DURE.format(calls=self.calls))
        os.chmod(self.dure, os.stat(self.dure).st_mode | stat.S_IXUSR)

    def compare(self, *words, status=0, **environment):
        done = subprocess.run([sys.executable, SCRIPT, "--dure", self.dure, "--threads", "2", *words],
                              capture_output=True, text=True, timeout=280, check=False,
                              env={**os.environ, **environment})
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done

    def test_median_of_rounds_without_warm_up(self):
        done = self.compare("--json", "--models", "dense", "--ways", "dure-f32", "--rounds", "2",
                            "--steps", "3", "--batch", "2", "--seq", "8")
        value = json.loads(done.stdout)
        row, = value["models"]["dense"]
        self.assertEqual(row["rounds"], [1004.0, 504.0])  # steps 3 to 5: the middle is step 4
        self.assertEqual(row["tok_s"], 754.0)
        self.assertEqual((row["products"], row["peak"]), (0.4, 0.375))
        self.assertEqual((value["batch"], value["rounds"], value["steps"]), ([2, 8], 2, 3))

    def test_configuration_of_both_models(self):
        self.compare("--ways", "dure-f32", "--rounds", "1", "--steps", "1", "--set", "recompute=cheap")
        with open(self.calls, encoding="utf-8") as file:
            (args, dense, n_bytes), (_, moe, _) = map(json.loads, file)
        self.assertEqual(args[0], "train")
        self.assertEqual(args[2:], ["--threads", "2", "--set", "recompute=cheap"])
        self.assertEqual(n_bytes, 2 * (3 * 16 * 256 + 1))
        self.assertEqual((dense["model.arch"], dense["model.intermediate_size"]), ("llama", "688"))
        self.assertEqual((dense["seq_len"], dense["batch_seqs"], dense["steps"]), ("256", "16", "3"))
        self.assertEqual((dense["model.tie_word_embeddings"], dense["optim.clip"]), ("true", "1.0"))
        self.assertEqual((moe["model.arch"], moe["model.n_routed_experts"]), ("deepseek_v3", "16"))
        self.assertNotIn("model.q_lora_rank", moe)

    def test_a_way_that_fails_is_told_and_the_others_stay(self):
        done = self.compare("--models", "moe", "--ways", "dure-f32,dure-bf16", "--rounds", "2",
                            "--steps", "1", "--batch", "1", "--seq", "4", status=1)
        self.assertRegex(done.stdout, r"(?m)^dure-bf16 +failed$")
        self.assertRegex(done.stdout, r"(?m)^dure-f32 +75\d")
        self.assertIn("bf16 is not for me", done.stderr)
        self.assertEqual(done.stderr.count("not for me"), 1)  # not tried again

    def test_without_pytorch(self):
        with open(os.path.join(self.folder.name, "torch.py"), "w", encoding="utf-8") as file:
            file.write("raise ImportError('no torch here')\n")
        done = self.compare("--models", "dense", "--ways", "f32", "--rounds", "1", status=1,
                            PYTHONPATH=self.folder.name)
        self.assertRegex(done.stderr, "compare_torch.py: dense, f32: .*no (torch here|module)|numpy")

    def test_unknown_words(self):
        done = self.compare("--ways", "fp4", status=2)
        self.assertIn("no fp4: there are dure-f32", done.stderr)

    @unittest.skipUnless(HAS_TORCH, "no torch and transformers")
    def test_ratio_to_pytorch(self):
        done = self.compare("--json", "--models", "dense", "--ways", "dure-f32,f32", "--rounds", "1",
                            "--steps", "1", "--warmup", "2", "--batch", "1", "--seq", "8")
        ours, theirs = json.loads(done.stdout)["models"]["dense"]
        self.assertAlmostEqual(theirs["dure"]["ratio"], ours["tok_s"] / theirs["tok_s"])
        self.assertEqual(theirs["weights"], 6852864)
        self.assertLess(abs(theirs["loss"] - 7.6), 0.5)  # ln 2048
        self.assertLess(theirs["without_model"], theirs["resident"])


if __name__ == "__main__":
    tap.main()
