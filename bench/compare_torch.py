#!/usr/bin/env python3
"""Measures whole training steps, tokens per second, of dure and of PyTorch with transformers.

    compare_torch.py [OPTION]...

One step is forward, backward, clipping and AdamW on a batch of --batch sequences of --seq tokens. In
every round each way takes its turn in a process of its own: --warmup steps that do not count (PyTorch
compiles in them), then --steps whose median counts. A ratio is the median over the rounds of dure's
tokens per second by those of the other way, above 1 where dure is faster; `best` is the fastest of
PyTorch's ways of that number type in each round. torch and transformers come from the Python that runs
this program.

Ways: dure-f32, dure-bf16   `dure train` with that dtype; also where its time goes and what share of
                            the machine's operations per second it reaches (docs/TRAINING.md)
      f32, f32-compile      everything float32; with torch.compile
      autocast, autocast-compile   float32 weights, bfloat16 by autocast
      bf16, bf16-compile    weights and optimizer in bfloat16
Models: dense   Llama, width 256, 8 layers, 6.9M weights
        moe     DeepSeek-V3, width 256, 8 layers, 16 experts, 14.5M weights of which 6.2M active;
                PyTorch's ways once for each of --experts
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from compare import Failed, Run, read_text

WAYS = {"dure-f32": "f32", "dure-bf16": "bf16", "f32": "f32", "f32-compile": "f32",
        "autocast": "bf16", "autocast-compile": "bf16", "bf16": "bf16", "bf16-compile": "bf16"}
EXPERTS = ("grouped_mm", "eager", "batched_mm")
SMALL = {"vocab_size": 2048, "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 8,
         "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
         "tie_word_embeddings": True, "initializer_range": 0.02}
MODELS = {
    "dense": {"model_type": "llama", **SMALL, "intermediate_size": 688, "num_key_value_heads": 8},
    "moe": {"model_type": "deepseek_v3", **SMALL, "intermediate_size": 640, "num_key_value_heads": 8,
            "q_lora_rank": None, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
            "v_head_dim": 32, "moe_intermediate_size": 128, "n_routed_experts": 16,
            "n_shared_experts": 1, "num_experts_per_tok": 4, "first_k_dense_replace": 1, "n_group": 1,
            "topk_group": 1, "routed_scaling_factor": 1.0, "norm_topk_prob": True},
}
OPTIMIZER = {"lr": 3e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0}


def field_bytes(name):
    """A field of /proc/self/status in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", read_text("/proc/self/status"), re.MULTILINE)
    return int(found[1]) * 1024


