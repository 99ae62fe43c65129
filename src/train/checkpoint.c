/* Checkpoints of a run.
 *
 *     step-000200/
 *         model.safetensors    weights, F32 (or shards and their index)
 *         config.json
 *         tokenizer.json, ...  what goes with them
 *         state.safetensors    per weight NAME what the optimizer has of it: m.NAME, v.NAME,
 * mean.NAME state.json           where the run stands; each other file's length and checksum
 *
 * With lora.rank there are adapter_model.safetensors and adapter_config.json (model/lora.h) instead
 * of the model and its config.json, and "base" in state.json, a checksum of the frozen model.
 *
 *     state.json = {"format": "dure training state", "version": 1, "step", "micro_batch", "data":
 *                   a checksum, "best": {"step", "loss"} or null,
 *                   "smooth": {"sum", "weight", "seen", "high"} (train/spike.h),
 *                   "config": {key: text}, the keys that alter results,
 *                   "files": {name: {"bytes", "checksum"}}, "checksum": of all of this but itself}
 *
 * The bytes depend on the run alone: not on how often it was stopped, on threads, or on where OUT
 * lies. A checkpoint is made as step-000200.tmp: every file is synced, then the folder, which is
 * renamed; then OUT is synced. One that goes is renamed to step-000200.old first. So a process that
 * is killed leaves whole checkpoints and folders that du_checkpoint_clean knows by name.
 *
 * Nothing in a file is trusted when it is read: lengths, checksums, names, shapes and types are
 * compared with what the model's shape asks for. Only files that a checkpoint has are ever removed.
 */
#include "train/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/dir.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "formats/hf.h"
#include "formats/safetensors.h"
#include "model/convert.h"
#include "model/lora.h"

#define ADAPTER_CONFIG "adapter_config.json"
static const char format_name[] = "dure training state";
enum { VERSION = 1, STATE_BYTES_MAX = 1 << 20, N_BLOCKS = 3 };

char *du_checkpoint_name(char *out, int64_t step) {
    snprintf(out, DU_CHECKPOINT_NAME_BYTES, "step-%06" PRId64, step);
    return out;
}

/* OUT/step-NNNNNN with something behind it; NULL when memory is short. */
static char *path_of(const char *out, int64_t step, const char *ending) {
    char name[DU_CHECKPOINT_NAME_BYTES + 8];
    du_checkpoint_name(name, step);
    size_t n = strlen(name);
    snprintf(name + n, sizeof name - n, "%s", ending);
    return du_path_join(out, name);
}

/* The step in the name of a checkpoint's folder; -1: it is none. */
static int64_t step_of(const char *name) {
    char again[DU_CHECKPOINT_NAME_BYTES];
    int64_t step;
    bool good = sscanf(name, "step-%10" SCNd64, &step) == 1 && step > 0 &&
                strcmp(du_checkpoint_name(again, step), name) == 0;
    return good ? step : -1;
}

/* What the optimizer keeps per weight, by the name it has in state.safetensors. */
typedef struct {
    const char *prefix;
    float *values; /* [n_values] */
} block;

/* blocks [N_BLOCKS] out. Returns how many there are. */
static int64_t list_blocks(block *blocks, const du_optim *optim) {
    const block all[N_BLOCKS] = {{"m.", optim->m}, {"v.", optim->v}, {"mean.", optim->mean}};
    int64_t n = 0;
    for (int i = 0; i < N_BLOCKS; i++) {
        if (all[i].values) {
            blocks[n++] = all[i];
        }
    }
    return n;
}

enum { NAME_BYTES = DU_WEIGHT_NAME_BYTES + 8 };

static const char *name_in(char out[NAME_BYTES], const block *b, const du_param *t) {
    snprintf(out, NAME_BYTES, "%s%s", b->prefix, t->name);
    return out;
}

/* Shape in files: a vector has one dimension. Returns the number of them. */
static int32_t shape_of(const du_param *t, int64_t dims[2]) {
    bool vector = t->def->kind == DU_WEIGHT_VEC;
    dims[0] = vector ? t->cols : t->rows;
    dims[1] = t->cols;
    return vector ? 1 : 2;
}

static size_t bytes_of(const du_param *t) {
    return (size_t)(t->rows * t->cols) * sizeof(float);
}

static int64_t n_values_max(const du_params *p) {
    int64_t most = 0;
    for (int64_t i = 0; i < p->n; i++) {
        int64_t n = p->at[i].rows * p->at[i].cols;
        most = n > most ? n : most;
    }
    return most;
}

