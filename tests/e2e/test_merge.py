"""`dure train` with lora.rank, and `dure merge`: what an adapter is, and that folding it in keeps the
logits."""
import array
import json
import os
import shutil
import struct

import folder
import program
import tap

MODELS = os.path.join(program.SOURCE, "tests", "golden", "models")
# Everything that adapters go with, over a model with a block behind the trunk.
ALL = {"mtp__weight": 0.3, "router__bias_step": 0.01, "router__seq_balance": 0.001,
       "qat__type": "Q8_0"}


def read_bytes(*parts):
    with open(os.path.join(*parts), "rb") as file:
        return file.read()


def tensors(path):
    """The bytes of each."""
    data = read_bytes(path)
    n, = struct.unpack_from("<Q", data)
    return {name: data[8 + n + entry["data_offsets"][0]:8 + n + entry["data_offsets"][1]]
            for name, entry in json.loads(data[8:8 + n]).items() if name != "__metadata__"}


class Merge(folder.InFolder):
    def setUp(self):
        super().setUp()
        self.write_tokens("tokens.bin", [(i * i * 7 + i // 5) % 90 for i in range(600)])

    def model(self, name):
        return os.path.join(MODELS, name)

    def train(self, out, init, *words, steps=12, status=0, **keys):
        all_keys = {"init": init, "out": self.path(out), "steps": steps, "seq_len": 32,
                    "batch_seqs": 2, "data.tokens": self.path("tokens.bin"), "optim.lr": 0.01,
                    "lora.rank": 4,
                    **{key.replace("__", "."): value for key, value in keys.items()}}
        sets = [word for key, value in all_keys.items() for word in ("--set", f"{key}={value}")]
        return program.run("train", "--quiet", *sets, *words, status=status)

    def losses(self, out, key="loss"):
        return [json.loads(line)[key]
                for line in read_bytes(self.path(out), "metrics.jsonl").splitlines()]

    def merge(self, *words, status=0):
        return json.loads(program.run("merge", *words, "--json", status=status).out)

    def test_a_few_steps_lower_the_loss(self):
        for name, keys in (("llama_tied", {}), ("deepseek_v3_noqlora", {}),
                           ("deepseek_v3_mtp", {}), ("llama_tied", {"qat__type": "Q4_0"}),
                           ("deepseek_v3_mtp", ALL)):
            with self.subTest(name, **keys):
                shutil.rmtree(self.path(name), ignore_errors=True)
                before = {file: read_bytes(self.model(name), file)
                          for file in os.listdir(self.model(name))
                          if file.endswith(".safetensors")}
                self.train(name, self.model(name), steps=20, **keys)
                losses = self.losses(name)
                self.assertLess(losses[-1], losses[0] - 0.5)
                if "mtp__weight" in keys:
                    of_next = self.losses(name, "mtp_loss")
                    self.assertLess(of_next[-1], of_next[0] - 0.5)
                for file, data in before.items():
                    self.assertEqual(read_bytes(self.model(name), file), data)

    def test_files_are_those_of_the_adapter(self):
        self.train("out", self.model("llama_tied"), lora__targets="q_proj,v_proj", lora__alpha=6)
        step = self.path("out", "step-000012")
        self.assertEqual(set(os.listdir(step)) & {"config.json", "model.safetensors"}, set())
        config = json.loads(read_bytes(step, "adapter_config.json"))
        self.assertEqual((config["peft_type"], config["r"], config["lora_alpha"],
                          config["target_modules"]), ("LORA", 4, 6, ["q_proj", "v_proj"]))
        self.assertEqual(set(tensors(os.path.join(step, "adapter_model.safetensors"))),
                         {f"base_model.model.model.layers.{i}.self_attn.{m}_proj.lora_{f}.weight"
                          for i in range(2) for m in "qv" for f in "AB"})

    def test_resumed_and_threads_to_the_bit(self):
        for name, keys in (("llama_tied", {"optim__name": "muon"}), ("deepseek_v3_noqlora", {}),
                           ("deepseek_v3_mtp", {**ALL, "accumulate": 2})):
            with self.subTest(name):
                keys["ema__decay"] = 0.9
                self.train(f"{name}-a", self.model(name), "--threads", "1", **keys)
                for steps, threads in ((5, 2), (9, 3), (12, 2)):
                    self.train(f"{name}-b", self.model(name), "--resume", "--threads",
                               str(threads), steps=steps, **keys)
                step = "step-000012"
                files = os.listdir(self.path(f"{name}-a", step))
                self.assertEqual(sorted(files), sorted(os.listdir(self.path(f"{name}-b", step))))
                for file in files:
                    self.assertEqual(read_bytes(self.path(f"{name}-a", step), file),
                                     read_bytes(self.path(f"{name}-b", step), file), file)

    def test_another_base_is_refused(self):
        base = shutil.copytree(self.model("llama_tied"), self.path("base"))
        self.train("out", base, steps=4)
        file = os.path.join(base, "model.safetensors")
        data = bytearray(read_bytes(file))
        data[-5] ^= 1
        with open(file, "wb") as out:
            out.write(data)
        self.assertIn("is not what it was", self.train("out", base, "--resume", status=1).err)
        data[-5] ^= 1
        with open(file, "wb") as out:
            out.write(data)
        self.train("out", base, "--resume")

    def test_another_shape_of_base_is_no_damage(self):
        """Nothing of the run goes: neither with a base of another shape nor without one."""
        base = shutil.copytree(self.model("llama_tied"), self.path("base"))
        self.train("out", base, checkpoint__every=4)
        def all_files():
            return {os.path.join(folder, name): read_bytes(folder, name)
                    for folder, _, names in os.walk(self.path("out")) for name in names}
        before = all_files()
        shutil.rmtree(base)
        for message in ("base: ", "is not what it was when the run was begun"):
            done = self.train("out", base, "--resume", steps=13, checkpoint__every=4, status=1)
            self.assertIn(message, done.err)
            self.assertNotIn("not resumed from", done.err)
            self.assertEqual(all_files(), before)
            if not os.path.exists(base):
                shutil.copytree(self.model("qwen2"), base)
        shutil.rmtree(base)
        shutil.copytree(self.model("llama_tied"), base)
        self.train("out", base, "--resume", steps=13, checkpoint__every=4)
        self.assertEqual(len(self.losses("out")), 13)

    def test_merged_logits(self):
        for name in ("llama_tied", "qwen2", "deepseek_v3_noqlora", "deepseek_v3_fp8"):
            with self.subTest(name):
                base, step = self.model(name), self.path(name, "step-000012")
                self.train(name, base)
                done = self.merge(base, step, self.path(f"{name}.hf"), "--type", "f32")
                self.assertGreater(done["adapters"], 0)
                self.assertLess(done["difference"], 1e-4)
                self.assertGreater(done["effect"], 1e-2)
                done = self.merge(base, step, self.path(f"{name}.gguf"), "--type", "f32")
                self.assertLess(done["difference"], 1e-4)
                # The same adapter over the same weights in the other container
                self.assertLess(self.distance(self.path(f"{name}.hf"), self.path(f"{name}.gguf")),
                                1e-4)
                self.assertGreater(self.distance(base, self.path(f"{name}.hf")), 1e-2)

    def distance(self, one, other):
        """The largest difference of their logits, by the largest logit."""
        with open(self.path("tokens.txt"), "w", encoding="ascii") as file:
            file.write("3 5 7 11 13 17")
        logits = []
        for model in (one, other):
            out = self.path("logits.npy")
            program.run("logits", model, "--tokens-file", self.path("tokens.txt"), "-o", out,
                        "--cache-type", "f32")
            data = read_bytes(out)
            logits.append(array.array("f", data[10 + struct.unpack_from("<H", data, 8)[0]:]))
        largest = max(abs(value) for value in logits[0])
        return max(abs(a - b) for a, b in zip(*logits)) / largest

    def test_biases_of_routers(self):
        """They are saved beside the adapters, with the router as it was, and go into the model."""
        base, step = self.model("deepseek_v3_mtp"), self.path("out", "step-000012")
        self.train("out", base, **ALL)
        config = json.loads(read_bytes(step, "adapter_config.json"))
        self.assertEqual(config["modules_to_save"], ["mlp.gate"])
        saved = tensors(os.path.join(step, "adapter_model.safetensors"))
        before = tensors(os.path.join(base, "model.safetensors"))
        done = self.merge(base, step, self.path("merged"), "--type", "f32")
        self.assertLess(done["difference"], 1e-4)
        merged = tensors(self.path("merged", "model.safetensors"))
        for layer in (1, 2):
            router = f"model.layers.{layer}.mlp.gate."
            bias = saved["base_model.model." + router + "e_score_correction_bias"]
            self.assertEqual(bias, merged[router + "e_score_correction_bias"])
            self.assertNotEqual(bias, before[router + "e_score_correction_bias"])
            self.assertEqual(saved["base_model.model." + router + "weight"],
                             merged[router + "weight"])
        # The block behind the trunk is merged too.
        name = "model.layers.2.eh_proj.weight"
        self.assertIn("base_model.model.model.layers.2.eh_proj.lora_A.weight", saved)
        self.assertNotEqual(before[name], merged[name])
        # Over another router they are refused.
        changed = shutil.copytree(base, self.path("changed"))
        file = os.path.join(changed, "model.safetensors")
        data = read_bytes(file)
        value = before["model.layers.1.mlp.gate.weight"]
        with open(file, "wb") as out:
            out.write(data.replace(value, value[:8] + bytes(4) + value[12:]))
        self.assertIn("is not the router of the model", program.run(
            "merge", changed, step, self.path("no"), status=1).err)

    def test_merged_and_quantised_as_trained(self):
        """The validation loss of a run with rounded sums is that of the merged model's file."""
        base = self.model("llama_tied")
        checks = {"data__validation": self.path("tokens.bin"), "validate__batches": 4}
        for mix in ("Q8_0", "Q4_0"):
            with self.subTest(mix):
                for out, keys in ((mix, {"qat__type": mix}), (mix + "-plain", {})):
                    self.train(out, base, **keys, **checks)
                file = self.path(f"{mix}.gguf")
                self.merge(base, self.path(mix, "step-000012"), file, "--type", mix)
                self.train(f"{mix}-file", file, steps=1, optim__lr=0, **checks)
                trained, merged, other = (
                    self.last_validation(out) for out in (mix, f"{mix}-file", f"{mix}-plain"))
                self.assertLess(abs(trained - merged), 1e-5 * merged)
                self.assertGreater(abs(trained - other), 1e-4 * merged)

    def last_validation(self, out):
        return json.loads(read_bytes(self.path(out), "metrics.jsonl").splitlines()[-1])[
            "validation"]

    def test_adapters_that_rounding_hides(self):
        base, step = self.model("llama_tied"), self.path("out", "step-000012")
        self.train("out", base, optim__lr=1e-6)
        done = self.merge(base, step, self.path("merged"), "--type", "f32")
        self.assertLess(done["difference"], done["effect"])
        said = program.run("merge", base, step, self.path("rounded"), "--type", "bf16", status=1)
        self.assertIn("--type f32 does not round", said.err)

    def test_quantised_base(self):
        for name in ("llama_tied", "deepseek_v3_noqlora"):
            with self.subTest(name):
                base = self.path(f"{name}.gguf")
                program.run("convert", self.model(name), base, "--type", "q8_0")
                self.train(name, base, steps=20)
                losses = self.losses(name)
                self.assertLess(losses[-1], losses[0] - 0.5)
                step = self.path(name, "step-000020")
                for out in ("merged.gguf", "merged"):
                    done = self.merge(base, step, self.path(f"{name}-{out}"))
                    self.assertIn("F32", done["types"])
                done = self.merge(base, step, self.path(f"{name}-small.gguf"), "--type", "q8_0")
                self.assertGreater(done["difference"], 0)  # told, whatever it is

    def test_mistakes(self):
        base = self.model("llama_tied")
        for keys, message in (({"lora__targets": "q_porj"}, "no linear layer"),
                              ({"lora__targets": "lm_head"}, "no linear layer"),
                              ({"lora__rank": 0, "lora__alpha": 3}, "lora.rank is missing"),
                              ({"mtp__weight": 0.1}, "adapters cannot make one"),
                              ({"router__bias_step": 0.1}, "no bias that chooses experts")):
            with self.subTest(keys):
                status = 2 if "lora__rank" in keys else 1
                self.assertIn(message, self.train("bad", base, status=status, **keys).err)
        self.train("out", base)
        step = self.path("out", "step-000012")
        self.assertIn(f"dure merge BASE {step} NEW", program.run("run", step, "-p", "hi", status=1).err)
        self.assertIn("of another shape", program.run(
            "merge", self.model("qwen2"), step, self.path("no"), status=1).err)
        self.assertIn("no such type", program.run("merge", base, step, self.path("no"), "--type",
                                                  "Q4_K_M", status=2).err)
        self.assertIn(f"its last checkpoint is {step}\n", program.run(
            "merge", base, self.path("out"), self.path("no"), status=1).err)
        shutil.rmtree(self.path("out", "step-000012"))
        self.assertIn("adapter_config.json", program.run("merge", base, step, self.path("no"),
                                                         status=1).err)
        self.assertFalse(os.path.exists(self.path("no")))


if __name__ == "__main__":
    tap.main()
