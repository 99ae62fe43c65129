"""Tests with a folder of their own, and the keys of tiny models to train in it."""
import array
import os
import tempfile
import time
import unittest

import program

VOCAB = 64
LLAMA = {"model.arch": "llama", "model.vocab_size": VOCAB, "model.hidden_size": 32,
         "model.intermediate_size": 48, "model.num_hidden_layers": 2,
         "model.num_attention_heads": 4, "model.num_key_value_heads": 2,
         "model.initializer_range": 0.1}
DEEPSEEK = {"model.arch": "deepseek_v3", "model.vocab_size": VOCAB, "model.hidden_size": 32,
            "model.intermediate_size": 48, "model.num_hidden_layers": 2,
            "model.num_attention_heads": 2, "model.q_lora_rank": 0, "model.kv_lora_rank": 16,
            "model.qk_nope_head_dim": 8, "model.qk_rope_head_dim": 8, "model.v_head_dim": 8,
            "model.n_routed_experts": 8, "model.num_experts_per_tok": 2,
            "model.moe_intermediate_size": 16, "model.n_shared_experts": 1,
            "model.first_k_dense_replace": 1, "model.tie_word_embeddings": "true",
            "model.initializer_range": 0.1, "router.bias_step": 0.01, "router.seq_balance": 0.001}
SPEED = ("tok_s", "products", "peak")  # of metrics.jsonl


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text):
        """The path of a file with that text, or those bytes."""
        with open(self.path(name), "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        return self.path(name)

    def write_tokens(self, name, tokens, code="H"):
        return self.write(name, array.array(code, tokens).tobytes())

    def metrics(self, out):
        return program.json_lines(self.path(out), "metrics.jsonl")

    def measured(self, out):
        """What a second run repeats of metrics: all but the speed."""
        return [{key: value for key, value in line.items() if key not in SPEED}
                for line in self.metrics(out)]

    def files(self, out, step):
        """{name: bytes} of the checkpoint of a step."""
        folder = self.path(out, f"step-{step:06}")
        found = {}
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = file.read()
        return found

    def assert_same_run(self, out, other, step=12):
        self.assertEqual(self.measured(out), self.measured(other))
        a, b = self.files(out, step), self.files(other, step)
        self.assertEqual(sorted(a), sorted(b))
        for name in a:
            self.assertTrue(a[name] == b[name], f"{name} differs")

    def wait_for_lines(self, out, n, process, seconds=60):
        """Until a process that trains has written n lines of metrics."""
        end = time.monotonic() + seconds
        while True:
            try:
                if len(self.metrics(out)) >= n:
                    return
            except (OSError, ValueError):  # not there yet, or a line half written
                pass
            self.assertLess(time.monotonic(), end)
            self.assertIsNone(process.poll(), process.stderr.read() if process.poll() else "")
            time.sleep(0.005)
