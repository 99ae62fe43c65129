#include "infer/infer.h"

#include "infer/infer_int.h"
#include "infer/session.h"
#include "nn/latent.h"

/* Rewriting all weights costs seconds, which a long prompt earns back at once. Where few rows are
 * computed, a part is rewritten in each step, so that the first token comes soon. */
enum { REPACK_ROWS = 64, REPACK_BYTES = 32 << 20 };

du_infer_params du_infer_defaults(void) {
    return (du_infer_params){.auto_cache = true};
}

du_dtype du_infer_auto_cache_type(const du_model *model) {
    return model->block_quantised ? DU_F16 : DU_F32;
}

du_err du_infer_cache_bytes(const du_model *model, du_dtype cache_type, int64_t n_ctx, int64_t *out,
                            du_diag *diag) {
    du_kv_layout kv;
    du_err err = model->arch->kv_layout(&model->hp, cache_type, &kv, diag);
    if (err == DU_OK) {
        *out = du_pages_for(n_ctx) * (int64_t)kv.page_bytes;
    }
    return err;
}

/* Tokens whose cache fits: three quarters of the memory that is available, since activations and
 * the file's own pages want room too; of little memory what ROOM leaves, or a single page. */
static int64_t tokens_that_fit(int64_t available, int64_t page) {
    enum { ROOM = 16 << 20 };
    int64_t bytes = available / 4 > ROOM ? available / 4 * 3 : available - ROOM;
    return bytes >= page ? bytes / page * DU_KV_PAGE : available >= page ? DU_KV_PAGE : 0;
}

/* The context that the parameters ask for, or what fits. */
static du_err choose_n_ctx(du_infer *inf, const du_infer_params *params, int64_t n_sessions,
                           int64_t available, du_diag *diag) {
    int64_t trained = inf->model->hp.n_ctx_train;
    int64_t page = (int64_t)inf->kv.page_bytes * n_sessions;
    int64_t fits = available > 0 ? tokens_that_fit(available, page) : trained;
    if (params->n_ctx == 0) {
        inf->n_ctx = fits < trained ? fits : trained;
        if (inf->n_ctx >= DU_KV_PAGE || inf->n_ctx == trained) {
            return DU_OK;
        }
        return du_fail(diag, DU_ELIMIT, "only %.0f MB of memory are free: not enough for a cache",
                       (double)available / 1e6);
    }
    if (params->n_ctx > fits && du_pages_for(params->n_ctx) * page > available && available > 0) {
        return du_fail(
            diag, DU_ELIMIT,
            "a context of %lld needs %.1f MB of cache and %.1f MB of memory are free: use "
            "at most -c %lld, or --cache-type q8_0",
            (long long)params->n_ctx, (double)(du_pages_for(params->n_ctx) * page) / 1e6,
            (double)available / 1e6, (long long)fits);
    }
    inf->n_ctx = params->n_ctx;
    return DU_OK;
}

static void unload(void *user, const void *p, size_t n_bytes) {
    const du_model *model = user;
    du_weights_unload(model->files, p, n_bytes);
}

/* Shares the memory that is free between repacked weights and the cache. */
static du_err place(du_infer *inf, const du_infer_params *params, int64_t n_sessions,
                    du_diag *diag) {
    int64_t trained = inf->model->hp.n_ctx_train;
    if (params->n_ctx < 0 || params->n_ctx > trained) {
        return du_fail(diag, DU_ELIMIT,
                       "a context of %lld: the model was trained for 1 to %lld tokens",
                       (long long)params->n_ctx, (long long)trained);
    }
    int64_t n_ctx = params->n_ctx > 0 ? params->n_ctx : DU_KV_PAGE;
    int64_t page = (int64_t)inf->kv.page_bytes * n_sessions;
    /* Where strips round otherwise, a result would depend on what was repacked before it. */
    bool by_rows = inf->ctx.same_bits && !inf->ctx.kern->strips_same_bits;
    du_repack_wish wish = {.kern = inf->ctx.kern,
                           .how = by_rows ? DU_REPACK_OFF : params->repack,
                           .watch = params->watch,
                           .pool = inf->threads,
                           .available = du_mem_available_bytes()};
    if (!du_mul_i64(du_pages_for(n_ctx), page, &wish.cache_bytes)) {
        wish.cache_bytes = INT64_MAX;
    }
    du_repack_choice choice = du_repack_choose(inf->model, &wish);
    inf->ctx.strips = choice.strips;
    return choose_n_ctx(inf, params, n_sessions, wish.available - choice.taken, diag);
}

