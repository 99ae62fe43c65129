/* Rank 0 writes. What other ranks own reaches it tensor by tensor, so its memory does not grow, and
 * they send in the order in which it writes. It cannot leave them in the middle: they are told
 * before, or it takes what they send although it cannot write any more.
 *
 * Names, shapes and types of what is read are compared with what the model's shape asks for. */
#include "train/checkpoint_tensors.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "formats/hf.h"
#include "formats/safetensors.h"
#include "model/convert.h"
#include "model/lora.h"

enum { N_BLOCKS = 3 };

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

du_err du_checkpoint_write_optim(const du_checkpoint *c, const char *dir, du_err before,
                                 du_diag *diag) {
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

/* A rank that is told of an error is done. */
du_err du_checkpoint_write_model(const du_checkpoint *c, const char *dir, du_err before,
                                 du_diag *diag) {
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

/* The values of a tensor that are wanted: of the weights what is here, of the optimizer's blocks
 * what this rank owns. */
static du_span wanted_of(const du_optim *optim, bool weights, const du_param *t, du_span *owners) {
    du_span all = {t->offset, t->offset + t->rows * t->cols}, none = {0, 0};
    if (weights) {
        return du_params_holds(optim->params, t) ? all : none;
    }
    du_optim_owners(optim, t, owners);
    return du_span_common(owners[du_ranks_rank(optim->ranks)], all);
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

static du_err load_model(const char *dir, const du_optim *optim, du_diag *diag) {
    block weights = {"", optim->params->values};
    du_hf *hf = NULL;
    du_err err = du_hf_open(&hf, dir, diag);
    if (err == DU_OK && !du_hf_weights_path(hf)) {
        err = du_fail(diag, DU_EFORMAT, "%s: no weights", dir);
    }
    err = err ? err : read_blocks(du_hf_weights_path(hf), &weights, 1, optim, diag);
    du_hf_close(hf);
    return err;
}

static du_err load_adapters(const char *dir, du_params *params, du_diag *diag) {
    du_lora_file file;
    du_err err = du_lora_file_open(&file, dir, diag);
    err = err ? err : du_lora_load(params, &file, diag);
    du_lora_file_close(&file);
    return err;
}

du_err du_checkpoint_load(const char *dir, du_params *params, du_optim *optim, du_diag *diag) {
    block blocks[N_BLOCKS];
    int64_t n = list_blocks(blocks, optim);
    du_err err = params->adapters ? load_adapters(dir, params, diag) : load_model(dir, optim, diag);
    if (err == DU_OK && n > 0) {
        char *path = du_path_join(dir, "state.safetensors");
        err = read_blocks(path, blocks, n, optim, diag);
        du_free(path);
    }
    return err;
}
