/* dure inspect: what a model is, before anything is computed with it. One list of numbers feeds the
 * text and the JSON object, so that they say the same. */
#include <stdio.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/compute.h"
#include "cli/out.h"
#include "cli/source.h"

static bool as_json, list_tensors, list_keys;

static const du_opt opts[] = {
    DU_OPTION_FLAG(0, "tensors", &list_tensors, "list every tensor"),
    DU_OPTION_FLAG(0, "keys", &list_keys, "list the keys of a GGUF file"),
    DU_OPTION_FLAG(0, "json", &as_json,
                   "print a JSON object: path, format, file_bytes, architecture, hparams, params, "
                   "params_active, weights_bytes, bytes_per_token, types, memory, [tensors], "
                   "[keys]"),
};

enum { N_HPARAMS_MAX = 40 };

typedef struct {
    const char *name;
    double value;
} number;

static size_t list_hparams(number *out, const du_hparams *hp) {
    const number all[] = {
        {"n_layer", (double)hp->n_layer},
        {"n_vocab", (double)hp->n_vocab},
        {"n_ctx_train", (double)hp->n_ctx_train},
        {"d_model", (double)hp->d_model},
        {"d_ff", (double)hp->d_ff},
        {"n_head", (double)hp->n_head},
        {"n_head_kv", (double)hp->n_head_kv},
        {"k_dim", (double)hp->k_dim},
        {"v_dim", (double)hp->v_dim},
        {"rope_dim", (double)hp->rope_dim},
        {"rope_theta", hp->rope_theta},
        {"rope_factor", hp->scaling == DU_SCALING_NONE ? 0 : hp->yarn.factor},
        {"kv_rank", (double)hp->kv_rank},
        {"q_rank", (double)hp->q_rank},
        {"n_dense_layer", hp->router.n_expert > 0 ? (double)hp->n_dense_layer : 0},
        {"n_expert", (double)hp->router.n_expert},
        {"n_expert_used", (double)hp->router.n_used},
        {"n_expert_shared", (double)hp->n_shared_expert},
        {"n_expert_group", (double)hp->router.n_group},
        {"d_ff_expert", (double)hp->d_ff_expert},
        {"n_nextn", (double)hp->n_nextn},
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].value != 0) { /* what a model does not have is left out */
            out[n++] = all[i];
        }
    }
    return n;
}

/* Tensors and bytes per number type, in the order of the type list. */
typedef struct {
    int64_t n[DU_DTYPE_COUNT + 1], bytes[DU_DTYPE_COUNT + 1]; /* the last: no weight type */
} type_sums;

static type_sums sum_types(const du_weights *files) {
    type_sums sums = {0};
    for (int64_t i = 0; i < du_weights_n(files); i++) {
        const du_weight *w = du_weights_at(files, i);
        sums.n[w->dtype]++;
        sums.bytes[w->dtype] += (int64_t)w->n_bytes;
    }
    return sums;
}

static const char *type_name(int i) {
    return i < DU_DTYPE_COUNT ? du_dtype_get((du_dtype)i)->name : "other";
}

/* Context lengths to tell the memory for: what --ctx says, else some powers up to the trained one.
 */
static size_t list_contexts(int64_t *out, const du_hparams *hp) {
    int64_t asked = du_cli_infer_params().n_ctx;
    if (asked > 0) {
        out[0] = asked;
        return 1;
    }
    size_t n = 0;
    for (int64_t c = 4096; c < hp->n_ctx_train && n < 8; c *= 4) {
        out[n++] = c;
    }
    out[n++] = hp->n_ctx_train;
    return n;
}

static du_dtype cache_type(const du_model *model) {
    du_infer_params params = du_cli_infer_params();
    return params.auto_cache ? du_infer_auto_cache_type(model) : params.cache_type;
}

