/* Tables of numbers as coloured fields: a row per layer. */
#ifndef DU_PLOT_HEAT_H
#define DU_PLOT_HEAT_H

#include <stdint.h>

#include "base/str.h"

/* What values are, and so which of nine colours each gets. */
typedef enum {
    DU_HEAT_LOAD,     /* over the mean: 1 in the middle, colours by halving and doubling */
    DU_HEAT_OVERLOAD, /* from 0 */
    DU_HEAT_BIAS      /* 0 in the middle, the largest at the ends */
} du_heat_kind;

/* Texts are ours: they are not escaped. */
typedef struct {
    const char *id, *title, *about;
    du_heat_kind kind;
    int64_t n_rows, n_cols;
    const double *values;  /* [n_rows, n_cols]; NAN: none */
    const int64_t *layers; /* [n_rows] */
    int64_t steps;         /* columns are equal parts of (0, steps]; 0: columns are experts */
} du_heat;

/* Appends <figure id=ID>. */
void du_heat_add(du_str *html, const du_heat *heat);

#endif
