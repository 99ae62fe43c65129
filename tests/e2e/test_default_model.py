"""The built-in model: held-out questions that the reference implementation answers with its weights
rounded as in the file (tools/default_model/evaluate.py wrote them down)."""
import json
import os
import tempfile
import unittest

import program
import tap

QUESTIONS = program.json_lines(program.GOLDEN, "default_model", "questions.jsonl")


class DefaultModel(unittest.TestCase):
    def test_is_small_and_described(self):
        size = program.run("version", "--json").json["default_model_bytes"]
        self.assertEqual(size, os.path.getsize(os.path.join(program.SOURCE, "models/dure-tiny.gguf")))
        self.assertLessEqual(size, 8 << 20)
        model = program.run("inspect", "--json").json
        self.assertEqual(model["architecture"], "deepseek2")

    def test_answers_with_its_reasoning(self):
        asked = [q for q in QUESTIONS if len(q["messages"]) == 1]
        self.assertGreater(len(asked), 10)
        for question in asked:
            with self.subTest(question["messages"][0]["content"]):
                value = program.run("run", "-p", question["messages"][0]["content"], "--temp", "0",
                                    "--json").json
                self.assertEqual(value["reasoning"].strip(), question["reasoning"])
                self.assertEqual(value["content"], question["content"])
                self.assertEqual(value["finish"], "stop")

    def test_follows_a_conversation(self):
        asked = [q for q in QUESTIONS if len(q["messages"]) > 1]
        self.assertGreater(len(asked), 1)
        for question in asked:
            with self.subTest(question["messages"][-1]["content"]), tempfile.TemporaryDirectory() as folder:
                messages, ids = os.path.join(folder, "messages.json"), os.path.join(folder, "ids.txt")
                with open(messages, "w", encoding="utf-8") as file:
                    json.dump(question["messages"], file)
                prompt = program.run("template", "--messages", messages).out
                with open(ids, "w", encoding="ascii") as file:
                    file.write(program.run("tokenize", "--parse-special", stdin=prompt).out)
                text = program.run("run", "--tokens-file", ids, "--temp", "0", "--json").json["text"]
                self.assertEqual(text.split("</think>")[-1].strip(), question["content"])


if __name__ == "__main__":
    tap.main()
