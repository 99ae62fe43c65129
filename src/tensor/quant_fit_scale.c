/* Scales of the types without a minimum: x[i] ~ D * S[group of i] * level[i], levels the integers
 * of a range (Q4_0, Q5_0, Q8_0, Q3_K, Q6_K) or of a table (IQ4_NL, IQ4_XS), S small integers with
 * one binary16 D per block, or 1.
 *
 * The error sum_i w[i] (x[i] - d level[i])^2 of a group, each level the nearest, is piecewise
 * quadratic in d, a piece for each choice of the levels. So a group's d is found by scanning scales
 * that map its largest weight to around either end of the levels, each moved to the lowest point of
 * its piece (least squares), and by repeating that step from the best one. Against the true minimum
 * over all pieces this loses less than 1% (tests/unit/test_quant_pack.c walks all pieces).
 *
 * For a super-block, D is first chosen among candidates by the curvatures of the groups' errors
 * about their own best scales. Then, in turns, every group walks its S up or down while its true
 * error falls, and D moves to its least-squares value for the levels so found. Every turn works
 * with the binary16 D that will be stored; one that does not lower the error is the last. */
#include <math.h>
#include <string.h>

#include "tensor/half.h"
#include "tensor/quant_fit_int.h"

/* A group against d: with r = x - d * level, moving d by t changes e to e - 2 t g + t^2 a. */
typedef struct {
    float e; /* sum w r^2 */
    float g; /* sum w r level */
    float a; /* sum w level^2 */
} fit_sums;

static inline fit_sums sums_at(const float *x, const float *w, int n, const du_fit_levels *levels,
                               float d) {
    const du_fit_v4 *x4 = (const void *)x, *w4 = (const void *)w;
    float inverse = d != 0 ? 1 / d : 0;
    du_fit_v4 e = {0}, g = {0}, a = {0};
    for (int i = 0; i < n / 4; i++) {
        du_fit_v4 level = du_fit_clamp4(x4[i] * inverse, levels->lo, levels->hi);
        if (levels->nearest) {
            for (int j = 0; j < 4; j++) {
                level[j] = levels->nearest[(int)(2 * level[j] + 256)];
            }
        } else {
            level = du_fit_round4(level);
        }
        du_fit_v4 r = x4[i] - d * level;
        du_fit_v4 wl = w4[i] * level;
        e += w4[i] * r * r;
        g += wl * r;
        a += wl * level;
    }
    return (fit_sums){du_fit_sum4(e), du_fit_sum4(g), du_fit_sum4(a)};
}

typedef struct {
    float d;    /* best scale, a real number */
    float e, a; /* error there, and its curvature */
} group_fit;

/* Keeps d's lowest point of its piece in *best when that is lower. */
static void try_scale(group_fit *best, const float *x, const float *w, int n,
                      const du_fit_levels *levels, float d) {
    fit_sums s = sums_at(x, w, n, levels, d);
    float t = s.a > 0 ? s.g / s.a : 0;
    float e = s.e - t * s.g;
    if (e < best->e) {
        *best = (group_fit){d + t, e, s.a};
    }
}

static group_fit fit_group(const float *x, const float *w, int n, const du_fit_levels *levels) {
    float extreme = 0;
    for (int i = 0; i < n; i++) {
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    }
    if (extreme == 0) {
        return (group_fit){0};
    }
    /* Past the end of the levels the largest weight is cut off; far past it is worth it only where
     * other weights are much more important. */
    group_fit best = {.e = INFINITY};
    for (float at = levels->scan_from; at < 2.3f; at += at < 1.2f ? levels->scan_step : 0.1f) {
        try_scale(&best, x, w, n, levels, extreme / (at * levels->lo));
        try_scale(&best, x, w, n, levels, extreme / (at * levels->hi));
    }
    for (float last = INFINITY; best.e < last;) {
        last = best.e;
        try_scale(&best, x, w, n, levels, best.d);
    }
    return best;
}

/* Error that a super-block scale adds to the groups' best, their scales being rounded. */
static float rounding_error(const group_fit *fit, int n_groups, float d, int lo, int hi) {
    float sum = 0;
    for (int s = 0; s < n_groups; s++) {
        float t = d * (float)du_fit_int(fit[s].d / d, lo, hi) - fit[s].d;
        sum += fit[s].a * t * t;
    }
    return sum;
}

