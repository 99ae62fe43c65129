#include "train/same.h"

#include <string.h>

#include "base/hash.h"
#include "model/lora.h"
#include "train/config_int.h"

typedef struct {
    char version[32];
    int32_t isa, gemm_f32, gemm_bf16;
} program;

/* A level whose kinds of products every processor has that has either level. */
static const char *common_level(const program *a, const program *b) {
    bool wide = (a->isa == DU_ISA_AVX2 || a->isa == DU_ISA_AVX512) &&
                (b->isa == DU_ISA_AVX2 || b->isa == DU_ISA_AVX512);
    return du_isa_name(wide ? DU_ISA_AVX2 : DU_ISA_C);
}

static du_err compare_programs(const program *own, const program *first, du_diag *diag) {
    static const char *const kinds[] = {[DU_GEMM_F32] = "F32",
                                        [DU_GEMM_F32_TILES] = "F32 in tiles (AMX)",
                                        [DU_GEMM_BF16] = "BF16",
                                        [DU_GEMM_BF16_TILES] = "BF16 in tiles (AMX)"};
    if (memcmp(own->version, first->version, sizeof own->version) != 0) {
        return du_fail(diag, DU_EINVAL, "is dure %s, rank 0 is dure %s: all must be the same",
                       own->version, first->version);
    }
    if (own->isa == first->isa && own->gemm_f32 == first->gemm_f32 &&
        own->gemm_bf16 == first->gemm_bf16) {
        return DU_OK;
    }
    return du_fail(diag, DU_EINVAL,
                   "computes with %s kernels, products %s and %s, rank 0 with %s, %s and %s: start "
                   "all with --isa %s",
                   du_isa_name((du_isa)own->isa), kinds[own->gemm_f32], kinds[own->gemm_bf16],
                   du_isa_name((du_isa)first->isa), kinds[first->gemm_f32], kinds[first->gemm_bf16],
                   common_level(own, first));
}

du_err du_same_program(du_ranks *ranks, const du_kern *kern, du_diag *diag) {
    program own = {.version = DURE_VERSION,
                   .isa = (int32_t)kern->isa,
                   .gemm_f32 = (int32_t)kern->gemm_f32,
                   .gemm_bf16 = (int32_t)kern->gemm_bf16};
    program first = own;
    du_err err = du_ranks_take_first(ranks, &first, sizeof first, diag);
    err = err ? err : compare_programs(&own, &first, diag);
    return du_ranks_agree(ranks, err, diag);
}

/* sums [du_train_n_keys], of the keys' values. */
static du_err sum_keys(uint64_t *sums, const du_train_config *config, du_diag *diag) {
    du_str value = {0};
    du_err err = DU_OK;
    for (size_t i = 0; i < du_train_n_keys && err == DU_OK; i++) {
        du_str_reset(&value);
        du_train_key_value(&value, config, &du_train_keys[i]);
        du_sv text = du_str_view(&value);
        sums[i] = du_checksum(text.len, text.s, text.len);
        err = value.failed ? du_fail_nomem(diag, "the configuration") : DU_OK;
    }
    du_str_done(&value);
    return err;
}

static du_err fail_key(const du_train_config *config, const du_train_key *key, du_diag *diag) {
    du_str value = {0};
    du_train_key_value(&value, config, key);
    du_err err = du_fail(diag, DU_EINVAL,
                         "%s is '%s', which it is not at rank 0: CONFIG and --set must be the same "
                         "for all",
                         key->name, du_str_get(&value));
    du_str_done(&value);
    return err;
}

du_err du_same_config(du_ranks *ranks, const du_train_config *config, du_diag *diag) {
    uint64_t own[DU_TRAIN_KEYS_MAX], first[DU_TRAIN_KEYS_MAX];
    size_t n_bytes = du_train_n_keys * sizeof *own;
    du_err err = du_ranks_agree(ranks, sum_keys(own, config, diag), diag);
    if (err != DU_OK) {
        return err;
    }
    memcpy(first, own, n_bytes);
    err = du_ranks_take_first(ranks, first, n_bytes, diag);
    for (size_t i = 0; i < du_train_n_keys && err == DU_OK; i++) {
        err = own[i] == first[i] ? DU_OK : fail_key(config, &du_train_keys[i], diag);
    }
    return du_ranks_agree(ranks, err, diag);
}

/* Of what all ranks have, and of the frozen model below adapters. */
static uint64_t sum_weights(const du_params *params) {
    uint64_t sum = params->adapters ? du_lora_base_sum(params) : 0;
    int64_t n = du_params_is_spread(params) ? params->n_common : params->n_values;
    return du_checksum(sum, params->values, (size_t)n * sizeof(float));
}

typedef struct {
    int64_t step;
    uint64_t data, validation, weights;
} start;

static du_err fail_data(const char *key, const char *path, du_diag *diag) {
    return du_fail(diag, DU_EINVAL, "%s = %s: is not what it is at rank 0", key, path);
}

static du_err compare_starts(const du_train_config *config, const start *own, const start *first,
                             du_diag *diag) {
    bool shards = *config->data.shards != '\0';
    if (own->step != first->step) {
        return du_fail(diag, DU_EINVAL,
                       "%s: ranks find other checkpoints there: it must be the same folder for all",
                       config->out);
    }
    if (own->data != first->data) {
        return fail_data(shards ? "data.shards" : "data.tokens",
                         shards ? config->data.shards : config->data.tokens, diag);
    }
    if (own->validation != first->validation) {
        return fail_data("data.validation", config->data.validation, diag);
    }
    return own->weights == first->weights
               ? DU_OK
               : du_fail(diag, DU_EINVAL,
                         "the weights to begin with are not those of rank 0: init and out must "
                         "name the same files for all");
}

du_err du_same_start(const du_trainer *t, du_diag *diag) {
    if (!t->ranks) {
        return DU_OK;
    }
    const du_passes *p = &t->passes;
    start own = {.step = t->step,
                 .data = du_loader_checksum(p->data),
                 .validation = p->validation ? du_loader_checksum(p->validation) : 0,
                 .weights = sum_weights(t->params)};
    start first = own;
    du_err err = du_ranks_take_first(t->ranks, &first, sizeof first, diag);
    err = err ? err : compare_starts(t->config, &own, &first, diag);
    return du_ranks_agree(t->ranks, err, diag);
}
