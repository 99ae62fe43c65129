/* What a report has read (report.c), for its page (report_page.c, report_figures.c). */
#ifndef DU_TRAIN_REPORT_INT_H
#define DU_TRAIN_REPORT_INT_H

#include "plot/series.h"
#include "train/metrics.h"
#include "train/report.h"

#define DU_REPORT_ENUM(name, tag, n_points) DU_REPORT_##name,
enum { DU_METRICS_LIST(DU_REPORT_ENUM) DU_REPORT_N_MEASURES };
#undef DU_REPORT_ENUM

/* A layer with experts. */
typedef struct {
    int64_t layer;
    du_series overload; /* most over mean, less 1 */
    du_series spread;   /* of biases: the largest less the least */
} du_report_layer;

/* Of samples.jsonl: every stride-th line, and the last one. */
enum { DU_REPORT_SAMPLES_MAX = 24 };
typedef struct {
    json_t *kept[DU_REPORT_SAMPLES_MAX], *last;
    int64_t n, stride, n_lines;
} du_report_samples;

struct du_report {
    char *dir;
    int64_t step, tokens; /* of the last line */
    double seconds;       /* that steps took */
    du_series measures[DU_REPORT_N_MEASURES];
    du_report_layer *layers; /* [n_layers] */
    int64_t n_layers, n_experts;
    double *loads;  /* [n_layers, n_experts]: mean of a share of choices times n_experts */
    double *biases; /* [n_layers, n_experts]; NAN: none */
    double weight;  /* of all in `loads`, for the mean */
    du_report_samples samples;
    bool failed; /* memory was short */
};

static inline const du_series *du_report_measure(const du_report *r, int i) {
    return &r->measures[i];
}

/* Appends curves and, where there are some, what is known of experts (report_figures.c). */
void du_report_figures(du_str *html, const du_report *report);

/* Appends the page. Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_report_page(du_str *html, const du_report *report, du_diag *diag);

#endif
