"""The checks of tools/check_*: each finds nothing in this tree, and each finds what it is for. The
form of the whole tree is checked by .ci/run: clang-format takes longest."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

import tap

ROOT = pathlib.Path(os.environ["DURE_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["DURE_BUILD_DIR"])
TOOLS = ROOT / "tools"


def run(*command):
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True)
    return done.returncode, done.stdout + done.stderr


class Tree(unittest.TestCase):
    """This tree passes."""

    def passes(self, *command):
        status, output = run(*command)
        if status == 77:
            self.skipTest(output.strip())
        self.assertEqual(status, 0, output)

    def sources(self, check):
        self.passes(sys.executable, TOOLS / "check_sources.py", "--root", ROOT, check)

    def test_layers(self):
        self.passes(sys.executable, TOOLS / "check_layers.py", ROOT)

    def test_symbols(self):
        self.passes(TOOLS / "check_symbols.sh", BUILD)

    def test_sizes(self):
        self.sources("sizes")

    def test_words(self):
        self.sources("words")

    def test_headers(self):
        self.sources("headers")

    def test_lists(self):
        self.sources("lists")

    def test_readmes(self):
        """What stands alike in both: sections, commands and what they print, tables' numbers."""
        parts = []
        for name in ("README.md", "README.ko.md"):
            text = (ROOT / name).read_text(encoding="utf-8")
            code = re.findall(r"^    (?!make )(.*)", text, re.MULTILINE)
            parts.append({
                "levels": re.findall(r"^#+", text, re.MULTILINE),
                "items": len(re.findall(r"^- ", text, re.MULTILINE)),
                "code": [re.sub(r"-p '.*'", "-p TEXT", line) for line in code],
                "names": [sorted(re.findall(r"`[^`]*`", row))
                          for row in re.findall(r"^\|.*", text, re.MULTILINE)],
                "numbers": re.findall(r"(?<=\| )[\d.,e-]+(?: %)?(?= \|)", text),
                "links": sorted(re.findall(r"\]\((?!README)(.*?)\)", text))})
        for part in parts[0]:
            self.assertEqual(parts[0][part], parts[1][part], part)
        self.assertGreater(len(parts[0]["numbers"]), 10)


