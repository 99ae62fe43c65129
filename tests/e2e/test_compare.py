"""bench/compare.sh: what it asks of the programs, how it reads what they print, and its ratios. The
peers are scripts that print what the real ones printed (tests/e2e/compare/), with the numbers that
the test puts in."""
import json
import os
import stat
import subprocess
import tempfile
import unittest

import program
import tap

RECORDED = os.path.join(program.SOURCE, "tests/e2e/compare")

# Speeds come from FOLDER/speeds.json: {program: [value of its first run, of its second, ...]}.
FAKE = """#!/usr/bin/env python3
import json, os, re, sys
FOLDER, NAME, RECORDED, KIND = {folder!r}, {name!r}, {recorded!r}, {kind!r}
args = sys.argv[1:]
if args == ["--help"]:
    print("  -d, --n-depth <n>\\n  --no-warmup" if KIND == "llama_bench" else "  -gp <pp,tg>")
    sys.exit(0)
with open(os.path.join(FOLDER, "calls"), "a") as file:
    print(json.dumps([NAME, args]), file=file)
n_calls = sum(json.loads(line)[0] == NAME for line in open(os.path.join(FOLDER, "calls")))
speeds = json.load(open(os.path.join(FOLDER, "speeds.json")))[NAME]
speed = speeds[(n_calls - 1) % len(speeds)]
if speed is None:
    sys.exit("this model is not for me")
value = dict(zip(args, args[1:] + [""]))
def number(name):
    return int(value.get(name, "0"))
if KIND.endswith("bench"):
    recorded = json.load(open(os.path.join(RECORDED, KIND + ".json")))
    tests = []
    depth, n_gen = map(int, value.get("-gp", "0,0").split(","))
    for prompt, gen, test in ((number("-p"), 0, recorded[0]), (0, number("-n"), recorded[1]),
                              (depth, n_gen, recorded[-1])):
        if prompt or gen:
            tests.append({{**test, "n_prompt": prompt, "n_gen": gen,
                          "samples_ts": [speed * (2 if not gen else 1)] * 3}})
    print(json.dumps(tests, indent=2))
else:
    text = open(os.path.join(RECORDED, KIND + ".txt")).read()
    head, *rows = [line for line in text.splitlines() if line.startswith("|")]
    head = [cell.strip() for cell in head.strip("|").split("|")]
    column = head.index("S_TG t/s")
    key = head.index("B" if "B" in head else "N_KV")
    cells = rows[-1].strip("|").split("|")
    cells[key] = f" {{value.get('-npl', '8192'):>4}} "
    cells[column] = f" {{speed:8.2f}} "
    out = text.replace(rows[-1], "|" + "|".join(cells) + "|")
    (sys.stderr if KIND.startswith("ik") else sys.stdout).write(out)
"""

# As `dure bench --json` has it, for any options; a `dure run` prints nothing that is read.
FAKE_DURE = """#!/usr/bin/env python3
import json, sys
args = sys.argv[1:]
with open({calls!r}, "a") as file:
    print(json.dumps(["dure", args]), file=file)
if args[0] == "bench":
    value = dict(zip(args, args[1:] + [""]))
    tests = []
    for name, option in (("prefill", "-p"), ("decode", "-n")):
        if int(value[option]):
            tests.append({{"test": name, "tok_s": 20.0 if name == "decode" else 100.0, "isa": "avx2",
                          "bandwidth": 4e10, "int8_peak": 2e12, "bandwidth_fraction": 0.75,
                          "int8_fraction": 0.5}})
    print(json.dumps(tests))
"""


