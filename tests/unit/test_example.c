/* What counts in texts, answers and chats. */
#include "test.h"

#include "base/json.h"
#include "base/mem.h"
#include "data/example.h"
#include "text/bpe_train.h"
#include "tmp.h"

/* Bytes are tokens: <s> 0, </s> 1, <user> 2, <assistant> 3, then 256 bytes. */
enum { BOS, EOS, USER, ASSISTANT, N_SPECIAL };

static du_tokenizer *byte_tokenizer(void) {
    static const du_sv special[] = {{"<s>", 3}, {"</s>", 4}, {"<user>", 6}, {"<assistant>", 11}};
    du_diag diag;
    du_diag_reset(&diag);
    du_bpe_train_params params = {.n_vocab = N_SPECIAL + 256,
                                  .rule = "qwen2",
                                  .special = special,
                                  .n_special = N_SPECIAL,
                                  .bos = BOS,
                                  .eos = EOS,
                                  .pad = -1,
                                  .add_bos = true};
    du_bpe_trainer *trainer = NULL;
    du_tokenizer *tok = NULL;
    assert_ok(du_bpe_trainer_new(&trainer, &params, NULL, &diag), &diag);
    assert_ok(du_bpe_trainer_run(trainer, NULL, NULL, &tok, &diag), &diag);
    du_bpe_trainer_free(trainer);
    return tok;
}

/* The documents, learned text in brackets: "<s>ab[cd</s>]|<s>..." */
static void show(const du_examples *e, const du_tokenizer *tok, du_str *out) {
    size_t start = 0;
    assert_int_equal(e->counts.len, e->n > 0 ? e->ids.n : 0);
    for (size_t d = 0; d < e->n; d++) {
        du_str_add_s(out, d > 0 ? "|" : "");
        bool open = false;
        for (size_t i = start; i < e->ends[d]; i++) {
            bool counts = e->counts.data[i] == 1;
            assert_true(counts || e->counts.data[i] == 0);
            du_str_add_s(out, counts == open ? "" : counts ? "[" : "]");
            open = counts;
            du_str_add_sv(out, du_tokenizer_piece(tok, e->ids.ids[i], DU_DECODE_SPECIAL));
        }
        du_str_add_s(out, open ? "]" : "");
        start = e->ends[d];
    }
}

static const char plain_template[] = "{{ bos }}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
                                     "{% if m.role == 'assistant' %}</s>\n{% endif %}{% endfor %}"
                                     "{% if add_generation_prompt %}<assistant>{% endif %}";

