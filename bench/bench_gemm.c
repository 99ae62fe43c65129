/* The products of training beside oneDNN's and OpenBLAS's, where those are installed.
 *
 *   bench_gemm [--threads N] [--isa LEVEL] [--rounds N] [T N K]
 *
 * For each shape (those of a training step, or the one given): forward Y = X W^T, the same with
 * weights packed before, dX = dY W, the same, dW = dY^T X over one leaf and over leaves of 256
 * rows. F32, the same in tiles of BF16 where the level has them, then the kind of BF16 that it is
 * faster with, from F32 inputs and from BF16 inputs; the peers' BF16 products take BF16 inputs. The
 * programs take turns; a cell is 2 T N K over the least time of all rounds, in GFLOP/s, and how
 * many times oneDNN's speed that is. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "nn/gemm.h"
#include "tensor/half.h"

#ifdef DURE_BENCH_DNNL
#include <dnnl.h>
extern void omp_set_num_threads(int n);
#endif
#ifdef DURE_BENCH_OPENBLAS
#include <cblas.h>
extern void openblas_set_num_threads(int n);
#endif

enum { N_SHAPES = 9, LEAF = 256 };
static const int64_t shapes[N_SHAPES][3] = {
    {1024, 512, 512},  {4096, 1024, 1024}, {64, 512, 256},   {64, 256, 512}, {256, 512, 256},
    {1024, 512, 2048}, {2048, 256, 256},   {4096, 256, 768}, {32, 256, 128},
};

typedef enum { FWD, FWD_PACKED, DGRAD, DGRAD_PACKED, WGRAD, WGRAD_LEAVES, N_OPS } op;
static const char *const op_names[N_OPS] = {"fwd", "packed", "dgrad", "packed", "wgrad", "leaves"};

/* Who computes, from what */
typedef enum {
    OWN_F32,
    OWN_F32_TILES,
    DNNL_F32,
    BLAS_F32,
    OWN_BF16,
    OWN_BF16_IN,
    DNNL_BF16,
    N_WAYS
} way;
static const char *const way_names[N_WAYS] = {
    "f32 own",          "f32 own, tiles",    "f32 oneDNN", "f32 OpenBLAS",
    "bf16 own, f32 in", "bf16 own, bf16 in", "bf16 oneDNN"};

static du_ctx ctx;
static int64_t n_threads = 1, T, N, K;
static float *x, *dy, *w, *y;
static uint16_t *x16, *dy16, *w16;
static void *packed[DU_GEMM_KINDS][2]; /* for forward, for dgrad */
static double least[N_WAYS][N_OPS];

