/* Memory runs out at any call: opening a language model, rendering a chat and generating fail
 * cleanly and leak nothing; what does not fail gives the whole answer. */
#include "base/json.h"
#include "infer/generate.h"
#include "infer/lm.h"
#include "models.h"
#include "tmp.h"

/* A template in a directory's own file and one in its tokenizer_config.json; dense and latent. */
static const char *const names[] = {"llama_tied", "deepseek_v3_noqlora"};
enum { N_NAMES = sizeof names / sizeof *names, N_NEW = 6, N_TOP = 2 };

static bool on_text(void *user, du_sv reasoning, du_sv content) {
    (void)user, (void)reasoning, (void)content;
    return false;
}

/* What the run with memory enough gave; kept outside the counted heap. */
typedef struct {
    int32_t tokens[N_NEW];
    size_t n;
    bool thinking, opens_thinking;
    char content[256];
} answer;

static void keep(answer *a, const du_lm *lm, const du_generation *g) {
    const du_chat_features *f = du_chat_get_features(lm->chat);
    memset(a, 0, sizeof *a);
    a->n = g->tokens.n;
    a->thinking = f->thinking;
    a->opens_thinking = f->opens_thinking;
    assert_true(g->tokens.n <= N_NEW);
    memcpy(a->tokens, g->tokens.ids, g->tokens.n * sizeof *a->tokens);
    snprintf(a->content, sizeof a->content, "%.*s|%.*s", (int)g->reasoning.len,
             du_str_get(&g->reasoning), (int)g->content.len, du_str_get(&g->content));
}

/* Renders the chat and generates twice: into an empty session, and into one restored from a file.
 */
static du_err chat(const du_lm *lm, const json_t *messages, const char *file, answer *a,
                   du_diag *diag) {
    static const char *const stop[] = {"never to be seen"};
    du_infer_params p = {.auto_cache = true, .n_ctx = 512, .n_threads = 2, .n_sessions = 2};
    du_generate_params params = {.sampler = du_sampler_defaults(),
                                 .n_max = N_NEW,
                                 .ignore_eos = true,
                                 .stop = stop,
                                 .n_stop = 1,
                                 .split = true,
                                 .keep_log_probs = true,
                                 .n_log_probs = N_TOP,
                                 .on_text = on_text};
    params.sampler.temperature = 0.8;
    params.sampler.seed = 1;
    params.sampler.repeat_penalty = 1.1;
    du_infer *inf = NULL;
    du_session *s = NULL, *again = NULL;
    du_str prompt = {0};
    du_ids ids = {0};
    du_generation first = {0}, second = {0};
    du_err err = du_infer_new(&inf, lm->model, &p, diag);
    err = err ? err : du_session_new(&s, inf, diag);
    err = err ? err : du_lm_apply_chat(lm, messages, NULL, NULL, &prompt, &ids, diag);
    err = err ? err : du_generate(&first, s, lm, ids.ids, (int64_t)ids.n, &params, diag);
    err = err ? err : du_session_save(s, file, diag);
    err = err ? err : du_session_new(&again, inf, diag);
    err = err ? err : du_session_restore(again, file, diag);
    err = err ? err : du_generate(&second, again, lm, ids.ids, (int64_t)ids.n, &params, diag);
    if (err == DU_OK) {
        answer b;
        keep(a, lm, &first);
        keep(&b, lm, &second);
        assert_memory_equal(a, &b, sizeof b);
    }
    du_generation_done(&first);
    du_generation_done(&second);
    du_ids_done(&ids);
    du_str_done(&prompt);
    du_session_free(again);
    du_session_free(s);
    du_infer_free(inf);
    return err;
}

typedef struct {
    char path[512], file[512];
    const du_lm *lm; /* NULL: opening is part of the run */
    const json_t *messages;
} job;

static du_err run(const job *j, answer *a) {
    du_diag diag;
    du_diag_reset(&diag);
    du_lm *lm = NULL;
    du_err err = j->lm ? DU_OK : du_lm_open(&lm, j->path, &diag);
    err = err ? err : chat(j->lm ? j->lm : lm, j->messages, j->file, a, &diag);
    if (err != DU_OK && (err != DU_ENOMEM || diag.msg[0] == '\0')) {
        print_message("%s: '%s'\n", du_err_text(err), diag.msg);
        err = err == DU_ENOMEM ? DU_EINVAL : err; /* without a reason it is no good answer */
    }
    du_lm_close(lm);
    return err;
}

/* Lets allocations 1, 1 + step, ... of a run fail, once or from there on. */
static void fail_each(const job *j, int64_t step) {
    answer want, got;
    assert_int_equal(run(j, &want), DU_OK);
    assert_int_equal(want.n, N_NEW);
    int64_t live = du_mem_get_stats().n_live, calls = du_mem_get_stats().n_calls;
    assert_int_equal(run(j, &got), DU_OK);
    calls = du_mem_get_stats().n_calls - calls;
    assert_true(calls > 20);
    for (int64_t n = 1; n <= calls; n += step) {
        for (int forever = 0; forever < 2; forever++) {
            du_mem_fail_at(n, forever);
            du_err err = run(j, &got);
            du_mem_fail_at(0, false);
            if (err != DU_ENOMEM && (err != DU_OK || memcmp(&got, &want, sizeof got) != 0)) {
                fail_msg("%s: allocation %d of %d: %s", j->path, (int)n, (int)calls,
                         err ? du_err_text(err) : "another answer");
            }
            if (du_mem_get_stats().n_live != live) {
                fail_msg("%s: allocation %d of %d: %d blocks leaked", j->path, (int)n, (int)calls,
                         (int)(du_mem_get_stats().n_live - live));
            }
        }
    }
}

static json_t *make_messages(void) {
    json_t *messages = json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}]", "role", "user", "content",
                                 "한 물음", "role", "assistant", "content", "<think>x</think>y",
                                 "role", "user", "content", "another");
    assert_non_null(messages);
    return messages;
}

static void each_name(bool open_once, int64_t step) {
    json_t *messages = make_messages();
    test_tmp tmp = test_tmp_make();
    for (int k = 0; k < N_NAMES; k++) {
        job j = {.messages = messages};
        du_lm *lm = NULL;
        snprintf(j.path, sizeof j.path, MODELS_DIR "/%s", names[k]);
        snprintf(j.file, sizeof j.file, "%s", test_tmp_file(&tmp, "session"));
        if (open_once) {
            du_diag diag;
            du_diag_reset(&diag);
            assert_ok(du_lm_open(&lm, j.path, &diag), &diag);
        }
        j.lm = lm;
        fail_each(&j, step);
        du_lm_close(lm);
    }
    test_tmp_remove(&tmp);
    json_decref(messages);
}

static void generation_survives_each_failure(void **state) {
    (void)state;
    each_name(true, 1);
}

static void opening_survives_failures(void **state) {
    (void)state;
    each_name(false, 11);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generation_survives_each_failure),
        cmocka_unit_test(opening_survives_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
