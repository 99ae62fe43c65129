/* A language model as people use it: weights, tokenizer, chat template and sampling defaults,
 * opened from one path. */
#ifndef DU_INFER_LM_H
#define DU_INFER_LM_H

#include "infer/sampler.h"
#include "model/model.h"
#include "text/chat.h"
#include "text/tokenizer.h"

typedef struct {
    du_model *model;
    du_tokenizer *tok;          /* NULL only after du_lm_open_ids */
    du_chat *chat;              /* NULL: the files hold no chat template */
    char *chat_source;          /* its text; NULL with chat */
    du_sampler_params sampling; /* what the files recommend, else the defaults below */
} du_lm;

/* Where no file says otherwise: temperature 0.6, top-p 0.95, as DeepSeek-R1's card recommends.
 * Penalties never come from a file. */
#define DU_LM_TEMPERATURE 0.6
#define DU_LM_TOP_P       0.95

/* Opens a GGUF file or a Hugging Face directory.
 * out  new handle, free with du_lm_close; untouched on failure
 * Returns the errors of du_model_open, the tokenizer's and the chat template's. A template that
 * dure cannot parse leaves chat NULL with chat_source set: asking for a chat then says why. */
DU_NODISCARD
du_err du_lm_open(du_lm **out, const char *path, du_diag *diag);

/* The same for work with token ids alone: where a directory has no tokenizer.json (a checkpoint of
 * training without one), tok is NULL; such a model's answers are ids, without text or an end. */
DU_NODISCARD
du_err du_lm_open_ids(du_lm **out, const char *path, du_diag *diag);

/* As du_lm_open for one GGUF file in memory, borrowed until the close; what names it in messages.
 */
DU_NODISCARD
du_err du_lm_open_memory(du_lm **out, const void *bytes, size_t len, const char *what,
                         du_diag *diag);
void du_lm_close(du_lm *lm); /* takes NULL */

/* A container's chat template by name ("default"), borrowed from it; out->s NULL: there is none.
 * One of g and hf is NULL. Returns DU_OK, DU_EFORMAT. */
DU_NODISCARD
du_err du_lm_find_template(const du_gguf *g, const du_hf *hf, const char *name, du_sv *out,
                           du_diag *diag);

/* How a container recommends to sample, over the defaults above: generation_config.json (greedy
 * where do_sample is false), or the keys general.sampling.* of GGUF. One of g and hf is NULL.
 * Returns DU_OK, DU_EFORMAT. */
DU_NODISCARD
du_err du_lm_read_sampling(du_sampler_params *out, const du_gguf *g, const du_hf *hf,
                           du_diag *diag);

enum { DU_LM_END_TOKENS_MAX = 64 }; /* no published model has more than five */

/* The end tokens that config.json and generation_config.json name, the first max of them into ids.
 * Returns how many. */
int64_t du_lm_end_tokens(const du_hf *hf, int32_t *ids, int64_t max);

/* The variables a template gets: those of vars (may be NULL), and bos_token, eos_token, pad_token
 * and unk_token where vars has none. A new object; NULL when memory is short. */
json_t *du_lm_template_vars(const du_tokenizer *tok, const json_t *vars);

/* Replaces the chat template. text is copied. Returns the errors of du_chat_open. */
DU_NODISCARD
du_err du_lm_set_template(du_lm *lm, const char *text, size_t len, const char *name, du_diag *diag);

/* Renders messages with the chat template and appends the prompt's ids (BOS exactly once).
 * messages     array of {"role", "content"}
 * tools, vars  may be NULL; vars gets bos_token and eos_token
 * prompt       the rendered text, appended; its end tells where reasoning starts (text/reasoning.h)
 * Returns DU_OK; DU_EUNSUPPORTED when there is no usable template; the template's and the
 * tokenizer's errors. */
DU_NODISCARD
du_err du_lm_apply_chat(const du_lm *lm, const json_t *messages, const json_t *tools,
                        const json_t *vars, du_str *prompt, du_ids *ids, du_diag *diag);

#endif
