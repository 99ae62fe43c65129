#include "train/report_int.h"

#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "train/samples.h"

enum { LAYERS_MAX = 512, LAYER_BINS = 256, EXPERTS_MAX = 1 << 17 };
static const int64_t step_max = (int64_t)1 << 50; /* none that a run comes to */

/* Part of the mean load that a line leaves of those before it: as lines with experts lie the
 * further apart the longer the run, the mean is over about its last fifth. */
static const double memory = 15.0 / 16;

static const struct {
    const char *name;
    int64_t n_bins;
} measures[] = {
#define MEASURE(name_, tag, n_points) {#name_, n_points},
    DU_METRICS_LIST(MEASURE)
#undef MEASURE
};

int64_t du_report_step(const du_report *r) {
    return r->step;
}

/* json[key] where that is a number. */
static bool get_number(double *out, const json_t *json, const char *key) {
    const json_t *value = json_object_get(json, key);
    *out = json_number_value(value);
    return json_is_number(value);
}

/* The first line with experts says how many there are. */
static bool take_layers(du_report *r, const json_t *experts) {
    int64_t n = 0, n_experts = 0;
    size_t i;
    json_t *of_layer;
    json_array_foreach((json_t *)(uintptr_t)experts, i, of_layer) {
        n += json_array_size(of_layer) > 0;
        n_experts = n_experts > 0 ? n_experts : (int64_t)json_array_size(of_layer);
    }
    if (n == 0 || n > LAYERS_MAX || n_experts > EXPERTS_MAX / n) {
        return false;
    }
    r->layers = du_alloc_zero((size_t)n, sizeof *r->layers);
    r->loads = du_alloc_zero((size_t)(n * n_experts), sizeof *r->loads);
    r->biases = du_alloc_array((size_t)(n * n_experts), sizeof *r->biases);
    bool good = r->layers && r->loads && r->biases;
    for (size_t k = 0; good && k < json_array_size(experts); k++) {
        du_report_layer *layer = &r->layers[r->n_layers];
        if (json_array_size(json_array_get(experts, k)) > 0) {
            layer->layer = (int64_t)k;
            r->n_layers++;
            good = du_series_init(&layer->overload, LAYER_BINS, NULL) == DU_OK &&
                   du_series_init(&layer->spread, LAYER_BINS, NULL) == DU_OK;
        }
    }
    r->n_experts = n_experts;
    for (int64_t k = 0; good && k < n * n_experts; k++) {
        r->biases[k] = (double)NAN;
    }
    r->failed = r->failed || !good;
    return good;
}

/* The numbers of layer k; false: the line is of another model, or damaged. */
static bool read_layer(double *out, const du_report *r, const json_t *lists, int64_t k) {
    const json_t *list = json_array_get(lists, (size_t)r->layers[k].layer);
    if ((int64_t)json_array_size(list) != r->n_experts) {
        return false;
    }
    for (int64_t e = 0; e < r->n_experts; e++) {
        out[e] = json_number_value(json_array_get(list, (size_t)e));
        if (!(fabs(out[e]) < 1e15)) {
            return false;
        }
    }
    return true;
}

static void add_loads(du_report *r, int64_t k, int64_t step, const double *counts) {
    double sum = 0, most = 0;
    for (int64_t e = 0; e < r->n_experts; e++) {
        sum += counts[e];
        most = counts[e] > most ? counts[e] : most;
    }
    double mean = sum / (double)r->n_experts, *loads = r->loads + k * r->n_experts;
    for (int64_t e = 0; e < r->n_experts && mean > 0; e++) {
        loads[e] = memory * loads[e] + (1 - memory) * counts[e] / mean;
    }
    if (mean > 0) {
        du_series_add(&r->layers[k].overload, step, most / mean - 1);
    }
}

static void add_biases(du_report *r, int64_t k, int64_t step, const double *biases) {
    double least = biases[0], most = biases[0];
    for (int64_t e = 1; e < r->n_experts; e++) {
        least = biases[e] < least ? biases[e] : least;
        most = biases[e] > most ? biases[e] : most;
    }
    memcpy(r->biases + k * r->n_experts, biases, (size_t)r->n_experts * sizeof *biases);
    du_series_add(&r->layers[k].spread, step, most - least);
}

static void add_experts(du_report *r, int64_t step, const json_t *line) {
    const json_t *experts = json_object_get(line, "experts");
    const json_t *biases = json_object_get(line, "biases");
    if (!experts || r->failed || (!r->layers && !take_layers(r, experts))) {
        return;
    }
    double *values = du_alloc_array((size_t)r->n_experts, sizeof *values);
    r->failed = r->failed || !values;
    r->weight = memory * r->weight + (1 - memory);
    for (int64_t k = 0; k < r->n_layers && values && !r->failed; k++) {
        if (read_layer(values, r, experts, k)) {
            add_loads(r, k, step, values);
        }
        if (read_layer(values, r, biases, k)) {
            add_biases(r, k, step, values);
        }
    }
    du_free(values);
}

