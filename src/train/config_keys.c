/* The keys of a training run, in the order of the list and the manual:
 *
 *     X_TEXT(field, key, unit, alters, help)
 *     X_INT(field, key, default, min, max, unit, alters, help)
 *     X_REAL(field, key, default, min, max, unit, alters, help)
 *     X_WORD(field, key, words, alters, help)     its first word is the default
 *     X_WORD_AT(field, key, words, default, alters, help)
 *     X_MODEL(name in config.json, help)
 *
 * alters: a change of it gives other results, so a run cannot go on with it. */
#include "train/config_int.h"

#define AT(field_) offsetof(du_train_config, field_)
#define X_TEXT(field_, name_, unit_, alters_, help_)                                               \
    {                                                                                              \
        .name = name_, .help = help_, .type = KEY_TEXT, .alters = alters_, .field = AT(field_),    \
        .unit = unit_                                                                              \
    }
#define X_INT(field_, name_, default_, min_, max_, unit_, alters_, help_)                          \
    {                                                                                              \
        .name = name_, .help = help_, .type = KEY_INT, .alters = alters_, .field = AT(field_),     \
        .unit = unit_, .i_default = default_, .i_min = min_, .i_max = max_                         \
    }
#define X_REAL(field_, name_, default_, min_, max_, unit_, alters_, help_)                         \
    {                                                                                              \
        .name = name_, .help = help_, .type = KEY_REAL, .alters = alters_, .field = AT(field_),    \
        .unit = unit_, .f_default = default_, .f_min = min_, .f_max = max_                         \
    }
/* The default of a word is its first one. */
#define X_WORD(field_, name_, words_, alters_, help_)                                              \
    X_WORD_AT(field_, name_, words_, 0, alters_, help_)
#define X_WORD_AT(field_, name_, words_, default_, alters_, help_)                                 \
    {                                                                                              \
        .name = name_, .help = help_, .type = KEY_WORD, .alters = alters_, .field = AT(field_),    \
        .unit = words_, .i_default = default_                                                      \
    }