/* As models ship them: earlier turns lose their reasoning, the prompt opens a block of it. */
static const char reasoning_template[] =
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('/')[-1] }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>({% endif %}";

typedef struct {
    const char *json, *template, *want;
} example;

static const example examples[] = {
    {"{\"text\": \"abc\"}", NULL, "<s>[abc</s>]"},
    {"{\"text\": \"\\ud55c\\uae00 <user>\"}", NULL, "<s>[한글 <user></s>]"}, /* no token: a text */
    {"{\"text\": \"\"}", NULL, ""},
    {"{\"prompt\": \"1+1=\", \"response\": \"2\"}", NULL, "<s>1+1=[2</s>]"},
    {"{\"prompt\": \"\", \"response\": \"2\"}", NULL, "<s>[2</s>]"},
    {"{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", "
     "\"content\": \"yo\"}]}",
     plain_template, "<s><user>hi<assistant>[yo</s>]\n</s>"},
    {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
     "\"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", "
     "\"content\": \"d\"}, {\"role\": \"user\", \"content\": \"e\"}]}",
     plain_template, "<s><user>a<assistant>[b</s>]\n<user>c<assistant>[d</s>]\n</s>"},
    {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", plain_template, ""},
    {"{\"messages\": [{\"role\": \"assistant\", \"content\": \"b\"}]}", plain_template,
     "<s><assistant>[b</s>]\n</s>"},
    {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
     "\"content\": \"(r/b\"}]}",
     reasoning_template, "<s><user>a<assistant>([r/b</s>]"},
    /* A prompt that the template does not go on with: what both begin with is the prompt. */
    {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
     "\"content\": \"b\"}]}",
     reasoning_template, "<s><user>a<assistant>[b</s>]"},
    /* Each turn as it is seen when it is written. */
    {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
     "\"content\": \"(r/b\"}, {\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", "
     "\"content\": \"(s/d\"}]}",
     reasoning_template,
     "<s><user>a<assistant>([r/b</s>]|<s><user>a<assistant>b<user>c<assistant>([s/d</s>]"},
    {"{\"messages\": [{\"role\": \"user\", \"content\": \"\"}, {\"role\": \"assistant\", "
     "\"content\": \"\\ud55c\"}, {\"role\": \"assistant\", \"content\": \"\\ud56c\"}]}",
     "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}\xed\x95\x9d"
     "{% endif %}",
     "<s>[한핬</s>]"},
};

static du_err run(const example *e, const du_tokenizer *tok, du_str *out, uint64_t *hash,
                  du_diag *diag) {
    test_tmp tmp = test_tmp_make();
    test_tmp_write(&tmp, "r.jsonl", e->json, strlen(e->json));
    const char *path = test_tmp_file(&tmp, "r.jsonl");
    du_docs *docs = NULL;
    du_doc_batch batch = {0};
    du_record record = {0};
    du_chat *chat = NULL;
    du_examples made = {0};
    json_t *vars = json_pack("{s:s}", "bos", "<s>");
    du_docs_params in = {.paths = &path, .n_paths = 1};
    du_err err = vars ? du_docs_open(&docs, &in, diag) : DU_ENOMEM;
    err = err ? err : du_docs_read(docs, &batch, 1 << 20, diag);
    err = err ? err : du_record_open(&record, docs, &batch, 0, diag);
    if (err == DU_OK && e->template) {
        err = du_chat_open(&chat, e->template, strlen(e->template), "t", diag);
    }
    du_example_params params = {tok, chat, vars};
    err = err ? err : du_examples_add(&made, &params, &record, true, true, diag);
    if (err == DU_OK) {
        show(&made, tok, out);
        *hash = made.hash;
        err = out->failed ? DU_ENOMEM : DU_OK;
    }
    du_examples_done(&made);
    du_record_close(&record);
    du_chat_close(chat);
    du_doc_batch_done(&batch);
    du_docs_close(docs);
    json_decref(vars);
    test_tmp_remove(&tmp);
    return err;
}

static void answers_count(void **state) {
    (void)state;
    du_tokenizer *tok = byte_tokenizer();
    du_diag diag;
    du_diag_reset(&diag);
    uint64_t hashes[sizeof examples / sizeof examples[0]];
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        du_str out = {0};
        assert_ok(run(&examples[i], tok, &out, &hashes[i], &diag), &diag);
        assert_string_equal(du_str_get(&out), examples[i].want);
        du_str_done(&out);
    }
    assert_true(hashes[0] != hashes[1] && hashes[3] != hashes[4] && hashes[5] != hashes[6]);
    du_tokenizer_free(tok);
}

static void chats_need_a_template(void **state) {
    (void)state;
    du_tokenizer *tok = byte_tokenizer();
    du_diag diag;
    du_str out = {0};
    uint64_t hash;
    example e = {examples[5].json, NULL, ""};
    assert_fails(run(&e, tok, &out, &hash, &diag), DU_EUNSUPPORTED, &diag, "need a chat template");
    e.template = "{{ raise_exception('no such role') }}";
    assert_fails(run(&e, tok, &out, &hash, &diag), DU_EINVAL, &diag, "no such role");
    du_tokenizer_free(tok);
}

static void survives_short_memory(void **state) {
    (void)state;
    du_tokenizer *tok = byte_tokenizer();
    du_diag diag;
    du_str out = {0};
    uint64_t hash;
    du_diag_reset(&diag);
    assert_ok(run(&examples[11], tok, &out, &hash, &diag), &diag); /* what a tokenizer keeps */
    du_str_done(&out);
    int64_t n_live = du_mem_get_stats().n_live;
    for (int64_t n = 1;; n++) {
        du_diag_reset(&diag);
        du_mem_fail_at(n, false);
        du_err err = run(&examples[11], tok, &out, &hash, &diag);
        du_mem_fail_at(0, false);
        if (err == DU_OK) {
            assert_string_equal(du_str_get(&out), examples[11].want);
            assert_true(n > 50);
            du_str_done(&out);
            break;
        }
        assert_int_equal(err, DU_ENOMEM);
        du_str_done(&out);
        assert_int_equal(du_mem_get_stats().n_live, n_live);
    }
    du_tokenizer_free(tok);
}

int main(void) {
    du_json_use_counted_heap();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_count),
        cmocka_unit_test(chats_need_a_template),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