class Compare(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.model = self.path("model.gguf")
        with open(self.model, "wb") as file:
            file.write(b"GGUF")
        self.script(self.path("dure"), FAKE_DURE.format(calls=self.path("calls")))
        self.speeds = {}

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def script(self, path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)

    def fake(self, name, kind, speeds):
        """A program that prints like the recorded one; its speeds run by run, None: it fails."""
        self.script(self.path(name), FAKE.format(folder=self.folder.name, name=name,
                                                 recorded=RECORDED, kind=kind))
        self.speeds[name] = speeds
        with open(self.path("speeds.json"), "w", encoding="utf-8") as file:
            json.dump(self.speeds, file)
        return self.path(name)

    def compare(self, *words, status=0, dure=None):
        done = subprocess.run(
            [os.path.join(program.SOURCE, "bench/compare.sh"), "--model", self.model, "--dure",
             dure or self.path("dure"), "--threads", "2", *words], capture_output=True, text=True,
            timeout=120, check=False)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done

    def calls(self):
        with open(self.path("calls"), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def rows(self, *words, **options):
        done = self.compare("--json", *words, **options)
        value = json.loads(done.stdout)
        return value, {row["row"]: row for row in value["rows"]}

    def test_medians_of_pairs_that_take_turns(self):
        peer = self.fake("bench", "llama_bench", [10.0, 16.0, 40.0])
        value, rows = self.rows("--peer", peer, "--peer-name", "llama.cpp", "--rows", "decode",
                                "--pairs", "3")
        found = rows["decode"]["peers"]["llama.cpp"]
        self.assertEqual(found["ratios"], [2.0, 1.25, 0.5])
        self.assertEqual((found["ratio"], found["dure"], found["peer"]), (1.25, 20, 16))
        self.assertEqual([call[0] for call in self.calls()], ["dure", "bench"] * 3)
        self.assertEqual(value["bandwidth"], [4e10] * 3)
        self.assertEqual(rows["decode"]["fraction"], 0.75)

    def test_both_do_the_same_work(self):
        bench = self.fake("bench", "llama_bench", [10.0])
        batched = self.fake("batched", "llama_batched", [50.0])
        _, rows = self.rows("--peer", bench, "--peer-batched", batched, "--rows",
                            "decode,decode-2k,decode-8k,prefill-512,prefill-8k,batch-16",
                            "--pairs", "1", "--gen", "48", "--isa", "avx2")
        calls = self.calls()
        for name, args in calls:
            text = " ".join(args) + " "
            self.assertIn("--threads 2 " if name == "dure" else "-t 2 ", text)
            if name == "dure":
                self.assertIn("--isa avx2 ", text)
        asked = [" ".join(args[args.index("--json") + 1 if name == "dure" else
                               args.index("json" if name == "bench" else "2") + 1:])
                 for name, args in calls]
        for i, (ours, theirs) in enumerate((
                ("-p 0 -n 48 -c 0 -r 1", "-p 0 -n 48 -r 1"),
                ("-p 0 -n 48 -c 2048 -r 1", "-p 0 -n 48 -d 2048 -r 1"),
                ("-p 512 -n 48 -c 8192 -r 1", "-p 512 -n 48 -d 8192 -r 1"),
                ("-p 512 -n 0 -r 1", "-p 512 -n 0 -r 1"),
                ("-p 0 -n 32 -c 64 -s 16 -r 1", "-c 1536 -npp 64 -ntg 32 -npl 16"))):
            self.assertTrue(asked[2 * i].startswith(ours), asked[2 * i])
            self.assertEqual(asked[2 * i + 1], theirs)
        self.assertEqual(rows["batch-16"]["peers"]["peer 1"]["peer"], 50)
        self.assertEqual(rows["prefill-8k"]["peers"]["peer 1"]["peer"], 20)
        self.assertEqual(rows["decode-8k"]["peers"]["peer 1"]["peer"], 10)

    def test_the_other_engine(self):
        """Generation behind a prompt is -gp there, a prefill behind one needs its sweep bench; its
        tables go to standard error."""
        bench = self.fake("bench", "ik_bench", [10.0])
        batched = self.fake("batched", "ik_batched", [25.0])
        sweep = self.fake("sweep", "ik_sweep", [8.0])
        _, rows = self.rows("--peer", bench, "--peer-batched", batched, "--peer-sweep", sweep,
                            "--peer-args", "-rtr 1", "--peer-tool-args=-rtr", "--rows",
                            "decode-2k,decode-8k,prefill-8k,batch-8", "--pairs", "1")
        peers = [call for call in self.calls() if call[0] != "dure"]
        self.assertEqual([name for name, _ in peers], ["bench", "sweep", "batched"])
        self.assertIn("-p 0 -n 0 -gp 2048,64 -r 1 -rtr 1", " ".join(peers[0][1]))
        self.assertTrue(" ".join(peers[1][1]).endswith(
            "-c 8704 -ub 512 -n 64 --sweep-stride 16 -rtr"))
        self.assertTrue(" ".join(peers[2][1]).endswith(
            "-c 768 -npp 64 -ntg 32 -npl 8 -rtr"))
        found = {row: rows[row]["peers"]["peer 1 -rtr 1"]["peer"] for row in rows}
        self.assertEqual(found, {"decode-2k": 10, "decode-8k": 8, "prefill-8k": 758.34,
                                 "batch-8": 25})

    def test_best_of_two_ways(self):
        """Pair by pair, as the machine's speed drifts."""
        one, two = self.fake("one", "ik_bench", [10.0, 25.0]), self.fake("two", "ik_bench",
                                                                        [20.0, 10.0])
        words = ("--peer", one, "--peer-name", "ik", "--peer", two, "--peer-name", "ik",
                 "--peer-args", "-rtr 1", "--rows", "decode", "--pairs", "2")
        _, rows = self.rows(*words)
        peers = rows["decode"]["peers"]
        self.assertEqual(list(peers), ["ik", "ik -rtr 1", "ik, best"])
        self.assertEqual(peers["ik, best"]["ratios"], [1.0, 0.8])
        self.assertEqual(peers["ik"]["ratios"], [2.0, 0.8])
        text = self.compare(*words).stdout
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        for word in ("decode", "ik -rtr 1", "ik, best", "75% mem", "0.80-1.00", "load average"):
            self.assertIn(word, text)

    def test_a_peer_that_fails_and_one_that_lacks_a_tool(self):
        bad, good = self.fake("bad", "llama_bench", [None]), self.fake("good", "llama_bench",
                                                                       [10.0])
        done = self.compare("--peer", bad, "--peer-name", "bad", "--peer", good, "--peer-name",
                            "good", "--rows", "decode,batch-8", "--pairs", "2", status=1)
        self.assertIn("this model is not for me", done.stderr)
        self.assertIn("good: no --peer-batched given", done.stderr)
        self.assertIn("failed", done.stdout)
        self.assertEqual([call[0] for call in self.calls()].count("bad"), 1)

    def test_mistakes(self):
        peer = self.fake("bench", "llama_bench", [10.0])
        for words, message in ((("--rows", "decode"), "no --peer given"),
                               (("--peer-args", "x", "--peer", peer), "stands after the --peer"),
                               (("--peer", peer, "--rows", "decode,x"), "x is no row"),
                               (("--peer", self.path("absent")), "is no file")):
            self.assertIn(message, self.compare(*words, status=2).stderr)
        self.compare("--peer", peer, "--peer-name", "a", "--peer", peer, "--peer-name", "a",
                     status=1)

    def test_the_real_program(self):
        program.run("convert", program.model("deepseek_v3_yarn"), self.path("real.gguf"))
        self.model = self.path("real.gguf")
        peer = self.fake("bench", "llama_bench", [10.0])
        batched = self.fake("batched", "llama_batched", [10.0])
        value, rows = self.rows("--peer", peer, "--peer-batched", batched, "--rows",
                                "decode,prefill-128,batch-8,first-token", "--pairs", "1", "--gen",
                                "4", dure=program.DURE)
        for row in rows.values():
            self.assertGreater(row["dure"], 0)
        self.assertGreater(value["int8_peak"], 0)
        self.assertLess(rows["first-token"]["dure"], 60)


if __name__ == "__main__":
    tap.main()
