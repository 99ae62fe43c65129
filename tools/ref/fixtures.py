"""The model fixtures: configurations as published, shapes of their tensors, and what is switched off
one at a time to prove that it matters.

A fixture is one dict:
  config    config.json as the model family publishes it
  form      "published", or "transformers" (then transformers itself writes config.json)
  dtype     number type of the weights: F32, F16, BF16 or FP8 (E4M3 in 128 x 128 blocks)
  shards    number of safetensors files
  template  how the chat template is carried: inline, list or file
  without   {name: change}: each change must move the logits by at least 1% of the largest one;
            keys are config paths ("rope_scaling.mscale_all_dim"), "weights" for a tensor pattern
            that is multiplied by the value, "latent_eps" for the eps of the two latent norms
  about     one line for the README
Optional: mtp (the MTP layer's tensors are present), bias_dtype (of e_score_correction_bias),
generation (more keys for generation_config.json), gain (scale of the experts' down projections),
latent_gain (scale of the projections in front of the latents' norms), reference_type (model_type
that transformers knows the architecture by)."""

VOCAB = 320
YARN = {
    "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 32, "type": "yarn",
}


def deepseek_v2(**change):
    config = {
        "architectures": ["DeepseekV2ForCausalLM"],
        "attention_bias": False, "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_deepseek.DeepseekV2Config",
            "AutoModel": "modeling_deepseek.DeepseekV2Model",
            "AutoModelForCausalLM": "modeling_deepseek.DeepseekV2ForCausalLM",
        },
        "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1,
        "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 64,
        "initializer_range": 0.02, "intermediate_size": 64, "kv_lora_rank": 32,
        "max_position_embeddings": 1280, "model_type": "deepseek_v2",
        "moe_intermediate_size": 32, "moe_layer_freq": 1, "n_group": 1,
        "n_routed_experts": 8, "n_shared_experts": 2, "norm_topk_prob": False,
        "num_attention_heads": 4, "num_experts_per_tok": 3, "num_hidden_layers": 2,
        "num_key_value_heads": 4, "pretraining_tp": 1, "q_lora_rank": None,
        "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "rms_norm_eps": 1e-06,
        "rope_scaling": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707},
        "rope_theta": 10000, "routed_scaling_factor": 1.0, "scoring_func": "softmax",
        "seq_aux": True, "tie_word_embeddings": False, "topk_group": 1, "topk_method": "greedy",
        "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": True,
        "v_head_dim": 32, "vocab_size": VOCAB,
    }
    return {**config, **change}


def deepseek_v3(**change):
    config = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "attention_bias": False, "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_deepseek.DeepseekV3Config",
            "AutoModel": "modeling_deepseek.DeepseekV3Model",
            "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
        },
        "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
        "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 64,
        "initializer_range": 0.02, "intermediate_size": 64, "kv_lora_rank": 32,
        "max_position_embeddings": 1280, "model_type": "deepseek_v3",
        "moe_intermediate_size": 32, "moe_layer_freq": 1, "n_group": 4,
        "n_routed_experts": 16, "n_shared_experts": 1, "norm_topk_prob": True,
        "num_attention_heads": 4, "num_experts_per_tok": 4, "num_hidden_layers": 2,
        "num_key_value_heads": 4, "num_nextn_predict_layers": 1, "pretraining_tp": 1,
        "q_lora_rank": 48, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
        "rms_norm_eps": 1e-06, "rope_scaling": dict(YARN), "rope_theta": 10000,
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "seq_aux": True,
        "tie_word_embeddings": False, "topk_group": 2, "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": True,
        "v_head_dim": 32, "vocab_size": VOCAB,
    }
    return {**config, **change}


def dense(kind, **change):
    """llama, qwen2 and qwen3 share these keys."""
    config = {
        "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM",
                           "qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM"}[kind]],
        "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu",
        "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96,
        "max_position_embeddings": 2048, "model_type": kind, "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "float32",
        "transformers_version": "4.46.3", "use_cache": True, "vocab_size": VOCAB,
    }
    return {**config, **change}


FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
       "weight_block_size": [128, 128]}

NO_SHARED = {"weights": ("shared_experts.down_proj", 0.0)}
NO_EXPERTS = {"weights": ("mlp.experts.", 0.0)}
NO_BIAS = {"weights": ("e_score_correction_bias", 0.0)}
NO_YARN = {"rope_scaling": None}
NO_SOFTMAX_SCALE = {"rope_scaling.mscale_all_dim": 0.001, "rope_scaling.mscale": 0.001}
MLA = {"experts": NO_EXPERTS, "shared experts": NO_SHARED}
YARN_PARTS = {"YaRN": NO_YARN, "YaRN's softmax scale": NO_SOFTMAX_SCALE}
V3_ROUTER = {
    "correction bias": NO_BIAS, "groups": {"n_group": 1, "topk_group": 1},
    "norm_topk_prob": {"norm_topk_prob": False}, "routed scaling": {"routed_scaling_factor": 1.0},
}

