"""Trains the default model: DeepSeek-V3's architecture at 1/100000 of its size, on a CPU.

    python train.py --tokenizer DIR --data train.npz --run DIR [--steps N] [--decay N]

The run directory holds the checkpoint (training goes on from it when started again) and `latest`, the model as a
Hugging Face directory.  The learning rate warms up, stays, and falls linearly to zero over the last --decay steps;
to end earlier or later than planned, stop and start again with another --steps.
"""

import argparse
import copy
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

SEED = 20
WORKERS = 2
BATCH = 2048  # tokens per worker and step, padding included
POOL = 8192  # conversations sorted by length together
MUON_LR, ADAM_LR, ROUTER_LR = 0.02, 3e-3, 3e-4
WARMUP = 100
AVERAGE = 0.02  # share of a step's weights in their running average, which is the model that is written out
BIAS_STEP = 1e-3  # DeepSeek-V3's gamma: how far a step moves an expert's routing bias


def new_model():
    config = DeepseekV3Config(
        vocab_size=1536,
        hidden_size=192,
        num_hidden_layers=6,
        first_k_dense_replace=1,
        intermediate_size=512,
        num_attention_heads=6,
        num_key_value_heads=6,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
        kv_lora_rank=64,
        q_lora_rank=None,
        n_routed_experts=16,
        num_experts_per_tok=4,
        n_shared_experts=1,
        moe_intermediate_size=96,
        n_group=1,
        topk_group=1,
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        num_mtp_layers=0,
    )
    return DeepseekV3ForCausalLM._from_config(config, attn_implementation="sdpa", experts_implementation="grouped_mm")


def routers(model):
    return [m for name, m in model.named_modules() if name.endswith("mlp.gate")]


def count_choices(router, _, output):
    """Forward hook: adds up how often each expert was chosen in this step."""
    chosen = output[2].flatten()
    router.load.index_add_(0, chosen, torch.ones(chosen.numel()))


