/* Scales and minima of Q4_1, Q5_1, Q2_K, Q4_K and Q5_K: x[i] ~ d q[i] - m, q an integer in 0 .. hi;
 * in a super-block d = D S and m = M T with small integers S, T per group and binary16 D, M.
 *
 * The method is that of quant_fit_scale.c with two unknowns: a group's error is piecewise quadratic
 * in (d, m); the scan lays lines over its range of weights, narrower and wider and shifted by parts
 * of a step, and takes each to the lowest point of its piece. (D, M) is then chosen from candidates
 * by the groups' error quadratics, T given the rounded S, since an error of the scale is half made
 * good by the minimum. Then, in turns, each group moves (S, T) to the best of its eight neighbours
 * while its true error falls, and (D, M) to the least-squares point for the levels so found. */
#include <math.h>
#include <string.h>

#include "tensor/half.h"
#include "tensor/quant_fit_int.h"

typedef struct {
    float d, m;
} fit_line;

/* A group against a line: with r = x - d q + m, moving (d, m) by (t, u) changes e to
 * e - 2 t gq + 2 u gm + t^2 a - 2 t u b + u^2 c. */
typedef struct {
    float e;       /* sum w r^2 */
    float gq, gm;  /* sum w r q, sum w r */
    float a, b, c; /* sum w q^2, sum w q, sum w */
} fit_sums;

static inline fit_sums sums_at(const float *x, const float *w, int n, float hi, fit_line at) {
    const du_fit_v4 *x4 = (const void *)x, *w4 = (const void *)w;
    float inverse = at.d != 0 ? 1 / at.d : 0;
    du_fit_v4 e = {0}, gq = {0}, gm = {0}, a = {0}, b = {0}, c = {0};
    for (int i = 0; i < n / 4; i++) {
        du_fit_v4 xm = x4[i] + at.m;
        du_fit_v4 q = du_fit_round4(du_fit_clamp4(xm * inverse, 0, hi));
        du_fit_v4 r = xm - at.d * q;
        du_fit_v4 wr = w4[i] * r;
        du_fit_v4 wq = w4[i] * q;
        e += wr * r;
        gq += wr * q;
        gm += wr;
        a += wq * q;
        b += wq;
        c += w4[i];
    }
    return (fit_sums){du_fit_sum4(e), du_fit_sum4(gq), du_fit_sum4(gm),
                      du_fit_sum4(a), du_fit_sum4(b),  du_fit_sum4(c)};
}

static float error_moved(const fit_sums *s, float t, float u) {
    return s->e - 2 * (t * s->gq - u * s->gm) + t * t * s->a - 2 * t * u * s->b + u * u * s->c;
}

/* Moves *at to the lowest point of its piece with d >= 0 and m >= m_lo; the error there. */
static float move_to_best(fit_line *at, const fit_sums *s, float m_lo) {
    float det = s->a * s->c - s->b * s->b;
    float t = 0, u = 0;
    if (det > 1e-6f * s->a * s->c) {
        t = (s->gq * s->c - s->gm * s->b) / det;
        u = (s->gq * s->b - s->gm * s->a) / det;
    } else if (s->c > 0) { /* all q equal: only m can be told */
        u = -s->gm / s->c;
    }
    if (at->m + u < m_lo) {
        u = m_lo - at->m;
        t = s->a > 0 ? (s->gq + u * s->b) / s->a : 0;
    }
    if (at->d + t < 0) {
        return s->e;
    }
    at->d += t;
    at->m += u;
    return error_moved(s, t, u);
}

typedef struct {
    fit_line at; /* best line, real numbers */
    float e;     /* error there, and its second derivatives */
    float a, b, c;
} group_fit;

static void try_line(group_fit *best, const float *x, const float *w, int n, float hi, fit_line at,
                     float m_lo) {
    fit_sums s = sums_at(x, w, n, hi, at);
    float e = move_to_best(&at, &s, m_lo);
    if (e < best->e) {
        *best = (group_fit){at, e, s.a, s.b, s.c};
    }
}