#define X_MODEL(hf_, name_, help_)                                                                 \
    { .name = "model." name_, .help = help_, .type = KEY_MODEL, .alters = true, .unit = #hf_ }

#define STEPS_MAX  1000000000
#define LENGTH_MAX (1 << 24)

const du_train_key du_train_keys[] = {
    X_TEXT(init, "init", "path", true,
           "Hugging Face directory or GGUF to start from; without it model.arch and model.* say "
           "what to "
           "make"),
    X_TEXT(out, "out", "path", false, "folder for checkpoints, metrics and report"),
    X_INT(steps, "steps", 0, 0, STEPS_MAX, "steps", false, "optimizer steps of the whole run"),
    X_INT(seq_len, "seq_len", 256, 1, LENGTH_MAX, "tokens", true, "tokens of a sequence"),
    X_INT(batch_seqs, "batch_seqs", 16, 1, 1 << 20, "sequences", true,
          "sequences of a micro-batch"),
    X_INT(accumulate, "accumulate", 1, 1, 1 << 20, "micro-batches", true,
          "micro-batches whose gradients make one step"),
    X_INT(seed, "seed", 1, 0, INT64_MAX, "", true, "where random choices start"),
    X_WORD(dtype, "dtype", "f32|bf16", true,
           "number type of the factors of matrix products; sums and weights stay f32"),
    X_WORD_AT(recompute, "recompute", "none|cheap|layer", DU_RECOMPUTE_CHEAP, false,
              "what is computed again instead of kept for the backward pass: nothing; norms, "
              "up-projections of latents and SwiGLU products; all but the inputs of layers"),
    X_TEXT(tokenizer, "tokenizer", "path", false,
           "tokenizer.json or a folder with one, kept with the checkpoints"),
    X_TEXT(data.tokens, "data.tokens", "path", true, "file of raw little-endian token numbers"),
    X_INT(data.token_bytes, "data.token_bytes", 2, 2, 4, "bytes", true,
          "bytes of a number in data.tokens: 2 or 4"),
    X_TEXT(data.shards, "data.shards", "path", true, "folder that `dure data pack` wrote"),
    X_TEXT(data.validation, "data.validation", "path", false,
           "for the validation loss: tokens as those of data.tokens; or a folder of shards, which "
           "may be data.shards, whose part for validation is taken"),
    X_WORD(data.order, "data.order", "sequential|shuffled", true,
           "in which order sequences are read"),
    X_WORD(
        optim.name, "optim.name", "adamw|sgd|muon", true,
        "the optimizer; muon: of all matrices but the embedding and the output, adamw of the rest"),
    X_REAL(optim.lr, "optim.lr", 3e-4, 0, 1e3, "", true, "highest learning rate"),
    X_REAL(optim.beta1, "optim.beta1", 0.9, 0, 0.999999, "", true, "decay of the first moment"),
    X_REAL(optim.beta2, "optim.beta2", 0.95, 0, 0.999999999, "", true,
           "decay of the second moment"),
    X_REAL(optim.eps, "optim.eps", 1e-8, 1e-30, 1, "", true,
           "added to the root of the second moment"),
    X_REAL(optim.weight_decay, "optim.weight_decay", 0.1, 0, 1e3, "", true,
           "decay of weights per step, times the learning rate"),
    X_WORD(optim.decay, "optim.decay", "all|matrices", true,
           "what decays: all weights, or matrices and not norms and biases"),
    X_REAL(optim.clip, "optim.clip", 1, 0, 1e9, "", true,
           "longest gradient (2-norm of all); 0: as it is"),
    X_REAL(optim.momentum, "optim.momentum", 0.95, 0, 0.999999, "", true,
           "momentum of sgd and muon"),
    X_WORD(optim.muon_scale, "optim.muon_scale", "moonlight|original", true,
           "how long muon's steps are: 0.2 sqrt(longer side), for adamw's learning rates; "
           "sqrt(rows / columns)"),
    X_WORD(
        schedule.name, "schedule.name", "constant|linear|cosine|wsd|deepseek_v3", true,
        "learning rate after the warm-up: constant; to schedule.final by a line or half a cosine; "
        "constant, then a line in the last schedule.decay_steps; DeepSeek-V3's"),
    X_INT(schedule.warmup_steps, "schedule.warmup_steps", 0, 0, STEPS_MAX, "steps", true,
          "steps in which the learning rate grows from 0"),
    X_INT(schedule.decay_steps, "schedule.decay_steps", 0, 0, STEPS_MAX, "steps", true,
          "of wsd: length of the decay at the end; 0: a tenth of the steps"),
    X_INT(schedule.batch_from, "schedule.batch_from", 1, 1, 1 << 20, "micro-batches", true,
          "of the first step, with schedule.batch_steps; at most accumulate"),
    X_INT(schedule.batch_steps, "schedule.batch_steps", 0, 0, 1 << 20, "steps", true,
          "in which a step's micro-batches grow from schedule.batch_from to accumulate; 0: all "
          "steps have accumulate"),
    X_REAL(schedule.final, "schedule.final", 0, 0, 1, "", true,
           "last learning rate as a fraction of optim.lr"),
    X_REAL(router.bias_step, "router.bias_step", 0, 0, 1, "", true,
           "how much the bias of an expert changes per step to balance the load"),
    X_REAL(router.seq_balance, "router.seq_balance", 0, 0, 1e3, "", true,
           "weight of the balance loss of each sequence"),
    X_REAL(mtp.weight, "mtp.weight", 0, 0, 1e3, "", true,
           "weight of the loss of predicting one token further; 0: no such block"),
    X_REAL(loss.z, "loss.z", 0, 0, 1e3, "", true, "weight of the squared log of the softmax's sum"),
    X_REAL(loss.label_smoothing, "loss.label_smoothing", 0, 0, 0.999, "", true,
           "part of a target's probability that is spread over the vocabulary"),
    X_REAL(ema.decay, "ema.decay", 0, 0, 0.9999999, "", true,
           "decay of the running mean of the weights, kept beside them; 0: none"),
    X_TEXT(qat.type, "qat.type", "type", true,
           "a type of `dure quantize`, or F8_E4M3: passes see weights rounded to it, so that the "
           "model "
           "is trained for that file"),
    X_INT(lora.rank, "lora.rank", 0, 0, 4096, "", true,
          "rank of the adapters that are trained instead of init's weights, which stay as they are "
          "in their file; 0: none"),
    X_REAL(lora.alpha, "lora.alpha", 0, 0, 1e6, "", true,
           "adapters count alpha / rank; 0: 2 lora.rank"),
    X_TEXT(lora.targets, "lora.targets", "names", true,
           "which linear layers get an adapter: names or ends of names, as `q_proj,v_proj`, "
           "separated by commas; not given, or all-linear: all but the router and the output "
           "matrix, experts too"),
    X_WORD(ranks.experts, "ranks.experts", "whole|spread", false,
           "what each of several processes (mpirun) has of the routed experts: all of them, or its "
           "share, so that tokens go to where their experts are; the results are the same"),
    X_INT(checkpoint.every, "checkpoint.every", 0, 0, STEPS_MAX, "steps", false,
          "steps between checkpoints; 0: only the last"),
    X_INT(checkpoint.keep, "checkpoint.keep", 3, 1, 1 << 20, "checkpoints", false,
          "last ones that stay, beside the best"),
    X_INT(validate.every, "validate.every", 0, 0, STEPS_MAX, "steps", false,
          "steps between validation losses; 0: at checkpoints"),
    X_INT(validate.batches, "validate.batches", 8, 1, 1 << 20, "micro-batches", false,
          "of a validation loss"),
    X_REAL(spike.factor, "spike.factor", 0, 0, 1e6, "", false,
           "the run stops where losses stay above so many times the smoothed loss; 0: never"),
    X_INT(spike.steps, "spike.steps", 5, 1, STEPS_MAX, "steps", false,
          "that such losses take until the run stops"),
    X_TEXT(
        sample.prompt, "sample.prompt", "text", false,
        "what the model is asked at checkpoints: a text, or a JSON array of texts; answers go to "
        "samples.jsonl and the report; needs a tokenizer; not given: nothing"),
    X_INT(sample.tokens, "sample.tokens", 64, 1, 1 << 20, "tokens", false, "of an answer at most"),
    X_MODEL(model_type, "arch", "what to make: llama, qwen2, qwen3, deepseek_v2, deepseek_v3"),
    X_MODEL(vocab_size, "vocab_size", "tokens of the vocabulary"),
    X_MODEL(hidden_size, "hidden_size", "width"),
    X_MODEL(intermediate_size, "intermediate_size", "width of dense feed-forward layers"),
    X_MODEL(num_hidden_layers, "num_hidden_layers", "layers"),
    X_MODEL(num_attention_heads, "num_attention_heads", "query heads"),
    X_MODEL(num_key_value_heads, "num_key_value_heads",
            "key heads; not given: as many as query heads"),
    X_MODEL(head_dim, "head_dim", "width of a head; not given: hidden_size / heads"),
    X_MODEL(max_position_embeddings, "max_position_embeddings", "longest context"),
    X_MODEL(rope_theta, "rope_theta", "base of the rotary frequencies"),
    X_MODEL(rms_norm_eps, "rms_norm_eps", "added to the mean square of a norm"),
    X_MODEL(tie_word_embeddings, "tie_word_embeddings", "the output matrix is the embedding"),
    X_MODEL(initializer_range, "initializer_range",
            "standard deviation of new weights; not given: 0.006"),
    X_MODEL(q_lora_rank, "q_lora_rank", "width of the latent of queries; 0: none"),
    X_MODEL(kv_lora_rank, "kv_lora_rank", "width of the latent of keys and values"),
    X_MODEL(qk_nope_head_dim, "qk_nope_head_dim", "values of a head that are not rotated"),
    X_MODEL(qk_rope_head_dim, "qk_rope_head_dim", "values of a head that are rotated"),
    X_MODEL(v_head_dim, "v_head_dim", "width of a head's value"),
    X_MODEL(moe_intermediate_size, "moe_intermediate_size", "width of an expert"),
    X_MODEL(n_routed_experts, "n_routed_experts", "experts of a layer"),
    X_MODEL(n_shared_experts, "n_shared_experts", "experts that every token uses"),
    X_MODEL(num_experts_per_tok, "num_experts_per_tok", "experts that a token chooses"),
    X_MODEL(first_k_dense_replace, "first_k_dense_replace", "leading layers without experts"),
    X_MODEL(n_group, "n_group", "groups of experts"),
    X_MODEL(topk_group, "topk_group", "groups that a token may choose from"),
    X_MODEL(routed_scaling_factor, "routed_scaling_factor",
            "factor of the chosen experts' weights"),
    X_MODEL(norm_topk_prob, "norm_topk_prob", "divide the chosen experts' weights by their sum"),
    X_MODEL(scoring_func, "scoring_func", "scores of experts: sigmoid or softmax"),
    X_MODEL(topk_method, "topk_method", "greedy, group_limited_greedy or noaux_tc"),
    X_MODEL(rope_scaling, "rope_scaling", "longer contexts, as a JSON object"),
};

_Static_assert(sizeof du_train_keys / sizeof *du_train_keys <= DU_TRAIN_KEYS_MAX, "too many keys");
const size_t du_train_n_keys = sizeof du_train_keys / sizeof *du_train_keys;
