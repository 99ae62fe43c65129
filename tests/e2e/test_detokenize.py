"""`dure detokenize`: control tokens, and bytes that are no whole characters."""
import json
import os
import unittest

import program
import tap

FOLDER = os.path.join(program.GOLDEN, "tokenizers/deepseek-v3")


class Detokenize(unittest.TestCase):
    def test_control_tokens_as_text_or_left_out(self):
        meta = json.loads(program.read(FOLDER, "meta.json"))
        text = meta["bos"] + "쌀" + meta["eos"]
        line = program.run("tokenize", FOLDER, "--parse-special", stdin=text).out
        self.assertEqual(program.run("detokenize", FOLDER, stdin=line).out, text)
        self.assertEqual(program.run("detokenize", FOLDER, "--skip-special", stdin=line).out, "쌀")

    def test_cut_characters_keep_their_bytes(self):
        text = "쌀".encode()
        ids = program.run("tokenize", FOLDER, stdin=text[:2]).out
        self.assertEqual(program.run("detokenize", FOLDER, stdin=ids).out_bytes, text[:2])


if __name__ == "__main__":
    tap.main()
