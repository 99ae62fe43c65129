/* A measure over the steps of a run in bounded memory: the least, the most and the sum of each bin
 * of equally many steps. When a step lies behind the last bin, bins are joined two by two and each
 * takes twice as many steps. So what is kept depends on the values alone, not on how many were
 * expected or where the run was stopped. */
#ifndef DU_PLOT_SERIES_H
#define DU_PLOT_SERIES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct {
    double min, max, sum;
    int64_t n; /* values in it; 0: none */
} du_bin;

typedef struct {
    du_bin *bins;  /* [cap], bin i for steps (i * width, (i + 1) * width] */
    int64_t cap;   /* even; of a long series between cap / 2 and cap bins are in use */
    int64_t width; /* steps of a bin, a power of two */
    int64_t n;     /* values in all */
    int64_t first_step, last_step;
    double first, last;
    double min, max;
    int64_t min_step; /* the first one that has the least value */
} du_series;

/* Returns DU_OK, DU_ENOMEM. Free with du_series_done (also what is all 0). */
DU_NODISCARD
du_err du_series_init(du_series *out, int64_t cap, du_diag *diag);
void du_series_done(du_series *s);

/* Steps ascend from 1. A value beyond +-1e30 or not finite is left out: no chart could show it. */
void du_series_add(du_series *s, int64_t step, double value);

/* Bins up to the last one with a value. */
int64_t du_series_n_bins(const du_series *s);

/* The place of a bin on the axis of steps: the middle of its steps as far as the series goes. */
double du_series_step(const du_series *s, int64_t i_bin);

/* out [du_series_n_bins]: means of bins, smoothed over neighbours within a fiftieth of the steps
 * (weights falling linearly to both sides, times the number of values); NAN where there are none.
 * Near the beginning, where losses fall steeply, over as many neighbours as lie before. */
void du_series_smooth(const du_series *s, double *out);

#endif
