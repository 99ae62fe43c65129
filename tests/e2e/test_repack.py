"""`--repack`: the layout of weights changes no bit, and the file of --repack cache is written once,
used then, and never trusted."""
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import folder
import program
import tap
from big_model import write_big_model

TINY = os.path.join(program.SOURCE, "models/dure-tiny.gguf")
PROMPT = ("-p", "What is 17 + 28 - 9?", "--temp", "0", "-q")
KEPT = "holds the repacked weights; it may be removed at any time"


def level_repacks():
    """Whether this machine has a use for repacked weights."""
    with tempfile.TemporaryDirectory() as folder:
        model = shutil.copy(TINY, folder)
        return "nothing to keep" not in program.run("run", model, "--repack", "cache", *PROMPT).err


REPACKS = level_repacks()


class Repack(folder.InFolder):
    def setUp(self):
        super().setUp()
        self.model = shutil.copy(TINY, self.path("m.gguf"))
        self.strips = self.model + ".strips"

    def big_model(self):
        """A model whose weights are most of what a run needs."""
        write_big_model(self.path("big"), vocab=2048, width=768)
        program.run("quantize", self.path("big"), self.path("big.gguf"), "--type", "Q8_0")
        return self.path("big.gguf")

    def answer(self, *words, **more):
        """What a run says of the file."""
        done = program.run("run", self.model, *PROMPT, *words, **more)
        self.assertEqual(done.out, "The answer is 36.\n")
        return "\n".join(line for line in done.err.splitlines() if "m.gguf" in line)

    def logits(self, *words):
        with open(self.path("ids.txt"), "w", encoding="ascii") as file:
            file.write(" ".join(str(i * 7 % 1500) for i in range(100)))
        program.run("logits", self.model, "--tokens-file", self.path("ids.txt"), "-o",
                    self.path("l.npy"), "--deterministic", *words)
        with open(self.path("l.npy"), "rb") as file:
            return file.read()

    def test_the_layout_changes_no_bit(self):
        want = self.logits("--repack", "off")
        for words in (("--repack", "auto"), ("--repack", "cache"), ("--repack", "cache"),
                      ("--repack", "cache", "--chunk", "1", "--threads", "1"),
                      ("--repack", "auto", "--chunk", "1")):
            self.assertEqual(self.logits(*words), want, words)

    @unittest.skipUnless(REPACKS, "this machine has no use for repacked weights")
    def test_the_second_start_uses_the_file(self):
        self.assertIn(KEPT, self.answer("--repack", "cache"))
        first = os.stat(self.strips)
        self.assertEqual(self.answer("--repack", "cache"), "")
        self.assertEqual(self.answer("--repack", "auto"), "")
        self.assertEqual(self.answer("--repack", "off"), "")
        again = os.stat(self.strips)
        self.assertEqual((first.st_ino, first.st_mtime_ns), (again.st_ino, again.st_mtime_ns))
        os.remove(self.strips)
        self.assertIn(KEPT, self.answer("--repack", "cache"))
        value = program.run("run", self.model, "--repack", "cache", *PROMPT, "--json").json
        self.assertEqual(value["content"], "The answer is 36.")
        self.assertEqual(sorted(os.listdir(self.folder)), ["m.gguf", "m.gguf.strips"])

    @unittest.skipUnless(REPACKS, "this machine has no use for repacked weights")
    def test_what_is_wrong_is_told_and_written_anew(self):
        self.answer("--repack", "cache")
        with open(self.strips, "rb") as file:
            good = file.read()

        def cut(n):
            os.truncate(self.strips, n)

        def flip(at):
            with open(self.strips, "r+b") as file:
                file.seek(at)
                file.write(bytes([good[at] ^ 1]))

        for spoil, reason in ((lambda: cut(0), "cut off"), (lambda: cut(50), "cut off"),
                              (lambda: cut(len(good) // 2), "bytes, not"),
                              (lambda: cut(len(good) + 1), "bytes, not"),
                              (lambda: flip(8), "has version"), (lambda: flip(30), "damaged"),
                              (lambda: flip(100), "damaged"),
                              (lambda: os.utime(self.model, (1, 1)), "was written since")):
            spoil()
            said = self.answer("--repack", "cache")
            self.assertIn(reason, said)
            self.assertIn("writing it anew", said)
            self.assertEqual(self.answer("--repack", "cache"), "")
        with open(self.strips, "rb") as file:
            now = file.read()
        self.assertEqual(len(now), len(good))
        self.assertEqual(now[1 << 20:], good[1 << 20:])

    @unittest.skipUnless(REPACKS, "this machine has no use for repacked weights")
    def test_what_is_not_ours_stays(self):
        letter = b"Dear diary,"
        with open(self.strips, "wb") as file:
            file.write(letter)
        self.assertIn("does not hold repacked weights: repacking in memory instead",
                      self.answer("--repack", "cache"))
        with open(self.strips, "rb") as file:
            self.assertEqual(file.read(), letter)

    @unittest.skipUnless(REPACKS, "this machine has no use for repacked weights")
    def test_folders_that_cannot_be_written(self):
        os.chmod(self.folder, 0o555)
        if os.geteuid() != 0:
            self.assertIn("Permission denied: repacking in memory instead",
                          self.answer("--repack", "cache"))
        os.chmod(self.folder, 0o755)
        os.mkdir(self.strips)  # nobody can replace a folder
        self.assertIn("not a regular file: repacking in memory instead",
                      self.answer("--repack", "cache"))
        os.rmdir(self.strips)
        os.symlink(self.path("absent/target"), self.strips)
        self.assertIn("repacking in memory instead", self.answer("--repack", "cache"))

    def test_models_without_a_place(self):
        done = program.run("run", "--repack", "cache", *PROMPT)
        self.assertEqual(done.out, "The answer is 36.\n")
        self.assertIn("repacking in memory instead" if REPACKS else "nothing to keep", done.err)
        done = program.run("run", program.model("llama_bf16"), "--repack", "cache", "--raw", "-p",
                           "a", "-n", "1", "-q")
        self.assertIn("nothing to keep", done.err)
        done = program.run("run", self.model, "--repack", "cache", "--isa", "c", *PROMPT)
        self.assertIn("nothing to keep", done.err)
        self.assertFalse(os.path.exists(self.strips))

    @unittest.skipIf(program.sanitized(), "sanitizers need terabytes of addresses")
    def test_little_address_space(self):
        """What runs with the weights as they lie runs by itself, with less context if need be."""
        model, results = self.big_model(), []

        def runs(space, *words):
            process = subprocess.run(
                [program.DURE, "run", model, "--raw", "-p", "a", "-n", "1", "-q", "--threads", "1",
                 *words], capture_output=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (space, space)))
            return process.returncode == 0

        for space in range(96 << 20, 176 << 20, 8 << 20):
            results.append(runs(space, "--repack", "off", "-c", "64"))
            if results[-1]:
                self.assertTrue(runs(space, "-c", "64"), space)
                self.assertTrue(runs(space), space)
        self.assertEqual(set(results), {False, True})

    def interrupt(self, model, number):
        """Starts on a model and sends a signal while the file is written; the exit status."""
        for _ in range(10):
            with subprocess.Popen([program.DURE, "run", model, "--repack", "cache", "--raw", "-p",
                                   "a", "-n", "1", "--threads", "1"], stderr=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL) as process:
                while process.poll() is None and not program.is_writing(process, self.folder):
                    time.sleep(0.001)
                process.send_signal(number)
            if not os.path.exists(model + ".strips"):
                return process.returncode
            os.remove(model + ".strips")  # it was quicker
        self.fail("never interrupted")

    @unittest.skipUnless(REPACKS, "this machine has no use for repacked weights")
    def test_interrupts_leave_nothing_under_the_name(self):
        model = self.big_model()
        before = sorted(os.listdir(self.folder))
        self.assertEqual(self.interrupt(model, signal.SIGTERM), 130)
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        self.assertEqual(self.interrupt(model, signal.SIGKILL), -signal.SIGKILL)
        self.assertFalse(os.path.exists(model + ".strips"))
        if program.writes_without_names(self.folder):
            self.assertEqual(sorted(os.listdir(self.folder)), before)
        words = ("run", model, "--raw", "-p", "abc", "-n", "3", "--temp", "0", "--json",
                 "--deterministic")
        want = program.run(*words, "--repack", "off").json["tokens"]
        done = program.run(*words, "--repack", "cache")
        self.assertIn(KEPT, done.err)
        self.assertEqual(done.json["tokens"], want)

    @unittest.skipUnless(REPACKS, "this machine has no use for repacked weights")
    def test_many_starts_at_once(self):
        words = [program.DURE, "run", self.model, "--repack", "cache", *PROMPT]
        running = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                   for _ in range(6)]
        for process in running:
            out, _ = process.communicate(timeout=120)
            self.assertEqual((process.returncode, out), (0, b"The answer is 36.\n"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["m.gguf", "m.gguf.strips"])
        self.assertEqual(self.answer("--repack", "cache"), "")


if __name__ == "__main__":
    tap.main()