class Finds(unittest.TestCase):
    """A small tree with one fault: the check says so and names the file."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.write("tools/layers.txt", (TOOLS / "layers.txt").read_text())
        self.write("src/base/a.h", "int du_a(void);\n")

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def layers(self, *parts):
        status, output = run(sys.executable, TOOLS / "check_layers.py", self.root)
        self.assertEqual(status, 1 if parts else 0, output)
        for part in parts:
            self.assertIn(part, output)

    def sources(self, check, *parts):
        status, output = run(sys.executable, TOOLS / "check_sources.py", "--root", self.root, check)
        self.assertEqual(status, 1 if parts else 0, output)
        for part in parts:
            self.assertIn(part, output)

    def test_allowed_arrows(self):
        self.write("src/tensor/t.h", '#include "base/a.h"\n')
        self.write("src/cli/c.c", '#include "tensor/t.h"\n#include "dure/dure.h"\n')
        self.write("include/dure/dure.h", "")
        self.layers()

    def test_arrow_upwards(self):
        self.write("src/tensor/t.h", "")
        self.write("src/base/b.c", '#include "base/a.h"\n\n#include "tensor/t.h"\n')
        self.layers("src/base/b.c:3: includes tensor/t.h: base may not include tensor")

    def test_cli_not_api(self):
        self.write("src/api/x.h", "")
        self.write("src/cli/c.c", '#include "api/x.h"\n')
        self.layers("cli may not include api")

    def test_private_header(self):
        self.write("src/base/a_int.h", "")
        self.write("src/tensor/t.c", '#include "base/a_int.h"\n')
        self.write("tests/unit/test_a.c", '#include "base/a_int.h"\n')
        self.layers("src/tensor/t.c:1", "a private header of base", "tests/unit/test_a.c")

    def test_cycle(self):
        self.write("src/base/b.h", '#include "base/c.h"\n')
        self.write("src/base/c.h", '#include "base/b.h"\n')
        self.layers("cycle: src/base/b.h -> src/base/c.h -> src/base/b.h")

    def test_unknown_module_and_name(self):
        self.write("src/extra/x.c", "")
        self.write("src/base/b.c", '#include "a.h"\n')
        self.layers("no line for extra", "includes a.h: no such file")

    def test_module_cycle(self):
        self.write("tools/layers.txt", "base: tensor\ntensor: base\n")
        self.layers("base names tensor, which no line above describes")

    def test_long_function(self):
        body = "    x++;\n" * 130
        self.write("src/base/b.c", f"int du_b(int x) {{\n{body}done:\n    return x;\n}}\n")
        self.sources("sizes", "src/base/b.c:1: 134 lines")
        self.write("src/base/b.c", f"/* reason: unrolled */\nint du_b(int x) {{\n{body}}}\n")
        self.sources("sizes")

    def test_long_file(self):
        self.write("src/base/b.h", "int x;\n" * 1001)
        self.sources("sizes", "src/base/b.h: 1001 lines")

    def test_words(self):
        self.write("src/base/b.c", "/* TO" "DO later */\n")
        self.write("docs/x.md", "see /ho" "me/me/file\n")
        self.sources("words", "src/base/b.c:1", "docs/x.md:1")
        self.write("src/base/b.c", "/* TO" "DO(#7) later */\n")
        self.write("docs/x.md", "see https://example.org/ho" "me/x\n")
        self.sources("words")

    def test_header_alone(self):
        self.write("src/base/b.h", "size_t du_b(void);\n")
        self.write("src/base/a.c", '#include <stdio.h>\n#include "base/a.h"\n')
        self.sources("headers", "src/base/b.h: does not compile alone",
                     "src/base/a.c: includes <stdio.h> before its own")

    def test_format(self):
        self.write(".clang-format", (ROOT / ".clang-format").read_text())
        self.write("src/base/b.c", "int  du_b(void) { return 1; }\n")
        if not shutil.which("clang-format-14"):
            self.skipTest("clang-format-14 is missing")
        self.sources("format", "src/base/b.c:1: clang-format would change it")

    def symbols(self, source, text):
        """The output of check_symbols.sh for one object made of text."""
        self.write(source, text)
        made = self.root / "CMakeFiles/dure_x.dir" / (source + ".o")
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-w", "-c", "-o", made, self.root / source], check=True)
        status, output = run(TOOLS / "check_symbols.sh", self.root)
        self.assertEqual(status, 1 if output else 0)
        return output

    def test_names(self):
        text = textwrap.dedent("""
            static int inner(void) { return 1; }
            int du_b(void) { return inner(); }
            """)
        self.assertEqual(self.symbols("src/base/b.c", text), "")
        self.assertIn("src/base/b.c.o: helper", self.symbols("src/base/b.c", "int helper = 1;\n"))
        self.assertIn("dure_x", self.symbols("src/base/b.c", "int dure_x = 1;\n"))
        self.assertEqual(self.symbols("src/base/b.c", ""), "")
        self.assertEqual(self.symbols("src/api/b.c", "int dure_x = 1;\n"), "")

    def test_used_functions(self):
        heap = "#include <stdlib.h>\nvoid *du_b(int n) { return malloc(n); }\n"
        self.assertIn("malloc: the heap", self.symbols("src/base/b.c", heap))
        self.symbols("src/base/b.c", "")
        self.assertEqual(self.symbols("src/base/mem.c", heap), "")
        talk = "#include <stdio.h>\nvoid du_b(int n) { printf(\"%d\", n); }\n"
        self.assertIn("printf: belongs to cli/", self.symbols("src/nn/b.c", talk))
        self.symbols("src/nn/b.c", "")
        ask = "#include <stdlib.h>\nchar *du_cli_b(void) { return getenv(\"X\"); }\n"
        self.assertEqual(self.symbols("src/cli/b.c", ask), "")
        old = "#include <string.h>\nvoid du_cli_b(char *a, char *b) { strcat(a, b); }\n"
        self.assertIn("strcat: banned", self.symbols("src/cli/b.c", old))


if __name__ == "__main__":
    tap.main()
