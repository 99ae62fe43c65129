/* Attention of training: the oracle against central differences of itself, then forward and
 * backward against the oracle; what must not change a bit. */
#include "ctx.h"

#include <math.h>

#include "base/rng.h"
#include "nn/attn_train.h"
#include "oracle/attention.h"

/* A problem with its arrays, of which the code under test sees copies with gaps: `gap` floats after
 * each head and 2 * gap after each row, all of them GAP. */
typedef struct {
    oracle_attn o;
    int64_t gap;
    bool alone; /* rows see themselves only: their scores' gradients are what rounding leaves */
    int32_t *first;
    double *q, *k, *v, *dout, *out, *lse, *dq, *dk, *dv, *p;
} problem;

typedef struct {
    float *q, *k, *v, *dout, *out, *lse, *dq, *dk, *dv;
} result;

static const float GAP = -77;

static du_rng rng;
static du_gemm_kind kind;
static du_ctx ctx;

static double *room(int64_t n) {
    double *x = du_alloc_array((size_t)n, sizeof *x);
    assert_non_null(x);
    return x;
}

/* Numbers that float holds exactly */
static double *normal(int64_t n) {
    double *x = room(n);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)du_rng_normal(&rng);
    }
    return x;
}

static int64_t n_rows(const problem *p) {
    return p->o.n_seq * p->o.seq_len;
}

static oracle_attn shape(int64_t n_seq, int64_t seq_len, int64_t H, int64_t G, int64_t dk,
                         int64_t dv) {
    double scale = 1 / sqrt((double)dk);
    return (oracle_attn){n_seq, seq_len, H, G, dk, dv, NULL, scale};
}

/* Documents of 1 .. longest rows; longest 0: none */
static problem make_problem(oracle_attn o, int64_t gap, int64_t longest) {
    problem p = {.o = o, .gap = gap, .alone = o.seq_len == 1 || longest == 1};
    int64_t T = n_rows(&p), begin = 0, left = 0;
    if (longest > 0) {
        p.first = du_alloc_array((size_t)T, sizeof *p.first);
        assert_non_null(p.first);
        for (int64_t t = 0; t < T; t++, left--) {
            if (t % o.seq_len == 0 || left == 0) {
                begin = t % o.seq_len;
                left = 1 + (int64_t)du_rng_below(&rng, (uint64_t)longest);
            }
            p.first[t] = (int32_t)begin;
        }
        p.o.first = p.first;
    }
    p.q = normal(T * o.H * o.dk);
    p.k = normal(T * o.G * o.dk);
    p.v = normal(T * o.G * o.dv);
    p.dout = normal(T * o.H * o.dv);
    p.out = room(T * o.H * o.dv);
    p.lse = room(T * o.H);
    p.dq = room(T * o.H * o.dk);
    p.dk = room(T * o.G * o.dk);
    p.dv = room(T * o.G * o.dv);
    p.p = room(o.seq_len);
    return p;
}

static void drop_problem(problem *p) {
    du_free(p->first), du_free(p->q), du_free(p->k), du_free(p->v), du_free(p->dout);
    du_free(p->out), du_free(p->lse), du_free(p->dq), du_free(p->dk), du_free(p->dv);
    du_free(p->p);
}

static du_heads lie(const problem *p, int64_t n_heads, int64_t d) {
    return (du_heads){n_heads * (d + p->gap) + 2 * p->gap, d + p->gap};
}

/* An array with gaps; x NULL: nothing but GAP */
static float *spread(const problem *p, const double *x, int64_t n_heads, int64_t d) {
    du_heads at = lie(p, n_heads, d);
    float *y = du_alloc_array((size_t)(n_rows(p) * at.row), sizeof *y);
    assert_non_null(y);
    for (int64_t i = 0; i < n_rows(p) * at.row; i++) {
        int64_t h = i % at.row / at.head, c = i % at.row % at.head;
        y[i] = x && h < n_heads && c < d ? (float)x[(i / at.row * n_heads + h) * d + c] : GAP;
    }
    return y;
}

