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

void du_fit_load(du_fit_block *b, const float *y, const float *importance, int n) {
    b->n = n;
    load_weights(b, y);
    float largest = 0;
    for (int i = 0; importance && i < n; i++) {
        b->w[i] = importance[i] > 0 ? du_fit_clamp(importance[i], 0, FLT_MAX) : 0;
        largest = b->w[i] > largest ? b->w[i] : largest;
    }
    for (int i = 0; i < n; i++) {
        b->w[i] = largest > 0 ? b->w[i] / largest + importance_floor : 1;
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
