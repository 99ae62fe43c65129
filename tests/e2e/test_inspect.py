"""`dure inspect`."""
import os
import unittest

import program
import tap

MODEL = program.model("deepseek_v3_yarn")


class Inspect(unittest.TestCase):
    def test_json(self):
        value = program.run("inspect", MODEL, "--json", "--tensors", "-c", "1k").json
        config = __import__("json").loads(program.read(MODEL, "config.json"))
        hparams = value["hparams"]
        for ours, theirs in (("n_layer", "num_hidden_layers"), ("d_model", "hidden_size"),
                             ("kv_rank", "kv_lora_rank"), ("n_expert", "n_routed_experts"),
                             ("n_expert_used", "num_experts_per_tok"), ("n_vocab", "vocab_size")):
            self.assertEqual(hparams[ours], config[theirs], ours)
        self.assertEqual((value["architecture"], value["format"]), ("deepseek2", "safetensors"))
        self.assertEqual(sum(t["bytes"] for t in value["tensors"]),
                         sum(t["bytes"] for t in value["types"].values()))
        sizes = sum(os.path.getsize(os.path.join(MODEL, name)) for name in os.listdir(MODEL)
                    if name.endswith(".safetensors"))
        self.assertEqual(value["file_bytes"], sizes)
        # A token's cache: kv_rank + rope_dim values of F32 in each layer.
        (memory,) = value["memory"]
        per_token = (hparams["kv_rank"] + hparams["rope_dim"]) * hparams["n_layer"] * 4
        self.assertEqual((memory["ctx"], memory["cache_bytes"]), (1024, 1024 * per_token))
        self.assertEqual(memory["total_bytes"], memory["cache_bytes"] + memory["weights_bytes"])
        self.assertLess(value["params_active"], value["params"])
        self.assertLess(value["bytes_per_token"], value["weights_bytes"])

    def test_text_says_the_same(self):
        value = program.run("inspect", MODEL, "--json").json
        lines = program.run("inspect", MODEL, "--tensors").out.splitlines()
        for name, number in value["hparams"].items():
            self.assertIn(f"{name:15} {number:.10g}", lines)
        self.assertTrue(any(line.startswith("model.embed_tokens.weight") for line in lines))

    def test_mistakes(self):
        self.assertIn("/nowhere", program.run("inspect", "/nowhere", status=1).err)
        done = program.run("inspect", os.path.join(program.GOLDEN, "tokenizers/gpt-2"), status=1)
        self.assertEqual(len(done.err.splitlines()), 1)


if __name__ == "__main__":
    tap.main()
