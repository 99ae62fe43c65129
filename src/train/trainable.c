/* The shape of a new model goes the way that of a checkpoint goes, through config.json; adapters
 * have none, they open the model that they change. Keys are compared with the model here, and not
 * where they are read, since init alone may say what it is. */
#include "train/trainable.h"

#include "base/json.h"
#include "model/convert.h"
#include "model/grad.h"
#include "model/lora.h"
#include "train/expert_load.h"

/* config.json of what init names. */
static du_err shape_of_init(json_t **out, const char *init, du_diag *diag) {
    du_model *model = NULL;
    du_err err = du_model_open(&model, init, diag);
    err = err ? err : du_convert_config(out, model, diag);
    du_model_close(model);
    return err;
}

/* Written and read once, as a continued run reads it from a checkpoint: numbers that config.json
 * says with fewer digits are the same from the first step on. */
static du_err shape_of_keys(json_t **out, const json_t *keys, du_diag *diag) {
    du_params *params = NULL;
    du_err err = du_params_new(&params, keys, diag);
    err = err ? err : du_convert_config(out, params->model, diag);
    du_params_free(params);
    if (err != DU_OK) {
        du_diag_context(diag, "model.*");
    }
    return err;
}

du_err du_trainable_shape(json_t **out, const du_train_config *config, du_diag *diag) {
    json_t *shape = NULL;
    if (config->lora.rank > 0) {
        *out = NULL;
        return DU_OK;
    }
    du_err err = *config->init ? shape_of_init(&shape, config->init, diag)
                               : shape_of_keys(&shape, config->model, diag);
    if (err != DU_OK) {
        return err;
    }
    json_t *n = json_integer(config->mtp.weight > 0);
    if (json_object_set_new(shape, "num_nextn_predict_layers", n) != 0) {
        json_decref(shape);
        return du_fail_nomem(diag, "config.json");
    }
    *out = shape;
    return DU_OK;
}

static bool is_target(const void *user, const char *module) {
    const du_train_config *config = user;
    return du_lora_is_target(config->lora.targets, module);
}

static bool moves_biases(const void *user, const char *module) {
    (void)module;
    const du_train_config *config = user;
    return config->router.bias_step > 0;
}

/* Leaves the first n layers of the trunk, and none behind it. */
static void cut(du_model *model, int64_t n) {
    if (n < model->hp.n_layer) {
        model->hp.n_layer = n;
        model->hp.n_nextn = 0;
    }
}

/* The adapters of init's model, which stays in its files. */
static du_err new_adapters(du_params **out, const du_train_config *config, const json_t *shape,
                           du_diag *diag) {
    double alpha = du_train_config_lora_alpha(config);
    du_lora lora = {.rank = config->lora.rank,
                    .scale = alpha / (double)config->lora.rank,
                    .wants = is_target,
                    .user = config,
                    .wants_bias = moves_biases,
                    .next = config->mtp.weight > 0};
    du_model *model = NULL;
    du_params *params = NULL;
    du_err err = du_model_open(&model, config->init, diag);
    if (err == DU_OK && shape) {
        cut(model, json_integer_value(json_object_get(shape, "num_hidden_layers")));
    }
    err = err ? err : du_lora_new(&params, model, &lora, diag);
    if (err == DU_OK && !shape) {
        err = du_lora_check_targets(config->lora.targets, params, diag);
    }
    if (err != DU_OK) {
        du_params_free(params);
        return err;
    }
    *out = params;
    return DU_OK;
}

du_err du_trainable_new(du_params **out, const du_train_config *config, const json_t *shape,
                        du_diag *diag) {
    return config->lora.rank > 0 ? new_adapters(out, config, shape, diag)
                                 : du_params_new(out, shape, diag);
}

/* What ranks.experts = spread does not go with. */
static du_err check_spread(const du_params *params, int64_t n, du_diag *diag) {
    int64_t E = params->model->hp.router.n_expert;
    if (params->adapters) {
        return du_fail(
            diag, DU_EUNSUPPORTED,
            "ranks.experts = spread: not with lora.rank, whose frozen experts lie in the "
            "file that processes share; leave ranks.experts at whole");
    }
    if (E == 0) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "ranks.experts = spread: the model has no experts; leave it at whole");
    }
    if (n > E) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "ranks.experts = spread: %lld processes, but %lld experts in a layer: start "
                       "at most %lld (mpirun -n), or set ranks.experts to whole",
                       (long long)n, (long long)E, (long long)E);
    }
    return DU_OK;
}

du_err du_trainable_check(const du_params *params, const du_train_config *config, int64_t n_parts,
                          du_diag *diag) {
    const du_hparams *hp = &params->model->hp;
    if (config->mtp.weight > 0 && params->n_nextn == 0 && params->adapters) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "mtp.weight: %s has no block that predicts one token further, and adapters "
                       "cannot make one",
                       config->init);
    }
    if (config->mtp.weight > 0 && params->n_nextn == 0) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "mtp.weight: a %s model has no block that predicts one token further "
                       "(deepseek_v2 and deepseek_v3 have)",
                       params->model->arch->name);
    }
    if (config->router.bias_step > 0 && !du_expert_load_has_bias(params)) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "router.bias_step: the model has no bias that chooses experts");
    }
    if (config->router.seq_balance > 0 && hp->router.n_expert == 0) {
        return du_fail(diag, DU_EUNSUPPORTED, "router.seq_balance: the model has no experts");
    }
    if (config->seq_len > hp->n_ctx_train) {
        return du_fail(diag, DU_EUNSUPPORTED,
                       "seq_len = %lld: longer than max_position_embeddings = %lld",
                       (long long)config->seq_len, (long long)hp->n_ctx_train);
    }
    du_err err = n_parts > 0 ? check_spread(params, n_parts, diag) : DU_OK;
    return err ? err : du_grad_check(params, diag);
}

static du_err load_init(du_params *params, const char *init, du_diag *diag) {
    du_model *model = NULL;
    du_err err = du_model_open(&model, init, diag);
    err = err ? err : du_params_load(params, model, diag);
    du_model_close(model);
    return err;
}

du_err du_trainable_begin(du_params *params, const du_train_config *config, du_diag *diag) {
    double deviation = 0.006; /* of DeepSeek-V3 (arXiv 2412.19437, section 4.2) */
    if (config->lora.rank > 0) {
        du_lora_init(params, (uint64_t)config->seed);
        return DU_OK;
    }
    du_err err = du_json_get_f64(config->model, "initializer_range", &deviation, diag);
    if (err == DU_OK) {
        du_params_init(params, deviation, (uint64_t)config->seed);
        err = *config->init ? load_init(params, config->init, diag) : DU_OK;
    }
    return err;
}