static du_err start(du_infer *inf, const du_infer_params *params, du_diag *diag) {
    const du_model *model = inf->model;
    du_isa isa = params->force_isa ? params->isa : du_isa_best();
    inf->ctx.kern = du_kern_get(isa);
    if (!inf->ctx.kern) {
        return du_fail(diag, DU_EUNSUPPORTED, "this machine lacks the kernel level %s",
                       du_isa_name(isa));
    }
    inf->ctx.same_bits = params->deterministic;
    inf->ctx.unload = unload;
    inf->ctx.unload_user = (void *)(uintptr_t)model;
    du_dtype type = params->auto_cache ? du_infer_auto_cache_type(model) : params->cache_type;
    if (!inf->ctx.kern->qk[type]) {
        return du_fail(diag, DU_EUNSUPPORTED, "%s is no cache type (f32, f16, bf16, q8_0)",
                       du_dtype_get(type)->name);
    }
    du_err err = model->arch->kv_layout(&model->hp, type, &inf->kv, diag);
    int64_t n_sessions = params->n_sessions > 0 ? params->n_sessions : 1;
    int64_t n_threads = params->n_threads > 0 ? params->n_threads : du_cpu_n_cores();
    err = err ? err : du_pool_new(&inf->threads, n_threads, params->pin, diag);
    inf->ctx.pool = inf->threads;
    err = err ? err : place(inf, params, n_sessions, diag);
    if (err == DU_OK) {
        err = du_page_pool_init(&inf->pages, du_pages_for(inf->n_ctx) * n_sessions,
                                inf->kv.page_bytes, diag);
    }
    if (err != DU_OK) {
        return err;
    }
    inf->repack_bytes = params->repack_bytes > 0 ? params->repack_bytes : REPACK_BYTES;
    inf->n_chunk = params->n_chunk > 0 ? params->n_chunk : 512;
    inf->ctx.scratch = du_arena_new(1 << 20);
    return inf->ctx.scratch ? DU_OK : du_fail_nomem(diag, "activations");
}

du_err du_infer_new(du_infer **out, const du_model *model, const du_infer_params *params,
                    du_diag *diag) {
    du_infer *inf = du_alloc_zero(1, sizeof *inf);
    if (!inf) {
        return du_fail_nomem(diag, "the runner");
    }
    inf->model = model;
    du_err err = start(inf, params, diag);
    if (err != DU_OK) {
        du_infer_free(inf);
        return err;
    }
    *out = inf;
    return DU_OK;
}

void du_infer_free(du_infer *inf) {
    if (!inf) {
        return;
    }
    du_page_pool_done(&inf->pages);
    du_arena_free(inf->ctx.scratch);
    du_pool_free(inf->threads);
    du_free(inf);
}

void du_infer_set_deterministic(du_infer *inf, bool deterministic) {
    inf->ctx.same_bits = deterministic;
}

/* Whether latent attention of so many rows takes its expanded form. */
static bool latent_differs(const du_infer *inf, int64_t n_rows) {
    const du_hparams *hp = &inf->model->hp;
    du_latent_dims dims = {hp->kv_rank, hp->rope_dim, du_hparams_nope(hp), hp->v_dim};
    return hp->kv_rank > 0 && du_latent_expands(inf->ctx.kern, &dims, inf->kv.dtype,
                                                inf->model->block_quantised, n_rows, 0);
}

bool du_infer_deterministic_differs(const du_infer *inf, int64_t n_rows) {
    int64_t from = inf->ctx.kern->n_bf16;
    bool in_bf16 = from > 0 && n_rows >= from, in_strips = inf->ctx.strips;
    return latent_differs(inf, n_rows) || (inf->model->block_quantised && in_strips &&
                                           (in_bf16 || !inf->ctx.kern->strips_same_bits));
}

du_repack du_infer_repacked(const du_infer *inf) {
    return !inf->ctx.strips                      ? DU_REPACK_OFF
           : du_model_strips_in_file(inf->model) ? DU_REPACK_CACHE
                                                 : DU_REPACK_AUTO;
}

void du_infer_repack(du_infer *inf) {
    du_model_strips_write(&inf->ctx, inf->model);
}

const du_model *du_infer_model(const du_infer *inf) {
    return inf->model;
}

const du_kv_layout *du_infer_kv_layout(const du_infer *inf) {
    return &inf->kv;
}

int64_t du_infer_n_ctx(const du_infer *inf) {
    return inf->n_ctx;
}

int64_t du_infer_n_threads(const du_infer *inf) {
    return du_pool_n_threads(inf->threads);
}

int64_t du_infer_n_chunk(const du_infer *inf) {
    return inf->n_chunk;
}

du_isa du_infer_isa(const du_infer *inf) {
    return inf->ctx.kern->isa;
}

int64_t du_infer_pages_free(const du_infer *inf) {
    return inf->pages.n_free;
}

void du_infer_set_tap(du_infer *inf, du_tap_fn *tap, void *user) {
    inf->ctx.tap = tap;
    inf->ctx.tap_user = user;
}

