/* Speed of every kernel at every level of this machine: one line per entry and level.
 *
 *   bench_kern [NAME] [--large]     only entries whose name contains NAME; weights from memory
 *
 * Levels take turns and the least of N_ROUND times counts, so that a busy neighbour spoils no
 * comparison. Products are measured on weights that fit the second-level cache (the instruction
 * limit) or, with --large, on N_LARGE bytes of weights (what decoding sees): GB/s of weights for
 * one token, GOP/s (two per weight and token) for 1, 8 and 64 tokens. Ratios are times of C and of
 * the next lower level over this level's; of weights in strips, of the same level's rows. With
 * strips 256 tokens are offered in bf16 as well, where the level may use that. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kern/cpu/fill.h"
#include "kern/kern.h"
#include "kern/strips.h"
#include "tensor/half.h"

enum { COLS = 2048, ROWS_SMALL = 128, N_LARGE = 96 << 20, T_MAX = 256, N_ROUND = 40 };
static const double ROUND_S = 0.0005; /* a measured run repeats its call for so long */

static du_rng rng;

/* One call to measure, and what it does. */
typedef struct {
    void (*call)(const du_kern *k, void *arg);
    void *arg;
    double bytes, ops;
} work;

static double run_once(const work *w, const du_kern *k) {
    double t0 = du_clock_s(), t;
    int64_t n = 0;
    do {
        w->call(k, w->arg);
        n++;
        t = du_clock_s() - t0;
    } while (t < ROUND_S);
    return t / (double)n;
}

/* Least seconds per call of each level, INFINITY where the machine lacks it. */
static void measure(double s[DU_ISA_COUNT], const work *w) {
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        s[isa] = INFINITY;
    }
    for (int round = 0; round < N_ROUND; round++) {
        for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
            const du_kern *k = du_kern_get((du_isa)isa);
            if (k) {
                s[isa] = fmin(s[isa], run_once(w, k));
            }
        }
    }
}

/* The time of the level below over this one's. */
static double ratio_below(const double s[DU_ISA_COUNT], int isa) {
    for (int i = isa - 1; i >= 0; i--) {
        if (isfinite(s[i])) {
            return s[i] / s[isa];
        }
    }
    return 1;
}

typedef struct {
    du_mat w;
    du_acts x;
    float *y;
    int64_t T;
    du_strips strips;
} product;

static void call_mm(const du_kern *k, void *arg) {
    product *p = arg;
    k->mm[p->w.dtype](p->y, p->w.rows, &p->w, 0, p->w.rows, &p->x, NULL, p->T);
}
static void call_mm_strips(const du_kern *k, void *arg) {
    product *p = arg;
    if (k->mm_strips[p->w.dtype]) {
        k->mm_strips[p->w.dtype](p->y, p->w.rows, &p->w, 0, p->w.rows, &p->x, NULL, p->T);
    }
}

static void *alloc(size_t n) {
    void *p = du_alloc_aligned(n);
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

/* Bytes at random; scales of block types are whatever they are, which no speed depends on, but
 * numbers of float types are made normal: subnormal ones are slow. */
static void fill_weights(uint8_t *w, size_t n, du_dtype dtype) {
    for (size_t i = 0; i < n; i++) {
        uint8_t v = (uint8_t)du_rng_u64(&rng);
        w[i] = du_dtype_is_block(dtype) ? (v & 0x1f) | 0x20 : v;
    }
    for (size_t i = 0; dtype == DU_F32 && i < n; i += 4) {
        float v = (float)du_rng_uniform(&rng);
        memcpy(w + i, &v, 4);
    }
    for (size_t i = 0; (dtype == DU_F16 || dtype == DU_BF16) && i < n; i += 2) {
        float v = (float)du_rng_uniform(&rng);
        uint16_t h = dtype == DU_F16 ? du_f16_of_f32(v) : du_bf16_of_f32(v);
        memcpy(w + i, &h, 2);
    }
}

/* 1, 8 and 64 tokens; with strips also 256, in bf16. */
enum { N_COUNT = 4, N_ROWS_COUNT = 3 };
static const int64_t counts[N_COUNT] = {1, 8, 64, 256};

static void print_mm(const char *what, du_dtype dtype, int isa, double bytes, double s) {
    printf("%s %-8s %-7s %6.1f GB/s", what, du_dtype_get(dtype)->name, du_isa_name((du_isa)isa),
           bytes / s * 1e-9);
}

static void bench_rows(double s[N_COUNT][DU_ISA_COUNT], product *p, bool large) {
    double bytes = (double)p->w.row_bytes * (double)p->w.rows;
    double ops = 2.0 * (double)p->w.rows * COLS;
    int n = large ? 1 : N_ROWS_COUNT;
    for (int i = 0; i < n; i++) {
        p->T = counts[i];
        measure(s[i], &(work){.call = call_mm, .arg = p});
    }
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        if (!isfinite(s[0][isa])) {
            continue;
        }
        print_mm("mm", p->w.dtype, isa, bytes, s[0][isa]);
        for (int i = 0; i < n; i++) {
            printf("  T=%-2d %7.1f GOP/s (%5.2fx C, %5.2fx below)", (int)counts[i],
                   ops * (double)counts[i] / s[i][isa] * 1e-9, s[i][DU_ISA_C] / s[i][isa],
                   ratio_below(s[i], isa));
        }
        printf("\n");
        fflush(stdout);
    }
}