FIXTURES = {
    "deepseek_v2_lite": {
        "about": "V2-Lite: no q_lora, softmax, greedy top-k, two shared experts, YaRN with mscale "
                 "0.707 twice",
        "config": deepseek_v2(), "form": "published", "dtype": "F32",
        "shards": 1, "template": "inline", "without": {**MLA, **YARN_PARTS},
    },
    "deepseek_v2_qlora": {
        "about": "V2 with q_lora, nope 32 and v 64 apart, YaRN with factor 16 and mscale 1.2 twice",
        "config": deepseek_v2(
            q_lora_rank=48, v_head_dim=64, n_routed_experts=8, routed_scaling_factor=1.5,
            rope_scaling={**YARN, "factor": 16, "mscale": 1.2, "mscale_all_dim": 1.2}),
        "form": "transformers", "dtype": "F16", "shards": 1, "template": "file",
        "without": {**MLA, **YARN_PARTS, "routed scaling": {"routed_scaling_factor": 1.0}},
    },
    "deepseek_v2_group": {
        "about": "V2 236B: q_lora, group_limited_greedy (8 groups, 3 kept), routed_scaling 16; "
                 "norm_topk_prob false as released",
        "config": deepseek_v2(
            q_lora_rank=48, n_group=8, topk_group=3, topk_method="group_limited_greedy",
            n_routed_experts=16, num_experts_per_tok=4, routed_scaling_factor=16.0),
        "form": "published", "dtype": "F16", "shards": 2, "template": "list", "gain": 0.1,
        "without": {**MLA, **YARN_PARTS, "group limit": {"topk_method": "greedy"},
                    "routed scaling": {"routed_scaling_factor": 1.0}},
    },
    "deepseek_v3_yarn": {
        "about": "V3: sigmoid with correction bias, 4 groups keep 2, norm_topk_prob, routed_scaling "
                 "2.5, YaRN; num_nextn_predict_layers 1 and no MTP weights; two shards",
        "config": deepseek_v3(), "form": "published", "dtype": "F32",
        "shards": 2, "template": "inline", "without": {**MLA, **YARN_PARTS, **V3_ROUTER},
    },
    "deepseek_v3_noqlora": {
        "about": "V3 without q_lora and without YaRN, config as transformers 5 writes it, nope 32 "
                 "and v 48 apart, several end tokens and a repetition penalty in generation_config",
        "config": deepseek_v3(q_lora_rank=None, v_head_dim=48, n_routed_experts=8, n_group=2,
                              topk_group=1, num_experts_per_tok=2, rope_scaling=None),
        "form": "transformers", "dtype": "F16", "shards": 1, "template": "file",
        "generation": {"eos_token_id": [1, 311], "repetition_penalty": 1.3},
        "without": {**MLA, **V3_ROUTER},
    },
    "deepseek_v3_yarn_nomscale": {
        "about": "V3 with YaRN that names neither mscale nor mscale_all_dim nor the betas: cos and "
                 "sin are multiplied by 0.1 ln(factor) + 1 and the softmax scale stays",
        "config": deepseek_v3(
            n_routed_experts=8, n_group=2, topk_group=1, num_experts_per_tok=2,
            num_nextn_predict_layers=0,
            rope_scaling={"factor": 40.0, "original_max_position_embeddings": 32,
                          "rope_type": "yarn"}),
        "form": "published", "dtype": "F16", "shards": 1, "template": "inline",
        "without": {**MLA, "YaRN": NO_YARN, "scaled cos and sin":
                    {"rope_scaling.attention_factor": 1.0}, **V3_ROUTER},
    },
    "deepseek_v3_mtp": {
        "about": "V3 with the MTP layer's weights present (model.layers.2.*), which plain inference "
                 "leaves out",
        "config": deepseek_v3(n_routed_experts=8, n_group=2, topk_group=1,
                              num_experts_per_tok=2),
        "form": "published", "dtype": "BF16", "shards": 1, "template": "inline", "mtp": True,
        "without": {**MLA, **YARN_PARTS, **V3_ROUTER},
    },
    "deepseek_v3_fp8": {
        "about": "V3 in FP8 E4M3 with 128 x 128 weight_scale_inv; hidden 144, so edges are ragged "
                 "in both directions; embedding, norms, router, head BF16; bias F32",
        "config": deepseek_v3(
            hidden_size=144, intermediate_size=160, kv_lora_rank=64, q_lora_rank=144,
            n_routed_experts=8, n_group=2, topk_group=1, num_experts_per_tok=2,
            quantization_config=FP8),
        "form": "published", "dtype": "FP8", "shards": 1, "template": "inline",
        "without": {**MLA, **YARN_PARTS, **V3_ROUTER},
    },
    "deepseek_v31_fp8": {
        "about": "V3.1 in FP8: block scales are powers of two (scale_fmt ue8m0)",
        "config": deepseek_v3(
            hidden_size=144, intermediate_size=96, n_routed_experts=8, n_group=2, topk_group=1,
            num_experts_per_tok=2, quantization_config={**FP8, "scale_fmt": "ue8m0"}),
        "form": "published", "dtype": "FP8", "shards": 2, "template": "file",
        "without": {**MLA, **YARN_PARTS, **V3_ROUTER},
    },
    "moonlight": {
        "about": "Moonlight: V3 without q_lora, one group, no YaRN, theta 50000, two shared "
                 "experts, bias BF16",
        "config": deepseek_v3(
            q_lora_rank=None, n_group=1, topk_group=1, n_routed_experts=12,
            num_experts_per_tok=3, n_shared_experts=2, num_nextn_predict_layers=0,
            rope_scaling=None, rope_theta=50000.0, routed_scaling_factor=2.446,
            rms_norm_eps=1e-06, max_position_embeddings=8192),
        "form": "published", "dtype": "BF16", "bias_dtype": "BF16", "shards": 1,
        "template": "inline",
        "without": {**MLA, "correction bias": NO_BIAS,
                    "norm_topk_prob": {"norm_topk_prob": False},
                    "routed scaling": {"routed_scaling_factor": 1.0}},
    },
    "kimi_k2": {
        "about": "Kimi K2: model_type kimi_k2, V3 with one group, YaRN with both betas 1, "
                 "theta 50000, two MoE layers",
        "config": deepseek_v3(
            model_type="kimi_k2", num_hidden_layers=3, n_group=1, topk_group=1, n_routed_experts=8,
            num_experts_per_tok=3, num_nextn_predict_layers=0, rope_theta=50000.0,
            routed_scaling_factor=2.827,
            rope_scaling={**YARN, "beta_fast": 1.0, "beta_slow": 1.0, "factor": 32.0}),
        "form": "published", "dtype": "BF16", "shards": 1, "template": "inline",
        "reference_type": "deepseek_v3",
        "without": {**MLA, **YARN_PARTS, "correction bias": NO_BIAS,
                    "norm_topk_prob": {"norm_topk_prob": False},
                    "routed scaling": {"routed_scaling_factor": 1.0}},
    },
    "glm4_moe_lite": {
        "about": "GLM-4.7-Flash: q_lora, one group, no YaRN, nope 48 and v 64 apart, rms eps 1e-5 "
                 "while the two latent norms keep 1e-6 (their inputs are small, so it shows)",
        "config": {
            "architectures": ["Glm4MoeLiteForCausalLM"], "attention_bias": False,
            "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": [1, 2],
            "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 64,
            "initializer_range": 0.02, "intermediate_size": 64, "kv_lora_rank": 32,
            "max_position_embeddings": 2048, "model_type": "glm4_moe_lite",
            "moe_intermediate_size": 32, "n_group": 1, "n_routed_experts": 8,
            "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 5,
            "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 5,
            "num_nextn_predict_layers": 1, "pad_token_id": 2, "partial_rotary_factor": 1.0,
            "q_lora_rank": 48, "qk_nope_head_dim": 48, "qk_rope_head_dim": 16,
            "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 1000000,
            "routed_scaling_factor": 1.8, "tie_word_embeddings": False, "topk_group": 1,
            "topk_method": "noaux_tc", "torch_dtype": "bfloat16",
            "transformers_version": "5.0.0rc0", "v_head_dim": 64, "vocab_size": VOCAB,
        },
        "form": "published", "dtype": "BF16", "shards": 1, "template": "file",
        "latent_gain": 0.006,
        "without": {**MLA, "latent norms' own eps": {"latent_eps": 1e-05}, "correction bias": NO_BIAS,
                    "norm_topk_prob": {"norm_topk_prob": False},
                    "routed scaling": {"routed_scaling_factor": 1.0}},
    },
    "llama_tied": {
        "about": "Llama as in SmolLM2: grouped queries (6 heads on 2), tied embeddings, theta "
                 "100000",
        "config": dense("llama", hidden_size=96, num_attention_heads=6, num_key_value_heads=2,
                        intermediate_size=96, rope_theta=100000.0, tie_word_embeddings=True,
                        attention_bias=False, mlp_bias=False, pretraining_tp=1,
                        rope_interleaved=False, rope_scaling=None, is_llama_config=True),
        "form": "published", "dtype": "F32", "shards": 1, "template": "inline",
        "without": {"rope theta": {"rope_theta": 1000.0}},
    },
    "llama_bf16": {
        "about": "Llama in BF16, tied, config as transformers 5 writes it, head_dim 32 given apart "
                 "from hidden / heads",
        "config": dense("llama", head_dim=32, tie_word_embeddings=True, attention_bias=False,
                        mlp_bias=False),
        "form": "transformers", "dtype": "BF16", "shards": 1, "template": "file",
        "without": {"rope theta": {"rope_theta": 100.0}},
    },
    "llama3_scaled": {
        "about": "Llama 3.1: untied, rope_scaling llama3 (factor 8, all three ranges of wave "
                 "lengths occur)",
        "config": dense("llama", num_attention_heads=2, num_key_value_heads=1,
                        rope_theta=500000.0, attention_bias=False, mlp_bias=False,
                        rope_scaling={"factor": 8.0, "high_freq_factor": 4.0,
                                      "low_freq_factor": 1.0,
                                      "original_max_position_embeddings": 64,
                                      "rope_type": "llama3"}),
        "form": "published", "dtype": "F32", "shards": 1, "template": "list",
        "without": {"llama3 scaling": {"rope_scaling": None},
                    "rope theta": {"rope_theta": 10000.0}},
    },
    "qwen2": {
        "about": "Qwen2: biases on q, k and v, untied",
        "config": dense("qwen2", rms_norm_eps=1e-06, rope_theta=1000000.0,
                        max_window_layers=2, sliding_window=131072, use_mrope=False,
                        use_sliding_window=False),
        "form": "published", "dtype": "F32", "shards": 1, "template": "inline",
        "without": {"q bias": {"weights": ("q_proj.bias", 0.0)},
                    "k bias": {"weights": ("k_proj.bias", 0.0)},
                    "v bias": {"weights": ("v_proj.bias", 0.0)},
                    "rope theta": {"rope_theta": 10000.0}},
    },
    "qwen3": {
        "about": "Qwen3: q and k norms per head, head_dim 32 with 64 / 4 = 16, tied, config as "
                 "transformers 5 writes it",
        "config": dense("qwen3", head_dim=32, rms_norm_eps=1e-06, rope_theta=1000000.0,
                        tie_word_embeddings=True, attention_bias=False, sliding_window=None,
                        use_sliding_window=False),
        "form": "transformers", "dtype": "BF16", "shards": 1, "template": "file",
        "without": {"q norm's weight": {"weights": ("q_norm", "ones")},
                    "k norm's weight": {"weights": ("k_norm", "ones")},
                    "rope theta": {"rope_theta": 10000.0}},
    },
    "qwen3moe": {
        "about": "Qwen3-MoE: softmax, top-k weights divided by their sum, no shared expert",
        "config": dense("qwen3_moe", head_dim=32, rms_norm_eps=1e-06, rope_theta=1000000.0,
                        attention_bias=False, decoder_sparse_step=1, mlp_only_layers=[],
                        moe_intermediate_size=32, norm_topk_prob=True, num_experts=8,
                        num_experts_per_tok=3, output_router_logits=False,
                        router_aux_loss_coef=0.001, rope_scaling=None, sliding_window=None,
                        max_window_layers=2, use_sliding_window=False,
                        torch_dtype="bfloat16", transformers_version="4.51.0"),
        "form": "published", "dtype": "BF16", "shards": 1, "template": "inline",
        "without": {"experts": NO_EXPERTS, "norm_topk_prob": {"norm_topk_prob": False},
                    "q norm's weight": {"weights": ("q_norm", "ones")},
                    "k norm's weight": {"weights": ("k_norm", "ones")}},
    },
}


