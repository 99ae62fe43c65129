"""`dure imatrix`: its file, and the sums in it."""
import os

import folder
import program
import tap


class Imatrix(folder.InFolder):
    def setUp(self):
        super().setUp()
        self.text, self.out = self.path("text.txt"), self.path("im.gguf")
        with open(self.text, "w", encoding="utf-8") as file:
            file.write("손이 여럿이면 일이 가볍다. Many hands make light work.\n" * 4)

    def test_file_and_counts(self):
        model = program.model("deepseek_v2_lite")
        value = program.run("imatrix", model, self.text, "-o", self.out, "-c", "50", "--json").json
        self.assertEqual(value["n_chunks"], -(-value["n_tokens"] // 50))
        self.assertLess(value["experts_unused"], value["experts"])
        self.assertTrue(os.path.getsize(self.out) > 1000)
        again = self.path("again.gguf")
        text = program.run("imatrix", model, self.text, "-o", again, "-c", "50", "-t", "1").out
        self.assertIn(f"{value['n_tokens']} tokens in {value['n_chunks']} chunks", text)
        with open(self.out, "rb") as a, open(again, "rb") as b:
            self.assertEqual(a.read(), b.read())  # whatever the number of threads

    def test_mistakes(self):
        model = program.model("llama_bf16")
        self.assertIn("-o OUT.gguf is missing", program.run("imatrix", model, self.text,
                                                            status=2).err)
        empty = self.path("empty")
        with open(empty, "w", encoding="ascii"):
            pass
        self.assertIn("holds no text", program.run("imatrix", model, empty, "-o", self.out,
                                                   status=1).err)
        self.assertEqual(sorted(os.listdir(self.folder)), ["empty", "text.txt"])


if __name__ == "__main__":
    tap.main()
