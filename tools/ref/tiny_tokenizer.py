"""The one small tokenizer that every model fixture carries: byte-level BPE with the pre-tokenizer,
special tokens and file layout of DeepSeek-V3, 312 ids. The models' vocabulary is 320, so that a
few ids have no token, as in the released models."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, processors, trainers
from tokenizers import pre_tokenizers as pre

import corpus

SIZE = 312
BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
ADDED = ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]

# The three passes of DeepSeek-V3's tokenizer.json.
V3_PASSES = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]

# A chat template in the manner of DeepSeek-R1's, shortened: system text, turns, thoughts left out of
# the history, an open <think> at the end of the generation prompt.
CHAT_TEMPLATE = """\
{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif -%}
{{ bos_token }}
{%- for message in messages if message['role'] == 'system' %}{{ message['content'] }}{% endfor -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {{ '<｜User｜>' + message['content'] }}
  {%- elif message['role'] == 'assistant' -%}
    {%- set content = message['content'] -%}
    {%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif -%}
    {{ '<｜Assistant｜>' + content + eos_token }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif -%}
"""


def unmerged(vocab):
    """Byte-level BPE with V3's passes, no merges, and {token: id}."""
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    splits = [pre.Split(Regex(p), "isolated") for p in V3_PASSES]
    tok.pre_tokenizer = pre.Sequence(splits + [pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def build():
    tok = unmerged({})
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(ADDED),
        special_tokens=[AddedToken(t, normalized=False, special=True) for t in (BOS, EOS, PAD)],
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        show_progress=False,
    )
    tok.train_from_iterator(corpus.lines(), trainer)
    tok.add_tokens([AddedToken(t, normalized=True, special=False) for t in ADDED])
    assert tok.get_vocab_size() == SIZE
    return tok


def write_stand_in(folder, n_vocab):
    """A tokenizer.json of n_vocab tokens for a model that was trained on bare numbers."""
    alphabet = sorted(pre.ByteLevel.alphabet())
    tokens = [alphabet[i] if i < len(alphabet) else f"token{i}" for i in range(n_vocab)]
    tok = unmerged({token: i for i, token in enumerate(tokens)})
    (Path(folder) / "tokenizer.json").write_text(tok.to_str())


def _added(content):
    return {
        "__type": "AddedToken", "content": content, "lstrip": False,
        "normalized": True, "rstrip": False, "single_word": False,
    }


def write(tok, folder, template_as):
    """Writes tokenizer.json and tokenizer_config.json; the chat template goes inline, into a list of
    named templates, or into chat_template.jinja: the three ways that Hugging Face directories have."""
    folder = Path(folder)
    data = json.loads(tok.to_str())
    data["normalizer"] = {"type": "Sequence", "normalizers": []}  # as published
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    config = {
        "add_bos_token": True, "add_eos_token": False,
        "bos_token": _added(BOS), "clean_up_tokenization_spaces": False,
        "eos_token": _added(EOS), "legacy": True, "model_max_length": 16384,
        "pad_token": _added(PAD), "sp_model_kwargs": {}, "unk_token": None,
        "tokenizer_class": "LlamaTokenizerFast",
    }
    if template_as == "inline":
        config["chat_template"] = CHAT_TEMPLATE
    elif template_as == "list":
        tool_use = "{{ raise_exception('this is the tool_use template') }}"
        config["chat_template"] = [
            {"name": "tool_use", "template": tool_use},
            {"name": "default", "template": CHAT_TEMPLATE},
        ]
    elif template_as == "file":
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    text = json.dumps(config, ensure_ascii=False, indent=2)
    (folder / "tokenizer_config.json").write_text(text + "\n")
