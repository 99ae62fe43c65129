"""`mpirun -n N dure train`: several processes leave the bytes of one, and end together."""
import array
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import folder
import program
import tap
from folder import LLAMA, VOCAB

DEEPSEEK = {**folder.DEEPSEEK, "mtp.weight": 0.3}
MODELS = {"llama": LLAMA, "deepseek": DEEPSEEK, "given": {}}
NEW = ("llama", "deepseek")
RUN = {"steps": 12, "seq_len": 16, "batch_seqs": 4, "accumulate": 2, "seed": 3, "optim.lr": 0.01,
       "optim.weight_decay": 0.1, "schedule.warmup_steps": 3, "ema.decay": 0.9,
       "validate.every": 5, "validate.batches": 3}
# Muon's matrices go whole to a rank; 12 sequences are 8 and 4.
OTHER = {"dtype": "bf16", "optim.name": "muon", "data.order": "shuffled", "recompute": "layer",
         "accumulate": 3, "qat.type": "Q8_0"}
SPREAD = {"ranks.experts": "spread"}
# Shared memory between processes on this machine, and nothing that looks for a network.
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none",
          "--mca", "btl", "vader,self"]
# What Open MPI leaves allocated at its end is not ours.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}


def has_mpi():
    cache = program.read(os.environ["DURE_BUILD_DIR"], "CMakeCache.txt")
    return re.search(r"^OMPI_FOUND:\w+=1", cache, re.MULTILINE) is not None


class Base(folder.InFolder):
    def setUp(self):
        if not shutil.which("mpirun"):
            self.skipTest("mpirun is missing")
        super().setUp()
        rng = random.Random(5)
        for name, n in (("tokens.bin", 700), ("other.bin", 300)):
            self.write_tokens(name, [rng.randrange(VOCAB) for _ in range(n)])
        if not has_mpi() and self._testMethodName != "test_without_mpi":
            self.skipTest("dure was built without MPI")

    def config(self, name, model, **more):
        keys = {**MODELS[model], **RUN, "data.tokens": self.path("tokens.bin"),
                "data.validation": self.path("other.bin"), "out": self.path(name), **more}
        path = self.path(name + ".conf")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{key} = {value}\n" for key, value in keys.items())
        return path

    def start(self, n_ranks, out, *words, model="llama", before=(), keys=None):
        command = [program.DURE, "train", self.config(out, model, **(keys or {})), *words]
        mpirun = [*MPIRUN, "-n", str(n_ranks), *before] if n_ranks > 1 else []
        return subprocess.Popen([*mpirun, *command], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env=ENVIRONMENT)

    def end(self, process, status=0, seconds=120):
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out, err = out.decode(), err.decode()
        self.assertEqual(process.returncode, status, out + err)
        return out, err

    def train(self, n_ranks, out, *words, status=0, **more):
        return self.end(self.start(n_ranks, out, *words, **more), status)

    def runs(self, pid):
        """Whether there is such a process, and it is no zombie that nobody has waited for."""
        try:
            return program.read("/proc", str(pid), "stat").rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def processes_of(self, process):
        """The ranks that mpirun has started."""
        found = []
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and int(program.read("/proc", name, "stat").rsplit(")", 1)[1]
                                          .split()[1]) == process.pid:
                    found.append(int(name))
            except OSError:
                pass
        return sorted(found)