/* A first scale for the block: among those that give the largest group scale nearly the whole range
 * and are binary16 numbers, the one whose rounding costs least. */
static float first_scale(const group_fit *fit, int n_groups, float unit, int lo, int hi) {
    float extreme = 0;
    for (int s = 0; s < n_groups; s++) {
        extreme = fabsf(fit[s].d) > fabsf(extreme) ? fit[s].d : extreme;
    }
    if (lo == hi || extreme == 0) {
        return extreme;
    }
    float best = INFINITY, best_d = 0;
    for (float at = 0.7f; at < 1.02f; at += 0.015f) {
        float ends[2] = {extreme / (at * (float)lo), extreme / (at * (float)hi)};
        for (int k = 0; k < 2; k++) {
            du_fit_f16(&ends[k], unit);
            float e = rounding_error(fit, n_groups, ends[k], lo, hi);
            if (e < best) {
                best = e;
                best_d = ends[k];
            }
        }
    }
    return best_d;
}

/* Walks a group's scale from *scale while the error falls; the sums where it ends. */
static fit_sums walk_scale(int *scale, const float *x, const float *w, int n,
                           const du_fit_levels *levels, float d, int lo, int hi) {
    fit_sums at = sums_at(x, w, n, levels, d * (float)*scale);
    for (int step = -1; step <= 1; step += 2) {
        for (int next = *scale + step; next >= lo && next <= hi; next += step) {
            fit_sums s = sums_at(x, w, n, levels, d * (float)next);
            if (!(s.e < at.e)) {
                break;
            }
            at = s;
            *scale = next;
        }
    }
    return at;
}

/* One turn over all groups with super-block scale d; the sums against d. */
static fit_sums walk_scales(int *scale, const du_fit_block *b, int group,
                            const du_fit_levels *levels, float d, int lo, int hi) {
    fit_sums all = {0};
    for (int s = 0; s * group < b->n; s++) {
        fit_sums at =
            walk_scale(&scale[s], b->x + s * group, b->w + s * group, group, levels, d, lo, hi);
        float f = (float)scale[s];
        all.e += at.e;
        all.g += at.g * f;
        all.a += at.a * f * f;
    }
    return all;
}

static void choose_levels(du_fit_scaled *out, const du_fit_block *b, int group,
                          const du_fit_levels *levels) {
    float block_d = du_f32_of_f16(out->d) / b->unit;
    for (int i = 0; i < b->n; i++) {
        float d = block_d * (float)out->scale[i / group];
        float v = du_fit_clamp(d != 0 ? b->x[i] / d : 0, levels->lo, levels->hi);
        v = levels->nearest ? levels->nearest[(int)(2 * v + 256)] : du_fit_round(v);
        out->level[i] = (int8_t)v;
    }
}

void du_fit_scales(du_fit_scaled *out, const du_fit_block *b, int group,
                   const du_fit_levels *levels, int scale_lo, int scale_hi) {
    enum { N_TURNS = 4 };
    int n_groups = b->n / group;
    group_fit fit[DU_FIT_GROUPS];
    int scale[DU_FIT_GROUPS] = {0};
    for (int s = 0; s < n_groups; s++) {
        fit[s] = fit_group(b->x + s * group, b->w + s * group, group, levels);
    }
    float d = first_scale(fit, n_groups, b->unit, scale_lo, scale_hi);
    uint16_t h = du_fit_f16(&d, b->unit);
    for (int s = 0; s < n_groups; s++) {
        scale[s] = du_fit_int(d != 0 ? fit[s].d / d : 0, scale_lo, scale_hi);
    }
    memset(out, 0, sizeof *out);
    float best = INFINITY;
    for (int turn = 0; turn < N_TURNS; turn++) {
        fit_sums all = walk_scales(scale, b, group, levels, d, scale_lo, scale_hi);
        if (!(all.e < best)) {
            break;
        }
        best = all.e;
        out->d = h;
        for (int s = 0; s < n_groups; s++) {
            out->scale[s] = (int8_t)scale[s];
        }
        d += all.a > 0 ? all.g / all.a : 0;
        h = du_fit_f16(&d, b->unit);
    }
    if (sums_at(b->x, b->w, b->n, levels, 0).e < best) { /* below the smallest scale */
        out->d = 0;
    }
    choose_levels(out, b, group, levels);
}
