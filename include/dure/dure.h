/* dure: language models of the DeepSeek family, in C.
 *
 *     dure_error error;
 *     dure_model *model = dure_model_open("model.gguf", &error);
 *     dure_session *session = dure_session_new(model, NULL, &error);
 *     char *answer = dure_chat(session, messages_json, NULL, NULL, &error);
 *
 * Handles are opaque. A function that makes something returns NULL on failure, the others a
 * dure_status; both tell the reason in *error when it is not NULL. Text is UTF-8. What the caller
 * gets as a pointer that is not const is the caller's: free strings and arrays with dure_free.
 *
 * Threads: different models may be used at once; a model and its sessions by one thread at a time.
 * The library never prints, and ends the process only when it finds a defect of its own. */
#ifndef DURE_DURE_H
#define DURE_DURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DURE_API __attribute__((visibility("default")))

/* Also the exit of a failed call. The numbers do not change between versions. */
typedef enum {
    DURE_OK = 0,
    DURE_EINVAL = 1,       /* an argument is out of its range */
    DURE_EIO = 2,          /* reading or writing failed */
    DURE_ENOENT = 3,       /* no such file */
    DURE_EEXIST = 4,       /* it exists already */
    DURE_EFORMAT = 5,      /* the bytes do not follow their format */
    DURE_EUNSUPPORTED = 6, /* a model or a feature that dure does not compute */
    DURE_ELIMIT = 7,       /* a limit is exceeded (the context is full) */
    DURE_ENOMEM = 8,       /* out of memory */
    DURE_ECANCELLED = 9    /* a callback said so */
} dure_status;

typedef struct {
    dure_status status;
    char message[480]; /* one line: the thing, the place, the reason */
} dure_error;

typedef struct dure_model dure_model;
typedef struct dure_session dure_session;

DURE_API const char *dure_version(void);
DURE_API void dure_free(void *p);

/* Opens a GGUF file or a Hugging Face directory; weights stay in the mapped file. Close after its
 * sessions; close takes NULL. */
DURE_API dure_model *dure_model_open(const char *path, dure_error *error);
DURE_API void dure_model_close(dure_model *model);

DURE_API int32_t dure_model_n_vocab(const dure_model *model);
DURE_API int64_t dure_model_n_ctx_train(const dure_model *model);
DURE_API bool dure_model_has_chat(const dure_model *model); /* a chat template that dure can run */

/* Text to token ids: BOS first when the tokenizer asks for it and with_bos is set; control tokens
 * in the text count as tokens only with parse_special. *ids is the caller's. */
DURE_API dure_status dure_tokenize(const dure_model *model, const char *text, size_t len,
                                   bool with_bos, bool parse_special, int32_t **ids, size_t *n_ids,
                                   dure_error *error);

/* Token ids to text: a terminated string, the caller's, *len bytes (len may be NULL). */
DURE_API char *dure_detokenize(const dure_model *model, const int32_t *ids, size_t n_ids,
                               size_t *len, dure_error *error);

typedef struct {
    int32_t n_threads;      /* 0: the physical cores */
    int64_t n_ctx;          /* positions; 0: what fits in memory, at most what was trained */
    const char *cache_type; /* "auto", "f32", "f16", "bf16", "q8_0"; NULL: auto */
} dure_session_params;

/* A token sequence with its cache. params NULL: everything 0. Free takes NULL. */
DURE_API dure_session *dure_session_new(dure_model *model, const dure_session_params *params,
                                        dure_error *error);
DURE_API void dure_session_free(dure_session *session);

/* Makes the session hold exactly these tokens, reusing what it has of them, and gives the logits
 * after the last: [n_vocab] floats, borrowed until the next call on the session. */
DURE_API dure_status dure_session_sync(dure_session *session, const int32_t *ids, size_t n_ids,
                                       const float **logits, dure_error *error);

/* New text of the answer, whole characters; reasoning and content may each be empty. Returning true
 * stops the generation. */
typedef bool (*dure_text_fn)(void *user, const char *reasoning, const char *content);

typedef struct {
    int64_t n_max;      /* tokens; 0: to the end of the context */
    double temperature; /* 0: greedy; negative: what the model's files recommend */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 0 or 1: all */
    double min_p;       /* 0: all */
    uint64_t seed;
    dure_text_fn on_text; /* may be NULL */
    void *user;
} dure_generate_params;

/* Renders the messages, a JSON array of {"role", "content"}, with the model's chat template and
 * generates. Returns the answer without its reasoning; *reasoning (may be NULL) gets the reasoning.
 * Both are the caller's. params NULL: the recommended sampling, seed 0. */
DURE_API char *dure_chat(dure_session *session, const char *messages_json,
                         const dure_generate_params *params, char **reasoning, dure_error *error);

/* Continues text as it stands, without a template. */
DURE_API char *dure_complete(dure_session *session, const char *text,
                             const dure_generate_params *params, dure_error *error);

#ifdef __cplusplus
}
#endif

#endif