/* Begins state.safetensors in dir. The tensors, all F32, are wanted in the order of their numbers.
 */
static du_err begin_blocks(du_st_writer **out, const du_checkpoint *c, const char *dir,
                           du_diag *diag) {
    block blocks[N_BLOCKS];
    const du_params *p = c->params;
    int64_t n = list_blocks(blocks, c->optim), dims[2];
    du_err err = du_st_writer_new(out, diag);
    if (err != DU_OK) {
        return err;
    }
    du_st_writer_name(*out, "state");
    for (int64_t i = 0; i < n * p->n; i++) {
        char name[NAME_BYTES];
        const du_param *t = &p->at[i % p->n];
        int32_t n_dims = shape_of(t, dims);
        du_st_put_tensor(*out, name_in(name, &blocks[i / p->n], t), DU_F32, n_dims, dims);
    }
    return du_st_writer_begin(*out, dir, INT64_MAX, diag);
}

/* What rank 0 writes of the others' values. */
typedef struct {
    const du_checkpoint *c;
    float *whole;    /* one tensor, at rank 0 */
    du_span *owners; /* [ranks] */
    int64_t next;    /* of the tensors that rank 0 has not: the first that it has not got */
} collection;

static void collection_done(collection *k) {
    du_free(k->whole);
    du_free(k->owners);
    *k = (collection){0};
}

/* Nothing for one rank that is alone. */
static du_err collection_init(collection *k, const du_checkpoint *c, du_diag *diag) {
    du_ranks *ranks = c->optim->ranks;
    bool first = du_ranks_rank(ranks) == 0;
    *k = (collection){.c = c};
    if (!ranks) {
        return DU_OK;
    }
    k->owners = du_alloc_array((size_t)du_ranks_n(ranks), sizeof *k->owners);
    k->whole = first ? du_alloc_array((size_t)n_values_max(c->params), sizeof *k->whole) : NULL;
    return k->owners && (k->whole || !first) ? DU_OK : du_fail_nomem(diag, "a checkpoint");
}

/* A tensor of the block `values` from those who own parts of it, to rank 0. */
static du_err collect(collection *k, float *to, const float *values, const du_param *t,
                      du_diag *diag) {
    const du_optim *o = k->c->optim;
    du_span wanted = {t->offset, t->offset + t->rows * t->cols};
    du_optim_owners(o, t, k->owners);
    return du_ranks_collect(o->ranks, to, values, k->owners, wanted, diag);
}

/* What the ranks own of all tensors, to rank 0, which writes them; w NULL at the others. A tensor
 * is collected in k->whole, which one rank that is alone does without. */
static du_err put_blocks(collection *k, du_st_writer *w, du_diag *diag) {
    const du_checkpoint *c = k->c;
    block blocks[N_BLOCKS];
    const du_params *p = c->params;
    const du_optim *o = c->optim;
    int64_t n = list_blocks(blocks, o);
    du_err err = DU_OK;
    for (int64_t i = 0; i < n * p->n && err == DU_OK; i++) {
        const du_param *t = &p->at[i % p->n];
        const float *values = blocks[i / p->n].values;
        if (o->ranks) {
            err = collect(k, k->whole, values, t, diag);
        }
        if (w && err == DU_OK && du_st_writer_next(w) == i) {
            du_st_write(w, o->ranks ? k->whole : values + t->offset, bytes_of(t));
        }
    }
    return err;
}

/* state.safetensors, where the optimizer has a state. `before` is what happened to the files before
 * it: the other ranks are told. */
static du_err write_blocks(const du_checkpoint *c, const char *dir, du_err before, du_diag *diag) {
    block blocks[N_BLOCKS];
    du_ranks *ranks = c->optim->ranks;
    bool first = du_ranks_rank(ranks) == 0, any = list_blocks(blocks, c->optim) > 0;
    du_st_writer *w = NULL;
    collection k = {0};
    du_err err = before ? before : collection_init(&k, c, diag);
    if (err == DU_OK && first && any) {
        err = begin_blocks(&w, c, dir, diag);
    }
    err = du_ranks_agree(ranks, err, diag);
    err = err ? err : put_blocks(&k, w, diag);
    if (err == DU_OK && w) {
        err = du_st_writer_commit(w, diag);
    }
    du_st_writer_close(w);
    collection_done(&k);
    return err;
}

