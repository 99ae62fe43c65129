/* The axes of charts: from values to places, and where the numbers stand. */
#ifndef DU_PLOT_AXIS_H
#define DU_PLOT_AXIS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

typedef struct {
    double lo, hi;   /* values at its ends; of a logarithmic one both > 0 */
    double from, to; /* places of these */
    bool log;
} du_axis;

/* An axis that shows values from lo to hi: widened to round numbers, and to a range where they are
 * one. Of `log` with values that are not positive it is linear. */
du_axis du_axis_make(double lo, double hi, bool log, double from, double to);

/* The place of a value; what lies outside is put at the end. */
double du_axis_at(const du_axis *a, double v);

/* Round values within the axis, ascending, about `wanted` of them. Returns how many. */
enum { DU_AXIS_TICKS_MAX = 24 };
int64_t du_axis_ticks(const du_axis *a, int64_t wanted, double out[DU_AXIS_TICKS_MAX]);

/* A number for people, of so many significant digits: "0.0021", "3e-7", "12.5k", "1.25M". Below
 * 1e-300 it is 0, from 1e300 on and where it is none "-". */
void du_axis_add_number(du_str *out, double v, int digits);

#endif
