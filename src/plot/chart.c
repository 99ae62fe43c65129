/* A chart:
 *
 *     <figure id=ID> <figcaption> title, legend </figcaption>
 *     <svg> title and desc for readers of screens
 *         grid and numbers
 *         per line: the range of each bin as one pale path; the smoothed means as a second one
 *         columns over all of it that show nothing but, under the mouse, their values
 *     </svg> </figure>
 *
 * A path has at most two points per bin, so its length does not grow with the run. */
#include "plot/chart.h"

#include <math.h>

#include "base/mem.h"
#include "plot/axis.h"

enum {
    WIDE = 1080,
    NARROW = 528,
    HIGH = 300,
    LOW = 230,
    LEFT = 56,
    RIGHT = 14,
    TOP = 10,
    BOTTOM = 30,
    COLUMNS = 96,   /* that show their values */
    DOTS_MAX = 128, /* beyond them a line alone is clearer */
    DIGITS = 4
};

typedef struct {
    const du_chart *chart;
    du_axis x, y;
    int width, height;
} canvas;

static du_axis make_y(const du_chart *c, int height) {
    double lo = HUGE_VAL, hi = -HUGE_VAL;
    for (int64_t i = 0; i < c->n_lines; i++) {
        const du_series *s = c->lines[i].series;
        if (s->n > 0) {
            lo = s->min < lo ? s->min : lo;
            hi = s->max > hi ? s->max : hi;
        }
    }
    lo = c->from_zero && lo > 0 ? 0 : lo;
    bool log = c->log_from > 0 && lo > 0 && hi >= c->log_from * lo;
    return du_axis_make(lo, hi, log, height - BOTTOM, TOP);
}

static void add_grid(du_str *s, const canvas *v) {
    double ticks[DU_AXIS_TICKS_MAX];
    int64_t n = du_axis_ticks(&v->y, v->height > LOW ? 6 : 5, ticks);
    du_str_add_s(s, "<g class=\"grid\">");
    for (int64_t i = 0; i < n; i++) {
        double y = du_axis_at(&v->y, ticks[i]);
        du_str_addf(s, "<path d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" class=\"y\">", LEFT, y,
                    v->width - RIGHT, LEFT - 6, y + 4);
        du_axis_add_number(s, ticks[i], DIGITS);
        du_str_add_s(s, "</text>");
    }
    n = du_axis_ticks(&v->x, v->width > NARROW ? 10 : 5, ticks);
    for (int64_t i = 0; i < n; i++) {
        double x = du_axis_at(&v->x, ticks[i]);
        if (ticks[i] == floor(ticks[i])) {
            du_str_addf(s, "<path d=\"M%.1f %dv4\"/><text x=\"%.1f\" y=\"%d\">", x,
                        v->height - BOTTOM, x, v->height - BOTTOM + 17);
            du_axis_add_number(s, ticks[i], DIGITS);
            du_str_add_s(s, "</text>");
        }
    }
    du_str_add_s(s, "</g>");
}

static void add_point(du_str *s, const canvas *v, bool *begun, double step, double value) {
    du_str_addf(s, "%c%.1f %.1f", *begun ? 'L' : 'M', du_axis_at(&v->x, step),
                du_axis_at(&v->y, value));
    *begun = true;
}

/* The ends of each bin, the one nearer to the last point first. */
static void add_raw(du_str *s, const canvas *v, const du_chart_line *line) {
    const du_series *of = line->series;
    bool begun = false;
    double last = of->first;
    du_str_addf(s, "<path class=\"raw %s\" d=\"", line->colour);
    for (int64_t i = 0; i < du_series_n_bins(of); i++) {
        const du_bin *bin = &of->bins[i];
        if (bin->n == 0) {
            continue;
        }
        bool up = fabs(last - bin->min) <= fabs(last - bin->max);
        double step = du_series_step(of, i);
        add_point(s, v, &begun, step, up ? bin->min : bin->max);
        last = up ? bin->max : bin->min;
        if (bin->min < bin->max) {
            add_point(s, v, &begun, step, last);
        }
    }
    du_str_add_s(s, "\"/>");
}

/* values [bins]; NAN: none */
static void add_path(du_str *s, const canvas *v, const du_chart_line *line, const double *values) {
    bool begun = false;
    du_str_addf(s, "<path class=\"line %s\" d=\"", line->colour);
    for (int64_t i = 0; i < du_series_n_bins(line->series); i++) {
        if (!isnan(values[i])) {
            add_point(s, v, &begun, du_series_step(line->series, i), values[i]);
        }
    }
    du_str_add_s(s, "\"/>");
}

static void add_dots(du_str *s, const canvas *v, const du_chart_line *line, const double *values) {
    for (int64_t i = 0; i < du_series_n_bins(line->series); i++) {
        if (!isnan(values[i])) {
            du_str_addf(s, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>", line->colour,
                        du_axis_at(&v->x, du_series_step(line->series, i)),
                        du_axis_at(&v->y, values[i]));
        }
    }
}

static int64_t n_used(const du_series *s) {
    int64_t n = 0;
    for (int64_t i = 0; i < du_series_n_bins(s); i++) {
        n += s->bins[i].n > 0;
    }
    return n;
}