/* Checksum and length of dir/name. */
static du_err sum_file(const char *dir, const char *name, uint64_t *sum, int64_t *n_bytes,
                       du_diag *diag) {
    char *path = du_path_join(dir, name);
    du_map map;
    du_err err = path ? du_map_open(&map, path, diag) : du_fail_nomem(diag, name);
    if (err == DU_OK) {
        *sum = du_checksum(0, map.data, map.len);
        *n_bytes = (int64_t)map.len;
        du_map_close(&map);
    }
    du_free(path);
    return err;
}

enum { SUM_BYTES = 24 };

static const char *sum_text(char out[SUM_BYTES], uint64_t sum) {
    snprintf(out, SUM_BYTES, "%016" PRIx64, sum);
    return out;
}

/* {name: {"bytes", "checksum"}} of all files in the folder. */
static du_err sum_files(json_t **out, const char *dir, du_diag *diag) {
    du_names names = {0};
    json_t *files = json_object();
    du_err err = files ? du_dir_names(&names, dir, diag) : du_fail_nomem(diag, dir);
    for (size_t i = 0; i < names.n && err == DU_OK; i++) {
        uint64_t sum;
        int64_t n_bytes;
        char text[SUM_BYTES];
        err = sum_file(dir, names.items[i], &sum, &n_bytes, diag);
        if (err == DU_OK &&
            json_object_set_new(files, names.items[i],
                                json_pack("{s:I, s:s}", "bytes", (json_int_t)n_bytes, "checksum",
                                          sum_text(text, sum))) != 0) {
            err = du_fail_nomem(diag, dir);
        }
    }
    du_names_done(&names);
    if (err != DU_OK) {
        json_decref(files);
        return err;
    }
    *out = files;
    return DU_OK;
}

static int add_bytes(const char *bytes, size_t n, void *text) {
    du_str_add(text, bytes, n);
    return 0;
}

/* The checksum of an object, whatever the order of its keys. */
static du_err sum_json(uint64_t *sum, const json_t *value, du_diag *diag) {
    du_str text = {0};
    int failed = json_dump_callback(value, add_bytes, &text, JSON_COMPACT | JSON_SORT_KEYS);
    *sum = du_checksum(0, du_str_get(&text), text.len);
    du_err err = failed || text.failed ? du_fail_nomem(diag, "state.json") : DU_OK;
    du_str_done(&text);
    return err;
}

static json_t *json_of_state(const du_checkpoint *c, const du_train_state *s, json_t *files) {
    char data[SUM_BYTES], base[SUM_BYTES];
    json_t *best = s->best_step > 0 ? json_pack("{s:I, s:f}", "step", (json_int_t)s->best_step,
                                                "loss", s->best_loss)
                                    : json_null();
    json_t *smooth =
        json_pack("{s:f, s:f, s:I, s:I}", "sum", s->spike.sum, "weight", s->spike.weight, "seen",
                  (json_int_t)s->spike.n_seen, "high", (json_int_t)s->spike.n_high);
    json_t *json =
        json_pack("{s:s, s:i, s:I, s:I, s:s, s:o, s:o, s:o, s:o}", "format", format_name, "version",
                  VERSION, "step", (json_int_t)s->step, "micro_batch", (json_int_t)s->micro_batch,
                  "data", sum_text(data, s->data), "best", best, "smooth", smooth, "config",
                  du_train_config_kept(c->config), "files", files);
    if (json && s->base != 0 &&
        json_object_set_new(json, "base", json_string(sum_text(base, s->base))) != 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

static du_err write_state(const du_checkpoint *c, const char *dir, const du_train_state *state,
                          du_diag *diag) {
    json_t *files = NULL;
    char text[SUM_BYTES], *path = du_path_join(dir, "state.json");
    du_err err = path ? sum_files(&files, dir, diag) : du_fail_nomem(diag, dir);
    if (err != DU_OK) {
        du_free(path);
        return err;
    }
    json_t *json = json_of_state(c, state, files);
    uint64_t sum = 0;
    err = json ? sum_json(&sum, json, diag) : du_fail_nomem(diag, "state.json");
    if (err == DU_OK &&
        json_object_set_new(json, "checksum", json_string(sum_text(text, sum))) != 0) {
        err = du_fail_nomem(diag, "state.json");
    }
    err = err ? err : du_json_save(json, path, diag);
    json_decref(json);
    du_free(path);
    return err;
}

/* A file that du_checkpoint_save writes, or a temporary one that becomes it. */
static bool is_ours(const char *name) {
    static const char *const names[] = {"config.json",
                                        "state.json",
                                        "state.safetensors",
                                        "model.safetensors",
                                        "model.safetensors.index.json",
                                        "adapter_model.safetensors",
                                        ADAPTER_CONFIG};
    char whole[64];
    const char *tmp = strstr(name, ".tmp-");
    size_t n = tmp && strlen(tmp) == 13 ? (size_t)(tmp - name) : strlen(name);
    snprintf(whole, sizeof whole, "%.*s", (int)(n < sizeof whole ? n : sizeof whole - 1), name);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(whole, names[i]) == 0) {
            return true;
        }
    }
    int i_shard, n_shards, end = 0;
    bool shard = sscanf(whole, "model-%5d-of-%5d.safetensors%n", &i_shard, &n_shards, &end) == 2 &&
                 end == 32 && whole[end] == '\0';
    return shard || du_companions_has_name(whole);
}

