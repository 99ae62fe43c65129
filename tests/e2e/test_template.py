"""`dure template`: byte for byte what Jinja2 gives."""
import json
import os
import tempfile
import unittest

import program
import tap

FOLDER = os.path.join(program.GOLDEN, "templates")
MESSAGES = [{"role": "user", "content": "벼는 <언제> 베나요?"}]


class Template(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def write(self, name, value):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        return path

    def words(self, case):
        """The command line of a golden case."""
        words = ["template", os.path.join(FOLDER, case["template"] + ".jinja"), "--messages",
                 self.write("messages.json", case["messages"])]
        if case["tools"] is not None:
            words += ["--tools", self.write("tools.json", case["tools"])]
        for name, value in case["vars"].items():
            words += ["--var", f"{name}={json.dumps(value)}"]
        if not case["add_generation_prompt"]:
            words.append("--no-generation-prompt")
        return words

    def test_golden_cases(self):
        done = set()
        for case in program.json_lines(FOLDER, "cases.jsonl"):
            kind = (case["template"], case["tools"] is None, case["add_generation_prompt"],
                    "error" in case)
            if "now" in case or kind in done:  # one of each kind; tests/golden has them all
                continue
            done.add(kind)
            with self.subTest(kind):
                if "error" in case:
                    program.run(*self.words(case), status=1)
                else:
                    self.assertEqual(program.run(*self.words(case)).out, case["output"])
        self.assertGreater(len(done), 40)

    def test_of_a_model(self):
        folder = program.model("deepseek_v3_yarn")
        messages = self.write("messages.json", MESSAGES)
        out = program.run("template", folder, "--messages", messages).out
        self.assertEqual(out, "<｜begin▁of▁sentence｜><｜User｜>" + MESSAGES[0]["content"] +
                         "<｜Assistant｜><think>\n")
        out = program.run("template", folder, "--messages", messages, "--var", 'bos_token="B"',
                          "--no-generation-prompt").out
        self.assertEqual(out, "B<｜User｜>" + MESSAGES[0]["content"])

    def test_absent_tools_and_documents_are_none(self):
        text = "{{ tools is none }} {{ documents is none }} {{ other is defined }}\n"
        path = self.write("t.jinja", text)
        messages = self.write("messages.json", MESSAGES)
        self.assertEqual(program.run("template", path, "--messages", messages).out,
                         "True True False")
        given = program.run("template", path, "--messages", messages, "--tools", messages,
                            "--documents", messages, "--var", "other=null").out
        self.assertEqual(given, "False False True")

    def test_mistakes(self):
        messages = self.write("messages.json", MESSAGES)
        path = self.write("t.jinja", "{{ bos_token }}")
        self.assertIn("--messages is missing", program.run("template", path, status=2).err)
        for var in ("x", "=1", "x=y", "x={"):
            done = program.run("template", path, "--messages", messages, "--var", var, status=2)
            self.assertIn(var, done.err)
        done = program.run("template", path, "--messages", self.write("m.json", {}), status=1)
        self.assertIn("not a JSON array", done.err)
        broken = self.write("broken.jinja", "a\n{% if %}")
        done = program.run("template", broken, "--messages", messages, status=1)
        self.assertIn("broken.jinja", done.err)
        self.assertIn("2", done.err)
        no_template = os.path.join(program.GOLDEN, "tokenizers/gpt-2")
        done = program.run("template", no_template, "--messages", messages, status=1)
        self.assertIn("no chat template", done.err)


if __name__ == "__main__":
    tap.main()
