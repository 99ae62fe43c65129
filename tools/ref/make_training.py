#!/usr/bin/env python3
"""Makes tests/golden/training: tiny random models and what training them does, computed by transformers
and torch in double precision.

    make_training.py [NAME...]     all fixtures, or those named

Per fixture: config.json and model.safetensors (F32, names as published); grads.safetensors, the gradient
of every tensor for the first batch; changes.safetensors, every tensor after 20 steps of AdamW less what
it was before; steps.json, loss and gradient norm (before clipping) of each step. Both tensor files are
the double values rounded to F32. tokens.bin, little-endian uint16, serves all of them.

transformers rounds to float32 in norms, rotations, softmax and router whatever type the model has; here
that type's name stands for double (`in_double`), and a central difference of the loss along a random
direction proves that nothing was rounded.

A seed is taken only if the fixture is a fair test (see `fair`): a clear choice of experts at every token
of every step, and changes that float32 arithmetic (transformers itself) does not spoil, nor do
gradients with several times its errors: the first step of AdamW is the sign of a gradient, whatever its
size."""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

import fixtures
import make_models

ROOT = make_models.ROOT.parent / "training"
VOCAB, N_TOKENS = 64, 331  # a prime: the 20 batches wrap around inside a sequence
N_STEPS, N_SEQ, SEQ_LEN = 20, 2, 12
LR, BETAS, EPS, DECAY, CLIP = 1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0
MIN_MARGIN = 1e-4  # last chosen minus best left out, in the scores that the router compares
MAX_NOISE = 0.8  # of what the test allows, that transformers itself in float32 takes
WORSE, MAX_WORSE = 4, 0.5  # times float32's errors in the gradients, and what that may take
DIFFERENCE_STEP, MAX_DIFFERENCE = 1e-7, 1e-7

# What the test allows (tests/golden/test_training.c): gradients and changes relative to the largest of
# the tensor, and for changes the two roundings to F32 that a step makes in each weight.
TOLERANCE, ROUNDING = 1e-4, 2 * N_STEPS * 2.0 ** -24
LOSS_TOLERANCE = 1e-5

SMALL = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64)
LATENT = dict(SMALL, intermediate_size=24, num_attention_heads=2, num_key_value_heads=2,
              kv_lora_rank=16, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=8,
              moe_intermediate_size=8, n_routed_experts=8, num_nextn_predict_layers=0)
PLAIN = dict(SMALL, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2)
V2 = {k: v for k, v in LATENT.items() if k != "num_nextn_predict_layers"}
YARN = dict(fixtures.YARN, original_max_position_embeddings=8)

FIXTURES = {
    "llama": {
        "about": "Llama: grouped queries (4 heads on 2), untied",
        "config": fixtures.dense("llama", **PLAIN),
    },
    "llama_tied": {
        "about": "Llama: tied embeddings, every head its own keys",
        "config": fixtures.dense("llama", **{**PLAIN, "num_key_value_heads": 4},
                                 tie_word_embeddings=True),
    },
    "qwen2": {
        "about": "Qwen2: biases on q, k and v",
        "config": fixtures.dense("qwen2", **PLAIN, rms_norm_eps=1e-06, use_sliding_window=False),
    },
    "qwen3": {
        "about": "Qwen3: q and k norms per head, head_dim 12 with 32 / 4 = 8, tied",
        "config": fixtures.dense("qwen3", **PLAIN, rms_norm_eps=1e-06, head_dim=12,
                                 tie_word_embeddings=True, use_sliding_window=False),
    },
    "deepseek_v2": {
        "about": "V2-Lite: no q_lora, softmax, greedy choice of 3, two shared experts",
        "config": fixtures.deepseek_v2(**V2, rope_scaling=None),
    },
    "deepseek_v2_group": {
        "about": "V2: q_lora, group_limited_greedy (4 groups, 2 kept), routed_scaling 4, YaRN with "
                 "mscale 0.707 twice",
        "config": fixtures.deepseek_v2(
            **V2, q_lora_rank=24, n_group=4, topk_group=2, topk_method="group_limited_greedy",
            n_shared_experts=1, routed_scaling_factor=4.0,
            rope_scaling=dict(YARN, mscale=0.707, mscale_all_dim=0.707)),
    },
    "deepseek_v3": {
        "about": "V3: q_lora, sigmoid with correction bias, 2 groups keep 1, 3 experts, "
                 "norm_topk_prob, routed_scaling 2.5, YaRN",
        "config": fixtures.deepseek_v3(**LATENT, q_lora_rank=24, n_group=2, topk_group=1,
                                       num_experts_per_tok=3, rope_scaling=YARN),
    },
    "deepseek_v3_noqlora": {
        "about": "V3 without q_lora and YaRN: 4 groups keep 2, two shared experts, tied, and a second "
                 "layer with experts",
        "config": fixtures.deepseek_v3(
            **{**LATENT, "num_hidden_layers": 3}, q_lora_rank=None, n_group=4, topk_group=2,
            num_experts_per_tok=3, n_shared_experts=2, routed_scaling_factor=1.8,
            tie_word_embeddings=True, rope_scaling=None),
    },
    "deepseek_v3_plain": {
        "about": "V3 with one group, weights of the experts not divided by their sum, one layer",
        "config": fixtures.deepseek_v3(
            **{**LATENT, "num_hidden_layers": 1}, first_k_dense_replace=0, q_lora_rank=None,
            n_group=1, topk_group=1, num_experts_per_tok=2, norm_topk_prob=False,
            routed_scaling_factor=1.0, rope_scaling=None),
    },
}