def _mlp(prefix, d, width):
    yield f"{prefix}.gate_proj.weight", (width, d), "linear"
    yield f"{prefix}.up_proj.weight", (width, d), "linear"
    yield f"{prefix}.down_proj.weight", (d, width), "down"


def _latent_attention(prefix, c):
    d, heads, rope = c["hidden_size"], c["num_attention_heads"], c["qk_rope_head_dim"]
    q_out = heads * (c["qk_nope_head_dim"] + rope)
    if c["q_lora_rank"] is None:
        yield f"{prefix}.q_proj.weight", (q_out, d), "linear"
    else:
        yield f"{prefix}.q_a_proj.weight", (c["q_lora_rank"], d), "latent"
        yield f"{prefix}.q_a_layernorm.weight", (c["q_lora_rank"],), "norm"
        yield f"{prefix}.q_b_proj.weight", (q_out, c["q_lora_rank"]), "linear"
    yield f"{prefix}.kv_a_proj_with_mqa.weight", (c["kv_lora_rank"] + rope, d), "latent_rope"
    yield f"{prefix}.kv_a_layernorm.weight", (c["kv_lora_rank"],), "norm"
    kv_out = heads * (c["qk_nope_head_dim"] + c["v_head_dim"])
    yield f"{prefix}.kv_b_proj.weight", (kv_out, c["kv_lora_rank"]), "linear"
    yield f"{prefix}.o_proj.weight", (d, heads * c["v_head_dim"]), "linear"


