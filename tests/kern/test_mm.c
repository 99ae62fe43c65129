/* Products of every number type at every level against the unpacked weights in double precision. */
#include "kern/strips.h"
#include "kern_test.h"
#include "tensor/quant.h"

enum {
    SLOT_W,
    SLOT_AUX,
    SLOT_X,
    SLOT_Q,
    SLOT_D,
    SLOT_SUM,
    SLOT_I,
    SLOT_Y,
    SLOT_Y1,
    SLOT_STRIPS,
    SLOT_H
};

/* How weights (bytes below the scales) and 8-bit activations are chosen. */
typedef enum { RANDOM, ALL_00, ALL_FF, ALL_80, ALL_7F, N_FILL } fill;

/* Places of the binary16 scales in a block: d and dmin (or m); -1: none. */
static void scale_places(du_dtype dtype, int *d, int *dmin) {
    *d = 0;
    *dmin = -1;
    switch (dtype) {
    case DU_Q4_1:
    case DU_Q5_1:
    case DU_Q4_K:
    case DU_Q5_K:
        *dmin = 2;
        break;
    case DU_Q2_K:
        *d = 80;
        *dmin = 82;
        break;
    case DU_Q3_K:
        *d = 108;
        break;
    case DU_Q6_K:
        *d = 208;
        break;
    case DU_IQ1_M:
    case DU_MXFP4:
        *d = -1;
        break;
    default:
        break;
    }
}

static void put_f16(uint8_t *p, double v) {
    uint16_t h = du_f16_of_f32((float)v);
    memcpy(p, &h, 2);
}

/* One row of finite weights. */
static void fill_row(uint8_t *row, du_dtype dtype, int64_t cols, fill how) {
    static const uint8_t bytes[N_FILL] = {0, 0x00, 0xff, 0x80, 0x7f};
    size_t n = du_dtype_row_bytes(dtype, cols), block = du_dtype_get(dtype)->block_bytes;
    for (size_t i = 0; i < n; i++) {
        row[i] = how == RANDOM ? (uint8_t)du_rng_u64(&rng) : bytes[how];
    }
    if (!du_dtype_is_block(dtype)) {
        for (int64_t i = 0; i < cols; i++) {
            float v = (float)du_rng_normal(&rng);
            uint16_t h = dtype == DU_F16 ? du_f16_of_f32(v) : du_bf16_of_f32(v);
            if (dtype == DU_F32) {
                memcpy(row + 4 * i, &v, 4);
            } else if (dtype != DU_F8_E4M3) {
                memcpy(row + 2 * i, &h, 2);
            } else if ((row[i] & 0x7f) == 0x7f) {
                row[i] ^= 1; /* the NaN becomes the largest number */
            }
        }
        return;
    }
    int d, dmin;
    scale_places(dtype, &d, &dmin);
    for (size_t i = 0; i < n; i += block) {
        double size = how == RANDOM ? exp2((double)between(-20, 3)) : 1;
        if (d >= 0) {
            put_f16(row + i + d, size * (1 + du_rng_uniform(&rng)) * (between(0, 1) ? 1 : -1));
        }
        if (dmin >= 0) {
            put_f16(row + i + dmin, size * du_rng_normal(&rng));
        }
        if (dtype == DU_IQ1_M) {
            row[i + 55] = (uint8_t)((row[i + 55] & 0x8f) | (between(0, 6) << 4));
        }
        if (dtype == DU_MXFP4) {
            row[i] = (uint8_t)between(100, 130);
        }
    }
}

typedef struct {
    du_mat w;
    du_acts x;
    int64_t n_rows; /* tokens computed */
    int32_t *i_row;
    int64_t ldy;
    double *exact, *terms; /* [n_rows, w.rows] */
} problem;

static double *exact_buf, *terms_buf;