class Different(Base):
    """Ranks that would compute something else than rank 0 are refused, in a line that says what."""

    def refuse(self, says, words=(), folders=("", ""), first=()):
        """words are those of rank 1, which works in folders[1]."""
        zero, one = (["-wdir", self.path(folder_of), "-n", "1", program.DURE, "train",
                      self.path("run.conf"), *more]
                     for folder_of, more in zip(folders, (first, words)))
        process = subprocess.Popen([*MPIRUN, *zero, ":", *one], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=ENVIRONMENT)
        _, err = self.end(process, status=1)
        lines = [line for line in err.splitlines() if line.startswith("dure")]
        self.assertEqual(len(lines), 1, err)
        self.assertRegex(lines[0], says)

    def test_what_they_are_told(self):
        self.config("run", "llama")
        for key, value in (("optim.lr", 0.5), ("seed", 4), ("seq_len", 8), ("steps", 13),
                           ("accumulate", 4), ("checkpoint.every", 5), ("validate.batches", 1),
                           ("recompute", "layer"), ("dtype", "bf16"), ("model.rope_theta", 500)):
            with self.subTest(key):
                self.refuse(f"rank 1: {key} is '{value}', which it is not at rank 0",
                            ["--set", f"{key}={value}"])
        for words in (["--lr-find"], ["--resume"], ["--overwrite"]):
            with self.subTest(words):
                self.refuse("rank 1: .*--resume.*not those of rank 0", words)
        self.assertFalse(os.path.exists(self.path("run")))

    def test_kernels(self):
        self.config("run", "llama")
        self.refuse("rank 1: computes with c .*: start all with --isa c", ["--isa", "c"])
        self.refuse("rank 1: computes with .*: start all with --isa c", first=["--isa", "c"])
        self.refuse("rank 1: computes with c .*: start all with --isa c",
                    ["--isa", "c", "--lr-find"], first=["--lr-find"])

    def test_files(self):
        """Files that are not the same on all machines, under names that are."""
        self.train(1, "start", model="deepseek", keys={"mtp.weight": 0})
        self.train(1, "other", model="deepseek", keys={"mtp.weight": 0, "seed": 4})
        folders = ("here", "there")
        names = {"data.tokens": "tokens.bin", "data.validation": "other.bin"}
        for i, name in enumerate(folders):
            os.mkdir(self.path(name))
            shutil.copytree(self.path(("start", "other")[i], "step-000012"),
                            self.path(name, "given"))
            for file in names.values():
                shutil.copy(self.path(file), self.path(name, file))
        keys = {"init": "given", "out": self.path("out"), **names}
        for more in ({}, {"lora.rank": 4}, SPREAD):
            with self.subTest(more):
                self.config("run", "given", **keys, **more)
                self.refuse("rank 1: .*the weights .*are not those of rank 0", folders=folders)
        shutil.rmtree(self.path("there", "given"))
        shutil.copytree(self.path("here", "given"), self.path("there", "given"))
        self.config("run", "given", **keys)
        for key, name in names.items():
            with self.subTest(key):
                shutil.copy(self.path("there", name), self.path("kept"))
                with open(self.path("there", name), "r+b") as file:
                    file.write(b"\x01")
                self.refuse(f"rank 1: {key} = {name}: is not what it is at rank 0",
                            folders=folders)
                shutil.move(self.path("kept"), self.path("there", name))
        self.config("run", "deepseek", **{"mtp.weight": 0, "out": "out"})
        shutil.copytree(self.path("start"), self.path("here", "out"))
        os.mkdir(self.path("there", "out"))
        self.refuse("rank 1: out: ranks find other checkpoints there", ["--resume"],
                    folders=folders, first=["--resume"])


