#include "plot/series.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

static const double most = 1e30;

du_err du_series_init(du_series *out, int64_t cap, du_diag *diag) {
    *out = (du_series){.cap = cap, .width = 1};
    out->bins = du_alloc_zero((size_t)cap, sizeof *out->bins);
    return out->bins ? DU_OK : du_fail_nomem(diag, "a chart");
}

void du_series_done(du_series *s) {
    du_free(s->bins);
    *s = (du_series){0};
}

static void add(du_bin *bin, du_bin more) {
    if (bin->n == 0 || more.n == 0) {
        *bin = bin->n == 0 ? more : *bin;
        return;
    }
    bin->min = more.min < bin->min ? more.min : bin->min;
    bin->max = more.max > bin->max ? more.max : bin->max;
    bin->sum += more.sum;
    bin->n += more.n;
}

/* Every two bins become one. */
static void halve(du_series *s) {
    for (int64_t i = 0; i < s->cap / 2; i++) {
        du_bin both = s->bins[2 * i];
        add(&both, s->bins[2 * i + 1]);
        s->bins[i] = both;
    }
    for (int64_t i = s->cap / 2; i < s->cap; i++) {
        s->bins[i] = (du_bin){0};
    }
    s->width *= 2;
}

void du_series_add(du_series *s, int64_t step, double value) {
    if (!(fabs(value) <= most)) {
        return;
    }
    while ((step - 1) / s->width >= s->cap) {
        halve(s);
    }
    add(&s->bins[(step - 1) / s->width], (du_bin){value, value, value, 1});
    if (s->n++ == 0) {
        s->first_step = s->min_step = step;
        s->first = s->min = s->max = value;
    }
    if (value < s->min) {
        s->min = value;
        s->min_step = step;
    }
    s->max = value > s->max ? value : s->max;
    s->last_step = step;
    s->last = value;
}

int64_t du_series_n_bins(const du_series *s) {
    return s->n > 0 ? (s->last_step - 1) / s->width + 1 : 0;
}

double du_series_step(const du_series *s, int64_t i_bin) {
    int64_t first = i_bin * s->width + 1, last = first + s->width - 1;
    first = first < s->first_step ? s->first_step : first;
    last = last > s->last_step ? s->last_step : last;
    return ((double)first + (double)last) / 2;
}

void du_series_smooth(const du_series *s, double *out) {
    int64_t n = du_series_n_bins(s), longest = n / 50 > 2 ? n / 50 : 2;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0, weights = 0;
        int64_t reach = i < longest ? i : longest;
        int64_t from = i - reach, to = i + reach < n ? i + reach : n - 1;
        for (int64_t k = from; k <= to; k++) {
            double weight = (double)(reach + 1 - llabs(i - k));
            sum += weight * s->bins[k].sum;
            weights += weight * (double)s->bins[k].n;
        }
        out[i] = s->bins[i].n > 0 ? sum / weights : (double)NAN;
    }
}