/* |w| as a sum of its parts: d*scale*q and dmin*min may cancel, and their roundings remain. */
static void unpack_parts(double *w, double *parts, const du_mat *m, int64_t r) {
    static float y[1 << 15], without[1 << 15];
    static uint8_t copy[1 << 17];
    du_dtype dtype = m->dtype;
    du_dtype_get(dtype)->unpack(y, du_mat_row(m, r), m->cols);
    memcpy(without, y, sizeof(float) * (size_t)m->cols);
    int d, dmin;
    scale_places(dtype, &d, &dmin);
    if (du_dtype_is_block(dtype) && dmin >= 0) {
        memcpy(copy, du_mat_row(m, r), m->row_bytes);
        for (size_t i = 0; i < m->row_bytes; i += du_dtype_get(dtype)->block_bytes) {
            put_f16(copy + i + dmin, 0);
        }
        du_dtype_get(dtype)->unpack(without, copy, m->cols);
    }
    for (int64_t c = 0; c < m->cols; c++) {
        double scale = 1;
        if (m->aux) {
            scale = m->aux[(m->aux_row0 + r) / DU_F8_TILE * m->aux_cols + c / DU_F8_TILE];
        }
        w[c] = scale * y[c];
        parts[c] = fabs(scale * without[c]) + fabs(scale * ((double)y[c] - without[c]));
    }
}

static void compute_exact(problem *p) {
    static double w[1 << 15], parts[1 << 15];
    bool block = du_dtype_is_block(p->w.dtype);
    p->exact = exact_buf;
    p->terms = terms_buf;
    for (int64_t r = 0; r < p->w.rows; r++) {
        unpack_parts(w, parts, &p->w, r);
        for (int64_t t = 0; t < p->n_rows; t++) {
            int64_t row = p->i_row ? p->i_row[t] : t;
            double sum = 0, terms = 0;
            for (int64_t c = 0; c < p->w.cols; c++) {
                int64_t at = row * p->x.cols + c;
                double x =
                    block ? (double)p->x.d[at / 32] * p->x.q[at] : p->x.x[row * p->x.ldx + c];
                sum += w[c] * x;
                terms += parts[c] * fabs(x);
            }
            p->exact[t * p->w.rows + r] = sum;
            p->terms[t * p->w.rows + r] = terms;
        }
    }
}

/* Activations of T rows: f32 with padded rows, and 8-bit ones filled apart from them. */
static void make_acts(du_acts *x, int64_t T, int64_t cols, fill how) {
    static const int8_t bytes[N_FILL] = {0, 0, -127, 127, 127};
    int64_t n = T * cols, ldx = cols + 3;
    *x = (du_acts){.ldx = ldx, .T = T, .cols = cols};
    x->x = guard_normal(SLOT_X, (T - 1) * ldx + cols, 1);
    seal(SLOT_X);
    if (cols % 32 != 0) {
        return;
    }
    int8_t *q = guard(SLOT_Q, (size_t)n);
    float *d = guard(SLOT_D, sizeof(float) * (size_t)(n / 32));
    int16_t *sum = guard(SLOT_SUM, sizeof(int16_t) * (size_t)(n / 16));
    for (int64_t i = 0; i < n; i++) {
        q[i] = (int8_t)(how == RANDOM ? between(-127, 127) : bytes[how]);
        sum[i / 16] = (int16_t)((i % 16 ? sum[i / 16] : 0) + q[i]);
        d[i / 32] = (float)exp2(8 * du_rng_uniform(&rng) - 8);
    }
    seal(SLOT_Q), seal(SLOT_D), seal(SLOT_SUM);
    x->q = q, x->d = d, x->sum = sum;
}