static group_fit fit_group(const float *x, const float *w, int n, float hi, float m_lo) {
    float least = x[0], most = x[0];
    for (int i = 1; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    least = least > -m_lo ? -m_lo : least;
    group_fit best = {.e = INFINITY};
    float range = most - least;
    if (!(range > 0)) {
        try_line(&best, x, w, n, hi, (fit_line){0, -least}, m_lo);
        return best;
    }
    for (float width = 0.55f; width < 1.2f; width += 0.05f) {
        float d = width * range / hi;
        float low_end = least + 0.5f * (1 - width) * range;
        for (float shift = -0.8f; shift < 0.9f; shift += 0.4f) {
            float m = -(low_end + shift * d);
            try_line(&best, x, w, n, hi, (fit_line){d, m > m_lo ? m : m_lo}, m_lo);
        }
    }
    for (float last = INFINITY; best.e < last;) {
        last = best.e;
        try_line(&best, x, w, n, hi, best.at, m_lo);
    }
    return best;
}

typedef struct {
    int scale, min; /* S and T */
} group_ints;

/* The integers next to a group's best line; min follows from scale: for a scale off by t the
 * error's quadratic has its lowest point at m off by t b / c. */
static group_ints ints_near(const group_fit *fit, fit_line block, int scale_hi) {
    group_ints near = {0, 0};
    near.scale = du_fit_int(block.d > 0 ? fit->at.d / block.d : 0, 0, scale_hi);
    float t = block.d * (float)near.scale - fit->at.d;
    float m = fit->at.m + (fit->c > 0 ? t * fit->b / fit->c : 0);
    near.min = du_fit_int(block.m > 0 ? m / block.m : 0, 0, scale_hi);
    return near;
}

/* Error that block scales add to the groups' best, their integers being rounded. */
static float rounding_error(const group_fit *fit, int n_groups, fit_line block, int scale_hi) {
    float sum = 0;
    for (int s = 0; s < n_groups; s++) {
        group_ints near = ints_near(&fit[s], block, scale_hi);
        float t = block.d * (float)near.scale - fit[s].at.d;
        float u = block.m * (float)near.min - fit[s].at.m;
        sum += t * t * fit[s].a - 2 * t * u * fit[s].b + u * u * fit[s].c;
    }
    return sum;
}

/* First scales for the block: among binary16 numbers that give the largest group scale and minimum
 * nearly the whole range, those whose rounding costs least. */
static fit_line first_scales(const group_fit *fit, int n_groups, float unit, int scale_hi) {
    fit_line most = {0, 0};
    for (int s = 0; s < n_groups; s++) {
        most.d = fit[s].at.d > most.d ? fit[s].at.d : most.d;
        most.m = fit[s].at.m > most.m ? fit[s].at.m : most.m;
    }
    fit_line best_line = {0, 0};
    float best = INFINITY;
    for (float at_d = 0.75f; at_d < 1.01f; at_d += 0.025f) {
        fit_line block = {most.d / (at_d * (float)scale_hi), 0};
        du_fit_f16(&block.d, unit);
        for (float at_m = 0.75f; at_m < 1.01f; at_m += 0.025f) {
            block.m = most.m / (at_m * (float)scale_hi);
            du_fit_f16(&block.m, unit);
            float e = rounding_error(fit, n_groups, block, scale_hi);
            if (e < best) {
                best = e;
                best_line = block;
            }
        }
    }
    return best_line;
}

static fit_sums sums_of_ints(const float *x, const float *w, int n, float hi, fit_line block,
                             group_ints at) {
    return sums_at(x, w, n, hi, (fit_line){block.d * (float)at.scale, block.m * (float)at.min});
}

/* Moves *at to the best of its neighbours while the error falls; the sums where it ends. */
static fit_sums walk_ints(group_ints *at, const float *x, const float *w, int n, float hi,
                          fit_line block, int scale_hi) {
    fit_sums best = sums_of_ints(x, w, n, hi, block, *at);
    group_ints from;
    do {
        from = *at;
        for (int k = 0; k < 9; k++) {
            group_ints next = {from.scale + k / 3 - 1, from.min + k % 3 - 1};
            if (k == 4 || next.scale < 0 || next.scale > scale_hi || next.min < 0 ||
                next.min > scale_hi) {
                continue;
            }
            fit_sums s = sums_of_ints(x, w, n, hi, block, next);
            if (s.e < best.e) {
                best = s;
                *at = next;
            }
        }
    } while (at->scale != from.scale || at->min != from.min);
    return best;
}

/* One turn over all groups with the block's scales; the sums against those. */
static fit_sums walk_groups(group_ints *at, const du_fit_block *b, int group, float hi,
                            fit_line block, int scale_hi) {
    fit_sums all = {0};
    for (int s = 0; s * group < b->n; s++) {
        const float *x = b->x + s * group, *w = b->w + s * group;
        fit_sums sums = scale_hi > 1 ? walk_ints(&at[s], x, w, group, hi, block, scale_hi)
                                     : sums_of_ints(x, w, group, hi, block, at[s]);
        float fs = (float)at[s].scale, fm = (float)at[s].min;
        all.e += sums.e;
        all.gq += sums.gq * fs;
        all.gm += sums.gm * fm;
        all.a += sums.a * fs * fs;
        all.b += sums.b * fs * fm;
        all.c += sums.c * fm * fm;
    }
    return all;
}

static void choose_levels(du_fit_affine *out, const du_fit_block *b, int group, int level_hi) {
    float block_d = du_f32_of_f16(out->d) / b->unit;
    float block_m = du_f32_of_f16(out->dmin) / b->unit;
    for (int i = 0; i < b->n; i++) {
        float d = block_d * (float)out->scale[i / group];
        float m = block_m * (float)out->min[i / group];
        out->level[i] = (uint8_t)du_fit_int(d != 0 ? (b->x[i] + m) / d : 0, 0, level_hi);
    }
}

void du_fit_affines(du_fit_affine *out, const du_fit_block *b, int group, int level_hi,
                    int scale_hi) {
    enum { N_TURNS = 4 };
    int n_groups = b->n / group;
    float hi = (float)level_hi;
    float m_lo = scale_hi > 1 ? 0 : -INFINITY;
    group_fit fit[DU_FIT_GROUPS];
    for (int s = 0; s < n_groups; s++) {
        fit[s] = fit_group(b->x + s * group, b->w + s * group, group, hi, m_lo);
    }
    fit_line block = scale_hi > 1 ? first_scales(fit, n_groups, b->unit, scale_hi) : fit[0].at;
    uint16_t h = du_fit_f16(&block.d, b->unit), hm = du_fit_f16(&block.m, b->unit);
    group_ints at[DU_FIT_GROUPS] = {{1, 1}};
    for (int s = 0; scale_hi > 1 && s < n_groups; s++) {
        at[s] = ints_near(&fit[s], block, scale_hi);
    }
    memset(out, 0, sizeof *out);
    float best = INFINITY;
    for (int turn = 0; turn < N_TURNS; turn++) {
        fit_sums all = walk_groups(at, b, group, hi, block, scale_hi);
        if (!(all.e < best)) {
            break;
        }
        best = all.e;
        out->d = h;
        out->dmin = hm;
        for (int s = 0; s < n_groups; s++) {
            out->scale[s] = (uint8_t)at[s].scale;
            out->min[s] = (uint8_t)at[s].min;
        }
        move_to_best(&block, &all, m_lo);
        h = du_fit_f16(&block.d, b->unit);
        hm = du_fit_f16(&block.m, b->unit);
    }
    choose_levels(out, b, group, level_hi);
}
