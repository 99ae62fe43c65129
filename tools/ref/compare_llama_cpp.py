#!/usr/bin/env python3
"""The work of tools/compare_llama_cpp.sh; see there. Exit status 1 if something that must agree does
not."""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

try:
    import numpy as np
    import torch
    import transformers

    import corpus
    import llama_low

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import kl_reference
except ImportError as e:
    sys.exit(f"compare_llama_cpp.sh: the Python package {e.name} is missing in {sys.executable}:"
             " run tools/ref/setup.sh")

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TOLERANCE = 1e-4  # of logits, relative to max |logit|
SPEED_MIN = 0.6  # of llama.cpp's decode speed

# What llama.cpp does not read from the file for deepseek2 and has to be told.
TOLD = {"kimi_k2": {"yarn_beta_fast": 1.0, "yarn_beta_slow": 1.0}}
TEXT_OTHERWISE = {("deepseek-llm", "  \u3000 x"): "llama.cpp joins the two blanks"}

PROMPTS = [
    "The village shares its oxen, its ploughs and",
    "Once upon a time there was a small model that",
    "def fibonacci(n):\n    ",
    "The three largest cities of Korea are",
    "두레는 마을 사람들이",
    "1, 2, 4, 8, 16,",
]


class Report:
    def __init__(self):
        self.failed = 0

    def line(self, ok, text):
        """ok: True, False, or None where nothing is asked."""
        self.failed += ok is False
        print(f"{ {True: 'ok  ', False: 'FAIL', None: '-   '}[ok]} {text}", flush=True)


class Dure:
    def __init__(self, program, threads):
        self.program, self.threads = program, threads

    def call(self, *args, text=None):
        done = subprocess.run([self.program, *map(str, args)], input=text, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"dure {args[0]}: {done.stderr.decode().strip()}")
        return done.stdout

    def logits(self, model, ids_file, folder, *options):
        out = Path(folder) / "logits.npy"
        self.call("logits", model, "--tokens-file", ids_file, "-o", out, "--threads", self.threads,
                  *options)
        return np.load(out)

    def tokenize(self, model, texts, folder, *options):
        path = Path(folder) / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts))
        out = self.call("tokenize", model, "--jsonl", path, *options)
        return [json.loads(line)["tokens"] for line in out.splitlines()]


def golden_texts():
    rows = [json.loads(line) for line in (GOLDEN / "tokenizers" / "texts.jsonl").open()]
    return [r["text"] for r in rows if r.get("text")]


def relative(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())


def llama_logits(path, ids, threads, **more):
    model = llama_low.Model(path)
    context = llama_low.Context(model, max(len(ids), 32), threads, **more)
    logits = context.decode(ids, 0)
    context.close()
    model.close()
    return logits


def template_of(folder):
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text()
    template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    if isinstance(template, list):
        template = next(t["template"] for t in template if t["name"] == "default")
    return template


