"""Model files from an enemy: each gives one line naming file, place and reason, and status 1.

The address space is limited to what intact files of this size need, with room to spare: what a file
asks for beyond its own size is refused by the system and shows as another message."""
import json
import os
import shutil
import struct
import tempfile
import unittest

import gguf_file
import program
import tap


def split(data):
    """(header object, tensor bytes) of a safetensors file."""
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), data[8 + n:]


def join(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


LIMIT = None if program.sanitized() else 128 << 20


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
        for words in (("inspect", self.dir), ("run", self.dir, "--raw", "-p", "x", "-n", "1")):
            done = program.run(*words, status=1, address_space=LIMIT)
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


class Gguf(unittest.TestCase):
    """A GGUF that dure wrote with one thing wrong: a dense model, and one with latent attention and
    experts."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "model.gguf")

    def original(self, fixture="llama_tied"):
        """The bytes of a fixture as GGUF."""
        program.run("convert", program.model(fixture), self.path)
        with open(self.path, "rb") as file:
            return file.read()

    def each_command(self, status):
        for words in (("inspect", self.path),
                      ("run", self.path, "--raw", "-p", "x", "-n", "1", "-c", "64", "-t", "1",
                       "--json")):
            yield program.run(*words, status=status, address_space=LIMIT)

    def refuse(self, data, *parts):
        with open(self.path, "wb") as file:
            file.write(data)
        for done in self.each_command(1):
            self.check(done, *parts)

    def check(self, done, *parts):
        self.assertEqual(done.out, "")
        self.assertEqual(len(done.err.splitlines()), 1, done.err)
        for part in ("model.gguf", *parts):
            self.assertIn(part, done.err)

    def edited(self, data, name, value):
        """data with another value of a key; None: without it."""
        f = gguf_file.parse(data)
        f.keys.pop(name, None)
        if value is not None:
            f.keys[name] = value
        return f.join()

    def refuse_keys(self, data, cases):
        """cases: key, its value, parts of the message"""
        for name, value, *parts in cases:
            with self.subTest(name, value=value):
                self.refuse(self.edited(data, name, value), *parts)

    def test_intact(self):
        for fixture in ("llama_tied", "deepseek_v3_noqlora"):
            data = self.original(fixture)
            self.assertEqual(gguf_file.parse(data).join(), data)
            for done in self.each_command(0):
                self.assertGreater(len(done.out_bytes), 0)

    def test_truncated(self):
        data = self.original()
        f = gguf_file.parse(data)
        end, keys_end = len(f.header()), len(f.header(tensors=[]))
        for n in (0, 3, 4, 7, 8, 15, 16, 23, 24, 31, 40, 100, keys_end // 2, keys_end - 1,
                  keys_end + 5, (keys_end + end) // 2, end - 1, end, end + 100, len(data) // 2,
                  len(data) - 1):
            with self.subTest(n):
                self.refuse(data[:n])

    def test_counts(self):
        data = self.original()
        for at, what in ((8, "tensors"), (16, "keys")):
            for n in (1 << 63, 1 << 40, 1 << 20, 100000):
                with self.subTest(what, n=n):
                    self.refuse(data[:at] + struct.pack("<Q", n) + data[at + 8:], str(n), what)

    def test_beginning(self):
        data = self.original()
        self.refuse(b"GGML" + data[4:], "not a GGUF")
        for version in (0, 1, 4, 99, 3 << 24):
            with self.subTest(version):
                self.refuse(data[:4] + struct.pack("<I", version) + data[8:], "GGUF")

    def test_strings(self):
        data = self.original()
        f = gguf_file.parse(data)
        for n in ((1 << 64) - 1, 1 << 63, 1 << 40, 100 << 20, len(data)):
            with self.subTest(n):
                # the name of the first key, and a value
                self.refuse(data[:24] + struct.pack("<Q", n) + data[32:], "key 1", str(n))
                f.keys["general.name"] = gguf_file.STRING, struct.pack("<Q", n) + b"x"
                self.refuse(f.join(), "general.name")

    def test_values(self):
        array = lambda kind, n: (gguf_file.ARRAY, struct.pack("<IQ", kind, n))  # noqa: E731
        self.refuse_keys(self.original(), [
            ("general.name", (13, b""), "general.name", "13"),
            ("general.name", (1 << 31, b""), "general.name"),
            ("general.name", array(gguf_file.ARRAY, 1), "general.name"),
            ("general.name", array(99, 1), "general.name", "99"),
            ("general.name", array(gguf_file.U32, 1 << 62), "general.name"),
            ("general.name", array(gguf_file.STRING, 1 << 40), "general.name"),
            ("general.name", array(0, 1 << 20), "general.name"),
        ])

    def test_names(self):
        data = self.original()
        f = gguf_file.parse(data)
        keys, tensors = list(f.keys.items()), list(f.tensors.items())
        self.refuse(f.join(keys=keys + keys[:1]), keys[0][0], "twice")
        self.refuse(f.join(tensors=tensors + tensors[:1]), "token_embd.weight", "twice")
        self.refuse(f.join(tensors=[("", tensors[0][1])] + tensors[1:]), "tensor 1")
        self.refuse(f.join(tensors=[("a\0b", tensors[0][1])] + tensors[1:]), "tensor 1")
        self.refuse(f.join(tensors=[("a" * 300, tensors[0][1])] + tensors[1:]), "tensor 1", "300")

    def test_shapes(self):
        data = self.original()
        name = "blk.1.ffn_down.weight"
        for dims, *parts in (([1 << 32, 1 << 32],), ([96, 1 << 62],), ([96, -96],), ([0, 96],),
                             ([96, 0],), ([],), ([96] * 5,), ([96, 1 << 40], "end"),
                             ([48, 192], "96"), ([96], "96"), ([96, 96, 2],), ([96, 95], "95")):
            with self.subTest(dims):
                f = gguf_file.parse(data)
                f.tensors[name].dims = [d % (1 << 64) for d in dims]
                self.refuse(f.join(), name, *parts)
        for kind, *parts in ((4, "4"), (99, "99"), (26, "I32"), (12, "block")):
            with self.subTest(type=kind):
                f = gguf_file.parse(data)
                f.tensors[name].type = kind
                self.refuse(f.join(), name, *parts)

    def test_offsets(self):
        data = self.original()
        name = "blk.1.ffn_down.weight"
        good = gguf_file.parse(data).tensors[name].offset
        for offset, *parts in ((good + 1, "alignment"), (good + 32, "end"), (good - 32, "overlap"),
                               (0, "overlap"), (1 << 40, "end"), ((1 << 64) - 32,)):
            with self.subTest(offset):
                f = gguf_file.parse(data)
                f.tensors[name].offset = offset
                self.refuse(f.join(), name, *parts)

    def test_alignment(self):
        self.refuse_keys(self.original(), [
            ("general.alignment", gguf_file.u32(n), "general.alignment")
            for n in (0, 1, 24, 1 << 31)])

    def test_missing(self):
        data = self.original()
        for name in ("blk.1.ffn_down.weight", "token_embd.weight", "output_norm.weight"):
            with self.subTest(name):
                f = gguf_file.parse(data)
                f.tensors["other.weight"] = f.tensors.pop(name)
                self.refuse(f.join(), name, "missing")
        self.refuse_keys(data, [
            (key, None, key) for key in ("general.architecture", "llama.block_count",
                                         "llama.embedding_length", "llama.attention.head_count")])
        f = gguf_file.parse(data)
        f.keys["llama.block"] = f.keys.pop("llama.block_count")
        self.refuse(f.join(), "llama.block_count", "missing")

    def test_hyper_parameters(self):
        u32, f32, text = gguf_file.u32, gguf_file.f32, gguf_file.text
        most = 0xffffffff
        self.refuse_keys(self.original(), [
            ("general.architecture", text("mamba"), "mamba"),
            ("general.architecture", text(""), "general.architecture"),
            ("general.architecture", u32(1), "general.architecture"),
            *((f"llama.{key}", u32(n), f"llama.{key}")
              for key in ("block_count", "embedding_length", "attention.head_count",
                          "context_length", "feed_forward_length", "attention.key_length",
                          "attention.head_count_kv", "rope.dimension_count")
              for n in (0, most)),
            ("llama.block_count", u32(3), "blk.2"),
            ("llama.block_count", text("two"), "llama.block_count"),
            ("llama.block_count", f32(2.0), "llama.block_count"),
            ("llama.attention.head_count", u32(7)),
            ("llama.attention.head_count_kv", u32(4)),
            ("llama.embedding_length", u32(95)),
            ("llama.vocab_size", u32(most), "llama.vocab_size"),
            ("llama.rope.dimension_count", u32(7)),
            ("llama.rope.freq_base", f32(-1.0), "llama.rope.freq_base"),
            ("llama.rope.freq_base", f32(float("nan")), "llama.rope.freq_base"),
            ("llama.rope.scaling.type", text("magic"), "magic"),
            ("llama.attention.layer_norm_rms_epsilon", f32(float("nan")), "epsilon"),
            ("llama.attention.layer_norm_rms_epsilon", u32(1), "epsilon"),
        ])

    def test_expert_parameters(self):
        u32 = gguf_file.u32
        self.refuse_keys(self.original("deepseek_v3_noqlora"), [
            *((f"deepseek2.{key}", u32(0xffffffff), f"deepseek2.{key}")
              for key in ("expert_count", "expert_used_count", "expert_feed_forward_length",
                          "expert_shared_count", "leading_dense_block_count", "expert_gating_func",
                          "expert_group_count", "expert_group_used_count",
                          "attention.kv_lora_rank", "attention.q_lora_rank",
                          "attention.key_length_mla", "attention.value_length_mla",
                          "rope.dimension_count")),
            ("deepseek2.expert_used_count", u32(9), "expert"),
            ("deepseek2.expert_used_count", u32(0), "expert_used_count"),
            ("deepseek2.expert_count", u32(7), "expert"),
            ("deepseek2.expert_group_count", u32(3), "group"),
            ("deepseek2.expert_group_used_count", u32(3), "group"),
            ("deepseek2.leading_dense_block_count", u32(3), "dense"),
            ("deepseek2.expert_weights_norm", u32(1), "expert_weights_norm"),
            ("deepseek2.attention.kv_lora_rank", u32(16), "kv_a"),
            ("deepseek2.rope.dimension_count", u32(64)),
        ])

    def test_tokenizer(self):
        """`inspect` needs none."""
        u32, text = gguf_file.u32, gguf_file.text
        data = self.original()
        for name, value, *parts in (
                ("tokenizer.ggml.model", text("wordpiece"), "wordpiece"),
                ("tokenizer.ggml.pre", text("none such"), "none such"),
                ("tokenizer.ggml.tokens", None, "tokenizer.ggml.tokens"),
                ("tokenizer.ggml.tokens", u32(1), "tokenizer.ggml.tokens"),
                ("tokenizer.ggml.bos_token_id", u32(320), "tokenizer.ggml.bos_token_id"),
                ("tokenizer.ggml.token_type", u32(1), "tokenizer.ggml.token_type")):
            with self.subTest(name, value=value):
                with open(self.path, "wb") as file:
                    file.write(self.edited(data, name, value))
                self.check(program.run("run", self.path, "--raw", "-p", "x", "-n", "1", status=1,
                                       address_space=LIMIT), *parts)


if __name__ == "__main__":
    tap.main()
