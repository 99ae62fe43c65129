/* The installed interface, used as a program uses it. What it computes is compared with the golden
 * values of the fixtures. */
#include "test.h"

#include <unistd.h>

#include "dure/dure.h"
#include "kern/kern.h"
#include "tmp.h"

#define MODELS DURE_SOURCE_DIR "/tests/golden/models/"
#define MODEL  MODELS "deepseek_v3_yarn"
#define USER   "[{\"role\": \"user\", \"content\": \"물음\"}]"

enum { N_GREEDY = 128, N_PROMPT_MAX = 64 };

static size_t read_ids(int32_t *ids, size_t max, const char *path) {
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = 0;
    while (n < max && fscanf(f, "%d", &ids[n]) == 1) {
        n++;
    }
    fclose(f);
    return n;
}

typedef struct {
    dure_model *model;
    dure_session *session;
} fixture;

static int set_up(void **state) {
    static fixture f;
    dure_error error;
    f.model = dure_model_open(MODEL, &error);
    dure_session_params params = {.n_threads = 2, .n_ctx = 512};
    f.session = f.model ? dure_session_new(f.model, &params, &error) : NULL;
    *state = &f;
    return f.session ? 0 : -1;
}

static int tear_down(void **state) {
    fixture *f = *state;
    dure_session_free(f->session);
    dure_model_close(f->model);
    return 0;
}

/* The call failed with this status and a message that holds `part`. */
#define assert_error(error, status_, part)                                                         \
    do {                                                                                           \
        assert_int_equal((error).status, status_);                                                 \
        if (!strstr((error).message, part)) {                                                      \
            fail_msg("message without '%s': %s", part, (error).message);                           \
        }                                                                                          \
    } while (0)

static void model_says_what_it_is(void **state) {
    const fixture *f = *state;
    assert_int_equal(dure_model_n_vocab(f->model), 320);
    assert_int_equal(dure_model_n_ctx_train(f->model), 1280);
    assert_true(dure_model_has_chat(f->model));
    assert_true(dure_model_is_end(f->model, 1));
    assert_false(dure_model_is_end(f->model, 100));
    assert_false(dure_model_is_end(f->model, -1));
    assert_false(dure_model_is_end(f->model, 1 << 30));
    assert_int_equal(dure_session_n_ctx(f->session), 512);
    assert_string_equal(dure_version(), DURE_VERSION);
    assert_string_equal(dure_status_text(DURE_ENOMEM), "out of memory");
    assert_non_null(dure_status_text((dure_status)99));
}

static void text_goes_to_ids_and_back(void **state) {
    const fixture *f = *state;
    static const char text[] = "두레 and \xff\n<｜end▁of▁sentence｜>";
    int32_t *plain, *special;
    size_t n_plain, n_special, len;
    dure_error error = {.status = DURE_EIO, .message = "old"};
    assert_int_equal(
        dure_tokenize(f->model, text, sizeof text - 1, false, false, &plain, &n_plain, &error),
        DURE_OK);
    assert_int_equal(error.status, DURE_OK);
    assert_string_equal(error.message, "");
    char *back = dure_detokenize(f->model, plain, n_plain, &len, NULL);
    assert_int_equal(len, sizeof text - 1);
    assert_string_equal(back, text);
    dure_free(back);
    assert_int_equal(
        dure_tokenize(f->model, text, sizeof text - 1, true, true, &special, &n_special, NULL),
        DURE_OK);
    assert_true(n_special < n_plain);
    assert_int_equal(special[0], 0); /* BOS */
    assert_true(dure_model_is_end(f->model, special[n_special - 1]));
    back = dure_detokenize(f->model, special, n_special, NULL, NULL);
    assert_string_equal(back, "두레 and \xff\n"); /* control tokens stand for nothing */
    dure_free(back);
    dure_free(plain);
    dure_free(special);

    assert_int_equal(dure_tokenize(f->model, NULL, 0, false, false, &plain, &n_plain, NULL),
                     DURE_OK);
    assert_int_equal(n_plain, 0);
    dure_free(plain);
    back = dure_detokenize(f->model, NULL, 0, &len, NULL);
    assert_string_equal(back, "");
    assert_int_equal(len, 0);
    dure_free(back);
}

