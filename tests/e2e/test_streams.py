"""What all commands share: lost and closed streams, pipes as files, full disks, signals, terminals."""
import json
import os
import re
import resource
import signal
import subprocess

import folder
import program
import tap
from big_model import write_big_model
from terminal import Terminal
from test_run import edited

MODEL = program.model("deepseek_v3_yarn")
IDS = os.path.join(MODEL, "ids.txt")
TEXT = "손이 여럿이면 일이 가볍다. Many hands make light work.\n" * 4


class Scratch(folder.InFolder):
    def path(self, name, text=None):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return path

    def endless(self):
        """A model whose context no test fills."""
        return edited(self.folder, program.model("qwen2"), "config.json",
                      max_position_embeddings=1000000)


def started(*words, **options):
    return subprocess.Popen([program.DURE, *words], **options)


class Streams(Scratch):
    def closing(self, fds, *words):
        """(status, stderr) of a run whose standard streams `fds` are closed from the start."""
        process = started(*words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, preexec_fn=lambda: [os.close(n) for n in fds])
        return process.communicate(timeout=100)[1].decode(), process.returncode

    def test_closed_output_is_a_failure(self):
        for words in (("version",), ("run", MODEL, "-p", "x", "-n", "3", "--thinking", "off"),
                      ("inspect", MODEL, "--json")):
            error, status = self.closing([1], *words)
            self.assertEqual(status, 1)
            self.assertIn("standard output: cannot write: Bad file descriptor", error)

    def test_closed_input_is_a_failure(self):
        error, status = self.closing([0], "run", MODEL, "-")
        self.assertEqual(status, 1)
        self.assertIn("standard input: cannot read it: Bad file descriptor", error)

    def test_files_never_take_the_place_of_a_closed_stream(self):
        files = [self.path(name) for name in ("open.npy", "closed.npy")]
        program.run("logits", MODEL, "--tokens-file", IDS, "-o", files[0])
        self.closing([0, 1, 2], "logits", MODEL, "--tokens-file", IDS, "-o", files[1])
        self.assertEqual(*(open(file, "rb").read() for file in files))

    def test_lost_output_ends_the_answer(self):
        """An answer that would take hours ends with the first lost byte."""
        words = (self.endless(), "-c", "500k", "--ignore-eos", "--temp", "1", "--seed", "1")
        for command, stdin in ((("run", *words, "--raw", "-p", "abc"), b""),
                               (("chat", *words), b"abc\nabc\n")):
            with open("/dev/full", "wb") as full:
                done = subprocess.run([program.DURE, *command], input=stdin, stdout=full,
                                      stderr=subprocess.PIPE, timeout=60)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"standard output: cannot write: No space left", done.stderr)

    def test_a_reader_that_leaves_ends_the_answer(self):
        process = started("run", self.endless(), "--raw", "-p", "abc", "-c", "500k", "--ignore-eos",
                          "--temp", "1", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.read(1)
        process.stdout.close()
        self.assertEqual(process.wait(60), -signal.SIGPIPE)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()

    def test_no_control_characters_without_a_terminal(self):
        text, out = self.path("text.txt", TEXT), self.path("out.gguf")
        for words in (("convert", MODEL, out), ("quantize", MODEL, out, "--type", "Q8_0", "--check",
                                                text),
                      ("imatrix", MODEL, text, "-o", self.path("im.gguf")),
                      ("logits", MODEL, "--tokens-file", IDS, "-o", self.path("l.npy")),
                      ("perplexity", MODEL, text), ("inspect", MODEL, "--tensors"),
                      ("bench", MODEL, "-p", "8", "-n", "4", "-r", "1")):
            with self.subTest(words[0]):
                done = program.run(*words)
                self.assertEqual(done.err, "")
                self.assertNotRegex(done.out, r"[\x00-\x08\x0b-\x1f\x7f]")


class Files(Scratch):
    def test_pipes_are_read_like_files(self):
        message = json.dumps([{"role": "user", "content": "물음"}])
        for words, text, plain in (
                (("run", MODEL, "-n", "3", "--temp", "0", "-q", "--think", "hide", "-f"), "물음",
                 ("run", MODEL, "-n", "3", "--temp", "0", "-q", "--think", "hide", "-p", "물음")),
                (("template", MODEL, "--messages"), message,
                 ("template", MODEL, "--messages", self.path("m.json", message))),
                (("detokenize", MODEL, "--tokens-file"), "5 6 7",
                 ("detokenize", MODEL, "--tokens-file", self.path("ids.txt", "5 6 7")))):
            wanted = program.run(*plain).out_bytes
            for name in ("/dev/stdin", "-"):
                with self.subTest(f"{words[0]} {name}"):
                    self.assertEqual(program.run(*words, name, stdin=text).out_bytes, wanted)

    def test_a_pipe_is_no_model(self):
        os.mkfifo(self.path("pipe"))
        done = program.run("inspect", self.path("pipe"), status=1, timeout=20)
        self.assertIn("pipe: not a regular file", done.err)

    def test_only_files_are_replaced(self):
        os.mkfifo(self.path("pipe"))
        for name, message in ((self.path("pipe"), "not a regular file"), ("", "empty file name"),
                              (self.folder, "not a regular file"),
                              (self.path("no/x"), "cannot create it: No such file"),
                              ("/dev/null", "/dev/null: exists and is not a regular file")):
            with self.subTest(name):
                done = program.run("logits", MODEL, "--tokens-file", IDS, "-o", name, status=1)
                self.assertIn(message, done.err)
                # Told before the work, where the work is long.
                done = program.run("imatrix", MODEL, IDS, "-o", name, status=1)
                self.assertIn(message, done.err)
        self.assertEqual(os.listdir(self.folder), ["pipe"])

    def test_a_link_stays_and_its_target_is_written(self):
        target, link = self.path("target", "old"), self.path("link")
        os.chmod(target, 0o600)
        os.symlink("target", link)
        program.run("logits", MODEL, "--tokens-file", IDS, "-o", link)
        self.assertTrue(os.path.islink(link))
        self.assertEqual(os.stat(target).st_mode & 0o777, 0o600)
        self.assertEqual(program.npy(target)[0][0], len(program.ids(IDS)))

    def test_full_disk_leaves_nothing(self):
        text, end = self.path("text.txt", TEXT), self.path("end")
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        for words in (("convert", MODEL, end + ".gguf"), ("convert", MODEL, end),
                      ("quantize", MODEL, end + ".gguf", "--type", "Q8_0"),
                      ("imatrix", MODEL, text, "-o", end + ".gguf"),
                      ("logits", MODEL, "--tokens-file", IDS, "-o", end + ".npy")):
            with self.subTest(words):
                done = subprocess.run([program.DURE, *words], capture_output=True, timeout=100,
                                      preexec_fn=limit)
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr.decode(),
                                 rf"^dure {words[0]}: {end}.*: cannot write it: File too large\n$")
                left = [name for _, _, names in os.walk(self.folder) for name in names]
                self.assertEqual(left, ["text.txt"])

    def test_a_directory_with_a_model_is_not_mixed_with_another(self):
        done = program.run("convert", program.model("qwen2"), edited(self.folder, MODEL,
                                                                      "config.json"), status=1)
        self.assertIn("holds a model already", done.err)

    def test_a_model_is_not_replaced_by_its_conversion(self):
        """quantize --check would compare the result with itself."""
        model, link = self.path("m.gguf"), self.path("l.gguf")
        program.run("convert", MODEL, model)
        os.symlink("m.gguf", link)
        with open(model, "rb") as file:
            before = file.read()
        for words in (("convert", model, model), ("convert", link, model, "--type", "f16"),
                      ("quantize", model, link, "--type", "Q8_0"), ("convert", MODEL, MODEL)):
            with self.subTest(words):
                self.assertIn("IN and OUT are both", program.run(*words, status=2).err)
        with open(model, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_a_missing_check_text_is_told_before_the_work(self):
        done = program.run("quantize", MODEL, self.path("q.gguf"), "--type", "Q8_0", "--check",
                           self.path("none"), status=1)
        self.assertIn("none: cannot open it", done.err)
        self.assertEqual(os.listdir(self.folder), [])


class Signals(Scratch):
    def quantizing(self, kind="Q3_K_M", **options):
        """A long quantization that has begun to write."""
        write_big_model(self.path("big"))
        process = started("quantize", self.path("big"), self.path("q.gguf"), "--type", kind,
                          "--threads", "1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          **options)
        program.wait_until_it_writes(process, self.folder)
        return process

    def test_hanging_up_leaves_nothing(self):
        process = self.quantizing()
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(60), 130)
        self.assertEqual(os.listdir(self.folder), ["big"])

    def test_ignored_signals_stay_ignored(self):
        def ignore():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        process = self.quantizing("Q4_0", preexec_fn=ignore)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(100), 0)
        self.assertEqual(sorted(os.listdir(self.folder)), ["big", "q.gguf"])

    def test_killing_leaves_nothing_under_the_final_name(self):
        self.path("q.gguf", "the old file")
        process = self.quantizing()
        process.kill()
        self.assertEqual(process.wait(60), -signal.SIGKILL)
        self.assertEqual(program.read(self.path("q.gguf")), "the old file")
        if program.writes_without_names(self.folder):
            self.assertEqual(sorted(os.listdir(self.folder)), ["big", "q.gguf"])


