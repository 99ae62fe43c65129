/* What ranks exchange, made of one thing that a plug-in can do: bytes from each to each.
 *
 * Large arrays go in rounds of bounded size, whose number follows from spans that all ranks know.
 * Sums are computed where they are wanted, from the pieces of all ranks, in the order of the tree;
 * so their bits depend neither on which piece came first nor on what carries them. */
#include "train/ranks.h"

#include <dlfcn.h>
#include <string.h>

static du_err load(du_ranks *r, const char *path, du_diag *diag) {
    r->sizes = DU_RANKS_SIZES;
    /* Global: MPI loads parts of itself that look for its functions. */
    r->plugin = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!r->plugin) {
        return du_fail(diag, DU_EUNSUPPORTED, "no MPI: %s", dlerror());
    }
    du_ranks_link_open_fn *open = NULL;
    *(void **)&open = dlsym(r->plugin, DU_RANKS_LINK_OPEN);
    const char *why = open ? open(&r->link, DU_RANKS_LINK_VERSION) : "no plug-in of dure";
    if (why) {
        return du_fail(diag, DU_EUNSUPPORTED, "%s: %s", path, why);
    }
    return r->link.n <= DU_RANKS_MAX ? DU_OK
                                     : du_fail(diag, DU_ELIMIT, "%lld ranks: at most %d",
                                               (long long)r->link.n, DU_RANKS_MAX);
}

du_err du_ranks_open(du_ranks **out, const char *plugin, du_diag *diag) {
    du_ranks *r = du_alloc_zero(1, sizeof *r);
    if (!r) {
        return du_fail_nomem(diag, "the ranks");
    }
    du_err err = load(r, plugin, diag);
    if (err != DU_OK) {
        du_free(r); /* MPI stays loaded: it cannot be taken out of a process */
        return err;
    }
    *out = r;
    return DU_OK;
}

void du_ranks_close(du_ranks *r) {
    if (r && !r->lost) {
        r->link.end();
    }
    du_free(r);
}

/* What goes to each rank and comes from it in one exchange. */
typedef struct {
    du_ranks_part send[DU_RANKS_MAX], receive[DU_RANKS_MAX];
} parts;

static du_err exchange(du_ranks *r, parts *p, du_diag *diag) {
    p->send[r->link.rank] = p->receive[r->link.rank] = (du_ranks_part){0};
    const char *why = r->lost ? "a rank was lost" : r->link.exchange(p->send, p->receive);
    r->lost = why != NULL;
    return why ? du_fail(diag, DU_EIO, "rank %lld of %lld: %s", (long long)r->link.rank,
                         (long long)r->link.n, why)
               : DU_OK;
}

/* What of a part belongs to the exchange that begins at `at`. */
static du_ranks_part cut(du_ranks_part part, size_t at, size_t most) {
    size_t n = part.n_bytes > at ? part.n_bytes - at : 0;
    return (du_ranks_part){n ? (uint8_t *)part.data + at : NULL, n < most ? n : most};
}

/* n_bytes of each rank to all; all [ranks * n_bytes], the own part filled in. */
static du_err share_equal(du_ranks *r, void *all, size_t n_bytes, du_diag *diag) {
    parts p;
    for (int64_t i = 0; i < r->link.n; i++) {
        p.send[i] = (du_ranks_part){(uint8_t *)all + (size_t)r->link.rank * n_bytes, n_bytes};
        p.receive[i] = (du_ranks_part){(uint8_t *)all + (size_t)i * n_bytes, n_bytes};
    }
    return exchange(r, &p, diag);
}

/* n_bytes of one rank to all; bytes is written elsewhere. */
static du_err share_from(du_ranks *r, int64_t from, void *bytes, size_t n_bytes, du_diag *diag) {
    parts p;
    for (int64_t i = 0; i < r->link.n; i++) {
        p.send[i] = (du_ranks_part){bytes, r->link.rank == from ? n_bytes : 0};
        p.receive[i] = (du_ranks_part){bytes, i == from ? n_bytes : 0};
    }
    return exchange(r, &p, diag);
}

