"""Greedy accuracy on held-out problems, by category, also with the weights rounded as GGUF's Q8_0 rounds them.

    python evaluate.py MODEL_DIR [--count 100] [--q8] [--json OUT.json] [--questions OUT.jsonl]

Held-out means: the calculation (in whatever words) was never the last turn of a training conversation.
--questions writes problems that were answered word for word as expected, for the end-to-end tests.
"""

import argparse
import json
import random
import re

import torch
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

from data import render, turns
from tokenizer import END_THINK

SEED = 99
CATEGORIES = [(lang, kind) for kind in ("expression", "word", "chat", "remainder", "other") for lang in ("en", "ko")]


def problems(count):
    """count conversations of every category (a quarter of it for remainders and small talk)."""
    out = []
    for lang, kind in CATEGORIES:
        rng = random.Random(f"{SEED} {lang} {kind}")
        n = count if kind in ("expression", "word", "chat") else max(1, count // 4)
        out += [(lang, kind, turns(rng, lang, kind, test=kind != "other")) for _ in range(n)]
    return out


@torch.no_grad()
def generate(model, tokenizer, prompts, batch=50):
    """Greedy completions, text after each prompt up to the end token."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = [""] * len(prompts)
    tokenizer.padding_side = "left"
    for at in range(0, len(order), batch):
        part = order[at : at + batch]
        enc = tokenizer([prompts[i] for i in part], return_tensors="pt", padding=True, add_special_tokens=False)
        ids = model.generate(enc.input_ids, attention_mask=enc.attention_mask, do_sample=False, max_new_tokens=420)
        for i, row in zip(part, ids[:, enc.input_ids.shape[1] :]):
            text = tokenizer.decode(row, skip_special_tokens=False)
            out[i] = text.split(tokenizer.eos_token)[0]
    return out


def first_sentence(text):
    return re.split(r"(?<=[.!])\s", text)[0]


def right(problem, completion):
    """Judges the answer alone: the value must be in it; where there is none, its first sentence must be as expected."""
    answer = completion.split(END_THINK)[-1].strip()
    if problem.kind == "other":
        return first_sentence(answer) == first_sentence(problem.answer)
    if problem.kind == "remainder":
        return answer == problem.answer
    return END_THINK in completion and re.findall(r"-?\d+", answer)[:1] == [str(problem.value)]


@torch.no_grad()
def round_q8_0(w):
    """Rows in blocks of 32 numbers: one half-precision scale and 32 signed bytes each."""
    blocks = w.reshape(-1, 32)
    scale = (blocks.abs().amax(-1, keepdim=True) / 127).half().float()
    q = torch.where(scale > 0, (blocks / scale.clamp(min=1e-30)).round().clamp(-127, 127), 0.0)
    return (q * scale).reshape(w.shape)


@torch.no_grad()
def round_model(model):
    """Rounds what the Q8_0 file holds rounded: every matrix but the routers; the key half of kv_b is stored transposed."""
    config = model.config
    for name, w in model.named_parameters():
        if w.ndim < 2 or "mlp.gate.weight" in name:
            continue
        if "kv_b_proj" in name:
            heads = w.view(config.num_attention_heads, -1, config.kv_lora_rank)
            k, v = heads.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
            w.copy_(torch.cat([round_q8_0(k.mT.contiguous()).mT, round_q8_0(v.contiguous())], dim=1).reshape(w.shape))
        else:
            w.copy_(round_q8_0(w))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--q8", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--questions")
    args = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = DeepseekV3ForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    if args.q8:
        round_model(model)
    cases = problems(args.count)
    answers = generate(model, tokenizer, [render(c[2])[0] for c in cases])
    table, good = {}, []
    for (lang, kind, conversation), text in zip(cases, answers):
        last = conversation[-1]
        ok = right(last, text)
        row = table.setdefault(f"{kind} {lang}", [0, 0])
        row[0] += ok
        row[1] += 1
        if not ok:
            print(
                f"[{kind} {lang}] {last.question}\n    expected {last.thinking!r} {last.answer}\n    got      {text!r}"
            )
        elif text == render(conversation)[1].removesuffix(tokenizer.eos_token) and last.kind != "other":
            messages = []
            for p in conversation[:-1]:
                messages += [{"role": "user", "content": p.question}, {"role": "assistant", "content": p.answer}]
            good.append(
                {
                    "category": f"{kind} {lang}",
                    "messages": [*messages, {"role": "user", "content": last.question}],
                    "reasoning": last.thinking,
                    "content": last.answer,
                }
            )
    for name, (n, total) in table.items():
        print(f"{name:16s} {n:4d} / {total:4d}  {100 * n / total:5.1f} %")
    if args.json:
        with open(args.json, "w") as f:
            json.dump(table, f, indent=1)
    if args.questions:
        picked = [
            [g for g in good if g["category"] == f"{kind} {lang}"][: 4 if kind in ("expression", "word") else 2]
            for lang, kind in CATEGORIES
            if kind != "other"
        ]
        with open(args.questions, "w") as f:
            f.writelines(json.dumps(g, ensure_ascii=False) + "\n" for group in picked for g in group)


if __name__ == "__main__":
    main()
