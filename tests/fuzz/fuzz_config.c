/* The JSON files and templates of a Hugging Face directory, and what a model makes of them.
 *
 * The first byte of an input says which file the rest is; the others are those of a small good
 * model, so that a changed config.json meets real tensors. */
#include "base/file.h"
#include "base/json.h"
#include "folder.h"
#include "formats/hf.h"
#include "model/model.h"

static const char *const files[] = {"config.json",           "generation_config.json",
                                    "tokenizer_config.json", "chat_template.json",
                                    "chat_template.jinja",   "model.safetensors.index.json",
                                    "tokenizer.json"};
enum { N_FILES = sizeof files / sizeof *files };

static const char config[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 8, \"intermediate_size\": 4, \"vocab_size\": 4,"
    " \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"num_hidden_layers\": 1,"
    " \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-6, \"tie_word_embeddings\": true}";

static const struct {
    const char *name;
    int32_t n_dims;
    int64_t dims[2];
} tensors[] = {
#define LAYER "model.layers.0."
    {"model.embed_tokens.weight", 2, {4, 8}},     {"model.norm.weight", 1, {8}},
    {LAYER "input_layernorm.weight", 1, {8}},     {LAYER "post_attention_layernorm.weight", 1, {8}},
    {LAYER "self_attn.q_proj.weight", 2, {8, 8}}, {LAYER "self_attn.k_proj.weight", 2, {4, 8}},
    {LAYER "self_attn.v_proj.weight", 2, {4, 8}}, {LAYER "self_attn.o_proj.weight", 2, {8, 8}},
    {LAYER "mlp.gate_proj.weight", 2, {4, 8}},    {LAYER "mlp.up_proj.weight", 2, {4, 8}},
    {LAYER "mlp.down_proj.weight", 2, {8, 4}},
#undef LAYER
};
enum { N_TENSORS = sizeof tensors / sizeof *tensors };

static void write_tensors(void) {
    static const float zeros[64];
    du_st_writer *w = NULL;
    FUZZ_CHECK(du_st_writer_new(&w, NULL) == DU_OK);
    for (size_t i = 0; i < N_TENSORS; i++) {
        du_st_put_tensor(w, tensors[i].name, DU_F32, tensors[i].n_dims, tensors[i].dims);
    }
    FUZZ_CHECK(du_st_writer_begin(w, fuzz_dir, DU_ST_SHARD_BYTES, NULL) == DU_OK);
    for (int64_t i; (i = du_st_writer_next(w)) >= 0;) {
        int64_t cols = tensors[i].n_dims == 2 ? tensors[i].dims[1] : 1;
        du_st_write(w, zeros, (size_t)(tensors[i].dims[0] * cols) * sizeof *zeros);
    }
    FUZZ_CHECK(du_st_writer_commit(w, NULL) == DU_OK);
    du_st_writer_close(w);
}

/* Makes the folder with the good model, which opens. */
static void set_up(void) {
    fuzz_make_dir();
    write_tensors();
    fuzz_put("config.json", config, strlen(config));
    du_model *model = NULL;
    du_diag diag;
    du_diag_reset(&diag);
    if (du_model_open(&model, fuzz_dir, &diag) != DU_OK) {
        fprintf(stderr, "%s\n", diag.msg);
        abort();
    }
    du_model_close(model);
}

static void open_hf(void) {
    du_diag diag;
    du_diag_reset(&diag);
    du_hf *hf = NULL;
    if (du_hf_open(&hf, fuzz_dir, &diag) != DU_OK) {
        FUZZ_CHECK(!hf && diag.code != DU_OK && diag.msg[0] != '\0');
        return;
    }
    for (int64_t i = 0; i < du_hf_n_templates(hf); i++) {
        const char *text = du_hf_template_find(hf, du_hf_template_name(hf, i));
        FUZZ_CHECK(text == du_hf_template(hf, i));
        fuzz_touch(text, strlen(text));
    }
    json_t *tokenizer = NULL;
    if (du_hf_load_tokenizer(&tokenizer, hf, NULL) == DU_OK) {
        FUZZ_CHECK(json_is_object(tokenizer));
        json_decref(tokenizer);
    }
    du_hf_close(hf);
}

static void open_model(void) {
    du_diag diag;
    du_diag_reset(&diag);
    du_model *model = NULL;
    if (du_model_open(&model, fuzz_dir, &diag) != DU_OK) {
        FUZZ_CHECK(!model && diag.code != DU_OK && diag.msg[0] != '\0');
    }
    du_model_close(model);
}

/* A model in shards: without the one file its index is looked at. */
static void open_index(void) {
    du_st *st = NULL;
    if (du_st_open(&st, fuzz_path("model.safetensors.index.json"), NULL) == DU_OK) {
        FUZZ_CHECK(du_st_n_tensors(st) == N_TENSORS);
    }
    du_st_close(st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    FUZZ_ONCE(set_up());
    if (size == 0) {
        return 0;
    }
    size_t i = data[0] % N_FILES;
    fuzz_put(files[i], data + 1, size - 1);
    open_hf();
    if (i == 0) {
        open_model();
        fuzz_put(files[i], config, strlen(config));
    } else {
        if (i == 5) {
            open_index();
        }
        unlink(fuzz_path(files[i]));
    }
    return 0;
}