static du_attn_train shape_of(const problem *p) {
    const oracle_attn *o = &p->o;
    return (du_attn_train){.n_seq = o->n_seq,
                           .seq_len = o->seq_len,
                           .H = o->H,
                           .G = o->G,
                           .dk = o->dk,
                           .dv = o->dv,
                           .q = lie(p, o->H, o->dk),
                           .k = lie(p, o->G, o->dk),
                           .v = lie(p, o->G, o->dv),
                           .out = lie(p, o->H, o->dv),
                           .first = o->first,
                           .scale = (float)o->scale};
}

static result compute(const problem *p) {
    const oracle_attn *o = &p->o;
    du_attn_train a = shape_of(p);
    result r = {.q = spread(p, p->q, o->H, o->dk),
                .k = spread(p, p->k, o->G, o->dk),
                .v = spread(p, p->v, o->G, o->dv),
                .dout = spread(p, p->dout, o->H, o->dv),
                .out = spread(p, NULL, o->H, o->dv),
                .dq = spread(p, NULL, o->H, o->dk),
                .dk = spread(p, NULL, o->G, o->dk),
                .dv = spread(p, NULL, o->G, o->dv)};
    r.lse = du_alloc_array((size_t)(n_rows(p) * o->H), sizeof *r.lse);
    assert_non_null(r.lse);
    assert_int_equal(du_attn_train_fwd(&ctx, kind, &a, r.out, r.lse, r.q, r.k, r.v), DU_OK);
    assert_int_equal(
        du_attn_train_bwd(&ctx, kind, &a, r.dq, r.dk, r.dv, r.dout, r.out, r.lse, r.q, r.k, r.v),
        DU_OK);
    return r;
}

static void drop_result(result *r) {
    du_free(r->q), du_free(r->k), du_free(r->v), du_free(r->dout), du_free(r->out);
    du_free(r->lse), du_free(r->dq), du_free(r->dk), du_free(r->dv);
}

/* Sums of squares over all heads; gaps are as they were. F32: 1e-5 of the whole. In BF16 the
 * factors on the way to a result, at most four of them, are wrong by 2^-9 each. */
static void check(const problem *p, const char *name, const float *got, const double *want,
                  int64_t n_heads, int64_t d) {
    du_heads at = lie(p, n_heads, d);
    bool f32 = kind == DU_GEMM_F32 || kind == DU_GEMM_F32_TILES;
    double wrong = 0, whole = 0, limit = f32 ? 1e-5 : 4 * 0x1p-9;
    for (int64_t i = 0; i < n_rows(p) * at.row; i++) {
        int64_t h = i % at.row / at.head, c = i % at.row % at.head;
        if (h >= n_heads || c >= d) {
            assert_true(got[i] == GAP);
            continue;
        }
        double exact = want[(i / at.row * n_heads + h) * d + c];
        wrong += (got[i] - exact) * (got[i] - exact);
        whole += exact * exact;
    }
    double least = p->alone ? (double)(n_rows(p) * n_heads * d) : 0; /* factors are about 1 */
    if (!(sqrt(wrong) <= limit * sqrt(whole + least))) {
        fail_msg("%s, kind %d, %d x %d rows, heads %d/%d of %d/%d: wrong by %.3g of %.3g", name,
                 kind, (int)p->o.n_seq, (int)p->o.seq_len, (int)p->o.H, (int)p->o.G, (int)p->o.dk,
                 (int)p->o.dv, sqrt(wrong), sqrt(whole));
    }
}

static void check_problem(oracle_attn o, int64_t gap, int64_t longest) {
    problem p = make_problem(o, gap, longest);
    oracle_attn_fwd(&p.o, p.out, p.lse, p.q, p.k, p.v, p.p);
    oracle_attn_bwd(&p.o, p.dq, p.dk, p.dv, p.dout, p.q, p.k, p.v, p.p);
    result r = compute(&p);
    check(&p, "out", r.out, p.out, o.H, o.dv);
    check(&p, "dq", r.dq, p.dq, o.H, o.dk);
    check(&p, "dk", r.dk, p.dk, o.G, o.dk);
    check(&p, "dv", r.dv, p.dv, o.G, o.dv);
    p.gap = 0;
    check(&p, "lse", r.lse, p.lse, o.H, 1);
    drop_result(&r);
    drop_problem(&p);
}