def work(job):
    """What a process for one of PyTorch's ways does; prints a JSON object."""
    import numpy
    import torch
    import transformers
    torch.set_num_threads(job["threads"])
    torch.manual_seed(1)
    transformers.logging.set_verbosity_error()
    without_model = field_bytes("VmRSS")
    compiled, number_type = job["way"].endswith("-compile"), job["way"].removesuffix("-compile")
    known = {k: v for k, v in MODELS[job["model"]].items() if k != "model_type"}
    config = transformers.AutoConfig.for_model(MODELS[job["model"]]["model_type"], **known)
    extra = {"experts_implementation": job["experts"]} if job["experts"] else {}
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="sdpa", dtype=torch.float32, **extra).train()
    if number_type == "bf16":
        model = model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=OPTIMIZER["lr"], betas=(OPTIMIZER["beta1"], OPTIMIZER["beta2"]),
        eps=OPTIMIZER["eps"], weight_decay=OPTIMIZER["weight_decay"], fused=True)

    def loss_of(inputs, targets):
        logits = model(inputs, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    if compiled:
        loss_of = torch.compile(loss_of, dynamic=False)
    tokens = torch.from_numpy(numpy.fromfile(job["tokens"], "<u2").astype(numpy.int64))
    n_rows, seconds, losses = job["batch"] * job["seq"], [], []
    for step in range(job["warmup"] + job["steps"]):
        if step == job["warmup"]:  # from here on the largest resident size is that of steps alone
            try:
                with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                    file.write("5")
            except OSError:
                pass
        start = time.monotonic()
        part = tokens[step * n_rows:(step + 1) * n_rows + 1]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=number_type == "autocast"):
            loss = loss_of(part[:-1].view(-1, job["seq"]), part[1:].view(-1, job["seq"]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER["clip"])
        optimizer.step()
        losses.append(float(loss.detach()))
        seconds.append(time.monotonic() - start)
    print(json.dumps({
        "tok_s": n_rows / statistics.median(seconds[job["warmup"]:]), "losses": losses,
        "resident": field_bytes("VmHWM"), "without_model": without_model,
        "weights": sum(p.numel() for p in model.parameters()),
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}"}))


def run_torch(options, folder, model, way, experts):
    job = {key: getattr(options, key) for key in ("threads", "batch", "seq", "warmup", "steps")}
    job.update(model=model, way=way, experts=experts, tokens=os.path.join(folder, "tokens"))
    run = Run([sys.executable, os.path.abspath(__file__), "--work", json.dumps(job)], folder)
    return json.loads(run.out.splitlines()[-1])


def run_dure(options, folder, model, dtype):
    shape = {k: v for k, v in MODELS[model].items() if v is not None}
    keys = {"model." + k: v for k, v in shape.items() if k != "model_type"}
    keys.update({"optim." + k: v for k, v in OPTIMIZER.items()})
    keys.update({"model.arch": shape["model_type"], "dtype": dtype, "seed": 1,
                 "seq_len": options.seq, "batch_seqs": options.batch,
                 "steps": options.warmup + options.steps, "optim.name": "adamw",
                 "schedule.name": "constant", "data.tokens": os.path.join(folder, "tokens"),
                 "data.order": "sequential", "out": os.path.join(folder, "run")})
    config = os.path.join(folder, "train.conf")
    with open(config, "w", encoding="ascii") as file:
        for key, value in keys.items():
            file.write(f"{key} = {str(value).lower() if isinstance(value, bool) else value}\n")
    shutil.rmtree(keys["out"], ignore_errors=True)
    pairs = [word for pair in options.set for word in ("--set", pair)]
    run = Run([options.dure, "train", config, "--threads", str(options.threads), *pairs], folder)
    lines = read_text(os.path.join(keys["out"], "metrics.jsonl")).splitlines()
    steps = [json.loads(line) for line in lines]
    if len(steps) != options.warmup + options.steps:
        raise Failed(f"dure train: {len(steps)} lines in metrics.jsonl")
    counted = steps[options.warmup:]
    return {**{key: statistics.median(step[key] for step in counted)
               for key in ("tok_s", "products", "peak")},
            "losses": [step["loss"] for step in steps], "resident": run.resident,
            "without_model": 0}


def programs_of(options, model):
    """[(name, number type, function that measures once)]"""
    found = []
    for way in options.ways:
        if way.startswith("dure-"):
            found.append((way, WAYS[way], lambda f, t=WAYS[way]: run_dure(options, f, model, t)))
            continue
        for experts in options.experts if model == "moe" else (None,):
            name = f"{way}, {experts}" if experts else way
            found.append((name, WAYS[way], lambda f, w=way, e=experts:
                          run_torch(options, f, model, w, e)))
    return found


def measure(options, folder, model):
    """({name: [result of each round, None where it failed]}, failures)"""
    programs, failures = programs_of(options, model), []
    values = {name: [] for name, _, _ in programs}
    for i in range(options.rounds):
        for name, _, once in programs:
            if sys.stderr.isatty():
                print(f"\r{model}, round {i + 1} of {options.rounds}: {name}\033[K", end="",
                      file=sys.stderr, flush=True)
            result = None
            if None not in values[name]:
                try:
                    result = once(folder)
                except (Failed, OSError, ValueError, subprocess.TimeoutExpired) as wrong:
                    failures.append(f"{model}, {name}: {str(wrong)[-400:]}")
            values[name].append(result)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return values, failures


def ratio(ours, theirs):
    """Median and range of the ratios of the rounds in which both did their work."""
    ratios = [a / b for a, b in zip(ours, theirs) if a and b]
    return {"ratio": statistics.median(ratios), "ratios": ratios} if ratios else None


def results(options, model, values):
    """One object per way: medians, and how dure with that number type compares."""
    speeds = {name: [r and r["tok_s"] for r in found] for name, found in values.items()}
    rows = []
    for name, number_type, _ in programs_of(options, model):
        known = [r for r in values[name] if r]
        row = {"way": name, "number_type": number_type, "tok_s": None, "rounds": speeds[name]}
        if known:
            row.update(tok_s=statistics.median(r["tok_s"] for r in known),
                       resident=max(r["resident"] for r in known),
                       without_model=max(r["without_model"] for r in known),
                       loss=known[-1]["losses"][-1], weights=known[-1].get("weights"))
            if name.startswith("dure-"):
                row.update({key: statistics.median(r[key] for r in known)
                            for key in ("products", "peak")})
        if not name.startswith("dure-"):
            row["dure"] = ratio(speeds.get("dure-" + number_type, []), speeds[name])
        rows.append(row)
    for number_type in ("f32", "bf16"):
        theirs = [row for row in rows if row["number_type"] == number_type
                  and not row["way"].startswith("dure-") and row["tok_s"]]
        if len(theirs) > 1:
            best = [max((v for v in turn if v), default=None)
                    for turn in zip(*(row["rounds"] for row in theirs))]
            known = [v for v in best if v]
            rows.append({"way": f"best of {number_type}", "number_type": number_type,
                         "tok_s": statistics.median(known), "rounds": best,
                         "resident": min(row["resident"] for row in theirs),
                         "without_model": None, "loss": None,
                         "dure": ratio(speeds.get("dure-" + number_type, []), best)})
    return rows


def text_of(model, rows):
    weights = next((row["weights"] for row in rows if row.get("weights")), None)
    lines = [f"{model}" + (f", {weights / 1e6:.2f}M weights" if weights else ""),
             f"{'way':<28}{'tok/s':>9}{'from':>9}{'to':>9}{'peak MB':>9}{'of it':>8}{'loss':>8}"
             f"{'dure':>7}  range"]
    for row in rows:
        if row["tok_s"] is None:
            lines.append(f"{row['way']:<28}{'failed':>9}")
            continue
        known = [v for v in row["rounds"] if v]
        line = (f"{row['way']:<28}{row['tok_s']:>9.0f}{min(known):>9.0f}{max(known):>9.0f}"
                f"{row['resident'] / 1e6:>9.0f}")
        line += "".join(f"{'' if v is None else format(v, form):>8}" for v, form in (
            (row["without_model"] and row["without_model"] / 1e6, ".0f"), (row["loss"], ".3f")))
        if row.get("dure"):
            ratios = row["dure"]["ratios"]
            line += f"{row['dure']['ratio']:>6.2f}x  {min(ratios):.2f}-{max(ratios):.2f}"
        lines.append(line)
    lines += [f"{row['way']}: {row['products']:.0%} of the time in matrix products and attention, "
              f"{row['peak']:.0%} of the machine's peak" for row in rows if row.get("products")]
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(prog="compare_torch.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dure", default="build/dure", metavar="PATH", help="default: build/dure")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="a further key of dure's configuration")
    parser.add_argument("--models", default=",".join(MODELS), metavar="NAME,...", help="default: all")
    parser.add_argument("--ways", default=",".join(WAYS), metavar="WAY,...", help="default: all")
    parser.add_argument("--experts", default="grouped_mm,eager", metavar="NAME,...",
                        help=f"of {', '.join(EXPERTS)} (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N",
                        help="of every program (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--steps", type=int, default=5, metavar="N",
                        help="that count in each turn (default 5)")
    parser.add_argument("--warmup", type=int, default=2, metavar="N",
                        help="steps before them (default 2)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="sequences (default 16)")
    parser.add_argument("--seq", type=int, default=256, metavar="N",
                        help="tokens of each (default 256)")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name, known in (("models", MODELS), ("ways", WAYS), ("experts", EXPERTS)):
        chosen = getattr(options, name).split(",")
        setattr(options, name, chosen)
        for word in chosen:
            if word not in known:
                parser.error(f"--{name}: no {word}: there are {', '.join(known)}")
    if min(options.rounds, options.steps, options.batch, options.seq, options.threads) < 1:
        parser.error("counts are at least 1")
    options.dure = os.path.abspath(shutil.which(options.dure) or options.dure)
    return options


def write_tokens(path, n):
    """n token numbers in [0, 2048), little-endian uint16, the same every time."""
    state, out = 1, bytearray()
    for _ in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2 ** 64
        out += ((state >> 53) & 2047).to_bytes(2, "little")
    with open(path, "wb") as file:
        file.write(out)


def main():
    options = parse()
    if options.work:
        work(json.loads(options.work))
        return 0
    found, failures, load = {}, [], os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="dure-compare-") as folder:
        # What torch.compile makes is kept for the later rounds.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(folder, "inductor")
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
        n = (options.warmup + options.steps) * options.batch * options.seq + 1
        write_tokens(os.path.join(folder, "tokens"), n)
        versions = None
        for model in options.models:
            values, failed = measure(options, folder, model)
            versions = versions or next((r["versions"] for turns in values.values() for r in turns
                                         if r and "versions" in r), None)
            found[model] = results(options, model, values)
            failures += failed
    about = {"threads": options.threads, "batch": [options.batch, options.seq],
             "rounds": options.rounds, "steps": options.steps, "versions": versions,
             "load_before": load, "load_after": os.getloadavg()[0]}
    if options.json:
        print(json.dumps({**about, "models": found, "failures": failures}))
    else:
        print(f"batch {options.batch} x {options.seq}, {options.threads} threads, {options.rounds} "
              f"rounds of {options.steps} steps; {versions or 'no PyTorch'}; load average "
              f"{load:.2f} before, {about['load_after']:.2f} after")
        for model, rows in found.items():
            print("\n" + text_of(model, rows))
        print("\nmedians of rounds; peak MB: largest resident size, `of it` what stands before a model"
              " is made;\nloss: of the last step; dure: its tokens per second by this way's")
    for failure in failures:
        print(f"compare_torch.py: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
