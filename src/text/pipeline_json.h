/* The steps of a tokenizer.json around its model. */
#ifndef DU_TEXT_PIPELINE_JSON_H
#define DU_TEXT_PIPELINE_JSON_H

#include <jansson.h>

#include "text/tokenizer_int.h"

/* Reads normalizer, pre_tokenizer and decoder into tok, whose kind (bytes or characters) follows
 * from them. Returns DU_OK, DU_EFORMAT, DU_EUNSUPPORTED, DU_ELIMIT, DU_ENOMEM; messages name the
 * step. */
DU_NODISCARD
du_err du_pipeline_load(du_tokenizer *tok, const json_t *json, du_diag *diag);

/* Reads post_processor into the info of tok, whose vocabulary is there already. Same errors. */
DU_NODISCARD
du_err du_pipeline_load_post(du_tokenizer *tok, const json_t *json, du_diag *diag);

#endif
