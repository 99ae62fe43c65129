/* What a MODEL argument names - a GGUF file, a Hugging Face directory, or, left out, the built-in
 * model - opened as far as a command needs it. */
#ifndef DU_CLI_SOURCE_H
#define DU_CLI_SOURCE_H

#include "base/err.h"
#include "formats/gguf.h"
#include "formats/hf.h"
#include "text/tokenizer.h"

/* The container alone: one of the two is not NULL. */
typedef struct {
    du_gguf *gguf;
    du_hf *hf;
} du_cli_files;

/* model may be NULL: the built-in one. A directory needs tokenizer files only.
 * Returns the errors of du_gguf_open and du_hf_open; DU_ENOENT when there is no built-in model. */
DU_NODISCARD
du_err du_cli_files_open(du_cli_files *out, const char *model, du_diag *diag);
void du_cli_files_close(du_cli_files *files);

/* The tokenizer of a MODEL; free with du_tokenizer_free. The errors of du_cli_files_open, and of
 * the tokenizer. */
DU_NODISCARD
du_err du_cli_tokenizer_open(du_tokenizer **out, const char *model, du_diag *diag);

/* The built-in model's bytes. DU_ENOENT, naming the next step, when the program has none. */
DU_NODISCARD
du_err du_cli_default_bytes(const uint8_t **bytes, size_t *len, du_diag *diag);
extern const char du_cli_default_name[]; /* what messages call it */

#endif