/* rows: the times of bench_rows */
static void bench_strips(double rows[N_COUNT][DU_ISA_COUNT], product *p, bool large) {
    double s[N_COUNT][DU_ISA_COUNT], ops = 2.0 * (double)p->w.rows * COLS;
    const uint16_t *h = p->x.h;
    int n = large ? 1 : N_COUNT;
    for (int i = 0; i < n; i++) {
        p->T = counts[i];
        p->x.h = i < N_ROWS_COUNT ? NULL : h;
        measure(s[i], &(work){.call = call_mm_strips, .arg = p});
    }
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        const du_kern *k = du_kern_get((du_isa)isa);
        if (!k || !k->mm_strips[p->w.dtype]) {
            continue;
        }
        print_mm("mm strips", p->w.dtype, isa, (double)du_strips_bytes(&p->w), s[0][isa]);
        for (int i = 0; i < n; i++) {
            double gops = ops * (double)counts[i] / s[i][isa] * 1e-9;
            if (i < N_ROWS_COUNT) {
                printf("  T=%-2d %7.1f GOP/s (%5.2fx rows)", (int)counts[i], gops,
                       rows[i][isa] / s[i][isa]);
            } else if (k->n_bf16 > 0) {
                printf("  T=%-2d bf16 %7.1f GOP/s", (int)counts[i], gops);
            }
        }
        printf("\n");
        fflush(stdout);
    }
}

static void bench_mm(du_dtype dtype, bool large) {
    product p = {0};
    double s[N_COUNT][DU_ISA_COUNT];
    size_t row_bytes = du_dtype_row_bytes(dtype, COLS);
    int64_t rows = large ? (int64_t)(N_LARGE / row_bytes) : ROWS_SMALL;
    uint8_t *w = alloc(row_bytes * (size_t)rows);
    fill_weights(w, row_bytes * (size_t)rows, dtype);
    p.w = (du_mat){.data = w, .dtype = dtype, .rows = rows, .cols = COLS, .row_bytes = row_bytes};
    float *x = alloc(sizeof(float) * T_MAX * COLS), *d = alloc(sizeof(float) * T_MAX * COLS / 32);
    int8_t *q = alloc(T_MAX * COLS);
    int16_t *sum = alloc(sizeof(int16_t) * T_MAX * COLS / 16);
    uint16_t *h = alloc(sizeof(uint16_t) * T_MAX * COLS);
    p.y = alloc(sizeof(float) * (large ? 1 : T_MAX) * (size_t)rows);
    for (int i = 0; i < T_MAX * COLS; i++) {
        x[i] = (float)du_rng_normal(&rng);
        h[i] = du_bf16_of_f32(x[i]);
    }
    du_kern_get(DU_ISA_C)->quantize(q, d, sum, x, T_MAX * COLS);
    p.x = (du_acts){x, COLS, T_MAX, COLS, q, d, sum, h, COLS};
    bench_rows(s, &p, large);
    if (du_dtype_is_block(dtype)) {
        p.w.strips = &p.strips;
        p.strips.data = alloc(du_strips_bytes(&p.w));
        du_kern_get(du_isa_best())->strips_write(&p.w, 0, rows);
        bench_strips(s, &p, large);
        du_free(p.strips.data);
    }
    du_free(w), du_free(x), du_free(d), du_free(q), du_free(sum), du_free(h), du_free(p.y);
}

