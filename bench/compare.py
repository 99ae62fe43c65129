#!/usr/bin/env python3
"""Measures dure and other engines' own benchmark programs on one model file and prints the ratios.

    compare.sh --model FILE --peer LLAMA_BENCH [OPTION]...

For every row the programs take turns: dure, peer, [peer ...], and so on, --pairs times; a
row's ratio is the median of the pairs' ratios, above 1 where dure is better. Opening the model is
outside what is timed, save in `first-token`. A peer is a llama-bench as llama.cpp or ik_llama.cpp
have it; options after a --peer, up to the next one, belong to it. Peers of one --peer-name are ways
to run one engine: the row `best` compares with the best of them, pair by pair.

Rows: decode, decode-2k, decode-8k        one sequence, tokens in the cache: 0, 2048, 8192
      prefill-128, prefill-512, prefill-2k
      prefill-8k                          512 tokens after 8192
      batch-8, batch-16                   decode of sequences together, a prompt of 64 each
      first-token                         a whole process that reads a prompt of 16, in seconds
      resident, anonymous                 MB at most after 4064 tokens and 32 more; the second
                                          without pages of the file
"""
import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TIMEOUT_S = 3600
ROWS = ("decode", "decode-2k", "decode-8k", "prefill-128", "prefill-512", "prefill-2k",
        "prefill-8k", "batch-8", "batch-16", "first-token", "resident", "anonymous")
LESS_IS_BETTER = {"first-token", "resident", "anonymous"}
DECODE = {"decode": 0, "decode-2k": 2048, "decode-8k": 8192}
PREFILL = {"prefill-128": 128, "prefill-512": 512, "prefill-2k": 2048}
BATCH = {"batch-8": 8, "batch-16": 16}
DEEP, DEEP_PROMPT, BATCH_PROMPT, BATCH_GEN = 8192, 512, 64, 32
FIRST_PROMPT, MEMORY_PROMPT, MEMORY_GEN = 16, 4064, 32
# What one run of the programs gives together, and rows whose runs are too long for many.
TOGETHER = (("decode-8k", "prefill-8k"), ("resident", "anonymous"))
FEWER_PAIRS = {"decode-8k": 3, "prefill-8k": 3, "resident": 1, "anonymous": 1}


class Failed(Exception):
    """A program did not do its work; the text says which and why."""


class Run:
    """A finished program: its output, seconds, and memory in bytes as /proc told while it ran."""

    def __init__(self, words, folder):
        self.out_path = os.path.join(folder, "out")
        start = time.monotonic()
        with open(self.out_path, "wb") as out, open(os.path.join(folder, "err"), "wb") as err:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                       cwd=folder)
            self.resident = self.anonymous = 0
            watch = threading.Thread(target=self.watch, args=(process,), daemon=True)
            watch.start()
            try:
                status = process.wait(TIMEOUT_S)
            except BaseException:
                process.kill()
                process.wait()
                raise
            self.seconds = time.monotonic() - start
            watch.join()
        self.out = read_text(self.out_path)
        self.err = read_text(os.path.join(folder, "err"))
        if status != 0:
            last = (self.err.strip() or self.out.strip()).splitlines()[-1:]
            raise Failed(f"{shlex.join(words)}: status {status}: {''.join(last)[:300]}")

    def watch(self, process):
        path = f"/proc/{process.pid}/status"
        while process.poll() is None:
            fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", read_text(path), re.MULTILINE))
            anonymous = int(fields.get("RssAnon", 0)) + int(fields.get("RssShmem", 0))
            self.anonymous = max(self.anonymous, anonymous * 1024)
            self.resident = max(self.resident, int(fields.get("VmHWM", 0)) * 1024)
            time.sleep(0.02)


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def llama_bench_tests(text):
    """The tests that a llama-bench printed as a JSON array or as lines of objects."""
    text = text.strip()
    try:
        if text.startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    except json.JSONDecodeError as wrong:
        raise Failed(f"no JSON: {wrong}") from wrong


