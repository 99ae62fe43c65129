"""`dure chat`: through a pipe, and on a terminal."""
import json
import os

import folder
import program
import tap
from terminal import Terminal
from test_run import edited

MODEL = program.model("deepseek_v3_yarn")
WORDS = ("chat", MODEL, "--temp", "0", "-n", "12")


class Piped(folder.InFolder):
    def setUp(self):
        super().setUp()
        self.saved = os.path.join(self.folder, "saved.json")

    def talk(self, *lines, words=WORDS):
        """The messages after the lines, and what was shown."""
        script = "\n".join([*lines, f"/save {self.saved}", "/quit", "never read"])
        done = program.run(*words, stdin=script)
        return json.loads(program.read(self.saved)), done

    def test_turns_are_those_of_run(self):
        """Each answer is what `dure run` gives for the same messages."""
        messages, done = self.talk("하나", "둘", words=(*WORDS, "--thinking", "off", "-q"))
        self.assertEqual([m["role"] for m in messages], ["user", "assistant"] * 2)
        first = program.run("run", MODEL, "-p", "하나", "--temp", "0", "-n", "12", "--thinking",
                            "off", "--json").json
        self.assertEqual(messages[1]["content"], first["content"])
        path = os.path.join(self.folder, "m.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(messages[:3], file)
        prompt = program.run("template", MODEL, "--messages", path).out + "\n</think>\n\n"
        ids = program.run("tokenize", MODEL, "--parse-special", stdin=prompt).out
        with open(path, "w", encoding="ascii") as file:
            file.write(ids)
        second = program.run("run", MODEL, "--tokens-file", path, "--temp", "0", "-n", "12",
                             "--json").json
        self.assertEqual(messages[3]["content"], second["text"].lstrip())
        self.assertEqual(done.out_bytes.decode("utf-8", "replace").split("\n")[0],
                         messages[1]["content"].split("\n")[0])

    def test_lines_and_blocks(self):
        messages, _ = self.talk("one\\", "two", "", '"""', "three", "/reset", '"""')
        self.assertEqual([m["content"] for m in messages if m["role"] == "user"],
                         ["one\ntwo", "three\n/reset"])

    def test_reset_and_system(self):
        messages, done = self.talk("a", "/reset", "b", words=(*WORDS, "-s", "Sys"))
        self.assertEqual([m["role"] for m in messages], ["system", "user", "assistant"])
        self.assertEqual((messages[0]["content"], messages[1]["content"]), ("Sys", "b"))
        self.assertIn("the conversation is forgotten", done.err)

    def test_think_and_nothink(self):
        messages, done = self.talk("a", "/nothink", "b", "/think", "c")
        answers = [m for m in messages if m["role"] == "assistant"]
        self.assertEqual(["reasoning_content" in m for m in answers], [True, False, True])
        self.assertIn("[thinking]", done.err)

    def test_mistakes_do_not_end_it(self):
        messages, done = self.talk("/sav", "/save", "/save /nowhere/x", "/help", "x " * 3000, "ok")
        for text in ("did you mean /save:", "/save needs the name", "/nowhere/x", "/nothink",
                     "the prompt fills the context", "/reset starts anew"):
            self.assertIn(text, done.err)
        self.assertEqual([m["content"] for m in messages if m["role"] == "user"], ["ok"])

    def test_end_of_input(self):
        self.assertEqual(program.run(*WORDS, stdin="a\n").status, 0)
        self.assertEqual(program.run(*WORDS, stdin="").status, 0)


class OnATerminal(folder.InFolder):
    def open(self, *words):
        terminal = Terminal(*words, XDG_STATE_HOME=self.folder)
        self.prompted(terminal)
        return terminal

    def prompted(self, terminal):
        """Waits for the next prompt; a key before it, such as Ctrl-D, means something else."""
        terminal.read_until("> ")
        terminal.wait_for_editing()

    def answered(self, terminal):
        """Waits for the end of an answer and the next prompt."""
        terminal.read_until("tok/s]")
        self.prompted(terminal)

    def test_history_is_kept(self):
        first = self.open(*WORDS)
        first.type("벼를 베자\r")
        self.answered(first)
        first.type("/quit\r")
        self.assertEqual(first.close(), 0)
        self.assertTrue(os.path.exists(os.path.join(self.folder, "dure/history")))
        second = self.open(*WORDS)
        second.type("\x1b[A\x1b[A")  # two lines back
        second.read_until("벼를 베자")
        second.type("\r")
        self.answered(second)
        second.type("\x04")
        self.assertEqual(second.close(), 0)

    def test_history_belongs_to_its_owner(self):
        terminal = self.open(*WORDS)
        terminal.type("a\r")
        self.answered(terminal)
        terminal.type("/quit\r")
        self.assertEqual(terminal.close(), 0)
        mode = os.stat(os.path.join(self.folder, "dure/history")).st_mode
        self.assertEqual(mode & 0o077, 0)

    def saved(self, terminal):
        """The messages so far, and the end of the program."""
        path = os.path.join(self.folder, "saved as.json")
        terminal.type(f"/save {path}\r")
        terminal.read_until("messages are in ")
        self.prompted(terminal)
        terminal.type("\x04")
        self.assertEqual(terminal.close(), 0)
        return json.loads(program.read(path))

    def test_lines_are_edited(self):
        terminal = self.open(*WORDS)
        # Home, delete to the end, left arrow, word back, backspace over a wide character.
        terminal.type("wrong\x01\x0b" "벼를 벴다다\x7f" " Z\x1b[D\x08\x7f" "\x05" "\x7f." "\r")
        self.answered(terminal)
        self.assertEqual(self.saved(terminal)[0]["content"], "벼를 벴.")

    def test_texts_of_several_lines(self):
        terminal = self.open(*WORDS)
        for text in ('one\\\rtwo\r', '"""\r/help\r\rend\r"""\r'):
            for line in text.split("\r")[:-1]:
                terminal.type(line + "\r")
                terminal.read_until("\n")
                terminal.wait_for_editing()
            self.answered(terminal)
        users = [m["content"] for m in self.saved(terminal) if m["role"] == "user"]
        self.assertEqual(users, ["one\ntwo", "/help\n\nend"])

    def test_interrupt_gives_up_all_lines_of_a_text(self):
        terminal = self.open(*WORDS)
        terminal.type('"""\r')
        terminal.read_until("| ")
        terminal.wait_for_editing()
        terminal.type("given up")
        terminal.read_until("given up")
        terminal.interrupt()
        terminal.read_until("/quit ends")
        self.prompted(terminal)
        terminal.type("kept\r")
        self.answered(terminal)
        self.assertEqual(self.saved(terminal)[0]["content"], "kept")

    def test_help_fits_the_terminal(self):
        terminal = self.open(*WORDS)
        terminal.type("/help\r")
        shown = terminal.read_until("being typed.")
        for command in ("/think", "/nothink", "/reset", "/save FILE", "/help", "/quit"):
            self.assertIn(command, shown)
        for line in shown.split("\r\n"):
            self.assertLessEqual(len(line), 80, line)
        self.prompted(terminal)
        terminal.type("\x04")
        terminal.close()

    def test_interrupt_stops_the_answer_and_not_the_program(self):
        model = edited(self.folder, program.model("qwen2"), "config.json",
                       max_position_embeddings=1000000)
        terminal = self.open("chat", model, "-c", "500k", "--ignore-eos", "--temp", "1")
        for _ in range(2):
            terminal.type("x\r")
            terminal.read_until("\r\n")
            # A random model writes control characters; none of them reaches the terminal.
            shown = terminal.read_characters(2000)
            self.assertNotRegex(shown, r"[\x00-\x08\x0b\x0c\x0e-\x1a\x7f-\x9f]")
            self.assertIn("\ufffd", shown)
            terminal.interrupt()
            self.answered(terminal)
        terminal.type("half a line")
        terminal.interrupt()
        terminal.read_until("/quit ends")
        terminal.type("/quit\r")
        self.assertEqual(terminal.close(), 0)

    def test_termination_ends_it_with_the_terminal_as_it_was(self):
        terminal = Terminal(*WORDS, XDG_STATE_HOME=self.folder)
        self.prompted(terminal)
        terminal.type("half")
        terminal.read_until("half")
        terminal.process.terminate()
        self.assertEqual(terminal.process.wait(60), 130)
        self.assertEqual(terminal.modes(), terminal.first_modes)
        terminal.close()

    def test_reasoning_is_dim_and_colours_can_be_off(self):
        terminal = self.open(*WORDS)
        terminal.type("a\r")
        self.assertIn("\x1b[2m[thinking]", terminal.read_until("[/thinking]"))
        self.answered(terminal)
        terminal.type("/quit\r")
        terminal.close()
        terminal = Terminal(*WORDS, XDG_STATE_HOME=self.folder, NO_COLOR="1")
        self.prompted(terminal)
        terminal.type("a\r")
        self.assertNotIn("\x1b[2m", terminal.read_until("[/thinking]"))
        self.answered(terminal)
        terminal.type("/quit\r")
        terminal.close()


if __name__ == "__main__":
    tap.main()
