"""`dure quantize`: the types of its mixes, and a receipt that is true."""
import math
import os
import signal
import subprocess

import folder
import program
import tap
from big_model import write_big_model

TEXT = "Many hands make light work. 여럿이 함께 하면 일이 가볍다. for i in range(10): print(i)\n" * 6


def log_softmax(row):
    top = max(row)
    norm = top + math.log(math.fsum(math.exp(v - top) for v in row))
    return [v - norm for v in row]


class Quantize(folder.InFolder):
    def setUp(self):
        super().setUp()
        self.text = self.path("text.txt")
        with open(self.text, "w", encoding="utf-8") as file:
            file.write(TEXT)

    def logits(self, model, ids):
        with open(self.path("ids.txt"), "w", encoding="ascii") as file:
            file.write(" ".join(map(str, ids)))
        program.run("logits", model, "--tokens-file", self.path("ids.txt"), "-o",
                    self.path("l.npy"))
        (n, n_vocab), flat = program.npy(self.path("l.npy"))
        return [flat[t * n_vocab:(t + 1) * n_vocab] for t in range(n)]

    def test_receipt_is_what_the_logits_say(self):
        model, out = program.model("qwen2"), self.path("q8.gguf")
        value = program.run("quantize", model, out, "--type", "Q8_0", "--check", self.text, "--ctx",
                            "64", "--json").json
        asked = program.run("run", model, "--raw", "-f", self.text, "-n", "1", "--json").json
        ids = asked["prompt_tokens"]
        kl, same = 0.0, 0
        for start in range(0, len(ids), 64):
            part = ids[start:start + 64]
            for p, q in zip(self.logits(model, part), self.logits(out, part), strict=True):
                log_p, log_q = log_softmax(p), log_softmax(q)
                kl += math.fsum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q))
                same += log_p.index(max(log_p)) == log_q.index(max(log_q))
        check = value["check"]
        self.assertEqual(check["n_tokens"], len(ids))
        self.assertAlmostEqual(check["kl_divergence"], kl / len(ids), delta=1e-7)
        self.assertAlmostEqual(check["top1_agreement"], same / len(ids), delta=1e-9)
        types = program.run("inspect", out, "--json").json["types"]
        self.assertEqual({t: v["bytes"] for t, v in types.items()}, value["types"])
        self.assertEqual(value["bytes"], sum(value["types"].values()))
        self.assertAlmostEqual(value["bits_per_weight"],
                               8 * value["bytes"] / program.run("inspect", out,
                                                                "--json").json["params"],
                               delta=0.01)
        self.assertFalse(value["from_quantised"])

    def test_every_mix_runs(self):
        write_big_model(self.path("model"), vocab=2048, width=512)
        sizes = []
        for mix in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K"):
            with self.subTest(mix):
                out = self.path("q.gguf")
                value = program.run("quantize", self.path("model"), out, "--type", mix.lower(),
                                    "--json").json
                self.assertEqual(value["type"], mix)
                self.assertIn(mix.removesuffix("_M"), value["types"])
                sizes.append(value["bits_per_weight"])
                answer = program.run("run", out, "--raw", "-p", "abc", "-n", "2", "--temp", "0",
                                     "--json").json
                self.assertEqual(len(answer["tokens"]), 2)
        self.assertLess(sizes[-1], 3.5)
        self.assertAlmostEqual(sizes[0], 8.5, delta=0.1)

    def test_quantised_input_and_importance(self):
        model = program.model("qwen3moe")
        first, second = self.path("a.gguf"), self.path("b.gguf")
        program.run("quantize", model, first, "--type", "Q8_0")
        value = program.run("imatrix", first, self.text, "-o", self.path("im.gguf"), "--json").json
        self.assertGreater(value["experts"], 0)
        done = program.run("quantize", first, second, "--type", "Q4_0", "--imatrix",
                           self.path("im.gguf"))
        self.assertIn("block-quantised already", done.out)
        self.assertIn("bits per weight", done.out)
        plain = self.path("c.gguf")
        program.run("quantize", first, plain, "--type", "Q4_0")
        with open(second, "rb") as a, open(plain, "rb") as b:
            self.assertNotEqual(a.read(), b.read())  # the importance changes the packing

    def test_interrupt_leaves_nothing(self):
        write_big_model(self.path("big"))
        before = sorted(os.listdir(self.folder))
        process = subprocess.Popen([program.DURE, "quantize", self.path("big"), self.path("q.gguf"),
                                    "--type", "Q3_K_M", "--threads", "1"], stderr=subprocess.PIPE)
        program.wait_until_it_writes(process, self.folder)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_mistakes(self):
        model = program.model("llama_bf16")
        for words, message in (((model, self.path("x.gguf")), "--type is missing"),
                               ((model, self.path("x.gguf"), "--type", "Q9"), "known are Q8_0, Q6_K"),
                               ((model, self.path("x"), "--type", "Q8_0"), "ends in .gguf")):
            self.assertIn(message, program.run("quantize", *words, status=2).err)
        done = program.run("quantize", model, self.path("x.gguf"), "--type", "Q8_0", "--imatrix",
                           os.path.join(program.GOLDEN, "tokenizers/gpt-2/vocab.gguf"), status=1)
        self.assertIn("vocab.gguf", done.err)
        self.assertFalse(os.path.exists(self.path("x.gguf")))


if __name__ == "__main__":
    tap.main()
