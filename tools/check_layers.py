#!/usr/bin/env python3
"""Checks who includes whom against tools/layers.txt.

    check_layers.py [ROOT]

A line `module: a b c` allows src/module/ to include headers of a, b, c and its own; `dure` is
include/dure/. `x and all of the above but y` stands for what it says. Told as errors: any other
arrow, a private header (*_int.h) outside its module, a file that includes itself in the end, a
module without a line, an include that names no file of the tree by its path under src/.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


def read_layers(path):
    """{module: set of modules it may include}; a module may always include itself."""
    layers = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        name, colon, rest = line.partition(":")
        if not colon:
            raise SystemExit(f"{path}:{number}: no `module:`")
        rest, _, but = rest.partition(" but ")
        words = set(rest.replace("and all of the above", "ALL").split())
        if "ALL" in words:
            words = (words - {"ALL"} | set(layers)) - set(but.split())
        unknown = words - set(layers) - {"dure"}
        if unknown:
            # Only lines above may be named, so the modules cannot form a cycle.
            raise SystemExit(f"{path}:{number}: {name} names {', '.join(sorted(unknown))}, "
                             "which no line above describes")
        layers[name.strip()] = words | {name.strip()}
    return layers


def module_of(path, root):
    parts = path.relative_to(root).parts
    return "dure" if parts[:2] == ("include", "dure") else parts[1]


def check(root):
    layers = read_layers(root / "tools/layers.txt")
    layers["dure"] = {"dure"}
    problems, graph = [], {}
    files = sorted(p for top in ("src", "include") for p in (root / top).rglob("*")
                   if p.suffix in (".c", ".h", ".cu"))
    for path in files:
        module, name = module_of(path, root), path.relative_to(root)
        if module not in layers:
            problems.append(f"{name}: no line for {module} in tools/layers.txt")
            continue
        graph[path] = []
        for match in INCLUDE.finditer(path.read_text()):
            target = match.group(1)
            line = path.read_text()[:match.start()].count("\n") + 1
            where = f"{name}:{line}: includes {target}"
            found = root / ("include" if target.startswith("dure/") else "src") / target
            if not found.is_file():
                problems.append(f"{where}: no such file under src/ (write module/header.h)")
                continue
            graph[path].append(found)
            other = module_of(found, root)
            if other not in layers[module]:
                problems.append(f"{where}: {module} may not include {other}")
            if target.endswith("_int.h") and other != module:
                problems.append(f"{where}: a private header of {other}")
    for path in sorted((root / "tests").rglob("*.[ch]")):
        for target in INCLUDE.findall(path.read_text()):
            if target.endswith("_int.h"):
                problems.append(f"{path.relative_to(root)}: includes {target}: a private header")
    return problems + cycles(graph, root)


def cycles(graph, root):
    problems, state = [], {}

    def visit(path, trail):
        state[path] = "open"
        for target in graph.get(path, []):
            if state.get(target) == "open":
                ring = trail[trail.index(target):] + [target]
                problems.append("cycle: " + " -> ".join(str(p.relative_to(root)) for p in ring))
            elif target not in state:
                visit(target, trail + [target])
        state[path] = "done"

    for path in graph:
        if path not in state:
            visit(path, [path])
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
    print("\n".join(found))
    sys.exit(1 if found else 0)