def two_best_of_groups(model):
    """Groups of softmax models chosen as V3 chooses them."""
    def forward(gate, hidden):
        scores = (hidden.view(-1, gate.hidden_dim) @ gate.weight.T).softmax(-1)
        groups = scores.view(-1, gate.num_group, gate.num_experts // gate.num_group)
        kept = groups.topk(2).values.sum(-1).topk(gate.topk_group).indices
        left_out = torch.ones(groups.shape[:2], dtype=torch.bool).scatter(1, kept, False)
        value = groups.masked_fill(left_out.unsqueeze(-1), -torch.inf).view(scores.shape)
        chosen = value.topk(gate.top_k).indices
        return scores, scores.gather(1, chosen) * gate.routed_scaling_factor, chosen

    for layer in model.model.layers:
        if hasattr(layer.mlp, "gate"):
            layer.mlp.gate.forward = forward.__get__(layer.mlp.gate)


def one_eps(model):
    for name, module in model.named_modules():
        if name.endswith(("q_a_layernorm", "kv_a_layernorm")):
            module.variance_epsilon = model.config.rms_norm_eps


# Fixtures where llama.cpp computes something else than the reference implementation, which dure follows:
# why, and the change that makes transformers compute llama.cpp's logits. That it does is checked.
OTHERWISE = {
    "deepseek_v2_group": ("llama.cpp chooses groups by V3's rule (the sum of a group's two best) also"
                          " for softmax models", two_best_of_groups),
    "glm4_moe_lite": ("llama.cpp uses the model's eps also for the two latent norms", one_eps),
}


@torch.no_grad()
def changed_reference(folder, change, ids, work):
    """Logits of the fixture by transformers with a change."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("auto_map", None)
    copy_of = work / "changed"
    copy_of.mkdir()
    for file in folder.glob("*.safetensors*"):
        (copy_of / file.name).symlink_to(file)
    (copy_of / "config.json").write_text(json.dumps(config))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        copy_of, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    shutil.rmtree(copy_of)
    change(model)
    return model.eval()(torch.tensor([ids])).logits[0].numpy()


def compare_logits(dure, folder, file, work):
    """(logits agree, what is to be said about them)."""
    name, ids_file = folder.name, folder / "ids.txt"
    ids = [int(i) for i in ids_file.read_text().split()]
    told = TOLD.get(name, {})
    dure.call("convert", folder, file, "--type", "f32")
    theirs = llama_logits(file, ids, dure.threads, **told)
    mine = dure.logits(file, ids_file, work)
    golden = np.load(folder / "logits.npy")
    text = f"logits differ by {relative(mine, theirs):.1e} of max|logit|"
    if told:
        text += f" (llama.cpp does not read {', '.join(told)} of this architecture: told)"
    if name not in OTHERWISE:
        return relative(mine, theirs) <= TOLERANCE, text
    why, change = OTHERWISE[name]
    changed = changed_reference(folder, change, ids, work)
    text += f": {why}; transformers with this rule differs from llama.cpp by" \
        f" {relative(changed, theirs):.1e}, without it from dure by {relative(mine, golden):.1e}"
    return max(relative(changed, theirs), relative(mine, golden)) <= TOLERANCE, text


def compare_fixture(report, dure, folder, work, texts):
    name, file = folder.name, work / f"{folder.name}.gguf"
    logits_ok, said = compare_logits(dure, folder, file, work)
    model = llama_low.Model(file, vocab_only=True)
    wrong = 0
    for options, special in (((), False), (("--parse-special",), True)):
        mine = dure.tokenize(file, texts, work, *options)
        wrong += sum(m != model.tokenize(t.encode(), special) for t, m in zip(texts, mine))
    same_template = model.template() == template_of(folder)
    model.close()
    # As stored: the weights' own types, FP8 as BF16. llama.cpp rounds activations to the type of the
    # weights, which moves choices of experts: only opening is asked.
    dure.call("convert", folder, file, "--type", "keep")
    llama_logits(file, [1, 2, 3], dure.threads)
    file.unlink()
    report.line(logits_ok and wrong == 0 and same_template,
                f"{name}: {said}; {wrong} of {2 * len(texts)} encodings differ;"
                f" chat template {'the same' if same_template else 'ANOTHER'}; opens as stored")


def compare_fixtures(report, dure, work):
    texts = golden_texts()[::4]
    for folder in sorted((GOLDEN / "models").iterdir()):
        if folder.is_dir():
            try:
                compare_fixture(report, dure, folder, work, texts)
            except (RuntimeError, ValueError, OSError) as e:
                report.line(False, f"{folder.name}: {e}")


def compare_tokenizers(report, dure, work):
    texts = golden_texts()
    for folder in sorted((GOLDEN / "tokenizers").iterdir()):
        if not folder.is_dir():
            continue
        file = folder / "vocab.gguf"
        model = llama_low.Model(file, vocab_only=True)
        wrong = []
        for options, special in (((), False), (("--parse-special",), True)):
            mine = dure.tokenize(file, texts, work, *options)
            wrong += [t for t, m in zip(texts, mine) if m != model.tokenize(t.encode(), special)]
        model.close()
        known = [t for t in wrong if (folder.name, t) in TEXT_OTHERWISE]
        report.line(len(wrong) == len(known),
                    f"{folder.name}: {2 * len(texts)} encodings, {len(wrong)} other"
                    f" ({len(known)} of them known)")


def llama_greedy(context, prompt, n):
    """Tokens and the gap of best and second logit at each."""
    context.reset()
    logits = context.decode(prompt, 0, every=False)[0]
    ids, gaps = [], []
    while True:
        second, best = np.partition(logits, -2)[-2:]
        ids.append(int(logits.argmax()))
        gaps.append(float(best - second))
        if len(ids) == n:
            return ids, gaps
        logits = context.decode(ids[-1:], len(prompt) + len(ids) - 1, every=False)[0]


def compare_greedy(report, dure, path, model, work, n=64):
    """Where the two part, the best token of the same weights in F32 says who is right."""
    reference = kl_reference.dequantised(path)
    context = llama_low.Context(model, 256, dure.threads)
    for text in PROMPTS:
        prompt = model.tokenize(text.encode(), False)
        ids_file = work / "prompt.txt"
        ids_file.write_text(" ".join(map(str, prompt)))
        out = json.loads(dure.call("run", path, "--tokens-file", ids_file, "-n", n, "--temp", 0,
                                   "--ignore-eos", "--json", "--threads", dure.threads))
        theirs, gaps = llama_greedy(context, prompt, n)
        same = next((i for i, (a, b) in enumerate(zip(out["tokens"], theirs)) if a != b), n)
        where = ""
        if same < n:
            right = kl_reference.logits_of(reference, prompt + theirs[:same])[-1].argmax()
            who = {theirs[same]: "llama.cpp", out["tokens"][same]: "dure"}.get(int(right), "neither")
            where = f", then llama.cpp's best two are {gaps[same]:.3f} apart; {who} agrees with F32"
        report.line(True if same == n else None, f"greedy {text[:24]!r}: {same} of {n} tokens equal{where}")
    context.close()


def log_likelihoods(logits, targets):
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x[np.arange(len(targets)), targets] - np.log(np.exp(x).sum(-1))


def compare_perplexity(report, dure, path, model, work, n_ctx=256):
    text = "\n".join(list(corpus.lines())[::29])
    file = work / "text.txt"
    file.write_text(text)
    mine = json.loads(dure.call("perplexity", path, file, "--ctx", n_ctx, "--json",
                                "--threads", dure.threads))
    ids = model.tokenize(text.encode(), False)
    context = llama_low.Context(model, n_ctx, dure.threads)
    nll = []
    for start in range(0, len(ids), n_ctx):
        chunk = ids[start:start + n_ctx]
        if len(chunk) < 2:
            break
        context.reset()
        nll += list(-log_likelihoods(context.decode(chunk, 0)[:-1], chunk[1:]))
    context.close()
    theirs = float(np.mean(nll))
    ok = mine["n_tokens"] == len(ids) and abs(mine["nll"] - theirs) <= 0.01 * theirs
    report.line(ok, f"perplexity of {mine['n_tokens']} tokens (llama.cpp {len(ids)}) in chunks of {n_ctx}:"
                    f" dure {mine['ppl']:.4f}, llama.cpp {np.exp(theirs):.4f}")


def compare_speed(report, dure, path, model, n=64, rounds=7):
    context = llama_low.Context(model, 256, dure.threads, exact=False)
    prompt = model.tokenize(PROMPTS[0].encode(), False)
    mine, theirs = [], []
    for _ in range(rounds):
        out = json.loads(dure.call("bench", path, "-p", 0, "-n", n, "-r", 1, "--json",
                                   "--threads", dure.threads))
        mine.append(next(r["tok_s"] for r in out if r["test"] == "decode"))
        context.reset()
        context.decode(prompt, 0, every=False)
        began = time.perf_counter()
        for i in range(n):
            context.decode(prompt[:1], len(prompt) + i, every=False)
        theirs.append(n / (time.perf_counter() - began))
    context.close()
    ratio = statistics.median(m / t for m, t in zip(mine, theirs))
    report.line(ratio >= SPEED_MIN,
                f"decode, {dure.threads} threads, {rounds} rounds in turn: dure {statistics.median(mine):.1f},"
                f" llama.cpp {statistics.median(theirs):.1f} tokens/s, ratio {ratio:.2f}")


def compare_smollm2(report, dure, work):
    path = kl_reference.smollm2()
    model = llama_low.Model(path)
    compare_greedy(report, dure, path, model, work)
    compare_perplexity(report, dure, path, model, work)
    compare_speed(report, dure, path, model)
    model.close()


PARTS = {"fixtures": compare_fixtures, "tokenizers": compare_tokenizers, "smollm2": compare_smollm2}


def main():
    parser = argparse.ArgumentParser(prog="tools/compare_llama_cpp.sh", description="Compares dure with"
                                     " llama.cpp on the same files.")
    parser.add_argument("--dure", metavar="PROGRAM", help="default: build/dure")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("parts", nargs="*", metavar="PART",
                        help=f"{', '.join(PARTS)}; all of them by default")
    args = parser.parse_args()
    for name in args.parts:
        if name not in PARTS:
            parser.error(f"no part '{name}': there are {', '.join(PARTS)}")
    if not Path(args.dure).is_file():
        sys.exit(f"compare_llama_cpp.sh: no program at {args.dure}: run make, or set DURE")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    report = Report()
    dure = Dure(args.dure, args.threads)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.parts or PARTS:
            print(f"== {name}")
            PARTS[name](report, dure, Path(folder))
    print(f"{report.failed} failed")
    return int(report.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
