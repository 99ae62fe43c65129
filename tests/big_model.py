"""A llama with little in it: some 100 MB, so that work on it can be interrupted, or less."""
import json
import os
import shutil
import struct

import program

VOCAB, WIDTH, LAYERS, HEADS = 8192, 1024, 3, 8


def shapes(vocab, width):
    ffn = 4 * width
    yield "model.embed_tokens.weight", (vocab, width)
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        for name in "qkvo":
            yield f"{layer}.self_attn.{name}_proj.weight", (width, width)
        yield f"{layer}.mlp.gate_proj.weight", (ffn, width)
        yield f"{layer}.mlp.up_proj.weight", (ffn, width)
        yield f"{layer}.mlp.down_proj.weight", (width, ffn)
        yield f"{layer}.input_layernorm.weight", (width,)
        yield f"{layer}.post_attention_layernorm.weight", (width,)
    yield "model.norm.weight", (width,)


def write_big_model(folder, vocab=VOCAB, width=WIDTH):
    os.mkdir(folder)
    small = program.model("llama_tied")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(small, name), folder)
    config = json.loads(program.read(small, "config.json"))
    config.update(vocab_size=vocab, hidden_size=width, intermediate_size=4 * width,
                  num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS,
                  tie_word_embeddings=True)
    config.pop("head_dim", None)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    header, offset = {}, 0
    for name, shape in shapes(vocab, width):
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    values = b"".join(struct.pack("<e", (i * 7919 % 2003 - 1001) / 10000) for i in range(4096))
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(offset // len(values)):
            file.write(values)
        file.write(values[:offset % len(values)])
