"""`dure bench`: the fields of its contract."""
import glob
import json
import math
import os
import shutil
import statistics
import struct
import tempfile
import unittest

import program
import tap

MODEL = program.model("deepseek_v3_yarn")


def matrices(model):
    """(name, rows, columns) of each matrix of a safetensors folder."""
    for path in glob.glob(os.path.join(model, "*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        for name, tensor in header.items():
            if len(tensor.get("shape", ())) == 2:
                yield (name, *tensor["shape"])


class Bench(unittest.TestCase):
    def test_json(self):
        value = program.run("bench", MODEL, "-p", "16", "-n", "8", "-c", "0,100", "-s", "3", "-r",
                            "4", "--threads", "2", "--json").json
        self.assertEqual([(v["test"], v["context"]) for v in value],
                         [("prefill", 0), ("decode", 0), ("prefill", 100), ("decode", 100)])
        for v in value:
            self.assertEqual((v["sequences"], v["threads"]), (3, 2))
            self.assertEqual((v["n_prompt"], v["n_gen"]),
                             (16, 0) if v["test"] == "prefill" else (0, 8))
            self.assertEqual(len(v["runs"]), 4)
            self.assertAlmostEqual(v["tok_s"] / statistics.median(v["runs"]), 1, delta=1e-9)
            self.assertGreater(min(v["runs"]), 0)
            self.assertAlmostEqual(v["bandwidth_fraction"] * v["bandwidth"],
                                   v["tok_s"] * v["bytes_per_token"], delta=1e-6 * v["bandwidth"])
            self.assertAlmostEqual(v["int8_fraction"] * v["int8_peak"],
                                   2 * v["tok_s"] * v["macs_per_token"],
                                   delta=1e-6 * v["int8_peak"])
            self.assertGreater(min(v["bandwidth"], v["int8_peak"], v["first_token_ms"]), 0)
            self.assertGreater(v["resident_bytes"], v["anonymous_bytes"])
            self.assertGreater(v["anonymous_bytes"], 0)
            self.assertIn("joules_per_token", v)
        # A longer cache is more to read in decode.
        self.assertGreater(value[3]["bytes_per_token"], value[1]["bytes_per_token"])

    def test_bytes_per_token_of_one_sequence(self):
        (decode,) = program.run("bench", MODEL, "-p", "0", "-n", "2", "-r", "1", "--json").json
        model = program.run("inspect", MODEL, "--json", "-c", "64").json
        cache = model["memory"][0]["cache_bytes"] / 64  # one position; half of n is cached
        self.assertAlmostEqual(decode["bytes_per_token"], model["bytes_per_token"] + cache, delta=1)

    def test_bytes_per_token_of_many_sequences(self):
        """Of 16 experts 4 are used by a token: by chance 16 (1 - (3/4)^n) different ones by n."""
        one, three = (program.run("bench", MODEL, "-p", "0", "-n", "2", "-r", "1", "-s", n,
                                  "--json").json[0]["bytes_per_token"] for n in ("1", "3"))
        cache = program.run("inspect", MODEL, "--json", "-c", "64").json["memory"][0]
        cache = cache["cache_bytes"] / 64
        experts = 4 * 3 * 64 * 32 * 4
        expected = (one - cache - experts +
                    experts / 4 * 16 * (1 - (3 / 4) ** 3)) / 3 + cache
        self.assertAlmostEqual(three, expected, delta=1)

    def test_macs_per_token(self):
        used = 0
        for name, rows, columns in matrices(MODEL):
            if "embed_tokens" not in name:
                used += rows * columns * (4 / 16 if ".experts." in name else 1)
        prefill, decode = program.run("bench", MODEL, "-p", "10", "-n", "2", "-r", "1",
                                      "--json").json
        self.assertEqual(decode["macs_per_token"], used)
        # A prompt needs the logits of its last token only.
        output = 320 * 64
        self.assertTrue(math.isclose(prefill["macs_per_token"], used - output + output / 10))

    def test_machine(self):
        value = program.run("bench", "--machine", "--json", "--threads", "2").json
        self.assertEqual(value["threads"], [1, 2])
        for speeds in (value["read_bytes_per_s"], value["read_4k_bytes_per_s"],
                       value["ops_per_s"]["int8"], value["ops_per_s"]["f32"]):
            self.assertEqual(len(speeds), 2)
            self.assertGreater(min(speeds), 1e6)
        self.assertGreaterEqual(value["cores"], 1)
        self.assertGreater(value["memory_bytes"], value["memory_available_bytes"])
        plain = program.run("bench", "--machine", "--isa", "c", "--threads", "1", "--json").json
        self.assertEqual((plain["isa"], plain["threads"]), ("c", [1, 1]))
        self.assertIsNone(plain["ops_per_s"]["AMX int8"])
        text = program.run("bench", "--machine", "--isa", "c", "--threads", "1").out
        for word in ("processor", "caches", "memory", "read, huge pages", "int8", "f32"):
            self.assertIn(word, text)

    def test_threads_and_memory_where_asked(self):
        """Pinned threads measure the machine with all cores, and no placement changes an answer."""
        both = program.run("bench", MODEL, "-p", "8", "-n", "2", "-r", "1", "--pin", "--numa",
                           "interleave", "--threads", "2", "--json").json
        self.assertEqual([v["test"] for v in both], ["prefill", "decode"])
        answers = [program.run("run", MODEL, "--raw", "-p", "one two", "--temp", "0", "-n", "8",
                               "--json", *words).json["tokens"]
                   for words in ((), ("--pin",), ("--numa", "interleave", "--pin"))]
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])

    def test_left_out_and_text(self):
        (one,) = program.run("bench", MODEL, "-p", "8", "-n", "0", "-r", "1", "--json").json
        self.assertEqual(one["test"], "prefill")
        lines = program.run("bench", MODEL, "-p", "8", "-n", "4", "-r", "1").out.splitlines()
        self.assertEqual([line.split()[0] for line in lines[3:]], ["test", "prefill", "decode"])
        self.assertIn("first token after", lines[1])
        self.assertEqual(lines[2], "weights as in the model's file")  # they are floats
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertEqual(lines[4].split()[4], lines[4].split()[-1])  # costs nothing then

    def test_where_weights_are_read(self):
        """The same layout in the text and in the JSON, on machines with a use for another or not."""
        with tempfile.TemporaryDirectory() as folder:
            model = shutil.copy(os.path.join(program.SOURCE, "models/dure-tiny.gguf"), folder)
            words = ("bench", model, "-p", "2", "-n", "0", "-r", "1")
            done = program.run(*words, "--repack", "cache")
            repacks = os.path.exists(model + ".strips")
            texts = {"no": "weights as in the model's file",
                     "memory": "weights repacked in memory",
                     "file": "weights repacked, from MODEL.strips"}
            for how, where in (("off", "no"), ("auto", "memory"), ("cache", "file")):
                where = where if repacks else "no"
                (one,) = program.run(*words, "--json", "--repack", how).json
                self.assertEqual(one["repacked"], where)
                self.assertEqual(program.run(*words, "--repack", how).out.splitlines()[2],
                                 texts[where])
            self.assertEqual(done.out.splitlines()[2], texts["file" if repacks else "no"])

    def test_mistakes(self):
        for words, status, message in ((("-p", "0", "-n", "0"), 2, "nothing to measure"),
                                       (("-c", "1,x"), 2, "not a list of numbers"),
                                       (("-c", "1,"), 2, "not a list of numbers"),
                                       (("-c", "9999999"), 1, "context of"),
                                       (("--machine",), 2, "no model")):
            done = program.run("bench", MODEL, *words, status=status)
            self.assertIn(message, done.err)


if __name__ == "__main__":
    tap.main()
