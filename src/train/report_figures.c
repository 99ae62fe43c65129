/* The figures of a report: curves of what metrics.jsonl measures, and how the experts of each layer
 * are used. */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "plot/chart.h"
#include "plot/heat.h"
#include "train/report_int.h"

enum { COLUMNS_MAX = 128, N_SHADES = 8 };

static void add_curves(du_str *s, const du_report *r) {
    const du_chart_line loss[] = {
        {"training loss", du_report_measure(r, DU_REPORT_loss), "c1", true, false},
        {"token behind the next", du_report_measure(r, DU_REPORT_mtp_loss), "c3", false, false},
        {"validation loss", du_report_measure(r, DU_REPORT_validation), "c2", false, true}};
    const du_chart_line lr = {"learning rate", du_report_measure(r, DU_REPORT_lr), "c1", false,
                              true};
    const du_chart_line norm = {"gradient norm", du_report_measure(r, DU_REPORT_grad_norm), "c1",
                                true, false};
    const du_chart_line speed = {"tokens per second", du_report_measure(r, DU_REPORT_tok_s), "c3",
                                 true, false};
    const du_chart_line balance = {"balance loss", du_report_measure(r, DU_REPORT_balance), "c1",
                                   true, false};
    const du_chart charts[] = {
        {"loss", "Loss", "Mean cross-entropy of each step in nats.", loss, 3, r->step, 20, false,
         true},
        {"lr", "Learning rate", "Learning rate of each step.", &lr, 1, r->step, 200, false, false},
        {"grad_norm", "Gradient norm", "2-norm of all gradients before clipping.", &norm, 1,
         r->step, 10, false, false},
        {"speed", "Speed", "Tokens per second of each step.", &speed, 1, r->step, 0, true, false},
        {"balance", "Balance loss", "Balance loss of sequences, times its weight.", &balance, 1,
         r->step, 10, false, false}};
    du_str_add_s(s, "<section class=\"figures\">\n");
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++) {
        du_chart_add(s, &charts[i]);
    }
    du_str_add_s(s, "</section>\n");
}

/* Of every layer by steps; NULL when memory is short. out [n_layers, *n_cols] */
static double *overloads(const du_report *r, int64_t *n_cols) {
    int64_t n = r->step < COLUMNS_MAX ? r->step : COLUMNS_MAX;
    double *out = du_alloc_array((size_t)(r->n_layers * n), sizeof *out);
    for (int64_t k = 0; out && k < r->n_layers; k++) {
        const du_series *of = &r->layers[k].overload;
        int64_t i = 0, n_bins = du_series_n_bins(of);
        double value = (double)NAN;
        for (int64_t c = 0; c < n; c++) { /* the last bin that begins before the column's end */
            int64_t end = (int64_t)ceil((double)r->step * (double)(c + 1) / (double)n);
            for (; i < n_bins && i * of->width < end; i++) {
                value = of->bins[i].n > 0 ? of->bins[i].sum / (double)of->bins[i].n : value;
            }
            out[k * n + c] = value;
        }
    }
    *n_cols = n;
    return out;
}

static void add_overload(du_str *s, const du_report *r, du_heat heat) {
    heat.values = overloads(r, &heat.n_cols);
    heat.id = "overload";
    heat.title = "Overload of layers over time";
    heat.about = "For each layer the load of its most used expert over the mean, less 1.";
    heat.kind = DU_HEAT_OVERLOAD;
    heat.steps = r->step;
    if (heat.values) {
        du_heat_add(s, &heat);
    }
    s->failed = s->failed || !heat.values;
    du_free((void *)(uintptr_t)heat.values);
}

static void add_loads(du_str *s, const du_report *r, du_heat heat) {
    double *loads = du_alloc_array((size_t)(heat.n_rows * heat.n_cols), sizeof *loads);
    for (int64_t i = 0; loads && i < heat.n_rows * heat.n_cols; i++) {
        loads[i] = r->loads[i] / r->weight;
    }
    heat.values = loads;
    heat.id = "experts";
    heat.title = "Expert load per layer";
    heat.about = "How often each expert was chosen towards the end, over the mean of its layer.";
    if (loads) {
        du_heat_add(s, &heat);
    }
    s->failed = s->failed || !loads;
    du_free(loads);
}

static void add_spreads(du_str *s, const du_report *r) {
    static const char *const colours[N_SHADES] = {"l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7"};
    enum { NAME_BYTES = 32 };
    size_t n = (size_t)r->n_layers;
    du_chart_line *lines = du_alloc_zero(n, sizeof *lines);
    char *names = du_alloc_zero(n, NAME_BYTES);
    for (size_t k = 0; lines && names && k < n; k++) {
        snprintf(names + k * NAME_BYTES, NAME_BYTES, "layer %lld", (long long)r->layers[k].layer);
        bool named = n <= N_SHADES || k % ((n + N_SHADES - 1) / N_SHADES) == 0 || k == n - 1;
        lines[k] = (du_chart_line){.name = named ? names + k * NAME_BYTES : NULL,
                                   .series = &r->layers[k].spread,
                                   .colour = colours[n > 1 ? k * (N_SHADES - 1) / (n - 1) : 0],
                                   .exact = true};
    }
    if (lines && names) {
        du_chart_add(s, &(du_chart){"biases", "Router bias drift",
                                    "For each layer its largest bias less its smallest one.", lines,
                                    r->n_layers, r->step, 0, true, true});
    }
    s->failed = s->failed || !lines || !names;
    du_free(lines);
    du_free(names);
}

static void add_experts(du_str *s, const du_report *r) {
    int64_t *layers = du_alloc_array((size_t)r->n_layers, sizeof *layers);
    if (!layers) {
        s->failed = true;
        return;
    }
    for (int64_t k = 0; k < r->n_layers; k++) {
        layers[k] = r->layers[k].layer;
    }
    du_heat heat = {.n_rows = r->n_layers, .n_cols = r->n_experts, .layers = layers};
    const du_chart_line over = {"overload", du_report_measure(r, DU_REPORT_overload), "c1", true,
                                false};
    du_str_add_s(s, "<h2>Experts</h2>\n<section class=\"figures\">\n");
    add_loads(s, r, heat);
    add_overload(s, r, heat);
    du_chart_add(s, &(du_chart){"maxvio", "Mean overload",
                                "Overload of each step, meaned over layers.", &over, 1, r->step, 0,
                                true, true});
    if (r->layers[0].spread.n > 0) {
        add_spreads(s, r);
        heat.values = r->biases;
        heat.id = "bias";
        heat.title = "Router biases per layer";
        heat.about = "The bias of each expert after the last step that tells of them.";
        heat.kind = DU_HEAT_BIAS;
        du_heat_add(s, &heat);
    }
    du_str_add_s(s, "</section>\n<p class=\"note\">A load of 1 is an equal share of the layer's "
                    "choices; the mean is over about the last fifth of the run. Overload is the "
                    "most over the mean, less 1. Only differences between the biases of one layer "
                    "have an effect.</p>\n");
    du_free(layers);
}

void du_report_figures(du_str *html, const du_report *r) {
    add_curves(html, r);
    if (r->n_layers > 0) {
        add_experts(html, r);
    }
}