static void make_problem(problem *p, du_dtype dtype, int64_t rows, int64_t cols, int64_t n_rows,
                         bool gather, fill w_how, fill x_how) {
    static const uint8_t pad = 5; /* bytes between rows of float types: misaligned rows */
    int64_t T = gather ? n_rows + 3 : n_rows;
    bool is_block = du_dtype_is_block(dtype);
    size_t row_bytes = du_dtype_row_bytes(dtype, cols) + (is_block ? 0 : pad);
    size_t bytes = row_bytes * (size_t)rows - (is_block ? 0 : pad);
    uint8_t *w = guard(SLOT_W, bytes);
    for (int64_t r = 0; r < rows; r++) {
        fill_row(w + (size_t)r * row_bytes, dtype, cols, w_how);
    }
    seal(SLOT_W);
    *p = (problem){.n_rows = n_rows, .ldy = rows + 2};
    p->w = (du_mat){.data = w, .dtype = dtype, .rows = rows, .cols = cols, .row_bytes = row_bytes};
    if (dtype == DU_F8_E4M3 && rows > 1) {
        p->w.aux_row0 = between(0, 300);
        p->w.aux_cols = (cols + 127) / 128;
        int64_t tiles = (p->w.aux_row0 + rows + 127) / 128;
        p->w.aux = guard_normal(SLOT_AUX, tiles * p->w.aux_cols, 1);
        seal(SLOT_AUX);
    }
    make_acts(&p->x, T, cols, x_how);
    if (gather) {
        p->i_row = guard(SLOT_I, sizeof(int32_t) * (size_t)n_rows);
        for (int64_t t = 0; t < n_rows; t++) {
            p->i_row[t] = (int32_t)between(0, T - 1);
        }
        seal(SLOT_I);
    }
    compute_exact(p);
}

static void fail_at(const problem *p, int64_t t, int64_t r, double got) {
    fail_msg("%s %s [%ld x %ld] of %ld tokens%s: row %ld token %ld: got %.9g, exact %.9g, terms %g",
             du_isa_name(kern->isa), du_dtype_get(p->w.dtype)->name, (long)p->w.rows,
             (long)p->w.cols, (long)p->n_rows, p->i_row ? " gathered" : "", (long)r, (long)t, got,
             p->exact[t * p->w.rows + r], p->terms[t * p->w.rows + r]);
}

/* Everything in one call: within the bound, and nothing else written. */
static float *check_whole(const problem *p, du_mm_fn *mm) {
    int64_t n = (p->n_rows - 1) * p->ldy + p->w.rows;
    float *y = guard_out(SLOT_Y, n);
    mm(y, p->ldy, &p->w, 0, p->w.rows, &p->x, p->i_row, p->n_rows);
    for (int64_t i = 0; i < n; i++) {
        int64_t t = i / p->ldy, r = i % p->ldy;
        if (r >= p->w.rows) {
            assert_true(is_unwritten(y[i]));
            continue;
        }
        int64_t at = t * p->w.rows + r;
        if (!within(y[i], p->exact[at], p->terms[at], (double)p->w.cols / 4 + 4)) {
            fail_at(p, t, r, y[i]);
        }
    }
    return y;
}

/* The same bits in pieces: row ranges that begin at multiples of step, tokens one by one or in
 * groups. */
static void check_pieces(const problem *p, du_mm_fn *mm, const float *whole, int64_t step) {
    int64_t n = (p->n_rows - 1) * p->ldy + p->w.rows;
    float *y = guard_out(SLOT_Y1, n);
    int32_t one[64];
    for (int64_t t = 0; t < p->n_rows;) {
        int64_t n_t = between(1, 3);
        n_t = n_t > p->n_rows - t ? p->n_rows - t : n_t;
        for (int64_t i = 0; i < n_t; i++) {
            one[i] = p->i_row ? p->i_row[t + i] : (int32_t)(t + i);
        }
        for (int64_t r = 0; r < p->w.rows;) {
            int64_t r1 = r + step * between(1, step == 1 ? 11 : 3);
            r1 = r1 > p->w.rows ? p->w.rows : r1;
            mm(y + t * p->ldy, p->ldy, &p->w, r, r1, &p->x, one, n_t);
            r = r1;
        }
        t += n_t;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!same_bits(y[i], whole[i])) {
            fail_at(p, i / p->ldy, i % p->ldy, y[i]);
        }
    }
}

/* The matrix in strips, written in pieces. */
static void make_strips(problem *p, du_strips *strips) {
    strips->data = guard(SLOT_STRIPS, du_strips_bytes(&p->w));
    p->w.strips = strips;
    for (int64_t r = 0; r < p->w.rows;) {
        int64_t r1 = r + DU_STRIP_ROWS * between(1, 3);
        r1 = r1 < p->w.rows ? r1 : p->w.rows;
        kern->strips_write(&p->w, r, r1);
        r = r1;
    }
    seal(SLOT_STRIPS);
}

