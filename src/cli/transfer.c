/* A container holds more than weights: the tokenizer, chat templates, how to sample. From GGUF to
 * GGUF the other keys are copied as they are, from directory to directory the other files; between
 * the two the tokenizer is written in the other's form.
 *
 * A directory gets config.json last: with it, it is a model. */
#include "cli/transfer.h"

#include <string.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "cli/interrupt.h"
#include "infer/lm.h"
#include "text/tokenizer_write.h"

enum { QUANTIZATION_VERSION = 2 }; /* of the block layouts, as GGUF files state it */

typedef struct {
    const du_cli_transfer *t;
    du_cli_progress bar;
} job;

static du_dtype choose(void *user, const du_out_tensor *out) {
    const du_cli_transfer *t = ((const job *)user)->t;
    return t->choose ? t->choose((void *)(uintptr_t)t->choose_user, out)
                     : du_choose_keep(NULL, out);
}

static const float *importance(void *user, const du_out_tensor *out, int64_t i_matrix) {
    const du_cli_transfer *t = ((const job *)user)->t;
    return t->importance((void *)(uintptr_t)t->importance_user, out, i_matrix);
}

static bool progress(void *user, int64_t bytes_done, int64_t bytes_all) {
    job *j = user;
    j->bar.total = bytes_all;
    du_cli_progress_set(&j->bar, bytes_done);
    return du_cli_interrupted();
}

json_t *du_cli_json_types(const du_convert_stats *stats) {
    json_t *types = json_object();
    for (int i = 0; i < DU_DTYPE_COUNT; i++) {
        if (stats->bytes_of[i] > 0) {
            json_object_set_new(types, du_dtype_get((du_dtype)i)->name,
                                json_integer(stats->bytes_of[i]));
        }
    }
    return types;
}

bool du_cli_is_gguf_name(const char *path) {
    return du_sv_ends(du_sv_of(path), ".gguf");
}

du_cli_status du_cli_transfer_check(const char *in, const char *input, const char *output,
                                    const char *gguf_type, du_diag *diag) {
    bool gguf = du_cli_is_gguf_name(output);
    if (!gguf && gguf_type) {
        return du_cli_misuse(diag, "--type %s: safetensors have no such type; name a .gguf file",
                             gguf_type);
    }
    if (!gguf && du_file_exists(output)) {
        return du_cli_misuse(diag, "%s: a file that does not end in .gguf; name a directory",
                             output);
    }
    return du_same_file(input, output) ? du_cli_misuse(diag, "%s and OUT are both %s", in, output)
                                       : DU_CLI_DONE;
}

/* Keys that the conversion writes itself, or that described the source file. */
static bool is_own_key(const char *key, const char *arch) {
    static const char *const names[] = {"general.architecture", "general.file_type",
                                        "general.quantization_version", "general.alignment"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(key, names[i]) == 0) {
            return true;
        }
    }
    size_t n = strlen(arch);
    return strncmp(key, "split.", 6) == 0 || (strncmp(key, arch, n) == 0 && key[n] == '.');
}

static void copy_keys(du_gguf_writer *w, const du_gguf *g, const char *arch) {
    for (int64_t i = 0; i < du_gguf_n_keys(g); i++) {
        const du_gguf_kv *kv = du_gguf_key(g, i);
        if (!is_own_key(kv->name, arch)) {
            du_gguf_put_kv(w, kv);
        }
    }
}

/* The default template under its key, the others under theirs, and the list of their names. */
static du_err put_templates(du_gguf_writer *w, const du_hf *hf, du_diag *diag) {
    int64_t n = du_hf_n_templates(hf), n_named = 0;
    du_sv *names = du_alloc_array((size_t)n, sizeof *names);
    if (!names) {
        return du_fail_nomem(diag, "the chat templates");
    }
    for (int64_t i = 0; i < n; i++) {
        const char *name = du_hf_template_name(hf, i);
        char key[256] = "tokenizer.chat_template";
        if (strcmp(name, "default") != 0 && n > 1) {
            snprintf(key, sizeof key, "tokenizer.chat_template.%s", name);
            names[n_named++] = du_sv_of(name);
        }
        du_gguf_put_str(w, key, du_sv_of(du_hf_template(hf, i)));
    }
    if (n_named > 0) {
        du_gguf_put_strs(w, "tokenizer.chat_templates", names, n_named);
    }
    du_free(names);
    return DU_OK;
}

static void put_id(du_gguf_writer *w, const char *key, int32_t id) {
    if (id >= 0) {
        du_gguf_put_u32(w, key, (uint32_t)id);
    }
}

/* End tokens that only the directory's configs name take the places that GGUF has besides eos. */
static void place_ends(du_tokenizer_info *info, const du_tokenizer *tok, const du_hf *hf) {
    int32_t ends[DU_LM_END_TOKENS_MAX];
    int64_t n = du_lm_end_tokens(hf, ends, DU_LM_END_TOKENS_MAX);
    int32_t *places[] = {&info->eos, &info->eot, &info->eom};
    for (int64_t i = 0; i < n; i++) {
        bool placed = ends[i] >= info->n_vocab || du_tokenizer_is_eog(tok, ends[i]);
        for (size_t k = 0; k < sizeof places / sizeof *places && !placed; k++) {
            *places[k] = *places[k] < 0 ? ends[i] : *places[k];
            placed = *places[k] == ends[i];
        }
        if (!placed) {
            du_cli_note("GGUF has no key for the end token %d: answers will not end with it",
                        ends[i]);
        }
    }
}