static int32_t argmax(const float *logits, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

static void greedy_tokens_are_the_references(void **state) {
    const fixture *f = *state;
    int32_t ids[N_PROMPT_MAX + N_GREEDY], wanted[N_GREEDY];
    size_t n_prompt = read_ids(ids, N_PROMPT_MAX, MODEL "/prompt.txt");
    assert_int_equal(read_ids(wanted, N_GREEDY, MODEL "/greedy.txt"), N_GREEDY);
    for (size_t n = n_prompt; n < n_prompt + N_GREEDY; n++) {
        const float *logits;
        dure_error error;
        if (dure_session_sync(f->session, ids, n, &logits, &error) != DURE_OK) {
            fail_msg("%s", error.message);
        }
        ids[n] = argmax(logits, dure_model_n_vocab(f->model));
    }
    assert_memory_equal(ids + n_prompt, wanted, sizeof wanted);
}

/* What a callback saw. */
typedef struct {
    char reasoning[4096], content[4096];
    int n_calls, n_max;
} seen;

static bool see(void *user, const char *reasoning, const char *content) {
    seen *s = user;
    strncat(s->reasoning, reasoning, sizeof s->reasoning - strlen(s->reasoning) - 1);
    strncat(s->content, content, sizeof s->content - strlen(s->content) - 1);
    return ++s->n_calls == s->n_max;
}

static void chat_streams_what_it_returns(void **state) {
    const fixture *f = *state;
    seen s = {.n_max = -1};
    dure_generate_params params = {.n_max = 40, .on_text = see, .user = &s, .ignore_end = true};
    char *reasoning = NULL;
    dure_error error;
    char *content = dure_chat(f->session, USER, &params, &reasoning, &error);
    if (!content) {
        fail_msg("%s", error.message);
    }
    assert_string_equal(s.content, content);
    assert_string_equal(s.reasoning, reasoning);
    assert_true(strlen(reasoning) > 0); /* the template opens <think> */
    assert_true(s.n_calls >= 40);
    assert_int_equal(dure_session_finish(f->session), DURE_FINISH_LENGTH);
    char *again = dure_chat(f->session, USER, &params, NULL, NULL);
    assert_string_equal(again, content);
    dure_free(again);
    dure_free(content);
    dure_free(reasoning);
}

static void seeds_and_recommended_sampling(void **state) {
    const fixture *f = *state;
    dure_generate_params params = {.n_max = 30, .temperature = 1, .seed = 7};
    char *first = dure_complete(f->session, "abc", &params, NULL);
    char *second = dure_complete(f->session, "abc", &params, NULL);
    assert_string_equal(first, second);
    params.seed = 8;
    char *other = dure_complete(f->session, "abc", &params, NULL);
    assert_string_not_equal(first, other);
    params = (dure_generate_params){.n_max = 30, .temperature = -1};
    char *recommended = dure_complete(f->session, "abc", &params, NULL);
    char *greedy = dure_complete(f->session, "abc", &(dure_generate_params){.n_max = 30}, NULL);
    assert_non_null(recommended);
    assert_string_not_equal(recommended, greedy);
    dure_free(first);
    dure_free(second);
    dure_free(other);
    dure_free(recommended);
    dure_free(greedy);
}

static void stop_strings_end_an_answer(void **state) {
    const fixture *f = *state;
    dure_generate_params params = {.n_max = 40, .ignore_end = true};
    char *whole = dure_complete(f->session, "abc", &params, NULL);
    size_t at = 4;
    while (whole[at] && (whole[at] <= ' ' || whole[at] > '~' || whole[at + 1] <= ' ')) {
        at++; /* two letters in a row */
    }
    const char stop[] = {whole[at], whole[at + 1], '\0'}, *stops[] = {"never seen", stop};
    assert_true(whole[at] && whole[at + 1]);
    params.stop = stops;
    params.n_stop = 2;
    char *cut = dure_complete(f->session, "abc", &params, NULL);
    assert_int_equal(dure_session_finish(f->session), DURE_FINISH_STOP);
    assert_int_equal(strlen(cut), strstr(whole, stop) - whole);
    assert_memory_equal(cut, whole, strlen(cut));
    dure_free(whole);
    dure_free(cut);
}

static void callbacks_cancel(void **state) {
    const fixture *f = *state;
    seen s = {.n_max = 3};
    dure_generate_params params = {.n_max = 100, .on_text = see, .user = &s, .ignore_end = true};
    char *content = dure_complete(f->session, "abc", &params, NULL);
    assert_string_equal(content, s.content); /* what there is */
    assert_int_equal(dure_session_finish(f->session), DURE_FINISH_CANCELLED);
    dure_free(content);
}

static bool never(void *user, int64_t n_done, int64_t n_all) {
    int64_t *left = user;
    assert_true(n_done <= n_all);
    *left = n_all - n_done;
    return true;
}

static void a_long_prompt_can_be_cancelled(void **state) {
    const fixture *f = *state;
    char text[1201];
    memset(text, 'x', sizeof text - 1);
    for (size_t i = 0; i < sizeof text - 1; i += 3) {
        text[i] = ' ';
    }
    text[sizeof text - 1] = '\0';
    dure_session_params wide = {.n_ctx = 1280};
    dure_session *session = dure_session_new(f->model, &wide, NULL);
    int64_t left = -1;
    dure_generate_params params = {.n_max = 1, .on_prompt = never, .user = &left};
    dure_error error;
    assert_null(dure_complete(session, text, &params, &error));
    assert_int_equal(error.status, DURE_ECANCELLED);
    assert_true(left > 0);
    char *answer = dure_complete(session, text, &(dure_generate_params){.n_max = 1}, &error);
    assert_non_null(answer); /* the session is as good as before */
    dure_free(answer);
    dure_session_free(session);
}

static void what_is_no_text_is_replaced(void **state) {
    const fixture *f = *state;
    dure_generate_params params = {.n_max = 400, .temperature = 3, .seed = 3, .ignore_end = true};
    char *answer = dure_complete(f->session, "abc", &params, NULL); /* a random model: any bytes */
    assert_non_null(strstr(answer, "\xef\xbf\xbd"));
    for (const char *at = answer; *at; at++) {
        assert_true((unsigned char)*at < 0xf8 && (unsigned char)*at != 0xc0);
    }
    dure_free(answer);
}

static void wrong_paths_are_told(void **state) {
    (void)state;
    test_tmp tmp = test_tmp_make();
    test_tmp_write(&tmp, "text.gguf", "no model", 8);
    const char *file = test_tmp_file(&tmp, "text.gguf");
    const struct {
        const char *path;
        dure_status status;
        const char *part;
    } cases[] = {{NULL, DURE_EINVAL, "path is NULL"},
                 {"", DURE_ENOENT, "cannot open it"},
                 {"/nowhere/model.gguf", DURE_ENOENT, "/nowhere/model.gguf"},
                 {"/dev/null", DURE_EIO, "not a regular file"},
                 {tmp.path, DURE_ENOENT, tmp.path},
                 {file, DURE_EFORMAT, "text.gguf"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dure_error error;
        assert_null(dure_model_open(cases[i].path, &error));
        assert_error(error, cases[i].status, cases[i].part);
        assert_null(dure_model_open(cases[i].path, NULL));
    }
    test_tmp_remove(&tmp);
}

static void null_is_an_error_and_no_crash(void **state) {
    const fixture *f = *state;
    dure_error e;
    int32_t *ids = NULL, one = 5;
    size_t n = 0;
    const float *logits = NULL;
    dure_model_close(NULL);
    dure_session_free(NULL);
    dure_free(NULL);
    assert_int_equal(dure_model_n_vocab(NULL), 0);
    assert_int_equal(dure_model_n_ctx_train(NULL), 0);
    assert_int_equal(dure_session_n_ctx(NULL), 0);
    assert_false(dure_model_has_chat(NULL));
    assert_false(dure_model_is_end(NULL, 1));
    assert_int_equal(dure_session_finish(NULL), DURE_FINISH_LENGTH);
    dure_tokenize(NULL, "a", 1, false, false, &ids, &n, &e);
    assert_error(e, DURE_EINVAL, "model is NULL");
    dure_tokenize(f->model, NULL, 1, false, false, &ids, &n, &e);
    assert_error(e, DURE_EINVAL, "text is NULL");
    dure_tokenize(f->model, "a", 1, false, false, NULL, &n, &e);
    assert_error(e, DURE_EINVAL, "ids is NULL");
    dure_tokenize(f->model, "a", 1, false, false, &ids, NULL, &e);
    assert_error(e, DURE_EINVAL, "n_ids is NULL");
    assert_null(dure_detokenize(NULL, &one, 1, NULL, &e));
    assert_error(e, DURE_EINVAL, "model is NULL");
    assert_null(dure_detokenize(f->model, NULL, 1, NULL, &e));
    assert_error(e, DURE_EINVAL, "ids is NULL");
    assert_null(dure_session_new(NULL, NULL, &e));
    assert_error(e, DURE_EINVAL, "model is NULL");
    dure_session_sync(NULL, &one, 1, &logits, &e);
    assert_error(e, DURE_EINVAL, "session is NULL");
    dure_session_sync(f->session, NULL, 1, &logits, &e);
    assert_error(e, DURE_EINVAL, "ids is NULL");
    assert_int_equal(dure_session_sync(f->session, &one, 1, NULL, &e), DURE_OK);
    assert_null(dure_chat(NULL, USER, NULL, NULL, &e));
    assert_error(e, DURE_EINVAL, "session is NULL");
    assert_null(dure_chat(f->session, NULL, NULL, NULL, &e));
    assert_error(e, DURE_EINVAL, "messages_json is NULL");
    assert_null(dure_complete(f->session, NULL, NULL, &e));
    assert_error(e, DURE_EINVAL, "text is NULL");
    assert_null(dure_complete(NULL, "a", NULL, &e));
    assert_error(e, DURE_EINVAL, "session is NULL");
    assert_null(ids);
    assert_null(logits);
}

static void values_out_of_range_are_told(void **state) {
    const fixture *f = *state;
    dure_error e;
    int32_t ids[600] = {0}, beyond = 5000, negative = -1;
    assert_null(dure_detokenize(f->model, &beyond, 1, NULL, &e));
    assert_error(e, DURE_EINVAL, "token 5000 at position 0");
    dure_session_sync(f->session, &negative, 1, NULL, &e);
    assert_error(e, DURE_EINVAL, "token -1");
    dure_session_sync(f->session, ids, 0, NULL, &e);
    assert_error(e, DURE_EINVAL, "n_ids is 0");
    dure_session_sync(f->session, ids, 600, NULL, &e);
    assert_error(e, DURE_ELIMIT, "512");
    const struct {
        dure_session_params params;
        const char *part;
    } sessions[] = {{{.n_threads = -1}, "n_threads -1"},
                    {{.repack = "always"}, "repack 'always' is not auto, off or cache"},
                    {{.n_threads = 5000}, "n_threads 5000"},
                    {{.n_ctx = -1}, "n_ctx is negative"},
                    {{.cache_type = "q4_0"}, "cache_type 'q4_0'"},
                    {{.cache_type = ""}, "cache_type ''"}};
    for (size_t i = 0; i < sizeof sessions / sizeof *sessions; i++) {
        assert_null(dure_session_new(f->model, &sessions[i].params, &e));
        assert_error(e, DURE_EINVAL, sessions[i].part);
    }
    assert_null(dure_session_new(f->model, &(dure_session_params){.n_ctx = 5000}, &e));
    assert_error(e, DURE_ELIMIT, "context of 5000");
    const struct {
        dure_generate_params params;
        const char *part;
    } answers[] = {{{.n_max = -1}, "n_max"},
                   {{.n_stop = 1}, "stop is NULL"},
                   {{.temperature = 101}, "temperature"},
                   {{.temperature = 1, .top_p = 2}, "top-p"},
                   {{.temperature = 1, .top_k = -1}, "top-k"},
                   {{.temperature = 1, .min_p = -1}, "min-p"}};
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        assert_null(dure_complete(f->session, "a", &answers[i].params, &e));
        assert_error(e, DURE_EINVAL, answers[i].part);
    }
    const struct {
        const char *messages;
        dure_status status;
        const char *part;
    } chats[] = {{"", DURE_EFORMAT, "messages"},
                 {"[{]", DURE_EFORMAT, "messages"},
                 {"{}", DURE_EINVAL, "no JSON array"}};
    for (size_t i = 0; i < sizeof chats / sizeof *chats; i++) {
        assert_null(dure_chat(f->session, chats[i].messages, NULL, NULL, &e));
        assert_error(e, chats[i].status, chats[i].part);
    }
}

/* Every way of reading the weights gives the same likeliest token; the file is there afterwards on
 * machines that have a use for it. */
static void weights_may_be_repacked(void **state) {
    (void)state;
    static const char *const ways[] = {NULL, "off", "auto", "cache", "cache"};
    static const int32_t ids[] = {1, 50, 60, 70};
    du_diag diag;
    du_diag_reset(&diag);
    test_tmp tmp = test_tmp_make();
    char *bytes;
    size_t len;
    assert_ok(du_file_read(&bytes, &len, DURE_SOURCE_DIR "/models/dure-tiny.gguf", 1 << 24, &diag),
              &diag);
    test_tmp_write(&tmp, "m.gguf", bytes, len);
    du_free(bytes);
    int32_t likeliest = -1;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        dure_error error;
        dure_model *model = dure_model_open(test_tmp_file(&tmp, "m.gguf"), &error);
        dure_session_params params = {.n_threads = 2, .n_ctx = 64, .repack = ways[i]};
        dure_session *session = dure_session_new(model, &params, &error);
        const float *logits;
        assert_int_equal(dure_session_sync(session, ids, 4, &logits, &error), DURE_OK);
        int32_t best = 0;
        for (int32_t v = 0; v < dure_model_n_vocab(model); v++) {
            best = logits[v] > logits[best] ? v : best;
        }
        assert_true(likeliest < 0 || best == likeliest);
        likeliest = best;
        dure_session_free(session);
        dure_model_close(model);
        bool wanted = du_kern_get(du_isa_best())->mm_strips[DU_Q8_0] != NULL;
        bool there = du_file_exists(test_tmp_file(&tmp, "m.gguf.strips"));
        assert_true(there == (i >= 3 && wanted));
    }
    test_tmp_remove(&tmp);
}