@contextlib.contextmanager
def in_double():
    """Where transformers asks for float32 it gets double."""
    with mock.patch.object(torch, "float32", torch.float64), \
            mock.patch.object(torch, "float", torch.float64), \
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        yield


def make_tokens():
    return np.random.RandomState(5).randint(0, VOCAB, N_TOKENS).astype("<u2")


def batch(tokens, step):
    """Inputs and targets [N_SEQ, SEQ_LEN] of a step counted from 0; the data wraps at its end."""
    start = (step * N_SEQ + np.arange(N_SEQ)[:, None]) * SEQ_LEN + np.arange(SEQ_LEN)
    at = lambda i: torch.from_numpy(tokens[i % N_TOKENS].astype(np.int64))  # noqa: E731
    return at(start), at(start + 1)


def parts(name, parameter):
    """Views of one of transformers' parameters under the names as published."""
    if name.endswith("mlp.experts.gate_up_proj"):
        base, width = name.removesuffix("gate_up_proj"), parameter.shape[1] // 2
        for e, both in enumerate(parameter):
            yield f"{base}{e}.gate_proj.weight", both[:width]
            yield f"{base}{e}.up_proj.weight", both[width:]
    elif name.endswith("mlp.experts.down_proj"):
        for e, down in enumerate(parameter):
            yield f"{name.removesuffix('down_proj')}{e}.down_proj.weight", down
    else:
        yield name, parameter


def named(model, value):
    """{published name: value of each parameter}, without the router's bias, which is none."""
    return {part: view.detach().clone() for name, p in model.named_parameters()
            for part, view in parts(name, value(p))}


def build(fixture, weights, dtype):
    known = {k: v for k, v in fixture["config"].items() if k not in (
        "architectures", "auto_map", "model_type", "torch_dtype", "transformers_version")}
    config = AutoConfig.for_model(fixture["config"]["model_type"], **known)
    with in_double() if dtype == torch.double else contextlib.nullcontext():
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager",
                                                 experts_implementation="eager").to(dtype)
    left = dict(weights)
    with torch.no_grad():
        for name, p in (*model.named_parameters(), *model.named_buffers()):
            for part, view in parts(name, p):
                if part in left:
                    view.copy_(left.pop(part))
                else:
                    assert part.endswith("inv_freq"), part
    assert not left, left.keys()
    return model.train()