def _latent_layer(prefix, c, is_moe):
    d = c["hidden_size"]
    yield f"{prefix}.input_layernorm.weight", (d,), "norm"
    yield from _latent_attention(f"{prefix}.self_attn", c)
    yield f"{prefix}.post_attention_layernorm.weight", (d,), "norm"
    if not is_moe:
        yield from _mlp(f"{prefix}.mlp", d, c["intermediate_size"])
        return
    width = c["moe_intermediate_size"]
    yield f"{prefix}.mlp.gate.weight", (c["n_routed_experts"], d), "router"
    if c["model_type"] != "deepseek_v2":
        yield f"{prefix}.mlp.gate.e_score_correction_bias", (c["n_routed_experts"],), "score_bias"
    for e in range(c["n_routed_experts"]):
        yield from _mlp(f"{prefix}.mlp.experts.{e}", d, width)
    yield from _mlp(f"{prefix}.mlp.shared_experts", d, width * c["n_shared_experts"])


def _mtp_layer(prefix, c):
    d = c["hidden_size"]
    yield f"{prefix}.embed_tokens.weight", (c["vocab_size"], d), "embed"
    yield f"{prefix}.enorm.weight", (d,), "norm"
    yield f"{prefix}.hnorm.weight", (d,), "norm"
    yield f"{prefix}.eh_proj.weight", (d, 2 * d), "linear"
    yield from _latent_layer(prefix, c, True)
    yield f"{prefix}.shared_head.norm.weight", (d,), "norm"
    yield f"{prefix}.shared_head.head.weight", (c["vocab_size"], d), "head"