static void describe_shape(char *buf, size_t size, const du_weight *w) {
    size_t n = 0;
    buf[0] = '\0';
    for (int32_t i = 0; i < w->n_dims && n < size; i++) {
        int put = snprintf(buf + n, size - n, "%s%lld", i ? " x " : "", (long long)w->dims[i]);
        n += put > 0 ? (size_t)put : 0;
    }
}

/* A value of a GGUF key for people: scalars and short strings whole, arrays by their length. */
static void describe_key(du_str *out, const du_gguf *g, const du_gguf_kv *kv) {
    int64_t i64 = 0;
    double f64 = 0;
    bool flag = false;
    du_sv text = {"", 0};
    if (kv->is_array) {
        du_str_addf(out, "%lld x %s", (long long)kv->n, du_gguf_type_name(kv->type));
    } else if (kv->type == DU_GGUF_STR && du_gguf_get_str(g, kv->name, &text, NULL) == DU_OK) {
        enum { SHOWN = 60 };
        for (size_t i = 0; i < text.len && i < SHOWN; i++) {
            unsigned char c = (unsigned char)text.s[i];
            du_str_add_c(out, c < 0x20 || c == 0x7f ? ' ' : (char)c);
        }
        if (text.len > SHOWN) {
            du_str_addf(out, "... (%zu bytes)", text.len);
        }
    } else if (kv->type == DU_GGUF_BOOL && du_gguf_get_bool(g, kv->name, &flag, NULL) == DU_OK) {
        du_str_add_s(out, flag ? "true" : "false");
    } else if ((kv->type == DU_GGUF_F32 || kv->type == DU_GGUF_F64) &&
               du_gguf_get_f64(g, kv->name, &f64, NULL) == DU_OK) {
        du_str_addf(out, "%.9g", f64);
    } else if (du_gguf_get_i64(g, kv->name, INT64_MIN, INT64_MAX, &i64, NULL) == DU_OK) {
        du_str_addf(out, "%lld", (long long)i64);
    }
}

static du_err print_tensors(const du_weights *files, du_diag *diag) {
    du_cli_table table = {.n_columns = 4, .right = "l lr"};
    for (int64_t i = 0; i < du_weights_n(files); i++) {
        const du_weight *w = du_weights_at(files, i);
        char shape[128], bytes[24];
        describe_shape(shape, sizeof shape, w);
        du_cli_table_add(&table, "%s", w->name);
        du_cli_table_add(&table, "%s", w->type_name);
        du_cli_table_add(&table, "%s", shape);
        du_cli_table_add(&table, "%s", du_cli_bytes(bytes, (int64_t)w->n_bytes));
    }
    fputc('\n', stdout);
    return du_cli_table_print(&table, stdout, diag);
}

static du_err print_keys(const du_gguf *g, du_diag *diag) {
    du_cli_table table = {.n_columns = 3, .right = "lll"};
    du_str value = {0};
    for (int64_t i = 0; i < du_gguf_n_keys(g); i++) {
        const du_gguf_kv *kv = du_gguf_key(g, i);
        du_str_reset(&value);
        describe_key(&value, g, kv);
        du_cli_table_add(&table, "%s", kv->name);
        du_cli_table_add(&table, "%s", kv->is_array ? "array" : du_gguf_type_name(kv->type));
        du_cli_table_add(&table, "%s", du_str_get(&value));
    }
    du_str_done(&value);
    fputc('\n', stdout);
    return du_cli_table_print(&table, stdout, diag);
}

