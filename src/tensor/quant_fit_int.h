/* The packers' search for the scales of a block: quant_fit.c prepares the weights,
 * quant_fit_scale.c fits types without a minimum, quant_fit_affine.c those with one. */
#ifndef DU_TENSOR_QUANT_FIT_INT_H
#define DU_TENSOR_QUANT_FIT_INT_H

#include <stdint.h>

enum { DU_FIT_MAX = 256, DU_FIT_GROUPS = 16, DU_FIT_NEAREST = 512 };

/* A block's weights made ready for the search. */
typedef struct {
    _Alignas(16) float x[DU_FIT_MAX]; /* y / unit, |x| <= 1 */
    _Alignas(16) float w[DU_FIT_MAX]; /* importance, largest 1 */
    float unit;                       /* a power of two */
    int n;                            /* weights, at most DU_FIT_MAX, a multiple of 16 */
} du_fit_block;

/* What a weight counts where no importance is given: all the same, or sqrt(mean_j(x[j]^2) + x^2).
 */
typedef enum { DU_FIT_EQUAL, DU_FIT_LARGER } du_fit_emphasis;

/* A NaN counts as 0, an infinity as more than any type can reach. importance as in du_pack_fn. */
void du_fit_load(du_fit_block *b, const float *y, const float *importance, int n,
                 du_fit_emphasis emphasis);

/* The values that a weight divided by its scale can take: the integers lo .. hi or, with a table,
 * nearest[2 v + 256] is the level next to v, for v in [lo, hi] within [-128, 127]. */
typedef struct {
    float lo, hi;
    const float *nearest; /* [DU_FIT_NEAREST], NULL: integers */
    /* What the scan tries for the part of the levels that the largest weight spans: from scan_from,
     * in steps of scan_step. */
    float scan_from, scan_step;
} du_fit_levels;

/* x[i] ~ d * scale[i / group] * level[i] */
typedef struct {
    uint16_t d; /* binary16, the unit included */
    int8_t scale[DU_FIT_GROUPS];
    int8_t level[DU_FIT_MAX];
} du_fit_scaled;

/* group: weights per scale, 16 or 32. Scales are integers in scale_lo .. scale_hi. */
void du_fit_scales(du_fit_scaled *out, const du_fit_block *b, int group,
                   const du_fit_levels *levels, int scale_lo, int scale_hi);

/* x[i] ~ d * scale[i / group] * level[i] - dmin * min[i / group], level in 0 .. level_hi */
typedef struct {
    uint16_t d, dmin; /* binary16, the unit included */
    uint8_t scale[DU_FIT_GROUPS];
    uint8_t min[DU_FIT_GROUPS];
    uint8_t level[DU_FIT_MAX];
} du_fit_affine;

/* Scales and minima are integers in 0 .. scale_hi and dmin >= 0; with scale_hi = 1 there is one
 * group, its scale and min are 1, and dmin may have either sign. */
void du_fit_affines(du_fit_affine *out, const du_fit_block *b, int group, int level_hi,
                    int scale_hi);

/* The binary16 next to *scale * unit, but neither infinite nor, unless *scale is 0, zero; *scale
 * becomes what it stands for, in units. */
uint16_t du_fit_f16(float *scale, float unit);

static inline float du_fit_clamp(float v, float lo, float hi) {
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
}

/* The integer next to v, |v| < 2^22: the last bit of the sum is worth 1. */
static inline float du_fit_round(float v) {
    return (v + 0x1.8p23f) - 0x1.8p23f;
}

/* The integer in lo .. hi next to v. */
static inline int du_fit_int(float v, int lo, int hi) {
    return (int)du_fit_round(du_fit_clamp(v, (float)lo, (float)hi));
}

/* Four lanes, so that sums are taken in the same order whatever the compiler. */
typedef float du_fit_v4 __attribute__((vector_size(16), may_alias));

static inline du_fit_v4 du_fit_clamp4(du_fit_v4 v, float lo, float hi) {
    for (int j = 0; j < 4; j++) {
        v[j] = v[j] > lo ? v[j] : lo;
    }
    for (int j = 0; j < 4; j++) {
        v[j] = v[j] < hi ? v[j] : hi;
    }
    return v;
}

static inline du_fit_v4 du_fit_round4(du_fit_v4 v) {
    return (v + 0x1.8p23f) - 0x1.8p23f;
}

static inline float du_fit_sum4(du_fit_v4 v) {
    return (v[0] + v[2]) + (v[1] + v[3]);
}

#endif
