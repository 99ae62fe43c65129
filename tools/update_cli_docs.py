#!/usr/bin/env python3
"""Puts what the program prints into docs/CLI.md and docs/TRAINING.md: of `dure help COMMAND`
between the lines <!-- help COMMAND --> and <!-- end -->, of `dure WORDS` between
<!-- output WORDS --> and <!-- end -->.

    update_cli_docs.py [--check] DURE [DOCS]

--check changes nothing: exit status 1 when a file is out of date or a command has no section.
"""
import pathlib
import re
import subprocess
import sys

BLOCK = re.compile(r"(<!-- (help|output) ([a-z -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(words):
    check = words[:1] == ["--check"]
    words = words[check:]
    if not words:
        raise SystemExit(__doc__)
    dure = words[0]
    docs = pathlib.Path(words[1] if len(words) > 1 else "docs")
    problems = []

    def output(*command):
        return subprocess.run([dure, *command], check=True, text=True,
                              stdout=subprocess.PIPE).stdout

    def block(match):
        before = ["help"] if match[2] == "help" else []
        return f"{match[1]}```text\n{output(*before, *match[3].split())}```\n{match[4]}"

    for path in (docs / "CLI.md", docs / "TRAINING.md"):
        old = path.read_text(encoding="utf-8")
        new = BLOCK.sub(block, old)
        if check and new != old:
            problems.append(f"{path} is out of date: tools/update_cli_docs.py {dure}")
        elif new != old:
            path.write_text(new, encoding="utf-8")
    text = (docs / "CLI.md").read_text(encoding="utf-8")
    listed = output("help").split("Commands:\n")[1].split("\n\n")[0]
    commands = {re.split("  +", line.strip())[0] for line in listed.splitlines()}
    problems += [f"{docs / 'CLI.md'}: no section for {name}" for name in
                 sorted(commands - {m[3] for m in BLOCK.finditer(text)})]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