class Ranks(Base):
    def test_same_bytes(self):
        for model in NEW:
            self.train(1, model, model=model)
            for n_ranks in (2, 4):
                with self.subTest(model, n_ranks=n_ranks):
                    out = f"{model}{n_ranks}"
                    shown, err = self.train(n_ranks, out, "--quiet", model=model)
                    self.assertEqual(shown, self.path(out, "step-000012") + "\n")
                    self.assertEqual(err, "")
                    self.assert_same_run(model, out)

    def test_steps_that_grow(self):
        """3, 6, 6, 9 and so on to 15 sequences, of which some ranks have none at first."""
        grow = {"batch_seqs": 3, "accumulate": 5, "schedule.batch_from": 1,
                "schedule.batch_steps": 9}
        self.train(1, "grow", model="deepseek", keys=grow)
        for n_ranks, more in ((2, {}), (3, SPREAD), (4, {})):
            self.train(n_ranks, f"grow{n_ranks}", model="deepseek", keys={**grow, **more})
            self.assert_same_run("grow", f"grow{n_ranks}")

    def test_other_ways(self):
        """Uneven numbers of sequences too: 12 as 8 and 4, and as three times 4."""
        self.train(1, "a", model="deepseek", keys=OTHER)
        for n_ranks in (2, 3):
            self.train(n_ranks, f"b{n_ranks}", model="deepseek", keys=OTHER)
            self.assert_same_run("a", f"b{n_ranks}")
        odd = {"batch_seqs": 5, "accumulate": 1, "optim.name": "sgd", "optim.momentum": 0}
        self.train(1, "c", keys=odd)
        self.train(2, "d", keys=odd)
        self.assert_same_run("c", "d")

    def test_spread_experts(self):
        """Ranks that have a share of the experts each, 8 as 2 x 4, 3 + 2 + 3 and 4 x 2; rounds
        of micro-batches that are several, uneven, and fewer than ranks."""
        cases = {"plain": (RUN, (2, 4)), "other": (OTHER, (2, 3)),
                 "few": ({"batch_seqs": 3, "accumulate": 1, "recompute": "cheap"}, (2, 4)),
                 "many": ({"batch_seqs": 2, "accumulate": 7, "recompute": "layer", "mtp.weight": 0,
                           "model.arch": "deepseek_v2", "router.bias_step": 0}, (3,))}
        for name, (keys, numbers) in cases.items():
            self.train(1, name, model="deepseek", keys=keys)
            for n_ranks in numbers:
                with self.subTest(name, n_ranks=n_ranks):
                    out = f"{name}{n_ranks}"
                    self.train(n_ranks, out, model="deepseek", keys={**keys, **SPREAD})
                    self.assert_same_run(name, out)

    def test_spread_begins_and_goes_on(self):
        """From a model's file, and over other numbers of processes and both kinds of experts."""
        self.train(1, "start", model="deepseek", keys={"mtp.weight": 0})
        keys = {"init": self.path("start", "step-000012"), "optim.name": "muon"}
        self.train(1, "whole", model="given", keys=keys)
        self.train(2, "spread", model="given", keys={**keys, **SPREAD})
        self.assert_same_run("whole", "spread")
        for n_ranks, steps, more in ((3, 3, SPREAD), (4, 6, {}), (2, 8, SPREAD), (1, 9, SPREAD),
                                     (4, 12, SPREAD)):
            self.train(n_ranks, "parts", "--resume", model="given",
                       keys={**keys, **more, "steps": steps})
        a, b = self.files("whole", 12), self.files("parts", 12)
        for name in ("model.safetensors", "state.safetensors"):
            self.assertTrue(a[name] == b[name], name)

    def test_what_spread_refuses(self):
        for keys, model, status, says in (
                ({"ranks.experts": "4"}, "deepseek", 2, "ranks.experts"),
                (SPREAD, "llama", 1, "ranks.experts = spread: the model has no experts"),
                ({**SPREAD, "model.n_routed_experts": 2, "model.num_experts_per_tok": 1},
                 "deepseek", 1, "3 processes, but 2 experts in a layer: start at most 2")):
            _, err = self.train(3, "a", model=model, keys=keys, status=status)
            self.assertEqual(err.count(says), 1, err)
        self.train(1, "start", model="deepseek", keys={"mtp.weight": 0})
        keys = {"init": self.path("start", "step-000012"), "lora.rank": 4, **SPREAD}
        _, err = self.train(2, "a", model="given", keys=keys, status=1)
        self.assertEqual(err.count("ranks.experts = spread: not with lora.rank"), 1, err)

    def test_spread_errors(self):
        """Of one rank in the middle of a step, and numbers that are not finite: told once, by the
        words of one process."""
        keys = {**SPREAD, "optim.name": "sgd", "optim.lr": 1e3, "optim.clip": 0,
                "optim.momentum": 0, "schedule.warmup_steps": 0}
        said = []
        for n_ranks in (1, 2):
            _, err = self.train(n_ranks, f"a{n_ranks}", model="deepseek", keys=keys, status=1)
            said.append(re.findall("step .*finite.*", err))
        self.assertEqual(len(said[0]), 1, said)
        self.assertEqual(said[0], said[1])
        tokens = [1] * 700
        tokens[16 * 6 + 1] = 60000  # in sequence 6 of 8, of the last rank
        self.write_tokens("tokens.bin", tokens)
        _, err = self.train(4, "b", model="deepseek", keys=SPREAD, status=1)
        self.assertEqual(len(re.findall("rank 3: .*token 60000 is outside", err)), 1, err)

    def test_adapters(self):
        """With all that they go with; also going on with another number of ranks."""
        self.train(1, "start", model="deepseek")
        keys = {"init": self.path("start", "step-000012"), "lora.rank": 4}
        more = {**keys, "mtp.weight": 0.3, "router.bias_step": 0.01, "qat.type": "Q8_0",
                "optim.name": "muon", "recompute": "cheap"}
        for name, each in (("few", keys), ("all", more)):
            self.train(1, f"{name}1", model="given", keys=each)
            for n_ranks in (2, 3, 4):
                with self.subTest(name, n_ranks=n_ranks):
                    self.train(n_ranks, f"{name}{n_ranks}", model="given", keys=each)
                    self.assert_same_run(f"{name}1", f"{name}{n_ranks}")
        for n_ranks, steps in ((2, 5), (4, 10), (1, 12)):
            self.train(n_ranks, "parts", "--resume", model="given", keys={**more, "steps": steps})
        for name in ("adapter_model.safetensors", "state.safetensors"):
            self.assertTrue(self.files("all1", 12)[name] == self.files("parts", 12)[name], name)

    def plan(self, n_ranks, out, *words, **more):
        return json.loads(self.train(n_ranks, out, "--plan", "--json", *words, **more)[0])

    def test_plan(self):
        """One rank's, by the first alone: its share of moments, of sequences, of experts; what
        all of them on this machine take."""
        self.train(1, "start", model="deepseek")
        init = self.path("start", "step-000012")
        alone = self.plan(1, "a", model="deepseek")
        plan = self.plan(4, "a", model="deepseek")
        memory, ranks = plan["memory_bytes"], plan["ranks"]
        self.assertEqual([ranks[key] for key in ("n", "here", "sequences", "micro_batches")],
                         [4, 4, 2, 1])
        self.assertEqual(ranks["total_here"], 4 * memory["total"]["cheap"])
        self.assertEqual(memory["weights"], alone["memory_bytes"]["weights"])
        for kind in ("moments", "mean"):
            self.assertAlmostEqual(4 * memory[kind], alone["memory_bytes"][kind], delta=64)
        self.assertGreater(ranks["sent_bytes_per_step"], 1.5 * memory["weights"])
        for key in ("params", "tokens_per_step", "flops_forward"):
            self.assertEqual(plan[key], alone[key])
        self.assertAlmostEqual(plan["run_s"], 12 * plan["step_s"])
        self.assertAlmostEqual(plan["tok_s"] * plan["step_s"], plan["tokens_per_step"])
        # 8 experts of one layer and of the block behind the trunk: 2, 3 and 3
        spread = self.plan(3, "a", model="deepseek", keys=SPREAD)
        saved = memory["weights"] - spread["memory_bytes"]["weights"]
        self.assertEqual(saved, 4 * 5 * 2 * 3 * 32 * 16)
        self.assertGreater(spread["tok_s"], 0)
        adapters = self.plan(2, "a", model="given", keys={"init": init, "lora.rank": 4})
        self.assertEqual(adapters["ranks"]["n"], 2)
        self.assertGreater(adapters["memory_bytes"]["mapped"], 0)
        self.assertGreater(adapters["tok_s"], 0)
        # 36 sequences go 4 at a time, the 24 of the first step 8
        odd = {"batch_seqs": 12, "accumulate": 3}
        grow = {**odd, "schedule.batch_from": 2, "schedule.batch_steps": 1}
        kept = [self.plan(2, "a", keys=keys)["memory_bytes"]["kept"] for keys in (odd, grow)]
        self.assertAlmostEqual(kept[1] / kept[0], 2, delta=0.01)
        text, err = self.train(2, "a", "--plan", model="deepseek")
        self.assertEqual(err, "")
        for words in ("of 2 processes one takes", "in 2 processes here", "sent by one per step"):
            self.assertEqual(text.count(words), 1, text)
        self.assertFalse(os.path.exists(self.path("a")))

    def test_plan_refuses(self):
        """What ranks on this machine do not have together, though each alone would."""
        alone = self.plan(1, "a")["memory_bytes"]
        for words in (("--plan", "--json"), ()):
            n = 0.6 * alone["available"] / (alone["kept"] / 4)  # sequences
            keys = {"batch_seqs": 1 << int(n).bit_length() - 1, "accumulate": 2}
            _, err = self.train(2, "a", *words, keys=keys, status=1)
            self.assertEqual(len(re.findall(r"needs \d+ MB in each of 2 processes on this machine, "
                                            r"\d+ MB in all, and \d+ MB are free: .*batch_seqs",
                                            err)), 1, err)

    def test_resume_with_another_number(self):
        self.train(1, "whole", model="deepseek")
        for n_ranks, steps in ((2, 3), (4, 7), (1, 10), (2, 12)):
            self.train(n_ranks, "parts", "--resume", model="deepseek", keys={"steps": steps})
        # The last step of each part has a validation loss.
        parts, whole = ([{**line, "validation": 0} for line in self.measured(out)]
                        for out in ("parts", "whole"))
        self.assertEqual(parts, whole)
        a, b = self.files("whole", 12), self.files("parts", 12)
        for name in ("model.safetensors", "state.safetensors"):
            self.assertTrue(a[name] == b[name], name)

    def test_what_is_said(self):
        """Rank 0 speaks for all."""
        _, err = self.train(2, "a", keys={"checkpoint.every": 5})
        self.assertEqual(len(re.findall(r"^dure train: |^step 1/12 ", err, re.MULTILINE)), 1, err)
        _, err = self.train(2, "a", status=1)
        self.assertEqual(err.count("holds a run"), 1, err)
        _, err = self.train(2, "b", keys={"optim.lr": "fast"}, status=2)
        self.assertEqual(err.count("optim.lr"), 1, err)
        # A damaged checkpoint is passed over by all.
        with open(self.path("a", "step-000012", "state.safetensors"), "r+b") as file:
            file.truncate(100)
        _, err = self.train(2, "a", "--resume", keys={"steps": 13})
        self.assertEqual(err.count("not resumed from"), 1, err)
        self.train(1, "c", keys={"steps": 13})
        a, b = self.files("a", 13), self.files("c", 13)
        self.assertTrue(a["model.safetensors"] == b["model.safetensors"])

    def test_an_error_of_another_rank(self):
        """Rank 1 alone reads a token that is none; rank 0 tells it."""
        tokens = [1] * 700
        tokens[16 * 6] = 60000  # in sequence 6 of 8
        with open(self.path("tokens.bin"), "wb") as file:
            array.array("H", tokens).tofile(file)
        _, err = self.train(2, "a", status=1)
        self.assertEqual(len(re.findall("rank 1: .*token 60000 is outside", err)), 1, err)

    def test_signals(self):
        """To mpirun, which hands SIGUSR1 on, and to one rank alone."""
        self.train(1, "whole", keys={"steps": 40})
        for number, to in ((signal.SIGUSR1, "mpirun"), (signal.SIGTERM, "rank 1")):
            with self.subTest(to):
                out = f"a{number}"
                process = self.start(2, out, keys={"steps": 1000000})
                self.wait_for_lines(out, 3, process)
                os.kill(process.pid if to == "mpirun" else self.processes_of(process)[1], number)
                _, err = self.end(process, status=130)
                self.assertEqual(err.count("saved as"), 1, err)
                saved = max(name for name in os.listdir(self.path(out)) if "step-" in name)
                step = int(saved[5:])
                self.assertEqual(len(self.measured(out)), step)
                self.train(2, out, "--resume", keys={"steps": max(step, 40)})
                if step < 40:
                    self.assert_same_run("whole", out, 40)

    def test_a_signal_that_mpirun_does_not_wait_for(self):
        """SIGTERM to mpirun: it gives the ranks a second; what is saved is whole."""
        process = self.start(2, "a", keys={"steps": 1000000, "checkpoint.every": 5})
        self.wait_for_lines("a", 12, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        self.assertNotEqual(process.returncode, 0)
        self.assert_goes_on("a")

    def assert_goes_on(self, out, model="llama"):
        """--resume does, with the last checkpoint."""
        names = [name for name in os.listdir(self.path(out)) if re.fullmatch(r"step-\d+", name)]
        step = int(max(names)[5:])
        keys = {"steps": step + 5, "checkpoint.every": 5}
        _, err = self.train(2, out, "--resume", model=model, keys=keys)
        self.assertNotIn("not resumed", err)
        self.assertEqual([line["step"] for line in self.measured(out)],
                         list(range(1, step + 6)))

    def test_a_killed_rank(self):
        for i in (0, 2):
            keys = {"steps": 1000000, "checkpoint.every": 5, **(SPREAD if i else {})}
            process = self.start(3, f"a{i}", keys=keys, model="deepseek")
            self.wait_for_lines(f"a{i}", 12, process)
            ranks = self.processes_of(process)
            os.kill(ranks[i], signal.SIGKILL)
            start = time.monotonic()
            _, err = self.end(process, status=128 + signal.SIGKILL, seconds=30)
            self.assertLess(time.monotonic() - start, 20)
            self.assertIn("exited on signal 9", err)
            while [pid for pid in ranks if self.runs(pid)]:  # mpirun does not wait for the killed
                self.assertLess(time.monotonic() - start, 20)
                time.sleep(0.01)
            self.assert_goes_on(f"a{i}", model="deepseek")

    def peak_of(self, n_ranks, out, **more):
        """Resident memory of rank 1, which writes no checkpoints."""
        watch = "\n".join((
            "import os, resource, subprocess, sys",
            "status = subprocess.run(sys.argv[2:]).returncode",
            "rank = os.environ['OMPI_COMM_WORLD_RANK']",
            "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024",
            "open(sys.argv[1] + rank, 'w').write(str(peak))",
            "sys.exit(status)"))
        self.train(n_ranks, out, before=(sys.executable, "-c", watch, self.path("peak")), **more)
        return int(program.read(self.path("peak1")))

    def test_moments_are_spread(self):
        """What AdamW takes beside SGD, in a rank that writes no checkpoints: two blocks of
        n values in one process, half of one in each of four."""
        if program.sanitized():
            self.skipTest("memory under a sanitizer is not the program's")
        big = {"model.hidden_size": 320, "model.intermediate_size": 1536, "steps": 2,
               "model.num_hidden_layers": 6, "ema.decay": 0, "validate.batches": 1}
        kept = {}
        for n_ranks in (2, 4):
            for name in ("adamw", "sgd"):
                out = f"{name}{n_ranks}"
                keys = {**big, "optim.name": name, "optim.momentum": 0}
                kept[out] = self.peak_of(n_ranks, out, keys=keys)
        n = json.loads(program.read(self.path("adamw4", "step-000002", "state.json")))
        block = n["files"]["model.safetensors"]["bytes"]
        self.assertGreater(block, 40 << 20)
        for n_ranks in (2, 4):
            extra = (kept[f"adamw{n_ranks}"] - kept[f"sgd{n_ranks}"]) / block
            # Memory comes in pages of 2 MiB, at both ends of two spans.
            self.assertAlmostEqual(extra, 2 / n_ranks, delta=0.3)

    def test_validation_takes_no_more(self):
        """Than a step: 16 of 64 sequences in a rank, or 4 where steps begin with 4. The plan is not
        below what activations take."""
        if program.sanitized():
            self.skipTest("memory under a sanitizer is not the program's")
        self.write_tokens("tokens.bin", [i % VOCAB for i in range(64 * 128 * 3)])
        self.write_tokens("other.bin", [i % VOCAB for i in range(64 * 128 * 2 + 1)])
        big = {"model.hidden_size": 128, "model.num_hidden_layers": 4, "batch_seqs": 64,
               "seq_len": 128, "accumulate": 1, "recompute": "none", "steps": 2,
               "validate.every": 1}
        peaks = []
        for name, keys in (("none", {"data.validation": ""}), ("some", {}),
                           ("fewer", {"data.validation": "", "batch_seqs": 4})):
            peaks.append(self.peak_of(4, name, keys={**big, **keys}))
        plans = [self.plan(4, "plan", keys={**big, "batch_seqs": n})["memory_bytes"]["total"]["none"]
                 for n in (64, 4)]
        self.assertGreater(plans[0] - plans[1], 40 << 20)
        self.assertLess(peaks[1] - peaks[0], 0.05 * plans[0])
        self.assertLess(peaks[1] - peaks[2], 1.05 * (plans[0] - plans[1]))

    def test_experts_take_a_share(self):
        """Experts of 4 x 12.6 MB in weights, gradients, moments and mean, and little else: with
        whole ones a process has 2 of these and a share of 3, with spread ones a share of 5."""
        if program.sanitized():
            self.skipTest("memory under a sanitizer is not the program's")
        big = {"model.hidden_size": 256, "model.moe_intermediate_size": 256, "steps": 2,
               "model.n_routed_experts": 16, "model.num_hidden_layers": 5, "mtp.weight": 0,
               "validate.batches": 1}
        block = 4 * 16 * 3 * 256 * 256 * 4
        peak = {}
        for n_ranks in (2, 4):
            for name, keys in (("whole", {}), ("spread", SPREAD)):
                out = f"{name}{n_ranks}"
                peak[out] = self.peak_of(n_ranks, out, model="deepseek", keys={**big, **keys})
            self.assert_same_run(f"whole{n_ranks}", f"spread{n_ranks}", step=2)
            saved = (peak[f"whole{n_ranks}"] - peak[f"spread{n_ranks}"]) / block
            self.assertAlmostEqual(saved, 2 * (1 - 1 / n_ranks), delta=0.3)

    def test_without_mpi(self):
        """A dure that has no plug-in says so, and needs none when it is alone."""
        alone = self.path("dure")
        shutil.copy(program.DURE, alone)
        config = self.config("a", "llama")
        done = subprocess.run([*MPIRUN, "-n", "2", alone, "train", config], capture_output=True,
                              timeout=120)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"built without MPI", done.stderr)
        subprocess.run([alone, "train", config], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    tap.main()