static void each_kind(void (*fn)(void)) {
    ctx = test_ctx_make(2);
    for (int i = 0; i < DU_GEMM_KINDS; i++) {
        kind = (du_gemm_kind)i;
        du_rng_init(&rng, 11);
        fn();
    }
    test_ctx_drop(&ctx);
}

static void sizes_of_kind(void) {
    check_problem(shape(3, 1, 2, 1, 16, 16), 0, 0);
    check_problem(shape(2, 5, 2, 2, 16, 24), 3, 0);
    check_problem(shape(2, 47, 4, 2, 32, 32), 0, 0);
    check_problem(shape(1, 64, 3, 1, 48, 32), 5, 0);
    check_problem(shape(1, 131, 2, 2, 192, 128), 0, 0);
    check_problem(shape(1, 97, 1, 1, 256, 256), 1, 0);
    check_problem(shape(2, 256, 2, 2, 32, 32), 0, 0);
    check_problem(shape(1, 257, 2, 1, 48, 32), 0, 0);
    check_problem(shape(1, 700, 2, 1, 20, 33), 1, 0);
}

static void documents_of_kind(void) {
    check_problem(shape(2, 60, 2, 1, 16, 16), 0, 1);
    check_problem(shape(2, 100, 2, 1, 32, 16), 0, 9);
    check_problem(shape(1, 600, 2, 2, 32, 32), 2, 90);
    check_problem(shape(1, 900, 1, 1, 48, 32), 0, 600);
}

static void test_sizes(void **state) {
    (void)state;
    each_kind(sizes_of_kind);
}

static void test_documents(void **state) {
    (void)state;
    each_kind(documents_of_kind);
}

static double loss(const problem *p) {
    oracle_attn_fwd(&p->o, p->out, p->lse, p->q, p->k, p->v, p->p);
    return oracle_dot(p->out, p->dout, n_rows(p) * p->o.H * p->o.dv);
}

/* x[0 .. n): its gradient by central differences, whose error is of the order of step^2 */
static void check_differences(const problem *p, double *x, const double *dx, int64_t n) {
    const double step = 1e-5;
    for (int64_t i = 0; i < n; i++) {
        double before = x[i];
        x[i] = before + step;
        double above = loss(p);
        x[i] = before - step;
        double below = loss(p);
        x[i] = before;
        assert_true(fabs((above - below) / (2 * step) - dx[i]) <= 1e-8 * (1 + fabs(dx[i])));
    }
}

static void test_oracle(void **state) {
    (void)state;
    du_rng_init(&rng, 7);
    for (int64_t longest = 0; longest < 8; longest += 7) {
        problem p = make_problem(shape(2, 12, 4, 2, 6, 5), 0, longest);
        oracle_attn_bwd(&p.o, p.dq, p.dk, p.dv, p.dout, p.q, p.k, p.v, p.p);
        check_differences(&p, p.q, p.dq, 24 * 4 * 6);
        check_differences(&p, p.k, p.dk, 24 * 2 * 6);
        check_differences(&p, p.v, p.dv, 24 * 2 * 5);
        drop_problem(&p);
    }
}

static void same(const problem *p, const result *r, const result *s) {
    int64_t T = n_rows(p);
    assert_memory_equal(r->out, s->out, (size_t)(T * lie(p, p->o.H, p->o.dv).row) * sizeof(float));
    assert_memory_equal(r->lse, s->lse, (size_t)(T * p->o.H) * sizeof(float));
    assert_memory_equal(r->dq, s->dq, (size_t)(T * lie(p, p->o.H, p->o.dk).row) * sizeof(float));
    assert_memory_equal(r->dk, s->dk, (size_t)(T * lie(p, p->o.G, p->o.dk).row) * sizeof(float));
    assert_memory_equal(r->dv, s->dv, (size_t)(T * lie(p, p->o.G, p->o.dv).row) * sizeof(float));
}

