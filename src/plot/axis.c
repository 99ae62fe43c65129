#include "plot/axis.h"

#include <math.h>
#include <stdio.h>

/* 1, 2 or 5 times a power of ten: the least that is no less than v > 0. */
static double round_up(double v) {
    double power = pow(10, floor(log10(v))), part = v / power;
    const double slack = 1 + 1e-9; /* v may itself be one, but for rounding */
    return power * (part <= slack ? 1 : part <= 2 * slack ? 2 : part <= 5 * slack ? 5 : 10);
}

static double step_of(double range, int64_t wanted) {
    return round_up(range / (double)wanted);
}

/* A logarithmic axis of so few decades has its numbers where a linear one would. */
static bool is_short(const du_axis *a) {
    return a->hi / a->lo < 10;
}

du_axis du_axis_make(double lo, double hi, bool log, double from, double to) {
    const double least = 1e-30; /* what is smaller is 0 */
    du_axis a = {.log = log && lo >= least, .from = from, .to = to};
    if (hi - lo <= 1e-9 * fabs(hi) + least) { /* one value, or as good as one */
        double half = fabs(hi) > least ? 0.1 * fabs(hi) : 1;
        lo -= half;
        hi += half;
    }
    if (a.log && hi / lo >= 10) {
        a.lo = pow(10, floor(log10(lo) + 1e-9));
        a.hi = pow(10, ceil(log10(hi) - 1e-9));
        a.lo = 5 * a.lo <= lo ? 5 * a.lo : 2 * a.lo <= lo ? 2 * a.lo : a.lo;
        a.hi = a.hi / 5 >= hi ? a.hi / 5 : a.hi / 2 >= hi ? a.hi / 2 : a.hi;
        return a;
    }
    double step = step_of(hi - lo, 5), floor_lo = step * floor(lo / step + 1e-9);
    a.lo = a.log && floor_lo <= 0 ? lo : floor_lo;
    a.hi = step * ceil(hi / step - 1e-9);
    return a;
}

double du_axis_at(const du_axis *a, double v) {
    v = v < a->lo ? a->lo : v > a->hi ? a->hi : v;
    double part = a->log ? log(v / a->lo) / log(a->hi / a->lo) : (v - a->lo) / (a->hi - a->lo);
    return a->from + part * (a->to - a->from);
}

static int64_t linear_ticks(const du_axis *a, int64_t wanted, double *out) {
    double step = step_of(a->hi - a->lo, wanted), first = ceil(a->lo / step - 1e-9);
    int64_t n = 0;
    for (; n < DU_AXIS_TICKS_MAX && (first + (double)n) * step <= a->hi + 1e-9 * step; n++) {
        double v = (first + (double)n) * step;
        out[n] = fabs(v) < 1e-9 * step ? 0 : v;
    }
    return n;
}

/* 1, 2, 5 of each decade where there are few, else 1 of every or every few. */
static int64_t log_ticks(const du_axis *a, int64_t wanted, double *out) {
    double decades = log10(a->hi / a->lo);
    int64_t every = (int64_t)ceil(decades / (double)wanted), n = 0;
    bool parts = 3 * decades <= 1.5 * (double)wanted;
    for (int64_t k = (int64_t)floor(log10(a->lo) + 1e-9); n < DU_AXIS_TICKS_MAX; k++) {
        double power = pow(10, (double)k);
        if (power > a->hi * (1 + 1e-9)) {
            break;
        }
        for (int part = 1; part <= 5; part += part == 1 ? 1 : 3) {
            double v = part * power;
            bool shown = parts || (part == 1 && k % every == 0);
            if (shown && v >= a->lo * (1 - 1e-9) && v <= a->hi * (1 + 1e-9) &&
                n < DU_AXIS_TICKS_MAX) {
                out[n++] = v;
            }
        }
    }
    return n;
}

int64_t du_axis_ticks(const du_axis *a, int64_t wanted, double out[DU_AXIS_TICKS_MAX]) {
    return a->log && !is_short(a) ? log_ticks(a, wanted, out) : linear_ticks(a, wanted, out);
}

/* Without an exponent, and without zeros behind the point. */
static void add_plain(du_str *out, double v, int digits) {
    char text[64];
    int before = v == 0 ? 1 : 1 + (int)floor(log10(fabs(v)) + 1e-9);
    int decimals = digits > before ? digits - before : 0;
    int n = snprintf(text, sizeof text, "%.*f", decimals, v);
    while (decimals > 0 && text[n - 1] == '0') {
        n--;
        decimals--;
    }
    n -= text[n - 1] == '.';
    du_str_add(out, text, (size_t)n);
}

void du_axis_add_number(du_str *out, double v, int digits) {
    static const struct {
        double from, value;
        const char *name;
    } units[] = {{1e12, 1e12, "T"}, {1e9, 1e9, "G"}, {1e6, 1e6, "M"}, {1e4, 1e3, "k"}};
    if (!(fabs(v) < 1e300)) { /* nor does 10 to the power of what is less than 1e-300 exist */
        du_str_add_s(out, "-");
        return;
    }
    v = fabs(v) < 1e-300 ? 0 : v;
    double size = fabs(v) * (1 + 1e-9);
    for (size_t i = 0; i < sizeof units / sizeof *units && size < 1e15; i++) {
        if (size >= units[i].from) {
            add_plain(out, v / units[i].value, digits);
            du_str_add_s(out, units[i].name);
            return;
        }
    }
    if (v == 0 || (size >= 1e-3 && size < 1e4)) {
        add_plain(out, v, digits);
        return;
    }
    int power = (int)floor(log10(fabs(v)) + 1e-9);
    add_plain(out, v / pow(10, power), digits);
    du_str_addf(out, "e%d", power);
}
