/* Loading: what a file may hold and lack, on a model of one layer written here. */
#include "test.h"
#include "tmp.h"

#include <math.h>

#include "formats/gguf_write.h"
#include "infer/session.h"

/* A llama of one layer; every weight is a tenth of a sine of its number. */
typedef struct {
    int64_t D, H, Dh, F, V; /* Dh 0: the file does not say it */
    const char *extra;      /* one more tensor of D numbers, or NULL */
    const char *flat;       /* a matrix that is written with one dimension, or NULL */
} shape;

static const shape plain = {.D = 16, .H = 2, .Dh = 8, .F = 24, .V = 20};

typedef struct {
    const char *name;
    int64_t rows, cols; /* cols 0: a vector */
} tensor;

static void write_model(const char *path, const shape *s) {
    int64_t Dh = s->Dh ? s->Dh : s->D / s->H;
    const tensor tensors[] = {
        {"token_embd.weight", s->V, s->D},
        {"output_norm.weight", s->D, 0},
        {"blk.0.attn_norm.weight", s->D, 0},
        {"blk.0.attn_q.weight", s->H * Dh, s->D},
        {"blk.0.attn_k.weight", s->H * Dh, s->D},
        {"blk.0.attn_v.weight", s->H * Dh, s->D},
        {"blk.0.attn_output.weight", s->D, s->H * Dh},
        {"blk.0.ffn_norm.weight", s->D, 0},
        {"blk.0.ffn_gate.weight", s->F, s->D},
        {"blk.0.ffn_up.weight", s->F, s->D},
        {"blk.0.ffn_down.weight", s->D, s->F},
        {s->extra, s->D, 0},
    };
    size_t n = sizeof tensors / sizeof *tensors - (s->extra ? 0 : 1);
    du_diag diag;
    du_diag_reset(&diag);
    du_gguf_writer *w;
    assert_ok(du_gguf_writer_new(&w, &diag), &diag);
    du_gguf_put_str(w, "general.architecture", du_sv_of("llama"));
    du_gguf_put_u32(w, "llama.block_count", 1);
    du_gguf_put_u32(w, "llama.embedding_length", (uint32_t)s->D);
    du_gguf_put_u32(w, "llama.feed_forward_length", (uint32_t)s->F);
    du_gguf_put_u32(w, "llama.attention.head_count", (uint32_t)s->H);
    if (s->Dh > 0) {
        du_gguf_put_u32(w, "llama.attention.key_length", (uint32_t)s->Dh);
        du_gguf_put_u32(w, "llama.attention.value_length", (uint32_t)s->Dh);
    }
    for (size_t i = 0; i < n; i++) {
        const tensor *t = &tensors[i];
        int64_t dims[2] = {t->cols ? t->cols : t->rows, t->rows};
        if (s->flat && strcmp(s->flat, t->name) == 0) {
            dims[0] = t->rows * t->cols;
            du_gguf_put_tensor(w, t->name, DU_F32, 1, dims);
        } else {
            du_gguf_put_tensor(w, t->name, DU_F32, t->cols ? 2 : 1, dims);
        }
    }
    assert_ok(du_gguf_writer_begin(w, path, &diag), &diag);
    for (size_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < tensors[i].rows * (tensors[i].cols ? tensors[i].cols : 1); k++) {
            float v = (tensors[i].cols ? 0.0f : 1.0f) + 0.1f * sinf((float)k);
            du_gguf_write(w, &v, sizeof v);
        }
    }
    assert_ok(du_gguf_writer_commit(w, &diag), &diag);
    du_gguf_writer_close(w);
}

static du_err open_shape(du_model **model, const shape *s, du_diag *diag) {
    test_tmp tmp = test_tmp_make();
    write_model(test_tmp_file(&tmp, "m.gguf"), s);
    du_diag_reset(diag);
    du_err err = du_model_open(model, test_tmp_file(&tmp, "m.gguf"), diag);
    test_tmp_remove(&tmp);
    return err;
}

static void what_nobody_uses_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool refused;
    } cases[] = {
        {NULL, false},
        {"blk.0.attn_q.bias", true},
        {"blk.0.attn_q_norm.weight", true},
        {"blk.0.post_attention_norm.weight", true},
        {"output.bias", true},
        {"blk.1.attn_norm.weight", false}, /* behind the trunk */
        {"blk.0.attn_rot_embd.weight", false},
        {"position_notes", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        shape s = plain;
        s.extra = cases[i].name;
        du_diag diag;
        du_model *model;
        du_err err = open_shape(&model, &s, &diag);
        if (cases[i].refused) {
            assert_int_equal(err, DU_EUNSUPPORTED);
            assert_non_null(strstr(diag.msg, cases[i].name));
        } else {
            assert_ok(err, &diag);
            du_model_close(model);
        }
    }
}

/* Rows of one number each are rows like others, and computed by several threads. */
static void one_column_is_a_matrix(void **state) {
    (void)state;
    shape s = {.D = 1, .H = 1, .Dh = 2, .F = 64, .V = 20};
    du_diag diag;
    du_model *model;
    assert_ok(open_shape(&model, &s, &diag), &diag);
    assert_int_equal(model->top.embed.row_bytes, sizeof(float));
    float row;
    du_mat_unpack_row(&row, &model->top.embed, 3);
    assert_true(row == 0.1f * sinf(3));
    du_infer *inf;
    du_session *session;
    static const int32_t ids[] = {3, 1, 4, 1, 5, 9, 2, 6};
    du_infer_params params = {.auto_cache = true, .n_threads = 3, .n_ctx = 64};
    assert_ok(du_infer_new(&inf, model, &params, &diag), &diag);
    assert_ok(du_session_new(&session, inf, &diag), &diag);
    assert_ok(du_session_sync(session, ids, 8, NULL, NULL, &diag), &diag);
    assert_true(isfinite(du_session_logits(session)[7]));
    du_session_free(session);
    du_infer_free(inf);
    du_model_close(model);

    s.flat = "token_embd.weight";
    assert_int_equal(open_shape(&model, &s, &diag), DU_EFORMAT);
    assert_non_null(strstr(diag.msg, "token_embd.weight"));
}

static void absurd_heads_are_refused(void **state) {
    (void)state;
    du_diag diag;
    du_model *model;
    shape wide = {.D = 2050, .H = 1, .Dh = 0, .F = 1, .V = 1};
    assert_int_equal(open_shape(&model, &wide, &diag), DU_EFORMAT);
    assert_non_null(strstr(diag.msg, "width of a head"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_nobody_uses_is_refused),
        cmocka_unit_test(one_column_is_a_matrix),
        cmocka_unit_test(absurd_heads_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