/* Threads, and the sequences beside one: its own part, computed alone, is the same. */
static void test_bits(void **state) {
    (void)state;
    for (int i = 0; i < DU_GEMM_KINDS; i++) {
        kind = (du_gemm_kind)i;
        du_rng_init(&rng, 3);
        problem p = make_problem(shape(3, 300, 4, 2, 48, 32), 0, 120);
        result r[4];
        for (int64_t n = 1; n <= 3; n++) {
            ctx = test_ctx_make(n);
            r[n] = compute(&p);
            same(&p, &r[n], &r[1]);
            test_ctx_drop(&ctx);
        }
        const oracle_attn *o = &p.o;
        int64_t row0 = 2 * o->seq_len;
        problem one = p;
        one.o.n_seq = 1;
        one.o.first += row0;
        one.q += row0 * o->H * o->dk, one.dout += row0 * o->H * o->dv;
        one.k += row0 * o->G * o->dk, one.v += row0 * o->G * o->dv;
        ctx = test_ctx_make(2);
        r[0] = compute(&one);
        test_ctx_drop(&ctx);
        result last = {.out = r[1].out + row0 * o->H * o->dv,
                       .lse = r[1].lse + row0 * o->H,
                       .dq = r[1].dq + row0 * o->H * o->dk,
                       .dk = r[1].dk + row0 * o->G * o->dk,
                       .dv = r[1].dv + row0 * o->G * o->dv};
        same(&one, &r[0], &last);
        for (int n = 0; n < 4; n++) {
            drop_result(&r[n]);
        }
        drop_problem(&p);
    }
}

/* Rows beyond t and other documents change no bit of what row t gets. */
static void unseen_of_kind(void) {
    problem p = make_problem(shape(1, 400, 2, 1, 32, 32), 0, 150);
    const oracle_attn *o = &p.o;
    result before = compute(&p);
    int64_t t = 333, begin = p.first[t];
    for (int64_t i = 0; i < 400 * 32; i++) {
        if (i / 32 < begin || i / 32 > t) {
            p.k[i] = (float)(100 * p.k[i]);
            p.v[i] = (float)(100 * p.v[i]);
        }
    }
    result after = compute(&p);
    assert_memory_not_equal(before.out, after.out, sizeof(float) * 400 * 64);
    size_t n = (size_t)(t - begin + 1) * 64 * sizeof(float);
    assert_memory_equal(before.out + begin * 64, after.out + begin * 64, n);
    assert_memory_equal(before.dq + begin * 64, after.dq + begin * 64, n);
    for (int64_t i = begin * o->H; i < (t + 1) * o->H; i++) {
        assert_true(before.lse[i] == after.lse[i]);
    }
    drop_result(&before);
    drop_result(&after);
    drop_problem(&p);
}

static void test_unseen(void **state) {
    (void)state;
    each_kind(unseen_of_kind);
}

static void test_memory(void **state) {
    (void)state;
    float x[16] = {0}, y[3][16], lse[1] = {0};
    du_heads at = {16, 16};
    du_attn_train a = {1, 1, 1, 1, 16, 16, at, at, at, at, NULL, 1};
    ctx = test_ctx_make(1);
    du_mem_fail_at(1, true);
    assert_int_equal(du_attn_train_fwd(&ctx, DU_GEMM_F32, &a, y[0], lse, x, x, x), DU_ENOMEM);
    assert_int_equal(du_attn_train_bwd(&ctx, DU_GEMM_F32, &a, y[0], y[1], y[2], x, x, lse, x, x, x),
                     DU_ENOMEM);
    du_mem_fail_at(0, false);
    test_ctx_drop(&ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle),    cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_documents), cmocka_unit_test(test_bits),
        cmocka_unit_test(test_unseen),    cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