static void *alloc(size_t n) {
    void *p = du_alloc_aligned(n);
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

static void check(bool ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

static du_gemm_src src(bool bf16, const float *f32, const uint16_t *h, int64_t ld) {
    return (du_gemm_src){.data = bf16 ? (const void *)h : f32, .ld = ld, .bf16 = bf16};
}

static void own(way who, op what) {
    du_gemm_kind kind = who == OWN_F32         ? DU_GEMM_F32
                        : who == OWN_F32_TILES ? DU_GEMM_F32_TILES
                                               : ctx.kern->gemm_bf16;
    bool bf16 = who == OWN_BF16_IN, dgrad = what == DGRAD || what == DGRAD_PACKED;
    bool is_packed = what == FWD_PACKED || what == DGRAD_PACKED;
    int64_t end[4096 / LEAF], n_leaves = 0;
    du_gemm_job job = {.y = y,
                       .ldy = dgrad ? K : N,
                       .x = dgrad ? src(bf16, dy, dy16, N) : src(bf16, x, x16, K),
                       .w = src(bf16, w, w16, K),
                       .packed = is_packed ? packed[kind][dgrad] : NULL,
                       .T = T,
                       .N = N,
                       .K = K};
    du_gemm_grad grad = {.dw = y,
                         .lddw = K,
                         .dy = src(bf16, dy, dy16, N),
                         .x = src(bf16, x, x16, K),
                         .end = end,
                         .N = N,
                         .K = K};
    for (int64_t t = 0; t < T; n_leaves++) {
        t = what == WGRAD || t + LEAF > T ? T : t + LEAF;
        end[n_leaves] = t;
    }
    du_err err = what >= WGRAD ? du_gemm_wgrad(&ctx, kind, &grad, 1, (du_leaves){0, n_leaves, true})
                 : dgrad       ? du_gemm_dgrad(&ctx, kind, &job, 1)
                               : du_gemm_fwd(&ctx, kind, &job, 1);
    check(err == DU_OK, "a product");
}

#ifdef DURE_BENCH_DNNL
static dnnl_engine_t engine;
static dnnl_stream_t stream;

typedef struct {
    dnnl_memory_t a, b, c;
    dnnl_primitive_t run;
} peer;
static peer peers[N_WAYS][N_OPS];

static dnnl_memory_t memory(int64_t rows, int64_t cols, bool transposed, bool bf16, void *data) {
    dnnl_dims_t dims = {rows, cols};
    dnnl_memory_desc_t d;
    dnnl_memory_t m;
    check(dnnl_memory_desc_init_by_tag(&d, 2, dims, bf16 ? dnnl_bf16 : dnnl_f32,
                                       transposed ? dnnl_ba : dnnl_ab) == dnnl_success &&
              dnnl_memory_create(&m, &d, engine, data) == dnnl_success,
          "oneDNN's memory");
    return m;
}

static dnnl_primitive_t matmul(dnnl_memory_t a, dnnl_memory_t b, dnnl_memory_t c) {
    const dnnl_memory_desc_t *da, *db, *dc;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t p;
    check(dnnl_memory_get_memory_desc(a, &da) == dnnl_success &&
              dnnl_memory_get_memory_desc(b, &db) == dnnl_success &&
              dnnl_memory_get_memory_desc(c, &dc) == dnnl_success &&
              dnnl_matmul_desc_init(&desc, da, db, NULL, dc) == dnnl_success &&
              dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL) == dnnl_success &&
              dnnl_primitive_create(&p, pd) == dnnl_success,
          "oneDNN's product");
    dnnl_primitive_desc_destroy(pd);
    return p;
}

static void make_peers(void) {
    for (int who = 0; who < N_WAYS; who++) {
        if (who != DNNL_F32 && who != DNNL_BF16) {
            continue;
        }
        bool h = who == DNNL_BF16;
        void *xs = h ? (void *)x16 : x, *dys = h ? (void *)dy16 : dy, *ws = h ? (void *)w16 : w;
        peer *p = peers[who];
        p[FWD].a = memory(T, K, false, h, xs);
        p[FWD].b = memory(K, N, true, h, ws);
        p[FWD].c = memory(T, N, false, false, y);
        p[DGRAD].a = memory(T, N, false, h, dys);
        p[DGRAD].b = memory(N, K, false, h, ws);
        p[DGRAD].c = memory(T, K, false, false, y);
        p[WGRAD].a = memory(N, T, true, h, dys);
        p[WGRAD].b = memory(T, K, false, h, xs);
        p[WGRAD].c = memory(N, K, false, false, y);
        for (int what = 0; what < N_OPS; what++) {
            if (p[what].a) {
                p[what].run = matmul(p[what].a, p[what].b, p[what].c);
            }
        }
    }
}

static void drop_peers(void) {
    for (int i = 0; i < N_WAYS * N_OPS; i++) {
        peer *p = &peers[i / N_OPS][i % N_OPS];
        if (p->run) {
            dnnl_primitive_destroy(p->run);
            dnnl_memory_destroy(p->a), dnnl_memory_destroy(p->b), dnnl_memory_destroy(p->c);
        }
        *p = (peer){0};
    }
}

static void dnnl(way who, op what) {
    const peer *p = &peers[who][what];
    dnnl_exec_arg_t args[3] = {
        {DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}};
    check(dnnl_primitive_execute(p->run, stream, 3, args) == dnnl_success &&
              dnnl_stream_wait(stream) == dnnl_success,
          "oneDNN");
}
#endif

#ifdef DURE_BENCH_OPENBLAS
static void blas(op what) {
    int t = (int)T, n = (int)N, k = (int)K;
    if (what == FWD) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, t, n, k, 1, x, k, w, k, 0, y, n);
    } else if (what == DGRAD) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, t, k, n, 1, dy, n, w, k, 0, y, k);
    } else {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, k, t, 1, dy, n, x, k, 0, y, k);
    }
}
#endif

/* false: nobody does that */
static bool call(way who, op what) {
    bool peer_op = what == FWD || what == DGRAD || what == WGRAD;
    if (who == OWN_F32 || who == OWN_BF16 || who == OWN_BF16_IN ||
        (who == OWN_F32_TILES && ctx.kern->gemm_f32 == DU_GEMM_F32_TILES)) {
        own(who, what);
        return true;
    }
#ifdef DURE_BENCH_DNNL
    if (peer_op && (who == DNNL_F32 || who == DNNL_BF16)) {
        dnnl(who, what);
        return true;
    }
#endif
#ifdef DURE_BENCH_OPENBLAS
    if (peer_op && who == BLAS_F32) {
        blas(what);
        return true;
    }
#endif
    (void)peer_op;
    return false;
}

/* Some calls of one kind; the least time counts. */
static void measure(way who, op what) {
    double end = du_clock_s() + 0.004;
    for (int i = 0; i < 3 || du_clock_s() < end; i++) {
        double t0 = du_clock_s();
        if (!call(who, what)) {
            return;
        }
        least[who][what] = fmin(least[who][what], du_clock_s() - t0);
    }
}

static void fill(float *f, uint16_t *h, int64_t n, du_rng *rng) {
    for (int64_t i = 0; i < n; i++) {
        f[i] = (float)du_rng_normal(rng);
        h[i] = du_bf16_of_f32(f[i]);
    }
}

/* What oneDNN takes for the same product, from inputs of its kind; infinite where it is not there
 */
static double peer_time(way who, op what) {
    op alike = what == FWD_PACKED     ? FWD
               : what == DGRAD_PACKED ? DGRAD
               : what == WGRAD_LEAVES ? WGRAD
                                      : what;
    return least[who < OWN_BF16 ? DNNL_F32 : DNNL_BF16][alike];
}

