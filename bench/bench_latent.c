/* Both forms of latent attention over prompts, and whether the cost rule chooses the faster one.
 *
 *   bench_latent [--isa LEVEL] [--heads N] [--exact] [--no-amx] [--most ROWS CACHED]
 *
 * One layer of DeepSeek-V2-Lite (16 heads; 128: V3's), weights in Q8_0, an F16 cache. The forms
 * take turns in one thread, and the least of N_ROUND processor times counts. --exact: as a model
 * whose weights are floats.
 * --no-amx: attention by vdpbf16ps. --most limits the grid. Ends with 1 when the form that the rule
 * chooses took more than TOLERANCE of the other's time anywhere. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rng.h"
#include "kern/cpu/fill.h"
#include "kern/strips.h"
#include "nn/expanded.h"

enum { R = 512, P = 64, NOPE = 128, V = 128, K = NOPE + P, N_ROUND = 4 };
enum { MAX_ROWS = 1024, MAX_CACHED = 8192, N_PAGES = (MAX_ROWS + MAX_CACHED) / DU_KV_PAGE };
static const double TOLERANCE = 1.15;

typedef du_err form_fn(du_ctx *ctx, float *out, const float *q, const du_latent_weights *w,
                       const du_kv_layout *kv, int64_t layer, const du_attn_rows *rows,
                       const du_attn_params *params);

typedef struct {
    du_ctx ctx;
    du_kv_layout kv;
    du_attn_params params;
    du_latent_weights w;
    uint8_t *pages[N_PAGES];
    du_kv_seq seq;
    const du_kv_seq *seqs[MAX_ROWS];
    int64_t pos[MAX_ROWS];
    float *q, *out;
} layer;

static du_rng rng;

static void *must(void *p) {
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

static void must_work(du_err err, const du_diag *diag) {
    if (err != DU_OK) {
        fprintf(stderr, "%s\n", diag->msg);
        exit(1);
    }
}

static float *normal(int64_t n) {
    float *x = must(du_alloc_array((size_t)n, sizeof *x));
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)du_rng_normal(&rng);
    }
    return x;
}

static du_mat *make_heads(int64_t H, int64_t rows, int64_t cols) {
    du_mat *w = must(du_alloc_array((size_t)H, sizeof *w));
    size_t row_bytes = du_dtype_row_bytes(DU_Q8_0, cols);
    for (int64_t h = 0; h < H; h++) {
        char *data = must(du_alloc_aligned(row_bytes * (size_t)rows));
        for (int64_t i = 0; i < rows; i++) {
            float *x = normal(cols);
            du_kern_get(DU_ISA_C)->kv_store[DU_Q8_0](data + (size_t)i * row_bytes, x, cols);
            du_free(x);
        }
        w[h] = (du_mat){
            .data = data, .dtype = DU_Q8_0, .rows = rows, .cols = cols, .row_bytes = row_bytes};
        w[h].strips = must(du_alloc_zero(1, sizeof *w[h].strips));
        w[h].strips->data = must(du_alloc_aligned(du_strips_bytes(&w[h])));
    }
    return w;
}

static void make_layer(layer *l, int64_t H, bool exact) {
    du_diag diag;
    du_diag_reset(&diag);
    must_work(du_kv_layout_init(&l->kv, DU_F16, 1, 1, R + P, R, true, &diag), &diag);
    l->ctx.strips = true;
    l->ctx.repack_bytes = SIZE_MAX;
    l->ctx.scratch = must(du_arena_new(1 << 20));
    l->params = (du_attn_params){H, 0.07f, !exact};
    l->w = (du_latent_weights){make_heads(H, R, NOPE), make_heads(H, V, R)};
    l->seq.pages = l->pages;
    float *x = normal(DU_KV_PAGE * (R + P));
    for (int64_t i = 0; i < N_PAGES; i++) {
        l->pages[i] = must(du_alloc_aligned(l->kv.page_bytes));
        for (int64_t k = 0; k < DU_KV_PAGE; k++) {
            l->ctx.kern->kv_store[DU_F16](l->pages[i] + (size_t)k * l->kv.k_row_bytes,
                                          x + k * (R + P), R + P);
        }
    }
    du_free(x);
    l->q = normal(MAX_ROWS * H * K);
    l->out = must(du_alloc_array((size_t)(MAX_ROWS * H * V), sizeof(float)));
}

static double processor_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double seconds(layer *l, form_fn *form, int64_t n_rows, int64_t n_cached) {
    for (int64_t t = 0; t < n_rows; t++) {
        l->seqs[t] = &l->seq;
        l->pos[t] = n_cached + t;
    }
    du_attn_rows rows = {n_rows, l->seqs, l->pos};
    double t0 = processor_s();
    if (form(&l->ctx, l->out, l->q, &l->w, &l->kv, 0, &rows, &l->params) != DU_OK) {
        must(NULL);
    }
    return processor_s() - t0;
}

/* Returns whether the rule's choice is good enough. */
static bool compare(layer *l, int64_t n_rows, int64_t n_cached) {
    double absorbed = INFINITY, expanded = INFINITY;
    for (int i = 0; i < N_ROUND; i++) {
        absorbed = fmin(absorbed, seconds(l, du_latent_absorbed_fwd, n_rows, n_cached));
        expanded = fmin(expanded, seconds(l, du_expanded_fwd, n_rows, n_cached));
    }
    du_latent_dims dims = {R, P, NOPE, V};
    bool expands =
        du_latent_expands(l->ctx.kern, &dims, l->kv.dtype, l->params.may_round, n_rows, n_cached);
    double loss = expands ? expanded / absorbed : absorbed / expanded;
    printf(
        "%-7s %3d heads %5d rows behind %5d  absorbed %9.2f ms  expanded %9.2f ms  x %.2f  %s%s\n",
        du_isa_name(l->ctx.kern->isa), (int)l->params.H, (int)n_rows, (int)n_cached, absorbed * 1e3,
        expanded * 1e3, absorbed / expanded, expands ? "expanded" : "absorbed",
        loss > TOLERANCE ? "  WRONG" : "");
    fflush(stdout);
    return loss <= TOLERANCE;
}