static du_err print_memory(const du_model *model, int64_t weights_bytes, du_diag *diag) {
    int64_t contexts[9];
    size_t n = list_contexts(contexts, &model->hp);
    char weights[24], cache_text[24], total[24];
    du_cli_table table = {.n_columns = 4, .right = "rrrr"};
    static const char *const heads[] = {"context", "cache", "weights", "together"};
    for (size_t i = 0; i < 4; i++) {
        du_cli_table_add(&table, "%s", heads[i]);
    }
    du_err err = DU_OK;
    for (size_t i = 0; i < n && err == DU_OK; i++) {
        int64_t cache = 0;
        err = du_infer_cache_bytes(model, cache_type(model), contexts[i], &cache, diag);
        du_cli_table_add(&table, "%lld", (long long)contexts[i]);
        du_cli_table_add(&table, "%s", du_cli_bytes(cache_text, cache));
        du_cli_table_add(&table, "%s", du_cli_bytes(weights, weights_bytes));
        du_cli_table_add(&table, "%s", du_cli_bytes(total, weights_bytes + cache));
    }
    if (err != DU_OK) {
        du_cli_table_done(&table);
        return err;
    }
    printf("\nmemory with a %s cache:\n", du_dtype_get(cache_type(model))->name);
    return du_cli_table_print(&table, stdout, diag);
}

static du_err print_text(const du_model *model, du_diag *diag) {
    du_model_counts counts = du_model_count(model);
    const du_weights *files = model->files;
    const du_gguf *g = du_weights_gguf(files);
    du_sv name = {NULL, 0};
    char buf[24];
    if (g && du_gguf_get_str(g, "general.name", &name, NULL) == DU_OK && name.s) {
        printf("name            ");
        du_cli_sink sink = du_cli_sink_of(stdout);
        du_cli_sink_write(&sink, name);
        printf("\n");
    }
    printf("file            %s\n", du_weights_path(files));
    printf("format          %s, %lld tensors, %s\n", g ? "GGUF" : "safetensors",
           (long long)du_weights_n(files), du_cli_bytes(buf, du_weights_file_bytes(files)));
    printf("architecture    %s\n", model->arch->name);
    printf("parameters      %.4g million, %.4g million used by a token\n",
           (double)counts.n_params / 1e6, (double)counts.n_params_active / 1e6);
    printf("bytes per token %s read to decode one, without the cache\n",
           du_cli_bytes(buf, counts.bytes_per_token));
    number hparams[N_HPARAMS_MAX];
    size_t n = list_hparams(hparams, &model->hp);
    printf("\n");
    for (size_t i = 0; i < n; i++) {
        printf("%-15s %.10g\n", hparams[i].name, hparams[i].value);
    }
    type_sums sums = sum_types(files);
    du_cli_table table = {.n_columns = 3, .right = "lrr"};
    for (int i = 0; i <= DU_DTYPE_COUNT; i++) {
        if (sums.n[i] > 0) {
            du_cli_table_add(&table, "%s", type_name(i));
            du_cli_table_add(&table, "%lld tensors", (long long)sums.n[i]);
            du_cli_table_add(&table, "%s", du_cli_bytes(buf, sums.bytes[i]));
        }
    }
    printf("\n");
    du_err err = du_cli_table_print(&table, stdout, diag);
    err = err ? err : print_memory(model, counts.bytes, diag);
    err = !err && list_tensors ? print_tensors(files, diag) : err;
    return !err && list_keys && g ? print_keys(g, diag) : err;
}

static json_t *json_memory(const du_model *model, int64_t weights_bytes, du_diag *diag) {
    int64_t contexts[9];
    size_t n = list_contexts(contexts, &model->hp);
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++) {
        int64_t cache = 0;
        if (du_infer_cache_bytes(model, cache_type(model), contexts[i], &cache, diag) != DU_OK) {
            json_decref(all);
            return NULL;
        }
        json_array_append_new(
            all, json_pack("{s:I, s:s, s:I, s:I, s:I}", "ctx", (json_int_t)contexts[i],
                           "cache_type", du_dtype_get(cache_type(model))->name, "cache_bytes",
                           (json_int_t)cache, "weights_bytes", (json_int_t)weights_bytes,
                           "total_bytes", (json_int_t)(cache + weights_bytes)));
    }
    return all;
}

