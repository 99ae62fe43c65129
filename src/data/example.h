/* What a model learns from a record: tokens, and which of them count.
 *
 *   text    one document; all of its tokens count
 *   answer  the prompt as inference reads it, then the response, which counts
 *   chat    the chat template's text. What an answer is made of counts: what the template gives for
 *           the messages up to and with an assistant's, behind what it gives as the prompt for it
 *
 * Prompt and answer are turned into tokens by themselves, as in inference, where the answer is not
 * known when the prompt is read. A template that changes earlier turns when later ones come (most
 * drop their reasoning) makes several documents of a chat, each ending with an answer that counts
 * there alone.
 *
 * An empty text makes no document, nor does a chat without an answer.
 *
 * BOS begins a document where the tokenizer asks for it; EOS ends it. The first token of a document
 * never counts, since nothing comes before it, nor does what a template puts behind the token that
 * ends an answer. */
#ifndef DU_DATA_EXAMPLE_H
#define DU_DATA_EXAMPLE_H

#include "data/docs.h"
#include "text/chat.h"
#include "text/tokenizer.h"

typedef struct {
    const du_tokenizer *tok; /* has EOS */
    const du_chat *chat;     /* NULL: chats are refused */
    const json_t *vars;      /* object of the template's variables, NULL: none */
} du_example_params;

/* Documents one behind the other. Start from {0}. */
typedef struct {
    du_ids ids;
    du_str counts; /* [ids.n] bytes: 1 where a token counts, 0 where it is only read */
    size_t *ends;  /* [n] the end of each document in ids */
    size_t n, cap;
    uint64_t hash; /* of the record's texts */
    bool whole;    /* an answer or a chat: of no use when it is cut */
} du_examples;

void du_examples_done(du_examples *e);

/* Appends the documents of a record and mixes its hash. Of a text in parts (docs.h) each is a
 * document, of which the first has BOS and the last EOS.
 * begins, ends  as in du_doc
 * Returns DU_OK, DU_EUNSUPPORTED (a chat without a template), DU_ENOMEM, the errors of
 * du_chat_render and du_tokenizer_encode; what has been appended is then of no use. Thread-safe. */
DU_NODISCARD
du_err du_examples_add(du_examples *e, const du_example_params *params, const du_record *record,
                       bool begins, bool ends, du_diag *diag);

#endif