/* From strips the same bits as from rows where the level says so, and otherwise the same ones in
 * any pieces of whole strips. */
static void check_strips(problem *p, const float *whole) {
    du_strips strips = {0};
    du_mm_fn *mm = kern->mm_strips[p->w.dtype];
    if (!mm) {
        return;
    }
    make_strips(p, &strips);
    if (!kern->strips_same_bits) {
        whole = check_whole(p, mm);
    }
    check_pieces(p, mm, whole, DU_STRIP_ROWS);
    int64_t n = (p->n_rows - 1) * p->ldy + p->w.rows;
    float *y = guard_out(SLOT_Y1, n);
    for (int64_t r = 0; r < p->w.rows;) {
        int64_t r1 = r + DU_STRIP_ROWS * between(1, 4);
        r1 = r1 < p->w.rows ? r1 : p->w.rows;
        mm(y, p->ldy, &p->w, r, r1, &p->x, p->i_row, p->n_rows);
        r = r1;
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t t = i / p->ldy, r = i % p->ldy;
        bool right = r >= p->w.rows ? is_unwritten(y[i]) : same_bits(y[i], whole[i]);
        if (!right) {
            fail_at(p, t, r, y[i]);
        }
    }
    p->w.strips = NULL;
}

static void check(du_dtype dtype, int64_t rows, int64_t cols, int64_t n_rows, bool gather,
                  fill w_how, fill x_how) {
    problem p;
    make_problem(&p, dtype, rows, cols, n_rows, gather, w_how, x_how);
    const float *whole = check_whole(&p, kern->mm[dtype]);
    check_pieces(&p, kern->mm[dtype], whole, 1);
    check_strips(&p, whole);
}

/* Column counts up to beyond every unrolled step; rows and tokens around the tiles. */
static void check_shapes(void) {
    static const int64_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 31, 33};
    const int n_counts = sizeof counts / sizeof *counts;
    for (int i = 0; i < DU_DTYPE_COUNT; i++) {
        du_dtype dtype = (du_dtype)i;
        int64_t block = du_dtype_get(dtype)->block;
        int64_t step = block == 1 ? 1 : block, last = block == 1 ? 300 : block == 32 ? 1056 : 1280;
        int k = 0;
        for (int64_t cols = step; cols <= last; cols += step, k++) {
            guard_at_end = k % 2 == 0;
            check(dtype, counts[k * 5 % n_counts], cols, counts[k % n_counts], k % 3 == 0, RANDOM,
                  RANDOM);
        }
        for (k = 0; k < 2 * n_counts; k++) {
            guard_at_end = k % 2 == 1;
            int64_t cols = block == 256 ? 512 : block == 32 ? 352 : 167;
            check(dtype, counts[k % n_counts], cols, counts[k * 3 % n_counts], k % 3 == 1, RANDOM,
                  RANDOM);
        }
    }
}

/* Shapes of models: long sums, many tokens. */
static void check_large(void) {
    for (int i = 0; i < DU_DTYPE_COUNT; i++) {
        guard_at_end = i % 2 == 0;
        check((du_dtype)i, 37, 2304, 3, false, RANDOM, RANDOM);
        check((du_dtype)i, 19, 768, 61, true, RANDOM, RANDOM);
        check((du_dtype)i, 2, 18432, 2, false, RANDOM, RANDOM);
    }
}

/* Every byte the same and activations at the ends of their range: no step may overflow. */
static void check_extremes(void) {
    for (int i = DU_F8_E4M3 + 1; i < DU_DTYPE_COUNT; i++) {
        for (int w_how = 0; w_how < N_FILL; w_how++) {
            for (int x_how = ALL_00; x_how < N_FILL; x_how++) {
                guard_at_end = x_how % 2 == 0;
                check((du_dtype)i, 17, 256, 9, false, (fill)w_how, (fill)x_how);
            }
        }
    }
}

