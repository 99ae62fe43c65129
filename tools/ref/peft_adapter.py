#!/usr/bin/env python3
"""Adapters of `dure train` in the peft library, and the library's in dure.

    peft_adapter.py DURE BASE ADAPTER     (a Hugging Face directory; a checkpoint with lora.rank)

Loads ADAPTER with PeftModel and compares its logits with those of `dure merge BASE ADAPTER`; then
lets the library make a random adapter with the same target modules, saves it, and compares again.
Exit status 1 where a logit is off by more than 1e-4 of the largest. Needs torch, transformers, peft.
"""
import os
import subprocess
import sys
import tempfile

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

TOKENS = [3, 5, 7, 11, 13, 17, 19, 23]


def logits_of(model):
    with torch.no_grad():
        return model.eval()(torch.tensor([TOKENS])).logits[0].numpy()


def merged_logits(dure, base, adapter, folder):
    """Of the directory that `dure merge` writes, computed by dure."""
    out, ids, array = (os.path.join(folder, name) for name in ("merged", "ids.txt", "logits.npy"))
    with open(ids, "w", encoding="ascii") as file:
        file.write(" ".join(map(str, TOKENS)))
    subprocess.run([dure, "merge", base, adapter, out, "--type", "f32"], check=True)
    subprocess.run([dure, "logits", out, "--tokens-file", ids, "-o", array, "--cache-type", "f32"],
                   check=True)
    return numpy.load(array)


def compare(what, plain, adapted, got):
    size = abs(adapted).max()
    off, moved = abs(adapted - got).max() / size, abs(adapted - plain).max() / size
    print(f"{what}: off by {off:.3g} of the largest logit; the adapter moves {moved:.3g}")
    return off <= 1e-4 and moved > 1e-3


def main(dure, base, adapter):
    def fresh():
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    plain = logits_of(fresh())
    loaded = PeftModel.from_pretrained(fresh(), adapter)
    targets = sorted(loaded.peft_config["default"].target_modules)
    with tempfile.TemporaryDirectory() as folder:
        good = compare("dure's adapter", plain, logits_of(loaded),
                       merged_logits(dure, base, adapter, folder))
    torch.manual_seed(1)
    made = get_peft_model(fresh(), LoraConfig(r=3, lora_alpha=5, use_rslora=True,
                                              target_modules=targets, init_lora_weights=False))
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(os.path.join(folder, "adapter"))
        good &= compare("peft's adapter", plain, logits_of(made),
                        merged_logits(dure, base, os.path.join(folder, "adapter"), folder))
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