/* The message of the first rank that failed, to all. */
static du_err share_message(du_ranks *r, int64_t failed, du_err err, du_diag *diag) {
    char msg[sizeof diag->msg] = "";
    if (r->link.rank == failed && diag) {
        memcpy(msg, diag->msg, sizeof msg);
    }
    du_err lost = share_from(r, failed, msg, sizeof msg, diag);
    if (lost != DU_OK) {
        return lost;
    }
    msg[sizeof msg - 1] = '\0';
    du_diag_reset(diag);
    return failed == 0 ? du_fail(diag, err, "%s", msg)
                       : du_fail(diag, err, "rank %lld: %s", (long long)failed, msg);
}

du_err du_ranks_agree(du_ranks *r, du_err err, du_diag *diag) {
    if (!r) {
        return err;
    }
    if (r->lost) {
        return err ? err : DU_EIO;
    }
    if (r->told) {
        r->told = false;
        return err;
    }
    int32_t codes[DU_RANKS_MAX];
    codes[r->link.rank] = err;
    du_err lost = share_equal(r, codes, sizeof *codes, diag);
    for (int64_t i = 0; i < r->link.n && lost == DU_OK; i++) {
        if (codes[i] != DU_OK) {
            return share_message(r, i, (du_err)codes[i], diag);
        }
    }
    return lost;
}

du_err du_ranks_agree_within(du_ranks *r, du_err err, du_diag *diag) {
    if (r && r->told) {
        return err;
    }
    err = du_ranks_agree(r, err, diag);
    if (r && err != DU_OK) {
        r->told = true;
    }
    return err;
}

du_err du_ranks_exchange(du_ranks *r, const du_ranks_part *send, const du_ranks_part *receive,
                         du_diag *diag) {
    int64_t rank = r->link.rank;
    size_t most = r->sizes.part_bytes;
    if (send[rank].n_bytes > 0) {
        memcpy(receive[rank].data, send[rank].data, send[rank].n_bytes);
    }
    /* Both sides of a part know its length, so they cut it alike. */
    bool left = true;
    du_err err = DU_OK;
    for (size_t at = 0; left && err == DU_OK; at += most) {
        parts p;
        left = false;
        for (int64_t i = 0; i < r->link.n; i++) {
            p.send[i] = cut(send[i], at, most);
            p.receive[i] = cut(receive[i], at, most);
            left = left || send[i].n_bytes > at + most || receive[i].n_bytes > at + most;
        }
        err = exchange(r, &p, diag);
    }
    return err;
}

du_err du_ranks_take_first(du_ranks *r, void *bytes, size_t n_bytes, du_diag *diag) {
    return r ? share_from(r, 0, bytes, n_bytes, diag) : DU_OK;
}

du_err du_ranks_min(du_ranks *r, int64_t *value, du_diag *diag) {
    int64_t values[DU_RANKS_MAX];
    if (!r) {
        return DU_OK;
    }
    values[r->link.rank] = *value;
    du_err err = share_equal(r, values, sizeof *values, diag);
    for (int64_t i = 0; i < r->link.n && err == DU_OK; i++) {
        *value = values[i] < *value ? values[i] : *value;
    }
    return err;
}

du_err du_ranks_any(du_ranks *r, bool *flag, du_diag *diag) {
    int64_t none = !*flag;
    du_err err = du_ranks_min(r, &none, diag);
    *flag = none == 0;
    return err;
}

