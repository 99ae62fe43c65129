#!/usr/bin/env python3
"""Checks the form of the sources. With no CHECK named, all of them.

    check_sources.py [--root ROOT] [sizes] [words] [headers] [format] [lists]

sizes    a file over 1000 lines and a function over 120 need a comment with `reason:` beside it
words    no absolute paths of one machine; what is left to do names its issue, as in TODO(#12)
headers  each header compiles alone; x.c includes its own x.h first
format   clang-format 14 would change nothing
lists    each line of an X-macro list has its test and its documentation (RULES below)

Exit status 0: nothing found, 1: problems, 77: a tool for the check is missing.
"""
import argparse
import concurrent.futures
import os
import pathlib
import platform
import re
import subprocess
import sys

FILE_LINES_MAX, FUNCTION_LINES_MAX = 1000, 120
TOP = ("src", "include", "examples", "tests", "bench", "tools", "cmake", "docs", "web", ".ci")
TEXT = {".c", ".h", ".cu", ".py", ".sh", ".md", ".txt", ".cmake", ".in", ".js", ".css", ".html"}
REASON = re.compile(r"\breason:", re.IGNORECASE)


def files(root, suffixes):
    found = [p for p in root.iterdir() if p.is_file() and p.name != ".git"]
    for top in TOP:
        found += [p for p in (root / top).rglob("*") if p.is_file()]
    return sorted(p for p in found
                  if (p.suffix in suffixes or (not p.suffix and suffixes is TEXT))
                  and "__pycache__" not in p.parts and "corpus" not in p.parts)


def c_files(root):
    return files(root, {".c", ".h", ".cu"})


def functions(lines):
    """(first line, last line, head) of each function, counted from 0, in clang-format's form: the
    last line is a `}` in column 0, the head the nearest unindented line above that is no label."""
    for last, line in enumerate(lines):
        if line != "}":
            continue
        first = last - 1
        while first >= 0 and not re.match(r"[A-Za-z_].*[^:]$", lines[first]):
            first -= 1
        if first >= 0 and "(" in lines[first]:
            yield first, last, lines[first]


def check_sizes(root):
    for path in c_files(root):
        lines, name = path.read_text().splitlines(), path.relative_to(root)
        if len(lines) > FILE_LINES_MAX and not REASON.search("\n".join(lines[:40])):
            yield f"{name}: {len(lines)} lines without a `reason:` in its opening comment"
        for first, last, head in functions(lines):
            length = last - first + 1
            before = "\n".join(lines[max(0, first - 12):first + 3])
            if length > FUNCTION_LINES_MAX and not REASON.search(before):
                yield f"{name}:{first + 1}: {length} lines without a `reason:`: {head}"


def check_words(root):
    # The pieces are joined here so that this file does not find itself.
    homes = "home|root|Users|mnt|srv|work|opt"
    machine_path = re.compile(rf"(?<![\w.$}}>*/:-])/(?:{homes})/[\w.-]")
    todo = re.compile(r"\b(TO" r"DO|FIX" r"ME|HA" r"CK)\b(?!\(#\d+\))")
    for path in files(root, TEXT):
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            for pattern, why in ((machine_path, "a path of one machine"),
                                 (todo, "without its issue: write it as (#number)")):
                found = pattern.search(line)
                if found:
                    yield f"{path.relative_to(root)}:{number}: {found.group(0)}: {why}"


AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi2"]
AVX512 = AVX2 + ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"]


def header_source(root, path):
    """(text to compile, flags) for a header alone; None where this machine's compiler cannot. A
    kernel header whose opening comment says that one of a level is included before gets that."""
    include, opening = f'#include "{path}"\n', path.read_text()[:600].split("*/")[0]
    vectors = re.search(r"_(avx2|avx512|neon)\.h$", path.name)
    if re.search(r"[Ii]ncluded[\s*]+(before|after)", opening):
        vectors = vectors or "fragment"
        include = '#include "kern/cpu/simd_avx512.h"\n' + include
    if not vectors:
        return include, []
    if platform.machine() != "x86_64" or "neon" in path.name:
        return None
    return include, AVX2 if "avx2" in path.name else AVX512


def header_problem(root, path):
    made = header_source(root, path)
    if not made:
        return None
    flags = ["-std=c11", "-D_GNU_SOURCE", "-fsyntax-only", "-Wall", "-Wextra", "-Werror",
             f"-I{root}/src", f"-I{root}/include", *made[1], "-x", "c"]
    done = subprocess.run([os.environ.get("CC", "cc"), *flags, "-"], input=made[0], text=True,
                          capture_output=True)
    if done.returncode:
        return f"{path.relative_to(root)}: does not compile alone: " + next(
            (line for line in done.stderr.splitlines() if "error" in line), done.stderr)
    return None


def format_problem(root, path):
    done = subprocess.run(["clang-format-14", "--dry-run", "-Werror", "--style=file", str(path)],
                          cwd=root, text=True, capture_output=True)
    if done.returncode:
        line = re.search(r":(\d+):\d+: error", done.stderr)
        return f"{path.relative_to(root)}:{line.group(1) if line else '?'}: " \
               "clang-format would change it (make format)"
    return None


def of_each(paths, problem, root):
    """The problems of the paths, several compilers at a time."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from filter(None, pool.map(lambda path: problem(root, path), paths))


def check_headers(root):
    headers = sorted(p for top in ("src", "include") for p in (root / top).rglob("*.h"))
    yield from of_each(headers, header_problem, root)
    for path in sorted((root / "src").rglob("*.c")):
        own = path.with_suffix(".h")
        first = re.search(r'^#include\s+(\S+)', path.read_text(), re.MULTILINE)
        wanted = f'"{own.relative_to(root / "src")}"'
        # A private header of the module, which includes the own one, may stand for it.
        private = rf'"{path.relative_to(root / "src").parts[0]}/\w+_int\.h"'
        if own.exists() and first and first.group(1) != wanted and \
                not re.fullmatch(private, first.group(1)):
            yield f"{path.relative_to(root)}: includes {first.group(1)} before its own {wanted}"


def check_format(root):
    yield from of_each(c_files(root), format_problem, root)


# (list file, line pattern with the group `name`, file of its test, file of its documentation);
# {name} stands for the name, and a test or document must hold it as a word, with a blank or _.
RULES = [
    ("src/cli/cmd_list.h", r"^    X\((\w+)\)", "tests/e2e/test_{name}.py", "docs/CLI.md"),
]


def check_lists(root):
    for source, pattern, test, document in RULES:
        names = re.findall(pattern, (root / source).read_text(), re.MULTILINE)
        if not names:
            yield f"{source}: the rule in check_sources.py matches no line of it"
        for name in names:
            for place, what in ((test, "test"), (document, "documentation")):
                if place is None:
                    continue
                path = root / place.format(name=name)
                text = path.read_text() if path.is_file() else ""
                words = re.escape(name).replace("_", "[ _]")
                if not re.search(rf"(?<![\w-]){words}(?![\w-])", text):
                    yield f"{source}: {name} has no {what} in {path.relative_to(root)}"


CHECKS = {"sizes": check_sizes, "words": check_words, "headers": check_headers,
          "format": check_format, "lists": check_lists}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=".")
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []], metavar="CHECK")
    options = parser.parse_args()
    root, status = pathlib.Path(options.root).resolve(), 0
    for check in options.checks or CHECKS:
        try:
            for problem in CHECKS[check](root):
                print(problem)
                status = 1
        except FileNotFoundError as missing:
            print(f"{check}: not checked: {missing} is missing")
            status = status or 77
    return status


if __name__ == "__main__":
    sys.exit(main())