def loss_of(model, inputs, targets):
    is_double = next(model.parameters()).dtype == torch.double
    with in_double() if is_double else contextlib.nullcontext():
        logits = model(inputs, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def loss_and_grads(model, inputs, targets):
    model.zero_grad()
    loss = loss_of(model, inputs, targets)
    loss.backward()
    for p in model.parameters():  # an expert that no token chose has none
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    return float(loss.detach())


def train(model, tokens, margin=None, single=None):
    """Losses, gradient norms, the first step's gradients and the changes of all weights; None as
    soon as a router's choice was close. single: the model in float32, whose errors in the gradients
    are put on them WORSE times."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, eps=EPS,
                                  weight_decay=DECAY, foreach=False)
    before = named(model, lambda p: p)
    losses, norms, grads = [], [], None
    for step in range(N_STEPS):
        losses.append(loss_and_grads(model, *batch(tokens, step)))
        if single:
            single.load_state_dict(model.state_dict())
            loss_and_grads(single, *batch(tokens, step))
            for p, q in zip(model.parameters(), single.parameters()):
                p.grad += WORSE * (q.grad - p.grad)
        grads = grads or named(model, lambda p: p.grad)
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.step()
        if margin and margin.smallest < MIN_MARGIN:
            return None
    after = named(model, lambda p: p)
    return {"loss": losses, "grad_norm": norms, "grads": grads,
            "changes": {name: after[name] - before[name] for name in before}}


def derivative_error(model, tokens, grads):
    """Error of a central difference of the loss along a random direction, in which every tensor
    moves, relative to the length of the gradient."""
    state = np.random.RandomState(7)
    directions = [torch.from_numpy(state.standard_normal(tuple(p.shape))) for p in model.parameters()]
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(model.parameters(), directions):
                p.add_(sign * DIFFERENCE_STEP * d)
            losses.append(float(loss_of(model, *batch(tokens, 0))))
    got = (losses[0] - losses[1]) / (2 * DIFFERENCE_STEP)
    along = {part: view for (name, _), d in zip(model.named_parameters(), directions)
             for part, view in parts(name, d)}
    want = sum(float((along[name] * g).sum()) for name, g in grads.items())
    return abs(got - want) / sum(float(g.square().sum()) for g in grads.values()) ** 0.5


def parts_of_allowed(got, exact, weights):
    """Errors as parts of what the test allows, the worst over all tensors and steps."""
    def tensors(kind, rounding):
        worst = 0.0
        for name, want in exact[kind].items():
            error = (got[kind][name].double() - want).abs()
            allowed = TOLERANCE * want.abs().max() + rounding * weights[name].double().abs()
            worst = max(worst, float((error / allowed)[error > 0].max()) if error.max() > 0 else 0.0)
        return worst

    def numbers(kind, tolerance):
        return max(abs(a / b - 1) for a, b in zip(got[kind], exact[kind])) / tolerance

    return {"gradients": tensors("grads", 0.0), "changes": tensors("changes", ROUNDING),
            "losses": numbers("loss", LOSS_TOLERANCE), "norms": numbers("grad_norm", TOLERANCE)}


def fair(name, fixture, seed, tokens):
    """Everything the fixture is made of, or None if this seed makes a poor test."""
    weights = {n: make_models.init(fixture, make_models.draw(f"training/{name}", seed, n, shape), n, role)
               for n, shape, role in fixtures.tensors(fixture)}
    model = build(fixture, weights, torch.double)
    margin = make_models.RouterMargin(model, fixture["config"])
    exact = train(model, tokens, margin)
    if exact is None or margin.share() < make_models.MIN_USED:
        return None
    error = derivative_error(build(fixture, weights, torch.double), tokens, exact["grads"])
    assert error < MAX_DIFFERENCE, f"{name}: a central difference is {error:.1e} off"
    single, worse = (parts_of_allowed(got, exact, weights) for got in (
        train(build(fixture, weights, torch.float32), tokens),
        train(build(fixture, weights, torch.double), tokens,
              single=build(fixture, weights, torch.float32))))
    if worse["changes"] > MAX_WORSE or max(single.values()) > MAX_NOISE:
        print(f"{name}: seed {seed}: worse {worse['changes']:.2f}, float32 {single}", flush=True)
        return None
    return {"weights": weights, **exact, "summary": {
        "seed": seed, "weights": sum(w.numel() for w in weights.values()),
        "margin": margin.smallest if margin.n_expert else None, "experts": margin.share(),
        "derivative": error, "float32": single, "worse": worse["changes"]}}


def write(name, fixture, made):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(fixture["config"], indent=2) + "\n")
    for file, kind in (("model", "weights"), ("grads", "grads"), ("changes", "changes")):
        tensors = {n: t.to(torch.float32).contiguous() for n, t in made[kind].items()}
        save_file(tensors, folder / f"{file}.safetensors", metadata={"format": "pt"})
        (folder / f"{file}.safetensors").chmod(0o644)
    steps = {"loss": made["loss"], "grad_norm": made["grad_norm"]}
    (folder / "steps.json").write_text(json.dumps(steps, indent=1) + "\n")
    (folder / "made.json").write_text(json.dumps(made["summary"], indent=1) + "\n")


def readme():
    lines = [
        "# Training fixtures", "",
        "Tiny random models and what training does to them, made by `tools/ref/make_training.py` with",
        f"transformers {transformers.__version__} and torch {torch.__version__.split('+')[0]} in double"
        " precision; formats in `../README.md`.", "",
        "- margin: smallest distance between a chosen and a left-out expert or group, over all tokens,"
        " layers and steps",
        "- derivative: error of a central difference of the loss (step 1e-7, all tensors at once), as"
        " a part of the gradient's length; were anything rounded to F32, it would be near 1",
        "- float32: how much of what `test_training.c` allows transformers itself takes in float32",
        f"- worse: how much of it {WORSE} times the errors of float32's gradients take of the changes, all"
        " else in double", "",
    ]
    for name, fixture in FIXTURES.items():
        path = ROOT / name / "made.json"
        if not path.exists():
            continue
        s = json.loads(path.read_text())
        margin = f", margin {s['margin']:.1e}, {s['experts']:.0%} of the experts used" \
            if s["margin"] else ""
        lines += [
            f"## {name}", "", fixture["about"] + ".", "",
            f"- {s['weights']} weights, seed {s['seed']}{margin}, derivative {s['derivative']:.0e}",
            "- float32: " + ", ".join(f"{k} {v:.0%}" for k, v in s["float32"].items())
            + f"; worse {s['worse']:.0%}", "",
        ]
    (ROOT / "README.md").write_text("\n".join(lines))


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    tokens = make_tokens()
    ROOT.mkdir(exist_ok=True)
    (ROOT / "tokens.bin").write_bytes(tokens.tobytes())
    for name in sys.argv[1:] or FIXTURES:
        for seed in range(2000):
            made = fair(name, FIXTURES[name], seed, tokens)
            if made:
                write(name, FIXTURES[name], made)
                print(f"{name}: {made['summary']}", flush=True)
                break
        else:
            sys.exit(f"{name}: no seed makes a fair test")
    readme()


if __name__ == "__main__":
    main()