/* The names in a folder that holds nothing but files of ours. */
static du_err list_ours(du_names *names, const char *dir, du_diag *diag) {
    du_err err = du_dir_names(names, dir, diag);
    for (size_t i = 0; i < names->n && err == DU_OK; i++) {
        if (!is_ours(names->items[i])) {
            err = du_fail(diag, DU_EEXIST, "%s: holds %s, which belongs to no checkpoint", dir,
                          names->items[i]);
        }
    }
    return err;
}

/* What is not there is no error. */
static du_err remove_dir(const char *dir, du_diag *diag) {
    du_names names = {0};
    if (!du_dir_exists(dir)) {
        return DU_OK;
    }
    du_err err = list_ours(&names, dir, diag);
    for (size_t i = 0; i < names.n && err == DU_OK; i++) {
        char *path = du_path_join(dir, names.items[i]);
        err = path ? du_dir_remove(path, diag) : du_fail_nomem(diag, dir);
        du_free(path);
    }
    du_names_done(&names);
    return err ? err : du_dir_remove(dir, diag);
}

du_err du_checkpoint_check_ours(const char *out, int64_t step, du_diag *diag) {
    char *dir = path_of(out, step, "");
    du_names names = {0};
    du_err err = dir ? list_ours(&names, dir, diag) : du_fail_nomem(diag, out);
    du_names_done(&names);
    du_free(dir);
    return err;
}

du_err du_checkpoint_remove(const char *out, int64_t step, du_diag *diag) {
    char *dir = path_of(out, step, ""), *old = path_of(out, step, ".old");
    du_err err = dir && old ? du_checkpoint_check_ours(out, step, diag) : du_fail_nomem(diag, out);
    err = err ? err : remove_dir(old, diag);
    err = err ? err : du_dir_rename(dir, old, diag);
    err = err ? err : remove_dir(old, diag);
    du_free(dir);
    du_free(old);
    return err;
}

/* Is it a name that a checkpoint has while it is made or removed? */
static bool is_passing(const char *name) {
    char stem[DU_CHECKPOINT_NAME_BYTES];
    du_sv text = du_sv_of(name);
    if (text.len > sizeof stem || (!du_sv_ends(text, ".tmp") && !du_sv_ends(text, ".old"))) {
        return false;
    }
    snprintf(stem, sizeof stem, "%.*s", (int)(text.len - 4), name);
    return step_of(stem) > 0;
}

