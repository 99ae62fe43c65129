#!/usr/bin/env python3
"""Makes tests/golden/models: tiny random models in the layout their families publish, and what
transformers computes with them.

    make_models.py [NAME...]     all fixtures, or those named

Per fixture: config.json, generation_config.json, tokenizer files, safetensors; ids.txt (64 ids),
logits.npy (float32 [64, V], row t = logits after token t), prompt.txt (ids) and greedy.txt (the 128
ids that follow it). The weights are drawn from a frozen generator, seeded by fixture and tensor name,
so a rerun gives the same bytes. The reference reads the weights as stored, widened exactly to
float32 (FP8: code times block scale, in float32), eager attention, one thread.

A seed is taken only if the fixture is a fair test (see `fair`): clear arg max at each greedy step,
clear choice of experts at each position, and every feature that `without` names moving the logits."""

import copy
import json
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

import fixtures
import tiny_tokenizer

ROOT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "models"
N_IDS, N_PROMPT, N_GREEDY = 64, 12, 128
MIN_GAP = 2e-3  # best minus second logit, relative to max |logit|
MIN_MARGIN = 3e-5  # last chosen minus best left out, in the scores that the router compares
MIN_USED = 0.7  # share of the experts that some token chose
MIN_EFFECT = 1e-2  # of each `without`, relative to max |logit|
TORCH_TYPE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
FP8_BLOCK, FP8_MAX = 128, 448.0


def draw(fixture_name, seed, name, shape):
    # RandomState's stream is frozen by NumPy's policy: the same values in every version.
    state = np.random.RandomState(zlib.crc32(f"{fixture_name}/{seed}/{name}".encode()))
    return torch.from_numpy(state.standard_normal(shape).astype(np.float32))


def init(fixture, x, name, role):
    """Scales a standard normal draw by the tensor's role, so that activations stay of order one."""
    if role == "norm":
        return 1.0 + 0.3 * x
    if role == "embed":  # a tied head would else repeat the last token for ever
        return 0.15 * x if fixture["config"]["tie_word_embeddings"] else x
    if role == "bias":
        return x
    if role == "score_bias":
        return 0.3 * x  # changes most choices without fixing them; negative ones among them
    fan_in = x.shape[-1] ** -0.5
    if role == "router":
        return 2.0 * fan_in * x
    if role == "down":
        return (fixture.get("gain", 1.0) if ".experts." in name else 1.0) * 3.0 * fan_in * x
    if role == "latent":
        return fixture.get("latent_gain", 1.0) * fan_in * x
    if role == "latent_rope":  # rows of the latent first, then those of the rotated key
        rank = fixture["config"]["kv_lora_rank"]
        x = 1.5 * fan_in * x
        x[:rank] *= fixture.get("latent_gain", 1.0)
        return x
    return 1.5 * fan_in * x  # linear, head


def is_fp8(name, role):
    return role in ("linear", "down", "latent", "latent_rope") and "eh_proj" not in name


