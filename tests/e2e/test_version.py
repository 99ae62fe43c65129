"""`dure version`."""
import os
import re
import unittest

import program
import tap


class Version(unittest.TestCase):
    def expected(self):
        with open(os.path.join(program.SOURCE, "CMakeLists.txt"), encoding="utf-8") as lists:
            return re.search(r"project\(dure VERSION ([\d.]+)", lists.read()).group(1)

    def test_text(self):
        self.assertEqual(program.run("version").out.splitlines()[0], f"dure {self.expected()}")
        self.assertEqual(program.run("version").out, program.run("--version").out)

    def test_json(self):
        value = program.run("version", "--json").json
        self.assertEqual(value["version"], self.expected())
        self.assertIn("c", value["isa"])
        self.assertIn(value["isa_best"], value["isa"])
        model = os.path.join(program.SOURCE, "models/dure-tiny.gguf")
        size = os.path.getsize(model) if os.path.exists(model) else 0
        self.assertEqual(value["default_model_bytes"], size)


if __name__ == "__main__":
    tap.main()
