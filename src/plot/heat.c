/* A table as coloured fields. Neighbours of one colour in a row are one stroke, all strokes of a
 * colour one path in units of fields, so that tables of many thousands stay small; under the mouse
 * the fields of smaller ones tell their values. */
#include "plot/heat.h"

#include <math.h>

#include "plot/axis.h"

enum {
    WIDTH = 1080,
    LEFT = 76,
    RIGHT = 14,
    TOP = 6,
    BOTTOM = 30,
    N_COLOURS = 9,
    FIELDS_MAX = 1200, /* that tell their values */
    DIGITS = 3
};

/* The most that a value of a colour may be: of all but the last. */
static const double load_bounds[N_COLOURS - 1] = {0.25, 0.5, 0.707, 0.871, 1.149, 1.414, 2, 4};
static const double overload_bounds[N_COLOURS - 1] = {0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 4};

static double largest(const du_heat *h) {
    double most = 0;
    for (int64_t i = 0; i < h->n_rows * h->n_cols; i++) {
        most = fabs(h->values[i]) > most ? fabs(h->values[i]) : most;
    }
    return most;
}

/* bounds [N_COLOURS - 1] out */
static void set_bounds(double *bounds, const du_heat *h) {
    double most = h->kind == DU_HEAT_BIAS ? largest(h) : 0;
    for (int i = 0; i < N_COLOURS - 1; i++) {
        bounds[i] = h->kind == DU_HEAT_LOAD       ? load_bounds[i]
                    : h->kind == DU_HEAT_OVERLOAD ? overload_bounds[i]
                                                  : most * (2 * i - 7) / N_COLOURS;
    }
}

/* -1: no value */
static int colour_of(const double *bounds, double v) {
    int i = 0;
    while (i < N_COLOURS - 1 && v > bounds[i]) {
        i++;
    }
    return isnan(v) ? -1 : i;
}

static const char *palette(const du_heat *h) {
    return h->kind == DU_HEAT_OVERLOAD ? "s" : "d";
}

static void add_colour(du_str *s, const du_heat *h, const double *bounds, int colour) {
    bool begun = false;
    for (int64_t r = 0; r < h->n_rows; r++) {
        const double *row = h->values + r * h->n_cols;
        for (int64_t c = 0; c < h->n_cols; c++) {
            int64_t first = c;
            while (c < h->n_cols && colour_of(bounds, row[c]) == colour) {
                c++;
            }
            if (c > first) {
                if (!begun) {
                    du_str_addf(s, "<path class=\"%s%d\" d=\"", palette(h), colour);
                }
                begun = true;
                du_str_addf(s, "M%lld %lld.5h%lld", (long long)first, (long long)r,
                            (long long)(c - first));
            }
        }
    }
    du_str_add_s(s, begun ? "\"/>" : "");
}

static void add_place(du_str *s, const du_heat *h, int64_t row, int64_t col) {
    du_str_addf(s, "layer %lld, ", (long long)h->layers[row]);
    if (h->steps > 0) {
        du_str_addf(s, "steps to %lld: ",
                    (long long)ceil((double)h->steps * (double)(col + 1) / (double)h->n_cols));
    } else {
        du_str_addf(s, "expert %lld: ", (long long)col);
    }
}

static void add_fields(du_str *s, const du_heat *h) {
    for (int64_t i = 0; i < h->n_rows * h->n_cols && h->n_rows * h->n_cols <= FIELDS_MAX; i++) {
        int64_t row = i / h->n_cols, col = i % h->n_cols;
        if (!isnan(h->values[i])) {
            du_str_addf(s, "<rect x=\"%lld\" y=\"%lld\" width=\"1\" height=\"1\"><title>",
                        (long long)col, (long long)row);
            add_place(s, h, row, col);
            du_axis_add_number(s, h->values[i], DIGITS);
            du_str_add_s(s, "</title></rect>");
        }
    }
}

/* Layers at the left, as many as have room; experts or steps beneath. */
static void add_labels(du_str *s, const du_heat *h, int height, double row_height) {
    int64_t every = (int64_t)ceil(13 / row_height), each = h->n_cols > 32 ? h->n_cols / 16 : 1;
    double width = WIDTH - LEFT - RIGHT;
    du_str_add_s(s, "<g class=\"grid\">");
    for (int64_t r = 0; r < h->n_rows; r += every) {
        du_str_addf(s, "<text class=\"y\" x=\"%d\" y=\"%.1f\">layer %lld</text>", LEFT - 6,
                    TOP + ((double)r + 0.5) * row_height + 4, (long long)h->layers[r]);
    }
    if (h->steps > 0) {
        du_axis x = {.hi = (double)h->steps, .from = LEFT, .to = WIDTH - RIGHT};
        double ticks[DU_AXIS_TICKS_MAX];
        int64_t n = du_axis_ticks(&x, 10, ticks);
        for (int64_t i = 0; i < n; i++) {
            du_str_addf(s, "<text x=\"%.1f\" y=\"%d\">", du_axis_at(&x, ticks[i]),
                        height - BOTTOM + 17);
            du_axis_add_number(s, ticks[i], 4);
            du_str_add_s(s, "</text>");
        }
    }
    for (int64_t e = 0; e < h->n_cols && h->steps == 0; e += each) {
        du_str_addf(s, "<text x=\"%.1f\" y=\"%d\">%lld</text>",
                    LEFT + ((double)e + 0.5) / (double)h->n_cols * width, height - BOTTOM + 17,
                    (long long)e);
    }
    du_str_add_s(s, "</g>");
}

/* The colours, with some of the bounds between them. */
static void add_scale(du_str *s, const du_heat *h, const double *bounds) {
    static const unsigned told[] = {
        [DU_HEAT_LOAD] = 0xc3, [DU_HEAT_OVERLOAD] = 0xd2, [DU_HEAT_BIAS] = 0x81}; /* bit i: bound i
                                                                                   */
    du_str_add_s(s, "<span class=\"scale\">");
    for (int i = 0; i < N_COLOURS; i++) {
        du_str_addf(s, "<i class=\"%s%d\"></i>", palette(h), i);
        if (told[h->kind] >> i & 1) {
            du_axis_add_number(s, bounds[i], DIGITS);
        }
    }
    du_str_add_s(s, "</span>");
}

void du_heat_add(du_str *html, const du_heat *h) {
    double bounds[N_COLOURS - 1], row_height = 260.0 / (double)h->n_rows;
    row_height = row_height > 24 ? 24 : row_height < 5 ? 5 : row_height;
    int height = TOP + BOTTOM + (int)ceil(row_height * (double)h->n_rows);
    set_bounds(bounds, h);
    du_str_addf(html, "<figure id=\"%s\" class=\"wide\"><figcaption><b>%s</b>", h->id, h->title);
    add_scale(html, h, bounds);
    du_str_addf(html,
                "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" "
                "aria-labelledby=\"%s-title %s-desc\">\n<title id=\"%s-title\">%s</title>"
                "<desc id=\"%s-desc\">%s</desc>\n",
                WIDTH, height, h->id, h->id, h->id, h->title, h->id, h->about);
    add_labels(html, h, height, row_height);
    du_str_addf(html, "<g class=\"heat\" transform=\"translate(%d %d) scale(%.6g %.6g)\">", LEFT,
                TOP, (WIDTH - LEFT - RIGHT) / (double)h->n_cols, row_height);
    for (int colour = 0; colour < N_COLOURS; colour++) {
        add_colour(html, h, bounds, colour);
    }
    add_fields(html, h);
    du_str_add_s(html, "</g></svg></figure>\n");
}