static json_t *json_tensors(const du_weights *files) {
    json_t *all = json_array();
    for (int64_t i = 0; i < du_weights_n(files); i++) {
        const du_weight *w = du_weights_at(files, i);
        json_t *shape = json_array();
        for (int32_t k = 0; k < w->n_dims; k++) {
            json_array_append_new(shape, json_integer(w->dims[k]));
        }
        json_array_append_new(all, json_pack("{s:s, s:s, s:o, s:I}", "name", w->name, "type",
                                             w->type_name, "shape", shape, "bytes",
                                             (json_int_t)w->n_bytes));
    }
    return all;
}

static json_t *json_keys(const du_gguf *g) {
    json_t *all = json_object();
    du_str value = {0};
    for (int64_t i = 0; g && i < du_gguf_n_keys(g); i++) {
        const du_gguf_kv *kv = du_gguf_key(g, i);
        du_str_reset(&value);
        describe_key(&value, g, kv);
        json_object_set_new(all, kv->name, json_stringn(du_str_get(&value), value.len));
    }
    du_str_done(&value);
    return all;
}

static du_err print_json(const du_model *model, du_diag *diag) {
    du_model_counts counts = du_model_count(model);
    const du_weights *files = model->files;
    number hparams[N_HPARAMS_MAX];
    size_t n = list_hparams(hparams, &model->hp);
    json_t *hp = json_object(), *types = json_object();
    for (size_t i = 0; i < n; i++) {
        bool whole = hparams[i].value == (double)(int64_t)hparams[i].value;
        json_object_set_new(hp, hparams[i].name,
                            whole ? json_integer((json_int_t)hparams[i].value)
                                  : json_real(hparams[i].value));
    }
    type_sums sums = sum_types(files);
    for (int i = 0; i <= DU_DTYPE_COUNT; i++) {
        if (sums.n[i] > 0) {
            json_object_set_new(types, type_name(i),
                                json_pack("{s:I, s:I}", "tensors", (json_int_t)sums.n[i], "bytes",
                                          (json_int_t)sums.bytes[i]));
        }
    }
    json_t *memory = json_memory(model, counts.bytes, diag);
    if (!memory) {
        json_decref(hp);
        json_decref(types);
        return diag->code;
    }
    json_t *all = json_pack(
        "{s:s, s:s, s:I, s:s, s:o, s:I, s:I, s:I, s:I, s:o, s:o}", "path", du_weights_path(files),
        "format", du_weights_gguf(files) ? "gguf" : "safetensors", "file_bytes",
        (json_int_t)du_weights_file_bytes(files), "architecture", model->arch->name, "hparams", hp,
        "params", (json_int_t)counts.n_params, "params_active", (json_int_t)counts.n_params_active,
        "weights_bytes", (json_int_t)counts.bytes, "bytes_per_token",
        (json_int_t)counts.bytes_per_token, "types", types, "memory", memory);
    if (all && list_tensors) {
        json_object_set_new(all, "tensors", json_tensors(files));
    }
    if (all && list_keys) {
        json_object_set_new(all, "keys", json_keys(du_weights_gguf(files)));
    }
    return du_cli_print_json(all, diag);
}

static du_cli_status run(int n_args, char **args, du_diag *diag) {
    du_model *model = NULL;
    du_err err = du_cli_model_open(&model, n_args > 0 ? args[0] : NULL, diag);
    if (err == DU_OK) {
        err = as_json ? print_json(model, diag) : print_text(model, diag);
    }
    du_model_close(model);
    return du_cli_fail(err);
}

const du_cli_command du_cli_inspect = {
    .name = "inspect",
    .args = "[MODEL]",
    .summary = "describe a model",
    .about = "Prints what a model is: hyper-parameters, number types and sizes of its tensors, the "
             "memory it needs at a length of context (--ctx, --cache-type), and the bytes it reads "
             "to decode one token.",
    .example = "dure inspect model.gguf -c 32k --cache-type q8_0\n"
               "dure inspect model.gguf --json --tensors",
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .computes = DU_CLI_COMPUTES_ALL,
    .n_args_max = 1,
    .run = run,
};
