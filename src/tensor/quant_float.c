/* F32, F16, BF16 and F8_E4M3: one weight per element, at any address. Packing rounds, so that
 * importance has no say. */
#include <math.h>
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/half.h"

void du_unpack_f32(float *y, const void *x, int64_t n) {
    memcpy(y, x, (size_t)n * sizeof *y);
}

void du_unpack_f16(float *y, const void *x, int64_t n) {
    const char *h = x;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_f16(du_load_u16(h + 2 * i));
    }
}

void du_unpack_bf16(float *y, const void *x, int64_t n) {
    const char *h = x;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_bf16(du_load_u16(h + 2 * i));
    }
}

void du_unpack_f8_e4m3(float *y, const void *x, int64_t n) {
    const uint8_t *h = x;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_f8_e4m3(h[i]);
    }
}

void du_pack_f32(void *x, const float *y, int64_t n, const float *importance) {
    (void)importance;
    memcpy(x, y, (size_t)n * sizeof *y);
}

static void store_u16(void *p, uint16_t v) {
    memcpy(p, &v, sizeof v);
}

void du_pack_f16(void *x, const float *y, int64_t n, const float *importance) {
    (void)importance;
    char *h = x;
    for (int64_t i = 0; i < n; i++) {
        uint16_t v = du_f16_of_f32(y[i]);
        if ((v & 0x7fff) == 0x7c00 && !isinf(y[i])) {
            v--;
        }
        store_u16(h + 2 * i, v);
    }
}

void du_pack_bf16(void *x, const float *y, int64_t n, const float *importance) {
    (void)importance;
    char *h = x;
    for (int64_t i = 0; i < n; i++) {
        store_u16(h + 2 * i, du_bf16_of_f32(y[i]));
    }
}

void du_pack_f8_e4m3(void *x, const float *y, int64_t n, const float *importance) {
    (void)importance;
    uint8_t *h = x;
    for (int64_t i = 0; i < n; i++) {
        h[i] = du_f8_e4m3_of_f32(y[i]);
    }
}