static void add_line(void *user, int64_t step, const json_t *line) {
    du_report *r = user;
    double v, tok_s;
    if (step > step_max) {
        return;
    }
    for (int i = 0; i < DU_REPORT_N_MEASURES; i++) {
        if (get_number(&v, line, measures[i].name)) {
            du_series_add(&r->measures[i], step, v);
        }
    }
    if (get_number(&v, line, "tokens") && v >= 0 && v < 1e18) {
        if (get_number(&tok_s, line, "tok_s") && tok_s > 0) {
            r->seconds += (v - (double)r->tokens) / tok_s;
        }
        r->tokens = (int64_t)v;
    }
    r->step = step;
    add_experts(r, step, line);
}

/* Every second one goes. */
static void thin_samples(du_report_samples *s) {
    for (int64_t i = 0; i < s->n; i++) {
        if (i % 2 == 0) {
            s->kept[i / 2] = s->kept[i];
        } else {
            json_decref(s->kept[i]);
        }
    }
    s->n = (s->n + 1) / 2;
    s->stride *= 2;
}

static void add_samples(void *user, int64_t step, const json_t *line) {
    du_report_samples *s = &((du_report *)user)->samples;
    json_t *json = json_incref((json_t *)(uintptr_t)line);
    (void)step;
    if (s->n == DU_REPORT_SAMPLES_MAX) {
        thin_samples(s);
    }
    if (s->n_lines++ % s->stride == 0) {
        s->kept[s->n++] = json_incref(json);
    }
    json_decref(s->last);
    s->last = json;
}

static void add_text(du_report *r, du_sv line, du_line_fn *fn) {
    json_t *json = NULL;
    if (du_json_parse(&json, line.s, line.len, "a line", NULL) != DU_OK) {
        r->failed = true;
        return;
    }
    fn(r, json_integer_value(json_object_get(json, "step")), json);
    json_decref(json);
}

void du_report_add(du_report *r, du_sv line) {
    add_text(r, line, add_line);
}

void du_report_add_samples(du_report *r, du_sv line) {
    add_text(r, line, add_samples);
}

static du_err read_files(du_report *r, const char *dir, du_diag *diag) {
    du_err err = DU_OK;
    r->dir = du_strdup(dir);
    r->samples.stride = 1;
    for (int i = 0; i < DU_REPORT_N_MEASURES && err == DU_OK; i++) {
        err = du_series_init(&r->measures[i], measures[i].n_bins, diag);
    }
    err = err || r->dir ? err : du_fail_nomem(diag, dir);
    err = err ? err : du_lines_read(dir, DU_METRICS_FILE, add_line, r, diag);
    err = err ? err : du_lines_read(dir, DU_SAMPLES_FILE, add_samples, r, diag);
    return err || !r->failed ? err : du_fail_nomem(diag, dir);
}

du_err du_report_open(du_report **out, const char *dir, du_diag *diag) {
    du_report *r = du_alloc_zero(1, sizeof *r);
    du_err err = r ? read_files(r, dir, diag) : du_fail_nomem(diag, dir);
    if (err != DU_OK) {
        du_report_free(r);
        return err;
    }
    *out = r;
    return DU_OK;
}

void du_report_free(du_report *r) {
    if (!r) {
        return;
    }
    for (int i = 0; i < DU_REPORT_N_MEASURES; i++) {
        du_series_done(&r->measures[i]);
    }
    for (int64_t k = 0; k < r->n_layers; k++) {
        du_series_done(&r->layers[k].overload);
        du_series_done(&r->layers[k].spread);
    }
    for (int64_t i = 0; i < r->samples.n; i++) {
        json_decref(r->samples.kept[i]);
    }
    json_decref(r->samples.last);
    du_free(r->layers);
    du_free(r->loads);
    du_free(r->biases);
    du_free(r->dir);
    du_free(r);
}

du_err du_report_write(const du_report *r, const char *path, du_diag *diag) {
    du_str html = {0};
    du_writer *w = NULL;
    du_err err = r->failed ? du_fail_nomem(diag, path) : du_report_page(&html, r, diag);
    err = err ? err : du_writer_open(&w, path, diag);
    if (err == DU_OK) {
        du_write(w, html.data, html.len);
        err = du_writer_commit(w, diag);
    }
    du_writer_close(w);
    du_str_done(&html);
    return err;
}