def to_fp8(w, seed_text, power_of_two):
    """Codes and block scales. Blocks get different magnitudes first, so that a wrong block shows."""
    rows, cols = w.shape
    n_r, n_c = -(-rows // FP8_BLOCK), -(-cols // FP8_BLOCK)
    spread = np.random.RandomState(zlib.crc32(seed_text.encode())).uniform(-1, 1, (n_r, n_c))
    codes = torch.empty(rows, cols, dtype=torch.float8_e4m3fn)
    scales = torch.empty(n_r, n_c, dtype=torch.float32)
    for r in range(n_r):
        for c in range(n_c):
            at = np.s_[r * FP8_BLOCK:(r + 1) * FP8_BLOCK, c * FP8_BLOCK:(c + 1) * FP8_BLOCK]
            block = w[at] * float(2.0 ** spread[r, c])
            scale = block.abs().max() / FP8_MAX
            if power_of_two:
                scale = torch.exp2(torch.ceil(torch.log2(scale)))
            codes[at] = (block / scale).to(torch.float8_e4m3fn)
            scales[r, c] = scale
    return codes, scales


def from_fp8(codes, scales):
    wide = scales.repeat_interleave(FP8_BLOCK, 0).repeat_interleave(FP8_BLOCK, 1)
    return codes.to(torch.float32) * wide[: codes.shape[0], : codes.shape[1]]


def make_weights(fixture_name, fixture, seed):
    """(tensors as stored, the same widened to float32)."""
    stored, wide = {}, {}
    quant = fixture["config"].get("quantization_config", {})
    for name, shape, role in fixtures.tensors(fixture):
        x = init(fixture, draw(fixture_name, seed, name, shape), name, role)
        if fixture["dtype"] == "FP8" and is_fp8(name, role):
            codes, scales = to_fp8(x, f"{fixture_name}/{name}", "scale_fmt" in quant)
            stored[name], stored[name + "_scale_inv"] = codes, scales
            wide[name] = from_fp8(codes, scales)
            continue
        kind = "BF16" if fixture["dtype"] == "FP8" else fixture["dtype"]
        if role == "score_bias":
            kind = fixture.get("bias_dtype", "F32")
        stored[name] = x.to(TORCH_TYPE[kind]).contiguous()
        wide[name] = stored[name].to(torch.float32)
    return stored, wide


def changed(config, change):
    config = copy.deepcopy(config)
    for path, value in change.items():
        if path in ("weights", "latent_eps"):
            continue
        parts = path.split(".")
        at = config
        for part in parts[:-1]:
            at = at[part]
        at[parts[-1]] = value
    return config


def changed_weights(wide, change):
    if "weights" not in change:
        return wide
    pattern, value = change["weights"]
    hit = [name for name in wide if pattern in name]
    assert hit, f"no tensor is named like {pattern}"
    out = dict(wide)
    for name in hit:
        out[name] = torch.ones_like(wide[name]) if value == "ones" else wide[name] * value
    return out


def load(fixture, wide, change=None):
    """The reference model for the fixture, `change` applied."""
    change = change or {}
    config = changed(fixture["config"], change)
    config.pop("quantization_config", None)
    config.pop("auto_map", None)
    config["model_type"] = fixture.get("reference_type", config["model_type"])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        save_file(changed_weights(wide, change), Path(folder) / "model.safetensors")
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager",
            experts_implementation="eager", output_loading_info=True)
    n_layer = config["num_hidden_layers"]
    extra = [k for k in info["unexpected_keys"] if f"layers.{n_layer}." not in k]
    assert not info["missing_keys"] and not extra and not info["mismatched_keys"], info
    if "latent_eps" in change:
        for name, module in model.named_modules():
            if name.endswith(("q_a_layernorm", "kv_a_layernorm")):
                module.variance_epsilon = change["latent_eps"]
    return model.eval()


class RouterMargin:
    """Smallest distance, over all tokens and layers seen, between what a router took and left."""

    def __init__(self, model, config):
        self.config, self.smallest, self.used, self.n_expert = config, float("inf"), set(), 0
        for i, layer in enumerate(model.model.layers):
            gate = getattr(layer.mlp, "gate", None)
            if gate is not None:
                self.n_expert += gate.num_experts
                gate.register_forward_hook(lambda m, _, out, i=i: self.see(i, m, out))

    def see(self, i_layer, gate, out):
        logits, _, chosen = out
        c = self.config
        if c["model_type"] in ("deepseek_v2", "qwen3_moe"):
            scores = logits.softmax(-1)
        else:
            scores = logits.sigmoid() + gate.e_score_correction_bias
        if c.get("n_group", 1) > 1 and c["topk_method"] != "greedy":
            grouped = scores.view(len(scores), c["n_group"], -1)
            if c["topk_method"] == "noaux_tc":
                value = grouped.topk(2, -1).values.sum(-1)
            else:
                value = grouped.max(-1).values
            self.gap(value, c["topk_group"])
            kept = torch.zeros_like(value).scatter(1, value.topk(c["topk_group"]).indices, 1.0)
            scores = grouped.masked_fill(kept.unsqueeze(-1) == 0, -torch.inf).flatten(1)
        self.gap(scores, chosen.shape[-1])
        self.used.update((i_layer, e) for e in chosen.flatten().tolist())

    def share(self):
        return len(self.used) / self.n_expert if self.n_expert else 1.0

    def gap(self, value, k):
        if k < value.shape[-1]:
            best = value.detach().topk(k + 1, -1).values
            self.smallest = min(self.smallest, float((best[:, k - 1] - best[:, k]).min()))


