"""`dure bench`: the fields of its contract."""
import statistics
import unittest

import program
import tap

MODEL = program.model("deepseek_v3_yarn")


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
            self.assertGreater(v["bandwidth_fraction"], 0)
        # A longer cache is more to read in decode.
        self.assertGreater(value[3]["bytes_per_token"], value[1]["bytes_per_token"])

    def test_bytes_per_token_of_one_sequence(self):
        (decode,) = program.run("bench", MODEL, "-p", "0", "-n", "2", "-r", "1", "--json").json
        model = program.run("inspect", MODEL, "--json", "-c", "64").json
        cache = model["memory"][0]["cache_bytes"] / 64  # one position; half of n is cached
        self.assertAlmostEqual(decode["bytes_per_token"], model["bytes_per_token"] + cache, delta=1)

    def test_left_out_and_text(self):
        (one,) = program.run("bench", MODEL, "-p", "8", "-n", "0", "-r", "1", "--json").json
        self.assertEqual(one["test"], "prefill")
        lines = program.run("bench", MODEL, "-p", "8", "-n", "4", "-r", "1").out.splitlines()
        self.assertEqual([line.split()[0] for line in lines[1:]], ["test", "prefill", "decode"])

    def test_mistakes(self):
        for words, status, message in ((("-p", "0", "-n", "0"), 2, "nothing to measure"),
                                       (("-c", "1,x"), 2, "not a list of numbers"),
                                       (("-c", "1,"), 2, "not a list of numbers"),
                                       (("-c", "9999999"), 1, "context of")):
            done = program.run("bench", MODEL, *words, status=status)
            self.assertIn(message, done.err)


if __name__ == "__main__":
    tap.main()