du_err du_ranks_sum(du_ranks *r, du_ctx *ctx, int64_t *values, int64_t n, du_diag *diag) {
    if (!r || n == 0) {
        return DU_OK;
    }
    size_t n_bytes = (size_t)n * sizeof *values;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    int64_t *all = DU_SCRATCH(ctx, int64_t, r->link.n * n);
    du_err err = du_ranks_agree(r, all ? DU_OK : du_fail_nomem(diag, "sums of ranks"), diag);
    if (err == DU_OK) {
        memcpy(all + r->link.rank * n, values, n_bytes);
        err = share_equal(r, all, n_bytes, diag);
    }
    for (int64_t i = 0; i < n && err == DU_OK; i++) {
        values[i] = 0;
        for (int64_t k = 0; k < r->link.n; k++) {
            values[i] += all[k * n + i];
        }
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}

/* The round of a span that begins at `at`, counted from its first item. */
static du_span round_of(du_span span, int64_t at, int64_t n) {
    int64_t len = span.end - span.first;
    int64_t from = at < len ? at : len, to = at + n < len ? at + n : len;
    return (du_span){span.first + from, span.first + to};
}

static int64_t longest(const du_span *spans, int64_t n) {
    int64_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t len = spans[i].end - spans[i].first;
        most = len > most ? len : most;
    }
    return most;
}

du_err du_ranks_share(du_ranks *r, void *items, size_t item_bytes, const du_span *spans,
                      du_diag *diag) {
    int64_t most = r ? longest(spans, r->link.n) : 0;
    int64_t step = r ? (int64_t)(r->sizes.round_bytes / item_bytes) : 0;
    du_err err = DU_OK;
    for (int64_t at = 0; at < most && err == DU_OK; at += step) {
        parts p;
        du_span mine = round_of(spans[r->link.rank], at, step);
        for (int64_t i = 0; i < r->link.n; i++) {
            du_span its = round_of(spans[i], at, step);
            p.send[i] = (du_ranks_part){(uint8_t *)items + (size_t)mine.first * item_bytes,
                                        (size_t)(mine.end - mine.first) * item_bytes};
            p.receive[i] = (du_ranks_part){(uint8_t *)items + (size_t)its.first * item_bytes,
                                           (size_t)(its.end - its.first) * item_bytes};
        }
        err = exchange(r, &p, diag);
    }
    return err;
}

du_err du_ranks_collect(du_ranks *r, float *to, const float *values, const du_span *spans,
                        du_span wanted, du_diag *diag) {
    int64_t rank = du_ranks_rank(r), n = wanted.end - wanted.first;
    du_span mine = du_span_common(spans[rank], wanted);
    if (rank == 0) {
        memcpy(to + (mine.first - wanted.first), values + mine.first,
               (size_t)(mine.end - mine.first) * sizeof *to);
    }
    int64_t step = r ? (int64_t)(r->sizes.round_bytes / sizeof *to) : 0;
    du_err err = DU_OK;
    for (int64_t at = 0; r && at < n && err == DU_OK; at += step) {
        parts p;
        memset(&p, 0, sizeof p);
        if (rank == 0) {
            for (int64_t i = 1; i < r->link.n; i++) {
                du_span its = round_of(du_span_common(spans[i], wanted), at, step);
                p.receive[i] = (du_ranks_part){to + (its.first - wanted.first),
                                               (size_t)(its.end - its.first) * sizeof *to};
            }
        } else {
            du_span own = round_of(mine, at, step);
            p.send[0] = (du_ranks_part){(float *)(uintptr_t)values + own.first,
                                        (size_t)(own.end - own.first) * sizeof *to};
        }
        err = exchange(r, &p, diag);
    }
    return err;
}

/* Values of one span that are added, from its number `first` on. */
typedef struct {
    const du_kern *kern;
    float *parts[DU_RANKS_MAX]; /* [nodes.n] of n values; overwritten */
    float *sum;                 /* [n] out, behind the last nodes */
    du_leaves nodes;
    float *const *wait; /* [levels]; at[first] is the first of the n values */
    int64_t first, n;
    int64_t n_task; /* values of a task */
} add_job;