@torch.no_grad()
def all_logits(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()


@torch.no_grad()
def greedy(model, prompt):
    """The continuation, token by token with a cache, and the smallest gap of its arg max."""
    ids, gap, out, past = list(prompt), float("inf"), None, None
    feed = ids
    for _ in range(N_GREEDY):
        out = model(torch.tensor([feed]), past_key_values=past, use_cache=True)
        past = out.past_key_values
        last = out.logits[0, -1]
        best = last.topk(2).values
        gap = min(gap, float((best[0] - best[1]) / last.abs().max()))
        ids.append(int(last.argmax()))
        feed = ids[-1:]
    whole = all_logits(model, ids[:-1])[len(prompt) - 1:]
    assert whole.argmax(-1).tolist() == ids[len(prompt):], "cached and uncached decoding differ"
    return ids[len(prompt):], gap


def relative(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())


def fair(name, fixture, seed):
    """Everything the fixture is made of, or None if this seed makes a poor test."""
    state = np.random.RandomState(zlib.crc32(f"{name}/{seed}/ids".encode()))
    ids = state.randint(0, tiny_tokenizer.SIZE, N_IDS).tolist()
    prompt = state.randint(3, tiny_tokenizer.SIZE, N_PROMPT).tolist()
    stored, wide = make_weights(name, fixture, seed)
    model = load(fixture, wide)
    margin = RouterMargin(model, fixture["config"])
    logits = all_logits(model, ids)
    following, gap = greedy(model, prompt)
    if gap < MIN_GAP or margin.smallest < MIN_MARGIN or margin.share() < MIN_USED:
        return None
    model.set_attn_implementation("sdpa")
    other = all_logits(model, ids)
    effects = {}
    for what, change in fixture["without"].items():
        effects[what] = relative(all_logits(load(fixture, wide, change), ids), logits)
        if effects[what] < MIN_EFFECT:
            print(f"{name}: seed {seed}: {what} moves the logits by {effects[what]:.1e} only")
            return None
    return {
        "stored": stored, "ids": ids, "prompt": prompt, "logits": logits, "greedy": following,
        "summary": {
            "seed": seed, "gap": gap, "margin": margin.smallest if margin.n_expert else None,
            "experts": margin.share(),
            "rounding": relative(other, logits), "max_logit": float(np.abs(logits).max()),
            "distinct": len(set(following)), "effects": effects,
        },
    }


def write_config(folder, fixture):
    config = fixture["config"]
    if fixture["form"] == "published":
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        return
    known = {k: v for k, v in config.items() if k not in (
        "architectures", "auto_map", "model_type", "torch_dtype", "transformers_version",
        "scoring_func", "seq_aux", "aux_loss_alpha", "moe_layer_freq", "ep_size")}
    if config["model_type"] == "deepseek_v3":
        known.pop("topk_method")
    made = AutoConfig.for_model(config["model_type"], **known)
    made.architectures = config["architectures"]
    made.dtype = TORCH_TYPE[fixture["dtype"]]
    made.save_pretrained(folder)


def write_weights(folder, stored, n_shard):
    if n_shard == 1:
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(stored)
    per = -(-len(names) // n_shard)
    index = {}
    for i in range(n_shard):
        part = f"model-{i + 1:05d}-of-{n_shard:05d}.safetensors"
        mine = {name: stored[name] for name in names[i * per:(i + 1) * per]}
        save_file(mine, folder / part, metadata={"format": "pt"})
        index.update(dict.fromkeys(mine, part))
    size = sum(t.numel() * t.element_size() for t in stored.values())
    text = json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=1)
    (folder / "model.safetensors.index.json").write_text(text + "\n")


def write(name, fixture, made, tokenizer):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_config(folder, fixture)
    write_weights(folder, made["stored"], fixture["shards"])
    tiny_tokenizer.write(tokenizer, folder, fixture["template"])
    generation = {
        "_from_model_config": True, "bos_token_id": 0, "do_sample": True, "eos_token_id": 1,
        "temperature": 0.6, "top_p": 0.95, "transformers_version": "4.46.3",
        **fixture.get("generation", {}),
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for file, ids in (("ids", "ids"), ("prompt", "prompt"), ("greedy", "greedy")):
        rows = [made[ids][i:i + 16] for i in range(0, len(made[ids]), 16)]
        text = "\n".join(" ".join(map(str, row)) for row in rows)
        (folder / f"{file}.txt").write_text(text + "\n")
    np.save(folder / "logits.npy", made["logits"].astype(np.float32))
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)
    text = json.dumps(made["summary"], indent=1)
    (folder / "made.json").write_text(text + "\n")


def readme():
    lines = [
        "# Model fixtures", "",
        "Tiny random models, one folder each, made by `tools/ref/make_models.py` with",
        f"transformers {transformers.__version__} and torch {torch.__version__.split('+')[0]};"
        " formats in `../README.md`.", "",
        "- gap: smallest (best - second) / max|logit| over the 128 greedy steps",
        "- margin: smallest distance between a chosen and a left-out expert or group, over all"
        " positions, layers and steps",
        "- rounding: max|difference| / max|logit| between transformers' own eager and sdpa"
        " attention: the noise floor", "",
        "llama.cpp (llama-cpp-python 0.3.36), given the same weights in F32 as GGUF, agrees with these",
        "logits to 1e-5 of max|logit|, but for", "",
        "- deepseek_v2_group: it chooses groups by V3's rule (sum of the two best, others to minus"
        " infinity) for softmax models too;",
        "- glm4_moe_lite: it uses the model's eps for the latent norms too;",
        "- kimi_k2: it does not read `rope.scaling.yarn_beta_fast` and `_slow` for `deepseek2` (told them"
        " by hand, it agrees).", "",
        "The first two were checked in transformers: with llama.cpp's rule it gives llama.cpp's logits.", "",
    ]
    for name, fixture in fixtures.FIXTURES.items():
        path = ROOT / name / "made.json"
        if not path.exists():
            continue
        s = json.loads(path.read_text())
        size = sum(f.stat().st_size for f in (ROOT / name).iterdir()) // 1024
        margin = f"{s['margin']:.1e}" if s["margin"] else "-"
        experts = f" {s['experts']:.0%} of the experts used," if s["margin"] else ""
        lines += [
            f"## {name}", "", fixture["about"] + ".", "",
            f"- {fixture['dtype']}, {fixture['shards']} file(s), {size} KiB, config as"
            f" {'published' if fixture['form'] == 'published' else 'transformers 5 writes it'},"
            f" template {fixture['template']}, seed {s['seed']}",
            f"- gap {s['gap']:.1e}, margin {margin},{experts} rounding {s['rounding']:.1e},"
            f" max|logit| {s['max_logit']:.1f}, {s['distinct']} distinct greedy ids",
            "- without " + ", ".join(f"{k}: {v:.2g}" for k, v in s["effects"].items()), "",
        ]
    (ROOT / "README.md").write_text("\n".join(lines))


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer = tiny_tokenizer.build()
    for name in sys.argv[1:] or list(fixtures.FIXTURES):
        fixture = fixtures.FIXTURES[name]
        for seed in range(200):
            made = fair(name, fixture, seed)
            if made:
                write(name, fixture, made, tokenizer)
                print(f"{name}: seed {seed}: {made['summary']}", flush=True)
                break
        else:
            sys.exit(f"{name}: no seed makes a fair test")
    readme()


if __name__ == "__main__":
    main()