/* The other kernels: named calls on one set of buffers. */
enum { N_HEAD = 16, N_KV = 256, LATENT = 576, VALUES = 512 };

static struct {
    float *x, *y, *w, *out;
    int8_t *q;
    int16_t *sum;
    void *kv[DU_DTYPE_COUNT];
} bufs;

static du_dtype kv_dtype;

static void call_qk(const du_kern *k, void *arg) {
    (void)arg;
    k->qk[kv_dtype](bufs.out, N_KV, bufs.x, LATENT, N_HEAD, bufs.kv[kv_dtype],
                    du_dtype_row_bytes(kv_dtype, LATENT), N_KV, LATENT, 0.1f);
}
static void call_pv(const du_kern *k, void *arg) {
    (void)arg;
    memset(bufs.y, 0, sizeof(float) * N_HEAD * VALUES);
    k->pv[kv_dtype](bufs.y, VALUES, bufs.w, N_KV, N_HEAD, bufs.kv[kv_dtype],
                    du_dtype_row_bytes(kv_dtype, LATENT), N_KV, VALUES);
}
static void call_kv_store(const du_kern *k, void *arg) {
    (void)arg;
    k->kv_store[kv_dtype](bufs.out, bufs.x, LATENT);
}
static void call_kv_load(const du_kern *k, void *arg) {
    (void)arg;
    k->kv_load[kv_dtype](bufs.out, bufs.kv[kv_dtype], LATENT);
}
static void call_quantize(const du_kern *k, void *arg) {
    (void)arg;
    k->quantize(bufs.q, bufs.out, bufs.sum, bufs.x, COLS);
}
static void call_residue(const du_kern *k, void *arg) {
    (void)arg;
    k->residue(bufs.out, bufs.x, bufs.q, bufs.w, COLS);
}
static void call_rmsnorm(const du_kern *k, void *arg) {
    (void)arg;
    k->rmsnorm(bufs.out, bufs.x, bufs.w, COLS, 1e-6f);
}
static void call_swiglu(const du_kern *k, void *arg) {
    (void)arg;
    k->swiglu(bufs.out, bufs.x, bufs.w, COLS);
}
static void call_add(const du_kern *k, void *arg) {
    (void)arg;
    k->add(bufs.out, bufs.x, COLS);
}
static void call_axpy(const du_kern *k, void *arg) {
    (void)arg;
    k->axpy(bufs.out, 0.001f, bufs.x, COLS);
}
static void call_scale(const du_kern *k, void *arg) {
    (void)arg;
    k->scale(bufs.out, 1.0f, COLS);
}
static void call_rope_norm(const du_kern *k, void *arg) {
    (void)arg;
    k->rope_norm(bufs.x, bufs.w, bufs.w + COLS, COLS / 2);
}
static void call_rope_neox(const du_kern *k, void *arg) {
    (void)arg;
    k->rope_neox(bufs.x, bufs.w, bufs.w + COLS, COLS / 2);
}
static void call_read_sum(const du_kern *k, void *arg) {
    (void)arg;
    (void)k->read_sum(bufs.x, 4 * N_HEAD * COLS);
}
static void call_softmax(const du_kern *k, void *arg) {
    (void)arg;
    float m = -INFINITY, l = 0;
    memcpy(bufs.out, bufs.x, sizeof(float) * COLS);
    k->softmax(bufs.out, COLS, &m, &l);
}

static void bench_call(const char *name, void (*call)(const du_kern *, void *), double ops) {
    double s[DU_ISA_COUNT];
    measure(s, &(work){.call = call});
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        if (isfinite(s[isa])) {
            printf("%-17s %-7s %8.1f ns  %6.2f GOP/s (%5.2fx C, %5.2fx below)\n", name,
                   du_isa_name((du_isa)isa), s[isa] * 1e9, ops / s[isa] * 1e-9,
                   s[DU_ISA_C] / s[isa], ratio_below(s, isa));
        }
    }
    fflush(stdout);
}