def _plain_layer(prefix, c):
    d, heads, groups = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    width = c.get("head_dim") or d // heads
    attn = f"{prefix}.self_attn"
    yield f"{prefix}.input_layernorm.weight", (d,), "norm"
    for part, rows in (("q", heads * width), ("k", groups * width), ("v", groups * width)):
        yield f"{attn}.{part}_proj.weight", (rows, d), "linear"
        if c["model_type"] == "qwen2":
            yield f"{attn}.{part}_proj.bias", (rows,), "bias"
    if c["model_type"] in ("qwen3", "qwen3_moe"):
        yield f"{attn}.q_norm.weight", (width,), "norm"
        yield f"{attn}.k_norm.weight", (width,), "norm"
    yield f"{attn}.o_proj.weight", (d, heads * width), "linear"
    yield f"{prefix}.post_attention_layernorm.weight", (d,), "norm"
    if c["model_type"] != "qwen3_moe":
        yield from _mlp(f"{prefix}.mlp", d, c["intermediate_size"])
        return
    yield f"{prefix}.mlp.gate.weight", (c["num_experts"], d), "router"
    for e in range(c["num_experts"]):
        yield from _mlp(f"{prefix}.mlp.experts.{e}", d, c["moe_intermediate_size"])


def tensors(fixture):
    """(name, shape, role) of every tensor, names as published."""
    c = fixture["config"]
    d, n_layer = c["hidden_size"], c["num_hidden_layers"]
    yield "model.embed_tokens.weight", (c["vocab_size"], d), "embed"
    for i in range(n_layer):
        if "kv_lora_rank" in c:
            yield from _latent_layer(f"model.layers.{i}", c, i >= c["first_k_dense_replace"])
        else:
            yield from _plain_layer(f"model.layers.{i}", c)
    if fixture.get("mtp"):
        yield from _mtp_layer(f"model.layers.{n_layer}", c)
    yield "model.norm.weight", (d,), "norm"
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], d), "head"
