"""The event files of a run as TensorBoard's own reader sees them. Needs the Python package
tensorboard; TensorFlow is not needed."""
import importlib.util
import os
import random
import tempfile
import unittest
import array

import program
import tap

KEYS = {"model.arch": "llama", "model.vocab_size": 64, "model.hidden_size": 32,
        "model.intermediate_size": 48, "model.num_hidden_layers": 1, "model.num_attention_heads": 2,
        "seq_len": 16, "batch_seqs": 2, "schedule.warmup_steps": 3}


def scalars(path):
    """[(step, {tag: value})] of a file's summaries, in order; and the steps where sessions start."""
    from tensorboard.backend.event_processing import event_file_loader
    from tensorboard.util import tensor_util
    found, starts = [], []
    for event in event_file_loader.EventFileLoader(path).Load():
        if event.WhichOneof("what") == "summary":
            values = {}
            for value in event.summary.value:  # the loader turns simple values into tensors
                values[value.tag] = float(tensor_util.make_ndarray(value.tensor))
            found.append((event.step, values))
        elif event.WhichOneof("what") == "session_log":
            starts.append(event.step)
    return found, starts


@unittest.skipUnless(importlib.util.find_spec("tensorboard"), "needs tensorboard")
class Events(unittest.TestCase):
    def test_a_run_that_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            out, data = os.path.join(folder, "out"), os.path.join(folder, "tokens.bin")
            with open(data, "wb") as file:
                array.array("H", [random.Random(1).randrange(64) for _ in range(500)]).tofile(file)
            sets = [f"{key}={value}" for key, value in KEYS.items()]
            sets += [f"data.tokens={data}", f"out={out}"]
            words = [word for pair in sets for word in ("--set", pair)]
            program.run("train", *words, "--set", "steps=3")
            program.run("train", *words, "--set", "steps=5", "--resume")
            files = sorted(name for name in os.listdir(out) if "tfevents" in name)
            self.assertEqual(len(files), 2)
            first, starts = scalars(os.path.join(out, files[0]))
            self.assertEqual(starts, [1])
            second, starts = scalars(os.path.join(out, files[1]))
            self.assertEqual(starts, [4])
            lines = program.json_lines(out, "metrics.jsonl")
            self.assertEqual([step for step, _ in first + second], [1, 2, 3, 4, 5])
            for (_, values), line in zip(first + second, lines):
                for key in ("loss", "grad_norm", "lr"):
                    self.assertAlmostEqual(values[key] / line[key], 1, delta=1e-6)
                self.assertAlmostEqual(values["speed/tok_s"] / line["tok_s"], 1, delta=1e-6)


if __name__ == "__main__":
    tap.main()
