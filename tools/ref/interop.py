#!/usr/bin/env python3
"""The work of tools/interop.sh; see there."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from compare_llama_cpp import PROMPTS, Dure, Report, llama_greedy, relative

import llama_low
import numpy as np
import tiny_tokenizer
import torch
import transformers

N_RANDOM_PROMPTS, N_RANDOM_TOKENS = 4, 12


class DureEngine:
    def __init__(self, dure, path, work):
        self.dure, self.path, self.work, self.ids_file = dure, path, work, work / "ids.txt"

    def write_ids(self, ids):
        self.ids_file.write_text(" ".join(map(str, ids)))

    def greedy(self, prompt, n):
        self.write_ids(prompt)
        out = self.dure.call("run", self.path, "--tokens-file", self.ids_file, "-n", n, "--temp", 0,
                             "--ignore-eos", "--json", "--threads", self.dure.threads)
        return json.loads(out)["tokens"]

    def logits(self, ids):
        self.write_ids(ids)
        return self.dure.logits(self.path, self.ids_file, self.work)


class LlamaCpp:
    """With a cache in F32 and without flash attention."""

    def __init__(self, path, n_ctx, threads):
        self.model = llama_low.Model(path)
        self.context = llama_low.Context(self.model, n_ctx, threads)

    def greedy(self, prompt, n):
        return llama_greedy(self.context, prompt, n)[0]

    def logits(self, ids):
        self.context.reset()
        return self.context.decode(ids, 0)


class Transformers:
    def __init__(self, folder):
        self.model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager",
            experts_implementation="eager", output_loading_info=True)
        wrong = {what: names for what, names in told.items() if names}
        if wrong:
            raise RuntimeError(f"transformers, opening {folder}: {wrong}")
        self.model.eval()

    @torch.no_grad()
    def greedy(self, prompt, n):
        ids, feed, past = [], prompt, None
        while len(ids) < n:
            out = self.model(torch.tensor([feed]), past_key_values=past, use_cache=True)
            past = out.past_key_values
            ids.append(int(out.logits[0, -1].argmax()))
            feed = ids[-1:]
        return ids

    @torch.no_grad()
    def logits(self, ids):
        return self.model(torch.tensor([ids]), use_cache=False).logits[0].numpy()


def checkpoint_in(path):
    """The folder with config.json: path itself, or the last of its step-NNNNNN."""
    if (path / "config.json").is_file():
        return path
    steps = sorted(p.parent for p in path.glob("step-*/config.json"))
    if not steps:
        sys.exit(f"interop.sh: no config.json in {path}, nor in a step-NNNNNN in it")
    return steps[-1]


def with_tokenizer(folder, work):
    """(folder to convert, whether its tokens are text): one that was trained on bare numbers gets a
    stand-in in a copy, since a GGUF file has a tokenizer."""
    if (folder / "tokenizer.json").is_file():
        return folder, True
    copy_of = work / "checkpoint"
    copy_of.mkdir()
    for file in folder.iterdir():
        (copy_of / file.name).symlink_to(file.resolve())
    n_vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    tiny_tokenizer.write_stand_in(copy_of, n_vocab)
    return copy_of, False


def prompts_of(options, dure, folder, is_text, work):
    """[(name, ids)]"""
    if options.tokens_file:
        return [(path.name, [int(i) for i in path.read_text().split()])
                for path in options.tokens_file]
    if is_text:
        texts = options.prompt or PROMPTS
        return [(repr(text[:24]), ids)
                for text, ids in zip(texts, dure.tokenize(folder, texts, work))]
    if options.prompt:
        sys.exit("interop.sh: --prompt needs a checkpoint with a tokenizer.json; use --tokens-file")
    n_vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    return [(f"random prompt {i}",
             np.random.RandomState(i).randint(0, n_vocab, N_RANDOM_TOKENS).tolist())
            for i in range(1, N_RANDOM_PROMPTS + 1)]


def compare(report, engines, name, prompt, n):
    """The first of the engines is what the others are compared with."""
    (first, one), *others = engines.items()
    want = one.greedy(prompt, n)
    logits = one.logits(prompt + want[:-1])
    best = logits[len(prompt) - 1:].argmax(-1).tolist()
    same = next((i for i, (a, b) in enumerate(zip(want, best)) if a != b), n)
    report.line(len(want) == n and same == n,
                f"{name}, {first}: {len(want)} tokens ({len(set(want))} distinct), all at once"
                f" {'the same' if same == n else f'from token {same + 1} others'}")
    for other, engine in others:
        got = engine.greedy(prompt, n)
        off = relative(engine.logits(prompt + want[:-1]), logits)
        same = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), n)
        text = f"{name}, {other}: {same} of {n} tokens equal, logits differ by {off:.1e} of max|logit|"
        if same < n:
            prefix = prompt + want[:same]
            text += f"; then {want[same]} ({first}) or {got[same]} ({other}), their logits: "
            text += ", ".join("{} {:.6f} {:.6f}".format(e, *x.logits(prefix)[-1][[want[same], got[same]]])
                              for e, x in engines.items())
        report.line(same == n and len(got) == n, text)


def main():
    parser = argparse.ArgumentParser(prog="tools/interop.sh", description="Greedy tokens of a checkpoint"
                                     " by dure, by llama.cpp on the GGUF file made of it, and by"
                                     " transformers. Status 1 if they differ.")
    parser.add_argument("--dure", metavar="PROGRAM", help="default: build/dure")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("-n", type=int, default=128, metavar="N", help="tokens (default: 128)")
    parser.add_argument("--prompt", action="append", metavar="TEXT",
                        help="may be repeated (default: some texts, or random tokens without a"
                        " tokenizer)")
    parser.add_argument("--tokens-file", action="append", type=Path, metavar="FILE",
                        help="a prompt as token ids; may be repeated")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="keep the GGUF file there")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    options = parser.parse_args()
    if not Path(options.dure).is_file():
        sys.exit(f"interop.sh: no program at {options.dure}: run make, or set DURE")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    report = Report()
    dure = Dure(options.dure, options.threads)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        checkpoint = checkpoint_in(options.checkpoint)
        model, is_text = with_tokenizer(checkpoint, work)
        print(f"== {checkpoint}{'' if is_text else ' (its GGUF file with a stand-in for a tokenizer)'}")
        gguf = options.gguf or work / "model.gguf"
        try:
            dure.call("convert", model, gguf, "--type", "f32")
            prompts = prompts_of(options, dure, checkpoint, is_text, work)
            n_ctx = max(len(ids) for _, ids in prompts) + options.n
            engines = {"dure": DureEngine(dure, checkpoint, work),
                       "dure on the GGUF file": DureEngine(dure, gguf, work),
                       "llama.cpp": LlamaCpp(gguf, n_ctx, options.threads),
                       "transformers": Transformers(checkpoint)}
            for name, ids in prompts:
                compare(report, engines, name, ids, options.n)
        except (RuntimeError, ValueError, OSError) as e:
            report.line(False, str(e))
    print(f"{report.failed} failed")
    return int(report.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