static void a_model_without_template_completes(void **state) {
    (void)state;
    dure_error error;
    dure_model *model = dure_model_open(MODELS "llama_tied", &error);
    dure_session *session = dure_session_new(model, NULL, &error);
    assert_non_null(session);
    if (!dure_model_has_chat(model)) {
        assert_null(dure_chat(session, USER, NULL, NULL, &error));
        assert_error(error, DURE_EUNSUPPORTED, "no chat template");
    }
    char *text = dure_complete(session, "a", &(dure_generate_params){.n_max = 2}, &error);
    assert_non_null(text);
    dure_free(text);
    dure_session_free(session);
    dure_model_close(model);
}

static void every_allocation_may_fail(void **state) {
    const fixture *f = *state;
    dure_generate_params params = {.n_max = 2};
    bool done = false;
    for (int64_t n = 1; !done; n++) {
        assert_true(n < 5000);
        int64_t n_live = du_mem_get_stats().n_live;
        dure_error error;
        char *reasoning = NULL;
        du_mem_fail_at(n, false);
        char *answer = dure_chat(f->session, USER, &params, &reasoning, &error);
        done = answer != NULL;
        du_mem_fail_at(0, false);
        assert_int_equal(error.status, done ? DURE_OK : DURE_ENOMEM);
        assert_true(!done || n > 10); /* there were some to fail */
        dure_free(answer);
        dure_free(reasoning);
        assert_int_equal(du_mem_get_stats().n_live, n_live);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_says_what_it_is),
        cmocka_unit_test(text_goes_to_ids_and_back),
        cmocka_unit_test(greedy_tokens_are_the_references),
        cmocka_unit_test(chat_streams_what_it_returns),
        cmocka_unit_test(seeds_and_recommended_sampling),
        cmocka_unit_test(stop_strings_end_an_answer),
        cmocka_unit_test(callbacks_cancel),
        cmocka_unit_test(a_long_prompt_can_be_cancelled),
        cmocka_unit_test(what_is_no_text_is_replaced),
        cmocka_unit_test(wrong_paths_are_told),
        cmocka_unit_test(null_is_an_error_and_no_crash),
        cmocka_unit_test(values_out_of_range_are_told),
        cmocka_unit_test(weights_may_be_repacked),
        cmocka_unit_test(a_model_without_template_completes),
        cmocka_unit_test(every_allocation_may_fail),
    };
    int n_failed = cmocka_run_group_tests(tests, set_up, tear_down);
    int64_t n_left = du_mem_get_stats().n_live;
    if (n_failed == 0 && n_left != 0) {
        fprintf(stderr, "%lld blocks were not freed\n", (long long)n_left);
    }
    return n_failed ? n_failed : n_left != 0;
}
