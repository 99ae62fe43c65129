/* The configuration of a training run: lines `key = value` with dotted keys and `#` comments, every
 * key also as --set key=value. One table (config_keys.c) gives parsing, defaults, `dure train
 * --keys`, what a checkpoint keeps of it, and what may not change between a run and its
 * continuation.
 *
 *     config.c         values of keys, from and to texts
 *     config_file.c    lines of files
 *     config_check.c   what keys must be given, and go together
 *     config_list.c    the keys, for people and programs */
#ifndef DU_TRAIN_CONFIG_H
#define DU_TRAIN_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

typedef enum { DU_TRAIN_F32, DU_TRAIN_BF16 } du_train_dtype;
typedef enum { DU_ORDER_SEQUENTIAL, DU_ORDER_SHUFFLED } du_train_order;
typedef enum { DU_OPTIM_ADAMW, DU_OPTIM_SGD, DU_OPTIM_MUON } du_optim_name;
typedef enum { DU_MUON_MOONLIGHT, DU_MUON_ORIGINAL } du_muon_scale;
typedef enum { DU_DECAY_ALL, DU_DECAY_MATRICES } du_decay;
typedef enum {
    DU_SCHEDULE_CONSTANT,
    DU_SCHEDULE_LINEAR,
    DU_SCHEDULE_COSINE,
    DU_SCHEDULE_WSD,
    DU_SCHEDULE_DEEPSEEK_V3
} du_schedule_name;
typedef enum { DU_RECOMPUTE_NONE, DU_RECOMPUTE_CHEAP, DU_RECOMPUTE_LAYER } du_recompute;

typedef enum { DU_EXPERTS_WHOLE, DU_EXPERTS_SPREAD } du_ranks_experts;

/* The fields are the keys of config_keys.c; texts are owned, "" when not given. */
typedef struct {
    char *init, *out, *tokenizer;
    json_t *model; /* model.*: an object as config.json has it; model.arch is its model_type */
    int64_t steps, seq_len, batch_seqs, accumulate, seed;
    int dtype, recompute;
    struct {
        char *tokens, *shards, *validation;
        int64_t token_bytes;
        int order;
    } data;
    struct {
        int name, decay, muon_scale;
        double lr, beta1, beta2, eps, weight_decay, clip, momentum;
    } optim;
    struct {
        int name;
        int64_t warmup_steps, decay_steps, batch_from, batch_steps;
        double final;
    } schedule;
    struct {
        double bias_step, seq_balance;
    } router;
    struct {
        double weight;
    } mtp;
    struct {
        double z, label_smoothing;
    } loss;
    struct {
        double decay;
    } ema;
    struct {
        char *type;
    } qat;
    struct {
        int64_t rank;
        double alpha;
        char *targets;
    } lora;
    struct {
        int experts;
    } ranks;
    struct {
        int64_t every, keep;
    } checkpoint;
    struct {
        int64_t every, batches;
    } validate;
    struct {
        double factor;
        int64_t steps;
    } spike;
    struct {
        char *prompt;
        int64_t tokens;
    } sample;
} du_train_config;

/* Everything at its default. Returns DU_OK, DU_ENOMEM. Free with du_train_config_done. */
DU_NODISCARD
du_err du_train_config_init(du_train_config *config, du_diag *diag);
void du_train_config_done(du_train_config *config);

/* Sets one key. `where` begins messages ("train.conf:7", "--set").
 * Returns DU_OK, DU_EINVAL (an unknown key: names the nearest; a value that the key does not take:
 * says which it takes), DU_ENOMEM. */
DU_NODISCARD
du_err du_train_config_set(du_train_config *config, du_sv key, du_sv value, const char *where,
                           du_diag *diag);

/* "key=value" of a command line. */
DU_NODISCARD
du_err du_train_config_set_pair(du_train_config *config, const char *pair, du_diag *diag);

/* The lines of a file (du_train_config_set). A key given twice in one file is an error. Also the
 * errors of du_stream_read. */
DU_NODISCARD
du_err du_train_config_read(du_train_config *config, const char *path, du_diag *diag);

/* What one key cannot tell: that steps, out and one source of data are given, and either init or
 * model.*, which make a model's shape; that there is such a qat.type. Returns DU_OK, DU_ENOMEM, or
 * DU_EINVAL naming the key. */
DU_NODISCARD
du_err du_train_config_check(const du_train_config *config, du_diag *diag);

/* lora.alpha, or what it is where it is not given: 2 lora.rank. */
double du_train_config_lora_alpha(const du_train_config *config);

/* The keys that alter results and are not at their default, as {key: text of the value}: what a
 * checkpoint keeps. NULL when memory is short. */
json_t *du_train_config_kept(const du_train_config *config);

/* The same of all keys that are not at their default. */
json_t *du_train_config_given(const du_train_config *config);

/* Sets the keys of such an object. `where` begins messages. Returns DU_OK, DU_EINVAL (no such key
 * or value), DU_ENOMEM. */
DU_NODISCARD
du_err du_train_config_take(du_train_config *config, const json_t *kept, const char *where,
                            du_diag *diag);

/* Compares with the configuration a run was begun with: the first key whose change alters results
 * (lengths, seeds, data, number types, the optimizer's) is an error that names both values. Keys as
 * steps, checkpoint.every and checkpoint.keep may change. Returns DU_OK, DU_EINVAL, DU_ENOMEM. */
DU_NODISCARD
du_err du_train_config_same_run(const du_train_config *now, const du_train_config *begun,
                                du_diag *diag);

/* Appends the list of keys: name, default, unit and meaning, at most 80 columns wide. */
void du_train_config_help(du_str *out);

/* The list as an array of {key, type, default, unit, help}; NULL when memory is short. */
json_t *du_train_config_json(void);

#endif