static void print_way(way who) {
    if (!isfinite(least[who][FWD])) {
        return;
    }
    printf("    %-18s", way_names[who]);
    for (int what = 0; what < N_OPS; what++) {
        double s = least[who][what], theirs = peer_time(who, (op)what);
        if (isfinite(s)) {
            printf("  %s %5.0f", op_names[what], 2.0 * (double)(T * N * K) / s * 1e-9);
        }
        if (isfinite(s) && isfinite(theirs)) {
            printf(" %4.2f", theirs / s);
        }
    }
    printf("\n");
}

static void bench_shape(int rounds) {
    du_rng rng;
    du_rng_init(&rng, 1);
    int64_t n_x = T * K, n_dy = T * N, n_w = N * K;
    int64_t n_y = n_x > n_dy ? n_x : n_dy;
    n_y = n_y > n_w ? n_y : n_w;
    x = alloc((size_t)n_x * 4), dy = alloc((size_t)n_dy * 4), w = alloc((size_t)n_w * 4);
    x16 = alloc((size_t)n_x * 2), dy16 = alloc((size_t)n_dy * 2), w16 = alloc((size_t)n_w * 2);
    y = alloc((size_t)n_y * 4);
    fill(x, x16, n_x, &rng), fill(dy, dy16, n_dy, &rng), fill(w, w16, n_w, &rng);
    memset(y, 0, (size_t)n_y * 4);
    du_gemm_src weights = src(false, w, w16, K);
    for (int i = 0; i < DU_GEMM_KINDS; i++) {
        du_gemm_kind kind = (du_gemm_kind)i;
        packed[i][0] = alloc(du_gemm_packed_fwd_bytes(ctx.kern, kind, N, K));
        packed[i][1] = alloc(du_gemm_packed_dgrad_bytes(ctx.kern, kind, N, K));
        du_gemm_pack_fwd(&ctx, kind, packed[i][0], &weights, N, K);
        du_gemm_pack_dgrad(&ctx, kind, packed[i][1], &weights, N, K);
    }
#ifdef DURE_BENCH_DNNL
    make_peers();
#endif
    for (int i = 0; i < N_WAYS * N_OPS; i++) {
        least[i / N_OPS][i % N_OPS] = INFINITY;
    }
    for (int round = 0; round < rounds; round++) {
        for (int what = 0; what < N_OPS; what++) {
            for (int who = 0; who < N_WAYS; who++) {
                measure((way)who, (op)what);
            }
        }
    }
    printf("%d x %d x %d\n", (int)T, (int)N, (int)K);
    for (int who = 0; who < N_WAYS; who++) {
        print_way((way)who);
    }
    fflush(stdout);
#ifdef DURE_BENCH_DNNL
    drop_peers();
#endif
    du_free(x), du_free(dy), du_free(w), du_free(y), du_free(x16), du_free(dy16), du_free(w16);
    for (int i = 0; i < DU_GEMM_KINDS; i++) {
        du_free(packed[i][0]), du_free(packed[i][1]);
    }
}

static void print_peak(const char *name, du_probe probe) {
    double best = 0;
    for (int i = 0; ctx.kern->probe[probe] && i < 30; i++) {
        double t0 = du_clock_s(), n = ctx.kern->probe[probe](20000);
        best = fmax(best, 2 * n / (du_clock_s() - t0) * 1e-9);
    }
    printf("%s %.0f GFLOP/s\n", name, best);
}

int main(int argc, char **argv) {
    int rounds = 10, n_sizes = 0;
    int64_t sizes[3];
    du_isa isa = du_isa_best();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            n_threads = strtol(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
            rounds = (int)strtol(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
            check(du_isa_find(&isa, argv[++i]), "--isa");
        } else if (n_sizes < 3) {
            sizes[n_sizes++] = strtol(argv[i], NULL, 10);
        }
    }
    ctx = (du_ctx){.kern = du_kern_get(isa), .scratch = du_arena_new(1 << 20)};
    check(ctx.kern && ctx.scratch && du_pool_new(&ctx.pool, n_threads, false, NULL) == DU_OK,
          "starting");
#ifdef DURE_BENCH_DNNL
    omp_set_num_threads((int)n_threads);
    check(dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success &&
              dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success,
          "oneDNN");
#endif
#ifdef DURE_BENCH_OPENBLAS
    openblas_set_num_threads((int)n_threads);
#endif
    printf("peak of a core: ");
    print_peak("F32", DU_PROBE_F32);
    print_peak("    BF16", DU_PROBE_BF16);
    print_peak("    AMX BF16", DU_PROBE_AMX_BF16);
    for (int i = 0; i < (n_sizes == 3 ? 1 : N_SHAPES); i++) {
        const int64_t *s = n_sizes == 3 ? sizes : shapes[i];
        T = s[0], N = s[1], K = s[2];
        check(T > 0 && T <= 4096 && N > 0 && K > 0, "the shape (T up to 4096)");
        bench_shape(rounds);
    }
    du_pool_free(ctx.pool);
    du_arena_free(ctx.scratch);
    return 0;
}
