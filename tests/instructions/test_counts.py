"""How many instructions the hot paths take, so that a change that makes them slower is seen on a
machine that is too busy to time anything.

    test_counts.py            compares with counts.json: more or less than 2 % is a failure
    test_counts.py --update   writes counts.json (`make counts` builds and does that)

A small model with experts, in each of the hot number types, decodes tokens and reads a prompt with
kernels of the level avx2 (valgrind knows no AVX-512) and one thread under callgrind, which counts
inside du_infer_step. Counts depend on the compiler, so they are compared only with those that the
same compiler made.
"""
import glob
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import gguf_file
import program
import tap

COUNTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "counts.json")
TOLERANCE = 0.02
N_PROMPT = 48
TYPES = ("Q4_K_M", "Q8_0", "Q6_K", "Q4_0", "IQ4_XS", "Q2_K", "IQ2_XXS")
# IQ2_XXS is not written by `dure quantize`: matrices of this type are made of bytes at random.
IQ2_XXS, IQ2_XXS_BYTES, Q4_0 = 16, 66, 2

CONFIG = {"hidden_size": 512, "intermediate_size": 1024, "moe_intermediate_size": 256,
          "kv_lora_rank": 256, "n_routed_experts": 16, "num_experts_per_tok": 4,
          "num_attention_heads": 4, "num_key_value_heads": 4, "qk_nope_head_dim": 64,
          "qk_rope_head_dim": 32, "v_head_dim": 64}


def shapes(c):
    """Name and shape of each tensor of the model."""
    d, rank, heads = c["hidden_size"], c["kv_lora_rank"], c["num_attention_heads"]
    nope, rope, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]

    def mlp(prefix, ffn):
        for name, shape in (("gate", (ffn, d)), ("up", (ffn, d)), ("down", (d, ffn))):
            yield f"{prefix}.{name}_proj.weight", shape

    yield "model.embed_tokens.weight", (c["vocab_size"], d)
    yield "lm_head.weight", (c["vocab_size"], d)
    yield "model.norm.weight", (d,)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        yield f"{layer}.input_layernorm.weight", (d,)
        yield f"{layer}.post_attention_layernorm.weight", (d,)
        yield f"{layer}.self_attn.q_proj.weight", (heads * (nope + rope), d)
        yield f"{layer}.self_attn.kv_a_proj_with_mqa.weight", (rank + rope, d)
        yield f"{layer}.self_attn.kv_a_layernorm.weight", (rank,)
        yield f"{layer}.self_attn.kv_b_proj.weight", (heads * (nope + v), rank)
        yield f"{layer}.self_attn.o_proj.weight", (d, heads * v)
        if i < c["first_k_dense_replace"]:
            yield from mlp(f"{layer}.mlp", c["intermediate_size"])
            continue
        yield f"{layer}.mlp.gate.weight", (c["n_routed_experts"], d)
        yield from mlp(f"{layer}.mlp.shared_experts",
                       c["moe_intermediate_size"] * c["n_shared_experts"])
        for e in range(c["n_routed_experts"]):
            yield from mlp(f"{layer}.mlp.experts.{e}", c["moe_intermediate_size"])


