/* Continues a text with the most likely token, again and again, and prints the ids and what they
 * say.
 *
 *     cc greedy.c -o greedy $(pkg-config --cflags --libs dure)
 *     ./greedy model.gguf 'Once upon a time' 20 */
#include <dure/dure.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t most_likely(const float *logits, int32_t n_vocab) {
    int32_t best = 0;
    for (int32_t id = 1; id < n_vocab; id++) {
        best = logits[id] > logits[best] ? id : best;
    }
    return best;
}

/* Adds n_max tokens at most to ids, which has room for them; returns how many ids there are then, 0
 * after a failure. */
static size_t generate(dure_session *session, const dure_model *model, int32_t *ids, size_t n_ids,
                       size_t n_max, dure_error *error) {
    for (size_t end = n_ids + n_max; n_ids < end; n_ids++) {
        const float *logits;
        if (dure_session_sync(session, ids, n_ids, &logits, error) != DURE_OK) {
            return 0;
        }
        ids[n_ids] = most_likely(logits, dure_model_n_vocab(model));
        printf("%d ", ids[n_ids]);
        if (dure_model_is_end(model, ids[n_ids])) {
            return n_ids + 1;
        }
    }
    return n_ids;
}

static int run(const dure_model *model, dure_session *session, const char *text, size_t n_max,
               dure_error *error) {
    int32_t *prompt;
    size_t n_prompt;
    if (dure_tokenize(model, text, strlen(text), true, false, &prompt, &n_prompt, error)) {
        return 1;
    }
    int32_t *ids = calloc(n_prompt + n_max, sizeof *ids);
    if (!ids) {
        perror("calloc");
        exit(1);
    }
    for (size_t i = 0; i < n_prompt; i++) {
        ids[i] = prompt[i];
    }
    dure_free(prompt);
    size_t n_ids = generate(session, model, ids, n_prompt, n_max, error), n_bytes = 0;
    char *answer = n_ids > 0
                       ? dure_detokenize(model, ids + n_prompt, n_ids - n_prompt, &n_bytes, error)
                       : NULL;
    if (answer) {
        putchar('\n');
        fwrite(answer, 1, n_bytes, stdout);
        putchar('\n');
    }
    dure_free(answer);
    free(ids);
    return answer ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: greedy MODEL TEXT [N]\n");
        return 2;
    }
    dure_error error;
    dure_model *model = dure_model_open(argv[1], &error);
    dure_session *session = model ? dure_session_new(model, NULL, &error) : NULL;
    size_t n_max = argc > 3 ? strtoul(argv[3], NULL, 10) : 20;
    int status = session ? run(model, session, argv[2], n_max, &error) : 1;
    if (status != 0) {
        fprintf(stderr, "greedy: %s\n", error.message);
    }
    dure_session_free(session);
    dure_model_close(model);
    return status;
}