int main(int argc, char **argv) {
    static const int64_t n_rows[] = {16, 32, 64, 128, 256, 512, 1024};
    static const int64_t n_cached[] = {0, 512, 2048, 8192};
    static layer l;
    int64_t H = 16, most_rows = MAX_ROWS, most_cached = MAX_CACHED;
    du_isa isa = du_isa_best();
    bool exact = false, no_amx = false, good = true;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--exact")) {
            exact = true;
        } else if (!strcmp(argv[i], "--no-amx")) {
            no_amx = true;
        } else if (i + 1 < argc && !strcmp(argv[i], "--isa")) {
            i++;
            for (int k = 0; k < DU_ISA_COUNT; k++) {
                isa = strcmp(argv[i], du_isa_name((du_isa)k)) ? isa : (du_isa)k;
            }
        } else if (i + 1 < argc && !strcmp(argv[i], "--heads")) {
            H = strtoll(argv[++i], NULL, 10);
        } else if (i + 2 < argc && !strcmp(argv[i], "--most")) {
            most_rows = strtoll(argv[++i], NULL, 10);
            most_cached = strtoll(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "unknown argument %s\n", argv[i]);
            return 2;
        }
    }
    du_rng_init(&rng, 1);
    static du_kern kern;
    kern = *(const du_kern *)must((void *)(uintptr_t)du_kern_get(isa));
    l.ctx.kern = &kern;
#if defined(__x86_64__)
    if (no_amx && kern.attn.step) {
        du_kern_fill_attn_tiles_bf16_avx512(&kern);
    }
#endif
    make_layer(&l, H, exact);
    for (size_t i = 0; i < sizeof n_cached / sizeof *n_cached; i++) {
        for (size_t k = 0; k < sizeof n_rows / sizeof *n_rows; k++) {
            if (n_cached[i] <= most_cached && n_rows[k] <= most_rows) {
                good = compare(&l, n_rows[k], n_cached[i]) && good;
            }
        }
    }
    return good ? 0 : 1;
}