/* The keys tokenizer.ggml.* (text/tokenizer_gguf.c says what they mean). */
static du_err put_tokenizer(du_gguf_writer *w, const du_tokenizer *tok, const du_hf *hf,
                            int64_t n_vocab, du_diag *diag) {
    du_tokenizer_tables t;
    du_err err = du_tokenizer_tables_make(&t, tok, n_vocab, diag);
    if (err != DU_OK) {
        return err;
    }
    du_tokenizer_info own = *du_tokenizer_get_info(tok), *info = &own;
    place_ends(info, tok, hf);
    du_gguf_put_str(w, "tokenizer.ggml.model", du_sv_of(t.model));
    du_gguf_put_str(w, "tokenizer.ggml.pre", du_sv_of(t.pre));
    du_gguf_put_strs(w, "tokenizer.ggml.tokens", t.tokens, t.n_tokens);
    du_gguf_put_array(w, "tokenizer.ggml.token_type", DU_GGUF_I32, t.types, t.n_tokens);
    if (t.scores) {
        du_gguf_put_array(w, "tokenizer.ggml.scores", DU_GGUF_F32, t.scores, t.n_tokens);
        du_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", info->add_space_prefix);
    } else {
        du_gguf_put_strs(w, "tokenizer.ggml.merges", t.merges, t.n_merges);
    }
    put_id(w, "tokenizer.ggml.bos_token_id", info->bos);
    put_id(w, "tokenizer.ggml.eos_token_id", info->eos);
    put_id(w, "tokenizer.ggml.eot_token_id", info->eot);
    put_id(w, "tokenizer.ggml.eom_token_id", info->eom);
    put_id(w, "tokenizer.ggml.unknown_token_id", info->unk);
    put_id(w, "tokenizer.ggml.padding_token_id", info->pad);
    put_id(w, "tokenizer.ggml.fim_pre_token_id", info->fim_prefix);
    put_id(w, "tokenizer.ggml.fim_suf_token_id", info->fim_suffix);
    put_id(w, "tokenizer.ggml.fim_mid_token_id", info->fim_middle);
    du_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", info->add_bos);
    du_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", info->add_eos);
    if (t.lost) {
        du_cli_note("GGUF has no key for %s of the tokenizer: it is left out", t.lost);
    }
    du_tokenizer_tables_done(&t);
    return DU_OK;
}

/* What generation_config.json recommends. */
static du_err put_sampling(du_gguf_writer *w, const du_hf *hf, du_diag *diag) {
    du_sampler_params p;
    if (!du_hf_generation_config(hf)) {
        return DU_OK;
    }
    du_err err = du_lm_read_sampling(&p, NULL, hf, diag);
    if (err == DU_OK) {
        du_gguf_put_f32(w, "general.sampling.temp", (float)p.temperature);
        du_gguf_put_f32(w, "general.sampling.top_p", (float)p.top_p);
        du_gguf_put_f32(w, "general.sampling.min_p", (float)p.min_p);
        du_gguf_put_i32(w, "general.sampling.top_k", (int32_t)p.top_k);
    }
    return err;
}

static du_err describe_hf(du_gguf_writer *w, const du_model *model, const du_hf *hf,
                          du_diag *diag) {
    du_gguf_put_str(w, "general.type", du_sv_of("model"));
    du_gguf_put_str(w, "general.name", du_path_last(du_sv_of(du_hf_dir(hf))));
    du_tokenizer *tok;
    du_err err = du_tokenizer_from_dir(&tok, du_hf_dir(hf), diag);
    if (err == DU_OK) {
        err = put_tokenizer(w, tok, hf, model->hp.n_vocab, diag);
        du_tokenizer_free(tok);
    }
    err = err ? err : put_sampling(w, hf, diag);
    return err ? err : put_templates(w, hf, diag);
}

static du_err to_gguf(const du_cli_transfer *t, const du_convert_params *params,
                      du_convert_stats *stats, du_diag *diag) {
    const du_gguf *g = du_weights_gguf(t->model->files);
    du_gguf_writer *w;
    du_err err = du_gguf_writer_new(&w, diag);
    if (err != DU_OK) {
        return err;
    }
    if (g) {
        copy_keys(w, g, t->model->arch->name);
    } else {
        err = describe_hf(w, t->model, du_weights_hf(t->model->files), diag);
    }
    if (t->file_type >= 0) {
        du_gguf_put_u32(w, "general.file_type", (uint32_t)t->file_type);
    }
    du_gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
    err = err ? err : du_convert_gguf(t->model, w, t->output, params, stats, diag);
    du_gguf_writer_close(w);
    return err;
}

