#include "tensor/quant_fit_int.h"

#include <float.h>
#include <math.h>

#include "tensor/half.h"

/* Weights of importance 0 still count this much, so that what no sample has used stays sensible. */
static const float importance_floor = 1e-6f;

/* Scales the weights to |x| <= 1, so that no sum of squares overflows or vanishes. No type reaches
 * 2^100, and below 2^-100 every type gives zeros. */
static void load_weights(du_fit_block *b, const float *y) {
    float largest = 0;
    for (int i = 0; i < b->n; i++) {
        b->x[i] = isnan(y[i]) ? 0 : du_fit_clamp(y[i], -0x1p100f, 0x1p100f);
        largest = fabsf(b->x[i]) > largest ? fabsf(b->x[i]) : largest;
    }
    int exponent;
    frexpf(largest, &exponent);
    exponent = exponent < -100 ? -100 : exponent;
    b->unit = ldexpf(1, exponent);
    float inverse = ldexpf(1, -exponent);
    for (int i = 0; i < b->n; i++) {
        b->x[i] *= inverse;
    }
}

/* Without importance, the larger weights of a type with few levels count more: cutting them off
 * costs more than squared error tells. Chosen by the KL divergence of SmolLM2-135M (weights of its
 * Q4_1 file, the lost part of each drawn at random) with all or a third of its layers packed,
 * geometric means relative to ggml's quantisers:
 *
 *              Q2_K  Q3_K  Q4_0  Q4_1  Q5_0  Q4_K  IQ4_XS  Q6_K
 *     equal    0.66  1.06  1.12  0.72  0.91  0.94    0.95  0.89
 *     larger   0.47  0.98  1.03  0.79  0.85  0.95    0.94  0.94
 *
 * Given an importance matrix it does harm: equal 0.92, 0.86, 0.73 and 0.94 for Q2_K, Q3_K, Q4_0 and
 * Q4_K, with the same emphasis on top 1.02, 0.89, 0.86 and 0.95. */
static void emphasise(du_fit_block *b, du_fit_emphasis emphasis) {
    float mean = 0;
    for (int i = 0; i < b->n; i++) {
        mean += b->x[i] * b->x[i] / (float)b->n;
    }
    for (int i = 0; i < b->n; i++) {
        b->w[i] = emphasis == DU_FIT_LARGER ? sqrtf(mean + b->x[i] * b->x[i]) : 1;
    }
}

void du_fit_load(du_fit_block *b, const float *y, const float *importance, int n,
                 du_fit_emphasis emphasis) {
    b->n = n;
    load_weights(b, y);
    float largest = 0;
    for (int i = 0; importance && i < n; i++) {
        b->w[i] = importance[i] > 0 ? du_fit_clamp(importance[i], 0, FLT_MAX) : 0;
        largest = b->w[i] > largest ? b->w[i] : largest;
    }
    if (!(largest > 0)) {
        emphasise(b, emphasis);
        return;
    }
    for (int i = 0; i < n; i++) {
        b->w[i] = b->w[i] / largest + importance_floor;
    }
}

uint16_t du_fit_f16(float *scale, float unit) {
    uint16_t h = du_f16_of_f32(du_fit_clamp(*scale * unit, -65504, 65504));
    if (*scale != 0 && (h & 0x7fff) == 0) {
        h |= 1;
    }
    *scale = du_f32_of_f16(h) / unit;
    return h;
}
