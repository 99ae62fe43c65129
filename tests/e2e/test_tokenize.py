"""`dure tokenize` and `dure detokenize`: the contracts for scripts."""
import json
import os
import shutil
import tempfile
import unittest

import program
import tap

FAMILIES = os.path.join(program.GOLDEN, "tokenizers")
TEXT = "두레 is village work.\n\ttwo  blanks, 12345, 漢字 🌾"


def family(name):
    return os.path.join(FAMILIES, name)


def tokens(out):
    return [int(word) for word in out.split()]


class Tokenize(unittest.TestCase):
    def test_golden_ids_of_every_family(self):
        """--jsonl over all texts, from tokenizer.json and from GGUF, as the reference has them."""
        entries = program.json_lines(FAMILIES, "texts.jsonl")
        for name in sorted(os.listdir(FAMILIES)):
            if not os.path.isdir(family(name)):
                continue
            wanted = program.json_lines(FAMILIES, name, "ids.jsonl")
            in_gguf = {entry["line"]: entry
                       for entry in program.json_lines(FAMILIES, name, "gguf.jsonl")}
            asked = [i for i, entry in enumerate(entries) if "text" in entry]
            lines = "".join(json.dumps(entries[i]) + "\n" for i in asked)
            for path, changed in ((family(name), {}), (family(name) + "/vocab.gguf", in_gguf)):
                for flags in ((), ("--parse-special",)):
                    with self.subTest(f"{path} {flags}"):
                        done = program.run("tokenize", path, "--jsonl", "-", *flags, stdin=lines)
                        for i, line in zip(asked, done.out.splitlines(), strict=True):
                            entry = changed.get(i, wanted[i])
                            want = entry["tokens"]
                            if flags:
                                want = entry.get("special", want)
                            self.assertEqual(json.loads(line), {"tokens": want}, entries[i])

    def test_round_trip_of_any_bytes(self):
        for name in ("deepseek-v3", "llama-spm", "qwen2"):
            text = TEXT.encode() + bytes(range(256))
            if name == "qwen2":
                text = TEXT.encode()  # its tokenizer.json normalises
            with self.subTest(name):
                ids = program.run("tokenize", family(name), stdin=text).out
                back = program.run("detokenize", family(name), stdin=ids)
                self.assertEqual(back.out_bytes, text)

    def test_stdin_json_and_bos(self):
        folder = family("deepseek-v3")
        plain = tokens(program.run("tokenize", folder, stdin=TEXT).out)
        value = program.run("tokenize", folder, "--json", stdin=TEXT).json
        self.assertEqual(value["tokens"], plain)
        self.assertEqual(len(value["pieces"]), len(plain))
        name = json.loads(program.read(folder, "meta.json"))["bos"]
        (bos,) = tokens(program.run("tokenize", folder, "--parse-special", stdin=name).out)
        for text, flags in ((TEXT, ()), (name + TEXT, ("--parse-special",))):
            with_bos = program.run("tokenize", folder, "--bos", *flags, stdin=text)
            self.assertEqual(tokens(with_bos.out), [bos, *plain])  # exactly once
        as_text = tokens(program.run("tokenize", folder, stdin=name + TEXT).out)
        self.assertNotIn(bos, as_text)

    def test_empty_text(self):
        self.assertEqual(program.run("tokenize", family("gpt-2")).out, "\n")
        self.assertEqual(program.run("detokenize", family("gpt-2")).out_bytes, b"")

    def test_folder_with_tokenizer_files_only(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(os.path.join(family("smollm"), name), folder)
            self.assertEqual(program.run("tokenize", folder, stdin=TEXT).out,
                             program.run("tokenize", family("smollm"), stdin=TEXT).out)

    def test_tokens_file(self):
        ids = program.run("tokenize", family("glm4"), stdin=TEXT).out
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("\n".join(ids.split()) + "\t\r\n")
            file.flush()
            self.assertEqual(program.run("detokenize", family("glm4"), "--tokens-file",
                                         file.name).out, TEXT)

    def test_mistakes(self):
        for command, stdin, message in (
                ("detokenize", "1 2 x3", "standard input: byte 4: not a token id"),
                ("detokenize", "1 -2", "byte 2: not a token id"),
                ("detokenize", "99999999999", "byte 0: not a token id"),
                ("detokenize", "5 1000000", "token 1000000 at position 1: the vocabulary has")):
            with self.subTest(stdin):
                done = program.run(command, family("glm4"), stdin=stdin, status=1)
                self.assertIn(message, done.err)
        for line, message in (("{\"text\": 5}", "no string \"text\""), ("{", "entry 2"),
                              ("", "entry 2")):
            stdin = "{\"text\": \"a\"}\n" + line + "\n{\"text\": \"b\"}\n"
            done = program.run("tokenize", family("glm4"), "--jsonl", "-", stdin=stdin, status=1)
            self.assertIn(message, done.err)
            self.assertEqual(len(done.out.splitlines()), 1)
        done = program.run("tokenize", family("default"), "--bos", status=1)
        self.assertIn("no such token", done.err)
        self.assertIn("/nowhere: ", program.run("tokenize", "/nowhere", status=1).err)


if __name__ == "__main__":
    tap.main()