class OnATerminal(Scratch):
    def test_progress_fits(self):
        write_big_model(self.path("big"), vocab=2048, width=768)
        for columns in (80, 40):
            terminal = Terminal("quantize", self.path("big"), self.path("q.gguf"), "--type", "Q8_0",
                                "--threads", "1", columns=columns)
            self.assertEqual(terminal.close(timeout=200), 0)
            bars = re.findall(r"\r(quantize \[[^\r]*?)\x1b\[K", terminal.seen)
            self.assertGreater(len(bars), 1)
            for bar in bars:
                self.assertRegex(bar, r"^quantize \[=* *\] +\d+%  \d+:\d\d left$")
                self.assertLess(len(bar), columns)
            self.assertEqual(bars[-1].count(" ", 9, bars[-1].index("]")), 0)  # full at the end
            self.assertIn("\r\x1b[K", terminal.seen)

    def test_names_in_a_file_cannot_steer_it(self):
        evil = "a\x1b[31m\x9b1mb"
        os.rename(edited(self.folder, MODEL, "config.json"), self.path(evil))
        program.run("convert", self.path(evil), self.path("x.gguf"))  # becomes general.name
        terminal = Terminal("inspect", self.path("x.gguf"), "--keys")
        self.assertEqual(terminal.close(), 0)
        self.assertIn("general.name", terminal.seen)
        self.assertNotRegex(terminal.seen, "[\x1b\x80-\x9f]")
        os.rename(self.path("x.gguf"), self.path(evil + ".gguf"))
        terminal = Terminal("inspect", self.path(evil), NO_COLOR="1")
        self.assertEqual(terminal.close(), 0)
        terminal = Terminal("run", self.path(evil + "2"), "-p", "x", NO_COLOR="1")
        self.assertEqual(terminal.close(), 1)
        self.assertIn("No such file", terminal.seen)
        self.assertNotRegex(terminal.seen, "[\x1b\x80-\x9f]")


if __name__ == "__main__":
    tap.main()
