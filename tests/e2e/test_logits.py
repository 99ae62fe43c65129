"""`dure logits`: the reference's logits of every model fixture, and the same bits every way."""
import os
import tempfile
import unittest

import program
import tap


class Logits(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = os.path.join(folder.name, "out.npy")

    def logits(self, model, *words, tokens=None):
        tokens = tokens or os.path.join(model, "ids.txt")
        program.run("logits", model, "--tokens-file", tokens, "-o", self.out, *words)
        return program.npy(self.out)

    def test_every_fixture_agrees_with_the_reference(self):
        for model in program.models():
            with self.subTest(os.path.basename(model)):
                shape, got = self.logits(model)
                wanted_shape, wanted = program.npy(os.path.join(model, "logits.npy"))
                self.assertEqual(shape, wanted_shape)
                scale = max(map(abs, wanted))
                self.assertLessEqual(max(abs(a - b) for a, b in zip(got, wanted)), 2e-4 * scale)

    def test_same_bits_for_every_thread_count_and_chunk(self):
        for name in ("deepseek_v3_yarn", "qwen3moe"):
            _, one = self.logits(program.model(name), "--threads", "1")
            for words in (("--threads", "3"), ("--chunk", "1"), ("--chunk", "7", "--threads", "2")):
                with self.subTest(f"{name} {words}"):
                    _, other = self.logits(program.model(name), "--deterministic", *words)
                    self.assertEqual(one.tobytes(), other.tobytes())

    def test_every_isa_level(self):
        model = program.model("deepseek_v2_lite")
        _, wanted = program.npy(os.path.join(model, "logits.npy"))
        scale = max(map(abs, wanted))
        for isa in program.run("version", "--json").json["isa"]:
            with self.subTest(isa):
                _, got = self.logits(model, "--isa", isa)
                self.assertLessEqual(max(abs(a - b) for a, b in zip(got, wanted)), 2e-4 * scale)

    def test_mistakes_leave_no_file(self):
        model = program.model("llama_bf16")
        tokens = os.path.join(os.path.dirname(self.out), "ids.txt")
        for text, message in (("", "holds no token"), ("1 2 400", "token 400 at position 2"),
                              ("1 " * 5000, "context of 5000")):
            with open(tokens, "w", encoding="ascii") as file:
                file.write(text)
            done = program.run("logits", model, "--tokens-file", tokens, "-o", self.out, status=1)
            self.assertIn(message, done.err)
            self.assertEqual(os.listdir(os.path.dirname(self.out)), ["ids.txt"])
        self.assertIn("-o OUT.npy is missing",
                      program.run("logits", model, "--tokens-file", tokens, status=2).err)
        self.assertIn("--tokens-file is missing", program.run("logits", model, status=2).err)


if __name__ == "__main__":
    tap.main()
