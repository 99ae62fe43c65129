#include "train/expert_load.h"

#include <math.h>
#include <string.h>

bool du_expert_load_has_bias(const du_params *params) {
    for (int64_t i = 0; i < params->n; i++) {
        if (params->at[i].def->chooses) {
            return true;
        }
    }
    return false;
}

du_err du_expert_load_init(du_expert_load *load, const du_params *params, int64_t n_counts,
                           du_diag *diag) {
    int64_t n_experts = params->model->hp.router.n_expert;
    if (n_experts == 0) {
        return DU_OK;
    }
    load->told = (du_metrics_experts){.n_layers = n_counts / n_experts, .n_experts = n_experts};
    if (!du_expert_load_has_bias(params)) {
        return DU_OK;
    }
    load->biases = du_alloc_zero((size_t)n_counts, sizeof *load->biases);
    return load->biases ? DU_OK : du_fail_nomem(diag, "the trainer");
}

void du_expert_load_done(du_expert_load *load) {
    du_free(load->biases);
    *load = (du_expert_load){0};
}

void du_expert_load_balance(du_params *params, const int64_t *counts, double step) {
    for (int64_t k = 0; k < params->n && step > 0; k++) {
        const du_param *bias = &params->at[k];
        if (!bias->def->chooses) {
            continue;
        }
        float *values = params->values + bias->offset;
        const int64_t *count = counts + bias->layer * bias->cols;
        int64_t sum = 0;
        for (int64_t e = 0; e < bias->cols; e++) {
            sum += count[e];
        }
        for (int64_t e = 0; e < bias->cols; e++) {
            int64_t share = count[e] * bias->cols;
            values[e] += share > sum ? -(float)step : share < sum ? (float)step : 0;
        }
    }
}

double du_expert_load_overload(const du_params *params, const int64_t *counts) {
    const du_hparams *hp = &params->model->hp;
    double sum = 0;
    int64_t n = 0;
    for (int64_t layer = hp->n_dense_layer; counts && layer < hp->n_layer; layer++) {
        const int64_t *count = counts + layer * hp->router.n_expert;
        int64_t all = 0, most = 0;
        for (int64_t e = 0; e < hp->router.n_expert; e++) {
            all += count[e];
            most = count[e] > most ? count[e] : most;
        }
        sum += (double)most * (double)hp->router.n_expert / (double)all - 1;
        n++;
    }
    return n > 0 ? sum / (double)n : (double)NAN;
}

const du_metrics_experts *du_expert_load_tell(du_expert_load *load, const du_params *params,
                                              const int64_t *counts, int64_t step) {
    if (load->told.n_experts == 0 || !du_metrics_has_experts(step)) {
        return NULL;
    }
    for (int64_t k = 0; k < params->n && load->biases; k++) {
        const du_param *bias = &params->at[k];
        if (bias->def->chooses) {
            memcpy(load->biases + bias->layer * bias->cols, params->values + bias->offset,
                   (size_t)bias->cols * sizeof(float));
        }
    }
    load->told.counts = counts;
    load->told.biases = load->biases;
    return &load->told;
}
