/* A bounded reader over bytes from outside: little-endian numbers, sticky failure.
 *
 * After a read past the end every read returns 0 and `bad` stays set, so a parser may read a whole
 * header and look once; `pos` then still names the place of the first failure. */
#ifndef DU_BASE_READER_H
#define DU_BASE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *bytes;
    size_t len, pos; /* pos <= len */
    bool bad;
} du_reader;

static inline du_reader du_reader_of(const void *bytes, size_t len) {
    return (du_reader){bytes, len, 0, false};
}

static inline size_t du_reader_left(const du_reader *r) {
    return r->len - r->pos;
}

/* The next n bytes, borrowed, and moves past them; NULL when fewer are left. */
static inline const uint8_t *du_read_bytes(du_reader *r, size_t n) {
    if (r->bad || n > r->len - r->pos) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->bytes + r->pos;
    r->pos += n;
    return p;
}

#define DU_READER_NUMBER(name, type)                                                               \
    static inline type du_read_##name(du_reader *r) {                                              \
        type v = 0;                                                                                \
        const uint8_t *p = du_read_bytes(r, sizeof v);                                             \
        if (p) {                                                                                   \
            memcpy(&v, p, sizeof v);                                                               \
        }                                                                                          \
        return v;                                                                                  \
    }
DU_READER_NUMBER(u8, uint8_t)
DU_READER_NUMBER(i8, int8_t)
DU_READER_NUMBER(u16, uint16_t)
DU_READER_NUMBER(i16, int16_t)
DU_READER_NUMBER(u32, uint32_t)
DU_READER_NUMBER(i32, int32_t)
DU_READER_NUMBER(u64, uint64_t)
DU_READER_NUMBER(i64, int64_t)
DU_READER_NUMBER(f32, float)
DU_READER_NUMBER(f64, double)
#undef DU_READER_NUMBER

#endif
