#!/usr/bin/env python3
"""Puts what `dure help COMMAND` prints into docs/CLI.md, between the lines
<!-- help COMMAND --> and <!-- end -->.

    update_cli_docs.py [--check] DURE [CLI.md]

--check changes nothing: exit status 1 when the file is out of date or a command has no section.
"""
import pathlib
import re
import subprocess
import sys

BLOCK = re.compile(r"(<!-- help ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(words):
    check = words[:1] == ["--check"]
    words = words[check:]
    if not words:
        raise SystemExit(__doc__)
    dure = words[0]
    path = pathlib.Path(words[1] if len(words) > 1 else "docs/CLI.md")

    def help_of(*command):
        return subprocess.run([dure, "help", *command], check=True, text=True,
                              stdout=subprocess.PIPE).stdout

    old = path.read_text(encoding="utf-8")
    new = BLOCK.sub(lambda m: f"{m[1]}```text\n{help_of(*m[2].split())}```\n{m[3]}", old)
    listed = help_of().split("Commands:\n")[1].split("\n\n")[0]
    commands = {re.split("  +", line.strip())[0] for line in listed.splitlines()}
    problems = [f"{path}: no section for {name}" for name in
                sorted(commands - {m[2] for m in BLOCK.finditer(old)})]
    if check and new != old:
        problems.append(f"{path} is out of date: tools/update_cli_docs.py {dure}")
    elif new != old:
        path.write_text(new, encoding="utf-8")
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