static du_err check_item(const du_infer *inf, const du_step_item *item, du_diag *diag) {
    const du_session *s = item->session;
    DU_CHECK(s->inf == inf && item->n >= 1 && item->n_logits <= item->n);
    if (item->n > inf->n_ctx - s->n) {
        return du_fail(diag, DU_ELIMIT, "the context is full: %lld + %lld tokens, room for %lld",
                       (long long)s->n, (long long)item->n, (long long)inf->n_ctx);
    }
    for (int64_t i = 0; i < item->n; i++) {
        if (item->tokens[i] < 0 || item->tokens[i] >= inf->model->hp.n_vocab) {
            return du_fail(
                diag, DU_EINVAL, "token %d at position %lld is not in the vocabulary of %lld",
                item->tokens[i], (long long)(s->n + i), (long long)inf->model->hp.n_vocab);
        }
    }
    return DU_OK;
}

/* The rows of all items, in order, as one batch. */
typedef struct {
    du_batch batch;
    int32_t *tokens, *out_rows;
    const du_kv_seq **seq;
    int64_t *pos;
    float *logits;
} rows;

static du_err gather(du_infer *inf, const du_step_item *items, int64_t n_items, rows *r) {
    int64_t T = 0, n_out = 0;
    for (int64_t i = 0; i < n_items; i++) {
        T += items[i].n;
        n_out += items[i].n_logits;
    }
    du_ctx *ctx = &inf->ctx;
    r->tokens = DU_SCRATCH(ctx, int32_t, T);
    r->out_rows = DU_SCRATCH(ctx, int32_t, n_out);
    r->seq = DU_SCRATCH(ctx, const du_kv_seq *, T);
    r->pos = DU_SCRATCH(ctx, int64_t, T);
    /* One item takes its logits directly. */
    r->logits =
        n_items == 1 ? items[0].logits : DU_SCRATCH(ctx, float, n_out * inf->model->hp.n_vocab);
    if (!r->tokens || !r->out_rows || !r->seq || !r->pos || (n_out > 0 && !r->logits)) {
        return DU_ENOMEM;
    }
    int64_t t = 0, o = 0;
    for (int64_t i = 0; i < n_items; i++) {
        const du_step_item *item = &items[i];
        for (int64_t j = 0; j < item->n; j++, t++) {
            r->tokens[t] = item->tokens[j];
            r->seq[t] = &item->session->seq;
            r->pos[t] = item->session->n + j;
            if (j >= item->n - item->n_logits) {
                r->out_rows[o++] = (int32_t)t;
            }
        }
    }
    r->batch = (du_batch){.T = T,
                          .tokens = r->tokens,
                          .rows = {T, r->seq, r->pos},
                          .kv = &inf->kv,
                          .n_out = n_out,
                          .out_rows = r->out_rows,
                          .logits = r->logits};
    return DU_OK;
}

static void hand_out(const du_infer *inf, const du_step_item *items, int64_t n_items,
                     const rows *r) {
    int64_t V = inf->model->hp.n_vocab;
    const float *logits = r->logits;
    for (int64_t i = 0; i < n_items; i++) {
        const du_step_item *item = &items[i];
        du_session *s = item->session;
        memcpy(s->tokens + s->n, item->tokens, (size_t)item->n * sizeof *s->tokens);
        s->n += item->n;
        if (n_items > 1 && item->n_logits > 0) {
            memcpy(item->logits, logits, (size_t)(item->n_logits * V) * sizeof *logits);
        }
        logits += item->n_logits * V;
    }
}

du_err du_infer_step(du_infer *inf, const du_step_item *items, int64_t n_items, du_diag *diag) {
    du_err err = DU_OK;
    for (int64_t i = 0; err == DU_OK && i < n_items; i++) {
        err = check_item(inf, &items[i], diag);
    }
    for (int64_t i = 0; err == DU_OK && i < n_items; i++) {
        err = du_session_reserve(items[i].session, items[i].session->n + items[i].n, diag);
    }
    du_arena_mark mark = du_arena_get_mark(inf->ctx.scratch);
    rows r;
    err = err ? err : gather(inf, items, n_items, &r);
    if (err == DU_OK) {
        inf->ctx.repack_bytes = r.batch.T >= REPACK_ROWS ? SIZE_MAX : inf->repack_bytes;
        err = du_model_forward(&inf->ctx, inf->model, &r.batch);
    }
    if (err == DU_OK) {
        hand_out(inf, items, n_items, &r);
    }
    for (int64_t i = 0; err != DU_OK && i < n_items; i++) {
        du_session_truncate(items[i].session, items[i].session->n); /* gives reserved pages back */
    }
    du_arena_release(inf->ctx.scratch, mark);
    return err == DU_ENOMEM ? du_fail_nomem(diag, "activations: use a smaller chunk") : err;
}
