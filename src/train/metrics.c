#include "train/metrics.h"

#include <math.h>

static void add_i64(du_str *s, const char *key, int64_t v) {
    du_str_addf(s, "%s\"%s\":%lld", s->len > 1 ? "," : "", key, (long long)v);
}

static void add_f64(du_str *s, const char *key, double v) {
    if (isfinite(v)) {
        du_str_addf(s, ",\"%s\":", key);
        du_str_add_f64(s, v);
    }
}

bool du_metrics_has_experts(int64_t step) {
    int64_t every = 1;
    while (step / every >= 128) {
        every *= 2;
    }
    return step % every == 0;
}

static bool has_experts(const du_metrics_experts *x, int64_t layer) {
    int64_t sum = 0;
    for (int64_t e = 0; e < x->n_experts; e++) {
        sum += x->counts[layer * x->n_experts + e];
    }
    return sum > 0;
}

/* [[of layer 0], [of layer 1], ...]; of layers without experts []. */
static void add_experts(du_str *s, const char *key, const du_metrics_experts *x, bool biases) {
    du_str_addf(s, ",\"%s\":[", key);
    for (int64_t layer = 0; layer < x->n_layers; layer++) {
        int64_t n = has_experts(x, layer) ? x->n_experts : 0, at = layer * x->n_experts;
        du_str_add_s(s, layer > 0 ? ",[" : "[");
        for (int64_t i = at; i < at + n; i++) {
            du_str_add_s(s, i > at ? "," : "");
            if (biases) {
                du_str_addf(s, "%.6g", (double)x->biases[i]);
            } else {
                du_str_addf(s, "%lld", (long long)x->counts[i]);
            }
        }
        du_str_add_c(s, ']');
    }
    du_str_add_c(s, ']');
}

static void add_line(du_str *s, const du_metrics *m) {
    du_str_add_c(s, '{');
    add_i64(s, "step", m->step);
    add_i64(s, "tokens", m->tokens);
#define ADD(name, tag, n_points) add_f64(s, #name, m->name);
    DU_METRICS_LIST(ADD)
#undef ADD
    if (m->experts) {
        add_experts(s, "experts", m->experts, false);
    }
    if (m->experts && m->experts->biases) {
        add_experts(s, "biases", m->experts, true);
    }
    du_str_add_s(s, "}\n");
}

du_err du_metrics_add(du_lines *file, const du_metrics *m, du_diag *diag) {
    du_str_reset(&file->line);
    add_line(&file->line, m);
    return du_lines_add(file, m->step, diag);
}
