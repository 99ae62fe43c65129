/* dure: language models of the DeepSeek family, in C.
 *
 *     dure_error error;
 *     dure_model *model = dure_model_open("model.gguf", &error);
 *     dure_session *session = dure_session_new(model, NULL, &error);
 *     char *answer = dure_chat(session, "[{\"role\": \"user\", \"content\": \"Hello!\"}]", NULL,
 *                              NULL, &error);
 *     ...
 *     dure_free(answer);
 *     dure_session_free(session);
 *     dure_model_close(model);
 *
 * Build with `cc main.c $(pkg-config --cflags --libs dure)`.
 *
 * Handles are opaque. A function that makes something returns NULL on failure, the others return a
 * dure_status; both put the reason into *error unless it is NULL, and leave their other results
 * untouched on failure. A NULL where a pointer is needed is DURE_EINVAL and no crash.
 *
 * Ownership: arguments are borrowed for the call, unless a comment says for how long. A result that
 * is a pointer without const is the caller's: free it with dure_free. Text is UTF-8 and ends with a
 * NUL.
 *
 * Threads: different models may be used at once; a model and its sessions by one thread at a time.
 * The library never prints and reads no environment variable, and ends the process only when it
 * finds a defect of its own. It leaves jansson's global settings as they are.
 *
 * Structures of parameters are to be zeroed before use (`= {0}`): zero means the default, and later
 * versions add fields at the end. */
#ifndef DURE_DURE_H
#define DURE_DURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DURE_API __attribute__((visibility("default")))

/* The outcome of a call. The numbers do not change between versions. */
typedef enum {
    DURE_OK = 0,
    DURE_EINVAL = 1,       /* an argument is NULL or out of its range */
    DURE_EIO = 2,          /* reading failed, or the path is no regular file */
    DURE_ENOENT = 3,       /* no such file, or a file that the model needs is missing */
    DURE_EEXIST = 4,       /* it exists already */
    DURE_EFORMAT = 5,      /* the bytes do not follow their format */
    DURE_EUNSUPPORTED = 6, /* a model or a feature that dure does not compute */
    DURE_ELIMIT = 7,       /* a limit is exceeded: the context, the memory that is free */
    DURE_ENOMEM = 8,       /* out of memory */
    DURE_ECANCELLED = 9    /* a callback said so */
} dure_status;

/* A few words for a status; a static string, also for numbers that are none. */
DURE_API const char *dure_status_text(dure_status status);

/* Filled by every call that takes one: DURE_OK and "" after a success. */
typedef struct {
    dure_status status;
    char message[480]; /* one line: the thing, the place, the reason */
} dure_error;

typedef struct dure_model dure_model;     /* weights, tokenizer, chat template */
typedef struct dure_session dure_session; /* a token sequence of a model, with its cache */

/* "MAJOR.MINOR.PATCH", a static string. */
DURE_API const char *dure_version(void);

/* Frees what a function gave to the caller. Takes NULL. */
DURE_API void dure_free(void *p);

/* -- Models ------------------------------------------------------------------------------------ */

/* Opens a GGUF file (any part of a split one) or a Hugging Face directory. The weights stay in the
 * file, which is mapped: it must not be changed while the model is open.
 * path  borrowed for the call
 * Returns a handle for dure_model_close; NULL with DURE_EINVAL, DURE_EIO, DURE_ENOENT,
 * DURE_EFORMAT, DURE_EUNSUPPORTED, DURE_ELIMIT, DURE_ENOMEM. */
DURE_API dure_model *dure_model_open(const char *path, dure_error *error);

/* Closes a model, after its sessions. Takes NULL. */
DURE_API void dure_model_close(dure_model *model);

/* V, the number of logits per token; ids are 0 .. V-1. The tokenizer may know fewer: the others
 * stand for no text. NULL: 0. */
DURE_API int32_t dure_model_n_vocab(const dure_model *model);

/* Tokens of context that the model was trained for. NULL: 0. */
DURE_API int64_t dure_model_n_ctx_train(const dure_model *model);

/* Whether there is a chat template that dure can run, as dure_chat needs it. NULL: false. */
DURE_API bool dure_model_has_chat(const dure_model *model);

/* Whether an answer ends with this token. False for NULL and for an id outside the vocabulary. */
DURE_API bool dure_model_is_end(const dure_model *model, int32_t id);

/* -- Text and tokens --------------------------------------------------------------------------- */

/* Text to token ids.
 * text           [len] bytes; what is not UTF-8 becomes tokens byte by byte; may be NULL with len 0
 * with_bos       put the token that begins a sequence first (once) if the tokenizer asks for one
 * parse_special  control tokens that stand in the text count as these tokens; else as letters
 * *ids           [*n_ids] the caller's; may be NULL when there are none
 * Returns DURE_OK, DURE_EINVAL, DURE_ELIMIT, DURE_ENOMEM. */
DURE_API dure_status dure_tokenize(const dure_model *model, const char *text, size_t len,
                                   bool with_bos, bool parse_special, int32_t **ids, size_t *n_ids,
                                   dure_error *error);

/* Token ids to the bytes they stand for; control tokens stand for none.
 * ids   [n_ids]; may be NULL with n_ids 0
 * *len  bytes before the final NUL; they can hold a NUL and need not be UTF-8. len may be NULL
 * Returns a string, the caller's; NULL with DURE_EINVAL (also: an id that is not in 0 .. V-1),
 * DURE_ENOMEM. */
DURE_API char *dure_detokenize(const dure_model *model, const int32_t *ids, size_t n_ids,
                               size_t *len, dure_error *error);