/* Offers the 8-bit activations in bf16 as well. */
static void make_bf16(problem *p) {
    int64_t T = p->x.T, cols = p->x.cols, ldh = cols + 32;
    uint16_t *h = guard(SLOT_H, sizeof *h * (size_t)((T - 1) * ldh + cols));
    for (int64_t t = 0; t < T; t++) {
        for (int64_t c = 0; c < cols; c++) {
            float x = p->x.d[(t * cols + c) / 32] * (float)p->x.q[t * cols + c];
            h[t * ldh + c] = du_bf16_of_f32(x);
        }
    }
    seal(SLOT_H);
    p->x.h = h, p->x.ldh = ldh;
}

/* Puts a NaN, with every bit of its payload set, into a weight of row 3 or its scale (at_min: its
 * minimum; false where the type has none), and one into token 5. */
static bool put_nan(const problem *p, bool at_min) {
    du_dtype dtype = p->w.dtype;
    bool is_block = du_dtype_is_block(dtype);
    uint8_t *w = guard(SLOT_W, (size_t)p->w.rows * p->w.row_bytes - (is_block ? 0 : 5));
    uint8_t *row = w + 3 * p->w.row_bytes;
    int d, dmin;
    scale_places(dtype, &d, &dmin);
    if (at_min && (!is_block || dmin < 0)) {
        return false;
    }
    if (dtype == DU_IQ1_M) {
        row[49] |= 0xf0, row[51] |= 0xf0, row[53] |= 0xf0, row[55] |= 0xf0;
    } else if (dtype == DU_MXFP4 || dtype == DU_F8_E4M3) {
        row[0] = 0xff;
    } else if (dtype == DU_F32) {
        memset(row, 0xff, 4);
    } else {
        memset(row + (at_min ? dmin : is_block ? d : 2), 0xff, 2);
    }
    float *x = guard(SLOT_X, sizeof(float) * (size_t)((p->x.T - 1) * p->x.ldx + p->x.cols));
    float *scale = guard(SLOT_D, sizeof(float) * (size_t)(p->x.T * p->x.cols / 32));
    x[5 * p->x.ldx + 100] = scale[5 * p->x.cols / 32 + 2] = NAN;
    return true;
}

/* NaN in row 3 and token 5 and nowhere else */
static void check_nan_places(const problem *p, const float *y) {
    for (int64_t t = 0; t < p->n_rows; t++) {
        for (int64_t r = 0; r < p->w.rows; r++) {
            if (!isnan(y[t * p->ldy + r]) != (r != 3 && t != 5)) {
                fail_at(p, t, r, y[t * p->ldy + r]);
            }
        }
    }
}

/* One by one and all together, from rows and, where there are such, strips, in bf16 too. */
static void check_nan_of(du_dtype dtype, int64_t cols, int64_t n, bool at_min) {
    problem p;
    guard_at_end = true;
    make_problem(&p, dtype, 19, cols, n, false, RANDOM, RANDOM);
    if (!put_nan(&p, at_min)) {
        return;
    }
    float *y = guard_out(SLOT_Y, n * p.ldy);
    for (int64_t n_t = 1; n_t <= n; n_t += n - 1) {
        for (int32_t t = 0; t < n; t += (int32_t)n_t) {
            kern->mm[dtype](y + t * p.ldy, p.ldy, &p.w, 0, p.w.rows, &p.x, n_t == 1 ? &t : NULL,
                            n_t);
        }
        check_nan_places(&p, y);
    }
    if (!kern->mm_strips[dtype]) {
        return;
    }
    du_strips strips = {0};
    make_strips(&p, &strips);
    if (dtype !=
        DU_MXFP4) { /* row 3 of d or, behind the 16 of these, of minima: few bits are set */
        uint16_t h;
        memcpy(&h, strips.data + 2 * (3 + (at_min ? DU_STRIP_ROWS : 0)), 2);
        assert_int_equal(h & 0x7fff, 0x7e00);
    }
    for (int with_bf16 = 0; with_bf16 < 2; with_bf16++) {
        if (with_bf16) {
            make_bf16(&p);
        }
        y = guard_out(SLOT_Y, n * p.ldy);
        kern->mm_strips[dtype](y, p.ldy, &p.w, 0, p.w.rows, &p.x, NULL, n);
        check_nan_places(&p, y);
    }
}

