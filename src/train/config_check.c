/* What one key cannot tell: those that are missing, or do not go together. */
#include "model/arch.h"
#include "train/config.h"
#include "train/qat.h"

static du_err missing(const char *what, du_diag *diag) {
    return du_fail(diag, DU_EINVAL, "%s (`dure train --keys` lists the keys)", what);
}

double du_train_config_lora_alpha(const du_train_config *config) {
    return config->lora.alpha > 0 ? config->lora.alpha : 2 * (double)config->lora.rank;
}

static du_err check_lora(const du_train_config *config, du_diag *diag) {
    bool given = *config->lora.targets || config->lora.alpha > 0;
    bool other = *config->sample.prompt && *config->tokenizer;
    const char *wrong = *config->init == '\0' ? "it needs init, the model to adapt"
                        : other ? "sample.prompt is asked with init's own tokenizer: leave out "
                                  "tokenizer"
                                : NULL;
    if (config->lora.rank == 0) {
        return given ? missing("lora.rank is missing: lora.alpha and lora.targets go with it", diag)
                     : DU_OK;
    }
    return wrong ? du_fail(diag, DU_EINVAL, "lora.rank: %s", wrong) : DU_OK;
}

/* model.* make a model's shape, as far as they are needed. Who asks for experts does not get a
 * model without. */
static du_err check_model(const du_train_config *config, du_diag *diag) {
    const du_arch *arch;
    du_hparams hp;
    du_diag why;
    du_diag_reset(&why);
    du_err err = du_arch_read_hf(&arch, &hp, config->model, &why);
    if (err != DU_OK) {
        return du_fail(diag, err == DU_ENOMEM ? DU_ENOMEM : DU_EINVAL, "model.*: %s", why.msg);
    }
    const json_t *experts = json_object_get(config->model, "n_routed_experts");
    if (hp.router.n_expert == 0 && json_integer_value(experts) > 0) {
        return du_fail(diag, DU_EINVAL,
                       "model.n_routed_experts = %lld: a model of model.arch = %s has none",
                       (long long)json_integer_value(experts),
                       json_string_value(json_object_get(config->model, "model_type")));
    }
    return DU_OK;
}

du_err du_train_config_check(const du_train_config *config, du_diag *diag) {
    bool tokens = *config->data.tokens != '\0', shards = *config->data.shards != '\0';
    if (*config->init == '\0' && !json_object_get(config->model, "model_type")) {
        return missing("neither init nor model.arch says what to train", diag);
    }
    if (*config->init != '\0' && json_object_size(config->model) > 0) {
        return du_fail(diag, DU_EINVAL,
                       "init and model.* are both given: init says what the model is");
    }
    if (*config->out == '\0') {
        return missing("out is missing: the folder for checkpoints", diag);
    }
    if (config->steps == 0) {
        return missing("steps is missing", diag);
    }
    if (tokens == shards) {
        return missing(tokens ? "data.tokens and data.shards are both given"
                              : "neither data.tokens nor data.shards is given",
                       diag);
    }
    if (config->schedule.batch_steps == 0 && config->schedule.batch_from > 1) {
        return du_fail(diag, DU_EINVAL,
                       "schedule.batch_from = %lld: does nothing without schedule.batch_steps, in "
                       "how many steps they grow to accumulate: set it too",
                       (long long)config->schedule.batch_from);
    }
    if (config->spike.factor > 0 && config->spike.factor <= 1) {
        return du_fail(diag, DU_EINVAL,
                       "spike.factor = %g: any loss would be a spike: takes more than 1, or 0 for "
                       "never",
                       config->spike.factor);
    }
    if (config->schedule.batch_steps > 0 && config->schedule.batch_from > config->accumulate) {
        return du_fail(diag, DU_EINVAL, "schedule.batch_from = %lld: more than accumulate = %lld",
                       (long long)config->schedule.batch_from, (long long)config->accumulate);
    }
    if (config->data.token_bytes == 3) {
        return du_fail(diag, DU_EINVAL, "data.token_bytes = 3: takes 2 or 4");
    }
    du_err err = *config->init ? DU_OK : check_model(config, diag);
    err = err == DU_OK && *config->qat.type ? du_qat_check_type(config->qat.type, diag) : err;
    return err ? err : check_lora(config, diag);
}
