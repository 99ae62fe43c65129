"""`dure convert`: both containers say the same, in logits, tokens and templates."""
import json
import os
import shutil
import signal
import subprocess

import folder
import program
import tap
from big_model import write_big_model

TEXT = "두레는 함께 일하는 것이다.\n\n\tdef f(x): return 12345 + x  # 漢字 🌾\n"


class Convert(folder.InFolder):
    def logits(self, model, tokens):
        program.run("logits", model, "--tokens-file", tokens, "-o", self.path("out.npy"))
        return program.npy(self.path("out.npy"))[1]

    def near(self, got, want, tolerance):
        """max|difference| / max|logit|"""
        distance = max(abs(a - b) for a, b in zip(got, want, strict=True))
        self.assertLessEqual(distance, tolerance * max(map(abs, want)))

    def same_text(self, a, b):
        """Tokens and rendered prompts of two models are equal."""
        messages = self.path("messages.json")
        with open(messages, "w", encoding="utf-8") as file:
            json.dump([{"role": "user", "content": "물음"}], file)
        for words in (("tokenize",), ("tokenize", "--parse-special", "--bos")):
            name, *flags = words
            self.assertEqual(program.run(name, a, *flags, stdin=TEXT).out,
                             program.run(name, b, *flags, stdin=TEXT).out)
        self.assertEqual(program.run("template", a, "--messages", messages).out,
                         program.run("template", b, "--messages", messages).out)

    def test_all_end_tokens_survive(self):
        """GLM and Qwen end answers with several tokens, which their configs alone name."""
        copy, gguf, back = self.path("copy"), self.path("m.gguf"), self.path("back")
        shutil.copytree(program.model("glm4_moe_lite"), copy)
        config = json.loads(program.read(copy, "config.json"))
        config["eos_token_id"] = [1, 40]
        with open(os.path.join(copy, "config.json"), "w") as file:
            json.dump(config, file)
        with open(os.path.join(copy, "generation_config.json"), "w") as file:
            json.dump({"eos_token_id": [1, 41, 100000]}, file)
        program.run("convert", copy, gguf)
        program.run("convert", gguf, back)
        self.assertEqual(json.loads(program.read(back, "config.json"))["eos_token_id"], [1, 40, 41])
        for model in (copy, gguf, back):  # both would come, were they not end tokens
            done = program.run("run", model, "--raw", "-p", "a", "-n", "1", "--temp", "0", "--json",
                               "--logit-bias", "41=100").json
            self.assertEqual((done["tokens"], done["finish"]), ([41], "stop"))

    def test_sampling_goes_along(self):
        copy, gguf = self.path("copy"), self.path("m.gguf")
        shutil.copytree(program.model("qwen3"), copy)
        with open(os.path.join(copy, "generation_config.json"), "w") as file:
            json.dump({"do_sample": False, "temperature": 0.7, "top_k": 20}, file)
        program.run("convert", copy, gguf)
        words = ("--raw", "-p", "a", "-n", "20", "--ignore-eos", "--json")
        greedy = program.run("run", gguf, *words, "--temp", "0").json["tokens"]
        for model in (copy, gguf):
            for seed in ("1", "2"):
                done = program.run("run", model, *words, "--seed", seed).json
                self.assertEqual(done["tokens"], greedy)

    def test_every_fixture_there_and_back(self):
        for model in program.models():
            name = os.path.basename(model)
            with self.subTest(name):
                tokens = os.path.join(model, "ids.txt")
                gguf, back = self.path(name + ".gguf"), self.path(name)
                program.run("convert", model, gguf)
                there = self.logits(gguf, tokens)
                program.run("convert", gguf, back)
                # Llama's rows are stored in another order in GGUF, so q . k rounds otherwise.
                self.near(self.logits(back, tokens), there, 1e-5)
                if "fp8" not in name:  # FP8 becomes BF16, which rounds
                    self.near(self.logits(model, tokens), there, 1e-5)
                self.same_text(model, gguf)
                self.same_text(gguf, back)

    def test_types(self):
        """A dense model: with experts a rounding can change which ones are chosen. Weights rounded
        by a relative 2^-12 (F16), 2^-9 (BF16) or about 2^-8 (Q8_0) move the logits by a few times
        that."""
        model = program.model("qwen2")
        tokens = os.path.join(model, "ids.txt")
        exact = self.logits(model, tokens)
        for kind, tolerance in (("f32", 0), ("f16", 2 ** -9), ("bf16", 2 ** -6), ("q8_0", 2 ** -5)):
            with self.subTest(kind):
                gguf = self.path(kind + ".gguf")
                value = program.run("convert", model, gguf, "--type", kind, "--json").json
                self.assertEqual(value["output"], gguf)
                self.assertIn(kind.upper(), value["types"])
                self.near(self.logits(gguf, tokens), exact, tolerance)
                types = program.run("inspect", gguf, "--json").json["types"]
                self.assertEqual({t: v["bytes"] for t, v in types.items()}, value["types"])

    def test_other_files_go_along(self):
        model = program.model("deepseek_v3_noqlora")
        program.run("convert", model, self.path("copy"), "--type", "f32")
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json",
                     "chat_template.jinja"):
            self.assertEqual(program.read(self.path("copy"), name), program.read(model, name))

    def test_interrupt_leaves_nothing(self):
        write_big_model(self.path("big"))
        process = subprocess.Popen([program.DURE, "convert", self.path("big"), self.path("o.gguf"),
                                    "--type", "q8_0", "--threads", "1"], stderr=subprocess.PIPE)
        program.wait_until_it_writes(process, self.folder)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(os.listdir(self.folder), ["big"])

    def test_mistakes(self):
        model = program.model("llama_bf16")
        taken = self.path("taken")
        with open(taken, "w", encoding="ascii"):
            pass
        for words, status, message in (
                ((model,), 2, "an argument is missing: IN OUT"),
                ((model, self.path("dir"), "--type", "q8_0"), 2, "safetensors have no such type"),
                ((model, taken), 2, "does not end in .gguf"),
                ((model, "/nowhere/x.gguf"), 1, "/nowhere/x.gguf"),
                (("/nowhere", self.path("x.gguf")), 1, "/nowhere")):
            with self.subTest(message):
                self.assertIn(message, program.run("convert", *words, status=status).err)
        self.assertEqual(os.listdir(self.folder), ["taken"])


if __name__ == "__main__":
    tap.main()
