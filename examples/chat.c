/* Asks a model two questions, the second with the first in mind, and shows the answers while they
 * are made: the reasoning on standard error, the rest on standard output.
 *
 *     cc chat.c -o chat $(pkg-config --cflags --libs dure)
 *     ./chat model.gguf */
#include <dure/dure.h>

#include <stdio.h>

static bool show(void *user, const char *reasoning, const char *content) {
    int *n_left = user;
    fputs(reasoning, stderr);
    fputs(content, stdout);
    fflush(stdout);
    return --*n_left == 0; /* true: enough */
}

static int ask(dure_session *session, const char *messages, dure_error *error) {
    int n_left = 400;
    dure_generate_params params = {.temperature = -1, .seed = 1, .on_text = show, .user = &n_left};
    char *answer = dure_chat(session, messages, &params, NULL, error);
    if (!answer) {
        return 1;
    }
    putchar('\n');
    if (dure_session_finish(session) == DURE_FINISH_CANCELLED) {
        fputs("(cut short)\n", stderr);
    }
    dure_free(answer);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: chat MODEL\n");
        return 2;
    }
    dure_error error;
    dure_model *model = dure_model_open(argv[1], &error);
    dure_session *session = model ? dure_session_new(model, NULL, &error) : NULL;
    int status = session ? 0 : 1;
    if (status == 0) {
        status =
            ask(session, "[{\"role\": \"user\", \"content\": \"What is 17 + 28 - 9?\"}]", &error);
    }
    if (status == 0) { /* the first turn is in the session's cache and not computed again */
        status = ask(session,
                     "[{\"role\": \"user\", \"content\": \"What is 17 + 28 - 9?\"},"
                     " {\"role\": \"assistant\", \"content\": \"36\"},"
                     " {\"role\": \"user\", \"content\": \"And half of that?\"}]",
                     &error);
    }
    if (status != 0) {
        fprintf(stderr, "chat: %s\n", error.message);
    }
    dure_session_free(session);
    dure_model_close(model);
    return status;
}