du_err du_checkpoint_clean(const char *out, du_diag *diag) {
    du_names names = {0};
    du_err err = du_dir_names(&names, out, diag);
    for (size_t i = 0; i < names.n && err == DU_OK; i++) {
        if (is_passing(names.items[i])) {
            char *path = du_path_join(out, names.items[i]);
            err = path ? remove_dir(path, diag) : du_fail_nomem(diag, out);
            du_free(path);
        }
    }
    du_names_done(&names);
    return err;
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A folder itself, no link to one. */
static bool is_folder(const char *out, const char *name) {
    char *path = du_path_join(out, name);
    struct stat st;
    bool folder = path && lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
    du_free(path);
    return folder;
}

du_err du_checkpoint_list(int64_t **steps, size_t *n, const char *out, du_diag *diag) {
    du_names names = {0};
    du_err err = du_dir_names(&names, out, diag);
    if (err != DU_OK) {
        return err;
    }
    int64_t *found = du_alloc_array(names.n + 1, sizeof *found);
    size_t n_found = 0;
    for (size_t i = 0; i < names.n && found; i++) {
        int64_t step = step_of(names.items[i]);
        if (step > 0 && is_folder(out, names.items[i])) {
            found[n_found++] = step;
        }
    }
    du_names_done(&names);
    if (!found) {
        return du_fail_nomem(diag, out);
    }
    qsort(found, n_found, sizeof *found, by_number);
    *steps = found;
    *n = n_found;
    return DU_OK;
}

du_err du_checkpoint_prune(const char *out, const du_train_state *state, int64_t keep,
                           du_diag *diag) {
    int64_t *steps = NULL;
    size_t n = 0;
    du_err err = du_checkpoint_list(&steps, &n, out, diag);
    int64_t n_before = 0; /* how many are not behind this step */
    for (size_t i = 0; i < n; i++) {
        n_before += steps[i] <= state->step;
    }
    for (size_t i = 0; i < n && err == DU_OK; i++) {
        bool behind = steps[i] > state->step, stays = (int64_t)i >= n_before - keep;
        if (behind || (!stays && steps[i] != state->best_step)) {
            du_diag why;
            du_diag_reset(&why);
            err = du_checkpoint_remove(out, steps[i], &why);
            err = err == DU_EEXIST || err == DU_OK ? DU_OK : du_fail(diag, err, "%s", why.msg);
        }
    }
    du_free(steps);
    return err;
}

/* The first tensor from number i on that rank 0 has not. */
static int64_t next_spread(const du_checkpoint *c, int64_t i) {
    bool spread = du_params_is_spread(c->params);
    int64_t n_expert = c->params->model->hp.router.n_expert;
    int64_t end = du_spread_first(n_expert, 1, du_ranks_n(c->optim->ranks));
    while (i < c->params->n && (!spread || c->params->at[i].expert < end)) {
        i++;
    }
    return i;
}

/* The next tensor that rank 0 has not, from its owner; `to` is not read at the others. */
static du_err collect_next(collection *k, float *to, du_diag *diag) {
    const du_param *t = &k->c->params->at[k->next];
    du_err err = collect(k, to, k->c->params->values, t, diag);
    k->next = next_spread(k->c, k->next + 1);
    return err;
}

/* Tensors are written in the order of the table. */
static du_err fetch(void *user, const du_out_tensor *t, float *rows, du_diag *diag) {
    collection *k = user;
    DU_CHECK(strcmp(k->c->params->at[k->next].name, t->name) == 0);
    return collect_next(k, rows, diag);
}

/* Where experts are spread rank 0 fetches those that it has not; the others send them, also when it
 * cannot write. */
static du_err send_experts(collection *k, du_err before, du_diag *diag) {
    du_err err = DU_OK;
    while (err == DU_OK && k->next < k->c->params->n) {
        err = collect_next(k, k->whole, diag);
    }
    return before ? before : err;
}

static du_err convert(const char *dir, const du_checkpoint *c, collection *k, du_diag *diag) {
    du_convert_params params = {.pool = c->pool, .fetch = fetch, .user = k};
    du_convert_stats stats;
    return du_convert_hf(c->params->model, dir, c->companions->config, &params, &stats, diag);
}

/* The model at rank 0, `before` as in write_blocks; a rank that is told of an error is done. */
static du_err write_model(const char *dir, const du_checkpoint *c, du_err before, du_diag *diag) {
    const du_train_config *config = c->config;
    bool first = du_ranks_rank(c->optim->ranks) == 0;
    collection k = {0};
    if (c->params->adapters) {
        return before || !first ? before
                                : du_lora_write(c->params, dir, config->init, config->lora.targets,
                                                du_train_config_lora_alpha(config), diag);
    }
    du_err err = before ? before : collection_init(&k, c, diag);
    err = du_ranks_agree_within(c->optim->ranks, err, diag);
    if (err == DU_OK) {
        k.next = next_spread(c, 0);
        err = first ? convert(dir, c, &k, diag) : DU_OK;
        err = send_experts(&k, err, diag);
    }
    collection_done(&k);
    return err;
}

static du_err write_all(const char *dir, const du_checkpoint *c, const du_train_state *state,
                        du_diag *diag) {
    du_err err = write_model(dir, c, du_dir_make(dir, diag), diag);
    err = err ? err : du_companions_write(c->companions, dir, diag);
    err = write_blocks(c, dir, err, diag);
    err = err ? err : write_state(c, dir, state, diag);
    return err ? err : du_dir_sync(dir, diag);
}

/* What rank 0 does. */
static du_err save(const char *out, const du_checkpoint *c, const du_train_state *state,
                   du_diag *diag) {
    char *dir = path_of(out, state->step, ""), *tmp = path_of(out, state->step, ".tmp");
    du_err err = dir && tmp ? remove_dir(tmp, diag) : du_fail_nomem(diag, out);
    if (err != DU_OK) {
        err = write_blocks(c, NULL, write_model(NULL, c, err, diag), diag);
    } else {
        err = write_all(tmp, c, state, diag);
        if (err == DU_OK && du_dir_exists(dir)) {
            err = du_checkpoint_remove(out, state->step, diag);
        }
        err = err ? err : du_dir_rename(tmp, dir, diag);
        err = err ? err : du_dir_sync(out, diag);
        if (err != DU_OK) {
            du_err ignored = remove_dir(tmp, NULL); /* room on a full disk */
            (void)ignored;
        }
    }
    du_free(dir);
    du_free(tmp);
    return err;
}

du_err du_checkpoint_save(const char *out, const du_checkpoint *c, const du_train_state *state,
                          du_diag *diag) {
    du_ranks *ranks = c->optim->ranks;
    du_err err;
    if (du_ranks_rank(ranks) == 0) {
        err = save(out, c, state, diag);
    } else {
        err = write_model(NULL, c, DU_OK, diag);
        err = write_blocks(c, NULL, err, diag);
    }
    return du_ranks_agree(ranks, err, diag);
}

/* The value of a key that must be there, and within [min, max]. */
static du_err need_i64(const json_t *json, const char *key, int64_t min, int64_t max, int64_t *out,
                       du_diag *diag) {
    return json_is_integer(json_object_get(json, key))
               ? du_json_get_i64(json, key, min, max, out, diag)
               : du_fail(diag, DU_EFORMAT, "state.json: %s is missing or no number", key);
}

static du_err need_sum(const json_t *json, const char *key, uint64_t *out, du_diag *diag) {
    const char *text = json_string_value(json_object_get(json, key));
    char again[SUM_BYTES];
    bool good =
        text && sscanf(text, "%16" SCNx64, out) == 1 && strcmp(sum_text(again, *out), text) == 0;
    return good ? DU_OK : du_fail(diag, DU_EFORMAT, "state.json: %s is no checksum", key);
}

/* Takes the checksum out of the object and compares it with that of the rest. */
static du_err check_own_sum(json_t *json, du_diag *diag) {
    char want[SUM_BYTES], got[SUM_BYTES];
    const char *text = json_string_value(json_object_get(json, "checksum"));
    uint64_t sum;
    snprintf(want, sizeof want, "%s", text ? text : "");
    json_object_del(json, "checksum");
    du_err err = sum_json(&sum, json, diag);
    bool same = err == DU_OK && strcmp(want, sum_text(got, sum)) == 0;
    return err == DU_OK && !same ? du_fail(diag, DU_EFORMAT, "state.json: its checksum differs")
                                 : err;
}

/* A checkpoint without it begins anew. */
static du_err read_smooth(du_spike *s, const json_t *json, du_diag *diag) {
    du_err err = du_json_get_f64(json, "sum", &s->sum, diag);
    err = err ? err : du_json_get_f64(json, "weight", &s->weight, diag);
    err = err ? err : du_json_get_i64(json, "seen", 0, INT64_MAX / 2, &s->n_seen, diag);
    err = err ? err : du_json_get_i64(json, "high", 0, INT64_MAX / 2, &s->n_high, diag);
    if (err == DU_OK && (s->weight < 0 || s->weight > 1)) {
        err = du_fail(diag, DU_EFORMAT, "state.json: smooth.weight is not between 0 and 1");
    }
    return err;
}

static du_err read_state(du_train_state *s, const json_t *json, du_diag *diag) {
    const char *format = json_string_value(json_object_get(json, "format"));
    int64_t version = 0;
    if (!format || strcmp(format, format_name) != 0) {
        return du_fail(diag, DU_EFORMAT, "state.json: not the state of a run");
    }
    du_err err = need_i64(json, "version", 0, INT64_MAX, &version, diag);
    if (err == DU_OK && version != VERSION) {
        return du_fail(diag, DU_EFORMAT, "state.json: version %lld is not known",
                       (long long)version);
    }
    const json_t *best = json_object_get(json, "best");
    *s = (du_train_state){0};
    err = err ? err : need_i64(json, "step", 1, INT64_MAX, &s->step, diag);
    err = err ? err : need_i64(json, "micro_batch", 0, INT64_MAX, &s->micro_batch, diag);
    err = err ? err : need_sum(json, "data", &s->data, diag);
    err = err ? err : read_smooth(&s->spike, json_object_get(json, "smooth"), diag);
    if (err == DU_OK && json_object_get(json, "base")) {
        err = need_sum(json, "base", &s->base, diag);
    }
    if (err == DU_OK && json_is_object(best)) {
        err = need_i64(best, "step", 1, INT64_MAX, &s->best_step, diag);
        err = err ? err : du_json_get_f64(best, "loss", &s->best_loss, diag);
    }
    return err;
}

static du_err check_file(const char *dir, const char *name, const json_t *said, du_diag *diag) {
    uint64_t sum = 0, want_sum = 0;
    int64_t n_bytes = 0, want = 0;
    if (!is_ours(name)) {
        return du_fail(diag, DU_EFORMAT, "state.json: %.80s is no file of a checkpoint", name);
    }
    du_err err = need_i64(said, "bytes", 0, INT64_MAX, &want, diag);
    err = err ? err : need_sum(said, "checksum", &want_sum, diag);
    err = err ? err : sum_file(dir, name, &sum, &n_bytes, diag);
    if (err == DU_OK && n_bytes != want) {
        return du_fail(diag, DU_EFORMAT, "%s: %lld bytes instead of %lld", name, (long long)n_bytes,
                       (long long)want);
    }
    return err == DU_OK && sum != want_sum
               ? du_fail(diag, DU_EFORMAT, "%s: its checksum differs", name)
               : err;
}

static du_err check_files(const char *dir, const json_t *files, du_diag *diag) {
    const char *name;
    json_t *said;
    du_err err = DU_OK;
    if (!json_object_get(files, "config.json") && !json_object_get(files, ADAPTER_CONFIG)) {
        return du_fail(diag, DU_EFORMAT, "state.json: no list of files");
    }
    json_object_foreach((json_t *)(uintptr_t)files, name, said) {
        err = err ? err : check_file(dir, name, said, diag);
    }
    return err;
}

/* The parsed dir/name. */
static du_err load_json(json_t **out, const char *dir, const char *name, size_t limit,
                        du_diag *diag) {
    char *path = du_path_join(dir, name);
    du_err err = path ? du_json_load(out, path, limit, diag) : du_fail_nomem(diag, name);
    du_free(path);
    return err;
}

static du_err open_saved(du_saved *saved, int64_t step, du_diag *diag) {
    json_t *json = NULL;
    du_err err = load_json(&json, saved->dir, "state.json", STATE_BYTES_MAX, diag);
    err = err ? err : check_own_sum(json, diag);
    err = err ? err : read_state(&saved->state, json, diag);
    if (err == DU_OK && saved->state.step != step) {
        err = du_fail(diag, DU_EFORMAT, "state.json: that of another step");
    }
    err = err ? err : check_files(saved->dir, json_object_get(json, "files"), diag);
    if (err == DU_OK) {
        saved->config = json_incref(json_object_get(json, "config"));
    }
    if (err == DU_OK && json_object_get(json_object_get(json, "files"), "config.json")) {
        err = load_json(&saved->model_config, saved->dir, "config.json", DU_HF_CONFIG_BYTES_MAX,
                        diag);
    }
    json_decref(json);
    return err;
}

du_err du_saved_open(du_saved *out, const char *dir_of_run, int64_t step, du_diag *diag) {
    du_saved saved = {.dir = path_of(dir_of_run, step, "")};
    if (!saved.dir) {
        return du_fail_nomem(diag, dir_of_run);
    }
    du_diag why;
    du_diag_reset(&why);
    du_err err = open_saved(&saved, step, &why);
    if (err != DU_OK) {
        (void)du_fail(diag, err, "%s", why.msg);
        if (!strstr(why.msg, saved.dir)) {
            du_diag_context(diag, "%s", saved.dir);
        }
        du_saved_close(&saved);
        return err;
    }
    *out = saved;
    return DU_OK;
}

void du_saved_close(du_saved *saved) {
    du_free(saved->dir);
    json_decref(saved->config);
    json_decref(saved->model_config);
    *saved = (du_saved){0};
}

/* The values of a tensor that are wanted: of the weights what is here, of the optimizer's blocks
 * what this rank owns. */
static du_span wanted_of(const du_optim *optim, bool weights, const du_param *t, du_span *owners) {
    du_span all = {t->offset, t->offset + t->rows * t->cols}, none = {0, 0};
    if (weights) {
        return du_params_holds(optim->params, t) ? all : none;
    }
    du_optim_owners(optim, t, owners);
    du_span own = owners[du_ranks_rank(optim->ranks)];
    own.first = own.first > all.first ? own.first : all.first;
    own.end = own.end < all.end ? own.end : all.end;
    return own.first < own.end ? own : none;
}

/* The values of all tensors of the model, with a prefix, into a block. owners [ranks] work */
static du_err read_block(const du_st *st, const block *b, const du_optim *optim, du_span *owners,
                         du_diag *diag) {
    const du_params *p = optim->params;
    for (int64_t k = 0; k < p->n; k++) {
        const du_param *t = &p->at[k];
        char name[NAME_BYTES];
        int64_t dims[2];
        int32_t n_dims = shape_of(t, dims);
        const du_st_tensor *got = du_st_tensor_find(st, name_in(name, b, t));
        if (!got) {
            return du_fail(diag, DU_EFORMAT, "%s: %s is missing", du_st_path(st), name);
        }
        if (got->dtype != DU_F32 || got->n_dims != n_dims ||
            memcmp(got->dims, dims, (size_t)n_dims * sizeof *dims) != 0) {
            return du_fail(diag, DU_EFORMAT, "%s: %s is of another shape or type", du_st_path(st),
                           name);
        }
        du_span wanted = wanted_of(optim, *b->prefix == '\0', t, owners);
        if (wanted.first < wanted.end) {
            memcpy(b->values + wanted.first,
                   (const uint8_t *)got->data + (size_t)(wanted.first - t->offset) * sizeof(float),
                   (size_t)(wanted.end - wanted.first) * sizeof(float));
        }
    }
    return DU_OK;
}

/* The blocks of a file that holds nothing else. */
static du_err read_blocks(const char *path, const block *blocks, int64_t n, const du_optim *optim,
                          du_diag *diag) {
    int64_t n_tensors = n * optim->params->n;
    du_st *st = NULL;
    du_span *owners = du_alloc_array((size_t)du_ranks_n(optim->ranks), sizeof *owners);
    du_err err = path && owners ? du_st_open(&st, path, diag) : du_fail_nomem(diag, "a path");
    for (int64_t i = 0; i < n && err == DU_OK; i++) {
        err = read_block(st, &blocks[i], optim, owners, diag);
    }
    if (err == DU_OK && du_st_n_tensors(st) != n_tensors) {
        err = du_fail(diag, DU_EFORMAT, "%s: %lld tensors instead of %lld", path,
                      (long long)du_st_n_tensors(st), (long long)n_tensors);
    }
    du_st_close(st);
    du_free(owners);
    return err;
}

static du_err load_model(const du_saved *saved, const du_optim *optim, du_diag *diag) {
    block weights = {"", optim->params->values};
    du_hf *hf = NULL;
    du_err err = du_hf_open(&hf, saved->dir, diag);
    if (err == DU_OK && !du_hf_weights_path(hf)) {
        err = du_fail(diag, DU_EFORMAT, "%s: no weights", saved->dir);
    }
    err = err ? err : read_blocks(du_hf_weights_path(hf), &weights, 1, optim, diag);
    du_hf_close(hf);
    return err;
}

static du_err load_adapters(const du_saved *saved, du_params *params, du_diag *diag) {
    du_lora_file file;
    du_err err = du_lora_file_open(&file, saved->dir, diag);
    err = err ? err : du_lora_load(params, &file, diag);
    du_lora_file_close(&file);
    return err;
}

du_err du_saved_load(const du_saved *saved, du_params *params, du_optim *optim, du_diag *diag) {
    block blocks[N_BLOCKS];
    int64_t n = list_blocks(blocks, optim);
    du_err err =
        params->adapters ? load_adapters(saved, params, diag) : load_model(saved, optim, diag);
    if (err == DU_OK && n > 0) {
        char *path = du_path_join(saved->dir, "state.safetensors");
        err = read_blocks(path, blocks, n, optim, diag);
        du_free(path);
    }
    return err;
}