def table_rows(text):
    """The rows of a table as llama-batched-bench and llama-sweep-bench print it, by column name."""
    heads, rows = None, []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) < 5:
            continue
        if cells[0] == "PP":
            heads = cells
        elif heads and len(cells) == len(heads) and cells[0].isdigit():
            rows.append({head: float(cell) for head, cell in zip(heads, cells)
                         if re.fullmatch(r"[\d.]+", cell)})
    return rows


def pick(rows, wanted, column):
    """The column of the only row that has the wanted cells."""
    found = [row[column] for row in rows if all(row.get(k) == v for k, v in wanted.items())]
    if len(found) != 1:
        raise Failed(f"{len(found)} rows with {wanted} in its table")
    return found[0]


class Dure:
    """The program itself: tokens per second, seconds or bytes of a row; the machine's limits."""

    name = "dure"

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.words = [options.dure]
        self.computing = ["--threads", str(options.threads), "--seed", "1"]
        if options.isa:
            self.computing += ["--isa", options.isa]
        self.computing += shlex.split(options.dure_args)
        self.limits = []  # (bytes per second, int8 operations per second) of each run
        self.tests = {}   # the tests of each row, for their fractions
        self.ids = os.path.join(folder, "ids")

    def bench(self, *words):
        run = Run([self.options.dure, "bench", self.options.model, "--json", *map(str, words),
                   *self.computing], self.folder)
        tests = json.loads(run.out)
        self.limits.append((tests[0]["bandwidth"], tests[0]["int8_peak"]))
        return tests

    def answer(self, n_prompt, n_gen):
        with open(self.ids, "w", encoding="ascii") as file:
            file.write(" ".join(str(7 + i % 97) for i in range(n_prompt)))
        return Run([self.options.dure, "run", self.options.model, "--tokens-file", self.ids, "-n",
                    str(n_gen), "--temp", "0", "--ignore-eos", "-c", str(n_prompt + n_gen),
                    *self.computing], self.folder)

    def measure(self, rows):
        row, n, reps = rows[0], self.options.gen, self.options.repeats
        if row == "first-token":
            return {row: self.answer(FIRST_PROMPT, 1).seconds}
        if row in ("resident", "anonymous"):
            run = self.answer(MEMORY_PROMPT, MEMORY_GEN)
            return {"resident": run.resident / 1e6, "anonymous": run.anonymous / 1e6}
        if row in PREFILL:
            tests = self.bench("-p", PREFILL[row], "-n", 0, "-r", reps)
        elif row in BATCH:
            tests = self.bench("-p", 0, "-n", BATCH_GEN, "-c", BATCH_PROMPT, "-s", BATCH[row], "-r",
                               1)
        elif "prefill-8k" in rows:
            tests = self.bench("-p", DEEP_PROMPT, "-n", n if "decode-8k" in rows else 0, "-c",
                               DEEP, "-r", 1)
        else:
            tests = self.bench("-p", 0, "-n", n, "-c", DECODE[row], "-r", reps)
        found = {}
        for test in tests:
            for row in rows:
                if row.startswith(test["test"]) or row in BATCH:
                    found[row] = test["tok_s"]
                    self.tests.setdefault(row, []).append(test)
        return found


