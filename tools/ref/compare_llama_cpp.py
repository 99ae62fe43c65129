#!/usr/bin/env python3
"""The work of tools/compare_llama_cpp.sh; see there. Exit status 1 if something that must agree does
not."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import corpus
import llama_low

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import kl_reference  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TOLERANCE = 1e-4  # of logits, relative to max |logit|
SPEED_MIN = 0.6  # of llama.cpp's decode speed

# Fixtures where llama.cpp computes something else than the reference implementation; dure follows the
# reference, so the two differ here and nothing is asked of them. The first two were checked: with the
# rule named, transformers gives llama.cpp's logits to 3e-6.
OTHERWISE = {
    "deepseek_v2_group": "llama.cpp chooses groups by V3's rule also for softmax models",
    "glm4_moe_lite": "llama.cpp uses the model's eps also for the two latent norms",
    "deepseek_v3_yarn_nomscale": "GGUF has no key for cos and sin scaled apart from the softmax",
}
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
CHAT = [
    {"role": "system", "content": "You are terse."}, {"role": "user", "content": "안녕?"},
    {"role": "assistant", "content": "<think>x</think>네."}, {"role": "user", "content": "1 + 1?"},
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


def compare_fixture(report, dure, folder, work, texts):
    name = folder.name
    file = work / f"{name}.gguf"
    dure.call("convert", folder, file, "--type", "f32")
    ids = [int(i) for i in (folder / "ids.txt").read_text().split()]
    golden = np.load(folder / "logits.npy")
    told = TOLD.get(name, {})
    theirs = llama_logits(file, ids, dure.threads, **told)
    mine = dure.logits(file, folder / "ids.txt", work)
    error = relative(mine, theirs)
    detail = f"{name}: logits differ by {error:.1e} of max|logit|" \
        f" (from transformers: dure {relative(mine, golden):.1e}," \
        f" llama.cpp {relative(theirs, golden):.1e})"
    if told:
        detail += f"; llama.cpp was told {told}"
    if name in OTHERWISE:
        report.line(None, f"{detail}; {OTHERWISE[name]}")
    else:
        report.line(error <= TOLERANCE, detail)

    model = llama_low.Model(file, vocab_only=True)
    wrong = 0
    for options, special in (((), False), (("--parse-special",), True)):
        mine = dure.tokenize(file, texts, work, *options)
        wrong += sum(m != model.tokenize(t.encode(), special) for t, m in zip(texts, mine))
    report.line(wrong == 0, f"{name}: {2 * len(texts)} encodings, {wrong} other")
    report.line(model.template() == template_of(folder), f"{name}: chat template carried over")
    model.close()

    # As stored: the weights' own types, FP8 as BF16. llama.cpp rounds activations to the type of the
    # weights, so only opening is asked.
    dure.call("convert", folder, file, "--type", "keep")
    error = relative(dure.logits(file, folder / "ids.txt", work),
                     llama_logits(file, ids, dure.threads, **told))
    report.line(None, f"{name}: --type keep opens, logits differ by {error:.1e}")
    file.unlink()


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
    parser = argparse.ArgumentParser()
    parser.add_argument("--dure", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    args = parser.parse_args()
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