static du_probe probe;
enum { N_PROBE_ROUNDS = 1000 };

static void call_probe(const du_kern *k, void *arg) {
    (void)arg;
    if (k->probe[probe]) {
        (void)k->probe[probe](N_PROBE_ROUNDS);
    }
}

/* Two operations per multiply-add; levels differ in how many a round has. */
static void bench_probe(const char *name) {
    double s[DU_ISA_COUNT];
    measure(s, &(work){.call = call_probe});
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        du_probe_fn *fn = isfinite(s[isa]) ? du_kern_get((du_isa)isa)->probe[probe] : NULL;
        if (fn) {
            printf("probe %-11s %-7s %8.1f GOP/s\n", name, du_isa_name((du_isa)isa),
                   2 * fn(N_PROBE_ROUNDS) / s[isa] * 1e-9);
        }
    }
    fflush(stdout);
}

static void make_bufs(void) {
    size_t n = N_HEAD * (size_t)COLS; /* also 64 rows of latents */
    bufs.x = alloc(4 * n), bufs.y = alloc(4 * n), bufs.w = alloc(4 * n), bufs.out = alloc(4 * n);
    bufs.q = alloc(n), bufs.sum = alloc(n);
    for (size_t i = 0; i < n; i++) {
        bufs.x[i] = (float)du_rng_normal(&rng);
        bufs.w[i] = (float)cos((double)(i % COLS)); /* rotations keep x of its size */
        bufs.out[i] = 0;
        if (i / COLS == 1) {
            bufs.w[i] = (float)sin((double)(i % COLS));
        }
    }
#define MAKE_KV(suffix, name)                                                                      \
    bufs.kv[DU_##suffix] = alloc(N_KV * du_dtype_row_bytes(DU_##suffix, LATENT));                  \
    for (int j = 0; j < N_KV; j++) {                                                               \
        du_kern_get(DU_ISA_C)->kv_store[DU_##suffix](                                              \
            (char *)bufs.kv[DU_##suffix] + (size_t)j * du_dtype_row_bytes(DU_##suffix, LATENT),    \
            bufs.x + j, LATENT);                                                                   \
    }
    DU_KV_DTYPE_LIST(MAKE_KV)
}

static bool wanted(const char *name, const char *filter) {
    return !filter || strcasestr(name, filter);
}

static void bench_others(const char *filter) {
    static const struct {
        const char *name;
        void (*call)(const du_kern *, void *);
        double ops;
    } calls[] = {
        {"quantize", call_quantize, COLS},
        {"residue", call_residue, 2.0 * COLS},
        {"rmsnorm", call_rmsnorm, COLS},
        {"swiglu", call_swiglu, COLS},
        {"add", call_add, COLS},
        {"axpy", call_axpy, 2.0 * COLS},
        {"scale", call_scale, COLS},
        {"rope_norm", call_rope_norm, 3.0 * COLS},
        {"rope_neox", call_rope_neox, 3.0 * COLS},
        {"softmax", call_softmax, COLS},
        {"read_sum", call_read_sum, 0.5 * N_HEAD * COLS},
    };
    static const du_dtype kv[] = {DU_F32, DU_F16, DU_BF16, DU_Q8_0};
    for (int i = 0; i < 4; i++) {
        char name[32];
        kv_dtype = kv[i];
        snprintf(name, sizeof name, "qk %s", du_dtype_get(kv_dtype)->name);
        if (wanted(name, filter)) {
            bench_call(name, call_qk, 2.0 * N_HEAD * N_KV * LATENT);
        }
        snprintf(name, sizeof name, "pv %s", du_dtype_get(kv_dtype)->name);
        if (wanted(name, filter)) {
            bench_call(name, call_pv, 2.0 * N_HEAD * N_KV * VALUES);
        }
        snprintf(name, sizeof name, "kv_store %s", du_dtype_get(kv_dtype)->name);
        if (wanted(name, filter)) {
            bench_call(name, call_kv_store, LATENT);
        }
        snprintf(name, sizeof name, "kv_load %s", du_dtype_get(kv_dtype)->name);
        if (wanted(name, filter)) {
            bench_call(name, call_kv_load, LATENT);
        }
    }
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (wanted(calls[i].name, filter)) {
            bench_call(calls[i].name, calls[i].call, calls[i].ops);
        }
    }
#define PROBE_NAME(code, text) text,
    static const char *const probes[] = {DU_PROBE_LIST(PROBE_NAME)};
#undef PROBE_NAME
    for (int i = 0; i < DU_PROBE_COUNT; i++) {
        probe = (du_probe)i;
        if (wanted(probes[i], filter)) {
            bench_probe(probes[i]);
        }
    }
}

/* Attention in tiles: one step of a latent cache for one and for sixteen tiles of queries, with
 * every way of this machine, beside the same work done exactly by qk, softmax and pv. */
typedef struct {
    const du_attn_tiles *attn; /* NULL: exactly */
    du_dtype dtype;
    int64_t n_tiles;
    uint16_t *queries, *k, *v;
    float *q, *sums;
    int32_t *seen;
    void *rows;
} tiles_work;

static void load_step(const tiles_work *t) {
    size_t stride = du_dtype_row_bytes(t->dtype, LATENT);
    for (int64_t i = 0; i < DU_ATTN_STEP / DU_ATTN_PAGE; i++) {
        t->attn->load[t->dtype](t->k + i * DU_ATTN_PAGE * LATENT, t->v + i * du_attn_v_len(VALUES),
                                (char *)t->rows + (size_t)(i * DU_ATTN_PAGE) * stride, stride,
                                DU_ATTN_PAGE, LATENT, VALUES);
    }
}
static void call_attn_load(const du_kern *k, void *arg) {
    (void)k;
    load_step(arg);
}
static void call_attn_step(const du_kern *k, void *arg) {
    (void)k;
    const tiles_work *t = arg;
    t->attn->step(t->sums, t->queries, t->n_tiles, t->k, t->v, DU_ATTN_STEP, LATENT, VALUES,
                  t->seen);
}
static void call_attn_merge(const du_kern *k, void *arg) {
    (void)k;
    const tiles_work *t = arg;
    t->attn->merge(t->sums, t->sums + du_attn_sums_len(VALUES), VALUES);
}
static void call_attn_exact(const du_kern *k, void *arg) {
    const tiles_work *t = arg;
    size_t stride = du_dtype_row_bytes(t->dtype, LATENT);
    for (int64_t i = 0; i < 16 * t->n_tiles; i += 64) {
        int64_t n = 16 * t->n_tiles - i < 64 ? 16 * t->n_tiles - i : 64;
        for (int64_t j = 0; j < DU_ATTN_STEP; j += 64) {
            const char *rows = (const char *)t->rows + (size_t)j * stride;
            k->qk[t->dtype](bufs.out, 64, t->q, LATENT, n, rows, stride, 64, LATENT, 0.05f);
            for (int64_t h = 0; h < n; h++) {
                float m = -INFINITY, l = 0;
                k->softmax(bufs.out + 64 * h, 64, &m, &l);
            }
            k->pv[t->dtype](t->sums, VALUES, bufs.out, 64, n, rows, stride, 64, VALUES);
        }
    }
}

/* A page of latents expanded for one head of V2-Lite; w and v are whatever queries and values are.
 */
static void call_attn_expand(const du_kern *k, void *arg) {
    (void)k;
    const tiles_work *t = arg;
    t->attn->expand(t->k + DU_ATTN_PAGE * LATENT, t->v, t->k, t->queries, VALUES, LATENT - VALUES,
                    192, 128);
}

static double least_s(void (*call)(const du_kern *, void *), const du_kern *k, void *arg) {
    double s = INFINITY;
    for (int round = 0; round < N_ROUND; round++) {
        s = fmin(s, run_once(&(work){.call = call, .arg = arg}, k));
    }
    return s;
}

static void bench_way(tiles_work t, const du_attn_tiles *attn, const char *name) {
    t.attn = attn;
    double ops = 2.0 * 16 * DU_ATTN_STEP * (LATENT + VALUES);
    for (t.n_tiles = 1; t.n_tiles <= 16; t.n_tiles *= 16) {
        double s = least_s(call_attn_step, NULL, &t);
        printf("attn step %-19s %2d tiles %9.1f us  %7.1f GOP/s\n", name, (int)t.n_tiles, s * 1e6,
               ops * (double)t.n_tiles / s * 1e-9);
    }
    printf("attn merge %-18s          %9.1f us\n", name, least_s(call_attn_merge, NULL, &t) * 1e6);
    double s = least_s(call_attn_expand, NULL, &t);
    printf("attn expand %-17s          %9.1f us  %7.1f GOP/s\n", name, s * 1e6,
           2.0 * DU_ATTN_PAGE * VALUES * 256 / s * 1e-9);
    static const du_dtype kv[] = {DU_F16, DU_BF16, DU_Q8_0};
    for (int i = 0; i < 3; i++) {
        t.dtype = kv[i];
        t.rows = bufs.kv[kv[i]];
        s = least_s(call_attn_load, NULL, &t);
        printf("attn load %-19s %-8s %9.1f us  %7.1f GB/s\n", name, du_dtype_get(kv[i])->name,
               s * 1e6, (double)du_dtype_row_bytes(kv[i], LATENT) * DU_ATTN_STEP / s * 1e-9);
    }
}

static void bench_tiles(void) {
    tiles_work t = {.dtype = DU_F16, .rows = bufs.kv[DU_F16]};
    double ops = 2.0 * 16 * DU_ATTN_STEP * (LATENT + VALUES);
    t.queries = alloc(2 * 16 * 16 * LATENT);
    t.k = alloc(2 * DU_ATTN_STEP * LATENT);
    t.v = alloc(2 * (size_t)du_attn_v_len(VALUES) * DU_ATTN_STEP / DU_ATTN_PAGE);
    t.q = alloc(4 * 16 * 16 * LATENT);
    t.sums = alloc(4 * 16 * (size_t)du_attn_sums_len(VALUES));
    t.seen = alloc(4 * 16 * 16);
    for (int i = 0; i < 16 * 16 * LATENT; i++) {
        t.q[i] = (float)du_rng_normal(&rng);
    }
    for (int i = 0; i < 16 * 16; i++) {
        t.seen[i] = DU_ATTN_STEP;
    }
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        const du_kern *k = du_kern_get((du_isa)isa);
        for (t.n_tiles = 1; k && t.n_tiles <= 16; t.n_tiles *= 16) {
            double s = least_s(call_attn_exact, k, &t);
            printf("attn exact %-18s %2d tiles %9.1f us  %7.1f GOP/s\n", du_isa_name((du_isa)isa),
                   (int)t.n_tiles, s * 1e6, ops * (double)t.n_tiles / s * 1e-9);
        }
        if (!k || !k->attn.step) {
            continue;
        }
        for (int i = 0; i < 16; i++) {
            const float *q[16];
            for (int h = 0; h < 16; h++) {
                q[h] = t.q + (16 * i + h) * LATENT;
            }
            k->attn.queries(t.queries + i * du_attn_queries_len(LATENT), q, 16, LATENT, 0.05f);
        }
        t.attn = &k->attn;
        load_step(&t);
        bench_way(t, &k->attn, du_isa_name((du_isa)isa));
#if defined(__x86_64__)
        static du_kern plain;
        if (du_cpu_get_features()->amx_bf16) {
            du_kern_fill_attn_tiles_bf16_avx512(&plain);
            bench_way(t, &plain.attn, "avx512 without amx");
        }
#endif
    }
}

int main(int argc, char **argv) {
    const char *filter = NULL;
    bool large = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--large") == 0) {
            large = true;
        } else {
            filter = argv[i];
        }
    }
    du_rng_init(&rng, 1);
    for (int i = 0; i < DU_DTYPE_COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, "mm %s", du_dtype_get((du_dtype)i)->name);
        if (wanted(name, filter)) {
            bench_mm((du_dtype)i, large);
        }
    }
    if (!large) {
        make_bufs();
        bench_others(filter);
        if (wanted("attn tiles", filter)) {
            bench_tiles();
        }
    }
    return 0;
}
