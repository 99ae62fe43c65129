/* Low-rank adapters of a frozen model (Hu et al. 2021, arXiv 2106.09685): y = W x + s B A x with A
 * [r,K] and B [N,r] of any of its linear layers but the router and the output matrix. The model
 * stays as it lies in its files, in whatever number types; only A and B are values that training
 * changes, so gradients, moments and checkpoints are those of a small du_params. Where routers'
 * biases are balanced too they are values beside them, of which the model uses the changed copies.
 *
 * On the disk an adapter is what the peft library writes and reads: adapter_config.json and
 * adapter_model.safetensors with base_model.model.MODULE.lora_A.weight and .lora_B.weight, MODULE
 * being Hugging Face's name of the layer, rows in Hugging Face's order. Routers with a bias of
 * their own are in its modules_to_save, as whole modules: the bias, and the matrix as it was. */
#ifndef DU_MODEL_LORA_H
#define DU_MODEL_LORA_H

#include "formats/safetensors.h"
#include "model/params.h"

enum { DU_LORA_RANK_MAX = 4096 };

/* Which layers get an adapter, and what it is. */
typedef struct {
    int64_t rank;
    double scale; /* s: alpha / rank */
    /* Is it wanted for the module "model.layers.0.self_attn.q_proj"? NULL: for none */
    bool (*wants)(const void *user, const char *module);
    const void *user;
    /* Is the bias of the router "model.layers.1.mlp.gate" changed? NULL: none is */
    bool (*wants_bias)(const void *user, const char *module);
    bool next; /* layers behind the trunk are computed and can have adapters */
} du_lora;

/* Adapters of zeros over a model, which is taken over, also on failure. Where a file holds keys and
 * values of latent attention apart (attn_k_b, attn_v_b), the one matrix that training wants of both
 * is made from them, F32, in memory.
 * out  free with du_params_free; untouched on failure
 * Returns DU_OK, DU_ENOMEM. */
DU_NODISCARD
du_err du_lora_new(du_params **out, du_model *model, const du_lora *lora, du_diag *diag);

/* A: uniform in +-1/sqrt(K), as the peft library has it (He et al. 2015 with a = sqrt(5)); B: 0;
 * biases stay. A tensor's numbers depend on the seed and its name alone. */
void du_lora_init(du_params *params, uint64_t seed);

/* Does a list of names, separated by commas, choose the module? A name does that is the module's or
 * its end behind a dot, as in the peft library's target_modules; "all-linear" and an empty list
 * choose all. */
bool du_lora_is_target(const char *targets, const char *module);

/* Every name of the list chooses at least one of the modules with adapters. Returns DU_OK,
 * DU_EINVAL naming one that does not. */
DU_NODISCARD
du_err du_lora_check_targets(const char *targets, const du_params *params, du_diag *diag);

/* Calls fn for every matrix that passes compute with, routers too, a tied output matrix not, until
 * it returns false; it may change *mat, which has an adapter or not. Returns what fn did last. */
typedef bool du_lora_mat_fn(void *user, const du_weight_def *def, int64_t layer, du_mat *mat);
bool du_lora_each_matrix(const du_params *params, du_lora_mat_fn *fn, void *user);

/* Writes the two files into dir, which exists. base: the name of the frozen model, targets as
 * above: both are for adapter_config.json. Returns DU_OK, DU_EIO, DU_ENOMEM. */
DU_NODISCARD
du_err du_lora_write(const du_params *params, const char *dir, const char *base,
                     const char *targets, double alpha, du_diag *diag);

/* An adapter on the disk. */
typedef struct {
    du_lora lora; /* wants what the file holds; valid where this struct is not moved */
    du_st *st;
} du_lora_file;

/* Opens a directory with the two files. out: for du_lora_file_close; empty on failure.
 * Returns DU_OK, DU_ENOENT, DU_EIO, DU_EFORMAT, DU_EUNSUPPORTED (what changes the meaning of an
 * adapter and is not computed here: rank_pattern, alpha_pattern, DoRA, biases, ...), DU_ELIMIT,
 * DU_ENOMEM. */
DU_NODISCARD
du_err du_lora_file_open(du_lora_file *out, const char *dir, du_diag *diag);
void du_lora_file_close(du_lora_file *file);

/* The values of all adapters and biases. Returns DU_OK, DU_EFORMAT (a tensor is missing, of another
 * shape or type, not finite, or of no linear layer of the model; a router's matrix is not that of
 * the model), DU_ENOMEM. */
DU_NODISCARD
du_err du_lora_load(du_params *params, const du_lora_file *file, du_diag *diag);

/* Tells files of a frozen model from others: a checksum of names, types, sizes, and the first and
 * last few kilobytes of every tensor. */
uint64_t du_lora_base_sum(const du_params *params);

/* Folds adapters of matrices that the architecture derives others from (kv_b of latent attention)
 * into those, F32 in memory, and derives them again, so that du_convert_gguf writes the sum. (All
 * others it adds on the way.) Returns DU_OK, DU_ENOMEM, and the errors of an architecture's finish.
 */
DU_NODISCARD
du_err du_lora_fold_derived(du_params *params, du_diag *diag);

/* The frozen model with all adapters in its matrices, F32 in memory where there is one, and with
 * the routers' biases: to be asked as any model. Bytes that these matrices take.
 * out     untouched on failure; free with du_model_close
 * params  freed, also on failure; then its model too
 * Returns as above. */
size_t du_lora_folded_bytes(const du_params *params);
DU_NODISCARD
du_err du_lora_fold(du_model **out, du_params *params, du_diag *diag);

#endif