/* n_task of the sums. A sum stands where its left part stood. */
static void add_task(void *arg, int64_t i_task, int64_t i_thread) {
    (void)i_thread;
    const add_job *job = arg;
    int64_t at = i_task * job->n_task, n = job->n - at < job->n_task ? job->n - at : job->n_task;
    size_t n_bytes = (size_t)n * sizeof(float);
    float *waiting[DU_LEAF_LEVELS] = {0}, *sum = NULL;
    for (int64_t l = 0; l < DU_LEAF_LEVELS; l++) {
        waiting[l] = job->nodes.first >> l & 1 ? job->wait[l] + job->first + at : NULL;
    }
    for (int64_t i = 0; i < job->nodes.n; i++) {
        int64_t l = 0;
        sum = job->parts[i] + at;
        for (; waiting[l]; l++) {
            job->kern->add(waiting[l], sum, n);
            sum = waiting[l];
            waiting[l] = NULL;
        }
        waiting[l] = sum;
    }
    sum = NULL;
    for (int64_t l = 0; job->nodes.last && l < DU_LEAF_LEVELS; l++) {
        if (waiting[l] && sum) {
            job->kern->add(waiting[l], sum, n);
        }
        sum = waiting[l] ? waiting[l] : sum;
    }
    if (sum && sum != job->sum + at) {
        memcpy(job->sum + at, sum, n_bytes);
    }
    /* From above: what stands at another level's place came from below. */
    for (int64_t l = DU_LEAF_LEVELS - 1; !job->nodes.last && l >= 0; l--) {
        float *to = waiting[l] ? job->wait[l] + job->first + at : NULL;
        if (to && to != waiting[l]) {
            memcpy(to, waiting[l], n_bytes);
        }
    }
}

/* One round: sends pieces of other ranks' spans, and adds up those of the own.
 * work [nodes.n, step] */
static du_err add_round(du_ranks *r, du_ctx *ctx, float *values, const du_span *spans, int64_t at,
                        int64_t step, du_leaves nodes, float *const *wait, float *work,
                        du_diag *diag) {
    parts p;
    memset(&p, 0, sizeof p);
    du_span mine = round_of(spans[r->link.rank], at, step);
    int64_t n = mine.end - mine.first;
    add_job job = {.kern = ctx->kern,
                   .sum = values + mine.first,
                   .nodes = nodes,
                   .wait = wait,
                   .first = mine.first,
                   .n = n,
                   .n_task = r->sizes.task_values};
    for (int64_t i = 0; i < r->link.n; i++) {
        du_span its = round_of(spans[i], at, step);
        if (r->link.rank < nodes.n) {
            p.send[i] =
                (du_ranks_part){values + its.first, (size_t)(its.end - its.first) * sizeof *values};
        }
        if (i < nodes.n) {
            job.parts[i] = i == r->link.rank ? values + mine.first : work + i * step;
            p.receive[i] = (du_ranks_part){job.parts[i], (size_t)n * sizeof *values};
        }
    }
    du_err err = exchange(r, &p, diag);
    du_pool_run(ctx->pool, add_task, &job, err ? 0 : (n + job.n_task - 1) / job.n_task);
    return err;
}

du_err du_ranks_add(du_ranks *r, du_ctx *ctx, float *values, const du_span *spans, du_leaves nodes,
                    float *const *wait, du_diag *diag) {
    if (!r) {
        return DU_OK;
    }
    int64_t most = longest(spans, r->link.n), step = r->sizes.add_values / nodes.n;
    step = step < most ? step : most;
    du_arena_mark mark = du_arena_get_mark(ctx->scratch);
    float *work = DU_SCRATCH(ctx, float, nodes.n *step);
    du_err err = du_ranks_agree(r, work ? DU_OK : du_fail_nomem(diag, "sums of ranks"), diag);
    for (int64_t at = 0; at < most && err == DU_OK; at += step) {
        err = add_round(r, ctx, values, spans, at, step, nodes, wait, work, diag);
    }
    du_arena_release(ctx->scratch, mark);
    return err;
}
