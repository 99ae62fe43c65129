"""Model files from an enemy: each gives one line naming file, place and reason, and status 1."""
import json
import os
import shutil
import struct
import tempfile
import unittest

import program
import tap


def split(data):
    """(header object, tensor bytes) of a safetensors file."""
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), data[8 + n:]


def join(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


class Directory(unittest.TestCase):
    """A copy of a fixture with one thing wrong."""

    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)
        for name in os.listdir(program.model("deepseek_v3_noqlora")):
            shutil.copy(os.path.join(program.model("deepseek_v3_noqlora"), name), self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def edit_config(self, **changes):
        config = json.loads(program.read(self.dir, "config.json"))
        for key, value in changes.items():
            if value is None:
                config.pop(key, None)
            else:
                config[key] = value
        with open(self.path("config.json"), "w") as file:
            json.dump(config, file)

    def edit_weights(self, change):
        with open(self.path("model.safetensors"), "rb") as file:
            header, body = split(file.read())
        result = change(header, body)
        with open(self.path("model.safetensors"), "wb") as file:
            file.write(result if result is not None else join(header, body))

    def refuse(self, *parts):
        for command in (("inspect", self.dir), ("run", self.dir, "--raw", "-p", "x", "-n", "1")):
            done = program.run(*command, status=1)
            self.assertEqual(done.out, "")
            self.assertEqual(len(done.err.splitlines()), 1, done.err)
            for part in (self.dir, *parts):
                self.assertIn(part, done.err)

    def test_config(self):
        for changes, part in (({"hidden_size": None}, "hidden_size"),
                              ({"hidden_size": 1 << 40}, "hidden_size"),
                              ({"num_hidden_layers": -3}, "num_hidden_layers"),
                              ({"num_hidden_layers": "two"}, "num_hidden_layers"),
                              ({"model_type": "gpt_neox"}, "gpt_neox"),
                              ({"model_type": None}, "model_type"),
                              ({"n_routed_experts": 7}, "expert"),
                              ({"vocab_size": 1 << 23}, "embed_tokens"),
                              ({"kv_lora_rank": 48}, "kv_a")):
            with self.subTest(changes):
                original = program.read(self.dir, "config.json")
                self.edit_config(**changes)
                self.refuse(part)
                with open(self.path("config.json"), "w") as file:
                    file.write(original)

    def test_broken_json(self):
        for text in ("", "{", "[]", "{\"a\": 1,}", "[" * 100000, "{\"a\": \"\\ud800\"}", "\xff"):
            with self.subTest(text[:10]):
                with open(self.path("config.json"), "w", encoding="latin-1") as file:
                    file.write(text)
                self.refuse("config.json")

    def test_missing_tensor(self):
        self.edit_weights(lambda header, body: header.update(
            other=header.pop("model.layers.1.self_attn.o_proj.weight")))
        self.refuse("model.layers.1.self_attn.o_proj.weight", "missing")

    def test_missing_expert(self):
        name = "model.layers.1.mlp.experts.5.up_proj.weight"
        self.edit_weights(lambda header, body: header.update(other=header.pop(name)))
        self.refuse(name, "missing")

    def test_wrong_shape(self):
        def change(header, body):
            header["model.layers.0.mlp.up_proj.weight"]["shape"].reverse()
            header["model.layers.0.mlp.up_proj.weight"]["shape"][0] *= 2
            header["model.layers.0.mlp.up_proj.weight"]["shape"][1] //= 2
        self.edit_weights(change)
        self.refuse("model.layers.0.mlp.up_proj.weight", "expected")

    def test_wrong_type(self):
        def change(header, body):
            header["model.norm.weight"].update(dtype="I16")
        self.edit_weights(change)
        self.refuse("model.norm.weight", "I16")

    def test_offsets(self):
        name = "lm_head.weight"
        for offsets in ([0, 1 << 62], [-8, 8], [8, 0], [1 << 63, 1 << 64], "all", [0]):
            with self.subTest(offsets):
                original = open(self.path("model.safetensors"), "rb").read()
                self.edit_weights(lambda h, b: h[name].update(data_offsets=offsets))
                self.refuse("model.safetensors")
                with open(self.path("model.safetensors"), "wb") as file:
                    file.write(original)

    def test_truncated(self):
        original = open(self.path("model.safetensors"), "rb").read()
        for n in (0, 1, 7, 8, 100, 5000, len(original) // 2, len(original) - 1):
            with self.subTest(n):
                with open(self.path("model.safetensors"), "wb") as file:
                    file.write(original[:n])
                self.refuse("model.safetensors")

    def test_index(self):
        os.remove(self.path("model.safetensors"))
        for index in ({"weight_map": {"a": "../../etc/passwd"}}, {"weight_map": {"a": "/dev/zero"}},
                      {"weight_map": {"a": "none.safetensors"}}, {"weight_map": []}, {},
                      {"weight_map": {"a": "model.safetensors.index.json"}}):
            with self.subTest(index):
                with open(self.path("model.safetensors.index.json"), "w") as file:
                    json.dump(index, file)
                self.refuse()

    def test_nothing_there(self):
        os.remove(self.path("model.safetensors"))
        self.refuse("model.safetensors")


if __name__ == "__main__":
    tap.main()
