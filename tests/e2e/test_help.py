"""`dure help`, --help, mistakes on the command line, the man page and the completions."""
import os
import re
import shutil
import subprocess
import sys
import unittest

import program
import tap


def commands():
    listed = program.run("help").out.split("Commands:\n")[1].split("\n\n")[0]
    return [re.split("  +", line.strip())[0] for line in listed.splitlines()]


def options(command):
    """Long names of the options that the help of a command lists."""
    return re.findall(r"^  (?:-., |    )--([a-z-]+)", program.run("help", *command.split()).out,
                      re.MULTILINE)


class Help(unittest.TestCase):
    def test_overview(self):
        text = program.run("help").out
        self.assertEqual(text, program.run().out)
        self.assertEqual(text, program.run("--help").out)
        self.assertIn("version", commands())

    def test_each_command(self):
        for command in commands():
            with self.subTest(command):
                text = program.run("help", *command.split()).out
                self.assertEqual(text, program.run(*command.split(), "--help").out)
                self.assertTrue(text.startswith(f"usage: dure {command} "))
                self.assertRegex(text, rf"\nExample:\n  (?:.*\| )?dure {command}\b")
                self.assertIn("help", options(command))
                for line in text.splitlines():
                    self.assertLessEqual(len(line), 80, line)

    def test_help_wins_over_mistakes(self):
        self.assertIn("usage: dure version", program.run("version", "--help", "--nonsense").out)

    def test_mistakes(self):
        for words, message in ((("versoin",), "unknown command versoin: did you mean version?"),
                               (("zzzzzzzz",), "unknown command zzzzzzzz\n"),
                               (("version", "--jsn"), "unknown option --jsn: did you mean --json?"),
                               (("version", "x"), "an argument too many: x"),
                               (("help", "nothing"), "no command is called nothing"),
                               (("help", "--as", "pdf"), "'pdf' is none of text|man|bash|zsh|fish"),
                               (("help", "version", "--as", "man"), "leave out version"),
                               (("help", "version", "x"), "an argument too many: x"),
                               (("help", "tokenizer", "x"), "no command is called tokenizer x"),
                               (("tokenizer",), "tokenizer: the command's second word is missing"),
                               (("tokenizer", "trian"), "did you mean tokenizer train?")):
            with self.subTest(words):
                done = program.run(*words, status=2)
                self.assertEqual(done.out, "")
                self.assertIn(message, done.err)
                self.assertIn("dure help", done.err)

    def test_commands_of_two_words(self):
        text = program.run("help", "tokenizer").out
        self.assertTrue(text.startswith("usage: dure tokenizer COMMAND "))
        self.assertIn("  tokenizer train  ", text)
        self.assertNotIn("version", text)
        self.assertEqual(text, program.run("tokenizer", "--help").out)
        self.assertIn("tokenizer train", commands())

    def test_man_page_and_completions_have_every_option(self):
        forms = {form: program.run("help", "--as", form).out
                 for form in ("man", "bash", "zsh", "fish")}
        plain_man = re.sub(r"\\f[BIR]", "", forms["man"]).replace("\\-", "-")
        for command in commands():
            self.assertIn(f".SS dure {command} ", plain_man)
            manual = plain_man.split(f".SS dure {command} ")[1].split(".SS ")[0]
            bash = re.search(rf"^        '{command}'\) words='(.*)' ;;$", forms["bash"], re.MULTILINE)
            zsh = forms["zsh"].split(f"    '{command}')\n")[1].split(";;")[0]
            for option in options(command):
                with self.subTest(f"{command} --{option}"):
                    self.assertRegex(manual, rf"\n(?:-., )?--{option}\b")
                    self.assertIn(f"--{option}", bash.group(1).split())
                    self.assertIn(f"'--{option}[", zsh.replace("*--", "--"))
                    self.assertRegex(forms["fish"], rf"__dure_is {command}' -l {option}\b")

    def test_scripts_parse(self):
        for shell in ("bash", "zsh", "fish"):
            with self.subTest(shell):
                if not shutil.which(shell):
                    continue
                text = program.run("help", "--as", shell).out
                done = subprocess.run([shell, "-n"], input=text, text=True, capture_output=True)
                self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_bash_completion_works(self):
        script = program.run("help", "--as", "bash").out + """
            try() {
                COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
                _dure
                echo "${COMPREPLY[*]}"
            }
            try dure ver
            try dure version --j
            try dure help --as z
            try dure tokenizer t
            try dure tokenizer train --voc
            try dure help tokenizer t
            try dure tokenizer train --format j
            """
        done = subprocess.run(["bash"], input=script, text=True, capture_output=True)
        self.assertEqual(done.stdout.split("\n")[:-1], ["version", "--json", "zsh", "train",
                                                        "--vocab", "train", "jsonl"])

    def test_fish_completion_works(self):
        if not shutil.which("fish"):
            self.skipTest("no fish")
        script = program.run("help", "--as", "fish").out
        for line, wanted in (("dure ver", ["version"]), ("dure version --j", ["--json"]),
                             ("dure help toke", ["tokenize", "tokenizer"]),
                             ("dure run --cache-type q", ["q8_0"]), ("dure tokenizer t", ["train"]),
                             ("dure tokenizer train --voc", ["--vocab"])):
            done = subprocess.run(["fish", "-c", f"{script}\ncomplete -C '{line}'"], text=True,
                                  capture_output=True, check=True)
            self.assertEqual([row.split("\t")[0] for row in done.stdout.splitlines()], wanted)

    def test_options_that_all_have(self):
        """What docs/CLI.md promises of kinds of commands."""
        computing = {"threads", "ctx", "cache-type", "seed", "deterministic", "isa",
                     "pin", "numa"}
        for command in ("run", "chat", "inspect", "bench", "convert", "quantize", "imatrix",
                        "perplexity", "logits"):
            self.assertLessEqual(computing, set(options(command)), command)
        for command in ("train", "merge"):  # they compute without a cache and without chance
            self.assertEqual(computing & set(options(command)), {"threads", "isa", "pin"}, command)
        for command in ("run", "inspect", "bench", "convert", "quantize", "imatrix", "perplexity",
                        "tokenize", "tokenizer train", "version"):
            self.assertIn("json", options(command), command)
        for command in ("run", "chat"):
            self.assertIn("think", options(command))
        text = program.run("help", "run").out
        for letter in ("-p, --prompt", "-f, --file", "-n, --max-tokens", "-c, --ctx",
                       "-t, --threads"):
            self.assertIn(letter, text)

    def test_overview_fits_80_columns(self):
        for line in program.run("help").out.splitlines():
            self.assertLessEqual(len(line), 80, line)

    def test_docs_show_what_help_says(self):
        done = subprocess.run([sys.executable, os.path.join(program.SOURCE,
                                                            "tools/update_cli_docs.py"), "--check",
                               program.DURE, os.path.join(program.SOURCE, "docs")],
                              text=True, capture_output=True)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_lost_output_is_a_failure(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([program.DURE, "help"], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"standard output: cannot write: No space left", done.stderr)


if __name__ == "__main__":
    tap.main()