def write_model(folder):
    """The model as safetensors in F16, every value from the same generator."""
    os.mkdir(folder)
    small = program.model("deepseek_v2_lite")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(small, name), folder)
    config = {**json.loads(program.read(small, "config.json")), **CONFIG}
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    rng, header, data = random.Random(1), {}, bytearray()
    table = [struct.pack("<e", rng.gauss(0, 0.05)) for _ in range(1 << 12)]
    for name, shape in shapes(config):
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        begin = len(data)
        if len(shape) == 1:
            data += struct.pack("<e", 1) * n
        else:
            data += b"".join(rng.choices(table, k=n))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def to_iq2_xxs(source, target):
    """Replaces the Q4_0 matrices of a GGUF file by random IQ2_XXS ones."""
    with open(source, "rb") as file:
        g = gguf_file.parse(file.read())
    rng, data, bounds = random.Random(2), bytearray(), {}
    offsets = sorted(t.offset for t in g.tensors.values()) + [len(g.data)]
    for name, t in g.tensors.items():
        bounds[name] = g.data[t.offset:offsets[offsets.index(t.offset) + 1]]
    for name, t in g.tensors.items():
        old, t.offset = bounds[name], len(data)
        if t.type == Q4_0 and t.dims[0] % 256 == 0:
            t.type, n = IQ2_XXS, 1
            for dim in t.dims:
                n *= dim
            blocks = bytearray(rng.randbytes(n // 256 * IQ2_XXS_BYTES))
            for at in range(0, len(blocks), IQ2_XXS_BYTES):
                blocks[at:at + 2] = struct.pack("<e", 0.01)
            old = bytes(blocks)
        data += old + bytes(-len(old) % gguf_file.ALIGNMENT)
    g.data = bytes(data)
    with open(target, "wb") as file:
        file.write(g.join())


def compiler():
    """The compiler and the kind of build that the counts depend on."""
    cache = program.read(os.environ["DURE_BUILD_DIR"], "CMakeCache.txt")
    values = dict(re.findall(r"^(\w+):\w+=(.*)$", cache, re.MULTILINE))
    name = subprocess.run([values["CMAKE_C_COMPILER"], "--version"], capture_output=True, text=True,
                          check=True).stdout.splitlines()[0]
    return f"{name}, {values['CMAKE_BUILD_TYPE']}{values.get('DURE_SANITIZE', '')}"


def why_not():
    """Why nothing can be counted here; None when it can."""
    if not shutil.which("valgrind"):
        return "valgrind is not installed"
    if "avx2" not in program.run("version", "--json").json["isa"]:
        return "this machine has no AVX2"
    if not compiler().endswith("Release"):
        return f"counts are those of release builds, this is {compiler()}"
    return None


def count_step(model, folder, chunk, i_step):
    """Instructions of one step of a prompt given in chunks."""
    for old in glob.glob(os.path.join(folder, "parts*")):
        os.remove(old)
    words = ["valgrind", "--tool=callgrind", "--toggle-collect=du_infer_step",
             "--dump-after=du_infer_step", f"--callgrind-out-file={folder}/parts", program.DURE,
             "logits", model, "--tokens-file", os.path.join(folder, "ids"), "-o",
             os.path.join(folder, "out.npy"), "--chunk", str(chunk), "--isa", "avx2", "--threads",
             "1", "-c", "64"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}\n{done.stderr}")
    total = re.search(r"^(?:summary|totals): (\d+)", program.read(folder, f"parts.{i_step + 1}"),
                      re.MULTILINE)
    return int(total.group(1))


def count(model, folder):
    """(instructions of reading the prompt, of decoding the token after it). The token is that of
    a prompt given one by one: behind one given at once it still repacks what that did not use."""
    with open(os.path.join(folder, "ids"), "w", encoding="ascii") as file:
        file.write(" ".join(str(3 + i * 7 % 300) for i in range(N_PROMPT + 1)))
    return count_step(model, folder, N_PROMPT, 0), count_step(model, folder, 1, N_PROMPT)


def count_all():
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "model")
        write_model(source)
        for name in TYPES:
            path = os.path.join(folder, f"{name}.gguf")
            if name == "IQ2_XXS":
                to_iq2_xxs(os.path.join(folder, "Q4_0.gguf"), path)
            else:
                program.run("quantize", source, path, "--type", name)
            found[f"{name} prefill"], found[f"{name} decode"] = count(path, folder)
    return found


class Counts(unittest.TestCase):
    def test_hot_paths(self):
        reason = why_not()
        if reason:
            self.skipTest(reason)
        with open(COUNTS, encoding="utf-8") as file:
            known = json.load(file)
        if known["compiler"] != compiler():
            self.skipTest(f"counts.json is of {known['compiler']}, this is {compiler()}")
        found, wrong = count_all(), []
        for name, n in found.items():
            before = known["instructions"].get(name, 0)
            if abs(n - before) > TOLERANCE * before:
                change = f"{100 * (n / before - 1):+.1f} %" if before else "not known"
                wrong.append(f"{name}: {n} instructions, {before} expected: {change}")
        self.assertEqual(set(known["instructions"]), set(found))
        if wrong:
            self.fail("\n".join(wrong) + "\nwhere that is meant: make counts")


def update():
    reason = why_not()
    if reason:
        sys.exit(f"nothing counted: {reason}")
    with open(COUNTS, "w", encoding="utf-8") as file:
        json.dump({"compiler": compiler(), "instructions": count_all()}, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    update() if "--update" in sys.argv[1:] else tap.main()