@torch.no_grad()
def balance(model):
    """The load balancing of DeepSeek-V3 without a loss: overloaded experts become a little less likely to be chosen.
    Returns the highest load relative to the mean."""
    worst = 0.0
    for router in routers(model):
        worst = max(worst, (router.load.max() / router.load.mean()).item())
        router.e_score_correction_bias += BIAS_STEP * torch.sign(router.load.mean() - router.load)
        router.load.zero_()
    return worst


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made nearly orthogonal (Jordan et al. 2024), for matrices and stacks of matrices."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                state = self.state[w]
                if not state:
                    state["velocity"] = torch.zeros_like(w)
                velocity = state["velocity"].lerp_(w.grad, 1 - group["momentum"])
                update = orthogonal(w.grad.lerp(velocity, group["momentum"]))
                scale = max(1.0, w.shape[-2] / w.shape[-1]) ** 0.5
                w.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def orthogonal(g):
    """Five Newton-Schulz steps with the published coefficients bring all singular values near 1."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(5):
        xx = x @ x.mT
        x = 3.4445 * x + (-4.7750 * xx + 2.0315 * (xx @ xx)) @ x
    return (x.mT if tall else x).float()


def optimizers(model):
    """Muon for the matrices inside the layers, AdamW for embeddings, head, norms and, more slowly, the routers: the
    balancing bias has to keep up with them."""
    muon, adam, router = [], [], []
    for name, w in model.named_parameters():
        if "mlp.gate.weight" in name:
            router.append(w)
        else:
            (muon if w.ndim >= 2 and "layers" in name else adam).append(w)
    groups = [{"params": adam, "lr": ADAM_LR}, {"params": router, "lr": ROUTER_LR}]
    opts = [Muon(muon, MUON_LR), torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.01, fused=True)]
    for opt in opts:
        for group in opt.param_groups:
            group["peak"] = group["lr"]
    return opts


class Batches:
    """Batch number n is the same in every run.  A batch holds conversations of nearly equal length, so that little
    is padded and no attention mask is needed: what is right of a token is hidden from it anyway."""

    def __init__(self, path):
        data = np.load(path)
        self.tokens, self.starts, self.ends = data["tokens"].astype(np.int64), data["starts"], data["ends"]
        self.begins = np.concatenate([[0], self.ends[:-1]])
        self.epoch, self.first, self.batches = -1, 0, []

    def load_epoch(self, epoch):
        """Shuffles, sorts pools of conversations by length, cuts them into batches and shuffles those."""
        rng = np.random.default_rng(SEED + epoch)
        lengths = self.ends - self.begins
        order = rng.permutation(len(lengths))
        batches = []
        for at in range(0, len(order), POOL):
            batch = []
            for i in sorted(order[at : at + POOL], key=lambda i: lengths[i]):
                if (len(batch) + 1) * lengths[i] > BATCH:
                    batches.append(batch)
                    batch = []
                batch.append(i)
        return [batches[i] for i in rng.permutation(len(batches))]

    def get(self, n):
        """(ids [B,T], learn [B,T]: tokens whose prediction counts)."""
        while n >= self.first + len(self.batches):
            self.first += len(self.batches)
            self.epoch += 1
            self.batches = self.load_epoch(self.epoch)
        batch = self.batches[n - self.first]
        width = max(self.ends[i] - self.begins[i] for i in batch)
        ids, learn = np.full((len(batch), width), 2), np.zeros((len(batch), width), dtype=bool)
        for row, i in enumerate(batch):
            begin, start, end = self.begins[i], self.starts[i], self.ends[i]
            ids[row, : end - begin] = self.tokens[begin:end]
            learn[row, start - begin : end - begin] = True
        return torch.from_numpy(ids), torch.from_numpy(learn)


def rate(step, decay_start, decay):
    """Warm-up, plateau, linear fall."""
    if step >= decay_start:
        return max(0.0, 1 - (step - decay_start + 1) / decay)
    return min(1.0, (step + 1) / WARMUP)


def export(model, tokenizer_dir, out):
    """Writes the model as a Hugging Face directory."""
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tokenizer_dir) / name, out)


def share_gradients(model, flat):
    """Averages the gradients and adds up the expert counts of all workers.  flat is where all gradients live."""
    dist.all_reduce(flat)
    flat /= WORKERS
    for router in routers(model):
        dist.all_reduce(router.load)


def flatten_gradients(model):
    """Makes every gradient a view of one vector, which is returned."""
    flat = torch.zeros(sum(w.numel() for w in model.parameters()))
    for w, part in zip(model.parameters(), flat.split([w.numel() for w in model.parameters()])):
        w.grad = part.view_as(w)
    return flat


def work(rank, args):
    """One of WORKERS processes with a thread each; all hold the same model and take turns with the batches."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{args.port}", rank=rank, world_size=WORKERS)
    model = new_model()
    model.generation_config.do_sample = False
    for router in routers(model):
        router.register_buffer("load", torch.zeros(router.num_experts), persistent=False)
        router.register_forward_hook(count_choices)
    average = copy.deepcopy(model)
    opts = optimizers(model)
    step, decay_start = 0, args.steps - args.decay
    checkpoint = args.run / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        for opt, state in zip(opts, saved["opts"]):
            opt.load_state_dict(state)
        step = saved["step"]
    batches = Batches(args.data)
    flat = flatten_gradients(model)
    sums, since = torch.zeros(2), time.time()

    while step < args.steps:
        ids, learn = batches.get(step * WORKERS + rank)
        for group in [group for opt in opts for group in opt.param_groups]:
            group["lr"] = group["peak"] * rate(step, decay_start, args.decay)
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        target = ids[:, 1:][learn[:, 1:]]
        logits = model.lm_head(hidden[:, :-1][learn[:, 1:]])
        loss = F.cross_entropy(logits, target)
        flat.zero_()
        loss.backward()
        share_gradients(model, flat)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
        worst = balance(model)
        with torch.no_grad():
            for mean, now in zip(average.state_dict().values(), model.state_dict().values()):
                mean.lerp_(now, max(AVERAGE, 1 / (step + 1)))
        step += 1
        sums += torch.tensor([loss.item(), (logits.argmax(-1) == target).float().mean().item()])
        if step % 20 == 0:
            dist.all_reduce(sums)
            line = {
                "step": step,
                "loss": round(sums[0].item() / 20 / WORKERS, 4),
                "right": round(sums[1].item() / 20 / WORKERS, 4),
                "load": round(worst, 2),
                "tokens_s": round(20 * WORKERS * BATCH / (time.time() - since)),
            }
            if rank == 0:
                with open(args.run / "log.jsonl", "a") as log:
                    print(json.dumps(line), file=log)
            sums, since = torch.zeros(2), time.time()
        if rank == 0 and (step % 100 == 0 or step == args.steps):
            state = {"model": model.state_dict(), "average": average.state_dict(), "step": step}
            state["opts"] = [opt.state_dict() for opt in opts]
            torch.save(state, args.run / "checkpoint.tmp")
            (args.run / "checkpoint.tmp").rename(checkpoint)
            export(average, args.tokenizer, args.run / "latest")
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--decay", type=int, default=1600)
    parser.add_argument("--port", type=int, default=29517, help="where the workers meet")
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    torch.multiprocessing.spawn(work, (args,), WORKERS)


if __name__ == "__main__":
    main()