/* -- Sessions ---------------------------------------------------------------------------------- */

typedef struct {
    int32_t n_threads; /* at most 1024; 0: one per physical core */
    int64_t n_ctx;     /* tokens of context; 0: what fits in free memory, at most the trained */
    const char *cache_type; /* "auto", "f32", "f16", "bf16", "q8_0"; NULL: auto */
    const char *repack;     /* block-quantised weights as this processor likes them best: "auto", in
                               memory, if it is ample; "off", as in the file; "cache", once, in
                               MODEL.strips beside the model, which processes share and which may be
                               removed at any time (where it cannot be written, as auto); NULL: auto.
                               What a model's first session chose stays until the model is closed,
                               "off" apart */
} dure_session_params;

/* Starts an empty sequence and reserves its cache.
 * model   borrowed until dure_session_free
 * params  NULL: all defaults
 * Returns a handle for dure_session_free; NULL with DURE_EINVAL, DURE_ELIMIT (more context than the
 * model was trained for or than fits in free memory), DURE_ENOMEM. */
DURE_API dure_session *dure_session_new(dure_model *model, const dure_session_params *params,
                                        dure_error *error);

/* Frees a session. Takes NULL. */
DURE_API void dure_session_free(dure_session *session);

/* Tokens of context that the session has room for. NULL: 0. */
DURE_API int64_t dure_session_n_ctx(const dure_session *session);

/* Makes the session hold exactly these tokens: what it has computed of them stays, the rest is
 * computed. Generating token by token is calling this with one more id each time.
 * ids      [n_ids], n_ids >= 1, each in 0 .. V-1
 * *logits  [V] f32 after the last token (not normalised); borrowed until the next call on the
 *          session; logits may be NULL
 * Returns DURE_OK, DURE_EINVAL, DURE_ELIMIT (more tokens than context), DURE_ENOMEM. */
DURE_API dure_status dure_session_sync(dure_session *session, const int32_t *ids, size_t n_ids,
                                       const float **logits, dure_error *error);

/* -- Answers ----------------------------------------------------------------------------------- */

/* How an answer ended. */
typedef enum {
    DURE_FINISH_STOP = 0,     /* an end token or a stop string */
    DURE_FINISH_LENGTH = 1,   /* n_max tokens, or the context is full */
    DURE_FINISH_CANCELLED = 2 /* on_text said so */
} dure_finish;

/* New text of an answer, in whole characters; either may be "". Called after every token, also when
 * there is nothing new, so that an answer can be stopped at any time by returning true. When a
 * model closes a block of reasoning that neither it nor the template opened, what was content up to
 * there turns out to be reasoning: the results of the call say so, the callback cannot.
 * reasoning, content  borrowed for the call */
typedef bool (*dure_text_fn)(void *user, const char *reasoning, const char *content);

/* The prompt's progress: n_done of n_all tokens are computed. Returning true stops the call, which
 * then fails with DURE_ECANCELLED. */
typedef bool (*dure_prompt_fn)(void *user, int64_t n_done, int64_t n_all);

/* {0} is greedy: the most likely token, always. */
typedef struct {
    int64_t n_max;        /* tokens to generate at most; 0: to the end of the context */
    double temperature;   /* 0: greedy; at most 100. Negative: temperature, top_k, top_p and min_p
                             are those that the model's files recommend */
    int64_t top_k;        /* keep the so many most likely tokens; 0: all */
    double top_p;         /* keep the fewest tokens that hold this share; 0 or 1: all */
    double min_p;         /* keep tokens with this share of the most likely one; 0: all */
    uint64_t seed;        /* the same seed gives the same answer */
    dure_text_fn on_text; /* may be NULL */
    void *user;           /* the first argument of both callbacks */
    dure_prompt_fn on_prompt; /* may be NULL */
    const char *const *stop;  /* [n_stop] strings that end the answer and are not part of it */
    size_t n_stop;
    bool ignore_end; /* go on after an end token */
} dure_generate_params;

/* Renders a conversation with the model's chat template and generates the next message. What the
 * session holds of an earlier turn is not computed again.
 * messages_json  a JSON array of {"role": ..., "content": ...}
 * params         NULL: the recommended sampling with seed 0
 * *reasoning     what the model wrote between <think> and </think>, "" when nothing; the caller's;
 *                reasoning may be NULL
 * Returns the rest of the answer, the caller's; bytes that are not UTF-8 are U+FFFD, and NUL
 * characters are left out. NULL with DURE_EINVAL, DURE_EFORMAT (no JSON, or the template refuses
 * the messages), DURE_EUNSUPPORTED (no chat template that dure can run), DURE_ELIMIT (the prompt
 * fills the context), DURE_ENOMEM, DURE_ECANCELLED (by on_prompt). An answer that on_text stopped
 * is no failure. */
DURE_API char *dure_chat(dure_session *session, const char *messages_json,
                         const dure_generate_params *params, char **reasoning, dure_error *error);

/* Continues a text as it stands, without a template, behind the token that begins a sequence if the
 * tokenizer asks for one. All of the answer is content. params and result as in dure_chat. */
DURE_API char *dure_complete(dure_session *session, const char *text,
                             const dure_generate_params *params, dure_error *error);

/* How the last dure_chat or dure_complete ended that gave an answer; DURE_FINISH_LENGTH before the
 * first and for NULL. */
DURE_API dure_finish dure_session_finish(const dure_session *session);

#ifdef __cplusplus
}
#endif

#endif
