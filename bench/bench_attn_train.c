/* Attention of training, forward and backward.
 *
 *   bench_attn_train [--threads N] [--isa LEVEL] [--bf16] [--seconds S] N_SEQ SEQ_LEN H G DK DV
 *
 * Prints the least milliseconds of forward and of backward, and GFLOP/s of the products that a
 * causal mask leaves (2 forward, 5 backward). bench/compare_attention.py holds PyTorch beside it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "nn/attn_train.h"

static void check(bool ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

static float *numbers(int64_t n) {
    static du_rng rng;
    float *x = du_alloc_aligned((size_t)n * sizeof *x);
    check(x != NULL, "memory");
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)du_rng_normal(&rng);
    }
    return x;
}

/* Multiply-adds of all (query, key) pairs per value of a head's size */
static double n_pairs(const du_attn_train *a) {
    double n = (double)a->seq_len;
    return (double)(a->n_seq * a->H) * n * (n + 1) / 2;
}

static void bench(du_ctx *ctx, du_gemm_kind kind, const du_attn_train *a, double seconds) {
    int64_t T = a->n_seq * a->seq_len;
    float *q = numbers(T * a->q.row), *k = numbers(T * a->k.row), *v = numbers(T * a->v.row);
    float *dout = numbers(T * a->out.row), *out = numbers(T * a->out.row);
    float *lse = numbers(T * a->H), *dq = numbers(T * a->q.row), *dk = numbers(T * a->k.row);
    float *dv = numbers(T * a->v.row);
    double fwd = INFINITY, bwd = INFINITY, end = du_clock_s() + seconds;
    for (int i = 0; i < 2 || du_clock_s() < end; i++) {
        double t0 = du_clock_s();
        check(du_attn_train_fwd(ctx, kind, a, out, lse, q, k, v) == DU_OK, "forward");
        double t1 = du_clock_s();
        check(du_attn_train_bwd(ctx, kind, a, dq, dk, dv, dout, out, lse, q, k, v) == DU_OK,
              "backward");
        fwd = fmin(fwd, t1 - t0);
        bwd = fmin(bwd, du_clock_s() - t1);
    }
    double sizes = (double)(a->dk + a->dv), back = (double)(3 * a->dk + 2 * a->dv);
    printf("forward %.3f ms %.0f GFLOP/s    backward %.3f ms %.0f GFLOP/s\n", fwd * 1e3,
           2 * n_pairs(a) * sizes / fwd * 1e-9, bwd * 1e3, 2 * n_pairs(a) * back / bwd * 1e-9);
    du_free(q), du_free(k), du_free(v), du_free(dout), du_free(out), du_free(lse);
    du_free(dq), du_free(dk), du_free(dv);
}

int main(int argc, char **argv) {
    int64_t n_threads = 1, sizes[6], n_sizes = 0;
    double seconds = 0.5;
    bool bf16 = false;
    du_isa isa = du_isa_best();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            n_threads = strtol(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
            seconds = strtod(argv[++i], NULL);
        } else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
            check(du_isa_find(&isa, argv[++i]), "--isa");
        } else if (strcmp(argv[i], "--bf16") == 0) {
            bf16 = true;
        } else if (n_sizes < 6) {
            sizes[n_sizes++] = strtol(argv[i], NULL, 10);
        }
    }
    check(n_sizes == 6, "reading N_SEQ SEQ_LEN H G DK DV");
    du_ctx ctx = {.kern = du_kern_get(isa), .scratch = du_arena_new(1 << 20)};
    check(ctx.kern && ctx.scratch && du_pool_new(&ctx.pool, n_threads, true, NULL) == DU_OK,
          "starting");
    int64_t H = sizes[2], G = sizes[3], dk = sizes[4], dv = sizes[5];
    bench(&ctx, du_kern_gemm_kind(ctx.kern, bf16),
          &(du_attn_train){.n_seq = sizes[0],
                           .seq_len = sizes[1],
                           .H = H,
                           .G = G,
                           .dk = dk,
                           .dv = dv,
                           .q = {H * dk, dk},
                           .k = {G * dk, dk},
                           .v = {G * dv, dv},
                           .out = {H * dv, dv},
                           .scale = 1 / sqrtf((float)dk)},
          seconds);
    du_pool_free(ctx.pool);
    du_arena_free(ctx.scratch);
    return 0;
}