static void add_line(du_str *s, const canvas *v, const du_chart_line *line) {
    const du_series *of = line->series;
    int64_t n = du_series_n_bins(of), used = n_used(of);
    double *values = du_alloc_array((size_t)n, sizeof *values);
    if (!values) {
        s->failed = true;
        return;
    }
    if (line->exact) {
        for (int64_t i = 0; i < n; i++) {
            const du_bin *bin = &of->bins[i];
            values[i] = bin->n > 0 ? bin->sum / (double)bin->n : (double)NAN;
        }
    } else {
        du_series_smooth(of, values);
    }
    if (line->raw && used > 1) {
        add_raw(s, v, line);
    }
    if (used > 1) {
        add_path(s, v, line, values);
    }
    if (used == 1 || (line->exact && used <= DOTS_MAX && 3 * used <= n)) {
        add_dots(s, v, line, values);
    }
    du_free(values);
}

/* What a series has in the steps (first, end]. */
static du_bin sum_of(const du_series *s, double first, double end) {
    du_bin sum = {.min = HUGE_VAL, .max = -HUGE_VAL};
    for (int64_t i = 0; i < du_series_n_bins(s); i++) {
        const du_bin *bin = &s->bins[i];
        double step = du_series_step(s, i);
        if (bin->n > 0 && step > first && step <= end) {
            sum.min = bin->min < sum.min ? bin->min : sum.min;
            sum.max = bin->max > sum.max ? bin->max : sum.max;
            sum.sum += bin->sum;
            sum.n += bin->n;
        }
    }
    return sum;
}

static void add_values(du_str *s, const canvas *v, double first, double end) {
    for (int64_t k = 0; k < v->chart->n_lines; k++) {
        const du_chart_line *line = &v->chart->lines[k];
        du_bin sum = sum_of(line->series, first, end);
        if (!line->name || sum.n == 0) {
            continue;
        }
        du_str_addf(s, "\n%s ", line->name);
        du_axis_add_number(s, sum.sum / (double)sum.n, DIGITS);
        if (sum.min < sum.max) {
            du_str_add_s(s, " (");
            du_axis_add_number(s, sum.min, DIGITS);
            du_str_add_s(s, " to ");
            du_axis_add_number(s, sum.max, DIGITS);
            du_str_add_c(s, ')');
        }
    }
}

/* Columns of equally many steps. */
static void add_columns(du_str *s, const canvas *v) {
    int64_t last = v->chart->last_step, each = (last + COLUMNS - 1) / COLUMNS;
    du_str_add_s(s, "<g class=\"columns\">");
    for (int64_t first = 0; first < last; first += each) {
        int64_t end = first + each < last ? first + each : last;
        double from = du_axis_at(&v->x, (double)first), to = du_axis_at(&v->x, (double)end);
        du_str_addf(s, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"><title>", from, TOP,
                    to - from, v->height - BOTTOM - TOP);
        if (each > 1) {
            du_str_addf(s, "steps %lld to %lld", (long long)first + 1, (long long)end);
        } else {
            du_str_addf(s, "step %lld", (long long)end);
        }
        add_values(s, v, (double)first, (double)end);
        du_str_add_s(s, "</title></rect>");
    }
    du_str_add_s(s, "</g>");
}

static void add_caption(du_str *s, const du_chart *c) {
    du_str_addf(s, "<figcaption><b>%s</b>", c->title);
    for (int64_t i = 0; i < c->n_lines; i++) {
        if (c->lines[i].name && c->lines[i].series->n > 0) {
            du_str_addf(s, "<span class=\"key %s\">%s</span>", c->lines[i].colour,
                        c->lines[i].name);
        }
    }
    du_str_add_s(s, "</figcaption>\n");
}

/* The chart in words. */
static void add_words(du_str *s, const du_chart *c) {
    du_str_addf(s, "<title id=\"%s-title\">%s</title><desc id=\"%s-desc\">%s", c->id, c->title,
                c->id, c->about);
    for (int64_t i = 0; i < c->n_lines; i++) {
        const du_series *of = c->lines[i].series;
        if (!c->lines[i].name || of->n == 0) {
            continue;
        }
        du_str_addf(s, " %s: ", c->lines[i].name);
        du_axis_add_number(s, of->first, DIGITS);
        du_str_addf(s, " at step %lld, ", (long long)of->first_step);
        du_axis_add_number(s, of->last, DIGITS);
        du_str_addf(s, " at step %lld, between ", (long long)of->last_step);
        du_axis_add_number(s, of->min, DIGITS);
        du_str_add_s(s, " and ");
        du_axis_add_number(s, of->max, DIGITS);
        du_str_add_c(s, '.');
    }
    du_str_add_s(s, "</desc>\n");
}

void du_chart_add(du_str *html, const du_chart *chart) {
    int64_t n = 0;
    for (int64_t i = 0; i < chart->n_lines; i++) {
        n += chart->lines[i].series->n;
    }
    if (n == 0) {
        return;
    }
    canvas v = {
        .chart = chart, .width = chart->wide ? WIDE : NARROW, .height = chart->wide ? HIGH : LOW};
    v.x = (du_axis){.hi = (double)chart->last_step, .from = LEFT, .to = v.width - RIGHT};
    v.y = make_y(chart, v.height);
    du_str_addf(html, "<figure id=\"%s\"%s>", chart->id, chart->wide ? " class=\"wide\"" : "");
    add_caption(html, chart);
    du_str_addf(html,
                "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"%s-title %s-desc\">\n",
                v.width, v.height, chart->id, chart->id);
    add_words(html, chart);
    add_grid(html, &v);
    for (int64_t i = 0; i < chart->n_lines; i++) {
        if (chart->lines[i].series->n > 0) {
            add_line(html, &v, &chart->lines[i]);
        }
    }
    add_columns(html, &v);
    du_str_add_s(html, "</svg></figure>\n");
}
