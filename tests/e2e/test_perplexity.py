"""`dure perplexity` against the sum over the logits that `dure logits` writes."""
import math
import os

import folder
import program
import tap

MODEL = program.model("qwen2")


class Perplexity(folder.InFolder):
    def path(self, name, text=None):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return path

    def nll(self, ids, chunk):
        """(sum of -log p over every token but the first of each chunk, their count)"""
        total, count = 0.0, 0
        for start in range(0, len(ids), chunk):
            part = ids[start:start + chunk]
            tokens = self.path("part.txt", " ".join(map(str, part)))
            program.run("logits", MODEL, "--tokens-file", tokens, "-o", self.path("part.npy"))
            (_, n_vocab), logits = program.npy(self.path("part.npy"))
            for t in range(len(part) - 1):
                row = logits[t * n_vocab:(t + 1) * n_vocab]
                top = max(row)
                norm = top + math.log(math.fsum(math.exp(v - top) for v in row))
                total += norm - row[part[t + 1]]
                count += 1
        return total, count

    def test_ids_and_text_in_chunks(self):
        ids = program.ids(MODEL, "ids.txt")
        tokens = os.path.join(MODEL, "ids.txt")
        for chunk in (64, 20, 2):
            with self.subTest(chunk):
                total, count = self.nll(ids, chunk)
                value = program.run("perplexity", MODEL, tokens, "--tokens", "--ctx", chunk,
                                    "--json").json
                self.assertEqual((value["n_tokens"], value["n_scored"]), (len(ids), count))
                self.assertAlmostEqual(value["nll"], total / count, delta=1e-6)
                self.assertAlmostEqual(value["ppl"], math.exp(value["nll"]), delta=1e-4)

    def test_text_is_tokenised_as_a_prompt(self):
        text = self.path("text.txt", "두레는 함께 일하는 것이다. Many hands make light work.\n" * 3)
        asked = program.run("run", MODEL, "--raw", "-f", text, "-n", "1", "--json").json
        value = program.run("perplexity", MODEL, text, "--ctx", "64", "--json").json
        ids = asked["prompt_tokens"]
        self.assertEqual(value["n_tokens"], len(ids))
        total, count = self.nll(ids, 64)
        self.assertAlmostEqual(value["nll"], total / count, delta=1e-6)
        self.assertIn(f"perplexity  {value['ppl']:.4f}",
                      program.run("perplexity", MODEL, text, "--ctx", "64").out)

    def test_mistakes(self):
        empty = self.path("empty.txt", "")
        self.assertIn("holds no text", program.run("perplexity", MODEL, empty, status=1).err)
        self.assertIn("argument is missing", program.run("perplexity", status=2).err)
        self.assertIn("no-such-file",
                      program.run("perplexity", MODEL, self.path("no-such-file"), status=1).err)


if __name__ == "__main__":
    tap.main()
