/* The tile registers as every kernel with AMX configures them. */
#ifndef DU_KERN_CPU_AMX_TILES_H
#define DU_KERN_CPU_AMX_TILES_H

#include <stdint.h>

/* What LDTILECFG reads (Intel SDM vol. 1, 18.3). */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t n_rows[16];
} amx_config;

/* Palette 1: eight tiles of 16 rows of 64 bytes. */
static const amx_config amx_tiles = {.palette = 1,
                                     .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                                     .n_rows = {16, 16, 16, 16, 16, 16, 16, 16}};

#endif
