"""`dure run`: the contract for scripts, and what reaches standard output."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import folder
import program
import tap

MODEL = program.model("deepseek_v3_yarn")
IDS = os.path.join(MODEL, "ids.txt")
GREEDY = ("--temp", "0", "--json")


def edited(folder, model, file, **changes):
    """A copy of a model in folder with changed keys in one of its JSON files."""
    copy = os.path.join(folder, "edited")
    shutil.copytree(model, copy)
    path = os.path.join(copy, file)
    value = json.loads(program.read(path))
    value.update(changes)
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out)
    return copy


class Run(folder.InFolder):
    def path(self, name, data):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        return path

    def test_greedy_tokens_of_every_fixture(self):
        for model in program.models():
            with self.subTest(os.path.basename(model)):
                prompt = os.path.join(model, "prompt.txt")
                value = program.run("run", model, "--tokens-file", prompt, "-n", "128",
                                    "--ignore-eos", *GREEDY).json
                self.assertEqual(value["tokens"], program.ids(model, "greedy.txt"))
                self.assertEqual(value["prompt_tokens"], program.ids(prompt))
                self.assertEqual(value["finish"], "length")
                self.assertEqual((value["timings"]["prompt_n"], value["timings"]["decode_n"]),
                                 (12, 128))
                self.assertGreater(value["timings"]["prompt_ms"], 0)
                self.assertGreater(value["timings"]["decode_ms"], 0)

    def test_end_tokens(self):
        greedy = program.ids(MODEL, "greedy.txt")
        end = greedy[20]
        model = edited(self.folder, MODEL, "generation_config.json", eos_token_id=[1, end],
                       repetition_penalty=5.0)
        prompt = os.path.join(MODEL, "prompt.txt")
        stopped = program.run("run", model, "--tokens-file", prompt, "-n", "128", *GREEDY).json
        self.assertEqual(stopped["tokens"], greedy[:greedy.index(end) + 1])
        self.assertEqual(stopped["finish"], "stop")
        # A penalty in generation_config.json is not applied.
        goes_on = program.run("run", model, "--tokens-file", prompt, "-n", "128", "--ignore-eos",
                              *GREEDY).json
        self.assertEqual(goes_on["tokens"], greedy)

    def test_raw_follows_add_bos(self):
        text = "두레"
        ids = [int(i) for i in program.run("tokenize", MODEL, stdin=text).out.split()]
        value = program.run("run", MODEL, "--raw", "-p", text, "-n", "2", *GREEDY).json
        bos = [int(i) for i in program.run("tokenize", MODEL, "--bos").out.split()]
        self.assertEqual(value["prompt_tokens"], bos + ids)
        name = program.run("detokenize", MODEL, stdin=str(bos[0])).out
        value = program.run("run", MODEL, "--raw", "--parse-special", "-p", name + text, "-n", "2",
                            *GREEDY).json
        self.assertEqual(value["prompt_tokens"], bos + ids)  # not twice

    def test_prompt_through_the_template(self):
        messages = self.path("m.json", json.dumps([{"role": "system", "content": "S"},
                                                   {"role": "user", "content": "물음"}]))
        text = program.run("template", MODEL, "--messages", messages).out
        ids = program.run("tokenize", MODEL, "--parse-special", stdin=text).out
        wanted = [int(i) for i in ids.split()]
        question = self.path("q.txt", "물음\n")
        for words, stdin in ((("-p", "물음"), ""), (("-f", question), ""), (("-",), "물음\n")):
            with self.subTest(words):
                value = program.run("run", MODEL, *words, "-s", "S", "-n", "1", *GREEDY,
                                    stdin=stdin).json
                self.assertEqual(value["prompt_tokens"], wanted)

    def test_thinking_switch(self):
        """The template opens <think>: `off` closes it again, all else is reasoning."""
        think = program.run("tokenize", MODEL, "--parse-special", stdin="\n</think>\n\n").out
        tail = [int(i) for i in think.split()]
        words = ("run", MODEL, "-p", "x", "-n", "24", *GREEDY)
        opened = program.run(*words).json
        self.assertEqual(opened["content"], "")
        closed = program.run(*words, "--thinking", "off").json
        self.assertEqual(closed["prompt_tokens"], opened["prompt_tokens"] + tail)
        self.assertEqual((closed["reasoning"], closed["content"]), ("", closed["text"].lstrip()))

    def test_only_the_answer_on_stdout(self):
        words = ("run", MODEL, "-p", "x", "-n", "24", "--temp", "0", "--thinking", "off")
        value = program.run(*words, "--json").json
        done = program.run(*words)
        self.assertEqual(done.out_bytes.decode("utf-8", "replace").rstrip("\n"),
                         value["content"].rstrip("\n"))
        self.assertRegex(done.err, r"\[prompt \d+ tokens, .* tok/s; answer 24 tokens, .* tok/s\]")
        thinking = ("run", MODEL, "-p", "x", "-n", "24", "--temp", "0")
        done = program.run(*thinking)
        self.assertEqual(done.out, "")
        self.assertTrue(done.err_bytes.startswith(b"[thinking]\n"))
        hidden = program.run(*thinking, "--think", "hide", "-q")
        self.assertEqual((hidden.out, hidden.err), ("", ""))
        self.assertNotIn(b"\x1b", done.out_bytes + done.err_bytes)

    def test_stop_string(self):
        words = ("run", MODEL, "--raw", "-p", "abc", "-n", "40", *GREEDY)
        text = program.run(*words).json["text"]
        stop = re.search(r"[!-~]{2,}", text[5:]).group()
        value = program.run(*words, "--stop", stop, "--stop", "never seen").json
        self.assertEqual(value["text"], text[:text.index(stop)])
        self.assertEqual(value["finish"], "stop")

    def test_sampling_is_seeded(self):
        words = ("run", MODEL, "--raw", "-p", "abc", "-n", "30", "--temp", "1", "--json")
        first = program.run(*words, "--seed", "7").json["tokens"]
        self.assertEqual(program.run(*words, "--seed", "7", "--threads", "1").json["tokens"], first)
        self.assertNotEqual(program.run(*words, "--seed", "8").json["tokens"], first)
        self.assertNotEqual(program.run(*words).json["tokens"], program.run(*words).json["tokens"])

    def test_logit_bias_and_log_probs(self):
        words = ("run", MODEL, "--tokens-file", os.path.join(MODEL, "prompt.txt"), "-n", "3",
                 "--logprobs", "4", *GREEDY)
        value = program.run(*words).json
        for entry, token in zip(value["logprobs"], value["tokens"], strict=True):
            self.assertEqual(entry["token"], token)
            self.assertEqual(entry["top"][0], [token, entry["logprob"]])  # greedy: the best
            self.assertEqual(len(entry["top"]), 4)
        banned = value["tokens"][0]
        other = program.run(*words, "--logit-bias", f"{banned}=-inf").json
        self.assertEqual(other["tokens"][0], value["logprobs"][0]["top"][1][0])
        more_than_there_are = program.run(*words, "--logprobs", "1000", status=1)
        self.assertIn("1000 alternatives", more_than_there_are.err)

    def test_template_file(self):
        template = self.path("t.jinja", "<{{ messages[0].content }}{{ x }}>")
        value = program.run("run", MODEL, "--template", template, "--var", "x=[1]", "-p", "가", "-n",
                            "1", *GREEDY).json
        ids = [int(i) for i in program.run("tokenize", MODEL, "--bos", stdin="<가[1]>").out.split()]
        self.assertEqual(value["prompt_tokens"], ids)

    def test_without_a_model(self):
        """The built-in one; a program that has none says so."""
        if program.run("version", "--json").json["default_model_bytes"] == 0:
            done = program.run("run", "-p", "x", status=1)
            self.assertIn("built without models/dure-tiny.gguf: name a MODEL", done.err)
            return
        value = program.run("run", "-p", "17 + 28 - 9 = ?", *GREEDY).json
        self.assertEqual(value["finish"], "stop")
        self.assertIn("36", value["content"])

    def test_text_is_utf_8_and_tokens_are_exact(self):
        """A random model writes any bytes: `text` shows U+FFFD for what is not UTF-8."""
        words = ("run", MODEL, "--raw", "-p", "abc", "-n", "200", "--ignore-eos", "--temp", "3",
                 "--seed", "5", "--json")
        value = program.run(*words).json
        self.assertEqual(len(value["tokens"]), 200)
        tokenizer = json.loads(program.read(MODEL, "tokenizer.json"))
        known = {*tokenizer["model"]["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"])}
        # The output matrix has more rows than the tokenizer has tokens; they stand for nothing.
        ids = " ".join(str(i) for i in value["tokens"] if i in known)
        data = program.run("detokenize", MODEL, "--skip-special", stdin=ids).out_bytes
        with self.assertRaises(UnicodeDecodeError):
            data.decode()
        self.assertEqual(value["text"], data.decode(errors="replace"))
        self.assertEqual((value["reasoning"], value["content"]), ("", value["text"]))

    def test_context_that_fills_up_is_length(self):
        prompt = os.path.join(MODEL, "prompt.txt")
        value = program.run("run", MODEL, "--tokens-file", prompt, "-c", "20", "--ignore-eos",
                            *GREEDY).json
        self.assertEqual((value["finish"], len(value["tokens"])), ("length", 8))

    def interrupt(self, *words):
        """Starts a long answer, interrupts it once it runs; (status, stdout, stderr)."""
        model = edited(self.folder, program.model("qwen2"), "config.json",
                       max_position_embeddings=1000000)
        process = subprocess.Popen(
            [program.DURE, "run", model, "--raw", "-p", "abc", "--temp", "1", "--ignore-eos",
             "-c", "500k", "--top-k", "50", *words], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        if "--json" in words:
            time.sleep(2)
        else:
            process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    def test_interrupt_ends_the_answer(self):
        status, out, _ = self.interrupt("--json")
        self.assertEqual(status, 130)
        value = json.loads(out)
        self.assertEqual(value["finish"], "cancelled")
        self.assertEqual(len(value["tokens"]), value["timings"]["decode_n"])
        self.assertGreater(len(value["tokens"]), 0)

    def test_interrupt_while_the_prompt_is_computed(self):
        model = edited(self.folder, program.model("qwen2"), "config.json",
                       max_position_embeddings=1000000)
        tokens = self.path("many.txt", "5 " * 100000)  # takes much longer than the test waits
        process = subprocess.Popen([program.DURE, "run", model, "--tokens-file", tokens, "--json",
                                    "-c", "100100", "-t", "1"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
        self.assertEqual(process.returncode, 130)
        value = json.loads(out)
        self.assertEqual((value["finish"], value["tokens"], value["text"]), ("cancelled", [], ""))
        self.assertGreater(value["timings"]["prompt_n"], 0)
        self.assertLess(value["timings"]["prompt_n"], 100000)
        self.assertEqual(len(err.splitlines()), 1)

    def test_interrupt_of_plain_output(self):
        status, out, err = self.interrupt()
        self.assertEqual(status, 130)
        self.assertGreater(len(out), 0)
        self.assertIn(b"tok/s", err)

    def test_mistakes(self):
        for words, status, message in (
                ((MODEL,), 2, "no prompt: give -p TEXT"),
                ((MODEL, "-p", "a", "-"), 2, "more than one prompt"),
                ((MODEL, "other", "-p", "a"), 2, "two models"),
                ((MODEL, "-p", "a", "--logit-bias", "x"), 2, "--logit-bias x: not ID=X"),
                ((MODEL, "-p", "a", "--logit-bias", "9999=1"), 1, "token 9999"),
                ((MODEL, "-p", "a", "--temp", "-1"), 2, "--temp: -1 is not between"),
                ((MODEL, "-p", "a", "--temp", "abc"), 2, "--temp: 'abc' is not a number"),
                ((MODEL, "-p", "a", "-n", "-1"), 2, "-n: -1 is not between"),
                ((MODEL, "-p", "a", "-t", "0"), 2, "-t: 0 is not between"),
                ((MODEL, "-p", "a", "--tmp", "1"), 2, "unknown option --tmp: did you mean --temp?"),
                ((MODEL, "-p", "a", "--parse-special"), 2, "is for the text of --raw"),
                ((MODEL, "-p", "a", "--logprobs", "1"), 2, "--logprobs is for --json"),
                ((MODEL, "-p", "a", "--raw", "-s", "b"), 2, "-s is for the chat template"),
                ((MODEL, "--tokens-file", IDS, "--var", "a=1"), 2, "--tokens-file leaves out"),
                ((MODEL, "--tokens-file", "/dev/null"), 1, "the prompt is empty"),
                ((program.SOURCE, "-p", "a"), 1, program.SOURCE + ": "),
                ((IDS, "-p", "a"), 1, "ids.txt: not a GGUF file"),
                ((MODEL, "-f", "/nowhere"), 1, "/nowhere"),
                ((MODEL, "--raw", "-p", "a " * 3000), 1, "the prompt fills the context"),
                ((MODEL, "-p", "a", "-c", "5000"), 1, "a context of 5000"),
                (("/nowhere.gguf", "-p", "a"), 1, "/nowhere.gguf")):
            with self.subTest(message):
                done = program.run("run", *words, status=status)
                self.assertIn(message, done.err)
                self.assertEqual(done.out, "")
        self.assertEqual(program.run("run", MODEL, "-p", "", "-n", "1").status, 0)
        bad = self.path("bad.txt", b"\xff\xfe")
        self.assertIn("UTF-8", program.run("run", MODEL, "-f", bad, status=1).err)


if __name__ == "__main__":
    tap.main()