/* A NaN in one weight (or scale, or minimum) spoils its row and no other; one in a token, its
 * token. With 352 columns the last step of a row may reach into the next one, which must not show.
 */
static void check_nan(void) {
    for (int i = 0; i < 4 * DU_DTYPE_COUNT; i++) {
        du_dtype dtype = (du_dtype)(i / 4);
        int64_t cols = i % 2 ? 352 : 512;
        if (cols % du_dtype_get(dtype)->block == 0) {
            check_nan_of(dtype, cols, kern->n_bf16 + 9, i % 4 >= 2);
        }
    }
}

/* Many tokens offered in bf16 too: a level may round weights to 8 bits of mantissa, 2^-8 at most of
 * each part. Tokens and rows around the tiles. */
static void check_bf16(void) {
    static const int64_t tokens[] = {24, 25, 31, 32, 33, 48, 61}, rows[] = {16, 33, 47, 5};
    for (int i = DU_F8_E4M3 + 1; i < DU_DTYPE_COUNT && kern->n_bf16 > 0; i++) {
        du_dtype dtype = (du_dtype)i;
        int64_t cols = du_dtype_get(dtype)->block == 32 ? 32 * between(1, 40) : 256 * between(1, 5);
        int64_t n = tokens[i % 7];
        problem p;
        guard_at_end = i % 2 == 0;
        make_problem(&p, dtype, rows[i % 4], cols, n, i % 3 == 0, RANDOM, RANDOM);
        make_bf16(&p);
        du_strips strips = {0};
        make_strips(&p, &strips);
        float *y = guard_out(SLOT_Y, (n - 1) * p.ldy + p.w.rows);
        kern->mm_strips[dtype](y, p.ldy, &p.w, 0, p.w.rows, &p.x, p.i_row, n);
        for (int64_t t = 0; t < n; t++) {
            for (int64_t r = 0; r < p.w.rows; r++) {
                int64_t at = t * p.w.rows + r;
                double steps = 2 * 0x1p16 + (double)cols; /* of weight and of token */
                if (!within(y[t * p.ldy + r], p.exact[at], p.terms[at], steps)) {
                    fail_at(&p, t, r, y[t * p.ldy + r]);
                }
            }
        }
    }
}

static void test_mm_bf16(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        each_level(check_bf16);
    }
}

static void test_mm_shapes(void **state) {
    (void)state;
    each_level(check_shapes);
}

static void test_mm_large(void **state) {
    (void)state;
    each_level(check_large);
}

static void test_mm_extremes(void **state) {
    (void)state;
    each_level(check_extremes);
}

static void test_mm_nan(void **state) {
    (void)state;
    each_level(check_nan);
}

/* A level that the machine has is complete; one that it lacks is NULL. */
static void test_table(void **state) {
    (void)state;
    for (int isa = 0; isa < DU_ISA_COUNT; isa++) {
        const du_kern *k = du_kern_get((du_isa)isa);
        assert_int_equal(k != NULL, du_isa_available((du_isa)isa));
        if (!k) {
            continue;
        }
        assert_int_equal(k->isa, isa);
        for (int i = 0; i < DU_DTYPE_COUNT; i++) {
            assert_non_null(k->mm[i]);
        }
        assert_non_null(k->strips_write);
#define HAS_KV(suffix, name)                                                                       \
    assert_true(k->qk[DU_##suffix] && k->pv[DU_##suffix] && k->kv_store[DU_##suffix] &&            \
                k->kv_load[DU_##suffix]);
        DU_KV_DTYPE_LIST(HAS_KV)
#define HAS(name, ret, args) assert_non_null(k->name);
        DU_KERN_LIST(HAS)
    }
}

int main(int argc, char **argv) {
    static double buf[2][64 * 64];
    exact_buf = buf[0], terms_buf = buf[1];
    choose_level(argc, argv);
    du_rng_init(&rng, 2024);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),    cmocka_unit_test(test_mm_shapes),
        cmocka_unit_test(test_mm_large), cmocka_unit_test(test_mm_extremes),
        cmocka_unit_test(test_mm_nan),   cmocka_unit_test(test_mm_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
