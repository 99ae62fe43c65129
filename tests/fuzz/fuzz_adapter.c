/* Adapters as `dure merge` reads them: opened, loaded over a model, and computed with.
 *
 * The first byte of an input says which of the two files the rest is: adapter_config.json or
 * adapter_model.safetensors; the other one is that of a good adapter of every layer and of biases
 * of routers. */
#include "base/file.h"
#include "base/json.h"
#include "folder.h"
#include "model/convert.h"
#include "model/grad.h"
#include "model/lora.h"

static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};

static const char config[] =
    "{\"model_type\": \"deepseek_v3\", \"hidden_size\": 8, \"intermediate_size\": 4,"
    " \"vocab_size\": 4, \"num_attention_heads\": 2, \"num_hidden_layers\": 2,"
    " \"q_lora_rank\": null, \"kv_lora_rank\": 4, \"qk_nope_head_dim\": 4,"
    " \"qk_rope_head_dim\": 2, \"v_head_dim\": 4, \"n_routed_experts\": 2,"
    " \"num_experts_per_tok\": 1, \"n_group\": 1, \"topk_group\": 1, \"first_k_dense_replace\": 1,"
    " \"moe_intermediate_size\": 4, \"n_shared_experts\": 1, \"max_position_embeddings\": 64,"
    " \"tie_word_embeddings\": true}";

static du_ctx ctx;
static struct {
    char *bytes;
    size_t n;
} good[2];

static void fail(const du_diag *diag) {
    fprintf(stderr, "%s\n", diag->msg);
    abort();
}

static bool wants_all(const void *user, const char *module) {
    (void)user;
    (void)module;
    return true;
}

/* A model in the folder, and an adapter of it. */
static void make_files(void) {
    du_diag diag;
    du_diag_reset(&diag);
    du_params *params = NULL, *adapters = NULL;
    du_model *model = NULL;
    du_convert_params how = {0};
    du_convert_stats stats;
    du_lora lora = {
        .rank = 2, .scale = 0.5, .wants = wants_all, .wants_bias = wants_all, .next = true};
    json_t *json = json_loads(config, 0, NULL);
    FUZZ_CHECK(json && du_params_new(&params, json, &diag) == DU_OK);
    json_decref(json);
    du_params_init(params, 0.1, 3);
    du_err err = du_convert_hf(params->model, fuzz_dir, NULL, &how, &stats, &diag);
    du_params_free(params);
    err = err ? err : du_model_open(&model, fuzz_dir, &diag);
    err = err ? err : du_lora_new(&adapters, model, &lora, &diag);
    if (err == DU_OK) {
        du_lora_init(adapters, 5);
        err = du_lora_write(adapters, fuzz_dir, "base", "", 1, &diag);
    }
    if (err != DU_OK) {
        fail(&diag);
    }
    du_params_free(adapters);
}

/* The logits of two tokens, finite or not. */
static void compute(const du_params *params) {
    static const int32_t tokens[2] = {1, 2}, targets[2] = {2, -1};
    double losses[2];
    du_grad *grad = NULL;
    du_grad_params how = {.keep = DU_KEEP_INPUTS, .n_leaves = 1};
    du_grad_rows rows = {.n_seq = 1, .seq_len = 2, .tokens = tokens};
    du_cross_entropy loss = {
        .base.rows = du_cross_entropy_rows, .targets = targets, .scale = 1, .losses = losses};
    FUZZ_CHECK(du_grad_new(&grad, params, &how, NULL) == DU_OK);
    FUZZ_CHECK(du_grad_loss(&ctx, grad, &rows, &loss.base, NULL) == DU_OK);
    du_grad_free(grad);
}

static void merge(void) {
    du_diag diag;
    du_diag_reset(&diag);
    du_lora_file file;
    du_model *model = NULL;
    du_params *params = NULL;
    du_err err = du_lora_file_open(&file, fuzz_dir, &diag);
    if (err == DU_OK) {
        FUZZ_CHECK(file.lora.rank >= 1 && file.lora.rank <= DU_LORA_RANK_MAX);
        if (du_model_open(&model, fuzz_dir, &diag) != DU_OK) {
            fail(&diag);
        }
        err = du_lora_new(&params, model, &file.lora, &diag);
    }
    err = err ? err : du_lora_load(params, &file, &diag);
    if (err == DU_OK) {
        compute(params);
        err = du_lora_fold_derived(params, &diag);
    }
    FUZZ_CHECK(err == DU_OK || (diag.code == err && diag.msg[0] != '\0'));
    du_lora_file_close(&file);
    du_params_free(params);
}

static void set_up(void) {
    fuzz_make_dir();
    ctx = (du_ctx){.kern = du_kern_get(DU_ISA_C), .scratch = du_arena_new(1 << 20)};
    FUZZ_CHECK(ctx.scratch && du_pool_new(&ctx.pool, 1, false, NULL) == DU_OK);
    make_files();
    for (int i = 0; i < 2; i++) {
        good[i].bytes = fuzz_get(files[i], &good[i].n);
    }
    merge(); /* scratch grows to what it needs */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    FUZZ_ONCE(set_up());
    if (size == 0) {
        return 0;
    }
    int i = data[0] % 2;
    fuzz_put(files[i], data + 1, size - 1);
    merge();
    fuzz_put(files[i], good[i].bytes, good[i].n);
    return 0;
}
