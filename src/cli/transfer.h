/* Writing a model into another file: what convert, quantize and merge share. */
#ifndef DU_CLI_TRANSFER_H
#define DU_CLI_TRANSFER_H

#include "base/opt.h"
#include "cli/cli.h"
#include "cli/out.h"
#include "formats/companions.h"
#include "model/convert.h"
#include "text/tokenizer.h"

typedef struct {
    const du_model *model;   /* the source */
    const char *output;      /* ends in .gguf: a file; else a directory */
    const char *label;       /* of the progress bar */
    du_choose_fn *choose;    /* NULL: every tensor keeps its type */
    const void *choose_user; /* its argument */
    du_importance_fn *importance;
    const void *importance_user;
    int64_t file_type; /* general.file_type of GGUF; -1: none is written */
    int64_t n_threads; /* 0: the physical cores */
} du_cli_transfer;

/* Writes weights, hyper-parameters, tokenizer, chat templates and generation settings; a progress
 * bar on a terminal. Nothing under the final name after a failure or an interrupt.
 * Returns the errors of du_convert_gguf and du_convert_hf, DU_ECANCELLED, and those of reading the
 * source's other files. */
DU_NODISCARD
du_err du_cli_transfer_run(const du_cli_transfer *t, du_convert_stats *stats, du_diag *diag);

/* Whether a model may be written to OUT: a type that GGUF files alone have needs one, a directory
 * is no file, and OUT is not the input. in: what the usage calls that; gguf_type: NULL where
 * safetensors have the type. */
du_cli_status du_cli_transfer_check(const char *in, const char *input, const char *output,
                                    const char *gguf_type, du_diag *diag);

/* What goes with the weights: out of the directory, or made from a GGUF file's keys. Returns the
 * errors of the tokenizer and of reading. */
DU_NODISCARD
du_err du_cli_companions_of(du_companions *c, const du_weights *files, du_diag *diag);

/* What a folder with a tokenizer has of such files, and the tokens that begin and end. Returns the
 * errors of du_tokenizer_from_dir and of reading. */
DU_NODISCARD
du_err du_cli_companions_of_dir(du_companions *c, const char *dir, du_diag *diag);

/* {"Q4_K": bytes, ...} of what was written; NULL when memory is short. */
json_t *du_cli_json_types(const du_convert_stats *stats);

bool du_cli_is_gguf_name(const char *path);

#endif