/* eos_token_id: one number, or the list of all that end an answer. */
static du_err put_ends(du_companions *c, const du_tokenizer_info *info, du_diag *diag) {
    const int32_t all[] = {info->eos, info->eot, info->eom};
    json_t *ends = json_array();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bool there = all[i] < 0;
        for (size_t k = 0; k < i; k++) {
            there = there || all[k] == all[i];
        }
        if (!there) {
            json_array_append_new(ends, json_integer(all[i]));
        }
    }
    size_t n = json_array_size(ends);
    du_err err = DU_OK;
    if (n > 0) {
        json_t *value = n == 1 ? json_array_get(ends, 0) : ends;
        err = du_companions_set(c, "eos_token_id", json_incref(value), diag);
    }
    json_decref(ends);
    return err;
}

/* The tokens that begin and end, for config.json. */
static du_err put_ids(du_companions *c, const du_tokenizer *tok, du_diag *diag) {
    const du_tokenizer_info *info = du_tokenizer_get_info(tok);
    du_err err =
        info->bos < 0 ? DU_OK : du_companions_set(c, "bos_token_id", json_integer(info->bos), diag);
    return err ? err : put_ends(c, info, diag);
}

static du_err add_tokenizer(du_companions *c, const du_tokenizer *tok, du_diag *diag) {
    json_t *json = NULL, *config = NULL;
    du_err err = du_tokenizer_to_json(tok, &json, diag);
    err = err ? err : du_tokenizer_config_to_json(tok, &config, diag);
    err = err ? err : du_companions_add_json(c, "tokenizer.json", json, diag);
    err = err ? err : du_companions_add_json(c, "tokenizer_config.json", config, diag);
    json_decref(json);
    json_decref(config);
    return err ? err : put_ids(c, tok, diag);
}

/* Out of a GGUF file's keys. */
static du_err companions_of_gguf(du_companions *c, const du_gguf *g, du_diag *diag) {
    du_tokenizer *tok;
    du_err err = du_tokenizer_from_gguf(&tok, g, diag);
    if (err != DU_OK) {
        return err;
    }
    err = add_tokenizer(c, tok, diag);
    du_tokenizer_free(tok);
    du_sv text = {NULL, 0};
    err = err ? err : du_gguf_get_str(g, "tokenizer.chat_template", &text, diag);
    return !err && text.s ? du_companions_add(c, "chat_template.jinja", text.s, text.len, diag)
                          : err;
}

du_err du_cli_companions_of(du_companions *c, const du_weights *files, du_diag *diag) {
    const du_gguf *g = du_weights_gguf(files);
    if (g) {
        return companions_of_gguf(c, g, diag);
    }
    const du_hf *hf = du_weights_hf(files);
    du_err err = du_companions_read(c, du_hf_dir(hf), diag);
    return err ? err : du_companions_take_ids(c, du_hf_config(hf), diag);
}

du_err du_cli_companions_of_dir(du_companions *c, const char *dir, du_diag *diag) {
    du_tokenizer *tok = NULL;
    du_err err = du_tokenizer_from_dir(&tok, dir, diag);
    err = err ? err : put_ids(c, tok, diag);
    du_tokenizer_free(tok);
    return err ? err : du_companions_read(c, dir, diag);
}

/* A directory without a model: files of two models in one would fit neither. */
static du_err make_dir(const char *dir, du_diag *diag) {
    char *config = du_path_join(dir, "config.json");
    du_err err = !config                  ? du_fail_nomem(diag, "the name of a file")
                 : du_file_exists(config) ? du_fail(diag, DU_EEXIST,
                                                    "%s: holds a model already: name another "
                                                    "directory",
                                                    dir)
                                          : du_dir_make(dir, diag);
    du_free(config);
    return err;
}

static du_err to_hf(const du_cli_transfer *t, const du_convert_params *params,
                    du_convert_stats *stats, du_diag *diag) {
    du_companions c = {0};
    du_err err = make_dir(t->output, diag);
    err = err ? err : du_cli_companions_of(&c, t->model->files, diag);
    err = err ? err : du_companions_write(&c, t->output, diag);
    err = err ? err : du_convert_hf(t->model, t->output, c.config, params, stats, diag);
    du_companions_done(&c);
    return err;
}

du_err du_cli_transfer_run(const du_cli_transfer *t, du_convert_stats *stats, du_diag *diag) {
    job j = {.t = t, .bar = du_cli_progress_start(t->label, 0)};
    du_pool *pool = NULL;
    du_err err =
        du_pool_new(&pool, t->n_threads > 0 ? t->n_threads : du_cpu_n_cores(), false, diag);
    if (err == DU_OK) {
        du_convert_params params = {.choose = choose,
                                    .importance = t->importance ? importance : NULL,
                                    .progress = progress,
                                    .pool = pool,
                                    .user = &j};
        du_cli_interrupt_catch(true);
        err = du_cli_is_gguf_name(t->output) ? to_gguf(t, &params, stats, diag)
                                             : to_hf(t, &params, stats, diag);
        du_cli_interrupt_catch(false);
        du_cli_progress_end(&j.bar);
    }
    du_pool_free(pool);
    return err;
}