class Peer:
    """One way to run another engine's llama-bench and its kin."""

    def __init__(self, bench, name):
        self.bench, self.engine, self.args = bench, name, []
        self.batched = self.sweep = self.tool_args = None
        self.name = name

    def prepare(self, options, folder):
        self.options, self.folder = options, folder
        self.name = " ".join([self.engine, *self.args])
        done = subprocess.run([self.bench, "--help"], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        self.has_depth = "--n-depth" in said
        self.no_warmup = ["--no-warmup"] if "--no-warmup" in said else ["-w", "0"]

    def llama_bench(self, *words):
        return Run([self.bench, "-m", self.options.model, "-t", str(self.options.threads), "-o",
                    "json", *map(str, words), *self.args], self.folder)

    def speed(self, n_prompt, n_gen, depth, reps):
        """Tokens per second of prompt and of generation, None where not asked for."""
        if depth and self.has_depth:
            words = ["-p", n_prompt, "-n", n_gen, "-d", depth]
        elif depth:
            words = ["-p", 0, "-n", 0, "-gp", f"{depth},{n_gen}"]
        else:
            words = ["-p", n_prompt, "-n", n_gen]
        speeds = [None, None]
        for test in llama_bench_tests(self.llama_bench(*words, "-r", reps).out):
            speeds[test["n_gen"] > 0] = statistics.median(test["samples_ts"])
        if (n_prompt and speeds[0] is None) or (n_gen and speeds[1] is None):
            raise Failed(f"{self.name}: no test of {words} in what it printed")
        return speeds

    def tool(self, path, what, *words):
        if not path:
            raise Failed(f"{self.name}: no --peer-{what} given")
        run = Run([path, "-m", self.options.model, "-t", str(self.options.threads),
                   *map(str, words), *(self.args if self.tool_args is None else self.tool_args)],
                  self.folder)
        return table_rows(run.out + "\n" + run.err)

    def sweep_rows(self, rows):
        """Where llama-bench knows no prefill behind a context."""
        n, size = self.options.gen, DEEP + DEEP_PROMPT
        table = self.tool(self.sweep, "sweep", "-c", size, "-ub", DEEP_PROMPT, "-n", n,
                          "--sweep-stride", DEEP // DEEP_PROMPT)
        columns = {"prefill-8k": "S_PP t/s", "decode-8k": "S_TG t/s"}
        return {row: pick(table, {"N_KV": DEEP}, columns[row]) for row in rows}

    def measure(self, rows):
        row, n, reps = rows[0], self.options.gen, self.options.repeats
        if row == "first-token":
            return {row: self.llama_bench("-p", FIRST_PROMPT, "-n", 0, "-r", 1,
                                          *self.no_warmup).seconds}
        if row in ("resident", "anonymous"):
            words = (["-p", 0, "-n", MEMORY_GEN, "-d", MEMORY_PROMPT] if self.has_depth else
                     ["-p", 0, "-n", 0, "-gp", f"{MEMORY_PROMPT},{MEMORY_GEN}"])
            run = self.llama_bench(*words, "-r", 1)
            return {"resident": run.resident / 1e6, "anonymous": run.anonymous / 1e6}
        if row in PREFILL:
            return {row: self.speed(PREFILL[row], 0, 0, reps)[0]}
        if row in BATCH:
            size = BATCH[row] * (BATCH_PROMPT + BATCH_GEN)
            table = self.tool(self.batched, "batched", "-c", size, "-npp", BATCH_PROMPT, "-ntg",
                              BATCH_GEN, "-npl", BATCH[row])
            return {row: pick(table, {"B": BATCH[row]}, "S_TG t/s")}
        if "prefill-8k" in rows and not self.has_depth:
            return self.sweep_rows(rows)
        if "prefill-8k" in rows:
            speeds = self.speed(DEEP_PROMPT, n if "decode-8k" in rows else 0, DEEP, 1)
            return {row: speeds[row == "decode-8k"] for row in rows}
        return {row: self.speed(0, n, DECODE[row], 1 if DECODE[row] else reps)[1]}


class PeerOption(argparse.Action):
    """--peer starts a peer; the others say more of the last one."""

    def __call__(self, parser, options, value, option_string=None):
        peers = getattr(options, "peers", None) or []
        options.peers = peers
        if self.dest == "peer":
            peers.append(Peer(os.path.abspath(value), f"peer {len(peers) + 1}"))
        elif not peers:
            parser.error(f"{option_string} stands after the --peer that it belongs to")
        elif self.dest == "peer_name":
            peers[-1].engine = value
        elif self.dest in ("peer_args", "peer_tool_args"):
            setattr(peers[-1], self.dest.removeprefix("peer_"), shlex.split(value))
        else:
            setattr(peers[-1], self.dest.removeprefix("peer_"), os.path.abspath(value))


def parse():
    parser = argparse.ArgumentParser(prog="compare.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="FILE", help="GGUF file")
    for name, text in (("peer", "a llama-bench; may be repeated"),
                       ("peer-name", "what the table calls it"),
                       ("peer-args", "further options of it, as one word: '-rtr 1'"),
                       ("peer-tool-args", "further options of the next two (default: the same)"),
                       ("peer-batched", "its llama-batched-bench, for the rows batch-*"),
                       ("peer-sweep", "its llama-sweep-bench, for prefill-8k where llama-bench "
                                      "has no -d")):
        parser.add_argument(f"--{name}", action=PeerOption, help=text,
                            metavar={"peer-name": "NAME", "peer-args": "'WORD...'",
                                     "peer-tool-args": "'WORD...'"}.get(name, "PATH"))
    parser.add_argument("--dure", default="build/dure", metavar="PATH",
                        help="default: build/dure")
    parser.add_argument("--dure-args", default="", metavar="'WORD...'",
                        help="further options of dure, as one word")
    parser.add_argument("--isa", help="kernel level of dure")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N",
                        help="of every program (default: %(default)s)")
    parser.add_argument("--pairs", type=int, metavar="N",
                        help="turns of each row (default 5; 3 at 8192 tokens, 1 for memory)")
    parser.add_argument("--rows", default=",".join(ROWS), metavar="ROW,...",
                        help="default: all")
    parser.add_argument("--gen", type=int, default=64, metavar="N",
                        help="tokens that decode rows generate (default 64)")
    parser.add_argument("--repeats", type=int, default=1, metavar="N",
                        help="repeats inside one run of a short row (default 1)")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead")
    options = parser.parse_args()
    if not getattr(options, "peers", None):
        parser.error("no --peer given")
    options.rows = options.rows.split(",")
    for row in options.rows:
        if row not in ROWS:
            parser.error(f"{row} is no row: {', '.join(ROWS)}")
    options.dure = os.path.abspath(shutil.which(options.dure) or options.dure)
    options.model = os.path.abspath(options.model)
    for path in (options.dure, options.model, *(p.bench for p in options.peers)):
        if not os.path.isfile(path):
            parser.error(f"{path} is no file")
    return options


def groups_of(rows):
    """Rows that one run gives together stay together, in the order asked for."""
    done, groups = set(), []
    for row in rows:
        if row not in done:
            group = next((g for g in TOGETHER if row in g), (row,))
            group = tuple(r for r in group if r in rows)
            done.update(group)
            groups.append(group)
    return groups


def measure(options, dure, peers):
    """{row: {program: [value of each pair, None where it failed]}}, and the failures."""
    values, failures = {row: {} for row in options.rows}, []
    for group in groups_of(options.rows):
        n_pairs = options.pairs or FEWER_PAIRS.get(group[0], 5)
        given_up = set()
        for pair in range(n_pairs):
            for program in (dure, *peers):
                print(f"\r{group[0]}, {pair + 1} of {n_pairs}: {program.name}\033[K",
                      end="", file=sys.stderr, flush=True) if sys.stderr.isatty() else None
                found = {}
                if program.name not in given_up:
                    try:
                        found = program.measure(group)
                    except (Failed, subprocess.TimeoutExpired) as wrong:
                        failures.append(f"{', '.join(group)}: {wrong}")
                        given_up.add(program.name)
                for row in group:
                    values[row].setdefault(program.name, []).append(found.get(row))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return values, failures


def best_of(row, ways):
    """The best of several ways in each pair."""
    better = min if row in LESS_IS_BETTER else max
    pairs = ([v for v in pair if v is not None] for pair in zip(*ways))
    return [better(pair) if pair else None for pair in pairs]


def compare(row, ours, theirs):
    """Medians and ratios of the pairs in which both did their work; None where there is none."""
    pairs = [(a, b) for a, b in zip(ours, theirs) if a and b]
    if not pairs:
        return None
    ratios = [b / a if row in LESS_IS_BETTER else a / b for a, b in pairs]
    return {"dure": statistics.median(a for a, _ in pairs),
            "peer": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(ratios), "ratios": ratios, "pairs": pairs}


def results(options, values, dure):
    """One object per row: dure's median, its fraction of a limit, the comparison with each peer."""
    engines = {}
    for peer in options.peers:
        engines.setdefault(peer.engine, []).append(peer.name)
    rows = []
    for row in options.rows:
        ours = values[row]["dure"]
        known = [v for v in ours if v is not None]
        tests, limit, fraction = dure.tests.get(row), None, None
        if tests:
            limit = ("bandwidth_fraction", "int8_fraction")[row.startswith("prefill")]
            fraction = statistics.median(test[limit] for test in tests)
        result = {"row": row, "dure": statistics.median(known) if known else None,
                  "limit": limit, "fraction": fraction, "peers": {}}
        for names in engines.values():
            for name in names:
                result["peers"][name] = compare(row, ours, values[row][name])
        for engine, names in engines.items():
            if len(names) > 1:
                best = best_of(row, [values[row][name] for name in names])
                result["peers"][f"{engine}, best"] = compare(row, ours, best)
        rows.append(result)
    return rows


def text_of(options, rows, about):
    lines = [f"{os.path.basename(options.model)}, {options.threads} threads, {about['isa']}; load "
             f"average {about['load_before']:.2f} before, {about['load_after']:.2f} after"]
    if about["bandwidth"]:
        low, mid, high = about["bandwidth"]
        lines.append(f"memory {mid / 1e9:.1f} GB/s (from {low / 1e9:.1f} to {high / 1e9:.1f} while "
                     f"measuring), int8 {about['int8_peak'] / 1e9:.0f} GOP/s")
    lines += ["", f"{'row':<12}{'dure':>9} {'limit':>9}  {'peer':<18}{'peer':>9}{'ratio':>7}  range"]
    for row in rows:
        ours = "failed" if row["dure"] is None else f"{row['dure']:.2f}"
        limit = ""
        if row["fraction"] is not None:
            limit = f"{100 * row['fraction']:.0f}% " + ("mem" if "band" in row["limit"] else "int8")
        left = f"{row['row']:<12}{ours:>9} {limit:>9}  "
        for name, found in row["peers"].items():
            if found:
                low, high = min(found["ratios"]), max(found["ratios"])
                right = (f"{name[:17]:<18}{found['peer']:>9.2f}{found['ratio']:>7.2f}"
                         f"  {low:.2f}-{high:.2f}")
            else:
                right = f"{name[:17]:<18}{'failed':>9}"
            lines.append(left + right)
            left = " " * len(left)
    lines += ["", "tokens per second; first-token: seconds; memory: MB; above 1: dure is ahead"]
    return "\n".join(lines)


def main():
    options = parse()
    with tempfile.TemporaryDirectory(prefix="dure-compare-") as folder:
        dure = Dure(options, folder)
        for peer in options.peers:
            peer.prepare(options, folder)
        names = [peer.name for peer in options.peers]
        if len(set(names)) < len(names):
            sys.exit(f"compare.sh: two peers are called the same: {', '.join(names)}")
        load = os.getloadavg()[0]
        values, failures = measure(options, dure, options.peers)
        rows = results(options, values, dure)
        bandwidths = sorted(b for b, _ in dure.limits)
        test = next(iter(dure.tests.values()), [{}])[0]
        about = {"model": options.model, "threads": options.threads, "isa": test.get("isa", "?"),
                 "load_before": load, "load_after": os.getloadavg()[0],
                 "bandwidth": bandwidths and [bandwidths[0], statistics.median(bandwidths),
                                              bandwidths[-1]],
                 "int8_peak": statistics.median(p for _, p in dure.limits) if dure.limits else None,
                 "peers": {p.name: [p.bench, *p.args] for p in options.peers}}
    if options.json:
        print(json.dumps({**about, "rows": rows, "failures": failures}))
    else:
        print(text_of(options, rows, about))
    for failure in failures:
        print(f"compare.sh: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
